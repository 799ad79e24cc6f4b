"""One HTTP answer, read to its end, whatever it turns out to be: a stream, a whole message, or no reply at all.

Here: which of these it is. Not here: events (events), what they mean (stream), and faults of the connection (driver).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from llmproc_nb.core.errors import GarbledReply
from llmproc_nb.drivers.anthropic.events import EventReader
from llmproc_nb.drivers.anthropic.stream import Collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

DRAIN_TIMEOUT_S = 0.5


async def read(response: httpx2.Response, collector: Collector, place: str) -> None:
    """Read an answer to its end. Raises GarbledReply where it is no reply, or ends before it is one."""
    if "event-stream" not in response.headers.get("content-type", ""):
        _read_whole(await response.aread(), collector, place)
        return
    reader, pieces = EventReader(), response.aiter_bytes()
    async for piece in pieces:
        for event in reader.feed(piece):
            collector.feed(event)
        if collector.done:
            await _drain(pieces)
            return
    _finish(reader, collector, place)


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read what follows a whole reply, so that its connection can be used again; whatever happens there, the reply is whole."""
    import httpx2

    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for _ in pieces:
                pass
    except (TimeoutError, httpx2.HTTPError):
        pass


def _read_whole(body: bytes, collector: Collector, place: str) -> None:
    """An answer that does not call itself a stream: a whole message from a gateway, a stream all the same, or something else."""
    if body.lstrip().startswith(b"{"):
        _read_message(body, collector, place)
        return
    reader = EventReader()
    for event in reader.feed(body):
        collector.feed(event)
    _finish(reader, collector, place)


def _read_message(body: bytes, collector: Collector, place: str) -> None:
    try:
        message = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise GarbledReply(f"the answer is no JSON: {_sample(body)}", place=place) from None
    collector.feed_whole(message)


def _finish(reader: EventReader, collector: Collector, place: str) -> None:
    for event in reader.end():
        collector.feed(event)
    if collector.done:
        return
    if collector.started:
        raise GarbledReply("the stream ended in the middle of the answer", place=place)
    if not reader.stray.lstrip().startswith(b"{"):
        sample = _sample(reader.stray)
        raise GarbledReply(f"the answer is no event stream: {sample}", place=place, right="base_url leads to the Messages API")
    _read_message(reader.stray, collector, place)


def _sample(body: bytes) -> str:
    text = " ".join(body[:400].decode(errors="replace").split())
    return repr(text[:80]) if text else "it is empty"
