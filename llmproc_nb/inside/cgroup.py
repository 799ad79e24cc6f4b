"""A cgroup for a family, where one can be had: the kernel itself counts the memory that its sessions take, however they take it.

Sessions enter it and never leave; the keeper stays outside. So what the zygote had loaded is not counted, only what is written anew.
Here: where it may be made, its limit, how full it is. Not here: who gives way (watch).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

from llmproc_nb.inside.rules import Rules

SYSTEM = "/sys/fs/cgroup"
NAME = "llmproc-nb-"
MB = 1024 * 1024
SPARE_MB = 64
"""What the kernel gives beyond what a family may have, so that a keeper can choose who gives way."""
REMOVE_S = 1.0


class Kind(NamedTuple):
    """The files of a version of cgroups. Who reaches `limit` waits, a little or for good, until a keeper has ended somebody."""

    root: str
    enter: str
    limit: str
    swap: str
    waits: str
    used: str
    files: tuple[str, ...]
    shared: str


ONE = Kind(
    root=f"{SYSTEM}/memory",
    enter="tasks",
    limit="memory.limit_in_bytes",
    swap="memory.memsw.limit_in_bytes",
    waits="memory.oom_control",
    used="memory.usage_in_bytes",
    files=("total_cache",),
    shared="total_shmem",
)
TWO = Kind(
    root=SYSTEM,
    enter="cgroup.procs",
    limit="memory.high",
    swap="memory.swap.max",
    waits="memory.max",
    used="memory.current",
    files=("file", "slab_reclaimable"),
    shared="shmem",
)


class Group:
    """One cgroup, which stays in reach of a keeper that sees no files of the host any more. In some tiers the areas lie in memory."""

    def __init__(self, kind: Kind, path: str, rules: Rules) -> None:
        self._kind, self._path, self._most_mb = kind, path, rules.memory_mb
        self._in_memory = rules.tier == "namespaces"
        most = (rules.memory_mb + rules.checkpoints_mb + SPARE_MB + (rules.disk_mb if self._in_memory else 0)) * MB
        values = {kind.limit: most, kind.swap: most if kind is ONE else 0, kind.waits: 1 if kind is ONE else most + most // 4}
        for name, value in values.items():
            if name != kind.swap or os.path.exists(f"{path}/{name}"):
                with open(f"{path}/{name}", "w", encoding="ascii") as file:
                    file.write(str(value))
        self._fds = {name: os.open(f"{path}/{name}", os.O_RDONLY) for name in ("memory.stat", kind.used, kind.waits)}
        self._fds[kind.enter] = os.open(f"{path}/{kind.enter}", os.O_WRONLY)

    @property
    def fds(self) -> Collection[int]:
        """The descriptors by which it is reached."""
        return self._fds.values()

    def enter(self) -> None:
        """In a process of one thread: be in it, with all that it forks, and let go of it. Raises OSError."""
        os.write(self._fds[self._kind.enter], b"0")
        self.forget()

    def can_be_entered(self) -> bool:
        """Tried for real, in a process of its own."""
        if (child := os.fork()) == 0:
            try:
                self.enter()
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(child, 0)[1] == 0

    def is_full(self, kept_mb: float, areas: str) -> bool:
        """Whether more is in it than may be, beside so much for copies, the files in the areas and what the kernel could give back."""
        if self._kind is ONE and "under_oom 1" in self._read(self._kind.waits):
            return True
        found = dict(line.split() for line in self._read("memory.stat").splitlines())
        files = sum(int(found.get(name, 0)) for name in self._kind.files) - int(found.get(self._kind.shared, 0))
        if self._in_memory:
            there = os.statvfs(areas)
            files += (there.f_blocks - there.f_bfree) * there.f_frsize
        return int(self._read(self._kind.used)) - files > (self._most_mb + kept_mb) * MB

    def forget(self) -> None:
        """Have nothing to do with it any more."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def remove(self) -> None:
        """Where its processes are over."""
        _remove(self._path, REMOVE_S)

    def _read(self, name: str) -> str:
        return os.pread(self._fds[name], 1 << 16, 0).decode("ascii")


def make(rules: Rules) -> Group | None:
    """A new one for the family of this process; None where none can be had."""
    sweep()
    for kind, place in _places():
        path = f"{place}/{NAME}{os.getpid()}"
        try:
            os.mkdir(path)
            return Group(kind, path, rules)
        except OSError:
            _remove(path)
    return None


def lacking() -> str:
    """Why the kernel does not count the memory of a family here; "" where it does."""
    group = make(Rules())
    if group is None:
        return "this process may make no cgroup that limits memory; under systemd one that `systemd-run --user --scope` starts may"
    try:
        return "" if group.can_be_entered() else "no process may enter a cgroup from here"
    finally:
        group.forget()
        group.remove()


def sweep(wait_s: float = 0.0) -> None:
    """Remove those of families whose first process is gone, which could not do it itself."""
    for _, place in _places():
        for name in _names(place):
            pid = name.removeprefix(NAME)
            if name.startswith(NAME) and (pid == str(os.getpid()) or not os.path.exists(f"/proc/{pid}")):
                _remove(f"{place}/{name}", wait_s)


def _places() -> Iterator[tuple[Kind, str]]:
    """Where one may be made: in the cgroup of this process, or of the second version in one above that gives memory to those below."""
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            if "memory" in names.split(",") and os.access(own := f"{ONE.root}{path}".rstrip("/"), os.W_OK):
                yield ONE, own
            elif not names:
                yield from ((TWO, place) for place in _givers(f"{TWO.root}{path}".rstrip("/")))


def _givers(place: str) -> Iterator[str]:
    """No limit that was set for this process is left behind: what is above one is no place."""
    while place.startswith(TWO.root):
        if os.access(place, os.W_OK) and "memory" in _text(f"{place}/cgroup.subtree_control").split():
            yield place
        if {_text(f"{place}/memory.{name}").strip() for name in ("max", "high")} - {"", "max"}:
            return
        place = os.path.dirname(place)


def _names(place: str) -> list[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _remove(path: str, wait_s: float = 0.0) -> None:
    """Its last processes may take a moment to be out of it."""
    last = time.monotonic() + wait_s
    while True:
        with contextlib.suppress(OSError):
            os.rmdir(path)
        if not os.path.isdir(path) or time.monotonic() >= last:
            return
        time.sleep(0.005)
