"""What the API answers, collected: events to a draft. Pure.

Here: the collector, stop reasons and token counts. Not here: what kind of answer it is (answer), connections and their faults (driver).
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from llmproc_nb.core.errors import GarbledReply
from llmproc_nb.core.fault import fault
from llmproc_nb.core.message import clean
from llmproc_nb.core.provider import Draft, Stop
from llmproc_nb.core.sse import cleaned
from llmproc_nb.core.usage import Usage

Event = dict[str, Any]

_STOPS: dict[str, Stop] = {
    "end_turn": "end_turn",
    "tool_use": "tool_use",
    "max_tokens": "max_tokens",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
    "pause_turn": "pause_turn",
    "compaction": "pause_turn",  # the server stopped after shortening: asked again with its reply, it goes on
    "model_context_window_exceeded": "context_window",
}


class Collector:
    """Writes events to a draft. `started` and `done` say whether the reply has begun and whether it is whole."""

    def __init__(self, draft: Draft, place: str) -> None:
        self._draft, self._place = draft, place
        self.started = self.done = False
        self._keys: dict[int, int] = {}  # the API's index to the order of arrival: some gateways give every block the index 0
        self._opened = 0
        self._inputs: dict[int, Any] = {}
        self._texts: dict[int, list[str]] = {}
        self._counts: Event = {}

    def feed(self, event: Event) -> None:
        """Take one event. Raises the error that an error event stands for, and GarbledReply where an event makes no sense."""
        kind = event.get("type")
        if kind == "content_block_delta":
            self._delta(event)
        elif kind == "content_block_start":
            self._start(event.get("index"), _part(event, "content_block"))
        elif kind == "content_block_stop":
            self._stop(self._key(event))
        elif kind == "message_start":
            self._begin(_part(event, "message"))
        elif kind == "message_delta":
            self._end(_part(event, "delta"), event.get("usage"))
        elif kind == "message_stop":
            self.done = True
        elif kind == "error":
            raise self._error(event)

    def feed_words(self, index: int, text: str) -> None:
        """Take a piece of text for a block, which is what nearly every event brings."""
        key = self._keys.get(index)
        if key is None or "body" in self._draft.fields(key):
            self._delta({"index": index, "delta": {"type": "text_delta", "text": text}})
        else:
            self._draft.write(key, text)

    def feed_whole(self, message: Event) -> None:
        """Take an answer that came in one piece, from a gateway that does not stream."""
        if message.get("type") == "error" or ("error" in message and "content" not in message):
            raise self._error(message)
        content = message.get("content")
        if message.get("type") != "message" or not isinstance(content, list):
            raise GarbledReply("the answer is JSON, but no message", place=self._place)
        self._begin(message)
        for index, block in enumerate(content):
            self._start(index, _part({"block": block}, "block"))
            self._stop(index)
        self._end(message, None)
        self.done = True

    def _begin(self, message: Event) -> None:
        if self._opened:
            self._start_over()
        self.started = True
        self._draft.id = str(message.get("id") or "")
        self._draft.model = str(message.get("model") or "")
        self._counts = {}
        self._draft.cache_miss = _cache_miss(message.get("diagnostics"))
        self._count(message.get("usage"))

    def _start_over(self) -> None:
        """A second message began in the same stream: a gateway asked again by itself, and the first will never end."""
        self._draft.restart()
        self._keys.clear()
        self._opened = 0

    def _start(self, index: Any, block: Event) -> None:
        key, draft = self._opened, self._draft
        self._opened += 1
        if isinstance(index, int):
            self._keys[index] = key
        kind = block.get("type")
        if kind == "text":
            draft.open(key, "text", extra=_rest(block, "text"))
            draft.write(key, _text(block, "text"))
        elif kind == "thinking":
            draft.open(key, "thinking", signature=_text(block, "signature") or None, extra=_rest(block, "thinking", "signature"))
            draft.write(key, _text(block, "thinking"))
        elif kind == "redacted_thinking":
            draft.open(key, "thinking", redacted=_text(block, "data"), extra=_rest(block, "data"))
        elif kind == "tool_use":
            named = {"id": _text(block, "id"), "name": _text(block, "name")}
            draft.open(key, "tool", **named, extra=_rest(block, "id", "name", "input"))
            self._inputs[key] = block.get("input")
        else:
            draft.open(key, "opaque", body=dict(block))

    def _key(self, event: Event) -> int | None:
        """The draft's key of the block an event is about; without an index it is about the latest."""
        index = event.get("index")
        if isinstance(index, int):
            return self._keys.get(index)
        return self._opened - 1 if self._opened else None

    def _delta(self, event: Event) -> None:
        key, delta = self._key(event), _part(event, "delta")
        if key is None:
            raise GarbledReply(f"a piece for block {event.get('index')} came, which was never started", place=self._place)
        kind, fields = delta.get("type"), self._draft.fields(key)
        if "body" in fields:
            self._opaque_delta(key, fields["body"], delta)
        elif kind == "text_delta":
            self._draft.write(key, _text(delta, "text"))
        elif kind == "input_json_delta":
            self._draft.write(key, _text(delta, "partial_json"))
        elif kind == "thinking_delta":
            self._draft.write(key, _text(delta, "thinking"))
        elif kind == "signature_delta":
            self._draft.update(key, signature=clean(_text(delta, "signature")) or None)
        elif kind == "citations_delta":
            extra = fields.get("extra") or {}
            cited = [*_list(extra.get("citations")), cleaned(delta.get("citation"))]
            self._draft.update(key, extra={**extra, "citations": cited})

    def _opaque_delta(self, key: int, body: Event, delta: Event) -> None:
        """A piece of a block we do not know: its texts are added to those of the block, other fields take their place."""
        if delta.get("type") == "input_json_delta":
            self._texts.setdefault(key, []).append(_text(delta, "partial_json"))
            return
        for name, value in cleaned(delta).items():
            if name == "citation":
                body["citations"] = [*_list(body.get("citations")), value]
            elif name != "type":
                old = body.get(name)
                body[name] = old + value if isinstance(old, str) and isinstance(value, str) else value

    def _stop(self, key: int | None) -> None:
        if key is None:
            return
        whole = self._inputs.pop(key, None)
        if whole and not self._draft.text(key):  # the arguments came with the start, not in pieces
            self._draft.write(key, msgspec.json.encode(whole).decode())
        if written := "".join(self._texts.pop(key, ())):
            self._draft.fields(key)["body"]["input"] = _object(written)

    def _end(self, delta: Event, usage: Any) -> None:
        draft, reason = self._draft, delta.get("stop_reason")
        if isinstance(reason, str):
            draft.raw_stop, draft.stop = reason, _STOPS.get(reason, "other")
            draft.detail = _detail(delta)
        self._count(usage)

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._counts |= {name: value for name, value in usage.items() if value is not None}
            self._draft.usage = tokens(self._counts)

    def _error(self, event: Event) -> Exception:
        error = event.get("error")
        inner = error if isinstance(error, dict) else {"message": str(error or event.get("message") or "an error without words")}
        message = inner.get("message") or inner.get("type") or "an error without words"
        request_id = event.get("request_id")
        types = (word for word in (inner.get("error_code"), inner.get("type")) if isinstance(word, str))
        return fault(str(message), place=self._place, types=types, request_id=request_id if isinstance(request_id, str) else None)


def _part(event: Event, name: str) -> Event:
    value = event.get(name)
    if not isinstance(value, dict):
        raise GarbledReply(f"an event {event.get('type', '')!r} without its {name} came")
    return value


def _text(fields: Event, name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _rest(block: Event, *known: str) -> Event | None:
    return {name: value for name, value in block.items() if name not in known and name != "type" and value not in (None, [], {})} or None


def _object(text: str) -> Any:
    try:
        return cleaned(json.loads(text))
    except (ValueError, RecursionError):
        return {"INVALID_JSON": clean(text)}


def _detail(delta: Event) -> str | None:
    """What the API says about the stop: why it refused, or which stop sequence it met."""
    details = delta.get("stop_details")
    if isinstance(details, dict):
        words = [word for word in (details.get("category"), details.get("explanation")) if isinstance(word, str) and word]
        return ": ".join(words) or None
    sequence = delta.get("stop_sequence")
    return sequence if isinstance(sequence, str) else None


def _cache_miss(diagnostics: Any) -> str:
    """Why the cache did not serve the request, where the API was asked and knows it by now."""
    reason = diagnostics.get("cache_miss_reason") if isinstance(diagnostics, dict) else None
    kind = reason.get("type") if isinstance(reason, dict) else None
    return clean(kind)[:100] if isinstance(kind, str) else ""


def tokens(counts: Event) -> Usage:
    """The API's counts as ours. What the server spent on shortening or on an advisor is only in `iterations` and is added."""
    aside = [
        entry
        for entry in _list(counts.get("iterations"))
        if isinstance(entry, dict) and entry.get("type") in ("compaction", "advisor_message")
    ]
    usage = _tokens(counts)
    for entry in aside:
        usage += _tokens(entry)
    return usage


def _tokens(counts: Event) -> Usage:
    read, written = _number(counts, "cache_read_input_tokens"), _number(counts, "cache_creation_input_tokens")
    by_age, output = counts.get("cache_creation"), counts.get("output_tokens_details")
    return Usage(
        input_tokens=_number(counts, "input_tokens") + read + written,
        output_tokens=_number(counts, "output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=_number(by_age, "ephemeral_1h_input_tokens"),
        reasoning_tokens=_number(output, "thinking_tokens"),
    )


def _number(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return int(value) if isinstance(value, int | float) and 0 < value < 2**53 else 0
