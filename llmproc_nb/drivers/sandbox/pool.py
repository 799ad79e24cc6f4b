"""Families that wait warm, each with a shell that can take a cell at once: made in the background, ended when nobody came for them.

There is one pool for each owner loop, for a family lives on the loop it was made on.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from llmproc_nb.core.errors import LlmprocError, ToolError
from llmproc_nb.core.sandbox import SandboxRules
from llmproc_nb.drivers.sandbox.family import Family
from llmproc_nb.drivers.sandbox.live import LiveShell

IDLE_S = 300.0
WARM = 1
"""Families that wait for each kind of rules that was asked for lately."""


class Pool:
    """The warm families of a loop."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._warm: dict[bytes, list[tuple[Family, LiveShell]]] = {}
        self._making: dict[bytes, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timers: dict[bytes, asyncio.TimerHandle] = {}

    async def take(self, rules: SandboxRules) -> tuple[Family, LiveShell]:
        """A family and its first shell; another one is made for the next who comes. Raises ToolError."""
        key = _key(rules)
        making = self._making.get(key)
        if making is not None and not self._warm.get(key):
            await asyncio.wait({making})
        while self._warm.get(key):
            family, shell = self._warm[key].pop()
            if await family.answers() and shell.alive:
                self.warm(rules)
                return family, shell
            await family.close()
        made = await _made(rules)
        self.warm(rules)
        return made

    def warm(self, rules: SandboxRules) -> None:
        """Have a family made in the background, if none waits."""
        key, loop = _key(rules), asyncio.get_running_loop()
        if key in self._timers:
            self._timers[key].cancel()
        self._timers[key] = loop.call_later(self._idle_s, self._reap, key)
        if key not in self._making and len(self._warm.get(key, ())) < WARM:
            task = self._aside(self._fill(key, rules))
            self._making[key] = task
            task.add_done_callback(lambda _: self._making.pop(key, None))

    @property
    def waiting(self) -> int:
        """How many families wait."""
        return sum(len(families) for families in self._warm.values())

    async def close(self) -> None:
        """End all that wait."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._making:
            await asyncio.wait(set(self._making.values()))
        for key in tuple(self._warm):
            for family, _ in self._warm.pop(key):
                await family.close()

    async def _fill(self, key: bytes, rules: SandboxRules) -> None:
        with contextlib.suppress(LlmprocError):  # whoever needs one is told why there is none
            self._warm.setdefault(key, []).append(await _made(rules))

    def _reap(self, key: bytes) -> None:
        self._timers.pop(key, None)
        for family, _ in self._warm.pop(key, ()):
            self._aside(family.close())

    def _aside(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _made(rules: SandboxRules) -> tuple[Family, LiveShell]:
    family = Family(rules)
    try:
        return family, await _first(family)
    except ToolError:
        if not family.lost:  # it was refused, or failed by itself
            raise
        family = Family(rules)  # the zygote was just ending: there is another one now
        return family, await _first(family)


async def _first(family: Family) -> LiveShell:
    shell = None
    try:
        await family.begin()
        shell = await family.first()
        return shell
    finally:
        if shell is None:
            await family.close()


def _key(rules: SandboxRules) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(rules, files=(), variables=()), order="deterministic")


_POOLS: WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = WeakKeyDictionary()


def pool() -> Pool:
    """The pool of the running loop."""
    return _POOLS.setdefault(asyncio.get_running_loop(), Pool())
