"""The same agent loop written by hand, without this project: over plain HTTP, and over the SDKs as their documents write it.

Each loop keeps its own dialog. `turn` says something and runs until the model stops asking for tools; `close` gives connections back.
`fill` makes the dialog longer without asking, where a thousand turns would take long: over some SDKs a quarter of an hour.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from answering import ARGUMENTS, RESULT, TEXT, TOOL, WORDS, prompt

JSON = dict[str, Any]

ANTHROPIC_TOOL = {"name": TOOL["name"], "description": TOOL["description"], "input_schema": TOOL["schema"]}
FUNCTION = {"name": TOOL["name"], "description": TOOL["description"], "parameters": TOOL["schema"]}


def look(column: str, rows: int) -> str:
    """Look at a column."""
    return f"{RESULT}{column}, {rows} rows. " + WORDS * 9


class BareHttp:
    """An HTTP client and `json`, each message serialised once: the floor. `api` is anthropic, openai_chat or openai_responses."""

    def __init__(self, url: str, api: str, *, tools: bool = False) -> None:
        import httpx2

        self._client = httpx2.AsyncClient()
        self._api, self._parts = api, list[bytes]()
        path, head = {
            "anthropic": ("/v1/messages", {"model": "m", "max_tokens": 8192, "stream": True}),
            "openai_chat": ("/v1/chat/completions", {"model": "m", "stream": True, "stream_options": {"include_usage": True}}),
            "openai_responses": ("/v1/responses", {"model": "m", "stream": True, "store": False}),
        }[api]
        tool = {"anthropic": ANTHROPIC_TOOL, "openai_chat": {"type": "function", "function": FUNCTION}}.get(api)
        named = {"tools": [tool or {"type": "function", **FUNCTION}]} if tools else {}
        self._url, dialog = url + path, "input" if api == "openai_responses" else "messages"
        self._head = json.dumps({**head, **named, dialog: []}).encode()[:-2]

    async def turn(self, text: str) -> None:
        self._say({"role": "user", "content": text})
        while (call := await self._ask()) is not None:
            call_id, arguments = call
            self._say(self._answer(call_id, look(**json.loads(arguments))))

    async def close(self) -> None:
        await self._client.aclose()

    def _say(self, message: JSON) -> None:
        self._parts.append(json.dumps(message).encode())

    async def _ask(self) -> tuple[str, str] | None:
        """Ask, keep the reply; gives the call it makes, if it makes one."""
        body = b"".join((self._head, b",".join(self._parts), b"]}"))
        take = {"anthropic": self._messages, "openai_chat": self._chat, "openai_responses": self._responses}[self._api]
        said, call, arguments = list[str](), list[str](), list[str]()
        async with self._client.stream("POST", self._url, content=body, headers={"content-type": "application/json"}) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:") and line != "data: [DONE]":
                    take(json.loads(line[5:]), said, call, arguments)
        whole = "".join(arguments)
        self._say(self._reply("".join(said), call, whole))
        return (call[0], whole) if call else None

    @staticmethod
    def _messages(event: JSON, said: list[str], call: list[str], arguments: list[str]) -> None:
        if event["type"] == "content_block_delta":
            delta = event["delta"]
            said.append(delta["text"]) if delta["type"] == "text_delta" else arguments.append(delta["partial_json"])
        elif event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            call.append(event["content_block"]["id"])

    @staticmethod
    def _chat(event: JSON, said: list[str], call: list[str], arguments: list[str]) -> None:
        for choice in event["choices"]:
            said.append(choice["delta"].get("content") or "")
            for piece in choice["delta"].get("tool_calls", ()):
                arguments.append(piece["function"]["arguments"])
                if "id" in piece:
                    call.append(piece["id"])

    @staticmethod
    def _responses(event: JSON, said: list[str], call: list[str], arguments: list[str]) -> None:
        kind = event["type"]
        if kind == "response.output_text.delta":
            said.append(event["delta"])
        elif kind == "response.function_call_arguments.delta":
            arguments.append(event["delta"])
        elif kind == "response.output_item.added" and event["item"]["type"] == "function_call":
            call.append(event["item"]["call_id"])

    def _reply(self, text: str, call: list[str], arguments: str) -> JSON:
        if not call:
            return {"role": "assistant", "content": text}
        if self._api == "anthropic":
            return {"role": "assistant", "content": [{"type": "tool_use", "id": call[0], "name": "look", "input": json.loads(arguments)}]}
        if self._api == "openai_chat":
            function = {"name": "look", "arguments": arguments}
            return {"role": "assistant", "content": None, "tool_calls": [{"id": call[0], "type": "function", "function": function}]}
        return {"type": "function_call", "call_id": call[0], "name": "look", "arguments": arguments}

    def _answer(self, call_id: str, text: str) -> JSON:
        if self._api == "anthropic":
            return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": text}]}
        if self._api == "openai_chat":
            return {"role": "tool", "tool_call_id": call_id, "content": text}
        return {"type": "function_call_output", "call_id": call_id, "output": text}


class AnthropicSdk:
    """`messages.stream`, and `message.content` appended as it came."""

    def __init__(self, url: str, *, tools: bool = False) -> None:
        import anthropic

        self._client = anthropic.AsyncAnthropic(base_url=url, api_key="k")
        self._messages: list[Any] = []
        self._more: Any = {"tools": [ANTHROPIC_TOOL]} if tools else {}

    async def turn(self, text: str) -> None:
        self._messages.append({"role": "user", "content": text})
        while calls := [block for block in await self._ask() if block.type == "tool_use"]:
            answers = [{"type": "tool_result", "tool_use_id": call.id, "content": look(**call.input)} for call in calls]
            self._messages.append({"role": "user", "content": answers})

    async def _ask(self) -> list[Any]:
        async with self._client.messages.stream(model="m", max_tokens=8192, messages=self._messages, **self._more) as stream:
            message = await stream.get_final_message()
        self._messages.append({"role": "assistant", "content": message.content})
        return message.content

    def fill(self, turns: int) -> None:
        reply = self._messages[-1]
        for number in range(turns):
            self._messages += [{"role": "user", "content": prompt(number)}, copy.deepcopy(reply)]

    async def close(self) -> None:
        await self._client.close()


class OpenAIChatSdk:
    """`chat.completions.create(stream=True)`, and the message put together from its chunks."""

    def __init__(self, url: str, *, tools: bool = False) -> None:
        import openai

        self._client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k")
        self._messages: list[Any] = []
        self._more: Any = {"tools": [{"type": "function", "function": FUNCTION}]} if tools else {}

    async def turn(self, text: str) -> None:
        self._messages.append({"role": "user", "content": text})
        while call_id := await self._ask():
            self._messages.append({"role": "tool", "tool_call_id": call_id, "content": look(**json.loads(ARGUMENTS))})

    async def _ask(self) -> str | None:
        said, arguments, call_id = list[str](), list[str](), None
        async for chunk in await self._client.chat.completions.create(model="m", messages=self._messages, stream=True, **self._more):
            for choice in chunk.choices:
                said.append(choice.delta.content or "")
                for piece in choice.delta.tool_calls or ():
                    call_id = piece.id or call_id
                    arguments.append(piece.function.arguments)
        message: JSON = {"role": "assistant", "content": "".join(said)}
        if call_id:
            function = {"name": "look", "arguments": "".join(arguments)}
            message = {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}
        self._messages.append(message)
        return call_id

    def fill(self, turns: int) -> None:
        for number in range(turns):
            self._messages += [{"role": "user", "content": prompt(number)}, {"role": "assistant", "content": TEXT}]

    async def close(self) -> None:
        await self._client.close()


class OpenAIResponsesSdk:
    """`responses.create(stream=True)`, and `response.output` appended as it came."""

    def __init__(self, url: str, *, tools: bool = False) -> None:
        import openai

        self._client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k")
        self._items: list[Any] = []
        self._more: Any = {"tools": [{"type": "function", **FUNCTION, "strict": False}]} if tools else {}

    async def turn(self, text: str) -> None:
        self._items.append({"role": "user", "content": text})
        while calls := [item for item in await self._ask() if item.type == "function_call"]:
            for call in calls:
                output = look(**json.loads(call.arguments))
                self._items.append({"type": "function_call_output", "call_id": call.call_id, "output": output})

    async def _ask(self) -> list[Any]:
        output: list[Any] = []
        async for event in await self._client.responses.create(model="m", input=self._items, stream=True, store=False, **self._more):
            if event.type == "response.completed":
                output = event.response.output
        self._items += output
        return output

    def fill(self, turns: int) -> None:
        reply = self._items[-1]
        for number in range(turns):
            self._items += [{"role": "user", "content": prompt(number)}, copy.deepcopy(reply)]

    async def close(self) -> None:
        await self._client.close()
