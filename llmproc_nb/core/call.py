"""A call: one supervised run of the loop, from a message to a natural stop. What waits for it is a Call; the loop itself is in loop.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.errors import CallStateError
from llmproc_nb.core.result import RunResult

if TYPE_CHECKING:
    from llmproc_nb.core.loop import Run
    from llmproc_nb.core.process import Process

inside: ContextVar[tuple[Run, ...]] = ContextVar("inside", default=())
"""The calls that the code that runs now is part of, outermost first."""

WAIT_S = 0.1
GRACE_S = 2.0


def stopped_line(kind: str, name: str) -> list[str]:
    """What a notebook shows of a call that was stopped, in place of a traceback."""
    return [f"{kind}: {name} was stopped; what it said so far is kept, and it can go on."]


class Interrupted(KeyboardInterrupt):
    """A KeyboardInterrupt that stopped a call; a notebook shows it in one line."""

    def _render_traceback_(self) -> list[str]:
        return stopped_line("KeyboardInterrupt", self.args[0])


Interrupted.__name__ = "KeyboardInterrupt"  # what people and front ends know it as


class Call:
    """A run under way. `await call` and `call.result()` give the RunResult, `str(call)` waits and gives the text, `call.cancel()` stops it.

    It works from plain code, from any event loop and from several places at once. A cancelled call ends with what was said so far and
    the stop reason `interrupted`.
    """

    def __init__(self, process: Process, number: int) -> None:
        self.process, self.number = process, number
        self._future: Future[RunResult] = Future()
        self._future.set_running_or_notify_cancel()
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    def start(self, body: Coroutine[Any, Any, RunResult]) -> Call:
        """Hand the body to the owner loop; returns at once."""
        self._body = body
        self.process.machine.owner.start(self._run(body), self._began)
        return self

    def _began(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        task.add_done_callback(self._ended)
        if self._cancelled:
            task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not self._future.done():  # cancelled before its first step
            self._body.close()
            self._future.set_exception(self._not_begun())

    def _not_begun(self) -> CallStateError:
        return CallStateError("the call was stopped before it began", place=self.process.name)

    async def _run(self, body: Coroutine[Any, Any, RunResult]) -> None:
        try:
            result = await body
        except BaseException as error:  # whoever waits gets the error, whatever it is; the owner loop must live on
            self._future.set_exception(self._not_begun() if isinstance(error, asyncio.CancelledError) else error)
        else:
            self._future.set_result(result)

    def done(self) -> bool:
        return self._future.done()

    def cancel(self) -> None:
        """Stop the call; returns at once. What was said so far is kept, open tool calls are answered."""
        self._cancelled = True
        self.process.machine.owner.loop.call_soon_threadsafe(self._cancel_task)

    def _cancel_task(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def result(self, timeout_s: float | None = None) -> RunResult:
        """Wait for the end and give the result; raises what went wrong. An interrupt while waiting cancels the call first."""
        with self.waited_for():
            return self._result(timeout_s)

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """While somebody waits. Raises CallStateError where a process would wait for itself, for ever.

        Whoever waits inside a call (a tool) takes this one along when that call is stopped.
        """
        runs = [run for run in inside.get() if run.process.running is run]
        if any(run.process is self.process for run in runs) and not self.done():
            right = "it can answer when its present call has ended"
            found = "a process waits for an answer of its own"
            raise CallStateError(found, place=self.process.name, right=right, step="Ask another process.")
        if runs:
            runs[-1].waits_for.add(self)
        try:
            yield
        finally:
            if runs:
                runs[-1].waits_for.discard(self)

    def _result(self, timeout_s: float | None) -> RunResult:
        if self.process.machine.owner.is_here() and not self.done():
            raise CallStateError("a coroutine on the owner loop waits for a call that runs there too", right="`await call` works there")
        try:
            return self._wait(timeout_s)
        except KeyboardInterrupt:
            self.cancel()
            self.settle(GRACE_S)
            raise Interrupted(self.process.name) from None

    def _wait(self, timeout_s: float | None) -> RunResult:
        if timeout_s is not None:
            return self._future.result(timeout_s)
        while not self._future.done():  # short waits: on some systems a long one cannot be interrupted
            with suppress(TimeoutError):
                self._future.exception(WAIT_S)
        return self._future.result()

    def settle(self, grace_s: float) -> None:
        """Give a cancelled call time to write down what it has; raises nothing."""
        with suppress(TimeoutError):
            self._future.exception(grace_s)

    def exception(self) -> BaseException | None:
        """What went wrong, of a call that is done; None otherwise."""
        return self._future.exception(0) if self.done() else None

    def when_done(self, tell: Callable[[Call], None]) -> None:
        """Have a function told, on the owner loop's thread, when the call ends."""
        self._future.add_done_callback(lambda _: tell(self))

    @property
    def future(self) -> Future[RunResult]:
        """The future of the result, for those who wait for several things at once."""
        return self._future

    async def _awaited(self) -> RunResult:
        with self.waited_for():
            return await self._done()

    async def _done(self) -> RunResult:
        await until(self._future, self.cancel, self.process.name)
        return self._future.result()

    def __await__(self) -> Generator[Any, None, RunResult]:
        return self._awaited().__await__()

    def __str__(self) -> str:
        return self.result().text

    def __repr__(self) -> str:
        state = "running" if not self.done() else "failed" if self._future.exception() else self._future.result().stop_reason
        return f"<Call {self.number} of {self.process.name}: {state}>"


async def until(future: Future[Any], cancel: Callable[[], None], name: str) -> None:
    """Come back when something is done, whatever came of it; when the wait is cancelled, `cancel` stops it."""
    done = asyncio.wrap_future(future)
    try:
        while not done.done():  # waking now and then lets a kernel notice its interrupt, which by itself does not wake an idle loop
            await asyncio.wait({done}, timeout=WAIT_S)
    except asyncio.CancelledError as error:  # this very one: asyncio.timeout knows no other, and no kind of its own
        cancel()
        line = stopped_line("CancelledError", name)
        error._render_traceback_ = lambda: line  # type: ignore[attr-defined]
        done.add_done_callback(lambda left: left.cancelled() or left.exception())  # heard: or asyncio complains to the person
        raise
    done.exception()  # heard: whoever waits asks the call itself
