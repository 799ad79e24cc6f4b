"""The fds of a process, and what its model has read of each. Not here: one fd (fd), reading by arguments (reading)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.fd import PAGE_CHARS, Fd
from llmproc_nb.core.longtext import Keep, LongText, Numbers

_LISTED = 12


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
