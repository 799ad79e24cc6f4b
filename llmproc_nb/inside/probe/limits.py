"""Attempts to take more than is allowed: processes, memory, CPU time, disk. All of it is given back."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time

from llmproc_nb.inside.probe.tried import MB, Facts, Tried, attempts, call, fail, in_child

BOMB = """
import os, sys
reading, writing = os.pipe()
children, why = [], ""
try:
    while len(children) < int(sys.argv[1]):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        children.append(child)
except OSError as error:
    why = error.strerror
os.close(writing)
for child in children:
    os.waitpid(child, 0)
print(len(children), why)
"""
"""As many processes as there can be, from a small one, all of which end again."""


@attempts
def forks(tried: Tried, facts: Facts) -> None:
    most = facts["processes"] + 600
    done = subprocess.run([sys.executable, "-I", "-S", "-c", BOMB, str(most)], capture_output=True, text=True, timeout=100)
    count, _, why = done.stdout.strip().partition(" ")
    tried.holds("a fork bomb", why and int(count) < most, f"stopped after {count} forks by {why}")
    tried.holds("raise the limit", in_child(_raise_limit, resource.RLIMIT_NPROC) == errno.EPERM, "EPERM")


@attempts
def memory(tried: Tried, facts: Facts) -> None:
    tried.refused(f"allocate {facts['memory_mb']} MB", lambda: len(bytearray(facts["memory_mb"] * MB)))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    tried.holds("limit of memory", 0 < hard <= facts["memory_mb"] * MB, hard)
    tried.holds("raise the limit", in_child(_raise_limit, resource.RLIMIT_AS) == errno.EPERM, "EPERM")


@attempts
def uncounted(tried: Tried, facts: Facts) -> None:
    tried.refused("memory by memfd_create", call, "memfd_create", b"probe", 0)
    tried.refused("memory by shmget", call, "shmget", 0, 4096, 0o1600)
    tried.refused("locked memory", lambda: resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] > 64 * MB or fail(errno.EPERM))


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
