"""The notebook's end of a socket to a sandbox: frames come in on the owner loop, bounded in size and in how many are taken at a time.

Nothing that comes is believed: what does not fit ends the line. Not here: what frames say (said), text (texts).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from llmproc_nb.inside.channel import LENGTHS, MOST_FDS, MOST_HEADER, packed

AT_ONCE = 1 << 18
FRAMES_AT_ONCE = 64
CLOSED = "it closed its socket"
_CREDENTIALS = struct.Struct("3i")
_ROOM_CREDENTIALS = socket.CMSG_SPACE(_CREDENTIALS.size)
_ROOM_FDS = socket.CMSG_SPACE(4 * MOST_FDS)


class Line:
    """A line. `on_frame` gets header and body of each frame; `on_end` is told once why the line is over.

    `pid` is the process that sent first, as the operating system names it; `takes_fds` only for lines to trusted processes.
    """

    def __init__(
        self,
        on_frame: Callable[[bytes, bytes], None],
        on_end: Callable[[str], None],
        *,
        most_body: int,
        takes_fds: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_frame, self._on_end, self._takes_fds = on_frame, on_end, takes_fds
        self.most_body = most_body
        self._sending = asyncio.Lock()
        self._buffer = bytearray()
        self._fds: list[int] = []
        self.pid = 0
        self.over = False
        self._again = self._paused = False
        self._socket, self.other = socket.socketpair()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._loop.add_reader(self._socket.fileno(), self._readable)

    async def send(self, header: dict[str, Any], body: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        """Send a frame. Raises OSError where the other side is gone, or takes no descriptors because it does not read."""
        async with self._sending:
            await self._send(packed(header, len(body)), body, fds)

    async def _send(self, start: bytes, body: bytes, fds: tuple[int, ...]) -> None:
        if self.over:
            raise ConnectionResetError("the line is over")
        if fds:
            start = start[socket.send_fds(self._socket, [start], list(fds)) :]
        if len(body) < AT_ONCE:
            start += body
        with contextlib.suppress(BlockingIOError):
            start = start[self._socket.send(start) if start else 0 :]
        if start:
            await self._loop.sock_sendall(self._socket, start)
        if len(body) >= AT_ONCE:
            await self._loop.sock_sendall(self._socket, body)

    def close(self) -> None:
        """End the line; nobody is told."""
        if not self.over:
            self.over = True
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._buffer.clear()
            for fd in self._fds:
                os.close(fd)
            self._fds.clear()
        self.other.close()

    def pause(self) -> None:
        """Read no more for now: whoever sends has to wait."""
        if not self.over and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._socket.fileno())

    def resume(self) -> None:
        """Read again."""
        if not self.over and self._paused:
            self._paused = False
            self._loop.add_reader(self._socket.fileno(), self._readable)
            self._loop.call_soon(self._parse)

    def take_fds(self, count: int) -> list[int]:
        """So many of the descriptors that came; they come in the order of the frames that say how many they have."""
        taken, self._fds = self._fds[:count], self._fds[count:]
        return taken

    def pump(self) -> None:
        """Take what has come, a bounded part of it, without waiting."""
        if self.over or self._paused:
            return
        try:
            data = self._received()
        except (BlockingIOError, InterruptedError):
            self._parse()
            return
        except OSError as error:
            self._end(f"{CLOSED}: {error.strerror}")
            return
        if not data:
            self._end(CLOSED)
            return
        self._buffer += data
        self._parse()

    def rest(self) -> None:
        """Take everything that came before the other side ended, as far as a line may hold."""
        for _ in range(1000):
            before = len(self._buffer)
            self.pump()
            if self.over or (len(self._buffer) == before and not self._again):
                return

    def _readable(self) -> None:
        if not self._again:  # else what is here is taken first
            self.pump()

    def _received(self) -> bytes:
        if self.pid and not self._takes_fds:
            return self._socket.recv(AT_ONCE)
        room = _ROOM_CREDENTIALS + (_ROOM_FDS if self._takes_fds else 0)
        data, ancillary, _, _ = self._socket.recvmsg(AT_ONCE, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, value in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_CREDENTIALS and len(value) == _CREDENTIALS.size and not self.pid:
                self.pid = _CREDENTIALS.unpack(value)[0]
            elif kind == socket.SCM_RIGHTS:
                self._fds += [number[0] for number in struct.iter_unpack("i", value[: len(value) - len(value) % 4])]
        return data

    def _parse(self) -> None:
        self._again = False
        for _ in range(FRAMES_AT_ONCE):
            if self.over or self._paused or len(self._buffer) < LENGTHS.size:
                return
            head, body = LENGTHS.unpack_from(self._buffer)
            if head > MOST_HEADER or body > self.most_body:
                self._end(f"it announced a message of {head + body:,} bytes")
                return
            size = LENGTHS.size + head + body
            if len(self._buffer) < size:
                return
            header, data = bytes(self._buffer[LENGTHS.size : LENGTHS.size + head]), bytes(self._buffer[LENGTHS.size + head : size])
            del self._buffer[:size]
            self._on_frame(header, data)
        if not self.over and len(self._buffer) >= LENGTHS.size:
            self._again = True
            self._loop.call_soon(self._parse)

    def _end(self, why: str) -> None:
        if not self.over:
            self.close()
            self._on_end(why)


def read_header(header: bytes) -> dict[str, Any]:
    """The header of a trusted process."""
    found: dict[str, Any] = json.loads(header)
    return found
