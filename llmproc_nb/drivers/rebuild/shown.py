"""What a message says of labels and of what its reader was shown of fds: read back from its words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmproc_nb.core.message import Message, Text, parts_of
from llmproc_nb.core.process import Process
from llmproc_nb.core.reading import is_fd_input
from llmproc_nb.core.syscall import fd_rules

_LABEL = re.compile(r"\[msg_\d{1,9}\] ")
_SHOWN = re.compile(r'<fd_(result|content) fd="fd:(\d{1,9})"(?:[^<>]*? chars="(\d{1,12})(?:-(\d{1,12}))?")?')
_SAID = re.compile(r'^(?:\[msg_\d{1,9}\] )?<fd_input fd="fd:(\d{1,9})" type="', re.MULTILINE)


def unlabelled(text: str) -> str:
    """A message of a user without the label that a model sees before it."""
    return _LABEL.sub("", text, count=1) if _LABEL.match(text) else text


def says(process: Process, message: Message, words: str) -> bool:
    """Whether these words are what a message says, or what is in the fd that stands in their place."""
    text = unlabelled(message.text)
    found = _SAID.match(text) if is_fd_input(text) else None
    if found is None or int(found[1]) not in process.fds:
        return text == words
    whole = process.fds.get(int(found[1])).text
    return whole.chars == len(words) and whole.slice(0, whole.chars) == words


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
        if not isinstance(part, Text):
            continue
        if message.role == "user":
            yield from ((int(found[1]), 0, max_input_chars // 20) for found in _SAID.finditer(part.text))
        elif (found := _SHOWN.match(part.text)) is not None and found[1] == "result":
            yield int(found[2]), 0, None
        elif found is not None and found[3]:
            yield int(found[2]), int(found[3]) - 1, int(found[4] or found[3])
