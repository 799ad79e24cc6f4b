"""Attempts to break out of a sandbox. The files in ORDER, one after the other, are the text of a cell; `probe(name, facts)` makes one kind.

They import the standard library only, besides each other, and do no harm where they get through. `facts` come from the host
(drivers/sandbox/prove): where the baits are. A bait's text is never in them: what begins like one and goes on is one that was found.
"""

from __future__ import annotations

import re
from pathlib import Path

_OWN_IMPORTS = re.compile(r"^from (__future__|llmproc_nb\S*) import (\([^)]*\)|.*)$", re.MULTILINE)
ORDER = ("tried", "files", "network", "processes", "limits", "kernel", "kin")


def text() -> str:
    """The probes as the source of one cell."""
    sources = (Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in ORDER)
    return "from __future__ import annotations\n" + "".join(_OWN_IMPORTS.sub("", source) for source in sources)
