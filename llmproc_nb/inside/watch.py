"""What the sessions of a family have together, watched from outside: processes, memory, CPU time. No limit of a process counts all of it.

Here: a look at a family, and who has too much. Not here: who the processes are and how they are ended (kin), what the kernel limits for
each of them (settle).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import NamedTuple

from llmproc_nb.inside import confine, kin
from llmproc_nb.inside.confined import NOW
from llmproc_nb.inside.rules import Rules

LITTLE = 0.05
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
SOCKET_MB = 0.5
"""What the buffers of a socket hold at most, whose size nobody in a sandbox can set."""
PATIENCE = 10
"""How many times what a session started is ended while it runs a cell, before the session itself is."""


class Greedy(NamedTuple):
    """A session that has too much, 0 for one that is gone: whether it is to end itself, or only what it started, and why."""

    pid: int
    itself: bool
    why: str


class Memory(NamedTuple):
    """MB of each kind: a process's own, what it shares, what the kernel holds for it."""

    own: float
    shared: float
    kernel: float


class Has(NamedTuple):
    """What a process certainly has, and what it may have at most: of shared memory that it has left, and of sockets, nothing tells."""

    certain: Memory
    possible: Memory


class Watch:
    """A family as it was seen last.

    `sessions` are its live shells, `running` those that run a cell, `copies` the frozen ones, `begun` those that a keeper forked itself.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.sessions: Collection[int] = ()
        self.running: Collection[int] = ()
        self.copies: Collection[int] = ()
        self.begun: set[int] = set()
        self._inherited: dict[int, float] = {}
        self._cpu: dict[int, float] = {}
        self._spent: dict[int, float] = {}
        self._times: dict[int, int] = {}
        self._begun = Memory(0.0, 0.0, 0.0), _machine()  # now: what a first cell takes may be there before the first look

    @property
    def known(self) -> set[int]:
        """Sessions and copies."""
        return {*self.sessions, *self.copies, *self.begun}

    def hold(self, tell: Callable[[Greedy], None]) -> None:
        """End who has more than it may, or what it started. It is told first: the end is seen by others as well."""
        kin.wake_late()
        if found := self.look():
            tell(found)
            kin.end(found.pid, self.known - {found.pid}, itself=found.itself)

    def look(self) -> Greedy | None:
        """Who has too much; None where all is well."""
        seen = kin.family()
        started = kin.started(seen, self.known)
        groups = {pid: started.get(pid, set()) for pid in (*self.sessions, 0) if pid in seen or pid in started}
        found = self._too_many(groups) or self._too_long(groups, seen) or self._too_large(groups, seen)
        self._times = {pid: times for pid, times in self._times.items() if pid in self.running}
        if found is None:
            return None
        self._times[found.pid] = self._times.get(found.pid, 0) + 1
        return found._replace(itself=found.itself or self._times[found.pid] > PATIENCE)

    def _too_many(self, groups: dict[int, set[int]]) -> Greedy | None:
        most = self._rules.processes
        for pid, started in groups.items():
            if len(started) + (pid != 0) > most:
                return Greedy(pid, False, f"it had more than {most} process{'es' * (most != 1)} at once")
        return None

    def _too_long(self, groups: dict[int, set[int]], seen: dict[int, kin.Seen]) -> Greedy | None:
        """CPU time of a session and of all that it started, as far as it was seen before it was gone."""
        for pid, started in groups.items():
            used = {one: seen[one].cpu_s - self._cpu.get(one, 0.0) for one in {pid, *started} & seen.keys()}
            self._spent[pid] = self._spent.get(pid, 0.0) + sum(used.values())
            if started and self._spent[pid] > self._rules.cpu_s:
                why = f"it and what it started used more than {self._rules.cpu_s} s of CPU time"
                return Greedy(pid, True, why)
        self._cpu = {pid: one.cpu_s for pid, one in seen.items()}
        self._spent = {pid: spent for pid, spent in self._spent.items() if pid in groups}
        return None

    def _too_large(self, groups: dict[int, set[int]], seen: dict[int, kin.Seen]) -> Greedy | None:
        """Memory of all together: the kernel counts it in their cgroup. Where they have none, it is what they seem to have."""
        has, machine = {pid: _memory(pid) for pid in seen}, _machine()
        own = self._more({pid: one.certain.own for pid, one in has.items()}, seen)
        certain = Memory(sum(own.values()), min(sum(one.certain.shared for one in has.values()), machine.shared), 0.0)
        counted, copies = sum(certain) > self._rules.memory_mb, [pid for pid in self.copies if pid in seen]
        if NOW.group is None:
            copies, too_large = [], self._seems_too_large(groups, has, certain, machine)
        else:
            too_large = NOW.group.is_full(self._kept(has, copies), confine.areas())
        if not too_large:
            return None
        if copies and not counted:  # what a session has written anew since then is theirs; it can go on without them
            return Greedy(copies[0], True, self._why())
        size = {pid: own[pid] + one.certain.shared if counted else sum(one.possible) for pid, one in has.items()}
        return self._largest(groups, size, counted)

    def _seems_too_large(self, groups: dict[int, set[int]], has: dict[int, Has], certain: Memory, machine: Memory) -> bool:
        """By what can be seen of them from outside.

        What processes share after a fork is theirs only once, and how much that is nobody but themselves can read. So for each counts what
        it has more than its parent had when it was first seen (`_inherited` keeps that); and all of it where the machine itself runs short.
        Of what is shared on purpose (maps, files of the working folders) they have together no more than the machine has of it. What a
        fork writes anew, shared memory that nobody looks at any more and the buffers of sockets are not in that. So of what those that run
        may have at most as much counts as the whole machine has more of this kind since they began to start others.
        """
        if not any(groups.values()):
            self._begun = (certain, machine)
        live = {one for pid, started in groups.items() for one in ({pid} & set(self.running) | started) if one in has}
        possible = Memory(*(sum(has[pid].possible[kind] for pid in live) for kind in range(3)))
        kinds = zip(certain, possible, *self._begun, machine, strict=True)
        together = sum(max(sure, min(may, before + now - then)) for sure, may, before, then, now in kinds)
        everything = sum(one.certain.own for one in has.values()) + certain.shared
        return together > self._rules.memory_mb or (everything > self._rules.memory_mb and _short())

    def _kept(self, has: dict[int, Has], copies: list[int]) -> float:
        """MB that copies may have of the cgroup beside what live ones may: no more than they can have, for most is shared."""
        keeper = _memory(os.getpid()).certain.own
        return min(sum(max(0.0, has[pid].certain.own - keeper) for pid in copies), self._rules.checkpoints_mb)

    def _more(self, own: dict[int, float], seen: dict[int, kin.Seen]) -> dict[int, float]:
        for gone in self._inherited.keys() - own.keys():
            del self._inherited[gone]
        keeper = _memory(os.getpid()).certain.own
        for pid in own.keys() - self._inherited.keys():
            self._inherited[pid] = min(own[pid], own.get(seen[pid].parent, keeper))
        return {pid: max(0.0, size - self._inherited[pid]) for pid, size in own.items()}

    def _largest(self, groups: dict[int, set[int]], size: dict[int, float], counted: bool) -> Greedy | None:
        """Who gives way: what a session started where that is more than the session has itself, else the session, or a copy."""
        sizes = {pid: sum(size[one] for one in {pid, *started} & size.keys()) for pid, started in groups.items()}
        sizes |= {pid: size[pid] for pid in self.copies if pid in size and not any(sizes.values())}
        if not sizes:
            return None
        pid = max(sizes, key=lambda one: sizes[one])
        own = size.get(pid, 0.0)
        return Greedy(pid, own >= sizes[pid] - own, self._why() + (f", this one {round(sizes[pid])} MB" if counted else ""))

    def _why(self) -> str:
        return f"the sandboxes of this family together had more than {self._rules.memory_mb} MB of memory"


def _memory(pid: int) -> Has:
    names = ("RssAnon", "VmPTE", "RssShmem", "VmSize", "VmData", "VmStk", "VmExe", "VmLib", "FDSize")
    found = _lines(kin.read(pid, "status"), names)
    own, maps = found["RssAnon"] + found["VmPTE"], found["VmSize"] - sum(found[name] for name in ("VmData", "VmStk", "VmExe", "VmLib"))
    kernel = found["FDSize"] * 1000 * SOCKET_MB
    return Has(Memory(own, found["RssShmem"], 0.0), Memory(own, max(maps, found["RssShmem"]), kernel))


def _machine() -> Memory:
    """What all of the machine's processes have, and what its kernel has and could not give back."""
    names = ("MemTotal", "MemFree", "Buffers", "Cached", "SwapCached", "SReclaimable", "AnonPages", "Shmem")
    found = _lines(kin.read("", "meminfo"), names)
    if not found["MemTotal"]:
        return Memory(0.0, float("inf"), 0.0)
    kernel = found["MemTotal"] - sum(found[name] for name in names[1:-1]) - _ready()
    return Memory(found["AnonPages"], found["Shmem"], kernel)


def _ready() -> float:
    """MB of free pages that each processor has put aside for itself, which may be hundreds where a process has just ended."""
    lines = (line.split() for line in kin.read("", "zoneinfo").splitlines())
    return sum(int(words[1]) for words in lines if words[:1] == ["count:"]) * PAGE_MB


def _short() -> bool:
    """Whether the machine has hardly any memory left."""
    found = _lines(kin.read("", "meminfo"), ("MemAvailable", "MemTotal"))
    return found["MemAvailable"] < found["MemTotal"] * LITTLE


def _lines(text: str, names: tuple[str, ...]) -> dict[str, float]:
    """Numbers of such a file, in MB where they are in kB; 0 for what is not in it."""
    found = dict.fromkeys(names, 0.0)
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) / 1000
    return found
