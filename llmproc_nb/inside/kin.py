"""The processes of a family as its keeper sees them in /proc: who they are, who started whom, and their end.

In the tier with namespaces /proc shows the family only; elsewhere it is what descends from the keeper. Not here: how much they may
have (watch).
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from llmproc_nb.inside import confine, linux
from llmproc_nb.inside.confined import NOW

END_S = 10.0
PAUSE_S = 0.002
MANY = 150
WAKES = 10
"""How often whoever was stopped is told again to go on, at one look after the other: the fork of a large process takes long."""
TAKES_ORPHANS = 36
WHY = {"SIGXCPU": ": it used more CPU time than it may"}
TICKS = os.sysconf("SC_CLK_TCK")


class Seen(NamedTuple):
    """A process that has not ended: its parent, and the CPU time that it has used."""

    parent: int
    cpu_s: float


def take_orphans() -> None:
    """What descends from this process shall stay below it, also when a parent in between is gone."""
    if sys.platform == "linux":
        linux.prctl(TAKES_ORPHANS, 1)


def family() -> dict[int, Seen]:
    """The family's processes, without the keeper and what is trusted beside it."""
    return _family(_all())


def _family(seen: dict[int, Seen]) -> dict[int, Seen]:
    children: dict[int, list[int]] = {}
    for pid, one in seen.items():
        children.setdefault(one.parent, []).append(pid)
    found, new = dict[int, Seen](), [os.getpid()]
    while new:
        below = children.get(new.pop(), ())
        new += below
        found.update((pid, seen[pid]) for pid in below)
    return {pid: one for pid, one in found.items() if pid not in confine.own()}


def started(seen: dict[int, Seen], sessions: Iterable[int]) -> dict[int, set[int]]:
    """For each session the processes that descend from it, but from no other in between; by 0 those of sessions that are gone."""
    ends, found = {*sessions, os.getpid()}, dict[int, set[int]]()
    for pid in seen.keys() - ends:
        above = seen[pid].parent
        while above not in ends and above in seen:
            above = seen[above].parent
        found.setdefault(0 if above == os.getpid() else above, set()).add(pid)
    return found


def end(pid: int, spared: set[int], *, itself: bool = True) -> None:
    """End a shell with everything that it started, but not the other shells and frozen copies, which are `spared`.

    A shell takes its orphans. So an orphan that came to the keeper is left by one that is gone, or that would not take it. Without
    `itself` the shell goes on, and so does what was left.
    """

    def doomed() -> set[int]:
        seen = family()
        found = started(seen, {pid, *spared})
        return found.get(pid, set()) | ((found.get(0, set()) | {pid} & seen.keys()) if itself or not pid else set())

    _end(doomed, () if itself else (pid,))


def end_all() -> None:
    """End every process of the family, and take leave of them."""

    def living() -> set[int]:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        return set(family())

    _end(living)


def _end(doomed: Callable[[], set[int]], forking: tuple[int, ...] = ()) -> None:
    """Kill until nobody is left. Where new ones come while others are killed, all are stopped first: then none can fork.

    `forking` are not killed, but what is killed may come from them: they are stopped as well, and go on afterwards.
    """
    last, killed = time.monotonic() + END_S, set[int]()
    held = _alone() and len(os.listdir(confine.proc())) > MANY
    if held:  # where very many run, already to look at them takes long
        _hold(doomed, forking)
    while (found := doomed()) and time.monotonic() < last:
        if not held and killed and found - killed:
            _hold(doomed, forking)
            found, held = doomed(), True
        for pid in found:
            kill(pid)
        killed |= found
        time.sleep(PAUSE_S)
    if held:
        _go_on(forking)


def _hold(doomed: Callable[[], set[int]], forking: tuple[int, ...]) -> None:
    """Stop them all, until a look finds no new one. Their limit keeps those from forking that others wake again."""
    last, held = time.monotonic() + END_S, set[int]()
    while time.monotonic() < last:
        for pid in (-1,) if _alone() else forking:  # at one blow: whoever is about to fork gets it before
            kill(pid, signal.SIGSTOP)
        new = doomed() - held
        if not new:
            return
        for pid in new:
            kill(pid, signal.SIGSTOP)
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(pid, resource.RLIMIT_NPROC, (0, 0))
        held |= new


def _go_on(forking: tuple[int, ...]) -> None:
    for pid in forking:
        kill(pid, signal.SIGCONT)
    if _alone():
        kill(-1, signal.SIGCONT)
        NOW.wakes = WAKES


def wake_late() -> None:
    """Have those go on that were just being forked when all were stopped: they begin stopped, after the others were told to go on."""
    if NOW.wakes:
        NOW.wakes -= 1
        kill(-1, signal.SIGCONT)


def _alone() -> bool:
    """Whether this process can signal none but its family: by its namespace of pids, or by Landlock."""
    return NOW.tier != "process"


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """SIGKILL, or another signal, where there is still somebody."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


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


def own_private_mb() -> float:
    """The memory that is this process's alone; only itself may read that."""
    lines = read("self", "smaps_rollup").splitlines()
    names = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(names)) / 1000


def read(pid: int | str, name: str) -> str:
    """A file of /proc, by a process's number or the name of its folder; "" where it cannot be read."""
    try:
        with open(os.path.join(confine.proc() if isinstance(pid, int) else "/proc", str(pid), name)) as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def _all() -> dict[int, Seen]:
    """The processes that have not ended: those that wait to be reaped hold nothing, and nobody descends from them."""
    found = {}
    for name in os.listdir(confine.proc()):
        if name.isdigit():
            fields = read(int(name), "stat").rpartition(")")[2].split()  # after the name: state, parent, …
            if fields and (fields[0] not in "ZX" or int(fields[17]) > 1):  # its first thread may be gone, and others go on
                found[int(name)] = Seen(int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS)
    return found
