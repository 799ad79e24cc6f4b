"""What a shell says, read strictly: anything else is no message. All of it is hostile."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Annotated, Any, Literal

import msgspec

from llmproc_nb.core.sandbox import Look

MOST_DEPTH = 200
"""How deep data may be nested: what can just be read could not be written to the log any more."""
MOST_PARTS = 1_000_000
"""Lists and dicts in the data of an output. Each takes some 60 bytes of memory, an empty one two of text."""
MOST_NUMBERS = 1 << 24
"""Bytes in such data besides its strings: a number takes some 32 bytes of memory."""
MOST_LISTED = 1000
MOST_LOOK, MOST_LOOK_PARTS = 1 << 25, 100_000
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}

Short = Annotated[str, msgspec.Meta(max_length=2000)]


class Hello(msgspec.Struct, tag_field="op", tag="hello", frozen=True):
    """It can take requests."""


class Shown(msgspec.Struct, tag_field="op", tag="output", frozen=True):
    """An output; its data is the body."""

    kind: Literal["display_data", "execute_result", "error"]
    display_id: Short = ""
    update: bool = False


class Cleared(msgspec.Struct, tag_field="op", tag="clear", frozen=True):
    """What the cell has shown is cleared; with `wait` when the next output comes."""

    wait: bool


class Done(msgspec.Struct, tag_field="op", tag="done", frozen=True):
    """A cell is over."""

    n: int
    status: Literal["ok", "error", "interrupted"]
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    notes: Annotated[list[Short], msgspec.Meta(max_length=20)] = []


class Kept(msgspec.Struct, tag_field="op", tag="kept", frozen=True):
    """There is a copy now."""

    n: int


class Answer(msgspec.Struct, tag_field="op", tag="answer", frozen=True):
    """What was asked of the state; its data is the body."""

    n: int
    error: Annotated[str, msgspec.Meta(max_length=10_000)] = ""
    kind: Literal["", "frame", "json"] = ""


class Ended(msgspec.Struct, tag_field="op", tag="ended", frozen=True):
    """A process that went out of this one has ended."""

    pid: int
    how: Short


class ErrorShown(msgspec.Struct, frozen=True):
    """The body of an output that is an error."""

    name: str
    text: str
    trace: list[str]


class Size(msgspec.Struct, tag_field="op", tag="size", frozen=True):
    """What memory a frozen copy has for itself."""

    mb: Annotated[float, msgspec.Meta(ge=0)]


class Failed(msgspec.Struct, tag_field="op", tag="failed", frozen=True):
    """A copy could not become a live shell."""

    why: Short


Said = Size | Failed | Hello | Shown | Cleared | Done | Kept | Answer | Ended
read_said = msgspec.json.Decoder(Said).decode
read_error = msgspec.json.Decoder(ErrorShown).decode
_read_look = msgspec.json.Decoder(Look).decode
_read_raw = msgspec.json.Decoder(dict[Annotated[str, msgspec.Meta(max_length=200)], msgspec.Raw]).decode


def read_data(data: bytes, most_bytes: int, most_parts: int) -> Any:
    """Plain data that takes a bounded amount of memory, and can be written again. Raises ValueError."""
    parts = data.count(b"[") + data.count(b"{")
    if len(data) > most_bytes or parts > most_parts:
        raise ValueError(f"data of {len(data):,} bytes and {parts:,} parts, which is too much")
    if parts > MOST_DEPTH:
        brackets = _STRING.sub(b"", data).translate(None, _NO_BRACKETS)
        if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MOST_DEPTH:
            raise ValueError(f"data that is nested more than {MOST_DEPTH} deep")
    return msgspec.json.decode(data)


def read_bundle(body: bytes) -> dict[str, Any]:
    """A bundle by MIME type. Data that is too much is left out with a word. Raises ValueError."""
    made: dict[str, Any] = {}
    for mime, raw in _read_raw(body).items():
        data = bytes(raw)
        if data[:1] == b'"':
            made[mime] = msgspec.json.decode(data)
        elif data.count(b"[") + data.count(b"{") > MOST_PARTS or (len(data) > MOST_NUMBERS and len(_STRING.sub(b"", data)) > MOST_NUMBERS):
            made.setdefault("text/plain", f"[{mime}: {len(data):,} bytes of data, too much to be kept]")
        else:
            made[mime] = read_data(data, len(data), len(data))
    return made


def read_look(body: bytes) -> Look:
    """What a session says that it has, no more of it than it should say. Raises ValueError."""
    if len(body) > MOST_LOOK or body.count(b"[") + body.count(b"{") > MOST_LOOK_PARTS:
        raise ValueError(f"a list of {len(body):,} bytes")
    found = _read_look(body)
    return Look(variables=found.variables[:MOST_LISTED], files=found.files[:MOST_LISTED])
