"""A text of any length that never changes: what can be asked of it, as a door. Where it lies and how it is searched is a driver's matter.

Characters are code points. Ranges in code count from 0 and leave out their end; pages, lines and everything a model or a person types
count from 1. A line ends with a line feed and nothing else: the carriage return before it belongs to the line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

import msgspec


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
