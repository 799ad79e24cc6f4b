"""OpenAI Responses: stateless (`store: false`), the whole path as input items, streamed.

Here: the request's body and the events of its answer. Not here: single items (items), the connection (client).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import msgspec

from llmproc_nb.core.errors import GarbledReply
from llmproc_nb.core.provider import Config, Draft, Reply, Request, Stop
from llmproc_nb.core.sse import decode
from llmproc_nb.core.wire import Fragments, Joined, ended
from llmproc_nb.drivers.openai import items, settings
from llmproc_nb.drivers.openai.client import END_MARK, Connection, stated_fault
from llmproc_nb.drivers.openai.usage import usage_of

JSON = dict[str, Any]

_INCOMPLETE: Mapping[str, Stop] = {"max_output_tokens": "max_tokens", "max_tokens": "max_tokens", "content_filter": "refusal"}
_ENDS = {f"response.{status}" for status in ("completed", "incomplete", "failed", "cancelled", "done")}
_DELTAS = {
    "response.output_text.delta",
    "response.refusal.delta",
    "response.function_call_arguments.delta",
    "response.reasoning_summary_text.delta",
    "response.reasoning_text.delta",
}


class OpenAIResponses:
    """Speaks the Responses API. `options` are those of Connection: base_url, api_key, timeout_s, organization, project …"""

    api = items.API
    scripted = False

    def __init__(self, *, name: str = "openai", **options: Any) -> None:
        self.name = name
        self._connection = Connection(name=name, **options)
        self._joined = Joined(Fragments(items.render), Fragments(partial(items.render, marked=True)))

    async def ask(self, request: Request, draft: Draft) -> Reply:
        """Ask, write what comes to the draft, give the whole reply. Raises a ProviderError; what came before it is in the draft."""
        place = f"{self.name} {request.config.model}"
        stream = Stream(draft, place)
        await self._connection.ask(
            "/responses", self._body(request), draft, stream.take, headers=request.config.settings.headers, place=place
        )
        if not stream.ended:
            raise GarbledReply("the stream ends without an end of the response", place=place)
        return draft.reply()

    def preview(self, request: Request) -> JSON:
        """The exact request body. Sends nothing, needs no key."""
        body: JSON = msgspec.json.decode(b"".join(self._body(request)))
        return body

    def left_out(self, config: Config) -> tuple[str, ...]:
        """Names of the settings that this API, or this model, does not take; they are not sent."""
        ask, left = config.settings, ["top_k"] if config.settings.top_k is not None else []
        if ask.stop:
            left.append("stop")
        if settings.is_reasoning(config.model):
            left += [name for name in ("temperature", "top_p") if getattr(ask, name) is not None]
        if ask.thinking:
            left += [f"thinking.{name}" for name in ask.thinking if name != "type" or not _shows_thoughts(config)]
        return tuple(left)

    async def close(self) -> None:
        await self._connection.close()

    def _body(self, request: Request) -> tuple[bytes, ...]:
        """The request in pieces of bytes: the fields made anew, the items of each node made once."""
        head = msgspec.json.encode(self._fields(request))
        return head[:-1] + b',"input":[', *ended(self._joined(request.path, 0, len(request.path), self._marks(request)), b"]}")

    def _marks(self, request: Request) -> tuple[int, ...]:
        explicit = self._connection.official and settings.has_breakpoints(request.config.model)
        return settings.shared_place(request.shared, request.path) if explicit else ()

    def _fields(self, request: Request) -> JSON:
        config, ask = request.config, request.config.settings
        body: JSON = {"model": config.model, "stream": True, "store": False}
        if request.system:
            body["instructions"] = request.system
        if self._connection.official:
            body["prompt_cache_key"] = request.path[0].id
        if config.tools:
            body["tools"] = [
                {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": False}
                for tool in config.tools
            ]
        if ask.max_tokens is not None:
            body["max_output_tokens"] = ask.max_tokens
        choice = settings.tool_choice(config)
        if choice:
            body["tool_choice"] = choice if settings.is_choice_word(choice) else {"type": "function", "name": choice}
        if ask.output_schema is not None:
            body["text"] = {"format": {"type": "json_schema", **settings.schema_format(ask.output_schema)}}
        return settings.merged({**body, **_thinking(config), **_sampling(config)}, ask.body, but="input")


def _thinking(config: Config) -> JSON:
    """Fields about reasoning. Encrypted thoughts are asked for where there can be any: other models refuse the word."""
    ask = config.settings
    reasoning: JSON = {"effort": ask.effort} if ask.effort else {}
    if _shows_thoughts(config):
        reasoning["summary"] = "auto"
    body: JSON = {"reasoning": reasoning} if reasoning else {}
    if settings.is_reasoning(config.model) or reasoning or "reasoning" in ask.body:
        body["include"] = ["reasoning.encrypted_content"]
    return body


def _shows_thoughts(config: Config) -> bool:
    return settings.wants_thoughts(config.settings) and settings.is_reasoning(config.model)


def _sampling(config: Config) -> JSON:
    if settings.is_reasoning(config.model):
        return {}
    return {name: value for name in ("temperature", "top_p") if (value := getattr(config.settings, name)) is not None}


class _Plain(msgspec.Struct):
    """What nearly every event is, read faster than by its fields: the next words."""

    type: Literal["response.output_text.delta"]
    output_index: int
    delta: str


_plain = msgspec.json.Decoder(_Plain).decode


class Stream:
    """The events of one answer, written to a draft.

    Items are told apart by their place in the output: the ids of one item may differ from event to event.
    """

    def __init__(self, draft: Draft, place: str) -> None:
        self.draft, self.place = draft, place
        self.ended = False
        self._keys: dict[int | None, int] = {}
        self._types: dict[int, Any] = {}
        self._whole: set[int] = set()

    def take(self, name: str, data: bytes) -> None:
        """Take the data of one event. Raises the error it states."""
        if data == END_MARK:
            return
        try:
            plain = _plain(data)
        except (ValueError, RecursionError):
            self._take(name, decode(data, halves=("delta",)))
        else:
            self._write(plain.output_index, plain.delta)

    def _take(self, name: str, event: Any) -> None:
        """Take one event, or a whole response."""
        if not isinstance(event, dict):
            raise GarbledReply(f"an event is {type(event).__name__}, not an object", place=self.place)
        kind = str(event.get("type") or name)
        if kind in _DELTAS:
            self._write(_place(event), event.get("delta"))
        elif kind == "response.output_item.added":
            self._open(event)
        elif kind == "response.output_item.done":
            self._close(self._key(_place(event)), event.get("item"))
        elif kind == "response.reasoning_summary_part.added":
            if event.get("summary_index"):
                self._write(_place(event), "\n\n")
        elif kind in _ENDS and isinstance(event.get("response"), dict):
            self._end(event["response"], kind.removeprefix("response."))
        elif kind == "error" or (not kind and event.get("error")):
            raise stated_fault(event.get("error") or event, place=self.place)
        elif isinstance(event.get("response"), dict):
            self._note(event["response"])
        elif isinstance(event.get("output"), list):
            self._end(event, str(event.get("status") or "completed"))

    def _key(self, place: int | None) -> int:
        if place not in self._keys:
            self._keys[place] = place if place is not None and place not in self._keys.values() else self._next()
        return self._keys[place]

    def _next(self) -> int:
        return max(self._keys.values(), default=-1) + 1

    def _open(self, event: JSON) -> None:
        place, item = _place(event), event.get("item")
        if self._keys.get(place) in self._whole:
            # a server that numbers all items alike: the one before is whole, so this is the next
            self._keys[place] = self._next()
        if isinstance(item, dict):
            self._types[self._key(place)] = item.get("type")
            items.open_item(self.draft, self._key(place), item)

    def _write(self, place: int | None, text: Any) -> None:
        key = self._key(place)
        if key in self.draft and isinstance(text, str):
            self.draft.write(key, text)

    def _close(self, key: int, item: Any) -> None:
        if not isinstance(item, dict):
            return
        self._whole.add(key)
        items.close_item(self.draft, key, item, begun=key in self.draft and self._types.get(key) == item.get("type"))
        refusal = items.refusal_of(item)
        if refusal is not None:
            self.draft.stop, self.draft.detail = "refusal", refusal

    def _note(self, response: JSON) -> None:
        draft = self.draft
        draft.id = str(response.get("id") or draft.id)
        draft.model = str(response.get("model") or draft.model)
        draft.usage = usage_of(response.get("usage")) or draft.usage

    def _end(self, response: JSON, status: str) -> None:
        """The response is at its end: what no event has brought yet is taken from it."""
        self._note(response)
        if status == "failed":
            raise stated_fault(response.get("error") or {"message": "the response failed"}, place=self.place)
        self.ended = True
        output = response.get("output")
        for key, item in enumerate(output if isinstance(output, list) else ()):
            if key not in self._whole:
                self._close(key, item)
        draft = self.draft
        draft.raw_stop = status
        if status == "incomplete":
            details = response.get("incomplete_details")
            draft.raw_stop = str((details.get("reason") if isinstance(details, dict) else None) or status)
            draft.stop = _INCOMPLETE.get(draft.raw_stop, "other")
            if draft.stop == "refusal":
                draft.detail = draft.detail or draft.raw_stop
        elif status not in ("completed", "done"):
            draft.stop = "other"


def _place(event: JSON) -> int | None:
    """The item an event is about, by its number in the output; None where a server does not number them."""
    place = event.get("output_index")
    return place if isinstance(place, int) else None
