"""The folder that a shell works in, its copies and its snapshots.

A snapshot links the files that did not change since the one before it, so that one per cell costs little. Everything in a folder is
hostile: no link is followed, no name is looked up twice.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass, field

AT_ONCE = 1 << 24
_Mark = tuple[int, int, int, int]


@dataclass
class Copied:
    """What a copy made: the mark of each file at its path, and what could not be copied."""

    marks: dict[str, _Mark] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def remove(path: str) -> None:
    """Remove an area or a snapshot, as far as it is there."""
    shutil.rmtree(path, ignore_errors=True)


def clear(path: str) -> None:
    """Remove all that is in an area or a snapshot. The folder stays: frozen copies may have it mounted, and mount another one over it."""
    for name in os.listdir(path) if os.path.isdir(path) else ():
        inner = os.path.join(path, name)
        if os.path.isdir(inner) and not os.path.islink(inner):
            shutil.rmtree(inner, ignore_errors=True)
        else:
            os.unlink(inner)


def copy(source: str, target: str, before: Copied | None = None, before_path: str = "") -> Copied:
    """Copy an area, linking what did not change since `before`, a snapshot at `before_path`. Raises OSError where there is no room."""
    made = Copied()
    os.mkdir(target, 0o700)
    try:
        fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) for path in (source, target)]
        old = os.open(before_path, os.O_RDONLY | os.O_DIRECTORY) if before is not None else -1
        try:
            _folder(fds[0], fds[1], "", made, before, old)
        finally:
            for fd in (*fds, *([old] if old >= 0 else [])):
                os.close(fd)
    except OSError:
        remove(target)
        raise
    return made


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
        inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=source)
    except OSError:
        made.left_out.append(path)
        return
    try:
        os.mkdir(name, 0o700, dir_fd=target)
        new = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=target)
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
    if before is not None and before.marks.get(path) == mark:
        os.link(path, name, src_dir_fd=old, dst_dir_fd=target, follow_symlinks=False)
        return
    try:
        inside = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=source)
    except OSError:
        made.left_out.append(path)
        return
    try:
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target)
        try:
            _content(inside, new, found.st_size)
            os.fchmod(new, stat.S_IMODE(found.st_mode) & 0o777)
        finally:
            os.close(new)
    finally:
        os.close(inside)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


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
