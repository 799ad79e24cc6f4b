"""The way out of a shell: its socket for frames, and the pipes behind file descriptors 1 and 2 for text.

Text goes through the pipes whoever writes it (print, a subprocess, a library in C), so it keeps its order by itself. Before something goes
another way than what was written last, the outlet waits until the notebook's side has read it: so the order holds between the ways too.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import socket
import struct
import sys
import termios
import threading
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


class ErrorText(io.FileIO):
    """Where stderr goes: after all of stdout, and read before anything else is written. So stdout, which may be much, needs no care."""

    def write(self, data: Any) -> int:
        flush_one(sys.stdout)
        wait_read(OUT)
        count = super().write(data)
        wait_read(ERR)
        return count or 0


def streams() -> None:
    """Make sys.stdout and sys.stderr text streams that write to descriptors 1 and 2, whatever is behind these."""
    for name, raw in (("stdout", io.FileIO(OUT, "w", closefd=False)), ("stderr", ErrorText(ERR, "w", closefd=False))):
        buffered = io.BufferedWriter(raw, 1 << 16)
        stream = io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def flush_one(stream: Any) -> None:
    """Flush a stream, whatever code has put in its place."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stream.flush()


def flush() -> None:
    """Flush both streams, whatever code has put in their place."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        flush_one(stream)


class Outlet:
    """The socket to the notebook's side. Only the process that it was made in sends on it: a child of it that code forked may not."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self._pid, self._one = sock, os.getpid(), threading.Lock()

    @property
    def own(self) -> bool:
        """Whether this is the process that the outlet belongs to."""
        return os.getpid() == self._pid

    def show(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send an output, after all text that was written before it."""
        flush()
        if not self.own:
            return
        with self._one:
            wait_read(OUT)
            wait_read(ERR)
            channel.send(self.sock, header, body)

    def say(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send an answer."""
        if self.own:
            with self._one:
                channel.send(self.sock, header, body)
