"""Room under limits of tokens and money while several requests of one subtree are under way: each has a share, which it will probably use.

What a request really takes is known when it has been answered. One whose share might not fit any more waits until one before it is
counted; where none is under way it goes, for a limit that is not used up allows one request more. As long as nothing has been answered
nobody knows how long answers are, so the first goes alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.message import Text, parts_of
from llmproc_nb.core.usage import Limits, Usage

if TYPE_CHECKING:
    from llmproc_nb.core.loop import Run
    from llmproc_nb.core.process import Process

CHARS_PER_TOKEN = 4


class UnderWay:
    """The requests under way of a process and everyone below it. Used on the owner loop only."""

    def __init__(self) -> None:
        self.count = self.tokens = 0
        self.cost_usd = 0.0
        self.longest = 0
        """The tokens of the longest answer so far."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    def add(self, usage: Usage, sign: int) -> None:
        """Count a request that begins (1), or one that has ended (-1): then whoever waits looks again."""
        self.count += sign
        self.tokens += sign * usage.total_tokens
        self.cost_usd += sign * usage.cost_usd
        if sign < 0:
            waiting, self._waiting = self._waiting, deque()
            for one in waiting:
                if not one.done():
                    one.set_result(None)

    def fits(self, used: Usage, limits: Limits, share: Usage) -> bool:
        """Whether one request more stays below the limits, if all that are under way take what is expected."""
        if not self.count:
            return True
        if not self.longest:
            return False
        tokens = used.total_tokens + self.tokens + share.total_tokens
        cost_usd = used.cost_usd + self.cost_usd + share.cost_usd
        return (limits.tokens is None or tokens <= limits.tokens) and (limits.cost_usd is None or cost_usd <= limits.cost_usd)

    async def changed(self) -> None:
        """Wait until one of them has ended."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting


class Share:
    """The share of one request of a call."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._limited = [one for one in (run.process, *run.process.ancestors) if _has_budget(one.program.limits)]
        self._usage: Usage | None = None

    async def take(self) -> None:
        """Wait until there is room, and have it; without it where a limit is used up, which stops the call."""
        if not self._limited:
            return
        usage = self._expected()
        try:
            async with asyncio.timeout(self._run.left_s()):
                while (full := self._full(usage)) is not None:
                    await full.changed()
                    usage = self._expected()
        except TimeoutError:  # the call stops for want of time
            return
        self._usage = usage
        for one in self._limited:
            one.under_way.add(usage, 1)

    def give_back(self, took: Usage | None = None) -> None:
        """Have it no longer: the request has ended, and what it took is counted."""
        usage, self._usage = self._usage, None
        if usage is not None:
            for one in self._limited:
                one.under_way.longest = max(one.under_way.longest, took.output_tokens if took is not None else 0)
                one.under_way.add(usage, -1)

    def _full(self, share: Usage) -> UnderWay | None:
        """Where there is no room now; None too where a limit is used up."""
        for one in self._limited:
            if one.program.limits.reached(steps=-1, seconds=-1.0, usage=one.usage) is not None:
                return None
        return next((one.under_way for one in self._limited if not one.under_way.fits(one.usage, one.program.limits, share)), None)

    def _expected(self) -> Usage:
        """What the request will probably take: all that was said so far, and an answer as long as the longest."""
        process = self._run.process
        last = _last(process)
        asked = last.total_tokens + _chars(process.head.message) // CHARS_PER_TOKEN if last is not None else None
        if asked is None:
            asked = sum(_chars(node.message) for node in process.path) // CHARS_PER_TOKEN
        longest = max(one.under_way.longest for one in self._limited)
        return self._run.priced(Usage(requests=1, input_tokens=asked, output_tokens=longest), self._run.config.model)


def _has_budget(limits: Limits) -> bool:
    return limits.tokens is not None or limits.cost_usd is not None


def _last(process: Process) -> Usage | None:
    """What the last request of a process took, or of the one that it was forked from."""
    one: Process | None = process
    while one is not None and one.counted is None and one.origin == "fork":
        one = one.parent
    return one.counted[1] if one is not None and one.counted is not None else None


def _chars(message: Any) -> int:
    return sum(len(part.text) for part in parts_of(message) if isinstance(part, Text))
