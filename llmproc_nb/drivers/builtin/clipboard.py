"""Moving text between files without repeating it: copy and paste, with a clipboard for each process.

A fork begins with what is on its parent's clipboard. It is kept in memory only: after a restart of the kernel it is empty.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from llmproc_nb.core.errors import ToolError
from llmproc_nb.drivers.builtin.edit import TextFile, text_file
from llmproc_nb.drivers.builtin.folder import Folder

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process

T = TypeVar("T")
Write: TypeAlias = Callable[[bytes, Path, str], int]
"""Puts bytes into a file, at once and whole; the text is what a model calls the file."""
_SHOWN_CHARS = 200
_WRITING = threading.Lock()
"""Held from reading a file until it is written: of several processes that paste into one each finds what the others did."""


class Clipboard:
    """copy and paste in one folder. `write` reaches no further."""

    def __init__(self, folder: Folder, write: Write) -> None:
        self._folder, self._write = folder, write

    async def copy(self, process: Process, file_path: str, start: str, end: str) -> str:
        """Put a part of a file on the clipboard; gives its size, first and last line. Raises ToolError."""
        return await self._in_turn(process, lambda: self._copied(process, file_path, start, end))

    async def paste(self, process: Process, file_path: str, before: str = "", after: str = "") -> str:
        """Put what is on the clipboard into a file, where `before` stands before and `after` after it; says on which lines it is then.

        Raises ToolError.
        """
        return await self._in_turn(process, lambda: self._pasted(process, file_path, before, after))

    async def _in_turn(self, process: Process, work: Callable[[], T]) -> T:
        async with process.pasting:  # of several in one reply each finds what the one before it left
            return await process.machine.owner.workers.run(work)

    def _copied(self, process: Process, file_path: str, start: str, end: str) -> str:
        path = self._folder.inside(file_path)
        self._folder.check_open(path, file_path)
        file = self._file(path, file_path)
        first, last = _part(file, file.taken(start), file.taken(end))
        piece = file.text[first:last]
        process.clipboard = file.given(piece)
        return f"copied {_size(piece)}, from {_lines(file, first, last)} of {file_path!r}\n{_ends(piece)}"

    def _pasted(self, process: Process, file_path: str, before: str, after: str) -> str:
        if not process.clipboard:
            raise ToolError("nothing was copied yet in this run of the kernel", right="copy puts a part of a file on the clipboard")
        path = self._folder.inside(file_path, "written")
        if path.name.startswith(".env"):
            raise ToolError(f"{file_path!r} is where keys are and is not written", right="give another path")
        with _WRITING:
            file = self._target(path, file_path, before or after)
            piece = file.taken(process.clipboard)
            at = _place(file, file.taken(before), file.taken(after))
            text = file.text[:at] + piece + file.text[at:]
            self._write(file.encoded(text), path, file_path)
        changed = TextFile(name=file_path, text=text)
        said = f"pasted {_size(piece)} into {file_path!r}, now {_lines(changed, at, at + len(piece))}"
        return f"{said} of it\n{_around(changed, at, at + len(piece))}"

    def _target(self, path: Path, file_path: str, place: str) -> TextFile:
        """The file that is pasted into; one that is to be made is empty."""
        if not place and not os.path.lexists(path):
            return TextFile(name=file_path, text="", as_is=True)
        file = self._file(path, file_path)
        if file.text and not place:
            right = "before or after says where in it the text goes; without them a new file is made"
            raise ToolError(f"the file {file_path!r} exists", right=right)
        return file

    def _file(self, path: Path, file_path: str) -> TextFile:
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise ToolError(f"{file_path!r} is a folder", right="the path of a file is needed")
            if not stat.S_ISREG(mode):
                raise ToolError(f"{file_path!r} is no ordinary file", right="a text file is needed")
            return text_file(path, file_path)
        except FileNotFoundError:
            raise self._folder.missing(path, file_path, "file") from None
        except OSError as error:
            raise ToolError(f"{file_path!r:.100} cannot be read ({error.strerror})", right="choose another file") from None


def _part(file: TextFile, start: str, end: str) -> tuple[int, int]:
    """From where to where the part goes. An `end` that is the same text as `start` ends it right there."""
    first = file.place(start, "start")
    after = first + len(start)
    if start == end:
        return first, after
    places = file.places(end, "end")
    found = file.text.find(end, after)
    if found < 0 and not places:
        raise file.not_there("end", end)
    if found < 0:
        right = f"`start` ends on line {file.line(after):,}, and `end` must come after it"
        raise ToolError(f"after `start`, `end` stands at 0 places of {file.name!r}; before, on {file.lines_of(places)}", right=right)
    return first, found + len(end)


def _place(file: TextFile, before: str, after: str) -> int:
    """Where the text goes: after what is to stand before it, before what is to stand after it; into an empty file without that."""
    if before and after:
        return file.between(before, after)
    if before:
        return file.place(before, "before") + len(before)
    return file.place(after, "after") if after else 0


def _size(piece: str) -> str:
    chars, lines = len(piece), len(_split(piece))
    return f"{chars:,} {'character' if chars == 1 else 'characters'} ({lines:,} {'line' if lines == 1 else 'lines'})"


def _lines(file: TextFile, first: int, last: int) -> str:
    """The lines of a part; a line feed at its end still belongs to its last line."""
    begin, end = file.line(first), file.line(max(first, last - 1))
    return f"line {begin:,}" if begin == end else f"lines {begin:,} to {end:,}"


def _ends(piece: str) -> str:
    lines = _split(piece)
    return f"first line: {_short(lines[0])}" + (f"\nlast line: {_short(lines[-1])}" if len(lines) > 1 else "")


def _around(file: TextFile, first: int, last: int) -> str:
    """The lines where a part begins and ends, whole: they show whether it ran together with what was there."""
    lines = file.text.split("\n")
    begin, end = file.line(first), file.line(last)
    return "\n".join(f"{number:,}: {_short(lines[number - 1])}" for number in dict.fromkeys((begin, end)))


def _split(piece: str) -> list[str]:
    return piece.removesuffix("\n").split("\n")


def _short(line: str) -> str:
    line = line.rstrip("\r")
    return line if len(line) <= _SHOWN_CHARS else f"{line[:_SHOWN_CHARS]}…"
