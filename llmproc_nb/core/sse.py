"""Server-sent events from the bytes of an answer, wherever they are cut; and JSON that is not quite JSON.

Pure. Not here: where the bytes come from and what the events mean (drivers).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from math import isfinite
from typing import Any

import msgspec

from llmproc_nb.core.errors import GarbledReply
from llmproc_nb.core.message import clean

_BEFORE = b" \t\r\n\xef\xbb\xbf"
_MOST_STRAY = 1000
_decode = msgspec.json.Decoder().decode


class EventReader:
    """Events as (name, data) from pieces of bytes that may be cut anywhere. A line may end in LF, CR or CRLF.

    A body that begins like JSON or HTML has no events: `other` is all of it. Of a stream, `other` is the first lines that belong to no
    event, which is what a proxy said instead.
    """

    def __init__(self) -> None:
        self.is_stream: bool | None = None
        self._open: list[bytes] = []
        self._other: list[bytes] = []
        self._after_cr = False
        self._names = {b"": ""}  # the lines before an event's data, as far as they are but its name

    @property
    def other(self) -> bytes:
        return b"".join(self._other)

    def feed(self, piece: bytes) -> list[tuple[str, bytes]]:
        """The events that this piece completes."""
        if self.is_stream is None:
            piece = b"".join((*self._other, piece)).lstrip(_BEFORE)
            self._other = []
            if not piece:
                return []
            self.is_stream = piece[:1] not in b"{[<"
        if not self.is_stream:
            self._other.append(piece)
            return []
        piece = self._with_line_feeds(piece)
        if b"\n\n" not in piece and not (piece.startswith(b"\n") and self._open and self._open[-1].endswith(b"\n")):
            if piece:
                self._open.append(piece)
            return []
        whole, _, rest = b"".join((*self._open, piece)).rpartition(b"\n\n")
        self._open = [rest] if rest else []
        return self._events(whole)

    def end(self) -> list[tuple[str, bytes]]:
        """The event that was not ended by an empty line before the stream closed."""
        rest, self._open = b"".join(self._open), []
        return self._events(rest)

    def _with_line_feeds(self, piece: bytes) -> bytes:
        if self._after_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" not in piece:
            return piece
        self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _events(self, text: bytes) -> list[tuple[str, bytes]]:
        events, names = [], self._names
        for block in text.split(b"\n\n"):
            head, found, data = block.partition(b"data:")
            name = names.get(head)
            if name is None and head.startswith(b"event:") and head.find(b"\n") == len(head) - 1:
                name = names[head] = _name(head[6:])
            if name is not None and found and b"\n" not in data:  # what nearly every event is: at most a name, and one line of data
                events.append((name, data.removeprefix(b" ")))
            elif block and (event := self._event(block)) is not None:
                events.append(event)
        return events

    def _event(self, block: bytes) -> tuple[str, bytes] | None:
        name, data = "", list[bytes]()
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = _name(value)
            elif field not in (b"", b"id", b"retry") and sum(map(len, self._other)) < _MOST_STRAY:
                self._other.append(line[:_MOST_STRAY] + b"\n")
        return (name, b"\n".join(data)) if data else None


def _name(value: bytes) -> str:
    return value.decode(errors="replace").strip()


def sample(body: bytes) -> str:
    """The beginning of a body, for an error."""
    text = " ".join(body[:400].decode(errors="replace").split())
    return repr(text[:80]) if text else "it is empty"


def decode(data: bytes, *, halves: Collection[str] = ()) -> Any:
    """The JSON value of an event's data. Raises GarbledReply where it is none.

    Some servers send lone surrogates, invalid UTF-8 and numbers that are none: these become U+FFFD and null. Texts under the keys in
    `halves` are left as they are, because the two halves of a character may come in two events.
    """
    try:
        return _decode(data)
    except (ValueError, RecursionError):
        pass
    text = data.decode(errors="replace")
    try:
        return cleaned(json.loads(text), halves)
    except RecursionError:
        raise GarbledReply("an event is nested too deeply") from None
    except ValueError as error:
        raise GarbledReply(f"an event is no JSON ({error}): {clean(text[:80])!r}") from None


def cleaned(value: Any, halves: Collection[str] = ()) -> Any:
    """The value with texts that can be encoded, and null for what is no number in JSON."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, list):
        return [cleaned(item, halves) for item in value]
    if isinstance(value, dict):
        return {clean(key): item if key in halves and isinstance(item, str) else cleaned(item, halves) for key, item in value.items()}
    return value
