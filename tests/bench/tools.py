"""CPU of a round of tools: a request, one tool call, a second request; ours beside the same by hand over plain HTTP and over the SDKs."""

from __future__ import annotations

import asyncio
from typing import Any

from answering import QUESTION, answering, prompt
from measure import Ratio, Table, alone, least, per_turn_ms
from turns import SDKS

ROUNDS = 40
WARM = 20
APIS = ("anthropic", "openai_chat", "openai_responses")
KINDS = {
    "plain HTTP": "http",
    "ours, a plain function": "plain",
    "ours, an async function": "async",
    "SDK": "sdk",
}


def loop(kind: str, api: str, url: str) -> Any:
    """A loop with the tool `look`."""
    import bare

    if kind == "http":
        return bare.BareHttp(url, api, tools=True)
    if kind == "sdk":
        kinds: dict[str, Any] = {
            "anthropic": bare.AnthropicSdk,
            "openai_chat": bare.OpenAIChatSdk,
            "openai_responses": bare.OpenAIResponsesSdk,
        }
        return kinds[api](url, tools=True)
    from ours import Ours

    return Ours(url, api, tool=kind)


def measured(kind: str, api: str, url: str, rounds: int) -> list[float]:
    """CPU ms of a round: the median of so many, after a few that do not count."""

    async def main() -> list[float]:
        made, number = loop(kind, api, url), iter(range(10**6))

        async def turn() -> None:
            await made.turn(QUESTION + prompt(next(number)))

        try:
            for _ in range(min(WARM, rounds)):
                await turn()
            return [await per_turn_ms(turn, rounds)]
        finally:
            await made.close()

    return asyncio.run(main())


def bench(*, quick: bool = False) -> Table:
    """The table of rounds, and how ours compare."""
    rounds, repeats = (2, 1) if quick else (ROUNDS, 5)
    found: dict[tuple[str, str], list[list[float]]] = {}
    with answering() as url:
        for _ in range(repeats):
            for api in APIS:
                for name, kind in KINDS.items():
                    found.setdefault((name, api), []).append(alone(measured, kind, api, url, rounds, quick=quick))
    ms = {key: least(runs)[0] for key, runs in found.items()}
    ratios = []
    for api in APIS:
        floor = ms["plain HTTP", api]
        for name in ("ours, a plain function", "ours, an async function"):
            ratios.append(Ratio(name=f"{name}, {api} / plain HTTP", value=ms[name, api] / floor, most=2))
        ratios.append(Ratio(name=f"ours, a plain function, {api} / {SDKS[api]}", value=ms["ours, a plain function", api] / ms["SDK", api]))
    return Table(
        title=f"tools: CPU ms of a round (request, tool, request), rounds {WARM} to {WARM + rounds} of a dialog",
        columns=["anthropic", "chat", "responses"],
        rows={name: [ms[name, api] for api in APIS] for name in KINDS},
        ratios=ratios,
    )
