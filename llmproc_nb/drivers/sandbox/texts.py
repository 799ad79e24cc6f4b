"""The notebook's end of the pipes behind a shell's stdout and stderr: its text in order, a bounded part at a time."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable

AT_ONCE = 1 << 18
CLOSE_S = 0.001
PAUSE_S = 0.002
MOST_QUICK = 8


class Texts:
    """The two pipes of a shell: its text in order, a bounded part at a time. `before` is called first, to take what was sent before it."""

    def __init__(self, before: Callable[[], None], on_text: Callable[[str, bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._before, self._on_text = before, on_text
        self._ends: dict[int, str] = {}
        self._last, self._last_fd, self._quick = 0.0, -1, 0
        self._paused = False
        self.others: list[int] = []
        for name in ("stdout", "stderr"):
            ours, other = os.pipe()
            os.set_blocking(ours, False)
            with contextlib.suppress(OSError):  # an ordinary user has only so much of it
                fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, AT_ONCE)
            self._ends[ours] = name
            self.others.append(other)
            self._watch(ours)

    def given(self) -> None:
        """The other ends are in the sandbox now."""
        for fd in self.others:
            os.close(fd)
        self.others.clear()

    def rest(self, most_bytes: int = 1 << 21) -> None:
        """Take what is in the pipes, without waiting."""
        for fd in tuple(self._ends):
            left = most_bytes
            while fd in self._ends and left > 0:
                got = self._read(fd)
                if not got:
                    break
                left -= got

    def pause(self) -> None:
        """Read no more for now: whoever writes has to wait."""
        self._paused = True
        for fd in self._ends:
            self._loop.remove_reader(fd)

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        for fd in self._ends:
            self._watch(fd)

    def close(self) -> None:
        """Read no more."""
        self.given()
        for fd in tuple(self._ends):
            self._drop(fd)

    def _readable(self, fd: int) -> None:
        self._before()
        if fd not in self._ends:
            return
        self._read(fd)
        now = self._loop.time()
        paused_s = PAUSE_S if self._quick > MOST_QUICK else 0.0
        self._quick = self._quick + 1 if now - self._last < CLOSE_S + paused_s and fd == self._last_fd else 0
        self._last, self._last_fd = now, fd
        if self._quick > MOST_QUICK and fd in self._ends:  # many small pieces: let some come together
            self._loop.remove_reader(fd)
            self._loop.call_later(PAUSE_S, self._watch, fd)

    def calm(self) -> None:
        """Something came another way: who writes may be waiting for what it wrote to be read."""
        self._quick = 0

    def _watch(self, fd: int) -> None:
        if fd in self._ends and not self._paused:
            self._loop.add_reader(fd, self._readable, fd)

    def _read(self, fd: int) -> int:
        try:
            data = os.read(fd, AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return 0
        if not data:
            self._drop(fd)
        else:
            self._on_text(self._ends[fd], data)
        return len(data)

    def _drop(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        del self._ends[fd]
        with contextlib.suppress(OSError):
            os.close(fd)
