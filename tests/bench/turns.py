"""CPU per turn at turn 10, 200 and 1,000 of one growing dialog: ours, the bare SDKs used the usual way, plain HTTP, other packages.

A turn is one request: about 1,000 characters of a person's words and 1,100 of an answer that streams in 56 pieces.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

from answering import answering, prompt
from measure import Ratio, Table, alone, installed, least
from peers import PEERS, peer

POINTS = (10, 200, 1000)
WINDOW = 25
ENOUGH_MS = 4000.0
WARM = 25
"""Turns of another dialog first: a process that has just begun spends more on each, which would flatter what grows."""

FILLED = 6
"""A dialog that is filled begins with so many real turns."""

FAST = ("http", "ours", "ours no log")
"""Kinds of loops that are cheap to measure, and are measured several times."""

LOOPS: dict[str, tuple[str, str]] = {
    "plain HTTP, anthropic": ("http", "anthropic"),
    "plain HTTP, openai_chat": ("http", "openai_chat"),
    "plain HTTP, openai_responses": ("http", "openai_responses"),
    "ours, anthropic": ("ours", "anthropic"),
    "ours, anthropic, no log": ("ours no log", "anthropic"),
    "ours, openai_chat": ("ours", "openai_chat"),
    "ours, openai_responses": ("ours", "openai_responses"),
    "anthropic SDK": ("sdk", "anthropic"),
    "openai SDK, chat": ("sdk", "openai_chat"),
    "openai SDK, responses": ("sdk", "openai_responses"),
}
SDKS = {"anthropic": "anthropic SDK", "openai_chat": "openai SDK, chat", "openai_responses": "openai SDK, responses"}
SHARES = {"anthropic": 4, "openai_chat": 30, "openai_responses": 30}


def loop(kind: str, api: str, url: str) -> Any:
    """A loop that is to be measured, by its kind and API."""
    import bare

    if kind.startswith("ours"):
        from ours import Ours

        return Ours(url, api, log=kind == "ours")
    if kind == "http":
        return bare.BareHttp(url, api)
    if kind == "sdk":
        kinds: dict[str, Callable[[str], Any]] = {
            "anthropic": bare.AnthropicSdk,
            "openai_chat": bare.OpenAIChatSdk,
            "openai_responses": bare.OpenAIResponsesSdk,
        }
        return kinds[api](url)
    return peer(kind, url)


def measured(kind: str, api: str, url: str, points: list[int], window: int) -> list[float]:
    """CPU ms per turn of one loop: the median of the turns from each point on."""

    async def main() -> list[float]:
        warm = loop(kind, api, url)
        for number in range(min(WARM, points[-1]) if kind in FAST else 2):
            await warm.turn(prompt(number))
        await warm.close()
        made, found, number = loop(kind, api, url), [], 0
        try:
            for point in points:
                while number < point - 1:
                    if number >= FILLED and hasattr(made, "fill"):
                        made.fill(point - 2 - number)
                        number = point - 2
                    await made.turn(prompt(number))
                    number += 1
                spent = list[float]()
                while len(spent) < window and (len(spent) < 3 or sum(spent) < ENOUGH_MS):
                    began = time.process_time()
                    await made.turn(prompt(number))
                    spent.append((time.process_time() - began) * 1000)
                    number += 1
                found.append(statistics.median(spent))
        finally:
            await made.close()
        return found

    return asyncio.run(main())


def bench(*, quick: bool = False) -> Table:
    """The table of turns, and how ours compare."""
    points, window, repeats = ([3, 6, 12], 2, 1) if quick else (list(POINTS), WINDOW, 5)
    found: dict[str, list[list[float]]] = {}
    left_out = [name for name, modules in PEERS.items() if not installed(*modules)]
    wanted = {**LOOPS, **{name: (name, "anthropic") for name in PEERS if name not in left_out}}
    with answering() as url:
        for repeat in range(repeats):
            for name, (kind, api) in wanted.items():
                if repeat == 0 or kind in FAST:
                    found.setdefault(name, []).append(alone(measured, kind, api, url, points, window, quick=quick))
    rows = {name: least(runs) for name, runs in found.items()}
    return Table(
        title="turns: CPU ms per turn at turn",
        columns=[f"{point:,}" for point in points],
        rows=rows,
        ratios=_ratios(rows, points),
        left_out=left_out,
    )


def _ratios(rows: dict[str, list[float]], points: list[int]) -> list[Ratio]:
    first, last = f"turn {points[0]}", f"turn {points[-1]:,}"
    ratios = []
    for api, share in SHARES.items():
        ours, sdk, floor = rows[f"ours, {api}"], rows[SDKS[api]], rows[f"plain HTTP, {api}"]
        ratios += [
            Ratio(name=f"ours, {api}: {last} / {first}", value=ours[-1] / ours[0], most=2),
            Ratio(name=f"ours, {api} / {SDKS[api]} at {last}", value=ours[-1] / sdk[-1], most=1 / share, mark=f"≤ 1/{share}"),
            Ratio(name=f"ours, {api} / plain HTTP at {first}", value=ours[0] / floor[0]),
            Ratio(name=f"ours, {api} / plain HTTP at {last}", value=ours[-1] / floor[-1]),
        ]
    for name in rows:
        if name in PEERS:
            ratios.append(Ratio(name=f"ours, anthropic / {name} at {last}", value=rows["ours, anthropic"][-1] / rows[name][-1]))
    return ratios
