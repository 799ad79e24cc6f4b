"""Attempts to take more than is allowed: processes, memory, CPU time, disk. All of it is given back."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from llmproc_nb.inside.probe.tried import MB, Facts, Tried, attempts, call, fail, in_child

BOMB = """
import os, sys, time
try:
    for _ in range(int(sys.argv[1])):
        if os.fork() == 0:
            time.sleep(10)
            os._exit(0)
    time.sleep(10)
except OSError as error:
    print(error.strerror)
"""
"""More processes than there may be, from a small one; they wait for their end."""


@attempts
def forks(tried: Tried, facts: Facts) -> None:
    tried.holds("raise the limit", in_child(_raise_limit, resource.RLIMIT_NPROC) == errno.EPERM, "EPERM")
    more = facts["processes"] + 30
    done = subprocess.run([sys.executable, "-I", "-S", "-c", BOMB, str(more)], capture_output=True, text=True, timeout=100)
    tried.holds(f"{more} forks", done.returncode == -signal.SIGKILL, "ended" if done.returncode < 0 else "they went on")


LOADED_MB = 2048
"""What the libraries that a session starts with may have of the address space, which its limit does not count."""


@attempts
def memory(tried: Tried, facts: Facts) -> None:
    more = facts["memory_mb"] + 256
    tried.refused(f"allocate {more} MB", lambda: len(bytearray(more * MB)))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    tried.holds("limit of memory", 0 < hard <= (facts["memory_mb"] + LOADED_MB) * MB, hard)
    tried.holds("raise the limit", in_child(_raise_limit, resource.RLIMIT_AS) == errno.EPERM, "EPERM")


@attempts
def uncounted(tried: Tried, facts: Facts) -> None:
    tried.refused("memory by memfd_create", call, "memfd_create", b"probe", 0)
    tried.refused("memory by shmget", call, "shmget", 0, 4096, 0o1600)
    inherited = bytearray(b"x") * (facts["memory_mb"] // 3 * MB)
    for name, take in (("its own", _take), ("written anew", lambda _: _write_anew(inherited)), ("shared and left", _share_and_leave)):
        ends = _together(take, facts["memory_mb"] // 3)
        tried.holds(f"memory of forks, {name}", _stopped(ends), ends)
    got = _fill_sockets(2 * MOST_MB)
    tried.holds("a large buffer of a socket", got <= MOST_MB * MB, f"{got} bytes")
    tried.refused("locked memory", lambda: resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] > 64 * MB or fail(errno.EPERM))


@attempts
def sockets(tried: Tried, facts: Facts) -> None:
    ends = _together(_keep_in_sockets, facts["memory_mb"] // 3)
    tried.holds("memory of forks, in sockets", _stopped(ends), ends)


def _keep_in_sockets(mb: int) -> object:
    """As much as so many sockets take that nobody reads, or as may be."""
    kept: list[socket.socket] = []
    while len(kept) < MOST_SOCKETS:
        kept += socket.socketpair()
        for one in kept[-2:]:
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    one.send(bytes(32768))
    return kept


FORKS, HELD_S, REFUSED = 10, 6, 3
MOST_SOCKETS = 900


def _together(take: Callable[[int], object], mb: int) -> list[int]:
    """Have forks take so much each, which together is more than there may be: how they ended."""
    children: list[int] = []
    while len(children) < FORKS:
        try:
            child = os.fork()
        except OSError:  # what the others took is too much for one more
            break
        if child == 0:
            status = REFUSED
            with contextlib.suppress(OSError, MemoryError):
                kept = take(mb)
                time.sleep(HELD_S if kept else 0)
                status = 0
            os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _stopped(ends: list[int]) -> bool:
    return bool({-signal.SIGKILL, REFUSED} & {*ends})


def _take(mb: int) -> object:
    return bytearray(b"x") * (mb * MB)


def _write_anew(data: bytearray) -> object:
    for at in range(0, len(data), 4096):
        data[at] = 0
    return data


def _share_and_leave(mb: int) -> object:
    whole = mmap.mmap(-1, mb * MB, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    for start in range(0, mb * MB, MB):
        whole[start : start + MB] = b"x" * MB
        whole.madvise(mmap.MADV_DONTNEED, start, MB)
    return whole


MOST_MB = 1


def _fill_sockets(mb: int) -> int:
    """How much a socket takes that nobody reads, where it is asked to take more."""
    one, other = socket.socketpair()
    with one, other, contextlib.suppress(BlockingIOError):
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, mb * MB)
        sent = 0
        while sent < mb * MB:
            sent += one.send(b"x" * 4096)
    return sent


def _raise_limit(kind: int) -> None:
    try:
        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError as error:
        raise OSError(errno.EPERM, str(error)) from None


@attempts
def cpu(tried: Tried, facts: Facts) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    tried.holds("limit of CPU time", 0 < hard <= facts["cpu_s"], hard)
    tried.holds("raise the limit", in_child(_raise_limit, resource.RLIMIT_CPU) == errno.EPERM, "EPERM")
    tried.holds("go on past a limit of 1 s", in_child(_burn) in (-signal.SIGKILL, -signal.SIGXCPU), "killed")


def _burn() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
    end = time.monotonic() + 30
    while time.monotonic() < end:
        pass


@attempts
def disk(tried: Tried, facts: Facts) -> None:
    for folder in (tempfile.gettempdir(), "/dev/shm"):
        made: list[str] = []
        try:
            tried.refused(f"fill {facts['disk_mb'] + 32} MB in {folder}", _fill, made, folder, facts["disk_mb"] + 32)
        finally:
            for path in made:
                os.unlink(path)


def _fill(made: list[str], folder: str, limit: int) -> None:
    chunk = b"x" * MB
    for number in range(limit):
        path = os.path.join(folder, f"probe-{number}")
        with open(path, "wb", buffering=0) as file:
            made.append(path)
            if file.write(chunk) < MB:
                fail(errno.ENOSPC)


@attempts
def file_size(tried: Tried, facts: Facts) -> None:
    path = os.path.join(tempfile.gettempdir(), "probe-long")
    with open(path, "wb") as file:
        tried.refused(f"a file beyond {facts['disk_mb']} MB", file.truncate, facts["disk_mb"] * MB + 1)
    os.unlink(path)
