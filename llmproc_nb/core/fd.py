"""Fds: long texts kept out of the context, read page by page by the model and by the person.

Here: the text (a door), the fd over it, the table of a process and what its model has read. Not here: reading by arguments and what a
model is shown (reading), where a text lies and how it is searched (the text driver).

Characters are code points. Ranges in code count from 0 and leave out their end; pages, lines and everything a model or a person types
count from 1. A line ends with a line feed and nothing else: the carriage return before it belongs to the line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Literal, Protocol, TypeAlias

import msgspec

from llmproc_nb.core.errors import ToolError

Mode: TypeAlias = Literal["page", "line", "char"]
PAGE_CHARS = 4000
_PIECE_CHARS = 1 << 20
_LISTED = 12


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line for display, without its end: `text` begins at character `start`; of a line too long to show it is a part (not `whole`)."""

    number: int
    start: int
    text: str
    whole: bool = True


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """One place that a search found, in line `line`. `shown` are that line and the context lines around it, in order."""

    start: int
    stop: int
    line: int
    shown: tuple[Line, ...] = ()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found, in order. `next_char`: where to go on, None where all was searched. `timed_out`: it was stopped there."""

    matches: tuple[Match, ...] = ()
    next_char: int | None = None
    timed_out: bool = False


class LongText(Protocol):
    """A text of any length that never changes. Its driver reads what is asked for; all methods may be called from any thread.

    All of them raise ToolError where the text can no longer be read.
    """

    @property
    def chars(self) -> int: ...

    @property
    def lines(self) -> int:
        """How many lines: the line feeds, and one more for what follows the last of them."""
        ...

    @property
    def digest(self) -> str:
        """blake2b, 16 bytes in hex, of the text as UTF-8. May read the whole text the first time."""
        ...

    def slice(self, start: int, stop: int) -> str:
        """The characters from `start` to before `stop`; what lies outside of the text is left out."""
        ...

    def line_start(self, line: int) -> int:
        """Where a line (from 1) begins; of any past the last: the number of characters."""
        ...

    def line_at(self, char: int) -> int:
        """The number of the line that a character stands in; of any past the end: the last. 1 in an empty text."""
        ...

    def search(
        self,
        pattern: str,
        *,
        context_lines: int = 0,
        limit: int = 50,
        start_char: int = 0,
        ignore_case: bool = False,
        timeout_s: float = 10.0,
    ) -> Found:
        """Where a regular expression matches within a line, for matches that begin at or after `start_char`, at most `limit`.

        `^` and `$` are the ends of a line, its carriage return left aside. A match of nothing counts once for its line and ends it.
        Raises ToolError where the pattern is no regular expression. A search that takes too long gives what it has.
        """
        ...


Keep: TypeAlias = Callable[[Iterable[str]], LongText]
"""Makes a long text from pieces: where it is kept is the driver's matter."""
Numbers: TypeAlias = Callable[[str, LongText], int | None]
"""The number that an fd of this label and text had when it was recorded."""


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


class FdTable:
    """The fds of a process by number, and what its model has read of each. Numbers only grow and are never used again.

    A fork sees the fds and reads until then through its parent's table; what either side opens or reads later is its own.
    """

    __slots__ = (
        "_cutoff",
        "_fds",
        "_held",
        "_last",
        "_lock",
        "_marks",
        "_marks_cutoff",
        "_parent",
        "_references",
        "_unlogged",
        "keep",
        "numbers",
        "page_chars",
    )

    def __init__(self, keep: Keep | None = None, *, page_chars: int = PAGE_CHARS) -> None:
        self.keep, self.page_chars = keep, page_chars
        self._lock = Lock()
        self._parent: FdTable | None = None
        self._cutoff = self._marks_cutoff = self._last = 0
        # made with the first use: most forks open nothing
        self._fds: dict[int, Fd] | None = None
        self._unlogged: list[Fd] | None = None
        self._held: tuple[int, int] | None = None
        self.numbers: Numbers | None = None
        self._references: dict[str, list[int]] | None = None
        self._marks: list[tuple[int, int, int]] | None = None

    def open(
        self,
        text: LongText | str | Iterable[str],
        label: str,
        page_chars: int | None = None,
        *,
        page_lines: int | None = None,
        reference: str = "",
        number: int | None = None,
    ) -> Fd:
        """A new fd over a text; a string, or pieces of one, is kept first. `reference` is the id under which `ref:ID` finds it.

        Its number is the next one, or the one it had when it was recorded.
        """
        kept = self._kept(text)
        if number is None and self.numbers is not None:
            number = self.numbers(label, kept)
        with self._lock:
            if number is None or number <= self._cutoff or number in (self._fds or ()):
                number = self._last + 1
            self._last = max(self._last, number)
            fd = Fd(number=number, label=label, text=kept, page_chars=page_chars or self.page_chars, page_lines=page_lines)
            if self._fds is None:
                self._fds = {}
            self._fds[fd.number] = fd
            self._unlogged = [*(self._unlogged or ()), fd]
            if reference:
                if self._references is None:
                    self._references = {}
                self._references.setdefault(reference, []).append(fd.number)
        return fd

    def take(self, fd: Fd, label: str | None = None) -> Fd:
        """An fd of another process under a number of this one, by reference."""
        return self.open(fd.text, label or fd.label, fd.page_chars, page_lines=fd.page_lines)

    def get(self, name: str | int) -> Fd:
        """The fd of a name: `fd:3`, `3`, 3 or `ref:x`. Raises ToolError, which lists those there are."""
        number = self._number(name)
        fd = self._find(number) if number is not None else None
        if fd is None:
            raise ToolError(f"there is no fd {str(name)[:60]!r}", right=self._listed())
        return fd

    def fork(self) -> FdTable:
        """The table of a fork, in a time and size that do not depend on how much is open."""
        child = object.__new__(FdTable)
        child._unlogged = child._held = child.numbers = None
        child.keep, child.page_chars, child._lock = self.keep, self.page_chars, self._lock
        child._fds = child._references = child._marks = None
        if self._fds is None and self._marks is None:  # then the fork hangs on what this one hangs on: chains stay short
            child._parent, child._cutoff, child._last, child._marks_cutoff = self._parent, self._cutoff, self._cutoff, self._marks_cutoff
            return child
        with self._lock:
            last, marks = self._held or (self._last, len(self._marks or ()))
            child._parent, child._cutoff, child._last, child._marks_cutoff = self, last, last, marks
        return child

    def hold(self) -> None:
        """While the calls of a reply run, let forks see what was open at the reply: which call ends first is chance."""
        self._held = self._last, len(self._marks or ())

    def release(self) -> None:
        self._held = None

    def unlogged(self) -> list[Fd]:
        """The fds that were opened since this was last asked."""
        with self._lock:
            found, self._unlogged = self._unlogged or [], None
        return found

    @property
    def inherited(self) -> int:
        """The number of the last fd that was there when this table began."""
        return self._cutoff

    def mark_read(self, number: int, start: int, stop: int) -> None:
        """Remember that the model has been shown these characters."""
        fd = self._find(number)
        mark = (number, max(0, start), min(stop, fd.text.chars if fd else 0))
        if self._marks is None:
            self._marks = []
        if mark[1] < mark[2] and (not self._marks or self._marks[-1] != mark):
            self._marks.append(mark)

    def reads(self, number: int) -> tuple[tuple[int, int], ...]:
        """The ranges of characters that the model has been shown, in order, none of them touching another."""
        ranges: list[tuple[int, int]] = []
        table: FdTable | None = self
        until = len(self._marks or ())
        while table is not None:
            ranges += [(start, stop) for marked, start, stop in (table._marks or ())[:until] if marked == number]
            until, table = table._marks_cutoff, table._parent
        return _merged(ranges)

    @property
    def references(self) -> dict[str, Fd]:
        """The named references, by id: of each the last."""
        found: dict[str, int] = {}
        table: FdTable | None = self
        until = self._last
        while table is not None:
            for key, numbers in tuple((table._references or {}).items()):
                seen = [number for number in tuple(numbers) if number <= until]
                if seen:
                    found.setdefault(key, seen[-1])
            until, table = table._cutoff, table._parent
        return {key: fd for key, number in sorted(found.items(), key=lambda item: item[1]) if (fd := self._find(number))}

    def __iter__(self) -> Iterator[Fd]:
        """The fds by number."""
        return (fd for number in range(1, self._last + 1) if (fd := self._find(number)))

    def __len__(self) -> int:
        return self._last

    def __contains__(self, name: object) -> bool:
        number = self._number(name) if isinstance(name, str | int) else None
        return number is not None and self._find(number) is not None

    def __repr__(self) -> str:
        return f"<FdTable {len(self)} fds>"

    def _kept(self, text: LongText | str | Iterable[str]) -> LongText:
        if not isinstance(text, str) and hasattr(text, "line_start"):
            return text  # type: ignore[return-value]
        if self.keep is None:
            raise TypeError("this table was given no way to keep a text: FdTable(keep)")
        return self.keep((text,) if isinstance(text, str) else text)  # type: ignore[arg-type]

    def _number(self, name: str | int) -> int | None:
        if isinstance(name, int):
            return None if isinstance(name, bool) else name
        word = name.strip()
        if word.startswith("ref:"):
            fd = self.references.get(word[4:])
            return fd.number if fd else None
        digits = word.removeprefix("fd:")
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None

    def _find(self, number: int) -> Fd | None:
        table = self
        while number <= table._cutoff and table._parent is not None:
            table = table._parent
        return table._fds.get(number) if table._fds else None

    def _listed(self) -> str:
        if not self._last:
            return "nothing is open as an fd"
        names = {fd.number: f", ref:{key:.60}" for key, fd in self.references.items()}
        shown = [f"{fd.name} ({fd.label:.80}{names.get(fd.number, '')})" for fd in tuple(self)[-_LISTED:]]
        return f"there are {f'fd:1 to fd:{self._last}, last ' if self._last > _LISTED else ''}{', '.join(shown)}"


def _merged(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return tuple(merged)
