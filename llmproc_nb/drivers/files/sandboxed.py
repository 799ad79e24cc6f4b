"""[sandbox]: where the code that a model writes runs, and what it may do there.

Not here: how that is done (the sandbox driver).

[sandbox]
tier = "namespaces"         # namespaces | landlock | process: the confinement there must be
on_fork = "fork"            # fork | fresh | replay | share: what a child begins with
files = ["data/*.csv"]      # copied into the working folder at the start
"""

from __future__ import annotations

from importlib import import_module
from typing import get_args

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.sandbox import OnFork, SandboxRules, Tier
from llmproc_nb.drivers.files.table import Table

NUMBERS = {"cpu_s": 1, "memory_mb": 64, "disk_mb": 1, "processes": 1, "output_mb": 1, "checkpoints": 0, "checkpoints_mb": 1}
"""The whole numbers, with the least that each may be."""


def sandbox(table: Table | None) -> SandboxRules | None:
    """The rules of a [sandbox] table; None where there is none."""
    if table is None:
        return None
    given = {
        "tier": table.choice("tier", get_args(Tier)),
        "on_fork": table.choice("on_fork", get_args(OnFork)),
        "kernel": table.text("kernel"),
        "files": table.texts("files"),
        "variables": table.texts("variables"),
        "hosts": table.texts("hosts"),
        "env": table.text_map("env", secret=True),
        "timeout_s": table.number("timeout_s"),
        **{name: table.integer(name, least=least) for name, least in NUMBERS.items()},
    }
    if given["timeout_s"] == 0:
        table.error("timeout_s", "found the number 0", right="a number of seconds above 0 is needed")
        given["timeout_s"] = None
    for host in table.texts("hosts"):
        try:
            import_module("llmproc_nb.drivers.sandbox.proxy").allowed(host)  # by name: no driver imports another
        except ProgramError as error:
            table.error("hosts", error.found, right=error.right)
    table.finish()
    return SandboxRules(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
