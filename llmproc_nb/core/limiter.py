"""One limiter per endpoint and machine: how many requests may be under way at once, learned from what the API answers.

Every success raises the limit a little, every 429 halves it (once for all requests that were under way together), a Retry-After or an
overload pauses everyone. Used from the owner loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from llmproc_nb.core.errors import Overloaded, ProviderError, RateLimited, ServerFailed


class Limiter:
    """Slots for requests. `limit` is a float that moves between 1 and `most`; its whole part counts."""

    def __init__(self, monotonic: Callable[[], float], *, start: float = 16, most: float = 64) -> None:
        self.limit, self.most = start, most
        self.active = 0
        self._monotonic = monotonic
        self._free = asyncio.Condition()
        self._paused_until = 0.0
        self._last_cut = -1.0

    @asynccontextmanager
    async def slot(self, on_wait: Callable[[str], None]) -> AsyncIterator[float]:
        """A slot for one request; gives the time it was had. `on_wait` hears what is waited for, if anything."""
        async with self._free:
            if self.active >= int(self.limit):
                on_wait(f"{self.active} requests under way")
                await self._free.wait_for(lambda: self.active < int(self.limit))
            self.active += 1
        try:
            pause = self._paused_until - self._monotonic()
            if pause > 0:
                on_wait(f"the API asked for a pause of {pause:.0f} s")
                await asyncio.sleep(pause)
            yield self._monotonic()
        finally:
            async with self._free:
                self.active -= 1
                self._free.notify_all()

    def succeeded(self) -> None:
        self.limit = min(self.most, self.limit + 1 / self.limit)

    def failed(self, error: ProviderError, began: float) -> None:
        """Learn from a failure of a request that began at `began`."""
        now = self._monotonic()
        if isinstance(error, RateLimited) and began > self._last_cut:
            self.limit, self._last_cut = max(1.0, self.limit / 2), now
        if isinstance(error, RateLimited | Overloaded | ServerFailed) and error.retry_after_s:
            self._paused_until = max(self._paused_until, now + error.retry_after_s)
