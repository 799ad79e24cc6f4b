"""Server-sent events from the bytes of a response, whatever the cuts between them; and JSON that is not quite JSON.

Here: bytes to events. Not here: what the events mean (responses, chat) and where the bytes come from (client).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import msgspec

from llmproc_nb.core.errors import GarbledReply
from llmproc_nb.core.message import clean

_SPACE = b" \t\r\n\xef\xbb\xbf"


class Lines:
    """Lines from pieces of bytes; a line end may be LF, CR or CRLF, and a cut may fall anywhere."""

    def __init__(self) -> None:
        self._open: list[bytes] = []
        self._after_cr = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The lines that are whole now, without their ends."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        if not piece:
            return
        self._after_cr = piece.endswith(b"\r")
        lines = piece.splitlines(keepends=True)
        rest = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        for line in lines:
            # only the first line can have a beginning in earlier pieces
            whole = b"".join((*self._open, line)) if self._open else line
            self._open.clear()
            yield whole.rstrip(b"\r\n")
        if rest:
            self._open.append(rest)

    def end(self) -> bytes:
        """What was left without a line end."""
        return b"".join(self._open)


async def events(pieces: AsyncIterator[bytes], *, place: str) -> AsyncGenerator[tuple[str, bytes], None]:
    """(event name, data) of each event; a body that is one JSON object comes as one event without a name.

    An event that the end of the stream leaves without its blank line is given too. Raises GarbledReply for a body that is neither.
    """
    head = b""
    async for piece in pieces:
        head += piece
        if head.strip(_SPACE):
            break
    first = head.lstrip(_SPACE)
    if not first:
        raise GarbledReply("the answer is empty", place=place)
    if first[:1] in (b"{", b"["):
        whole = [first]
        async for piece in pieces:
            whole.append(piece)
        yield "", b"".join(whole)
        return
    if first[:1] == b"<":
        raise GarbledReply("the answer is HTML, not JSON", place=place, step="Check the base_url.")
    lines, event = Lines(), Event()
    for line in lines.feed(first):
        if event.add(line):
            yield event.take()
    async for piece in pieces:
        for line in lines.feed(piece):
            if event.add(line):
                yield event.take()
    event.add(lines.end())
    if event.data:
        yield event.take()


class Event:
    """The event that is being read, line by line."""

    __slots__ = ("data", "name")

    def __init__(self) -> None:
        self.name, self.data = "", list[bytes]()

    def add(self, line: bytes) -> bool:
        """Take one line; True when it was the blank one that ends an event with data."""
        if not line:
            return bool(self.data)
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self.data.append(value)
        elif field == b"event":
            self.name = value.decode("utf-8", "replace")
        return False

    def take(self) -> tuple[str, bytes]:
        taken = self.name, b"\n".join(self.data)
        self.name, self.data = "", []
        return taken


def decode(data: bytes, *, place: str) -> Any:
    """The JSON value of an event's data. Lone surrogates become U+FFFD; what cannot be read raises GarbledReply."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _decode_leniently(data, place)
    except RecursionError:
        raise GarbledReply("an event is nested too deeply", place=place) from None


def _decode_leniently(data: bytes, place: str) -> Any:
    """The standard library reads lone surrogates and NaN, which some servers send."""
    try:
        return _clean(json.loads(data.decode("utf-8", "replace")))
    except RecursionError:
        raise GarbledReply("an event is nested too deeply", place=place) from None
    except ValueError as error:
        start = data[:60].decode("utf-8", "replace")
        raise GarbledReply(f"an event is no JSON ({error}): {clean(start)!r}", place=place) from error


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): _clean(item) for key, item in value.items()}
    return value
