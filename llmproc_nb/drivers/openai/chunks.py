"""Chunks of a streamed Chat Completions answer, or one that came whole, written to a draft.

Many servers speak this API, none quite alike: indices, ids or finish reasons may be missing, calls may come whole. Not here: requests
(chat) and the way back (messages).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from llmproc_nb.core.errors import GarbledReply
from llmproc_nb.core.provider import Draft, Stop
from llmproc_nb.core.sse import decode
from llmproc_nb.drivers.openai.client import END_MARK, stated_fault
from llmproc_nb.drivers.openai.usage import usage_of

JSON = dict[str, Any]

_STOPS: Mapping[str, Stop | None] = {
    "stop": None,
    "tool_calls": None,
    "function_call": None,
    "length": "max_tokens",
    "content_filter": "refusal",
    "model_length": "context_window",
}
# parts of a reply in their order: what was thought, what was said, which tools are wanted, the rest
THOUGHTS, WORDS, CALLS, REST = (0, 0), (1, 0), 2, (3, 0)
HALVES = frozenset({"content", "text", "arguments", "refusal", "reasoning", "reasoning_content"})
"""The fields that hold pieces of a text."""


class _Words(msgspec.Struct, forbid_unknown_fields=True):
    content: str
    role: str | None = None
    refusal: None = None
    tool_calls: None = None
    reasoning_content: None = None


class _Choice(msgspec.Struct, forbid_unknown_fields=True):
    delta: _Words
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None


class _Plain(msgspec.Struct):
    """What nearly every chunk is, read much faster than by its fields: the next words, and nothing else."""

    choices: tuple[_Choice]
    usage: None = None
    error: None = None
    x_groq: None = None


_plain = msgspec.json.Decoder(_Plain).decode


class Stream:
    """The chunks of one answer. `call_id` names calls to which the server gives no id. Only the first choice is the reply."""

    def __init__(self, draft: Draft, place: str, call_id: str) -> None:
        self.draft, self.place = draft, place
        self.done = False
        self._call_id = call_id
        self._by_index: dict[int, tuple[int, int]] = {}
        self._calls: list[tuple[int, int]] = []

    @property
    def ended(self) -> bool:
        """Whether the reply is whole: a finish reason came, or the end mark after something was said."""
        return self.draft.raw_stop is not None or (self.done and bool(self.draft))

    def take(self, _: str, data: bytes) -> None:
        """Take the data of one event. Raises the error it states."""
        if data == END_MARK:
            self.done = True
            return
        try:
            words = _plain(data).choices[0].delta.content if WORDS in self.draft else None
        except (ValueError, RecursionError):
            words = None
        if words is None:
            self._take(decode(data, halves=HALVES))
        else:
            self.draft.write(WORDS, words)

    def _take(self, chunk: Any) -> None:
        """Take one chunk, or a whole completion."""
        if not isinstance(chunk, dict):
            raise GarbledReply(f"a chunk is {type(chunk).__name__}, not an object", place=self.place)
        draft = self.draft
        draft.id = str(chunk.get("id") or draft.id)
        draft.model = str(chunk.get("model") or draft.model)
        choice = next((choice for choice in _dicts(chunk.get("choices")) if not choice.get("index")), None)
        counts = chunk.get("usage") or (choice or {}).get("usage") or _dict(chunk.get("x_groq")).get("usage")
        draft.usage = usage_of(counts) or draft.usage
        if choice is not None:
            self._said(_dict(choice.get("delta") or choice.get("message")))
            self._finished(choice)
        error = chunk.get("error") or (choice or {}).get("error")
        if error:
            raise stated_fault(error, place=self.place)
        if choice is None and "choices" not in chunk and not counts and (chunk.get("detail") or chunk.get("message")):
            raise stated_fault({"message": str(chunk.get("message") or chunk["detail"])}, place=self.place)

    def _said(self, delta: JSON) -> None:
        content = delta.get("content")
        self._thought(delta)
        if isinstance(content, str):
            self._text(content)
        for piece in _dicts(content):
            if piece.get("type") == "thinking":
                self._think("".join(str(inner.get("text") or "") for inner in _dicts(piece.get("thinking"))))
            else:
                self._text(str(piece.get("text") or ""))
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._text(refusal)
            self.draft.update(WORDS, extra={"refusal": True})
            self.draft.stop, self.draft.detail = "refusal", (self.draft.detail or "") + refusal
        for call in _dicts(delta.get("tool_calls")):
            self._call(call)
        if isinstance(delta.get("function_call"), dict):
            self._call({"index": 0, "function": delta["function_call"]})
        if isinstance(delta.get("audio"), dict) and delta["audio"].get("id"):
            self.draft.open(REST, "opaque", body={"audio": {"id": delta["audio"]["id"]}})

    def _finished(self, choice: JSON) -> None:
        reason = choice.get("finish_reason")
        if not isinstance(reason, str) or not reason:
            return
        draft = self.draft
        draft.raw_stop = reason
        stop = _STOPS.get(reason, "other")
        draft.stop = draft.stop or stop
        if stop == "refusal":
            draft.stop, draft.detail = "refusal", draft.detail or reason

    def _text(self, text: str) -> None:
        if text:
            if WORDS not in self.draft:
                self.draft.open(WORDS, "text")
            self.draft.write(WORDS, text)

    def _think(self, text: str) -> None:
        if THOUGHTS not in self.draft:
            self.draft.open(THOUGHTS, "thinking")
        self.draft.write(THOUGHTS, text)

    def _thought(self, delta: JSON) -> None:
        text = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(text, str):
            self._think(text)
        for detail in _dicts(delta.get("reasoning_details")):
            if THOUGHTS not in self.draft:
                self._think("")
            extra = self.draft.fields(THOUGHTS).setdefault("extra", {"reasoning_details": []})
            _join_detail(extra["reasoning_details"], detail)

    def _call(self, call: JSON) -> None:
        function = _dict(call.get("function") or call.get("custom"))
        name, call_id = str(function.get("name") or ""), str(call.get("id") or "")
        key = self._key(call, name, call_id)
        fields = self.draft.fields(key)
        fields["name"] = fields["name"] or name
        rest = {
            name: value for name, value in call.items() if name not in ("index", "id", "type", "function", "custom") and value is not None
        }
        if rest:
            fields["extra"] = {**(fields.get("extra") or {}), **rest}
        arguments = function.get("arguments", function.get("input"))
        if arguments is not None:
            self.draft.write(key, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))

    def _key(self, call: JSON, name: str, call_id: str) -> tuple[int, int]:
        """Which call a piece belongs to: by its index, else its id, else the latest; a new one where name and id say so."""
        index = call.get("index")
        known = self._by_index.get(index) if isinstance(index, int) else self._by_id(call_id)
        if known is None and not isinstance(index, int) and not call_id and not name and self._calls:
            known = self._calls[-1]
        if known is not None and not (name and call_id and call_id != self.draft.fields(known)["id"]):
            return known
        key = (CALLS, len(self._calls))
        self._calls.append(key)
        if isinstance(index, int):
            self._by_index[index] = key
        self.draft.open(key, "tool", id=call_id or f"{self._call_id}_{len(self._calls)}", name=name)
        return key

    def _by_id(self, call_id: str) -> tuple[int, int] | None:
        return next((key for key in self._calls if call_id and self.draft.fields(key)["id"] == call_id), None)


def _join_detail(details: list[JSON], piece: JSON) -> None:
    """Add a piece of a thought to the one it continues, or as a new one."""
    last = details[-1] if details else {}
    if not last or (last.get("type"), last.get("index")) != (piece.get("type"), piece.get("index")):
        details.append(dict(piece))
        return
    for name, value in piece.items():
        if name in ("text", "summary", "data") and isinstance(value, str):
            last[name] = (last.get(name) or "") + value
        elif value is not None:
            last[name] = value


def _dicts(value: Any) -> list[JSON]:
    return [piece for piece in value if isinstance(piece, dict)] if isinstance(value, list) else []


def _dict(value: Any) -> JSON:
    return value if isinstance(value, dict) else {}
