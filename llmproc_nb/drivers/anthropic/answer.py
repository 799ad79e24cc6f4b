"""One HTTP answer, read to its end, whatever it turns out to be: a stream, a whole message, or no reply at all.

Here: which of these it is. Not here: events (sse in core), what they mean (stream), and faults of the connection (driver).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from llmproc_nb.core.errors import GarbledReply
from llmproc_nb.core.message import clean
from llmproc_nb.core.sse import EventReader, decode, sample
from llmproc_nb.drivers.anthropic.stream import Collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

DRAIN_TIMEOUT_S = 0.5
HALVES = frozenset({"text", "thinking", "partial_json"})
"""The fields of a delta that hold pieces of a text."""


class _Words(msgspec.Struct):
    type: Literal["text_delta"]
    text: str


class _Plain(msgspec.Struct):
    """What nearly every event is, read faster than by its fields: the next words."""

    type: Literal["content_block_delta"]
    index: int
    delta: _Words


_plain = msgspec.json.Decoder(_Plain).decode


async def read(response: httpx2.Response, collector: Collector) -> None:
    """Read an answer to its end. Raises GarbledReply where it is no reply, or ends before it is one."""
    reader = EventReader()
    async with aclosing(response.aiter_bytes()) as pieces:
        async for piece in pieces:
            _feed(collector, reader.feed(piece))
            if collector.done:
                await _drain(pieces)
                return
    _feed(collector, reader.end())
    if collector.done:
        return
    if collector.started:
        raise GarbledReply("the stream ended in the middle of the answer")
    if not reader.other.startswith(b"{"):
        raise GarbledReply(f"the answer is no event stream: {sample(reader.other)}", right="base_url leads to the Messages API")
    collector.feed_whole(decode(reader.other))


def _feed(collector: Collector, events: Iterable[tuple[str, bytes]]) -> None:
    for name, data in events:
        try:
            plain = _plain(data)
        except (ValueError, RecursionError):
            event = _event(name, data)
        else:
            collector.feed_words(plain.index, plain.delta.text)
            continue
        if isinstance(event, dict):  # else "[DONE]" of a gateway and the like
            if name and "type" not in event:
                event["type"] = name
            collector.feed(event)


def _event(name: str, data: bytes) -> Any:
    try:
        return decode(data, halves=HALVES)
    except GarbledReply:
        text = clean(data.decode(errors="replace").strip())
        if text == "[DONE]":
            return None
        if name == "error":
            return {"type": "error", "error": {"message": text[:300] or "an error event without words"}}
        raise


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read what follows a whole reply, so that its connection can be used again; whatever happens there, the reply is whole."""
    import httpx2

    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for _ in pieces:
                pass
