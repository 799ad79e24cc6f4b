"""Searching a long text line by line: RE2 finds the lines where a pattern may match (sieve), `regex` says where it does.

`regex` is Python's `re` with an end: a CPU time it may take, kept inside one match too, while other threads run. `re` itself holds the
interpreter's lock and cannot be stopped. One line at a time is matched, so that no pattern can run away over the whole text. Of a line
of more than a megabyte stretches are matched that overlap by 64 KB: a match longer than that may be cut or missed there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.longtext import Found, Match
from llmproc_nb.core.message import clean
from llmproc_nb.drivers.text.around import lines_around
from llmproc_nb.drivers.text.index import safe_end
from llmproc_nb.drivers.text.sieve import sieve

if TYPE_CHECKING:
    from llmproc_nb.drivers.text.stored import StoredText

PATTERN_CHARS = 1_000
WINDOW_BYTES = 1 << 20
OVERLAP_BYTES = 64 * 1024
_LEFT_BYTES = 1024
_LINE_S = 2.0  # of CPU: no sound pattern needs it for one line


class _Stretch(msgspec.Struct, frozen=True):
    """Whole lines of a text as UTF-8, or a part of a line that is too long. All places are bytes but `char`.

    `byte` is where it begins, `line_byte` where its first line does, `char` tells the character there. Matches count that begin at index
    `fresh` or later and before `until`: the rest is there to be looked at. `open_end`: its last line goes on.
    """

    data: bytes
    byte: int
    char: Callable[[], int]
    line_byte: int
    fresh: int
    until: int
    open_end: bool = False


class _TimeIsUp(Exception):
    def __init__(self, char: int) -> None:
        self.char = char


def search(
    text: StoredText, pattern: str, *, context_lines: int, limit: int, start_char: int, ignore_case: bool, timeout_s: float
) -> Found:
    """See LongText.search."""
    exact = _compiled(clean(pattern), ignore_case)
    wide = sieve(clean(pattern), ignore_case=ignore_case)
    deadline = time.monotonic() + timeout_s
    matches: list[Match] = []
    try:
        for start, stop in _spans(text, exact, wide, max(0, start_char), deadline):
            if len(matches) >= limit:
                return Found(matches=tuple(matches), next_char=start)
            line = text.line_at(start)
            matches.append(Match(start=start, stop=stop, line=line, shown=lines_around(text, line, start, context_lines)))
    except _TimeIsUp as stopped:
        return Found(matches=tuple(matches), next_char=max(stopped.char, start_char), timed_out=True)
    return Found(matches=tuple(matches))


def _compiled(pattern: str, ignore_case: bool) -> Any:
    import regex  # type: ignore[import-untyped]

    if len(pattern) > PATTERN_CHARS:
        raise ToolError(f"the pattern has {len(pattern):,} characters", right=f"up to {PATTERN_CHARS:,} are possible")
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except regex.error as error:
        where = f" at character {error.pos + 1}" if error.pos is not None else ""
        raise ToolError(
            f"the pattern {pattern[:200]!r} is no regular expression: {error.msg}{where}",
            right="one as in Python's re is needed",
            step=r"Put a backslash before signs that are meant as they stand, as in \( or \[.",
        ) from None
    except (RecursionError, ValueError, OverflowError, MemoryError) as error:
        raise ToolError("the pattern is too deeply nested", right="a simpler regular expression is needed") from error


def _spans(text: StoredText, exact: Any, wide: Any, start_char: int, deadline: float) -> Iterator[tuple[int, int]]:
    """Where the pattern matches, in order. Raises _TimeIsUp."""
    done = 0  # bytes before this are searched
    matched = closed = -1  # the line, by its beginning, that has a match already; and the one where a match of nothing was the last
    for stretch in _stretches(text, start_char):
        char, counted = -1, 0
        for first, last in _lines(stretch.data, wide, stretch.fresh):
            line_byte = stretch.line_byte if first == 0 else stretch.byte + first
            if line_byte == closed:
                continue
            char = (stretch.char() if char < 0 else char) + len(stretch.data[counted:first].decode(errors="replace"))
            counted = first
            line = stretch.data[first:last].decode(errors="replace")
            if not (stretch.open_end and last == len(stretch.data)):
                line = line.removesuffix("\r")
            sizes = _Sizes(line)
            at = sizes.chars(max(0, stretch.fresh - first, done - stretch.byte - first))
            while at <= len(line):
                found = _match(exact, line, at, deadline, char + at)
                if found is None or first + sizes.bytes(found.start()) >= stretch.until:
                    break
                at = found.end()
                done = stretch.byte + first + sizes.bytes(at)
                if found.start() < at or matched != line_byte:
                    yield char + found.start(), char + at
                matched = line_byte
                if found.start() == at:
                    closed = line_byte
                    break
        if time.monotonic() > deadline:
            raise _TimeIsUp(stretch.char() + len(stretch.data[: stretch.until].decode(errors="replace")))


class _Sizes:
    """How many bytes so many characters of a line take, and the other way round."""

    def __init__(self, line: str) -> None:
        self._line, self._ascii = line, line.isascii()

    def bytes(self, chars: int) -> int:
        return chars if self._ascii else len(self._line[:chars].encode())

    def chars(self, size: int) -> int:
        return size if self._ascii else len(self._line.encode()[:size].decode(errors="replace"))


def _match(exact: Any, line: str, at: int, deadline: float, char: int) -> Any:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise _TimeIsUp(char)
    try:
        return exact.search(line, at, timeout=min(left_s, _LINE_S))
    except TimeoutError:
        raise _TimeIsUp(char) from None
    except MemoryError:
        raise ToolError("the pattern needs too much memory", right="a simpler regular expression is needed") from None


def _stretches(text: StoredText, start_char: int) -> Iterator[_Stretch]:
    """The text from the line of a character on."""
    if start_char > text.chars or not text.chars:
        return
    index = text.index
    line_char = text.line_start(text.line_at(start_char))
    char = line_char if start_char - line_char <= WINDOW_BYTES else start_char - _LEFT_BYTES
    number = index.block_of_char(char)
    head = text.block(number)[: char - index.chars[number]]
    waiting = text.utf8(number)[len(head.encode()) :]
    byte = line_byte = index.starts[number] + len(head.encode())
    fresh = len(text.slice(char, start_char).encode())
    known, seam = char, 0  # the block that was added last begins with this character, at this byte of what waits
    while True:
        number += 1
        if number >= index.blocks:
            yield _Stretch(waiting, byte, _char(known, waiting[:seam]), line_byte, fresh, len(waiting) + 1)
            return
        gone = 0
        if cut := waiting.rfind(b"\n") + 1:
            yield _Stretch(waiting[:cut], byte, _char(known, waiting[:seam]), line_byte, fresh, cut + 1)
            gone, fresh = cut, max(0, fresh - cut)
            line_byte = byte + cut
        elif len(waiting) >= WINDOW_BYTES:
            until = safe_end(waiting[: len(waiting) - OVERLAP_BYTES])
            yield _Stretch(waiting, byte, _char(known, waiting[:seam]), line_byte, fresh, until, open_end=True)
            gone = safe_end(waiting[: until - _LEFT_BYTES])
            fresh = until - gone
        known, seam = index.chars[number], len(waiting) - gone
        waiting, byte = waiting[gone:] + text.utf8(number), byte + gone


def _char(known: int, before: bytes) -> Callable[[], int]:
    """What tells the character where `before` begins, when the one after it is known. Few stretches are asked."""
    return lambda: known - len(before.decode(errors="replace"))


def _lines(data: bytes, wide: Any, fresh: int) -> Iterator[tuple[int, int]]:
    """The lines, as ranges without their ends, from the one of index `fresh` on; with a sieve only those it finds."""
    at = data.rfind(b"\n", 0, fresh) + 1
    while at < len(data):
        first = near = at
        if wide is not None:
            found = wide.search(data, at)
            if found is None:
                return
            near = found.start()
            first = data.rfind(b"\n", 0, near) + 1
            if first == len(data):
                return
        last = data.find(b"\n", near)
        last = len(data) if last < 0 else last
        yield first, last
        at = last + 1
