"""A call in its cell: one display that fills while the call runs, interrupts that act at once.

Here: display handles, throttling, waiting. Not here: what a turn looks like (view), tools on the main thread (maintools).
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from IPython.display import DisplayHandle

from llmproc_nb.core.call import GRACE_S, Call, Interrupted
from llmproc_nb.core.errors import LlmprocError
from llmproc_nb.core.event import AnyEvent
from llmproc_nb.core.provider import Delta
from llmproc_nb.core.result import RunResult
from llmproc_nb.notebook.maintools import MainLoopTools
from llmproc_nb.notebook.progress import live_bundle
from llmproc_nb.notebook.turn import Turn
from llmproc_nb.notebook.view import bundle

UPDATES_PER_S = 8


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
        by_person, raises = tools.heard()
        if by_person:
            stop()
        if raises:
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
