"""What `%sandbox` shows: variables, files and cells of a sandbox, and whether its promises hold."""

from __future__ import annotations

from typing import Any

from llmproc_nb.core.process import Process
from llmproc_nb.core.visible import one_line
from llmproc_nb.notebook.facts import Facts, Table
from llmproc_nb.notebook.table import table_html

MAX_ROWS, MAX_CHARS = 200, 90
_WORDS = {True: "yes", False: "NO", None: "not promised"}


class SandboxView:
    """The sandbox of a process where it stands now. `variables` and `files` are tables."""

    def __init__(self, process: Process) -> None:
        sandbox, rules = process.sandbox, process.sandbox.rules
        self.process = process
        found = sandbox.look()
        cells = sandbox.cells
        variables = sorted((one for one in found.variables if one.kind != "module"), key=lambda one: one.name)
        rows = [(one_line(one.name, 80), one_line(one.kind, 40), one_line(one.said, 80)) for one in variables]
        self.variables = Table(("variable", "type", ""), rows)
        self.files = Table(("file", "bytes"), [(one_line(path, 120), f"{size:,}") for path, size in found.files])
        self.facts = Facts(
            {
                "sandbox of": process.name,
                "confined by": (rules.kernel and f"{rules.tier}, kernel {rules.kernel}") or rules.tier,
                "cells": f"{len(cells)} on the path to where it stands",
                "when it forks": "replay" if rules.kernel and rules.on_fork == "fork" else rules.on_fork,
                **({"shown read-only": ", ".join(rules.readable)} if rules.readable else {}),
                "network": ", ".join(rules.hosts) or "none",
                "limits": f"{rules.timeout_s:g} s a cell, {rules.memory_mb:,} MB of memory, {rules.disk_mb:,} MB of files",
            }
        )

    def _tables(self) -> list[Table]:
        return [table for table in (self.variables, self.files) if table.rows]

    def __repr__(self) -> str:
        return "\n\n".join([repr(self.facts), *(repr(table) for table in self._tables())])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        html = [
            self.facts._repr_mimebundle_()["text/html"],
            *(table_html(table.rows[:MAX_ROWS], table.columns) for table in self._tables()),
        ]
        return {"text/plain": repr(self), "text/html": "\n".join(html)}


def status_table(process: Process) -> Table:
    """Each promise of the sandbox's confinement, tried just now: what was tried, what happened, and whether it is kept."""
    found = process.machine.owner.wait(process.machine.drivers.proof(process.program))
    rows = [(promise, _WORDS[kept], one_line(tried, MAX_CHARS), one_line(came, MAX_CHARS)) for promise, kept, tried, came in found]
    return Table(("promise", "kept", "tried", "what happened"), rows)
