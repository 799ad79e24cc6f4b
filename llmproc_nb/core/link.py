"""Linked programs of a process: which one a name means, and a child with another program."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.field import check_text
from llmproc_nb.core.program import Program
from llmproc_nb.core.tool import Access

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process


def linked_program(process: Process, name: Program | str) -> Program:
    """The program that a link of the process's program leads to, as it was when the process started; the own one for an empty name.

    A program is itself. Raises ToolError, which lists the links there are.
    """
    if isinstance(name, Program):
        return name
    check_text("spawn", "program", name, "a Program(…), or the name of a link, is needed")
    links = process.program.linked
    if not name or (name == process.program.name and name not in links):
        return process.program
    if name not in links:
        near = difflib.get_close_matches(name, links, 1)
        known = ", ".join(f"{key} ({link.description})" if link.description else key for key, link in links.items()) or "none"
        right = f"did you mean {near[0]!r}?" if near else f"programs: {known}; or leave it empty"
        raise ToolError(f"there is no program {name!r:.80}", right=right)
    return links[name].program or process.linked[process.machine.drivers.link_path(process.program, links[name])]


def spawned(
    process: Process,
    program: Program,
    name: str,
    *,
    preload: Sequence[str] = (),
    fds: Sequence[str] = (),
    access: Access | None = None,
    by_model: bool = False,
) -> Process:
    """A child with another program, with files to read at its start and fds of its parent. Raises LimitReached, ProgramError, ToolError."""
    given = [process.fds.get(one) for one in fds]
    if preload:
        program = process.machine.drivers.preload(program, process.program.base_dir, tuple(preload))
    fields: dict[str, Any] = {"access": access, "by_model": by_model, "linked": process.linked}
    child = process.machine.start(program, name=name, parent=process, origin="spawn", **fields)
    for fd in given:
        child.take_fd(process, fd)
    if not process.alive:  # killed while the child was being made, which takes its time
        child.kill()
        process.check_alive()
    return child
