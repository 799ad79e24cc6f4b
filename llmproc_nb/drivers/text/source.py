"""Where the bytes of a text lie: in memory, in a file of ours that nobody changes, or in a file of somebody else that may change.

Files are read by position and not mapped: a mapped file that somebody shortens ends the whole kernel with SIGBUS, and a read of 256 KB
costs 15 µs either way. A file of somebody else stays open, so that its text survives when it is deleted or replaced; that it was written
to shows in its size and its time, before and after each read, and ends the text with an error instead of garbage.
"""

from __future__ import annotations

import os
import stat
import weakref
from pathlib import Path
from threading import Lock
from typing import Protocol

from llmproc_nb.core.errors import ToolError

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class Source(Protocol):
    """Bytes that do not change. Raises ToolError where they can no longer be had as they were."""

    size: int

    def read(self, start: int, stop: int) -> bytes: ...


class Held:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read(self, start: int, stop: int) -> bytes:
        return self._data[start:stop]


class Kept:
    """A file named by its content: opened for each read, so that thousands of texts need no handles."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, path.stat().st_size

    def read(self, start: int, stop: int) -> bytes:
        try:
            handle = os.open(self.path, os.O_RDONLY | _BINARY)
        except OSError as error:
            raise ToolError(f"the kept text is gone ({error.strerror})", place=str(self.path)) from error
        try:
            data = read_at(handle, start, min(stop, self.size) - start)
        finally:
            os.close(handle)
        if len(data) != min(stop, self.size) - start:
            raise ToolError("the kept text was cut short", place=str(self.path))
        return data


class Foreign:
    """A file of somebody else, held open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | _BINARY | getattr(os, "O_NONBLOCK", 0))
        weakref.finalize(self, os.close, self._handle)
        status = os.fstat(self._handle)
        if not stat.S_ISREG(status.st_mode):
            raise ToolError(f"{path.name!r} is no ordinary file", right="a file with text is needed")
        self.size, self._time_ns = status.st_size, status.st_mtime_ns

    @property
    def file_id(self) -> tuple[int, int]:
        """Which file of the system it is."""
        status = os.fstat(self._handle)
        return status.st_dev, status.st_ino

    def read(self, start: int, stop: int) -> bytes:
        data = read_at(self._handle, start, min(stop, self.size) - start)
        status = os.fstat(self._handle)
        if (status.st_size, status.st_mtime_ns) != (self.size, self._time_ns):
            raise changed(self.path, f"it had {self.size:,} bytes and has {status.st_size:,}" if status.st_size != self.size else "")
        return data


def changed(path: Path, how: str = "") -> ToolError:
    """The error for a file that is not what it was."""
    found = f"the file {path.name!r} was written to after it was opened as a text" + (f" ({how})" if how else "")
    return ToolError(found, right="the text can no longer be read from it", step="Open the file again.")


_no_positions = Lock()


def read_at(handle: int, start: int, count: int) -> bytes:
    """So many bytes from a position on; fewer only at the end of the file. Safe from several threads."""
    pieces: list[bytes] = []
    while count > 0:
        if hasattr(os, "pread"):
            piece = os.pread(handle, count, start)
        else:
            with _no_positions:
                os.lseek(handle, start, os.SEEK_SET)
                piece = os.read(handle, count)
        if not piece:
            break
        pieces.append(piece)
        start, count = start + len(piece), count - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
