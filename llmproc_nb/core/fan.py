"""Calls that begin with the same path: one request writes it to the provider's cache, the others go out once it can be read.

A prefix can be read as soon as the request that writes it has begun to be answered. If that one fails before, the next one takes over.

No request for nothing but the cache is made (Anthropic's max_tokens=0): measured, it takes as long and costs one request more, since the
first child's own request writes the path just as well (tests/bench/fanout.py has both).
"""

from __future__ import annotations

import asyncio
from collections import deque

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.message import Text, Thinking, ToolCall, parts_of

AT_ONCE = 4
WORTH_CHARS = 4000
"""Shorter paths are not cached by any provider, so nobody waits for them."""


class Fan:
    """The turnstile of one fan-out. `shared` is the last node that all of its calls have in common. Used on the owner loop only."""

    def __init__(self, shared: Node) -> None:
        self.shared = shared
        self.readable = not is_cached_length(shared)
        self._writing = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Come back at once if the path is readable, or to be the one that writes it; otherwise wait for one of these."""
        while not self.readable and self._writing:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        self._writing = True

    def began(self) -> None:
        """A request has begun to be answered: what it wrote can be read."""
        self.readable = True
        self._wake_next()

    def left(self) -> None:
        """A request has ended, in whatever way; where it wrote nothing the next one tries."""
        if not self.readable:
            self._writing = False
            self._wake()

    def _wake_next(self) -> None:
        """Let a few go in each round of the loop: the first are on their way, and answered, while the last are still being made."""
        for _ in range(min(AT_ONCE, len(self._waiting))):
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._wake_next)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if not one.done():
                one.set_result(None)


def is_cached_length(node: Node) -> bool:
    """Whether the path to a node is long enough for a provider to cache it."""
    chars = 0
    for one in node.up():
        for part in parts_of(one.message):
            chars += len(part.arguments) if isinstance(part, ToolCall) else len(part.text) if isinstance(part, Text | Thinking) else 0
        if chars >= WORTH_CHARS:
            return True
    return False
