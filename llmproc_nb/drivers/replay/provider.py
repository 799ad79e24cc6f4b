"""A provider that answers from a recording, in place of a real one. Not here: which answer belongs to a request (recording)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llmproc_nb.core import errors
from llmproc_nb.core.errors import ProviderError
from llmproc_nb.core.event import AttemptFailed
from llmproc_nb.core.message import Message, Opaque, Text, Thinking, ToolCall
from llmproc_nb.core.provider import Config, Draft, Provider, Reply, Request

if TYPE_CHECKING:
    from llmproc_nb.drivers.replay.recording import Recording

CHUNKS = 4


class Replay:
    """Answers like the real provider it stands for, from a recording; replies say that they were replayed."""

    def __init__(self, recording: Recording, real: Provider) -> None:
        self._recording, self._real = recording, real
        self.name, self.api, self.scripted = real.name, real.api, real.scripted

    async def ask(self, request: Request, draft: Draft) -> Reply:
        """The recorded reply. Raises what was raised when it was recorded, or ReplayMiss."""
        found = self._recording.find(request)
        if found is None:
            if self._recording.is_broken_off(request):
                raise asyncio.CancelledError
            if self._recording.mode == "replay":
                raise self._recording.explain(request)
            return await self._real.ask(request, draft)
        draft.replayed = True  # type: ignore[attr-defined]  # read by the loop when it writes down the reply
        if isinstance(found, AttemptFailed):
            raise _fault(found, draft)
        message = self._recording.dialog.find(found.node).message
        _stream(message, draft)
        draft.usage, draft.model, draft.id = found.usage, found.model, found.id
        await asyncio.sleep(0)
        if found.stop == "interrupted":
            raise asyncio.CancelledError
        return Reply(
            message=message,
            stop=found.stop,  # type: ignore[arg-type]
            raw_stop=found.raw_stop,
            detail=found.detail,
            usage=found.usage,
            model=found.model,
            id=found.id,
            cache_miss=found.cache_miss,
        )

    def left_out(self, config: Config) -> tuple[str, ...]:
        return self._real.left_out(config)

    def preview(self, request: Request) -> dict[str, Any]:
        return self._real.preview(request)

    async def close(self) -> None:
        await self._real.close()


def _fault(event: AttemptFailed, draft: Draft) -> ProviderError:
    """The error of a failed attempt, final: the recorded attempts are not made again."""
    kind = getattr(errors, event.error, ProviderError)
    error: ProviderError = kind(event.text) if issubclass(kind, ProviderError) else ProviderError(event.text)
    error.retryable = False
    if event.partial is not None:
        _stream(event.partial, draft)
    draft.usage = event.usage
    return error


def _stream(message: Message, draft: Draft) -> None:
    """Write a message to a draft as a provider does, in a few pieces."""
    draft.api = message.api or draft.api
    for key, part in enumerate(message.parts):
        if isinstance(part, Text):
            draft.open(key, "text", extra=part.extra)
            _write(draft, key, part.text)
        elif isinstance(part, Thinking):
            draft.open(key, "thinking", extra=part.extra, signature=part.signature, redacted=part.redacted)
            _write(draft, key, part.text)
        elif isinstance(part, ToolCall):
            draft.open(key, "tool", extra=part.extra, id=part.id, name=part.name)
            draft.write(key, part.arguments)
        elif isinstance(part, Opaque):
            draft.open(key, "opaque", extra=part.extra, body=part.body)


def _write(draft: Draft, key: int, text: str) -> None:
    size = max(1, -(-len(text) // CHUNKS))
    for start in range(0, len(text), size):
        draft.write(key, text[start : start + size])
