"""A process of a sandbox as the host holds it: its pid from the operating system, a pidfd that tells of its death, signals to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

DEPTH = 10_000


class Process:
    """A process of a family. Raises ProcessLookupError where it is gone, or is none of the family whose first process is `root`."""

    def __init__(self, pid: int, root: int, on_death: Callable[[], None]) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        if not _descends(pid, root):
            os.close(self._pidfd)
            raise ProcessLookupError(f"process {pid} is none of this family")
        self.inner_pid = _inner(pid)
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._ended)
        self.dead = asyncio.Event()

    def interrupt(self) -> None:
        """SIGINT to everything in its group."""
        self._signal_group(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to it and to its group."""
        self._signal_group(signal.SIGKILL)
        if not self.dead.is_set():
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def forget(self) -> None:
        """Watch it no more."""
        if not self.dead.is_set():
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self.dead.set()

    def _signal_group(self, number: int) -> None:
        if not self.dead.is_set():  # while it is not reaped its number is nobody else's
            with contextlib.suppress(OSError):
                if os.getpgid(self.pid) == self.pid:
                    os.killpg(self.pid, number)
                else:
                    signal.pidfd_send_signal(self._pidfd, number)

    def _ended(self) -> None:
        self.forget()
        self._on_death()


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _inner(pid: int) -> int:
    """The number that the process has in its own namespace."""
    try:
        return int(_status(pid)["NSpid"].split()[-1])
    except (OSError, KeyError, ValueError):
        return pid


def _descends(pid: int, root: int) -> bool:
    for _ in range(DEPTH):
        if pid == root:
            return True
        if pid <= 1:
            return False
        try:
            pid = int(_status(pid)["PPid"])
        except (OSError, KeyError, ValueError):
            return False
    return False
