"""Files that code has open, across a fork: a copy opens them again, in its own area, at the place where they stood.

A file whose name is gone gets a private copy of its content; sockets and pipes lead nowhere in a copy, for two processes cannot share one.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

MOST_BYTES = 1 << 26


@dataclass
class File:
    """An open file: its number, its path, how it was opened, where it stood."""

    fd: int
    path: str
    flags: int
    place: int
    inherits: bool


def left_behind(area: str, own: set[int]) -> list[str]:
    """Which open things no copy has, in words."""
    sockets = pipes = 0
    for fd, target in _all():
        if fd not in own:
            sockets += target.startswith("socket:")
            pipes += target.startswith("pipe:")
    notes = [f"{count} open {name}{'s' * (count != 1)}" for count, name in ((sockets, "socket"), (pipes, "pipe")) if count]
    mapped = _mapped(area)
    if mapped:
        notes.append(f"memory maps that are shared with {', '.join(mapped[:3])}")
    return [f"{' and '.join(notes)}, which no copy of this state has for itself"] if notes else []


def remember(area: str, own: int) -> list[File]:
    """In a copy: what is open below the area, to be opened again; everything that cannot be is cut off now."""
    found = []
    for fd, target in _all():
        if fd in (own, 0, 1, 2):
            continue
        try:
            kind = os.fstat(fd).st_mode
        except OSError:
            continue
        if stat.S_ISSOCK(kind) or stat.S_ISFIFO(kind):
            _cut_off(fd)
        elif stat.S_ISREG(kind) and (target == area or target.startswith(area + "/")):
            flags, place = _place(fd)
            if target.endswith(" (deleted)"):
                _own_copy(fd, flags, place, area)
            else:
                found.append(File(fd, target, flags, place, os.get_inheritable(fd)))
    return found


def reopen(files: list[File], moved: dict[str, str]) -> None:
    """In a live copy with its own area: open the files there, under the same numbers."""
    for file in files:
        path = file.path
        for old, new in moved.items():
            if path.startswith(old + "/"):
                path = new + path[len(old) :]
        try:
            fd = os.open(path, file.flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC))
        except OSError:
            _cut_off(file.fd)
            continue
        os.lseek(fd, file.place, os.SEEK_SET)
        os.dup2(fd, file.fd, inheritable=file.inherits)
        os.close(fd)


def _all() -> list[tuple[int, str]]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:
            continue
    return found


def _place(fd: int) -> tuple[int, int]:
    with open(f"/proc/self/fdinfo/{fd}") as file:
        fields = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
    return int(fields["flags"].strip(), 8), int(fields["pos"])


def _cut_off(fd: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, fd, inheritable=os.get_inheritable(fd))
    os.close(nowhere)


def _own_copy(fd: int, flags: int, place: int, area: str) -> None:
    """A file without a name: its content, in a file of the copy's own."""
    size = os.fstat(fd).st_size
    if size > MOST_BYTES:
        _cut_off(fd)
        return
    try:
        new = os.open(f"{area}/tmp", os.O_RDWR | os.O_TMPFILE, 0o600)
    except OSError:
        _cut_off(fd)
        return
    source = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    at = 0
    while at < size:
        sent = os.sendfile(new, source, at, size - at)
        if not sent:
            break
        at += sent
    os.close(source)
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
