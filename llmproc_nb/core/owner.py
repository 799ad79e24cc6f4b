"""The owner loop: one daemon thread with one event loop, on which every connection of a machine lives.

The one meeting of threads and loops. Callers on any thread hand in coroutines and get futures that every caller can wait for.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

END_S = 1.0
T = TypeVar("T")
Job: TypeAlias = tuple[contextvars.Context, Future[Any], Callable[[], Any]]


class OwnerLoop:
    """Started with the first use; ends with `close` or with the interpreter."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ident: int | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self.workers = Workers()
        self._lock = threading.Lock()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._loop.is_closed() or self._pid != os.getpid():  # a fork of the interpreter has no threads
                self._start()
            assert self._loop is not None
            return self._loop

    def _start(self) -> None:
        ready = threading.Event()
        loop = asyncio.new_event_loop()

        def main() -> None:
            self._ident = threading.get_ident()
            asyncio.set_event_loop(loop)
            ready.set()
            loop.run_forever()
            loop.close()

        self._thread = threading.Thread(target=main, name="llmproc-owner", daemon=True)
        self._thread.start()
        ready.wait()
        self._loop, self._pid = loop, os.getpid()

    def is_here(self) -> bool:
        """Whether the caller is on the owner loop's own thread, where waiting for it would never end."""
        return threading.get_ident() == self._ident

    def start(self, coroutine: Coroutine[Any, Any, Any], on_task: Callable[[asyncio.Task[Any]], None]) -> None:
        """Run a coroutine in a copy of the caller's context, so that its output finds the caller's cell; `on_task` gets its task."""
        loop, where = self.loop, contextvars.copy_context()
        loop.call_soon_threadsafe(lambda: on_task(loop.create_task(coroutine, context=where)))

    def wait(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine and wait for it; not from the owner loop itself. Who stops waiting (an interrupt, the time) stops it too."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout_s)
        finally:
            future.cancel()

    def close(self) -> None:
        """Stop, and give back what the loop has."""
        with self._lock:
            running = self._loop is not None and not self._loop.is_closed() and self._pid == os.getpid()
            if self._loop is not None and running:
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None
        if running and self._thread is not None and not self.is_here():
            self._thread.join(END_S)


class Workers:
    """Threads for plain functions, one for each that runs; an idle one is used again.

    They are daemons: a function that never returns keeps neither the loop nor the interpreter from going on. When the wait is cancelled
    the function runs on alone; nothing can stop a thread.
    """

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[Job]] = []
        self._pid = os.getpid()

    async def run(self, function: Callable[[], T]) -> T:
        """What a function gives, run on a thread of its own in the caller's context."""
        if self._pid != os.getpid():  # a fork of the interpreter has no threads
            self._idle, self._pid = [], os.getpid()
        future: Future[T] = Future()
        jobs = self._idle.pop() if self._idle else self._start()
        jobs.put((contextvars.copy_context(), future, function))
        return await asyncio.wrap_future(future)

    def _start(self) -> SimpleQueue[Job]:
        jobs: SimpleQueue[Job] = SimpleQueue()
        threading.Thread(target=self._work, args=(jobs,), name="llmproc-tool", daemon=True).start()
        return jobs

    def _work(self, jobs: SimpleQueue[Job]) -> None:
        while True:
            where, future, function = jobs.get()
            where.run(settle, future, function)
            del where, future, function  # what a tool held on to is not kept by an idle thread
            self._idle.append(jobs)


def settle(future: Future[T], function: Callable[[], T]) -> None:
    """Run a function and put what comes of it into a future that somebody may have given up meanwhile."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        value = function()
    except BaseException as error:  # whatever a tool raises belongs to the one who waits for it, SystemExit included
        future.set_exception(error if isinstance(error, Exception) else ToolExit(error))
    else:
        future.set_result(value)


class ToolExit(Exception):
    """A tool raised SystemExit, KeyboardInterrupt or the like (`kind`); as such it would end the owner loop."""

    def __init__(self, error: BaseException) -> None:
        self.kind = type(error)
        super().__init__(f"{self.kind.__name__}: {error}")
