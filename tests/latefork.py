"""In a pid namespace: a large process forks while all are stopped and told to go on. Prints for how many of the forks each came to life.

Run as a script by test_sandbox_life: it stops every process that it can signal, so it must be the first of a namespace of its own.
"""

from __future__ import annotations

import mmap
import os
import select
import sys
import time

from llmproc_nb.inside import kin, linux
from llmproc_nb.inside.confined import NOW

ROUNDS, LARGE_MB, WAIT_S = 8, 600, 0.3


def large(asked: int, lives: int) -> None:
    """Fork when asked; each child says that it lives."""
    data = mmap.mmap(-1, LARGE_MB << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    data.madvise(mmap.MADV_NOHUGEPAGE)  # so that a fork takes long
    for at in range(0, len(data), mmap.PAGESIZE):
        data[at] = 1
    os.write(lives, b"x")
    while os.read(asked, 1):
        if os.fork() == 0:
            os.write(lives, b"x")
            os._exit(0)


def heard(lives: int) -> bool:
    ready = bool(select.select([lives], [], [], WAIT_S)[0])
    return ready and bool(os.read(lives, 1))


def first() -> None:
    """As a keeper that ends what has too much, only that nothing has."""
    NOW.tier = "namespaces"
    (asked, ask), (lives, live) = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        os.close(ask)
        large(asked, live)
        os._exit(0)
    os.read(lives, 1)
    at_once = later = 0
    for _ in range(ROUNDS):
        os.write(ask, b"f")
        time.sleep(0.003)
        kin._hold(set, (child,))
        kin._go_on((child,))
        if heard(lives):
            at_once += 1
            continue
        kin.wake_late()
        later += heard(lives)
    print(at_once, later, flush=True)
    kin.kill(child)


if __name__ == "__main__":
    linux.unshare(linux.NEWUSER | linux.NEWPID)
    if (pid := os.fork()) == 0:
        first()
        os._exit(0)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
