"""What is seen of a long text at one time: a page with its line numbers, the places found on it, and what the model has read.

Pure values, the same for the static twin and the widget. Everything a tool wrote is made visible here. Not here: how it looks (fdview) and
what a person may ask for (fdwidget).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from llmproc_nb.core.fd import Fd, Page
from llmproc_nb.core.fdtable import FdTable
from llmproc_nb.core.visible import one_line, visible

Range: TypeAlias = tuple[int, int]
BAR = 1000
BAR_RANGES = 200
PAGE_MARKS = 300
LABEL_CHARS = 120
COLUMNS_CHARS = 4000


class ShownPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page as it is seen: `text` is its visible form, one line per row, `first_line` the number of its first row.

    `found` are ranges of `text` (code points) with the number of the match in each, `read` ranges of rows (from 0, without their end).
    `columns` are the names of a table's columns, the first line of the text, on every page but the one where it stands.
    """

    number: int
    pages: int
    first_line: int
    text: str
    continued: bool = False
    truncated: bool = False
    found: tuple[tuple[int, int, int], ...] = ()
    read: tuple[Range, ...] = ()
    columns: str = ""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What an fd is, without its text. `bar` is what the model has read, in thousandths of the text."""

    name: str
    label: str
    chars: int
    lines: int
    pages: int
    read_chars: int = 0
    bar: tuple[Range, ...] = ()


def summary_of(fd: Fd, table: FdTable | None) -> Summary:
    """What an fd is and how much of it the model has read."""
    reads = table.reads(fd.number) if table is not None else ()
    return Summary(
        name=fd.name,
        label=one_line(fd.label, LABEL_CHARS),
        chars=fd.text.chars,
        lines=fd.text.lines,
        pages=fd.pages,
        read_chars=sum(stop - start for start, stop in reads),
        bar=bar(reads, fd.text.chars),
    )


def shown_page(fd: Fd, number: int, reads: Sequence[Range] = (), found: Sequence[Range] = (), first_found: int = 0) -> ShownPage:
    """One page as it is seen. `found` are ranges of the text in order, the first of them match number `first_found`. Raises ToolError."""
    page = fd.page(number)
    text, marks = _marked(page, found, first_found)
    if text.endswith("\n") and page.text.endswith("\n"):
        text = text[:-1]  # the end of the last row, not a row of its own
    elif page.truncated and text.endswith("␍"):
        text = text[:-1]  # half of a line end; the other half begins the next page
    return ShownPage(
        number=number,
        pages=page.pages,
        first_line=page.first_line,
        text=text,
        continued=page.continued,
        truncated=page.truncated,
        found=tuple((start, min(stop, len(text)), match) for start, stop, match in marks if start <= len(text)),
        read=tuple(_rows(page, reads)),
        columns=_columns(fd) if number > 1 else "",
    )


def _columns(fd: Fd) -> str:
    """The names of the columns of a table; empty for any other text."""
    if fd.page_lines is None:
        return ""
    return seen(fd.text.slice(0, min(fd.text.line_start(2), COLUMNS_CHARS)).rstrip("\r\n"))


def _marked(page: Page, found: Sequence[Range], first_found: int) -> tuple[str, list[tuple[int, int, int]]]:
    """The visible text of a page, and where in it the matches are."""
    low = bisect_right(found, page.start, key=lambda one: one[1])
    low = max(0, low - 1) if low and found[low - 1][0] == found[low - 1][1] == page.start else low
    high = bisect_left(found, page.stop, key=lambda one: one[0])
    pieces: list[str] = []
    marks: list[tuple[int, int, int]] = []
    at, length = page.start, 0

    def add(start: int, stop: int) -> None:
        nonlocal length
        piece = seen(page.text[start - page.start : stop - page.start])
        pieces.append(piece)
        length += len(piece)

    for number in range(low, min(high, low + PAGE_MARKS)):
        start, stop = max(found[number][0], at), min(found[number][1], page.stop)
        add(at, start)
        begin = length
        add(start, max(start, stop))
        marks.append((begin, length, first_found + number))
        at = max(start, stop)
    add(at, page.stop)
    return "".join(pieces), marks


def seen(text: str) -> str:
    """The visible form of a text in which every line stays one line."""
    return visible(text.replace("\u2028", "⟨U+2028⟩").replace("\u2029", "⟨U+2029⟩"))


def _rows(page: Page, reads: Sequence[Range]) -> list[Range]:
    """The rows of a page in which something was read."""
    rows: list[Range] = []
    for start, stop in reads:
        if stop <= page.start or start >= page.stop or start >= stop:
            continue
        first = page.text.count("\n", 0, max(start - page.start, 0))
        last = page.text.count("\n", 0, min(stop, page.stop) - page.start - 1) + 1
        if rows and first <= rows[-1][1]:
            rows[-1] = rows[-1][0], max(last, rows[-1][1])
        else:
            rows.append((first, last))
    return rows


def bar(ranges: Sequence[Range], chars: int, most: int = BAR_RANGES) -> tuple[Range, ...]:
    """Ranges of a text in thousandths of it, each at least one wide, near ones joined until there are few enough."""
    scaled = [(start * BAR // chars, max(-(-stop * BAR // chars), start * BAR // chars + 1)) for start, stop in ranges] if chars else []
    gap = 0
    joined = _joined(scaled, gap)
    while len(joined) > most:
        gap = gap * 2 or 1
        joined = _joined(joined, gap)
    return tuple(joined)


def ticks(found: Sequence[Range], chars: int) -> tuple[int, ...]:
    """Where in a text something begins, in thousandths of it, at most 200 places."""
    step = BAR // BAR_RANGES
    return tuple(sorted({start * BAR_RANGES // chars * step for start, _ in found if start < chars}))


def _joined(ranges: Sequence[Range], gap: int) -> list[Range]:
    joined: list[Range] = []
    for start, stop in ranges:
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, min(stop, BAR)))
    return joined
