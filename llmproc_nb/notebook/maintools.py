"""Tools that are functions of the notebook run on its main thread, as cells do; one that takes too long is stopped there.

Here: two ways onto the main thread, and how a function is stopped on it. Not here: when that is (toolrun).
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from llmproc_nb.core.call import GRACE_S, Call, Interrupted
from llmproc_nb.core.owner import ToolExit, settle
from llmproc_nb.core.result import RunResult

POLL_S = 0.05


class OnMain(Future[Any]):
    """A function on the main thread. Cancelled before it began it never runs; while it runs a KeyboardInterrupt is raised in it."""

    def __init__(self, tools: MainTools) -> None:
        super().__init__()
        self._tools = tools

    def cancel(self) -> bool:
        """Whether it will never run."""
        if super().cancel():
            return True
        self._tools.stop(self)
        return False


class MainTools:
    """One at a time on the main thread. `late` is the one that is being stopped because nobody waits for it any more."""

    def __init__(self) -> None:
        self.current: OnMain | None = None
        self.late: OnMain | None = None
        self._signalled = False

    @property
    def busy(self) -> bool:
        return self.current is not None

    def stop(self, one: OnMain) -> None:
        """Interrupt this one on the main thread, if it runs there."""
        if self.current is one and self.late is not one and hasattr(signal, "pthread_kill"):
            self.late, self._signalled = one, True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def heard(self) -> tuple[bool, bool]:
        """Of an interrupt signal that came: whether a person sent it, and whether it is to be raised in the tool that runs."""
        by_person, self._signalled = not self._signalled, False
        return by_person, self.busy and (by_person or self.current is self.late)

    def _run(self, one: OnMain, function: Callable[[], Any]) -> None:
        def busily() -> Any:
            self.current = one
            try:
                return function()
            finally:
                self.current = None

        try:
            settle(one, busily)
        except KeyboardInterrupt as error:  # it came between the tool's end and here; out of here it would end what waits
            if not one.done():
                one.set_exception(ToolExit(error))


class MainLoopTools(MainTools):
    """Runs tools between the events of the kernel's loop, while an `await` cell waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def __call__(self, function: Callable[[], Any]) -> OnMain:
        one = OnMain(self)
        self._loop.call_soon_threadsafe(self._run, one, function, context=contextvars.copy_context())
        return one


class WaitingTools(MainTools):
    """Runs tools while the main thread waits for a call: nested cells, loops, plain consoles."""

    def __init__(self) -> None:
        super().__init__()
        self._stopped = False
        self._asked: queue.SimpleQueue[tuple[contextvars.Context, OnMain, Callable[[], Any]]] = queue.SimpleQueue()

    def __call__(self, function: Callable[[], Any]) -> OnMain:
        one = OnMain(self)
        self._asked.put((contextvars.copy_context(), one, function))
        return one

    def wait(self, call: Call) -> RunResult:
        """Wait for the call and run what its tools ask for. An interrupt stops the call first."""
        with call.waited_for(), self._interrupts():
            return self._wait(call)

    def _wait(self, call: Call) -> RunResult:
        try:
            while not call.done():
                try:
                    where, one, function = self._asked.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                where.run(self._run, one, function)
                error = one.exception() if not one.cancelled() else None
                ended_so = isinstance(error, ToolExit) and issubclass(error.kind, KeyboardInterrupt) and one is not self.late
                if ended_so or self._stopped:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            call.cancel()
            call.settle(GRACE_S)
            raise Interrupted(call.process.name) from None
        return call.result()

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """While waiting, tell a person's interrupt from one that is meant for a tool alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handler(number: int, frame: Any) -> None:
            by_person, raises = self.heard()
            self._stopped = self._stopped or by_person  # a tool may swallow what is raised in it
            if by_person or raises:
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
