"""A call in its cell: one display that fills while the call runs, tools on the notebook's main thread, interrupts that act at once.

Here: display handles, throttling, waiting. Not here: what a turn looks like (view) and what a cell asks for (magics).
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from IPython.display import DisplayHandle

from llmproc_nb.core.call import GRACE_S, Call, Interrupted
from llmproc_nb.core.errors import LlmprocError
from llmproc_nb.core.event import AnyEvent
from llmproc_nb.core.owner import ToolExit, settle
from llmproc_nb.core.provider import Delta
from llmproc_nb.core.result import RunResult
from llmproc_nb.notebook.progress import live_bundle
from llmproc_nb.notebook.turn import Turn
from llmproc_nb.notebook.view import bundle

UPDATES_PER_S = 8
POLL_S = 0.1


class LiveView:
    """The display of one call. With `stream` it shows the turn as it grows; without, exactly one bundle at the end."""

    def __init__(self, turn: Turn, *, stream: bool) -> None:
        self._turn, self.streams = turn, stream
        self._handle: DisplayHandle | None = None
        self._last = 0.0
        self._due: asyncio.TimerHandle | None = None
        self._closed = False
        self._lock = threading.Lock()

    def begin(self, hint: str) -> None:
        """Open the display now, with a line that stays while the call runs."""
        self._turn.hint = hint
        self._show(live_bundle(self._turn))

    def delta(self, delta: Delta) -> None:
        self._turn.delta(delta)
        self._touch()

    def event(self, event: AnyEvent) -> None:
        self._turn.event(event)
        self._touch()

    def _touch(self) -> None:
        """Show the turn now, or soon where it was shown a moment ago. Called on the owner loop, in the cell's own context."""
        if not self.streams or self._due is not None or self._closed:
            return
        wait = self._last + 1 / UPDATES_PER_S - time.monotonic()
        if wait <= 0:
            self._show(live_bundle(self._turn))
        else:
            self._due = asyncio.get_running_loop().call_later(wait, self._show_due, context=contextvars.copy_context())

    def _show_due(self) -> None:
        self._due = None
        if not self._closed:
            self._show(live_bundle(self._turn))

    def _show(self, data: dict[str, Any], *, final: bool = False) -> None:
        with self._lock:
            if self._closed and not final:  # a late frame must not take the place of the last one
                return
            self._closed = final
            self._last = time.monotonic()
            if self._handle is None:
                self._handle = DisplayHandle()
                self._handle.display(data, raw=True)
            else:
                self._handle.update(data, raw=True)

    def finish(self, result: RunResult, *, notes: tuple[str, ...] = ()) -> None:
        """Show the whole turn, for good."""
        self._show(bundle(result, notes=notes), final=True)

    def failed(self, error: LlmprocError | str | None) -> None:
        """Show what there was before an error, for good; nothing where nothing came."""
        if self._handle is not None or self._turn.said:
            self._turn.failed(error)
            self._show(live_bundle(self._turn), final=True)
        with self._lock:
            self._closed = True


async def wait_in_cell(call: Call, tools: MainLoopTools) -> RunResult:
    """Wait for a call in an `await` cell: the kernel's loop stays free, an interrupt stops the call and is raised as KeyboardInterrupt."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[Any] = loop.create_future()
    done: asyncio.Future[Any] = asyncio.wrap_future(call.future)
    with _interrupts_to(lambda: loop.call_soon_threadsafe(_resolve, stop), tools):
        try:
            await asyncio.wait({done, stop}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # somebody else ended the cell
            call.cancel()
            raise
        if not done.done():
            call.cancel()
            await asyncio.wait({done}, timeout=GRACE_S)
        interrupted = stop.done()
        stop.cancel()
    if interrupted:
        raise Interrupted(call.process.name)
    result: RunResult = await done
    return result


def _resolve(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


@contextmanager
def _interrupts_to(stop: Callable[[], Any], tools: MainLoopTools) -> Iterator[None]:
    """While waiting, have the interrupt signal call `stop`; a tool that runs on the main thread then gets the KeyboardInterrupt as well.

    The kernel's own handler wakes an idle loop only with its next event, seconds later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: Any) -> None:
        stop()
        if tools.busy:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Have an interrupt raised where the code is: in an `await` cell the kernel only notes it until the cell waits."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class MainLoopTools:
    """Runs tools on the main thread between the events of the kernel's loop, while an `await` cell waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.busy = False

    def __call__(self, function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._loop.call_soon_threadsafe(self._run, future, function, context=contextvars.copy_context())
        return future

    def _run(self, future: Future[Any], function: Callable[[], Any]) -> None:
        def busily() -> Any:
            self.busy = True
            try:
                return function()
            finally:
                self.busy = False

        try:
            settle(future, busily)
        except KeyboardInterrupt as error:  # it came between the tool's end and here; out of here it would end the kernel's loop
            if not future.done():
                future.set_exception(ToolExit(error))


class WaitingTools:
    """Runs tools on the main thread while it waits for a call: nested cells, loops, plain consoles."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[contextvars.Context, Future[Any], Callable[[], Any]]] = queue.SimpleQueue()

    def __call__(self, function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._asked.put((contextvars.copy_context(), future, function))
        return future

    def wait(self, call: Call) -> RunResult:
        """Wait for the call and run what its tools ask for. An interrupt stops the call first."""
        with call.waited_for():
            return self._wait(call)

    def _wait(self, call: Call) -> RunResult:
        try:
            while not call.done():
                try:
                    where, future, function = self._asked.get(timeout=POLL_S / 2)
                except queue.Empty:
                    continue
                where.run(settle, future, function)
                error = future.exception()
                if isinstance(error, ToolExit) and issubclass(error.kind, KeyboardInterrupt):
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            call.cancel()
            call.settle(GRACE_S)
            raise Interrupted(call.process.name) from None
        return call.result()
