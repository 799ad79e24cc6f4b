"""What a shell says, read strictly: anything else is no message. All of it is hostile."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from llmproc_nb.core.sandbox import Look

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

    mb: float


class Failed(msgspec.Struct, tag_field="op", tag="failed", frozen=True):
    """A copy could not become a live shell."""

    why: Short


Said = Size | Failed | Hello | Shown | Cleared | Done | Kept | Answer | Ended
read_said = msgspec.json.Decoder(Said).decode
read_look = msgspec.json.Decoder(Look).decode
read_error = msgspec.json.Decoder(ErrorShown).decode
read_bundle = msgspec.json.Decoder(dict[Annotated[str, msgspec.Meta(max_length=200)], Any]).decode
