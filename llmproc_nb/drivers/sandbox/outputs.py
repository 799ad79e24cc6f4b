"""The outputs of one cell as they come, kept as a notebook keeps them: text of one stream joined, updates in the place of what they update.

Memory is bounded: beyond `most_bytes`, or too many outputs, nothing more is taken and `full` says so.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field

import msgspec

from llmproc_nb.core.sandbox import Output, OutputReader
from llmproc_nb.drivers.sandbox.said import Shown, read_bundle, read_error
from llmproc_nb.inside.bundle import with_note

MOST_OUTPUTS = 10_000
MOST_CAME = 4
"""How many times what is kept at most may come, with all that is cleared and updated."""
PIECE_BYTES = 100
"""What each piece counts besides its data: what is empty costs something too."""
_RUNS = frozenset({"application/javascript", "text/javascript"})


@dataclass
class _Piece:
    output: Output
    bytes: int
    texts: list[str] = field(default_factory=list)
    display_id: str = ""


class Outputs:
    """The outputs of a cell so far."""

    def __init__(self, most_bytes: int, reader: OutputReader | None) -> None:
        self._most, self._reader = most_bytes, reader
        self._pieces: list[_Piece] = []
        self._bytes = 0
        self._clear_next = False
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        self._came = 0
        self._fault = ""
        self.full = ""

    def text(self, name: str, data: bytes) -> None:
        """Some text of a stream."""
        text = self._decoders[name].decode(data)
        if not text or not self._room(len(data)):
            return
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last.texts and last.output.name == name:
            last.texts.append(text)
            last.bytes += len(data)
        else:
            self._add(_Piece(Output(kind="stream", name=name), len(data), [text]))
        self._tell(Output(kind="stream", name=name, text=text))

    def shown(self, said: Shown, body: bytes) -> None:
        """A display, a value, an error, or an update of an earlier display. Raises ValueError where it is none of these."""
        if not self._room(len(body)):  # before it is read: that takes more memory than it has bytes
            return
        output = _error(body) if said.kind == "error" else Output(kind=said.kind, data=_bundle(body), display_id=said.display_id)
        self._tell(msgspec.structs.replace(output, update=True) if said.update else output)
        piece = _Piece(output, len(body), display_id=said.display_id)
        if said.update:
            for at, old in enumerate(self._pieces):
                if old.display_id == said.display_id != "":
                    self._bytes -= old.bytes
                    self._pieces[at] = piece
                    return
        self._add(piece)

    def clear(self, *, wait: bool) -> None:
        """What was shown is cleared, at once or when the next output comes."""
        if not self._room(0):
            return
        self._tell(Output(kind="clear", update=wait))
        if wait:
            self._clear_next = True
        else:
            self._forget()

    def passed(self, size: int) -> None:
        """Something came that is no output of the cell: it is not kept, but not for nothing either."""
        self._came += size + PIECE_BYTES
        if self._came > self._most * MOST_CAME and not self.full:
            self.full = f"more than {self._most * MOST_CAME / 1e6:g} MB of messages"

    def cut_off(self) -> None:
        """What came was too much to be taken at all."""
        self.full = self.full or f"more than {self._most / 1e6:g} MB of output at once"

    def missed(self, why: str) -> None:
        """Not everything is here."""
        self._fault = self._fault or why

    @property
    def notes(self) -> list[str]:
        """What is to be said of the outputs."""
        return [self._fault] * bool(self._fault)

    def kept(self) -> tuple[Output, ...]:
        """All outputs, text joined."""
        return tuple(
            msgspec.structs.replace(piece.output, text="".join(piece.texts)) if piece.texts else piece.output for piece in self._pieces
        )

    def _add(self, piece: _Piece) -> None:
        if self._clear_next:
            self._forget()
            self._bytes += piece.bytes
        self._pieces.append(piece)
        if len(self._pieces) >= MOST_OUTPUTS and not self.full:
            self.full = f"more than {MOST_OUTPUTS:,} outputs"

    def _forget(self) -> None:
        self._clear_next = False
        self._pieces.clear()
        self._bytes = 0

    def _room(self, size: int) -> bool:
        if self.full:
            return False
        self._came += size + PIECE_BYTES
        if self._bytes + size > self._most or self._came > self._most * MOST_CAME:
            self.full = f"more than {self._most / 1e6:g} MB of output"
            return False
        self._bytes += size
        return True

    def _tell(self, output: Output) -> None:
        if self._reader is not None:
            try:
                self._reader(output)
            except Exception as error:  # foreign code: the cell goes on without it
                self._reader, self._fault = None, f"on_output raised {type(error).__name__} and was told no more: {error}"


def _error(body: bytes) -> Output:
    error = read_error(body)
    return Output(kind="error", name=error.name, text=error.text, trace=tuple(error.trace))


def _bundle(body: bytes) -> dict[str, object]:
    """The bundle, without what would run in a notebook, and text where text must be. Raises ValueError."""
    came = read_bundle(body)
    bundle = {mime: value for mime, value in came.items() if mime.lower() not in _RUNS and "widget-view" not in mime.lower()}
    for mime, value in bundle.items():
        if not isinstance(value, str) and not mime.endswith("json"):
            raise ValueError(f"{mime[:50]} is no text")
    return with_note(bundle, set(came) - set(bundle))
