"""A text file that a piece is taken from or put into: found by exact texts, its encoding and its line ends as they were.

A model writes a line feed where a file may have carriage return and line feed: where all lines of a file end in the same way it is read
with line feeds, and written back as it was. What is not sure to be written back as it was is not read.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left
from pathlib import Path
from typing import Any

import msgspec

from llmproc_nb.core.errors import ToolError

MOST_BYTES = 16_000_000
MOST_PLACES = 1_000
_SHOWN_LINES = 5
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class TextFile(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a file, called `name` in errors.

    `crlf`: all its lines end in carriage return and line feed, those of `text` in a line feed. `as_is`: it has both kinds of line ends,
    or none, and what is put into it keeps its own.
    """

    name: str
    text: str
    encoding: str = "utf-8"
    crlf: bool = False
    as_is: bool = False

    def taken(self, words: str) -> str:
        """Words that come from elsewhere, with the line ends of `text`."""
        return words if self.as_is else words.replace("\r\n", "\n")

    def given(self, piece: str) -> str:
        """A piece of `text` as it stands in the file."""
        return piece.replace("\n", "\r\n") if self.crlf else piece

    def encoded(self, text: str) -> bytes:
        """The bytes of the file with another text."""
        return self.given(text).encode(self.encoding)

    def line(self, at: int) -> int:
        """The line, from 1, of a character of `text`."""
        return self.text.count("\n", 0, at) + 1

    def place(self, words: str, called: str) -> int:
        """Where the words begin that stand at one place of `text`; `called` is what the model calls them. Raises ToolError."""
        places = self.places(words, called)
        if len(places) == 1:
            return places[0]
        raise self.not_one(places, called, words)

    def places(self, words: str, called: str) -> list[int]:
        """All places where the words begin, overlapping ones too, up to one more than there may be. Raises ToolError for no words."""
        if not words:
            raise ToolError(f"`{called}` is empty", right="an exact text of the file is needed")
        found: list[int] = []
        at = self.text.find(words)
        while at >= 0 and len(found) <= MOST_PLACES:
            found.append(at)
            at = self.text.find(words, at + 1)
        return found

    def not_one(self, places: list[int], called: str, words: str) -> ToolError:
        """That there are several places, or none, where there should be one."""
        if not places:
            return self.not_there(called, words)
        many = f"more than {MOST_PLACES:,}" if len(places) > MOST_PLACES else f"{len(places):,}"
        right = "it must stand at one; take more of the text around it"
        return ToolError(f"`{called}` stands at {many} places of {self.name!r} ({self.lines_of(places)})", right=right)

    def not_there(self, called: str, words: str) -> ToolError:
        """That the words are not in the file, and where something like them is."""
        first = next((line.strip() for line in words.split("\n") if line.strip()), "")
        alike = [number for number, line in enumerate(self.text.split("\n"), 1) if first and first in line]
        right = "blanks and line breaks count; read_file shows the exact text"
        if alike:
            numbers = _listed(alike)
            right = f"what its first line says is there ({numbers}), what is around that differs: {right}"
        return ToolError(f"`{called}` stands at 0 places of {self.name!r}", right=right)

    def lines_of(self, places: list[int]) -> str:
        return _listed([self.line(at) for at in places[: _SHOWN_LINES + 1]], more=len(places) > _SHOWN_LINES)

    def between(self, before: str, after: str) -> int:
        """The one place that has `before` right before it, and `after` after it with at most blanks and line breaks between.

        Raises ToolError.
        """
        befores, afters = self.places(before, "before"), self.places(after, "after")
        for called, words, places in (("before", before, befores), ("after", after, afters)):
            if not 0 < len(places) <= MOST_PLACES:
                raise self.not_one(places, called, words)
        found = [end for at in befores if self._leads(end := at + len(before), afters)]
        if len(found) == 1:
            return found[0]
        if found:
            raise self.not_one(found, "before` followed by `after", before)
        lines = f"`before` on {self.lines_of(befores)}, `after` on {self.lines_of(afters)}"
        right = "only blanks and line breaks may lie between them; one of them alone is enough where it stands at one place"
        raise ToolError(f"nowhere in {self.name!r} `after` follows on `before` ({lines})", right=right)

    def _leads(self, end: int, afters: list[int]) -> bool:
        """Whether one of the sorted places follows on an end."""
        index = bisect_left(afters, end)
        return index < len(afters) and _blank(self.text, end, afters[index])


def _blank(text: str, start: int, stop: int) -> bool:
    at = start
    while at < stop and text[at].isspace():
        at += 1
    return at == stop


def _listed(lines: list[int], more: bool = False) -> str:
    """`line 3`, or `lines 3, 5, 9 …`"""
    shown = ", ".join(f"{line:,}" for line in lines[:_SHOWN_LINES])
    return f"{'line' if len(lines) == 1 else 'lines'} {shown}{' …' if more or len(lines) > _SHOWN_LINES else ''}"


def text_file(path: Path, name: str) -> TextFile:
    """The text of a file that is there. Raises ToolError, or OSError."""
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ToolError(f"{name!r} has more than {MOST_BYTES:,} bytes", right="texts of smaller files can be copied and pasted")
    encoding = next((encoding for mark, encoding in _BOMS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ToolError(f"{name!r} is no {encoding.upper()} text (byte {error.start:,})", right="text files are needed") from None
    if "\0" in text:
        raise ToolError(f"{name!r} is no text", right="text files are needed")
    return TextFile(name=name, encoding=encoding, **_line_ends(text))


def _line_ends(text: str) -> dict[str, Any]:
    both, feeds = text.count("\r\n"), text.count("\n")
    crlf = 0 < both == feeds
    return {"text": text.replace("\r\n", "\n") if crlf else text, "crlf": crlf, "as_is": 0 < both < feeds or not feeds}
