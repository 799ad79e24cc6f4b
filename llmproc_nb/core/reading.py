"""Reading fds: what a model is shown of them, and its tools read_fd and fd_to_file as plain functions over a table.

Here: arguments, bounds and texts. Not here: the table (fd), the tools' schemas and their place in a process (syscall), writing files
(the text driver). Content stands between the tags exactly as it is, with one line feed before and after; attributes are escaped.
"""

from __future__ import annotations

import re
from typing import Literal, Protocol, get_args

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.fd import Fd, Mode, Page
from llmproc_nb.core.fdtable import FdTable
from llmproc_nb.core.longtext import Found, Line, LongText, Match

READ_CHARS = 50_000
"""The most that one read shows: more than that would fill a context by one mistake."""
FOUND_LIMIT = 50
EXTRACTED_LIMIT = 2_000
CONTEXT_LINES = 20
SEARCH_S = 20.0
PERSON = "user_input"
"""The label of what a person said."""

_FD_INPUT = re.compile(r'(?:\[msg_\d{1,9}\] )?<fd_input fd="fd:\d{1,9}" type="[^<>"]*" [^<>]*>\n.*\n</fd_input>', re.DOTALL)
_REF_TAG = re.compile(r"""<ref\s+id\s*=\s*(?:"([^"<>]+)"|'([^'<>]+)')\s*>|</ref>""")


class WriteFile(Protocol):
    """Writes a whole text to a file and gives the number of bytes. Raises ToolError where that cannot be."""

    def __call__(self, text: LongText, path: str, *, mode: Literal["write", "append"], create: bool, exist_ok: bool) -> int: ...


# ---- what a model is shown


def fd_result(fd: Fd, message: str = "") -> str:
    """A tool result that is too long, with its first page in place. Whoever shows it marks that page as read."""
    page = fd.page(1)
    words = message or f"The result has {fd.text.chars:,} characters. {_how_on(fd, page)}"
    where = _attributes(fd=fd.name, pages=fd.pages, truncated=page.truncated, **_lines(fd, page), source=fd.label)
    return f"<fd_result {where}>\n<message>{words}</message>\n<preview>\n{page.text}\n</preview>\n</fd_result>"


def fd_rows(fd: Fd, *, whole: bool = True) -> str:
    """That all rows of a table can be read, page by page, or (not `whole`) as many as were kept; none of them is shown here."""
    where = _attributes(fd=fd.name, pages=fd.pages, rows_per_page=fd.page_lines, total_lines=fd.text.lines, source=fd.label)
    rows = "All rows" if whole else "The first rows (there are more, which did not fit)"
    words = f'{rows} as CSV, the names of the columns in line 1: read_fd(fd="{fd.name}", start=1) gives the first {fd.page_lines} lines.'
    return f"<fd_rows {where}>\n<message>{words}</message>\n</fd_rows>"


def fd_input(fd: Fd, preview_chars: int) -> str:
    """A message that is too long: how it begins, and how to read it. Whoever shows it marks that much as read."""
    page = fd.range(0, preview_chars)
    where = _attributes(fd=fd.name, type=fd.label, pages=fd.pages, **_lines(fd, page))
    whose = "The person's message" if fd.label == PERSON else f"The {fd.label}"
    words = f"{whose} has {fd.text.chars:,} characters, and this is how it begins. {_how_on(fd, None)}"
    return f"<fd_input {where}>\n<message>{words}</message>\n<preview>\n{page.text}\n</preview>\n</fd_input>"


def is_fd_input(text: str) -> bool:
    """Whether this is what `fd_input` gives, with a label before it or without: it is not paged once more."""
    return _FD_INPUT.fullmatch(text) is not None


def begun(text: str, chars: int) -> str:
    """The beginning of what is said beside an fd, where it is too long."""
    return text if len(text) <= chars else f"{text[: max(0, chars - 1)]}…"


def fd_content(fd: Fd, page: Page, note: str = "") -> str:
    """A range of an fd; `note` follows after the closing tag."""
    last = max(page.number, fd.page_at(max(page.start, page.stop - 1)))
    where = _attributes(
        fd=fd.name,
        page=f"{page.number}-{last}" if last > page.number else page.number,
        pages=page.pages,
        continued=page.continued,
        truncated=page.truncated,
        chars=_range(page.start + 1, page.stop),
        total_chars=fd.text.chars,
        **_lines(fd, page),
    )
    return f"<fd_content {where}>\n{page.text}\n</fd_content>" + (f"\n{note}" if note else "")


def fd_extraction(source: Fd, new: Fd, what: str) -> str:
    """That a part of an fd is now an fd of its own; `what` says which part."""
    where = _attributes(source_fd=source.name, new_fd=new.name, extracted=what, content_size=new.text.chars, pages=new.pages)
    return f"<fd_extraction {where}>\n<message>{what} of {source.name} can now be read as {new.name}</message>\n</fd_extraction>"


def fd_found(fd: Fd, pattern: str, found: Found) -> str:
    """What a search found: `12:` before a line with a match, `11-` before a context line, `--` between groups.

    Of a line that is too long the part around the match is shown, with the character it begins at: `12 char 80001:`.
    """
    count = len(found.matches)
    where = _attributes(fd=fd.name, pattern=pattern, matches=count, more=found.next_char is not None, total_lines=fd.text.lines)
    body = found_lines(found.matches)
    return f"<fd_search {where}>\n{body}\n</fd_search>{_search_note(fd, found)}"


def found_lines(matches: tuple[Match, ...]) -> str:
    """The lines of matches as text, each once, groups apart. Of a long line another part is shown for a match that none shows yet."""
    numbers = {match.line for match in matches}
    hits: dict[tuple[int, int], Line] = {}
    around: dict[tuple[int, int], Line] = {}
    shown_to: dict[int, int] = {}
    for match in matches:
        for line in match.shown:
            if line.number not in numbers:
                around[line.number, line.start] = line
            elif line.number == match.line and shown_to.get(match.line, 0) < match.stop:
                hits[line.number, line.start] = line
                shown_to[match.line] = line.start + len(line.text)
    out: list[str] = []
    before = None
    for key, line in sorted((around | hits).items()):
        if before is not None and line.number > before + 1:
            out.append("--")
        place = f"{line.number}" if line.whole else f"{line.number} char {line.start + 1}"
        out.append(f"{place}{':' if key in hits else '-'}{line.text}")
        before = line.number
    return "\n".join(out)


def instructions(*, page_chars: int, user_input: bool = True, references: bool = False) -> str:
    """What the system prompt says of fds."""
    parts = [
        "Long texts are kept as file descriptors (fd:1, fd:2, …) and shown by their first page of "
        f"{page_chars:,} characters. Nothing of them is lost: "
        "read_fd reads on by page, line or character, or searches with pattern; extract_to_new_fd=true makes a part an fd of its "
        "own without showing it; fd_to_file writes a whole text to a file. Read only what you need."
    ]
    if user_input:
        parts.append("A long message of the person comes as <fd_input> with its beginning; read the rest of it before you answer.")
    if references:
        parts.append(
            'Text that you write as <ref id="name">…</ref> can be used afterwards as ref:name, as with fd_to_file(fd="ref:name", …), '
            "so that you need not write it again. Of two with the same id the last one counts."
        )
    return "\n\n".join(parts)


def references(text: str) -> dict[str, str]:
    """What stands in `<ref id="x">…</ref>`, by id. One within another is found too and stays in the outer one; the last counts."""
    found: dict[str, tuple[int, str]] = {}
    open_tags: list[re.Match[str]] = []
    for tag in _REF_TAG.finditer(text):
        if tag[0] != "</ref>":
            open_tags.append(tag)
        elif open_tags:
            opened = open_tags.pop()
            key = opened[1] or opened[2]
            if key not in found or found[key][0] < opened.start():
                found[key] = opened.start(), text[opened.end() : tag.start()]
    return {key: content for key, (_, content) in sorted(found.items(), key=lambda item: item[1][0])}


# ---- the tools


def read_fd(
    table: FdTable,
    *,
    fd: str | int,
    read_all: bool = False,
    extract_to_new_fd: bool = False,
    mode: str = "page",
    start: int = 1,
    count: int = 1,
    pattern: str | None = None,
    context_lines: int = 2,
) -> str:
    """What the model asked to read. Marks what it is shown as read. Raises ToolError in words for the model."""
    source = table.get(fd)
    way = _mode(mode)
    begin, many = _whole("start", start, 1), _whole("count", count, 1)
    if pattern is not None:
        first = source.span(way, begin, 0)[0]
        return _search(
            table, source, pattern, first, _whole("context_lines", context_lines, 0, CONTEXT_LINES), extract=bool(extract_to_new_fd)
        )
    first, last = (0, source.text.chars) if read_all else source.span(way, begin, many)
    if extract_to_new_fd:
        what = "the whole" if read_all else _part(way, begin, many)
        new = table.open(source.pieces(first, last), f"{what} of {source.name}", source.page_chars)
        return fd_extraction(source, new, what)
    page = source.range(first, min(last, first + READ_CHARS))
    table.mark_read(source.number, page.start, page.stop)
    return fd_content(source, page, _read_note(source, page, last))


def fd_to_file(
    table: FdTable, write: WriteFile, *, fd: str | int, file_path: str, mode: str = "write", create: bool = True, exist_ok: bool = True
) -> str:
    """Write a whole text to a file, through `write`. Raises ToolError in words for the model."""
    source = table.get(fd)
    if mode not in ("write", "append"):
        raise ToolError(f"mode {str(mode)[:40]!r} is unknown", right="it is write or append")
    if not isinstance(file_path, str) or not file_path.strip() or "\0" in file_path:
        raise ToolError(f"{file_path!r:.60} cannot be a path", right="a path such as out/report.txt is needed")
    size = write(source.text, file_path, mode=mode, create=bool(create), exist_ok=bool(exist_ok))  # type: ignore[arg-type]
    where = _attributes(fd=source.name, file_path=file_path, mode=mode, chars=source.text.chars, bytes=size)
    done = "added to" if mode == "append" else "written to"
    return f"<fd_file_result {where}>\n<message>{source.name} was {done} {file_path}</message>\n</fd_file_result>"


def _search(table: FdTable, fd: Fd, pattern: str, first: int, context_lines: int, *, extract: bool) -> str:
    if not isinstance(pattern, str) or not pattern:
        raise ToolError("the pattern is empty", right="a regular expression is needed", step="To read on without one, leave pattern out.")
    limit = EXTRACTED_LIMIT if extract else FOUND_LIMIT
    found = fd.text.search(pattern, context_lines=context_lines, limit=limit, start_char=first, timeout_s=SEARCH_S)
    if found.timed_out and not found.matches:
        raise ToolError(
            f"the search took too long and got as far as character {(found.next_char or 0) + 1:,} of {fd.text.chars:,}",
            right="a pattern without nested repeats such as (a+)+ is faster",
            step=f'Or go on from there: mode="char", start={(found.next_char or 0) + 1}.',
        )
    if extract and found.matches:
        what = f"{len(found.matches):,} matches of {pattern}"
        return fd_extraction(fd, table.open(found_lines(found.matches), f"{what} in {fd.name}", fd.page_chars), what) + _search_note(
            fd, found
        )
    found = _bounded(found)
    for match in found.matches:
        for line in match.shown:
            table.mark_read(fd.number, line.start, line.start + len(line.text))
    return fd_found(fd, pattern, found)


def _bounded(found: Found) -> Found:
    """As many of the matches as one answer may show."""
    chars = 0
    counted: set[tuple[int, int]] = set()
    for number, match in enumerate(found.matches):
        lines = {(line.number, line.start): line for line in match.shown}
        chars += sum(len(lines[key].text) + 24 for key in lines.keys() - counted)
        counted |= lines.keys()
        if chars > READ_CHARS and number:
            return Found(matches=found.matches[:number], next_char=match.start)
    return found


def _search_note(fd: Fd, found: Found) -> str:
    if found.next_char is None:
        return ""
    go_on = f'go on with the same pattern and mode="char", start={found.next_char + 1}'
    if found.timed_out:
        where = f"character {found.next_char + 1:,} of {fd.text.chars:,}"
        return f"\nThe search took too long and stopped at {where}; use a simpler pattern, or {go_on}."
    return f"\nThese are the first {len(found.matches):,} matches; {go_on}."


def _read_note(fd: Fd, page: Page, asked: int) -> str:
    if asked <= page.stop:
        return ""
    return (
        f"Shown are {page.stop - page.start:,} of the {asked - page.start:,} characters asked for, the most that one read gives. "
        f'Go on with read_fd(fd="{fd.name}", mode="char", start={page.stop + 1}, count={READ_CHARS}); search with pattern; '
        "or write it to a file with fd_to_file."
    )


def _how_on(fd: Fd, page: Page | None) -> str:
    if page is not None and fd.pages == 1:
        return "It is shown whole."
    shown = f"This is page 1 of {fd.pages:,}. " if page is not None else ""
    start = 1 if page is None else 2
    return f'{shown}Use read_fd(fd="{fd.name}", start={start}) to read on, or read_fd(fd="{fd.name}", pattern="…") to search.'


def _part(mode: Mode, start: int, count: int) -> str:
    word = {"page": "page", "line": "line", "char": "character"}[mode]
    return f"{word} {start:,}" if count == 1 else f"{word}s {start:,} to {start + count - 1:,}"


def _mode(word: object) -> Mode:
    for mode in get_args(Mode):
        if word == mode:
            return mode  # type: ignore[no-any-return]
    raise ToolError(f"mode {str(word)[:40]!r} is unknown", right="it is page, line or char; a search needs pattern only")


def _whole(key: str, value: object, least: int, most: int | None = None) -> int:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        right = f"between {least} and {most}" if most is not None else f"from {least} on"
        raise ToolError(f"argument {key!r} is {value!r:.60}", right=f"it should be a whole number {right}")
    return value


def _lines(fd: Fd, page: Page) -> dict[str, object]:
    return {"lines": _range(page.first_line, page.last_line if fd.text.chars else 0), "total_lines": fd.text.lines}


def _range(first: int, last: int) -> str:
    return f"{first}-{last}" if last > first else f"{last}"


def _attributes(**values: object) -> str:
    return " ".join(f'{key}="{_escaped(value)}"' for key, value in values.items())


def _escaped(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("\r", "&#13;"), ("\n", "&#10;"), ("\t", "&#9;")):
        text = text.replace(sign, entity)
    return text
