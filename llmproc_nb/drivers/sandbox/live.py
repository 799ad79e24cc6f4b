"""A live shell as the host holds it: cells, questions about its variables and files, copies, its end.

Here: one conversation over its line, one thing at a time. Not here: where shells come from (family), outputs (outputs).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import Checkpoint, OutputReader, Ran
from llmproc_nb.drivers.sandbox import said
from llmproc_nb.drivers.sandbox.answers import Answers, Given
from llmproc_nb.drivers.sandbox.line import CLOSED, Line
from llmproc_nb.drivers.sandbox.outputs import Outputs
from llmproc_nb.drivers.sandbox.process import Process
from llmproc_nb.drivers.sandbox.questions import Questions
from llmproc_nb.drivers.sandbox.texts import Texts

if TYPE_CHECKING:
    from llmproc_nb.drivers.sandbox.family import Family

GRACE_S = 3.0
END_S = 5.0
AGAIN_S = 1.0
ASK_S = 60.0
QUICK_S = 5.0
QUICK = ("keep", "look", "part")
"""What is asked takes long only where much data goes in or out; anything else is answered at once, or never."""
REASON_S = 0.3
WATCH_AFTER_S = 0.2
MOST_VARIABLE = 1 << 29
MOST_BETWEEN = 1 << 20
MOST_NOTES = 5


class Cell:
    """The cell that runs: its outputs so far, and its end."""

    def __init__(self, n: int, outputs: Outputs) -> None:
        self.n, self.outputs = n, outputs
        self.done: said.Done | None = None
        self.over = asyncio.Event()
        self.halt = asyncio.Event()
        self.asked = False
        self.notes: list[str] = []


class LiveShell(Questions):
    """A session. It implements the door's Shell."""

    def __init__(self, family: Family, area: str) -> None:
        self._family, self.area = family, area
        self._line = Line(self._frame, self._cut, most_body=family.rules.output_mb * 1_000_000 + MOST_BETWEEN)
        self._texts = Texts(self._line.pump, self._text)
        self.process: Process | None = None
        self._n = 0
        self._cell: Cell | None = None
        self._between = Outputs(MOST_BETWEEN, None)
        self._answers: Answers[tuple[said.Answer | said.Kept, bytes]] = Answers()
        self._greeted = asyncio.Event()
        self._lock = asyncio.Lock()
        self._closed = self._parted = self._ended_by_us = self._part_later = False
        self.woke_badly = False
        self.why = ""
        self.snapshot = ""

    # its beginning

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that the process is to get."""
        return (self._line.other.fileno(), *self._texts.others)

    def given(self) -> None:
        """The process has its descriptors. While they are open here too, nobody hears that it has ended."""
        self._line.other.close()
        self._texts.given()

    def settled(self) -> None:
        """The process is there, or there will be none."""
        self.given()
        if self.process is None:
            self._line.close()
            self._texts.close()

    async def greeted(self, timeout_s: float, what: str) -> None:
        """Wait for the process to say that it is there. Raises ToolError, which begins with `what`."""
        try:
            await asyncio.wait_for(self._greeted.wait(), timeout_s)
            if self.why:
                raise ProcessLookupError(self.why)
            self.process = Process(self._line.pid, self._family.root, self._died)
        except (TimeoutError, OSError) as error:
            raise ToolError(f"{what}: {str(error) or f'no sign of it in {timeout_s:g} s'}", place="sandbox") from error

    # what the door offers

    @property
    def alive(self) -> bool:
        """Whether cells can be run."""
        return self.process is not None and not self.why

    async def run(self, code: str, *, timeout_s: float, on_output: OutputReader | None = None) -> Ran:
        """Run a cell."""
        ran = await self._run(code, timeout_s, on_output)
        if self._part_later:
            await self.part()
        return ran

    async def _run(self, code: str, timeout_s: float, on_output: OutputReader | None) -> Ran:
        async with self._lock:
            if not self.alive:
                return Ran(status="died", notes=(f"The session is over: {self.why or 'it was closed'}.",))
            self._n += 1
            cell = Cell(self._n, Outputs(self._family.rules.output_mb * 1_000_000, on_output))
            self._begin_with(cell)
            began = time.monotonic()
            self._cell = cell
            self._listen()
            watch = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._family.watch, self)
            try:
                status, notes = await self._through(cell, code, timeout_s)
            finally:
                self._cell = None
                watch.cancel()
                self._family.unwatch(self)
            done = cell.done
            denied, self._family.denied = self._family.denied, []
            return Ran(
                status=status,
                outputs=cell.outputs.kept(),
                notes=(*notes, *cell.notes, *cell.outputs.notes, *(done.notes if done else ()), *denied),
                duration_s=round(time.monotonic() - began, 6),
                cpu_s=done.cpu_s if done else 0.0,
                memory_mb=done.memory_mb if done else 0.0,
            )

    async def interrupt(self) -> None:
        """Stop the cell that runs, or is about to."""
        if self._cell is None:
            await asyncio.sleep(0)  # the task that runs it has not come to it yet
        if self._cell is not None:
            self._cell.asked = True
            self._cell.halt.set()

    def noted(self, note: str) -> None:
        """Something happened that whoever runs the cell should know; said once."""
        if self._cell is not None and note not in self._cell.notes and len(self._cell.notes) < MOST_NOTES:
            self._cell.notes.append(note)

    async def keep(self) -> Checkpoint | None:
        """A frozen copy."""
        async with self._lock:
            self._must_live("no copy of it can be made")
            self._parted = False
            return await self._family.keep(self)

    async def part(self) -> None:
        """Have the session give up what it could still do to a copy of it that lives beside it now; after the cell that it runs."""
        self._part_later = self.alive and not self._parted and self._lock.locked()
        if self.alive and not self._parted and not self._lock.locked():
            self._parted = True
            with contextlib.suppress(ToolError):  # it has gone, or has parted as often as can be
                await self._ask({"op": "part"})

    async def close(self) -> None:
        """End the session and what it started."""
        if not self._closed:
            self._closed = True
            self.why = self.why or "it was closed"
            await self._family.to_the_end(self._end())

    async def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            await self._family.ended(self)
            self.process.forget()
        self._finish()

    # one cell

    def _begin_with(self, cell: Cell) -> None:
        """Text that came between the cells belongs to this one."""
        for output in self._between.kept():
            if output.kind == "stream":
                cell.outputs.text(output.name, output.text.encode())
        self._between = Outputs(MOST_BETWEEN, None)

    async def _through(self, cell: Cell, code: str, timeout_s: float) -> tuple[Any, list[str]]:
        """Send a cell and wait for its end: status and notes."""
        send = asyncio.ensure_future(self._line.send({"op": "run", "n": cell.n}, code.encode("utf-8", "replace")))
        try:
            await _first(cell.over, cell.halt, timeout_s)
            stopped = not cell.over.is_set()
            if stopped:
                await self._stop(cell)
        except asyncio.CancelledError:
            await asyncio.shield(self._stop(cell))
            raise
        finally:
            send.cancel()
            await asyncio.gather(send, return_exceptions=True)
        if not stopped:
            return await self._how(cell, [])
        if cell.asked or cell.outputs.full:
            full = [f"The cell was stopped: {cell.outputs.full}. What came until then is kept."] if cell.outputs.full else []
            return await self._how(cell, full)
        status, notes = await self._how(cell, [f"The cell was stopped after {timeout_s:g} s."])
        return ("timed_out" if cell.done is not None else status), notes

    async def _how(self, cell: Cell, notes: list[str]) -> tuple[str, list[str]]:
        """How a cell ended that is over."""
        if cell.outputs.full and not notes:
            notes = [f"Not all output is here: {cell.outputs.full}."]
        if cell.done is not None:
            return ("interrupted" if cell.asked else cell.done.status), notes
        if self.process is not None and not self._ended_by_us:
            self.why = await self._family.reasons.of(self.process.inner_pid, REASON_S) or self.why
        return "died", [*notes, f"The session ended with this cell: {self.why}."]

    async def _stop(self, cell: Cell) -> None:
        """Interrupt what runs; what does not listen is killed."""
        process = self.process
        if process is None:
            return
        last = time.monotonic() + GRACE_S
        while not cell.over.is_set() and time.monotonic() < last:
            process.interrupt()
            await _first(cell.over, cell.over, AGAIN_S)
        if not cell.over.is_set():
            self._ended_by_us = True
            self.why = self.why or f"it did not stop within {GRACE_S:g} s when it was interrupted, and was killed"
            process.kill()
            with contextlib.suppress(OSError, TimeoutError):  # with it what it started: that may fork and fork
                await asyncio.wait_for(self._family.end_started(self), END_S)
            await _first(cell.over, cell.over, GRACE_S)
            self._over(self.why)

    # questions

    async def _ask(self, header: dict[str, Any], body: bytes = b"") -> tuple[said.Answer, bytes]:
        async with self._lock:
            self._must_live(f"{header['op']} cannot be done")
            found, data = await self.request(header, body)
            if not isinstance(found, said.Answer):
                self._broken("it answered another thing than it was asked")
                raise ToolError(f"the session ended: {self.why}", place="sandbox")
            if found.error:
                raise ToolError(found.error, place="sandbox")
            return found, data

    async def request(self, header: dict[str, Any], body: bytes = b"", fds: tuple[int, ...] = ()) -> tuple[said.Answer | said.Kept, bytes]:
        """Ask the process and wait for its answer. Raises ToolError where none comes."""
        most, self._line.most_body = self._line.most_body, MOST_VARIABLE
        within_s = QUICK_S if header["op"] in QUICK else ASK_S
        try:
            with self._answers.question() as (n, answer):
                self._listen()
                send = asyncio.ensure_future(self._line.send({**header, "n": n}, body, fds))
                async with asyncio.timeout(within_s):
                    await asyncio.shield(send)  # half a message would be the end of the session
                    return await answer
        except (TimeoutError, OSError) as error:
            self._broken(f"it did not answer: {error}" if str(error) else f"it did not answer within {within_s:g} s")
            raise ToolError(f"the session ended: {self.why}", place="sandbox") from error
        finally:
            self._line.most_body = most

    def _must_live(self, what: str) -> None:
        if not self.alive:
            raise ToolError(f"the session is over: {self.why or 'it was closed'}", place="sandbox", right=what)

    # what comes

    def _frame(self, header: bytes, body: bytes) -> None:
        try:
            self._take(said.read_said(header), body)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            self._broken(f"it sent what is no message ({str(error)[:200]})")

    def _take(self, message: said.Said, body: bytes) -> None:
        if isinstance(message, said.Shown | said.Cleared):
            outputs = self._cell.outputs if self._cell is not None else self._between
            self._texts.calm()
            if isinstance(message, said.Shown):
                outputs.shown(message, body)
            else:
                outputs.clear(wait=message.wait)
            self._check_full()
        elif isinstance(message, said.Done):
            self._done(message)
        elif isinstance(message, said.Failed) and not self._greeted.is_set():
            self._cut(message.why)
        elif isinstance(message, said.Hello) and not self._greeted.is_set():
            self._greeted.set()
        elif not isinstance(message, said.Answer | said.Kept) or self._answers.give(message.n, (message, body)) is Given.UNASKED:
            raise ValueError(f"{type(message).__name__.lower()} was not asked for")

    def _done(self, message: said.Done) -> None:
        cell = self._cell
        if cell is None or cell.n != message.n or cell.over.is_set():
            raise ValueError("the end of a cell that does not run")
        self._texts.rest()
        cell.done = message
        cell.over.set()

    def _text(self, name: str, data: bytes) -> None:
        (self._cell.outputs if self._cell is not None else self._between).text(name, data)
        self._check_full()

    def _check_full(self) -> None:
        if self._cell is not None:
            if self._cell.outputs.full:
                self._cell.halt.set()
        elif self._between.full and not self._answers:  # something in the background writes and writes: until the next cell it waits
            self._line.pause()
            self._texts.pause()

    def _listen(self) -> None:
        self._line.resume()
        self._texts.resume()

    # its end

    def _cut(self, why: str) -> None:
        """The line is over. Where it only closed, its process may be just ending by itself, which is then the reason."""
        self._greeted.set()
        if self.process is not None and why.startswith(CLOSED):
            asyncio.get_running_loop().call_later(REASON_S, self._broken, why)
        else:
            self._broken(why)

    def _died(self) -> None:
        """The process is gone; what it said before is still to be read."""
        if not self.why:
            self._line.rest()
        self._over(self.why or "its process ended")

    def _broken(self, why: str) -> None:
        """It did what ends it; where it is over already, that was not it."""
        if not self.why:
            self._ended_by_us = True
            self._over(why)

    def _over(self, why: str) -> None:
        """Nothing more can be done with it; the text that it has written is still to be read."""
        self.why = self.why or why
        self._texts.rest()
        if self.process is not None:
            self.process.kill()
        self._finish()

    def _finish(self) -> None:
        if self._cell is not None and not self._cell.over.is_set():
            self._texts.rest()  # the end of the line may be seen before the last words are
        self._line.close()
        self._texts.close()
        if self._cell is not None:
            self._cell.over.set()
        self._answers.fail(self.why)
        self._family.left(self)


async def _first(one: asyncio.Event, other: asyncio.Event, timeout_s: float) -> None:
    """Wait for one of two events, or for so long."""
    if one.is_set() or other.is_set():
        return
    waits = [asyncio.ensure_future(event.wait()) for event in {one, other}]
    try:
        await asyncio.wait(waits, timeout=max(0.0, timeout_s), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
