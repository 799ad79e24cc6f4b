"""The processes of a family as its keeper sees them in /proc: who they are, what memory they have, and their end.

In the tier with namespaces /proc shows the family only; elsewhere it is what descends from the keeper.
"""

from __future__ import annotations

import os
import signal
import time

PASSES = 50


def processes() -> set[int]:
    """The family's processes, without the keeper."""
    parents = _parents()
    own = os.getpid()
    found = {own}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found - {own}
        found |= more


def end(pid: int, live: set[int], frozen: set[int]) -> None:
    """End a shell with everything that it started; `live` are the other shells, `frozen` the kept copies.

    Where each shell has its own view of the files (a mount namespace), that tells what is whose, also for processes that went into the
    background; elsewhere descent and session do, and what has left both goes on until the family ends.
    """
    own, views = _files_seen(os.getpid()), {_files_seen(one) for one in live}
    apart = _files_seen(pid) not in (own, "")
    for _ in range(PASSES):
        known = {one for one in processes() - live - frozen if not _zombie(one)}
        doomed = {one for one in known if one == pid or (_files_seen(one) not in views if apart else _belongs(one, pid, live | frozen))}
        if not doomed:
            return
        for one in doomed:
            kill(one)
        time.sleep(0.002)


def end_all() -> None:
    """End every process of the family."""
    for _ in range(PASSES):
        doomed = {pid for pid in processes() if not _zombie(pid)}
        for pid in doomed:
            kill(pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def kill(pid: int) -> None:
    """SIGKILL, where there is still somebody."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def how(status: int) -> str:
    """How a process ended, in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"it ended by itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"it was ended by {name}"


def private_mb(pid: int) -> float:
    """The memory that is this process's alone."""
    return _rollup(pid, ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"))


def proportional_mb(pid: int) -> float:
    """The memory of this process, what it shares counted in parts."""
    return _rollup(pid, ("Pss:",))


def resident_mb() -> float:
    """At most so much memory has the whole family: what is shared counts several times."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for pid in processes():
        text = _read(pid, "statm")
        total += int(text.split()[1]) if text else 0
    return total * page / 1e6


def _rollup(pid: int, names: tuple[str, ...]) -> float:
    lines = _read(pid, "smaps_rollup").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(names)) / 1000


def _read(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, group, …"""
    return _read(pid, "stat").rpartition(")")[2].split()


def _parents() -> dict[int, int]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _fields(int(name))
            if fields:
                found[int(name)] = int(fields[1])
    return found


def _zombie(pid: int) -> bool:
    fields = _fields(pid)
    return not fields or fields[0] in "ZX"


def _files_seen(pid: int) -> str:
    """Which mount namespace a process is in."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return ""


def _belongs(pid: int, shell: int, spared: set[int]) -> bool:
    """Whether a process is in the shell's session, or descends from it and from no spared one in between."""
    fields = _fields(pid)
    if fields and int(fields[3]) == shell:
        return True
    while fields:
        pid = int(fields[1])
        if pid in spared or pid <= 1:
            return False
        if pid == shell:
            return True
        fields = _fields(pid)
    return False
