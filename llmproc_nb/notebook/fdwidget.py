"""The live view of an fd: pages, lines, search, saving. Only what is seen travels: one page, and where in the text the matches are.

Here: what a person may ask for and what goes to the front end. Not here: what stands on a page (fdpage), how it is drawn (fdwidget.js).
"""

from __future__ import annotations

import re
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from llmproc_nb.core.errors import LlmprocError, PersonError, ToolError
from llmproc_nb.core.fd import Fd
from llmproc_nb.core.fdtable import FdTable
from llmproc_nb.notebook.fdpage import Range, shown_page, summary_of, ticks
from llmproc_nb.notebook.fdview import read_words, size_words
from llmproc_nb.notebook.twin import source, widget_type

MAX_FOUND = 10_000
SEARCH_S = 10.0
BATCHES = (1, 100, 1000)


def fd_widget(fd: Fd, table: FdTable | None = None, page: int = 1) -> Any:
    """A new widget over an fd. `table` knows what the model has read."""
    return _type()(fd, table, page)


def save_text(fd: Fd, name: str, folder: Path | None = None) -> str:
    """Write the whole text to a new file of that name in the notebook's folder; gives what was done, in words. Raises PersonError."""
    if not name or Path(name).name != name or name in (".", "..") or "\x00" in name:
        raise PersonError(f"{name!r} is no file name", right="a plain name in the notebook's folder is needed")
    path = (folder or Path.cwd()) / name
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            for piece in fd.pieces():
                file.write(piece)
    except FileExistsError:
        raise PersonError(f"{name} is there already", right="another name is needed") from None
    except OSError as error:
        raise PersonError(f"{name} was not written: {error.strerror}", right="the folder of the notebook must be writable") from None
    return f"saved {fd.text.chars:,} characters as {name}"


class _Search:
    """One search, as far as it has come: the matches in order, where to go on, which of them is shown."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.found = pattern, list[Range]()
        self.ignore_case = pattern == pattern.lower()
        self.next_char: int | None = 0
        self.index = 0
        self.busy = False

    def hits(self, chars: int) -> dict[str, Any]:
        return {
            "pattern": self.pattern,
            "index": self.index + 1 if self.found else 0,
            "count": len(self.found),
            "more": self.next_char is not None,
            "busy": self.busy,
            "ticks": ticks(self.found, chars),
        }


@cache
def _type() -> type[Any]:
    import traitlets

    class FdWidget(widget_type()):  # type: ignore[misc]
        """`facts` say what the text is, `page` is what is seen of it, `hits` what a search found."""

        _esm = source("widget.js") + source("fdwidget.js")
        facts = traitlets.Dict().tag(sync=True)
        page = traitlets.Dict().tag(sync=True)
        hits = traitlets.Dict().tag(sync=True)

        def __init__(self, fd: Fd, table: FdTable | None, page: int) -> None:
            self._fd, self._table = fd, table
            self._number = page
            self._search: _Search | None = None
            self._lock = threading.RLock()
            super().__init__(facts=self._facts(), page=self._page())

        def take(self, kind: str, message: dict[str, Any]) -> None:
            """Do what a person asks for; what cannot be done is said below the page."""
            asked = {
                "page": self._ask_page,
                "line": self._ask_line,
                "at": self._ask_at,
                "find": self._find,
                "step": self._step,
                "save": self._save,
            }
            try:
                self.tell()
                if kind in asked:
                    asked[kind](message.get("value"))
            except LlmprocError as error:
                self.tell(error.for_model(), bad=True)

        # pages

        def _ask_page(self, value: Any) -> None:
            self._turn(_whole(value))

        def _ask_line(self, value: Any) -> None:
            line = _whole(value)
            if not 1 <= line <= self._fd.text.lines:
                raise ToolError(f"there is no line {line:,}", right=f"the text has lines 1 to {self._fd.text.lines:,}")
            self._turn(self._page_of(self._fd.text.line_start(line)), line=line)

        def _ask_at(self, value: Any) -> None:
            part = min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) else 0.0
            self._turn(self._page_of(int(part * self._fd.text.chars)))

        def _page_of(self, char: int) -> int:
            return self._fd.page_at(char)

        def _turn(self, number: int, line: int = 0) -> None:
            with self._lock:
                self._fd.span("page", number, 1)  # whether there is one
                self._number = number
                self.page = self._page(line)
                self.facts = self._facts()

        def _page(self, line: int = 0) -> dict[str, Any]:
            search = self._search
            reads = self._table.reads(self._fd.number) if self._table is not None else ()
            shown = shown_page(self._fd, self._number, reads, search.found if search else ())
            return {**msgspec.to_builtins(shown), "match": search.index if search and search.found else -1, "line": line}

        def _facts(self) -> dict[str, Any]:
            told = summary_of(self._fd, self._table)
            read = read_words(told)
            name = f"{re.sub(r'[^0-9A-Za-z]+', '-', told.name)}.txt"
            return {
                **msgspec.to_builtins(told),
                "size": size_words(told),
                "read": f"the model has read {read}" if read else "",
                "file": name,
            }

        # search

        def _find(self, value: Any) -> None:
            with self._lock:
                pattern = value if isinstance(value, str) else ""
                self._search = _Search(pattern) if pattern else None
                self._go_on(self._search)
                if self._search is None:
                    self.hits = {}
                    self._turn(self._number)

        def _step(self, value: Any) -> None:
            with self._lock:
                search = self._search
                if search is None or not search.found:
                    return
                wanted = search.index + (1 if value == 1 else -1)
                if wanted >= len(search.found) and search.next_char is not None:
                    self._go_on(search)
                    return
                self._show_match(search, wanted % len(search.found))

        def _show_match(self, search: _Search, index: int) -> None:
            search.index = index
            self._turn(self._page_of(search.found[index][0]))
            self.hits = search.hits(self._fd.text.chars)

        def _go_on(self, search: _Search | None) -> None:
            """Search in a thread of its own: the kernel stays free, and a newer search takes the place of this one."""
            if search is not None and not search.busy:
                search.busy = True
                self.hits = search.hits(self._fd.text.chars)
                threading.Thread(target=self._look, args=(search,), name="llmproc-search", daemon=True).start()

        def _look(self, search: _Search) -> None:
            known, end = len(search.found), time.monotonic() + SEARCH_S
            try:
                for limit in (*BATCHES, *[BATCHES[-1]] * (MAX_FOUND // BATCHES[-1])):
                    if search.next_char is None or self._search is not search or len(search.found) - known >= MAX_FOUND:
                        break
                    if not self._take_batch(search, limit, end - time.monotonic(), first=len(search.found) == known):
                        break
            except ToolError as error:
                search.next_char = None
                self._done(search, error.for_model(), bad=True)
                return
            self._done(search, "" if search.found else f"nothing matches {search.pattern[:80]!r}")

        def _take_batch(self, search: _Search, limit: int, left_s: float, *, first: bool) -> bool:
            """Look for some more matches; gives whether to go on. The first new one is shown at once."""
            got = self._fd.text.search(
                search.pattern, limit=limit, start_char=search.next_char or 0, ignore_case=search.ignore_case, timeout_s=max(left_s, 0.05)
            )
            with self._lock:
                if self._search is not search:
                    return False
                begun = len(search.found)
                search.found += [(match.start, match.stop) for match in got.matches]
                search.next_char = got.next_char
                if first and len(search.found) > begun:
                    self._show_match(search, begun)
                else:
                    self.hits = search.hits(self._fd.text.chars)
                if got.timed_out:
                    self.tell(f"the search took more than {SEARCH_S:.0f} s and was stopped; ↓ at the last match goes on")
                return not got.timed_out

        def _done(self, search: _Search, note: str, *, bad: bool = False) -> None:
            with self._lock:
                search.busy = False
                if self._search is search:
                    self.hits = search.hits(self._fd.text.chars)
                    self._turn(self._number)
                    if note:
                        self.tell(note, bad=bad)

        # files

        def _save(self, value: Any) -> None:
            threading.Thread(target=self._write, args=(str(value),), name="llmproc-save", daemon=True).start()

        def _write(self, name: str) -> None:
            try:
                self.tell(save_text(self._fd, name))
            except LlmprocError as error:
                self.tell(error.for_model(), bad=True)

    return FdWidget


def _whole(value: Any) -> int:
    """A number that a person typed. Raises ToolError."""
    text = str(value).replace(",", "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise ToolError(f"{text[:40]!r} is no number", right="a number from 1 on is needed")
    return int(text)
