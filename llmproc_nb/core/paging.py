"""When the texts of a process become fds: long results of tools, long prompts, references in its replies. And what the log is told of them.

Not here: the table and its pages (fd), what a model is shown of them (reading).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llmproc_nb.core import reading
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.event import FdOpened
from llmproc_nb.core.fd import Fd
from llmproc_nb.core.message import Message, Text
from llmproc_nb.core.syscall import fd_rules, read_fd
from llmproc_nb.core.tool import Paged, Place, ResultParts

if TYPE_CHECKING:
    from llmproc_nb.core.standing import Standing

LOGGED_CHARS = 4_000_000
"""Longer texts are not written into the log; they lie beside it under their digest."""
WORKER_CHARS = 500_000
"""Longer texts are indexed on a thread of their own."""


async def paged_result(process: Standing, parts: ResultParts, label: str, node: Node, position: int) -> ResultParts:
    """The parts of a tool's result, each text that is too long by its first page."""
    rules = fd_rules(process.program)
    if rules is None or not _reads_fds(process):
        return parts
    most, made = rules.max_direct_output_chars, []
    for part in parts:
        if not isinstance(part, Text) or len(part.text) <= most:
            made.append(part)
            continue
        text = part.text
        if len(text) > WORKER_CHARS:
            fd = await process.machine.owner.workers.run(partial(process.fds.open, text, label))
        else:
            fd = process.fds.open(text, label)
        log_fds(process, node, position)
        _mark_first(process, fd)
        made.append(msgspec.structs.replace(part, text=reading.fd_result(fd)))
    return tuple(made)


def file_part(process: Standing, path: Path, place: Place) -> Text:
    """The text of a file that is too long to hold, as an fd. Raises ToolError where the model could not read it."""
    if fd_rules(process.program) is None or not _reads_fds(process):
        raise ToolError(f"the file {path.name!r} is too long", right="a process that reads fds can page through it")
    fd = process.fds.open(process.machine.drivers.keep_file(path), f"file {path.name}")
    log_fds(process, place.node, place.position)
    _mark_first(process, fd)
    return Text(text=reading.fd_result(fd))


def rows_part(process: Standing, value: Paged, label: str, place: Place) -> Text:
    """A table as what is said of it, with all its rows as an fd where the model can read on."""
    if fd_rules(process.program) is None or not _reads_fds(process):
        return Text(text=value.said)
    fd = process.fds.open(value.pieces(), label, page_lines=value.page_lines)
    log_fds(process, place.node, place.position)
    return Text(text=f"{reading.fd_rows(fd, whole=value.whole)}\n{value.said}")


def _mark_first(process: Standing, fd: Fd) -> None:
    """Note that the model was shown the first page."""
    process.fds.mark_read(fd.number, *fd.span("page", 1, 1))


def paged_input(process: Standing, message: Message, *, dry: bool = False) -> Message:
    """What a person says, each text that is too long by its beginning, where the program pages input and the model can read on.

    `dry`: only to see what that would be; the process has no fd more afterwards.
    """
    rules = fd_rules(process.program)
    if rules is None or not rules.page_user_input or not _reads_fds(process):
        return message
    table, parts = process.fds.fork() if dry else process.fds, []
    for part in message.parts:
        if isinstance(part, Text) and len(part.text) > rules.max_input_chars:
            fd = table.open(part.text, "user_input")
            if not dry:
                log_fds(process)
            preview = rules.max_input_chars // 20
            table.mark_read(fd.number, 0, preview)
            part = msgspec.structs.replace(part, text=reading.fd_input(fd, preview))
        parts.append(part)
    return msgspec.structs.replace(message, parts=tuple(parts))


def open_references(process: Standing, text: str) -> None:
    """Make what a reply marked as `<ref id="x">` readable as `ref:x`."""
    rules = fd_rules(process.program)
    if rules is not None and rules.enable_references and "<ref" in text:
        for key, content in reading.references(text).items():
            process.open_fd(content, f"reference {key}", reference=key)


def log_fds(process: Standing, node: Node | None = None, position: int | None = None) -> None:
    """Write down the fds that were opened since the last time."""
    for fd in process.fds.unlogged():
        digest = fd.text.digest
        known = not process.machine.declare(f"fd {digest}")
        process.machine.log.write(
            FdOpened,
            pid=process.pid,
            number=fd.number,
            label=fd.label,
            chars=fd.text.chars,
            lines=fd.text.lines,
            digest=digest,
            page_chars=fd.page_chars,
            page_lines=fd.page_lines,
            text=None if known or fd.text.chars > LOGGED_CHARS else fd.text.slice(0, fd.text.chars),
            source=node.id if node is not None else None,
            position=position,
        )


def open_recorded(process: Standing, node: Node, position: int) -> None:
    """Open again, under their numbers, the fds that a recorded tool call had opened."""
    for opened, text in process.machine.recorded_fds(node.id, position, process.lineage):
        if opened.number not in process.fds:  # numbers are those that the recorded result names
            fields = {"page_lines": opened.page_lines, "number": opened.number}
            fd = process.fds.open(text, opened.label, opened.page_chars, **fields)  # type: ignore[arg-type]
            _mark_first(process, fd)
    log_fds(process, node, position)


def _reads_fds(process: Standing) -> bool:
    """Whether its model can read on: what it could not read must stay whole."""
    return any(tool.function is read_fd for tool in process.tools)
