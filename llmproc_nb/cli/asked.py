"""The terminal's approver: a tool call that the rules leave to a person is asked about on the main thread, which waits for the call.

Not here: what is said and what an answer means (spoken).
"""

from __future__ import annotations

import asyncio
import queue
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from llmproc_nb.cli.terminal import Terminal
from llmproc_nb.cli.typed import Typed
from llmproc_nb.core.approval import Ask, Decision, InTurn, unanswered
from llmproc_nb.core.call import Call
from llmproc_nb.core.result import RunResult
from llmproc_nb.drivers import spoken

POLL_S = 0.05


class TypedApprover(InTurn):
    """Asks where somebody sits at a terminal; lines that come from a pipe are prompts, not answers."""

    def __init__(self, typed: Typed, terminal: Terminal) -> None:
        super().__init__(self._ask)
        self._typed, self._terminal = typed, terminal
        self._asked: queue.SimpleQueue[tuple[Ask, Future[Decision]]] = queue.SimpleQueue()

    async def _ask(self, ask: Ask, waiting: int) -> Decision:
        if not self._typed.terminal:
            return unanswered(ask)
        answer: Future[Decision] = Future()
        self._asked.put((ask, answer))
        return await asyncio.wrap_future(answer)

    def wait(self, call: Call) -> RunResult:
        """The result of a call; its asks are answered meanwhile. On the main thread. An interrupt of an ask stops the call."""
        with call.waited_for():
            while not call.done():
                try:
                    ask, answer = self._asked.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                if not answer.set_running_or_notify_cancel():
                    continue
                try:
                    answer.set_result(self._answered(ask))
                except KeyboardInterrupt:
                    call.cancel()
        return call.result()

    def _answered(self, ask: Ask) -> Decision:
        self._terminal.end()
        self._terminal.line(spoken.title(ask))
        self._terminal.line("  " + spoken.arguments_text(ask).replace("\n", "\n  "))
        with _interrupts_raise():
            return spoken.converse(ask, self._typed.line, self._terminal.line)


@contextmanager
def _interrupts_raise() -> Iterator[None]:
    """Have an interrupt end the reading of a line; a handler that only notes it would leave the person sitting there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
