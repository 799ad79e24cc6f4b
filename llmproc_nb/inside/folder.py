"""Folders for sandboxes among the temporary files. Each says whose it is, so that the next one who makes one can remove those of the dead.

An owner is a process of this machine since it was started, in one pid namespace: of another's processes nothing can be known here.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import time

from llmproc_nb.inside.area import remove

PREFIX, OWNER = "llmproc-", "owner"
MOST_SAID = 200
UNSIGNED_S = 600


def make(base: str | None = None) -> str:
    """A new private folder, after those were removed whose owners are gone."""
    base = base or tempfile.gettempdir()
    sweep(base)
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=base)
    with open(os.open(os.path.join(folder, OWNER), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump([os.getpid(), started(os.getpid()), _pids()], file)
    return folder


def sweep(base: str) -> None:
    """Remove the folders whose owners are gone. What does not say whose it is stays, unless it is as empty as it was made."""
    try:
        names = [name for name in os.listdir(base) if name.startswith(PREFIX)]
    except OSError:
        return
    for name in names:
        if _left(folder := os.path.join(base, name)):
            remove(folder)
        else:
            _remove_unsigned(folder)


def started(pid: int) -> str:
    """When a process was started, in the machine's own count; empty where there is none, or it is dead and only not taken leave of."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _left(folder: str) -> bool:
    """Whether a folder is one of ours whose owner is gone. It may be anybody's: nothing in it is believed further than that."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return False
        with open(os.open(os.path.join(folder, OWNER), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return False
            pid, began, pids = json.loads(file.read(MOST_SAID))
        return bool(began) and pids == _pids() != "" and isinstance(pid, int) and started(pid) != began
    except (OSError, ValueError, TypeError):
        return False


def _remove_unsigned(folder: str) -> None:
    """Whoever made it may have ended before saying whose it is. Then it is empty, and stays so; what has something in it stays."""
    with contextlib.suppress(OSError):
        found = os.lstat(folder)
        made = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == os.getuid()
        if made and time.time() - found.st_mtime > UNSIGNED_S:
            os.rmdir(folder)


def _pids() -> str:
    """The pid namespace that this process is in, of this start of the machine; empty where there is no telling."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            return f"{os.readlink('/proc/self/ns/pid')} {file.read().strip()}"
    except OSError:
        return ""
