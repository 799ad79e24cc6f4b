"""The way out of a shell: its socket for frames, and the pipes behind file descriptors 1 and 2 for text.

Text goes through the pipes whoever writes it (print, a subprocess, a library in C), so it keeps its order by itself. Before something goes
another way than what was written last, the outlet waits until the notebook's side has read it: so the order holds between the ways too.
"""

from __future__ import annotations

import fcntl
import io
import os
import socket
import struct
import sys
import termios
import time
from typing import Any

from llmproc_nb.inside import channel

OUT, ERR = 1, 2
WAIT_S = 5.0
_ZERO = struct.pack("i", 0)


def wait_read(fd: int) -> None:
    """Wait until everything that was written to a pipe has been read; not forever."""
    pause, last = 0.00002, 0.0
    while True:
        try:
            if fcntl.ioctl(fd, termios.FIONREAD, _ZERO) == _ZERO:
                return
        except OSError:  # it is no pipe any more
            return
        now = time.monotonic()
        last = last or now + WAIT_S
        if now > last:
            return
        time.sleep(pause)
        pause = min(pause * 2, 0.002)


class Text(io.RawIOBase):
    """Where one of the two text streams goes: after what was written to the other one."""

    def __init__(self, fd: int, other: int) -> None:
        self._fd, self._other = fd, other

    def write(self, data: Any) -> int:
        wait_read(self._other)
        return os.write(self._fd, data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd


def streams() -> None:
    """Make sys.stdout and sys.stderr text streams that write to descriptors 1 and 2, whatever is behind these."""
    for name, fd, other in (("stdout", OUT, ERR), ("stderr", ERR, OUT)):
        raw = io.BufferedWriter(Text(fd, other), 1 << 16)
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def flush() -> None:
    """Flush both streams, whatever code has put in their place."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()  # type: ignore[union-attr]
        except (OSError, ValueError, AttributeError):
            continue


class Outlet:
    """The socket to the notebook's side. Only the process that it was made in sends on it: a child of it that code forked may not."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self._pid = sock, os.getpid()

    @property
    def own(self) -> bool:
        """Whether this is the process that the outlet belongs to."""
        return os.getpid() == self._pid

    def show(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send an output, after all text that was written before it."""
        flush()
        if not self.own:
            return
        wait_read(OUT)
        wait_read(ERR)
        channel.send(self.sock, header, body)

    def say(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send an answer."""
        if self.own:
            channel.send(self.sock, header, body)
