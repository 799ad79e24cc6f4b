"""[sandbox]: where the code that a model writes runs, and what it may do there.

Not here: how that is done (the sandbox driver).

[sandbox]
tier = "namespaces"         # namespaces | landlock | process: the confinement there must be
on_fork = "fork"            # fork | fresh | replay | share: what a child begins with
files = ["data/*.csv"]      # copied into the working folder at the start
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from llmproc_nb.core.errors import ProgramError, ToolError
from llmproc_nb.core.sandbox import OnFork, SandboxRules, Tier
from llmproc_nb.drivers.files.path import near_file, place_of
from llmproc_nb.drivers.files.table import Table

MOST_LOOKED_AT = 100
NUMBERS = {"cpu_s": 1, "memory_mb": 64, "disk_mb": 1, "processes": 1, "output_mb": 1, "checkpoints": 0, "checkpoints_mb": 1}
"""The whole numbers, with the least that each may be."""


def sandbox(table: Table | None, folder: Path) -> SandboxRules | None:
    """The rules of a [sandbox] table; None where there is none. `folder` is the program's."""
    if table is None:
        return None
    hosts, readable = table.texts("hosts"), table.texts("readable")
    given = {
        "tier": table.choice("tier", get_args(Tier)),
        "on_fork": table.choice("on_fork", get_args(OnFork)),
        "kernel": table.text("kernel"),
        "files": table.texts("files"),
        "variables": table.texts("variables"),
        "readable": readable,
        "hosts": hosts,
        "env": table.text_map("env", secret=True),
        "timeout_s": table.number("timeout_s"),
        **{name: table.integer(name, least=least) for name, least in NUMBERS.items()},
    }
    if given["timeout_s"] == 0:
        table.error("timeout_s", "found the number 0", right="a number of seconds above 0 is needed")
        given["timeout_s"] = None
    for host in hosts:
        try:
            import_module("llmproc_nb.drivers.sandbox.proxy").allowed(host)  # by name: no driver imports another
        except ProgramError as error:
            table.error("hosts", error.found, right=error.right)
    for name in readable:
        _check_readable(table, name, folder)
    _note_missing(table, given, folder)
    table.finish()
    return SandboxRules(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _check_readable(table: Table, name: str, folder: Path) -> None:
    driver: Any = import_module("llmproc_nb.drivers.sandbox.files")  # by name: no driver imports another
    try:
        place = driver.place_of(name, folder)
        if why := driver.too_much(place):
            table.error("readable", f"{name!r} {why}", right="it names only what is needed")
        elif not Path(place).exists():
            table.note("missing", "readable", f"there is no {name!r}, so the sandbox will not start. {near_file(Path(place))}".strip())
    except (OSError, ValueError) as error:
        table.error("readable", f"{name[:200]!r} cannot be followed: {error}")


def _note_missing(table: Table, given: Mapping[str, Any], folder: Path) -> None:
    """Note files and a kernel that are not there now: the sandbox will not start, but the program may before they come."""
    driver = "llmproc_nb.drivers.sandbox"  # by name: no driver imports another
    for pattern in given["files"] or ():
        try:
            list(islice(import_module(f"{driver}.files").program_files(folder, (pattern,)), MOST_LOOKED_AT))
        except (ToolError, OSError, ValueError) as error:
            found = error.found if isinstance(error, ToolError) else f"{pattern!r} cannot be followed: {error}"
            path = place_of(pattern, folder)
            near = near_file(path) if path is not None and not path.exists() else ""
            table.note("missing", "files", f"{found}, so the sandbox will not start. {near}".strip())
    if given["kernel"]:
        try:
            import_module(f"{driver}.messages").find_spec(given["kernel"])
        except ToolError as error:
            table.note("missing", "kernel", f"{error.found}, so the sandbox will not start; {error.right}")
