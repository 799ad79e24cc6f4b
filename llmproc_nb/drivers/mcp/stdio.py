"""A server as a child process: started, spoken with line by line, ended with its whole group. Our own transport for the SDK's client.

The SDK's own one takes time that grows with the square of a line's length, ends at a byte that is no UTF-8, logs garbage with a
traceback and writes the server's stderr to ours, which in a notebook has no file number.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.tail import Tail
from llmproc_nb.drivers.mcp.launch import Launch
from llmproc_nb.drivers.mcp.wire import answer, lines, read_message

if TYPE_CHECKING:
    from mcp.client import Transport

GARBAGE_LIMIT_BYTES = 16_000_000
GARBAGE_LINE_BYTES = 100  # so many at least, as each costs time
CHUNK_BYTES = 1 << 20
_POSIX = sys.platform != "win32"


class Child:
    """The process of a server and what it wrote last."""

    def __init__(self, process: asyncio.subprocess.Process, tail: Tail) -> None:
        self.process, self.tail = process, tail
        self.fault = ""
        self._stderr = asyncio.create_task(self._listen())
        # whoever forgets to close, or ends by an error, leaves no server behind
        self._reap = weakref.finalize(self, _end_group, process.pid, os.getpid())

    @classmethod
    async def start(cls, launch: Launch, tail: Tail) -> Child:
        """The running process of a server. Raises ProgramError where there is no such command."""
        pipe = asyncio.subprocess.PIPE
        fields: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "limit": CHUNK_BYTES, "env": launch.env}
        try:
            process = await asyncio.create_subprocess_exec(*launch.command, cwd=launch.folder or None, start_new_session=_POSIX, **fields)
        except OSError as error:
            raise ProgramError(_not_started(launch, error), place=launch.place, right="the command must be a program on PATH") from None
        return cls(process, tail)

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65_536):
            self.tail.add(data)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def end(self) -> str:
        """How the process ended, once it has; its last words are in the tail then."""
        await self._gone(0.5)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._stderr), 0.5)
        code = self.process.returncode
        if self.fault:
            return self.fault
        if code is None:
            return "closed its stdout"
        return f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"

    async def stop(self, grace_s: float) -> None:
        """End the server: first by the end of its stdin, then by SIGTERM, then by SIGKILL, each with its children."""
        stdin = self.process.stdin
        if stdin is not None:
            stdin.close()
        if not await self._gone(grace_s):
            _signal_group(self.process.pid, signal.SIGTERM)
            if not await self._gone(grace_s):
                _kill_group(self.process.pid)
                await self._gone(grace_s)
        self._reap.detach()
        _kill_group(self.process.pid)  # what the server started and left behind
        self._stderr.cancel()
        with suppress(asyncio.CancelledError):
            await self._stderr
        transport = getattr(self.process, "_transport", None)  # it stays open while a grandchild holds a pipe; nothing public ends it
        if transport is not None:
            with suppress(PermissionError):
                transport.close()

    async def _gone(self, seconds: float) -> bool:
        # not process.wait(): that waits for the end of the pipes too, which a grandchild may hold
        until = asyncio.get_running_loop().time() + seconds
        while self.process.returncode is None and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        return self.process.returncode is not None


def stdio_transport(child: Child, most_bytes: int, on_end: Callable[[], None]) -> Transport:
    """The two streams of a server for the SDK's client. `on_end` is called when no further message can come."""
    return _streams(child, most_bytes, on_end)  # type: ignore[return-value]


@asynccontextmanager
async def _streams(child: Child, most_bytes: int, on_end: Callable[[], None]) -> AsyncIterator[tuple[Any, Any]]:
    import anyio

    come, read = anyio.create_memory_object_stream[Any](0)
    write, going = anyio.create_memory_object_stream[Any](0)

    async def reader() -> None:
        assert child.process.stdout is not None
        garbage = 0
        try:
            async for line in lines(child.process.stdout, most_bytes):
                message = read_message(line)
                if message is not None:
                    garbage = 0
                    await come.send(message)
                    continue
                child.tail.add(b"stdout: " + line.head + b"\n")
                garbage += max(line.size, GARBAGE_LINE_BYTES)
                if garbage > GARBAGE_LIMIT_BYTES:
                    child.fault = "wrote megabytes on stdout that are no messages, and was stopped"
                    _kill_group(child.process.pid)
                    break
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass  # the client is gone, or the pipe
        on_end()
        await come.aclose()

    async def writer() -> None:
        stdin = child.process.stdin
        assert stdin is not None
        async for item in going:
            data = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode(errors="replace")
            fault = "" if child.alive and not stdin.is_closing() else "unsent"
            if not fault:
                try:
                    stdin.write(data + b"\n")
                    await stdin.drain()
                except (OSError, RuntimeError):  # the server has closed its end, perhaps after it had read this
                    fault = "lost"
            request = getattr(item.message, "id", None) if hasattr(item.message, "method") else None
            if fault and request is not None:
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await come.send(answer(request, fault, "the server no longer reads"))

    tasks = [asyncio.create_task(reader()), asyncio.create_task(writer())]
    try:
        yield read, write
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (come, read, write, going):
            stream.close()


def _not_started(launch: Launch, error: OSError) -> str:
    command = launch.words.split(" ", 1)[0]
    if isinstance(error, FileNotFoundError) and launch.folder and not os.path.isdir(launch.folder):
        return "the folder it should start in does not exist"
    if isinstance(error, FileNotFoundError):
        return f"there is no command {command!r}"
    if isinstance(error, PermissionError):
        return f"{command!r} may not be run"
    return f"{command!r} could not be started ({error.strerror or type(error).__name__})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(OSError):
        if _POSIX:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _kill_group(pid: int) -> None:
    _signal_group(pid, signal.SIGKILL if _POSIX else signal.SIGTERM)


def _end_group(pid: int, owner: int) -> None:
    if os.getpid() == owner:  # a fork of the interpreter must not end what is not its own
        _kill_group(pid)
