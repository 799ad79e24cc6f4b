"""The processes of a family as its keeper sees them in /proc: who they are, what memory they have, and their end.

In the tier with namespaces /proc shows the family only; elsewhere it is what descends from the keeper.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from llmproc_nb.inside import confine, linux

PASSES = 50
TAKES_ORPHANS = 36
WHY = {"SIGXCPU": ": it used more CPU time than it may"}
LITTLE = 0.05


def processes() -> set[int]:
    """The family's processes, without the keeper."""
    return _below(os.getpid(), _parents())


def take_orphans() -> None:
    """What descends from this process shall stay below it, also when a parent in between is gone."""
    if sys.platform == "linux":
        linux.prctl(TAKES_ORPHANS, 1)


def end(pid: int, spared: set[int]) -> None:
    """End a shell with everything that it started, but not the other shells and frozen copies, which are `spared`.

    A shell takes its orphans. So an orphan that came to the keeper is left by one that is gone, or that would not take it.
    """
    own, spared = os.getpid(), spared | confine.own()
    for _ in range(PASSES):
        parents = _parents()
        doomed = {one for one in _below(own, parents) - spared if parents[one] == own or one == pid or _belongs(one, pid, parents, spared)}
        doomed = {one for one in doomed if not _zombie(one)}
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
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def how(status: int) -> str:
    """How a process ended, in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"it ended by itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"it was ended by {name}{WHY.get(name, '')}"


def greedy(most_mb: float, inherited: dict[int, float]) -> tuple[int, float] | None:
    """The process to end because the family has more memory than it may: its pid, and how much it has. None where all is well.

    What processes share after a fork is theirs only once, and how much that is nobody but themselves can read. So for each counts what it
    has more than its parent had when it was first seen (`inherited` keeps that); and all of it only where the machine itself runs short.
    Of memory that is shared on purpose (maps, files of the working folders) they have together no more than the machine has of it.
    """
    parents, own_pid = _parents(), os.getpid()
    both = {pid: _memory_mb(pid) for pid in {own_pid, *_below(own_pid, parents)}}
    now, shared = {pid: own for pid, (own, _) in both.items()}, {pid: shared for pid, (_, shared) in both.items()}
    together = min(sum(shared.values()), _machine_mb("Shmem"))
    for gone in inherited.keys() - now.keys():
        del inherited[gone]
    for pid in now.keys() - inherited.keys():
        inherited[pid] = min(now[pid], now.get(parents.get(pid, 0), 0.0))
    del now[own_pid]
    more = {pid: max(0.0, size - inherited[pid]) for pid, size in now.items()}
    if sum(more.values()) + together > most_mb or (sum(now.values()) + together > most_mb and _short()):
        pid = max(more, key=lambda one: (more[one] + shared[one], now[one]))
        return pid, now[pid] + shared[pid]
    return None


def own_private_mb() -> float:
    """The memory that is this process's alone; only itself may read that."""
    lines = _read("self", "smaps_rollup").splitlines()
    names = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(names)) / 1000


def _memory_mb(pid: int) -> tuple[float, float]:
    """What a process has for itself, and what of that which can be shared."""
    found = {"RssAnon": 0.0, "RssShmem": 0.0}
    for line in _read(pid, "status").splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) / 1000
    return found["RssAnon"], found["RssShmem"]


def _short() -> bool:
    """Whether the machine has hardly any memory left."""
    return _machine_mb("MemAvailable") < _machine_mb("MemTotal") * LITTLE


def _machine_mb(name: str) -> float:
    """A line of /proc/meminfo; without end where there is none."""
    for line in _read("", "meminfo").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1000
    return float("inf")


def _read(pid: int | str, name: str) -> str:
    try:
        with open(os.path.join(confine.proc() if isinstance(pid, int) else "/proc", str(pid), name)) as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, group, …"""
    return _read(pid, "stat").rpartition(")")[2].split()


def _parents() -> dict[int, int]:
    found = {}
    for name in os.listdir(confine.proc()):
        if name.isdigit():
            fields = _fields(int(name))
            if fields:
                found[int(name)] = int(fields[1])
    return found


def _zombie(pid: int) -> bool:
    fields = _fields(pid)
    return not fields or fields[0] in "ZX"


def _below(root: int, parents: dict[int, int]) -> set[int]:
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def _belongs(pid: int, shell: int, parents: dict[int, int], spared: set[int]) -> bool:
    """Whether a process descends from the shell, and from no spared one in between."""
    for _ in range(len(parents)):
        pid = parents.get(pid, 0)
        if pid in spared or pid <= 1:
            return False
        if pid == shell:
            return True
    return False
