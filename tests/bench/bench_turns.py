"""CPU per turn at turn 10, 200 and 1,000 of one growing dialog.

Ours, the bare SDKs used the usual way, and a bare HTTP client that serialises each message once.

One run, one machine, a server in another process that answers at once. Milliseconds of this process's CPU, median of the turns around each
point; then the ratios that the project promises. Text of 300 characters a message; `--turns` for a shorter run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable

from answering import TEXT, answering

Turn = Callable[[], Awaitable[None]]
WINDOW = 10


async def measured(turn: Turn, points: list[int]) -> list[float]:
    """CPU ms per turn, median of the turns that end at each point."""
    spent, found = [], []
    for number in range(1, points[-1] + 1):
        began = time.process_time()
        await turn()
        spent.append((time.process_time() - began) * 1000)
        if number in points:
            found.append(statistics.median(spent[-WINDOW:]))
    return found


def bare_http(url: str) -> Turn:
    import httpx2

    client, parts = httpx2.AsyncClient(), []

    async def turn() -> None:
        parts.append(json.dumps({"role": "user", "content": TEXT}).encode())
        body = b'{"model":"m","max_tokens":100,"stream":true,"messages":[' + b",".join(parts) + b"]}"
        said = []
        async with client.stream("POST", f"{url}/v1/messages", content=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    event = json.loads(line[5:])
                    if event["type"] == "content_block_delta":
                        said.append(event["delta"]["text"])
        parts.append(json.dumps({"role": "assistant", "content": "".join(said)}).encode())

    return turn


def bare_anthropic(url: str) -> Turn:
    import anthropic

    client, messages = anthropic.AsyncAnthropic(base_url=url, api_key="k"), []

    async def turn() -> None:
        messages.append({"role": "user", "content": [{"type": "text", "text": TEXT}]})
        said = []
        async for event in await client.messages.create(model="m", max_tokens=100, messages=messages, stream=True):
            if event.type == "content_block_delta":
                said.append(event.delta.text)
        messages.append({"role": "assistant", "content": [{"type": "text", "text": "".join(said)}]})

    return turn


def bare_chat(url: str) -> Turn:
    import openai

    client, messages = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k"), []

    async def turn() -> None:
        messages.append({"role": "user", "content": TEXT})
        said = []
        async for chunk in await client.chat.completions.create(model="m", messages=messages, stream=True):
            said += [choice.delta.content or "" for choice in chunk.choices]
        messages.append({"role": "assistant", "content": "".join(said)})

    return turn


def bare_responses(url: str) -> Turn:
    import openai

    client, items = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k"), []

    async def turn() -> None:
        items.append({"role": "user", "content": [{"type": "input_text", "text": TEXT}]})
        async for event in await client.responses.create(model="m", input=items, stream=True):
            if event.type == "response.completed":
                items.extend(item.to_dict() for item in event.response.output)

    return turn


def ours(url: str, provider: str, log: str | None = None, **fields: object) -> Turn:
    from llmproc_nb import Program, new_machine

    program = Program(provider=provider, model="m", base_url=url, **fields)
    process = program.start(machine=new_machine(log=log))

    async def turn() -> None:
        await process.run(TEXT)

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    points = [10, max(11, args.turns // 5), args.turns]
    os.environ.setdefault("ANTHROPIC_API_KEY", "k")
    os.environ.setdefault("OPENAI_API_KEY", "k")
    with answering() as url:
        turns = {
            "bare http": lambda: bare_http(url),
            "anthropic SDK": lambda: bare_anthropic(url),
            "ours, anthropic": lambda: ours(url, "anthropic"),
            "openai SDK, chat": lambda: bare_chat(url),
            "ours, openai_chat": lambda: ours(f"{url}/v1", "openai_chat"),
            "openai SDK, responses": lambda: bare_responses(url),
            "ours, openai_responses": lambda: ours(f"{url}/v1", "openai_responses"),
        }
        found = {}
        print(f"{'CPU ms per turn at turn':26}" + "".join(f"{point:>9}" for point in points))
        for name, make in turns.items():
            if args.only in name:
                found[name] = asyncio.run(measured(make(), points))
                print(f"{name:26}" + "".join(f"{ms:9.2f}" for ms in found[name]), flush=True)
    for name, sdk, share in (
        ("ours, anthropic", "anthropic SDK", "1/4"),
        ("ours, openai_chat", "openai SDK, chat", "1/30"),
        ("ours, openai_responses", "openai SDK, responses", "1/30"),
    ):
        if name in found and sdk in found:
            own = found[name]
            print(f"{name}: turn {points[-1]} / turn 10 = {own[-1] / own[0]:.2f} (at most 2)", end="; ")
            print(f"turn {points[-1]} costs 1/{found[sdk][-1] / own[-1]:.1f} of the SDK's (at most {share})")
    if "bare http" in found and "ours, anthropic" in found:
        print(f"ours, anthropic / bare http at turn 10 = {found['ours, anthropic'][0] / found['bare http'][0]:.2f}")


if __name__ == "__main__":
    main()
