"""Sandboxes: confined Python in processes of its own, whose live state can be kept and woken again.

    zygote (trusted, libraries loaded) ── forks ─→ keeper of a family ── forks ─→ shell ⇄ frozen copies

Here: what stands behind the door. Not here: what runs in these processes (llmproc_nb.inside).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from llmproc_nb.core.sandbox import SandboxRules
from llmproc_nb.drivers.sandbox.door import make
from llmproc_nb.drivers.sandbox.files import with_readable
from llmproc_nb.drivers.sandbox.prove import bounded, prove

__all__ = ["make", "proof"]


async def proof(rules: SandboxRules, *, base_dir: Path, environ: Mapping[str, str]) -> list[tuple[str, bool | None, str, str]]:
    """Each promise of a sandbox with these rules, as rows: its name, whether it is kept (None: not made), what was tried, what happened.

    All are tried now, in fresh sandboxes that may use less than the rules allow, so that filling one does not hurt the machine.
    """
    rules = await asyncio.to_thread(with_readable, bounded(rules), base_dir)
    door = make(rules, base_dir=base_dir, environ=environ)
    try:
        return [(one.promise, one.kept if one.promised else None, one.tried, one.happened) for one in await prove(door, rules)]
    finally:
        await door.close()
