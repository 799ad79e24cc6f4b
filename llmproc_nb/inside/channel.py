"""Frames on a Unix stream socket: a JSON header, a binary body, and file descriptors that come along.

Here: the form of a frame, sending and receiving it in a process that may wait. Not here: what the frames say, and the notebook's side,
which never waits and believes nothing (drivers.sandbox).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from typing import Any

LENGTHS = struct.Struct(">II")
MOST_HEADER = 1 << 20
"""Bytes of a header at most, whoever sends it."""
MOST_FDS = 8


def packed(header: dict[str, Any], body_bytes: int = 0) -> bytes:
    """The beginning of a frame: lengths and header; the body follows."""
    head = json.dumps(header, separators=(",", ":")).encode()
    if len(head) > MOST_HEADER:
        raise ValueError(f"a header of {len(head):,} bytes; at most {MOST_HEADER:,}")
    return LENGTHS.pack(len(head), body_bytes) + head


def send(sock: socket.socket, header: dict[str, Any], body: bytes = b"", fds: tuple[int, ...] = ()) -> None:
    """Send a frame; waits until the other side has room for it."""
    start = packed(header, len(body))
    if fds:
        sent = socket.send_fds(sock, [start], list(fds))
        start = start[sent:]
    if len(body) < 65536:
        sock.sendall(start + body)
    else:
        sock.sendall(start)
        sock.sendall(body)


def receive(sock: socket.socket) -> tuple[dict[str, Any], bytes, list[int]]:
    """The next frame: header, body, descriptors. Raises EOFError where the other side has closed."""
    start, fds, _, _ = socket.recv_fds(sock, LENGTHS.size, MOST_FDS)
    fds = [_above(fd) for fd in fds]
    try:
        start += _exactly(sock, LENGTHS.size - len(start), at_start=not start)
        head, body = LENGTHS.unpack(start)
        header = json.loads(_exactly(sock, head))
        return header, _exactly(sock, body), fds
    except BaseException:
        close_all(fds)
        raise


def _above(fd: int) -> int:
    """The same descriptor with a number of its own: code may have closed those that are for text, and the next one gets theirs."""
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def _exactly(sock: socket.socket, count: int, *, at_start: bool = False) -> bytes:
    if not count:
        return b""
    parts = bytearray(count)
    view, got = memoryview(parts), 0
    while got < count:
        some = 0 if at_start and got == 0 else sock.recv_into(view[got:])
        if not some:
            raise EOFError("the other side has closed")
        got += some
    return bytes(parts)


def close_all(fds: list[int]) -> None:
    """Close descriptors that came along and are not wanted."""
    for fd in fds:
        os.close(fd)
