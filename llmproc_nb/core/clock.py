"""The clock door: time and chance, so that a test can fix both."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int:
        """UTC, nanoseconds since 1970."""
        ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...

    def jitter(self) -> float:
        """A factor around 1 for waits, so that many who wait do not come back together."""
        ...


class SystemClock:
    """The real time, real waits, real chance."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        return random.uniform(0.75, 1.25)


class FixedClock:
    """Starts at `start_ns`, moves only when somebody sleeps, and then at once."""

    def __init__(self, start_ns: int = 1_760_000_000_000_000_000) -> None:
        self._ns = start_ns
        self.slept_s: list[float] = []

    def now_ns(self) -> int:
        return self._ns

    def monotonic(self) -> float:
        return self._ns / 1e9

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self._ns += int(seconds * 1e9)
        await asyncio.sleep(0)

    def jitter(self) -> float:
        return 1.0
