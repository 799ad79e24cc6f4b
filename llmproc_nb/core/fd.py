"""An fd: a long text kept out of the context under a number of its process, read page by page by the model and by the person.

Here: its pages and ranges. Not here: the text (longtext), the fds of a process (fdtable), reading by arguments and what a model is shown
(reading).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.longtext import LongText

Mode: TypeAlias = Literal["page", "line", "char"]
PAGE_CHARS = 4000
_PIECE_CHARS = 1 << 20


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A range of a text: characters `start` to before `stop`, in lines `first_line` to `last_line`.

    `number` is the page it begins on, of `pages`. `continued`: it begins within a line; `truncated`: it ends within one.
    """

    text: str
    start: int
    stop: int
    number: int
    pages: int
    first_line: int
    last_line: int
    continued: bool = False
    truncated: bool = False


class Fd(msgspec.Struct, frozen=True, kw_only=True):
    """A long text under a number of its process. `label` says where it came from.

    Its pages are fixed slices of `page_chars` characters or, where `page_lines` is set (rows of a table), of so many lines.
    """

    number: int
    label: str
    text: LongText
    page_chars: int = PAGE_CHARS
    page_lines: int | None = None

    @property
    def name(self) -> str:
        return f"fd:{self.number}"

    @property
    def pages(self) -> int:
        """How many pages; an empty text has one, which is empty."""
        length, size = (self.text.chars, self.page_chars) if self.page_lines is None else (self.text.lines, self.page_lines)
        return max(1, -(-length // size))

    def page_at(self, char: int) -> int:
        """The number of the page that a character stands on; of any past the end: the last."""
        page = char // self.page_chars if self.page_lines is None else (self.text.line_at(char) - 1) // self.page_lines
        return min(page + 1, self.pages)

    def page(self, number: int) -> Page:
        """One page. Raises ToolError where there is none of that number."""
        return self.read("page", number)

    def read(self, mode: Mode = "page", start: int = 1, count: int = 1) -> Page:
        """`count` pages, lines or characters from the `start`th on (all count from 1), as far as there are so many."""
        return self.range(*self.span(mode, start, count))

    def span(self, mode: Mode, start: int, count: int) -> tuple[int, int]:
        """The characters that a read would give, as a range. Raises ToolError where it begins past the end."""
        total = {"page": self.pages, "line": self.text.lines, "char": self.text.chars}[mode]
        if not 1 <= start <= max(1, total):
            what = {"page": "page", "line": "line", "char": "character"}[mode]
            raise ToolError(
                f"{what} {start:,} is {'past the end' if start > 0 else 'before the beginning'}",
                right=f"{self.name} has {total:,} {what}{'' if total == 1 else 's'}, counted from 1",
            )
        stop = start + max(0, count)
        if mode == "page" and self.page_lines is not None:
            return self.text.line_start((start - 1) * self.page_lines + 1), self.text.line_start((stop - 1) * self.page_lines + 1)
        if mode == "line":
            return self.text.line_start(start), self.text.line_start(stop)
        size = self.page_chars if mode == "page" else 1
        return (start - 1) * size, min((stop - 1) * size, self.text.chars)

    def range(self, start: int, stop: int) -> Page:
        """Any range of characters, with where it lies."""
        chars = self.text.chars
        start = min(max(0, start), chars)
        stop = min(max(start, stop), chars)
        text = self.text.slice(max(0, start - 1), stop)
        before, text = (text[:1], text[1:]) if start else ("", text)
        first = self.text.line_at(start)
        return Page(
            text=text,
            start=start,
            stop=stop,
            number=self.page_at(start),
            pages=self.pages,
            first_line=first,
            last_line=first + text.count("\n", 0, max(0, len(text) - 1)),
            continued=before not in ("", "\n"),
            truncated=stop < chars and not text.endswith("\n"),
        )

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """A range of characters bit by bit, none of them long; joined they are the text."""
        stop = self.text.chars if stop is None else min(stop, self.text.chars)
        for at in range(start, stop, _PIECE_CHARS):
            yield self.text.slice(at, min(at + _PIECE_CHARS, stop))
