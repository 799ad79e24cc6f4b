"""Other packages' loops over the same server, where they are installed. Nothing is imported before it is asked for."""

from __future__ import annotations

import copy
from typing import Any

PEERS = {
    "chatlas": ("chatlas", "anthropic"),
    "pydantic-ai": ("pydantic_ai", "anthropic"),
}
"""Name to the modules it needs."""


def peer(name: str, url: str) -> Any:
    """The loop of a package."""
    return {"chatlas": Chatlas, "pydantic-ai": PydanticAI}[name](url)


class Chatlas:
    def __init__(self, url: str) -> None:
        from chatlas import ChatAnthropic

        self._chat = ChatAnthropic(model="m", api_key="k", kwargs={"base_url": url})

    async def turn(self, text: str) -> None:
        async for _ in await self._chat.stream_async(text):
            pass

    def fill(self, turns: int) -> None:
        before = list(self._chat.get_turns())
        self._chat.set_turns([*before, *(copy.deepcopy(turn) for _ in range(turns) for turn in before[-2:])])

    async def close(self) -> None:
        await self._chat.provider._async_client.close()


class PydanticAI:
    def __init__(self, url: str) -> None:
        from anthropic import AsyncAnthropic
        from pydantic_ai import Agent
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        self._client = AsyncAnthropic(base_url=url, api_key="k")
        self._agent = Agent(AnthropicModel("m", provider=AnthropicProvider(anthropic_client=self._client)))
        self._messages: list[Any] = []

    async def turn(self, text: str) -> None:
        async with self._agent.run_stream(text, message_history=self._messages) as result:
            await result.get_output()
        self._messages = result.all_messages()

    def fill(self, turns: int) -> None:
        self._messages += [copy.deepcopy(message) for _ in range(turns) for message in self._messages[-2:]]

    async def close(self) -> None:
        await self._client.close()
