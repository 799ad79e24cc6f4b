"""The lines around a match, for display: short lines whole, of long ones the part that matters."""

from __future__ import annotations

from llmproc_nb.core.longtext import Line, LongText

SHOWN_CHARS = 400
_BEFORE_CHARS = 120
_AT_ONCE_CHARS = 32 * 1024


def lines_around(text: LongText, line: int, start: int, context_lines: int) -> tuple[Line, ...]:
    """The line of a match that begins at character `start`, and so many lines before and after it."""
    first, last = max(1, line - context_lines), min(text.lines, line + context_lines)
    begin, end = text.line_start(first), text.line_start(last + 1)
    if end - begin > _AT_ONCE_CHARS:
        return tuple(_line(text, number, start if number == line else None) for number in range(first, last + 1))
    shown, at = [], begin
    for number, words in enumerate(text.slice(begin, end).split("\n")[: last - first + 1], first):
        shown.append(_shown(number, words.removesuffix("\r"), at, len(words.removesuffix("\r")), at, start if number == line else None))
        at += len(words) + 1
    return tuple(shown)


def _line(text: LongText, number: int, start: int | None) -> Line:
    """One line of a text, of which no more is read than is shown."""
    begin, end = text.line_start(number), text.line_start(number + 1)
    near = max(begin, start - _BEFORE_CHARS) if start is not None else begin
    words = text.slice(near, min(end, near + SHOWN_CHARS + 2))
    if near + len(words) == end:
        words = words.removesuffix("\n").removesuffix("\r")
        end = near + len(words)
    return _shown(number, words, begin, end - begin, near, start)


def _shown(number: int, words: str, begin: int, length: int, at: int, start: int | None) -> Line:
    """The line `number` that begins at `begin` and has `length` characters, of which `words` are those from `at` on."""
    if length <= SHOWN_CHARS and at == begin:
        return Line(number=number, start=begin, text=words)
    if start is not None and start - _BEFORE_CHARS > at:
        words, at = words[start - _BEFORE_CHARS - at :], start - _BEFORE_CHARS
    return Line(number=number, start=at, text=words[:SHOWN_CHARS], whole=False)
