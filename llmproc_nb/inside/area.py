"""The folder that a shell works in, its copies and its snapshots.

A snapshot links the files that did not change since the one before it, so that one per cell costs little. Everything in a folder is
hostile: no link is followed, no name is looked up twice.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

AT_ONCE = 1 << 24
COMPARED_AT_ONCE = 1 << 20
DEEPEST = 100
"""How many folders may lie in each other; what is deeper is in no copy."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_Mark = tuple[int, int, int, int]


@dataclass
class Copied:
    """What a copy made: the mark of each file at its path, and what could not be copied."""

    marks: dict[str, _Mark] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def remove(path: str) -> None:
    """Remove an area, a snapshot, or what holds them, as far as it is there and can be removed."""
    clear(path)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def clear(path: str) -> None:
    """Remove all that is in an area or a snapshot. The folder stays: frozen copies may have it mounted, and mount another one over it.

    Each inner folder is moved to the top before it is emptied: so none is nested too deep for it.
    """
    try:
        top = os.open(path, _FOLDER)
    except OSError:
        return
    names = (f"{os.urandom(8).hex()}-{number}" for number in itertools.count())
    try:
        waiting = _emptied(top, top, names)
        while waiting:
            name = waiting.pop()
            with contextlib.suppress(OSError):
                inner = os.open(name, _FOLDER, dir_fd=top)
                try:
                    waiting += _emptied(inner, top, names)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def _emptied(folder: int, top: int, names: Iterator[str]) -> list[str]:
    """Remove what is in a folder, but move its inner folders to the top: their names there."""
    moved = []
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=folder)
                continue
            with contextlib.suppress(OSError):
                _open_up(name, folder)
            os.rename(name, new := next(names), src_dir_fd=folder, dst_dir_fd=top)
            moved.append(new)
    return moved


def _open_up(name: str, folder: int) -> None:
    """Let an inner folder be moved and emptied. By a descriptor: by its name it could be a link meanwhile, to something of the host's."""
    inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        os.chmod(f"/proc/self/fd/{inner}", 0o700)
    finally:
        os.close(inner)


def copy(source: str, target: str, before: Copied | None = None, before_path: str = "", *, again: bool = False) -> Copied:
    """Copy an area, linking what did not change since `before`, a snapshot at `before_path`. Raises OSError where there is no room.

    `again`: to one that is there, in the place of all that is in it.
    """
    made = Copied()
    if again:
        clear(target)
    else:
        os.mkdir(target, 0o700)
    try:
        fds = [os.open(path, _FOLDER) for path in (source, target)]
        before, old = _before(before, before_path)
        try:
            _folder(fds[0], fds[1], "", made, before, old)
        finally:
            for fd in (*fds, *([old] if old >= 0 else [])):
                os.close(fd)
    except OSError:
        clear(target) if again else remove(target)
        raise
    return made


def _before(before: Copied | None, path: str) -> tuple[Copied | None, int]:
    """The snapshot before, opened; none where something else is in its place."""
    try:
        return (before, os.open(path, _FOLDER)) if before is not None else (None, -1)
    except OSError:
        return None, -1


def _folder(source: int, target: int, path: str, made: Copied, before: Copied | None, old: int) -> None:
    with os.scandir(source) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        try:
            found = os.stat(name, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:  # a process of the shell that goes on in the background took it away
            continue
        inner = f"{path}/{name}" if path else name
        if stat.S_ISDIR(found.st_mode):
            _inner(source, target, name, inner, found, made, before, old)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISREG(found.st_mode):
            _file(source, target, name, inner, found, made, before, old)
        elif stat.S_ISFIFO(found.st_mode):
            os.mkfifo(name, stat.S_IMODE(found.st_mode), dir_fd=target)
        else:
            made.left_out.append(inner)


def _inner(source: int, target: int, name: str, path: str, found: os.stat_result, made: Copied, before: Copied | None, old: int) -> None:
    try:
        if path.count("/") >= DEEPEST:
            raise OSError(errno.ENAMETOOLONG, "folders in folders in folders")
        inside = os.open(name, _FOLDER, dir_fd=source)
    except OSError:
        made.left_out.append(path)
        return
    try:
        os.mkdir(name, 0o700, dir_fd=target)
        new = os.open(name, _FOLDER, dir_fd=target)
        try:
            _folder(inside, new, path, made, before, old)
            os.fchmod(new, stat.S_IMODE(found.st_mode) | 0o700)
        finally:
            os.close(new)
    finally:
        os.close(inside)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _file(source: int, target: int, name: str, path: str, found: os.stat_result, made: Copied, before: Copied | None, old: int) -> None:
    mark = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    made.marks[path] = mark
    try:
        inside = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=source)
    except OSError:
        made.left_out.append(path)
        return
    try:
        if before is not None and before.marks.get(path) == mark and _same(inside, old, path):
            os.link(path, name, src_dir_fd=old, dst_dir_fd=target, follow_symlinks=False)
            return
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target)
        try:
            _content(inside, new, found.st_size)
            os.fchmod(new, stat.S_IMODE(found.st_mode) & 0o777)
        finally:
            os.close(new)
    finally:
        os.close(inside)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _same(source: int, old: int, path: str) -> bool:
    """Whether a file has the content it had before: what is written through a memory map leaves no mark."""
    before = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=old)
    try:
        at = 0
        while part := os.pread(source, COMPARED_AT_ONCE, at):
            if part != os.pread(before, COMPARED_AT_ONCE, at):
                return False
            at += len(part)
        return True
    finally:
        os.close(before)


def _content(source: int, target: int, size: int) -> None:
    """The content of a file, its holes left as holes."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            begin = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole until the end
            return
        end = min(os.lseek(source, begin, os.SEEK_HOLE), size)
        os.lseek(target, begin, os.SEEK_SET)
        while begin < end:
            sent = os.sendfile(target, source, begin, min(end - begin, AT_ONCE))
            if not sent:
                return
            begin += sent
        at = end
