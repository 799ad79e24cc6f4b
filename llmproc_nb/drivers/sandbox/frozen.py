"""A frozen copy of a shell as the host holds it. It can be woken again and again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import Shell
from llmproc_nb.drivers.sandbox import said
from llmproc_nb.drivers.sandbox.line import Line
from llmproc_nb.drivers.sandbox.process import Process

if TYPE_CHECKING:
    from llmproc_nb.drivers.sandbox.family import Family
    from llmproc_nb.drivers.sandbox.live import LiveShell


class Frozen:
    """A copy. It implements the door's Checkpoint; `snapshot` names its files with the keeper, `origin` is the session it was kept of."""

    def __init__(self, family: Family, snapshot: str, origin: LiveShell) -> None:
        self._family, self.snapshot, self.origin = family, snapshot, origin
        self._line = Line(self._frame, self._over, most_body=0)
        self._greeted = asyncio.Event()
        self.process: Process | None = None
        self.memory_mb = 0.0
        self.measured_at = 0.0
        self._measures = self._wakes = 0
        self.why = ""

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptor that the process is to get."""
        return (self._line.other.fileno(),)

    def given(self) -> None:
        """The process has its descriptor."""
        self._line.other.close()

    async def greeted(self, timeout_s: float) -> None:
        """Wait for the copy to say that it is there. Raises ToolError."""
        try:
            await asyncio.wait_for(self._greeted.wait(), timeout_s)
            if self.why:
                raise ProcessLookupError(self.why)
            self.process = Process(self._line.pid, self._family.root, lambda: self._over("its process ended"))
        except (TimeoutError, OSError) as error:
            raise ToolError(f"the state cannot be kept: {str(error) or 'the copy does not answer'}", place="sandbox") from error

    async def wake(self, *, owner: str = "") -> Shell:
        """A live session that goes on from here."""
        if self.why:
            raise ToolError(f"the copy cannot be woken: {self.why}", place="sandbox")
        return await self._family.wake(self, owner)

    async def wake_as(self, header: dict[str, Any], fds: tuple[int, ...]) -> None:
        """Tell the copy to fork a live shell that has these descriptors."""
        self._wakes += 1
        await self._line.send(header, fds=fds)

    async def measure(self) -> None:
        """Have the copy say what memory it has for itself: nobody else may read that."""
        self._measures += 1
        await self._line.send({"op": "measure"})

    async def close(self) -> None:
        """End the copy; sessions that were woken from it go on."""
        self.end()

    def end(self) -> None:
        """End the copy now."""
        self._over("it was closed")

    def _over(self, why: str) -> None:
        if not self.why:
            self.why = why
            self._greeted.set()
            self._line.close()
            if self.process is not None:
                self.process.kill()
            self._family.thawed(self)
            if self.process is not None:
                self.process.forget()

    def _frame(self, header: bytes, body: bytes) -> None:
        try:
            message = said.read_said(header)
        except msgspec.DecodeError:
            self._over("it sent what is no message")
            return
        if isinstance(message, said.Hello) and not self._greeted.is_set():
            self._greeted.set()
        elif isinstance(message, said.Size) and self._measures:
            self._measures -= 1
            self.memory_mb = message.mb
        elif isinstance(message, said.Ended) and self._wakes:
            self._wakes -= 1
            self._family.reasons.tell(message.pid, message.how)
        else:
            self._over("it sent what was not asked for")
