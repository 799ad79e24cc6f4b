"""Server-sent events from bytes that come in pieces. Pure.

Here: the reader, and the patience for data that is no strict JSON. Not here: what the events mean (stream).
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

import msgspec

from llmproc_nb.core.errors import GarbledReply
from llmproc_nb.core.message import clean

Event = dict[str, Any]

_MOST_STRAY = 1_000_000
_decode = msgspec.json.Decoder().decode


class EventReader:
    """Server-sent events from pieces of bytes that may be cut anywhere.

    `stray` keeps the first bytes that belong to no event: what a proxy said instead of a stream.
    """

    def __init__(self) -> None:
        self.stray = b""
        self._pieces: list[bytes] = []
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes."""
        if b"\n" not in piece and b"\r" not in piece:
            self._pieces.append(piece)
            return []
        text = b"".join((*self._pieces, piece))
        if b"\r" in text:
            held = text.endswith(b"\r")  # its line feed may be the first byte of the next piece
            text = (text[:-1] if held else text).replace(b"\r\n", b"\n").replace(b"\r", b"\n") + (b"\r" if held else b"")
        *lines, rest = text.split(b"\n")
        self._pieces = [rest] if rest else []
        return self._events(lines)

    def end(self) -> list[Event]:
        """The event that was not ended by an empty line before the stream closed."""
        rest, self._pieces = b"".join(self._pieces), []
        return self._events([*rest.replace(b"\r", b"\n").split(b"\n"), b""])

    def _events(self, lines: list[bytes]) -> list[Event]:
        found = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:])
            elif line.startswith(b"event:"):
                self._name = line[6:].decode(errors="replace").strip()
            elif not line:
                if self._data and (event := _event(self._name, b"\n".join(self._data))) is not None:
                    found.append(event)
                self._name = ""
                self._data.clear()
            elif len(self.stray) < _MOST_STRAY and not line.startswith((b":", b"id:", b"retry:")):
                self.stray += line + b"\n"
        return found


def _event(name: str, data: bytes) -> Event | None:
    try:
        event = _decode(data)
    except (ValueError, RecursionError):
        event = _patient(name, data)
    if not isinstance(event, dict):
        return None  # "[DONE]" of a gateway and the like
    if name and "type" not in event:
        event["type"] = name
    return event


def _patient(name: str, data: bytes) -> Any:
    """Data that is no strict JSON: with lone surrogates, invalid UTF-8, or words of a proxy."""
    text = data.decode(errors="replace").strip()
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        if name == "error":
            return {"type": "error", "error": {"message": text[:300] or "an error event without words"}}
        if text == "[DONE]":
            return None
        raise GarbledReply(f"an event of the stream is no JSON: {text[:80]!r}") from None
    # the two halves of a character may come in two deltas: the draft joins these before it cleans
    return event if isinstance(event, dict) and event.get("type") == "content_block_delta" else cleaned(event)


def cleaned(value: Any) -> Any:
    """The value with texts that can be encoded, and null for what is no number in JSON."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): cleaned(item) for key, item in value.items()}
    return value
