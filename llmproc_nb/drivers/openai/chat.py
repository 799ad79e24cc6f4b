"""OpenAI Chat Completions, and every server that speaks it: the whole path as messages, streamed.

Here: the request's body. Not here: single messages (messages), the chunks of the answer (chunks), the connection (client).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from llmproc_nb.core.errors import GarbledReply
from llmproc_nb.core.provider import Config, Draft, Reply, Request
from llmproc_nb.core.wire import Fragments, Joined, ended
from llmproc_nb.drivers.openai import chunks, messages, settings
from llmproc_nb.drivers.openai.client import Connection

JSON = dict[str, Any]
MAX_ID_CHARS = 40


class OpenAIChat:
    """Speaks Chat Completions. `options` are those of Connection: base_url, api_key, timeout_s, organization, project …

    `max_tokens_field` and `stream_usage` say how the endpoint wants to be asked, `thoughts` in which field it wants its thoughts back.
    """

    api = messages.API
    scripted = False

    def __init__(
        self,
        *,
        name: str = "openai",
        max_tokens_field: str | None = None,
        stream_usage: bool = True,
        thoughts: str | None = None,
        **options: Any,
    ) -> None:
        self.name = name
        self._connection = Connection(name=name, **options)
        self._official = self._connection.official
        self._max_tokens_field = max_tokens_field or ("max_completion_tokens" if self._official else "max_tokens")
        self._stream_usage = stream_usage
        rendering = messages.Rendering(thoughts=thoughts, extras=not self._official, max_id_chars=MAX_ID_CHARS if self._official else None)
        self._joined = Joined(Fragments(rendering), Fragments(partial(rendering, marked=True)))

    async def ask(self, request: Request, draft: Draft) -> Reply:
        """Ask, write what comes to the draft, give the whole reply. Raises a ProviderError; what came before it is in the draft."""
        place = f"{self.name} {request.config.model}"
        stream = chunks.Stream(draft, place, f"call_{request.head.id[:12]}")
        headers = request.config.settings.headers
        await self._connection.ask("/chat/completions", self._body(request), draft, stream.take, headers=headers, place=place)
        if not stream.ended:
            raise GarbledReply("the stream ends before the reply does", place=place)
        return draft.reply()

    def preview(self, request: Request) -> JSON:
        """The exact request body. Sends nothing, needs no key."""
        body: JSON = msgspec.json.decode(b"".join(self._body(request)))
        return body

    def left_out(self, config: Config) -> tuple[str, ...]:
        """Names of the settings that this API, or this model, does not take; they are not sent."""
        ask, left = config.settings, []
        if self._thinks(config):
            left += [name for name in ("temperature", "top_p") if getattr(ask, name) is not None]
            left += ["stop"] if ask.stop else []
        left += ["top_k"] if ask.top_k is not None else []
        return (*left, *(f"thinking.{name}" for name in ask.thinking or ()))

    async def close(self) -> None:
        await self._connection.close()

    def _thinks(self, config: Config) -> bool:
        # elsewhere the same names stand for models behind gateways, which drop what a model does not take
        return self._official and settings.is_reasoning(config.model)

    def _body(self, request: Request) -> tuple[bytes, ...]:
        """The request in pieces of bytes: the fields made anew, the messages of each node made once."""
        head = msgspec.json.encode(self._fields(request))
        system = request.system
        first = msgspec.json.encode({"role": "system", "content": system}) if system else b""
        rest = self._joined(request.path, 0, len(request.path), self._marks(request))
        return head[:-1] + b',"messages":[' + first + (b"," if first and rest else b""), *ended(rest, b"]}")

    def _marks(self, request: Request) -> tuple[int, ...]:
        explicit = self._official and settings.has_breakpoints(request.config.model)
        return settings.shared_place(request.shared, request.path) if explicit else ()

    def _fields(self, request: Request) -> JSON:
        config, ask = request.config, request.config.settings
        body: JSON = {"model": config.model, "stream": True}
        if self._stream_usage:
            body["stream_options"] = {"include_usage": True}
        if self._official:
            body["prompt_cache_key"] = request.path[0].id
        if config.tools:
            body["tools"] = [
                {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters}}
                for tool in config.tools
            ]
        if ask.max_tokens is not None:
            body[self._max_tokens_field] = ask.max_tokens
        choice = settings.tool_choice(config)
        if choice:
            body["tool_choice"] = choice if settings.is_choice_word(choice) else {"type": "function", "function": {"name": choice}}
        if ask.output_schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": settings.schema_format(ask.output_schema)}
        if ask.effort:
            body["reasoning_effort"] = ask.effort
        return settings.merged({**body, **self._sampling(config)}, ask.body, but="messages")

    def _sampling(self, config: Config) -> JSON:
        if self._thinks(config):
            return {}
        ask = config.settings
        body: JSON = {name: value for name in ("temperature", "top_p") if (value := getattr(ask, name)) is not None}
        if ask.stop:
            body["stop"] = list(ask.stop)
        return body
