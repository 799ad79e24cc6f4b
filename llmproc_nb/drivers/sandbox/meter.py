"""What stands between the sockets of a confined kernel and its clients: it passes on what both say, but nothing without end.

Why: a client's ZeroMQ gathers all parts of a message before anybody sees the first of them. It bounds how large a part may be, and how many
whole messages wait; so a kernel that speaks ZeroMQ's protocol itself fills the memory of its client with one message of ever more parts.
No setting bounds their number, so they are counted here, where nothing of a message is kept. So is what comes unasked where clients read
only answers: on all sockets but the one for what is shown.

`python meter.py CLIENTS KERNEL MEGABYTES SHOWN NAME…` runs until its stdin ends: whoever connects to CLIENTS/NAME is connected to
KERNEL/NAME. It imports nothing but the standard library, for it is started with each kernel; alone, for a client need not have a loop that
goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable

GREETING = 64
"""Bytes with which a connection begins: a signature, the version, the mechanism, what fills it up."""
NULL = b"NULL".ljust(20, b"\0")
MORE, LONG, COMMAND = 1, 2, 4
MOST_PARTS = 1024
PIECE = 1 << 16
AGAIN_S = 0.01


class NotPassed(Exception):
    """Why something is not passed on."""


class Frames:
    """Reads the bytes of one end as they come: counts messages, and what belongs to the one that has not ended yet."""

    def __init__(self, most_bytes: int, most_parts: int) -> None:
        self._most_bytes, self._most_parts = most_bytes, most_parts
        self._greeted = False
        self._head, self._rest = bytearray(), 0
        self._bytes = self._parts = 0
        self.ended = 0

    def take(self, data: bytes) -> None:
        """Look at some more. Raises NotPassed where it belongs to a message that is too large, or is in no form that can be counted."""
        at = 0
        while at < len(data):
            if self._rest:
                step = min(self._rest, len(data) - at)
                self._rest -= step
            else:
                step = min(self._wanted(), len(data) - at)
                self._head += data[at : at + step]
                if self._wanted() == 0:
                    self._begin()
            at += step

    def _wanted(self) -> int:
        """How much is missing of the head of this frame, as far as its first byte tells."""
        if not self._greeted:
            return GREETING - len(self._head)
        return (9 if self._head and self._head[0] & LONG else 2) - len(self._head)

    def _begin(self) -> None:
        """The head of a frame is here, or the greeting."""
        head, self._head = self._head, bytearray()
        if self._greeted:
            self._rest = int.from_bytes(head[1:], "big")
            self._count(head[0])
        elif (head[0], head[9]) == (0xFF, 0x7F) and head[10] >= 3 and head[12:32] == NULL:
            self._greeted = True
        else:  # older versions have other frames; an encrypted message is a row of commands
            raise NotPassed("another protocol was spoken than ZMTP 3 without encryption")

    def _count(self, flags: int) -> None:
        """Count a frame. A command may stand between the parts of a message: it does not end it, whatever it says of itself."""
        self._bytes += self._rest
        self._parts += 1
        if self._bytes > self._most_bytes:
            raise NotPassed(f"the kernel sent a message of more than {self._most_bytes / 1e6:g} MB")
        if self._parts > self._most_parts:
            raise NotPassed(f"the kernel sent a message of more than {self._most_parts} parts")
        if not flags & MORE and (not flags & COMMAND or self._parts == 1):
            self._bytes = self._parts = 0
            self.ended += not flags & COMMAND


class Socket:
    """One socket of a kernel, as its clients have it."""

    def __init__(self, path: str, most_bytes: int, *, shown: bool) -> None:
        self._path, self._most, self._shown = path, most_bytes, shown
        self._unasked = 0
        self._said: set[str] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be the kernel for a client until one of them ends the connection, or it has to be ended."""
        there, back = await _connected(self._path)
        asked, come = Frames(sys.maxsize, sys.maxsize), Frames(self._most, MOST_PARTS)

        def ask(data: bytes) -> None:
            before = asked.ended
            asked.take(data)
            if asked.ended > before:
                self._unasked = 0

        def take(data: bytes) -> None:
            come.take(data)
            self._unasked += len(data)
            if self._unasked > 2 * self._most and not self._shown:
                raise NotPassed(f"the kernel sent more than {2 * self._most / 1e6:g} MB that nobody had asked for")

        ways = [asyncio.create_task(self._passed(*way)) for way in ((reader, back, ask), (there, writer, take))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)  # where one end is gone, the other has to go
        back.close()
        writer.close()

    async def _passed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None]) -> None:
        """Pass on what comes until its end. What is not taken is waited for, so nothing piles up."""
        try:
            while data := await reader.read(PIECE):
                look(data)
                writer.write(data)
                await writer.drain()
        except NotPassed as why:
            if str(why) not in self._said:  # a kernel could have it said without end
                self._said.add(str(why))
                print(f"{why}; the connection was cut", file=sys.stderr, flush=True)


async def _connected(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a kernel, as soon as there is one: that theirs ended, clients would take for lost outputs."""
    while True:
        with contextlib.suppress(OSError):
            return await asyncio.open_unix_connection(path, limit=PIECE)
        await asyncio.sleep(AGAIN_S)


async def _serve(clients: str, kernel: str, most_mb: str, shown: str, *others: str) -> None:
    for name in (shown, *others):
        one = Socket(os.path.join(kernel, name), int(most_mb) * 1_000_000, shown=name == shown)
        await asyncio.start_unix_server(one.answer, os.path.join(clients, name), limit=PIECE)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
