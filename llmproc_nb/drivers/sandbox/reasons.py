"""How the processes of a family ended, as others of it saw it."""

from __future__ import annotations

import asyncio
import contextlib

MOST = 1000


class Reasons:
    """What is known so far, by a process's number in its family. `over` is set with the family's own end."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._told = asyncio.Event()
        self.over = ""

    def tell(self, pid: int, how: str) -> None:
        """Somebody saw how a process ended; what was said first counts."""
        self._known.setdefault(pid, how)
        while len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        self._told.set()

    def end(self, why: str) -> None:
        """The family is over: nobody will tell any more."""
        self.over = why
        self._told.set()

    async def of(self, pid: int, timeout_s: float) -> str:
        """How a process ended, as soon as that is known; it may never be."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while pid not in self._known and not self.over:
                    self._told.clear()
                    await self._told.wait()
        return self._known.get(pid, self.over)
