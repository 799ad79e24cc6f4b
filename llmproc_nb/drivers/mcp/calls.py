"""The calls under way on one connection: who made them, and the clock of each. No SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any

_CALLER: ContextVar[Any] = ContextVar("llmproc_mcp_caller", default=None)


class Calls:
    """The calls under way on one connection, and the clock of each."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.open: dict[asyncio.Timeout, tuple[Any, Context]] = {}
        self.on_empty: Callable[[], None] = lambda: None
        self._asks = 0

    @property
    def caller(self) -> Any:
        """Who called: known where a server's question comes in the caller's own task, or where there is only one."""
        own = _CALLER.get()
        if own is not None:
            return own
        callers = [caller for caller, _ in self.open.values()]
        return callers[0] if callers and all(caller is callers[0] for caller in callers) else None

    @property
    def where(self) -> Context:
        """The context of the call in which a server asks, where there is only one: it says which cell waits, and for whom."""
        others = list(self.open.values())
        return others[0][1].copy() if _CALLER.get() is None and len(others) == 1 else copy_context()

    @contextmanager
    def one(self, clock: asyncio.Timeout, caller: Any) -> Iterator[None]:
        """A call from its first to its last moment; `clock` is entered already."""
        token = _CALLER.set(caller)
        self.open[clock] = caller, copy_context()
        try:
            yield
        finally:
            _CALLER.reset(token)
            del self.open[clock]
            if not self.open:
                self.on_empty()

    def heard(self, clock: asyncio.Timeout) -> None:
        """The server has shown that it works on a call."""
        if not self._asks:
            self._set(clock, asyncio.get_running_loop().time() + self.limit_s)

    def pause(self) -> None:
        self._asks += 1
        for clock in self.open:
            self._set(clock, None)

    def go_on(self) -> None:
        self._asks -= 1
        for clock in self.open:
            self.heard(clock)

    def _set(self, clock: asyncio.Timeout, when: float | None) -> None:
        if clock in self.open and not clock.expired():
            clock.reschedule(when)
