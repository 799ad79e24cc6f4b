"""One limiter per endpoint and machine: how many requests may be under way at once, learned from what the API answers.

Every success raises the limit a little. The first 429 of several requests under way together halves it, each further one brings it down to
those that are still being served. A Retry-After or an overload pauses everyone. Siblings of a fan-out may go all at once as long as
nothing was refused: their common path is read from the cache and hardly counts for an API's limits. Used from the owner loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from llmproc_nb.core.errors import Overloaded, ProviderError, RateLimited, ServerFailed

MAX_PAUSE_S = 60.0
SHORTEST_PAUSE_S = 0.001
BURST = 128
"""So many siblings of a fan-out may be under way at once, where the API has not said that it takes fewer."""


class Limiter:
    """Slots for requests. `limit` is a float that moves between 1 and `most`; its whole part counts."""

    def __init__(self, monotonic: Callable[[], float], *, start: float = 16, most: float = 64) -> None:
        self.limit, self.most = start, most
        self.active = 0
        self._monotonic = monotonic
        self._waiting: set[asyncio.Future[None]] = set()
        self._paused_until = 0.0
        self._last_cut = -1.0
        self._left: int | None = None

    @asynccontextmanager
    async def slot(
        self, sleep: Callable[[float], Awaitable[None]], on_wait: Callable[[str], None], *, burst: bool = False
    ) -> AsyncIterator[float]:
        """A slot for one request; gives the time it was had. `on_wait` hears what is waited for, if anything. `burst`: a sibling."""
        if self.active >= self._room(burst):
            on_wait(f"{self.active} request{'' if self.active == 1 else 's'} under way")
            while self.active >= self._room(burst):
                await self._released()
        self.active += 1
        try:
            # the pause may have become longer meanwhile
            while (pause := self._paused_until - self._monotonic()) > SHORTEST_PAUSE_S:
                on_wait(f"the API asked for a pause of {pause:.0f} s")
                await sleep(pause)
            yield self._monotonic()
        finally:  # without an await: one who is cancelled twice must give the slot back, too
            self.active -= 1
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(None)

    def _room(self, burst: bool) -> int:
        """How many may be under way."""
        if not burst or self._last_cut >= 0:
            return int(self.limit)
        return max(int(self.limit), BURST if self._left is None else min(BURST, self._left))

    async def _released(self) -> None:
        """Wait until somebody gives a slot back."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)

    def heard(self, left: int | None) -> None:
        """Learn how many requests the API still takes, where it says so."""
        self._left = left

    def succeeded(self) -> None:
        self.limit = min(self.most, self.limit + 1 / self.limit)

    def failed(self, error: ProviderError, began: float) -> None:
        """Learn from a failure of a request that began at `began`."""
        now = self._monotonic()
        if isinstance(error, RateLimited) and began > self._last_cut:
            self.limit, self._last_cut = max(1.0, self.limit / 2), now
        elif isinstance(error, RateLimited):
            self.limit = max(1.0, min(self.limit, self.active - 1))
        pauses = isinstance(error, RateLimited | Overloaded | ServerFailed)
        # a longer pause is nobody's to sit out: each request is told so by the API itself
        if pauses and error.retry_after_s and error.retry_after_s <= MAX_PAUSE_S:
            self._paused_until = max(self._paused_until, now + error.retry_after_s)
