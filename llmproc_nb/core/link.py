"""Linked programs of a process: which one a name means."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.program import Program

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process


def linked_program(process: Process, name: str) -> Program:
    """The program that a link of the process's program leads to, as it was when the process started; the own one for an empty name.

    Raises ToolError, which lists the links there are.
    """
    links = process.program.linked
    if not name or (name == process.program.name and name not in links):
        return process.program
    if name not in links:
        near = difflib.get_close_matches(name, links, 1)
        known = ", ".join(f"{key} ({link.description})" if link.description else key for key, link in links.items()) or "none"
        right = f"did you mean {near[0]!r}?" if near else f"programs: {known}; or leave it empty"
        raise ToolError(f"there is no program {name!r:.80}", right=right)
    return links[name].program or process.linked[process.machine.drivers.link_path(process.program, links[name])]
