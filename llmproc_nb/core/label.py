"""Numbers for the messages of one process: `msg_0` is the first after its system prompt. They only grow and are never used again.

Here: the numbers, and the labels that a model sees where it may go back. Not here: other kinds of addresses (address).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.message import AnyPart, Message, Text, ToolResult

_LABEL = re.compile(r"\A\[msg_\d{1,9}\] |\n\[msg_\d{1,9}\]\Z")


class Labels:
    """Nodes by number; `next` is the number of the next one.

    A fork sees the numbers its parent had given until then and goes on counting from there; nothing is copied.
    """

    __slots__ = ("_base", "_first", "_own", "next")

    def __init__(self, base: Labels | None = None) -> None:
        self._base = base
        self._own: dict[int, Node] | None = None
        self._first: int = base.next if base is not None else 0
        self.next: int = self._first

    def add(self, node: Node) -> int:
        number, self.next = self.next, self.next + 1
        if self._own is None:
            self._own = {}
        self._own[number] = node
        return number

    def fork(self) -> Labels:
        return Labels(self)

    def skip_to(self, number: int) -> None:
        """Let the next message get this number, where an earlier run had come so far."""
        self.next = max(self.next, number)

    def get(self, number: int) -> Node | None:
        table: Labels | None = self
        while table is not None and number < table._first:
            table = table._base
        return table._own.get(number) if table is not None and table._own else None

    def of(self, node: Node) -> int | None:
        """The newest number of a node."""
        return next((number for number, other in self.newest_first() if other is node), None)

    def newest_first(self) -> Iterator[tuple[int, Node]]:
        table: Labels | None = self
        below = self.next
        while table is not None:
            own = table._own or {}
            yield from ((number, own[number]) for number in range(below - 1, table._first - 1, -1) if number in own)
            below, table = table._first, table._base


def label(number: int) -> str:
    return f"msg_{number}"


def without_label(text: str) -> str:
    """The words of a message without the label a model saw on them, for places where the number stands beside them."""
    return _LABEL.sub("", text)


def labelled(message: Message, number: int) -> Message:
    """The message as a model that may go back sees it: what a user says begins with the label, answers of tools end with it."""
    text = f"[{label(number)}]"
    if message.role == "user":
        return msgspec.structs.replace(message, parts=_begun(message.parts, f"{text} "))
    last = message.parts[-1] if message.parts else None
    if message.role != "tool" or not isinstance(last, ToolResult):
        return message
    ended = msgspec.structs.replace(last, content=(*last.content, Text(text=text)))
    return msgspec.structs.replace(message, parts=(*message.parts[:-1], ended))


def _begun(parts: tuple[AnyPart, ...], words: str) -> tuple[AnyPart, ...]:
    first = parts[0] if parts else None
    if not isinstance(first, Text):
        return (Text(text=words.rstrip()), *parts)
    if first.text.startswith(words):  # a recorded message that is said again has its label already
        return parts
    return (msgspec.structs.replace(first, text=words + first.text), *parts[1:])
