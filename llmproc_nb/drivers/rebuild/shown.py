"""What a message says of labels and of what its reader was shown of fds: read back from its words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmproc_nb.core.message import Message, Text, parts_of
from llmproc_nb.core.process import Process
from llmproc_nb.core.syscall import fd_rules

_LABEL = re.compile(r"\[msg_\d{1,9}\] ")
_SHOWN = re.compile(r'(?:\[msg_\d{1,9}\] )?<fd_(result|input|content) fd="fd:(\d{1,9})"(?:[^<>]*? chars="(\d{1,12})(?:-(\d{1,12}))?")?')


def unlabelled(text: str) -> str:
    """A message of a user without the label that a model sees before it."""
    return _LABEL.sub("", text, count=1) if _LABEL.match(text) else text


def mark_shown(process: Process, message: Message) -> None:
    """Remember what a message showed of a process's fds."""
    rules = fd_rules(process.program)
    for number, start, stop in shown(message, rules.max_input_chars if rules is not None else 0):
        if number in process.fds:
            process.fds.mark_read(number, start, process.fds.get(number).span("page", 1, 1)[1] if stop is None else stop)


def shown(message: Message, max_input_chars: int) -> Iterator[tuple[int, int, int | None]]:
    """The fds of which a message shows a part, with the range of characters; an end of None is that of the first page."""
    if message.role not in ("tool", "user"):
        return
    for part in parts_of(message):
        found = _SHOWN.match(part.text) if isinstance(part, Text) else None
        if found is None:
            continue
        if found[1] == "content" and found[3]:
            yield int(found[2]), int(found[3]) - 1, int(found[4] or found[3])
        elif found[1] != "content":
            yield int(found[2]), 0, None if found[1] == "result" else max_input_chars // 20
