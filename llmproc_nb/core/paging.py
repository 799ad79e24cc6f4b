"""When the texts of a process become fds: long results of tools, long prompts, references in its replies. And what the log is told of them.

Not here: the table and its pages (fd), what a model is shown of them (reading).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llmproc_nb.core import reading
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.event import FdOpened
from llmproc_nb.core.fd import Fd
from llmproc_nb.core.message import Document, Image, Message, Text, clean
from llmproc_nb.core.program import FdRules
from llmproc_nb.core.syscall import fd_rules
from llmproc_nb.core.tool import Paged, Place, ResultParts, Shown

if TYPE_CHECKING:
    from llmproc_nb.core.standing import Standing

LOGGED_CHARS = 4_000_000
"""Longer texts are not written into the log; they lie beside it under their digest."""
WORKER_CHARS = 500_000
"""Longer texts are indexed on a thread of their own."""


async def paged_result(process: Standing, parts: Iterable[Shown], label: str, node: Node, position: int) -> ResultParts:
    """The parts of a tool's result; each that is too long has its beginning, or what is said of it, and all of it as an fd."""
    rules, made = _read_rules(process), list[Text | Image | Document]()
    for part in parts:
        if isinstance(part, Paged):
            made.append(await process.machine.owner.workers.run(partial(paged_part, process, part, label, node, position)))
        elif rules is not None and isinstance(part, Text) and len(part.text) > rules.max_direct_output_chars:
            made.append(await _paged_text(process, part, label, node, position))
        else:
            made.append(part)
    return tuple(made)


async def _paged_text(process: Standing, part: Text, label: str, node: Node, position: int) -> Text:
    if len(part.text) > WORKER_CHARS:
        fd = await process.machine.owner.workers.run(partial(process.fds.open, part.text, label))
    else:
        fd = process.fds.open(part.text, label)
    log_fds(process, node, position)
    return msgspec.structs.replace(part, text=_first_page(process, fd))


def file_part(process: Standing, path: Path, place: Place) -> Text:
    """The text of a file that is too long to hold, as an fd. Raises ToolError where the model could not read it."""
    if _read_rules(process) is None:
        raise ToolError(f"the file {path.name!r} is too long", right="a process that reads fds can page through it")
    fd = process.fds.open(process.machine.drivers.keep_file(path), f"file {path.name}")
    log_fds(process, place.node, place.position)
    return Text(text=_first_page(process, fd))


def paged_part(process: Standing, value: Paged, label: str, node: Node, position: int) -> Text:
    """A value that may be too long: whole where it is not, else as an fd with what is said of it, or with its first page."""
    rules = _read_rules(process)
    if rules is None or (value.complete and len(value.direct) <= rules.max_direct_output_chars):
        return _unpaged(value)
    fd = process.fds.open(map(clean, value.pieces()), label, page_lines=value.page_lines)
    log_fds(process, node, position)
    if value.page_lines is None:
        return Text(text=_first_page(process, fd))
    words = reading.fd_rows(fd, whole=value.whole)
    return Text(text=f"{words}\n{reading.begun(value.said, rules.max_direct_output_chars - len(words))}")


def in_place(part: Shown) -> Text | Image | Document:
    """What stands in the place of a value that is not paged."""
    return _unpaged(part) if isinstance(part, Paged) else part


def _unpaged(value: Paged) -> Text:
    return Text(text=clean(value.direct or value.said))


def _first_page(process: Standing, fd: Fd) -> str:
    """The first page in place; the model is shown it."""
    _mark_first(process, fd)
    return reading.fd_result(fd)


def _mark_first(process: Standing, fd: Fd) -> None:
    """Note that the model was shown the first page."""
    process.fds.mark_read(fd.number, *fd.span("page", 1, 1))


def paged_input(process: Standing, message: Message, label: str = reading.PERSON, *, dry: bool = False) -> Message:
    """What is said to a process, each text that is too long by its beginning, where its program pages input and its model can read on.

    Whoever appends the message writes down its fds (`log_fds`). `dry`: only to see what it would be; the process has no fd more afterwards.
    """
    rules = _read_rules(process)
    if rules is None or not rules.page_user_input or message.role != "user":
        return message
    table, parts = process.fds.fork() if dry else process.fds, []
    for part in message.parts:
        if isinstance(part, Text) and len(part.text) > rules.max_input_chars and not reading.is_fd_input(part.text):
            fd = table.open(clean(part.text), label)
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
    for opened, text in process.machine.recorded.fds(node.id, position, process.lineage):
        if opened.number not in process.fds:  # numbers are those that the recorded result names
            fields = {"page_lines": opened.page_lines, "number": opened.number}
            fd = process.fds.open(text, opened.label, opened.page_chars, **fields)  # type: ignore[arg-type]
            if fd.page_lines is None:
                _mark_first(process, fd)
    log_fds(process, node, position)


def _read_rules(process: Standing) -> FdRules | None:
    """When its texts become fds that its model can read; None where it cannot read on: what it could not read must stay whole."""
    return fd_rules(process.program) if process.reads_fds else None
