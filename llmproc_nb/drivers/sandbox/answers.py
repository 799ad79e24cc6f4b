"""Questions that wait for their answers, by number."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Generic, TypeVar

_Answer = TypeVar("_Answer")


class Given(Enum):
    """What became of an answer: somebody has it, nobody wants it any more, or nobody asked."""

    TAKEN = "taken"
    UNWANTED = "unwanted"
    UNASKED = "unasked"


class Answers(Generic[_Answer]):
    """What is asked and not answered yet."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[_Answer]] = {}
        self._abandoned: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._open)

    @contextmanager
    def question(self) -> Iterator[tuple[int, asyncio.Future[_Answer]]]:
        """A number for a question, and its answer to come. Whoever is cancelled while it waits leaves an answer that nobody wants."""
        n, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._open[n] = answer
        try:
            yield n, answer
        except asyncio.CancelledError:
            self._abandoned.add(n)
            raise
        finally:
            self._open.pop(n, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # whoever asked has heard of the end another way

    def give(self, n: int, value: _Answer) -> Given:
        """Give an answer to whoever asked."""
        answer = self._open.pop(n, None)
        if answer is not None and not answer.done():
            answer.set_result(value)
            return Given.TAKEN
        if n in self._abandoned:
            self._abandoned.discard(n)
            return Given.UNWANTED
        return Given.UNASKED

    def fail(self, why: str) -> None:
        """No answer comes any more."""
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError(why))
        self._open.clear()
