"""Files that code has open, across a fork: a copy opens them again, in its own area, at the place where they stood.

A file whose name is gone gets a private copy of its content; sockets and pipes lead nowhere in a copy, for two processes cannot share one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import stat
from dataclasses import dataclass
from typing import Any

MOST_BYTES = 1 << 26
MOST_OPEN = 1024


@dataclass
class File:
    """An open file: its number, its path, how it was opened, where it stood."""

    fd: int
    path: str
    flags: int
    place: int
    inherits: bool


class _Map(mmap.mmap):
    """A memory map that is taken note of: to look through all of a process's memory after each cell would take too long."""

    made = 0

    def __new__(cls, *arguments: Any, **fields: Any) -> Any:
        _Map.made += 1
        return super().__new__(cls, *arguments, **fields)


def watch_maps() -> None:
    """Take note of memory maps from now on."""
    mmap.mmap = _Map  # type: ignore[misc]


def left_behind(area: str, own: set[int]) -> list[str]:
    """Which open things no copy has, in a few words each."""
    sockets = pipes = 0
    for fd, kind in _all():
        if fd not in own:
            sockets += stat.S_ISSOCK(kind)
            pipes += stat.S_ISFIFO(kind)
    things = [f"{count} open {name}{'s' * (count != 1)}" for count, name in ((sockets, "socket"), (pipes, "pipe")) if count]
    mapped = _mapped(area) if _Map.made else []
    if mapped:
        things.append(f"memory maps that are shared with {', '.join(mapped[:3])}")
    return things


def remember(area: str, own: int) -> list[File]:
    """In a copy: what is open below the area, to be opened again; everything that cannot be is cut off now."""
    found, unnamed = [], []
    open_files = []
    for fd, kind in _all():
        if fd == own:
            continue
        if stat.S_ISSOCK(kind) or stat.S_ISFIFO(kind):
            _cut_off(fd)
        elif stat.S_ISREG(kind) or stat.S_ISDIR(kind):
            open_files.append(fd)
    paths = _paths(open_files, area)
    for fd in open_files:
        flags, place = fcntl.fcntl(fd, fcntl.F_GETFL), _place(fd)
        if not os.fstat(fd).st_nlink:
            unnamed.append((fd, flags, place))
        elif fd in paths:
            found.append(File(fd, paths[fd], flags, place, os.get_inheritable(fd)))
    for fd, _, place in unnamed:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            _cut_off(fd)
        else:
            _own_copy(fd, place, area)
    return found


def _place(fd: int) -> int:
    try:
        return 0 if stat.S_ISDIR(os.fstat(fd).st_mode) else os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:  # opened as a path only
        return 0


def reopen(files: list[File], moved: dict[str, str]) -> None:
    """In a live copy with its own area: open the files there, under the same numbers."""
    for file in files:
        path = file.path
        for old, new in moved.items():
            if path == old or path.startswith(old + "/"):
                path = new + path[len(old) :]
        try:
            fd = os.open(path, file.flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC))
        except OSError:
            _cut_off(file.fd)
            continue
        if file.place:
            os.lseek(fd, file.place, os.SEEK_SET)
        os.dup2(fd, file.fd, inheritable=file.inherits)
        os.close(fd)


def _all() -> list[tuple[int, int]]:
    """What is open beyond the first three, with its kind."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # this tier shows no /proc
        every = select.poll()
        for fd in range(MOST_OPEN):
            every.register(fd, 0)
        numbers = sorted(set(range(MOST_OPEN)) - {fd for fd, what in every.poll(0) if what & select.POLLNVAL})
    found = []
    for fd in numbers:
        try:
            if fd > 2:
                found.append((fd, os.fstat(fd).st_mode))
        except OSError:
            continue
    return found


def _paths(fds: list[int], area: str) -> dict[int, str]:
    """The paths of open files, for those that are in the area."""
    try:
        paths = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in fds}
    except OSError:
        paths = _searched(fds, area)
    return {fd: path for fd, path in paths.items() if path == area or path.startswith(area + "/")}


def _searched(fds: list[int], area: str) -> dict[int, str]:
    """The same where /proc is not shown: the area is searched for them."""
    wanted: dict[tuple[int, int], list[int]] = {}
    for fd in fds:
        found = os.fstat(fd)
        wanted.setdefault((found.st_dev, found.st_ino), []).append(fd)
    paths = {}
    for folder, _, names in os.walk(area) if wanted else ():
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            try:
                found = os.lstat(path)
            except OSError:
                continue
            for fd in wanted.get((found.st_dev, found.st_ino), []):
                paths[fd] = path
    return paths


def _cut_off(fd: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, fd, inheritable=os.get_inheritable(fd))
    os.close(nowhere)


def _own_copy(fd: int, place: int, area: str) -> None:
    """A file without a name: its content, in a file of the copy's own."""
    size = os.fstat(fd).st_size
    if size > MOST_BYTES or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        _cut_off(fd)
        return
    try:
        new = os.open(f"{area}/tmp", os.O_RDWR | os.O_TMPFILE, 0o600)
    except OSError:
        _cut_off(fd)
        return
    at = 0
    while at < size:
        part = os.pread(fd, min(size - at, 1 << 20), at)
        if not part:
            break
        os.write(new, part)
        at += len(part)
    os.lseek(new, place, os.SEEK_SET)
    os.dup2(new, fd, inheritable=os.get_inheritable(fd))
    os.close(new)


def _mapped(area: str) -> list[str]:
    """Files of the area that are mapped into memory for writing by several."""
    found = []
    try:
        with open("/proc/self/maps") as file:
            for line in file:
                parts = line.split(None, 5)
                if len(parts) == 6 and "s" in parts[1] and parts[5].startswith(area + "/"):
                    found.append(os.path.basename(parts[5].strip()))
    except OSError:
        pass
    return found
