"""What a fan-out costs: 100 children over a common path of 50 KB, on a server that takes 200 ms and accounts for its prompt cache.

Tokens are weighed as they are paid: written 1.25, read 0.1, neither 1. The least possible is the common path written once and read by all
others, and the children's own prompts at the plain price; from a warm parent it is read by all, but for the parent's last reply, which no
request has sent yet. Time is in units of the server's 200 ms, beside what 100 bare requests at once cost in the same run.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from answering import WORDS, answering, prompt
from measure import ROOT, Ratio, Table, alone

sys.path.append(str(ROOT / "tests"))

JSON = dict[str, Any]
DELAY_S = 0.2
CHILDREN = 100
TURNS, TURN_CHARS = 13, 4_000
MARK = {"cache_control": {"type": "ephemeral"}}
WRITE, READ = 1.25, 0.1
FORKED_TURNS = 200
LONG = 60.0


def said(number: int) -> str:
    """What a person says in turn `number` of the common path; 4,000 characters."""
    return (f"{number}. " + WORDS * 40)[:TURN_CHARS]


def own(number: int) -> str:
    """What one child is asked; all are of one length."""
    return f"Child {number:03}: what do you make of it, in one sentence?"


def _block(text: str, *, marked: bool = False) -> JSON:
    return {"type": "text", "text": text, **(MARK if marked else {})}


class Caller:
    """A bare HTTP client for the server and its controls; keeps the common path as messages."""

    def __init__(self, url: str) -> None:
        import httpx2

        self._url = url
        self._client = httpx2.AsyncClient(timeout=LONG, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None))
        self.messages: list[JSON] = []

    async def tell(self, what: str, **fields: float) -> list[JSON]:
        """Use a control of the server; gives its records."""
        answer = await self._client.post(f"{self._url}/{what}", content=json.dumps(fields).encode())
        records: list[JSON] = answer.json()
        return records

    def body(self, number: int | None, marks: tuple[int, ...]) -> bytes:
        """A request with one more message, or with the path as it is; messages at `marks` (from the end) have breakpoints."""
        asked = [*self.messages, {"role": "user", "content": own(number)}] if number is not None else self.messages
        blocks = [[_block(message["content"], marked=at - len(asked) in marks)] for at, message in enumerate(asked)]
        messages = [{**message, "content": content} for message, content in zip(asked, blocks, strict=True)]
        return json.dumps({"model": "m", "max_tokens": 100, "stream": True, "messages": messages}).encode()

    async def ask(self, body: bytes, begun: asyncio.Event | None = None) -> str:
        """The text of an answer; `begun` is set when it begins."""
        texts = []
        async with self._client.stream("POST", f"{self._url}/v1/messages", content=body) as response:
            async for line in response.aiter_lines():
                if begun is not None:
                    begun.set()
                if line.startswith("data: ") and '"text_delta"' in line:
                    texts.append(json.loads(line[6:])["delta"]["text"])
        assert response.status_code == 200
        return "".join(texts)

    async def grow(self) -> None:
        """The common path: turns of which each request writes what is new."""
        for number in range(TURNS):
            self.messages.append({"role": "user", "content": said(number)})
            text = await self.ask(self.body(None, (-1, -3)))
            self.messages.append({"role": "assistant", "content": text})

    async def close(self) -> None:
        await self._client.aclose()


# ways to ask 100 things after one path


async def at_once(caller: Caller, count: int) -> None:
    """All at once, with the marks of a client that has no fan-out in mind: the end, and the end of the request before."""
    await asyncio.gather(*(caller.ask(caller.body(number, (-1, -3))) for number in range(count)))


async def one_first(caller: Caller, count: int) -> None:
    """One request first, the others when it has begun to answer; a mark where the path is common."""
    begun = asyncio.Event()
    first = asyncio.create_task(caller.ask(caller.body(0, (-1, -2)), begun))
    await begun.wait()
    await asyncio.gather(first, *(caller.ask(caller.body(number, (-1, -2))) for number in range(1, count)))


async def warmed(caller: Caller, count: int) -> None:
    """A request for no tokens writes the path, then all at once."""
    body = json.loads(caller.body(0, (-2,)))
    await caller.ask(json.dumps({**body, "max_tokens": 0}).encode())
    await asyncio.gather(*(caller.ask(caller.body(number, (-1, -2))) for number in range(count)))


async def sdk_at_once(caller: Caller, count: int) -> None:
    """All at once over the SDK, as its documents write it."""
    client, bodies = caller.sdk(), [json.loads(caller.body(number, (-1, -3))) for number in range(count)]  # type: ignore[attr-defined]

    async def one(body: JSON) -> None:
        async with client.messages.stream(model="m", max_tokens=100, messages=body["messages"]) as stream:
            await stream.get_final_message()

    await asyncio.gather(*(one(body) for body in bodies))


WAYS: dict[str, Callable[[Caller, int], Awaitable[None]]] = {
    "plain HTTP, all at once": at_once,
    "plain HTTP, one first": one_first,
    "plain HTTP, warmed by max_tokens=0": warmed,
    "SDK, all at once": sdk_at_once,
}


class _SdkCaller(Caller):
    def __init__(self, url: str) -> None:
        import anthropic

        super().__init__(url)
        self._sdk = anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0, timeout=LONG)

    def sdk(self) -> Any:
        return self._sdk

    async def close(self) -> None:
        await self._sdk.close()
        await super().close()


async def _by_hand(name: str, url: str, count: int, *, cold: bool) -> tuple[float, float, list[JSON]]:
    caller = _SdkCaller(url) if name.startswith("SDK") else Caller(url)
    await caller.tell("delay", seconds=0)
    await caller.tell("forget")
    await caller.grow()
    await WAYS[name](caller, 2)  # connections and imports
    found = await _measured(caller, lambda: WAYS[name](caller, count), cold=cold)
    await caller.close()
    return found


async def _ours(url: str, count: int, *, cold: bool) -> tuple[float, float, list[JSON]]:
    from ours import Ours

    ours, caller = Ours(url, "anthropic"), Caller(url)
    process = ours._process
    await caller.tell("delay", seconds=0)
    await caller.tell("forget")
    for number in range(TURNS):
        await process.run(said(number))
    await process.fork_map([own(0), own(1)])

    async def fan_out() -> None:
        branches = await process.fork_map([own(number) for number in range(count)])
        assert [branch.text for branch in branches] == [f"You said: {own(number)}"[:70] for number in range(count)], branches

    found = await _measured(caller, fan_out, cold=cold)
    await ours.close()
    await caller.close()
    return found


async def _measured(caller: Caller, fan_out: Callable[[], Awaitable[Any]], *, cold: bool) -> tuple[float, float, list[JSON]]:
    """The wall and CPU seconds of a fan-out, and the server's records of it."""
    if cold:
        await caller.tell("forget")
    await caller.tell("delay", seconds=DELAY_S)
    await caller.tell("reset")
    gc.collect()  # a fresh interpreter looks through all that an SDK has brought once, at whatever moment: not in this one
    began, spent = time.perf_counter(), time.process_time()
    await fan_out()
    return time.perf_counter() - began, time.process_time() - spent, await caller.tell("stats")


def paid(records: list[JSON]) -> float:
    """What the input of these requests costs, in tokens at the plain price."""
    return sum(WRITE * seen["written"] + READ * seen["read"] + seen["uncached"] for seen in records)


def least(records: list[JSON], count: int, *, cold: bool) -> float:
    """The least that this fan-out can cost."""
    total = max(seen["read"] + seen["written"] + seen["uncached"] for seen in records)
    prompt_tokens = len(own(0)) / 4
    common = total - prompt_tokens
    known = 0.0 if cold else common - len(f"You said: {said(0)[:60]}") / 4
    new = common - known
    return count * prompt_tokens + READ * known * count + new * (WRITE + READ * (count - 1))


def measured(name: str, url: str, count: int, *, cold: bool) -> list[float]:
    """Units of the server's delay, tokens paid, the least possible, and CPU ms."""
    seconds, cpu_s, records = asyncio.run(_ours(url, count, cold=cold) if name == "ours" else _by_hand(name, url, count, cold=cold))
    refused = [seen for seen in records if seen["status"] != 200]
    assert not refused, refused[:3]
    return [seconds / DELAY_S, paid(records), least(records, count, cold=cold), 1000 * cpu_s]


# what a turn costs right after a fork


def forked_turn_ms(kind: str, url: str, turns: int, repeats: int) -> float:
    """CPU ms of one turn after a fork of a dialog of so many turns: the median. The SDK's fork is a copy of its list."""

    async def main() -> float:
        from bare import AnthropicSdk
        from ours import Ours

        made: Any = Ours(url, "anthropic") if kind == "ours" else AnthropicSdk(url)
        for number in range(turns if kind == "ours" else 2):
            await made.turn(prompt(number))
        if kind != "ours":
            made.fill(turns - 2)
        spent = []
        for number in range(repeats):
            began = time.process_time()
            if kind == "ours":
                await made._process.fork().run(prompt(number))
            else:
                kept, made._messages = made._messages, list(made._messages)
                await made.turn(prompt(number))
                made._messages = kept
            spent.append((time.process_time() - began) * 1000)
        await made.close()
        return statistics.median(spent)

    return asyncio.run(main())


def bench(*, quick: bool = False) -> Table:
    """The table of fan-outs, and the marks."""
    from caching import serving_apart

    count, repeats = (20, 1) if quick else (CHILDREN, 5)
    found: dict[tuple[str, bool], list[list[float]]] = {}
    names = [*WAYS, "ours"]
    with serving_apart(delay_s=DELAY_S) as url:
        for _ in range(repeats):
            for name in names:
                for cold in (True, False):
                    found.setdefault((name, cold), []).append(alone(_run, name, url, count, cold, quick=quick))
    # the lowest times of several, since what else the machine does only ever adds; of tokens the highest
    best = {
        key: [pick(place) for pick, place in zip((min, max, max, min), zip(*runs, strict=True), strict=True)] for key, runs in found.items()
    }
    with answering() as url:
        turns = 20 if quick else FORKED_TURNS
        ms = {kind: alone(forked_turn_ms, kind, url, turns, 3 if quick else 25, quick=quick) for kind in ("ours", "SDK")}
    rows: dict[str, list[float | str]] = {name: [*_row(best[name, True]), *_row(best[name, False])] for name in names}
    rows["least possible"] = [best["ours", True][2], 1.0, "", "", best["ours", False][2], 1.0]
    return Table(
        title=f"fanout: {count} children over {TURNS * TURN_CHARS / 1000:.0f} KB: tokens paid, time in units of {DELAY_S * 1000:.0f} ms",
        columns=["cold", "/ least", "time", "CPU ms", "warm", "/ least", "time", "CPU ms"],
        rows=rows,
        ratios=_ratios(best, ms),
    )


def _run(name: str, url: str, count: int, cold: bool) -> list[float]:
    return measured(name, url, count, cold=cold)


def _row(found: list[float]) -> list[float]:
    units, tokens, floor, cpu_ms = found
    return [tokens, tokens / floor, units, cpu_ms]


def _ratios(best: dict[tuple[str, bool], list[float]], ms: dict[str, float]) -> list[Ratio]:
    bare = best["plain HTTP, all at once", False][0] - 1
    sdk = best["SDK, all at once", False][0] - 1
    ratios = []
    for cold, word in ((True, "cold"), (False, "warm")):
        time_units, tokens, floor, cpu_ms = best["ours", cold]
        ratios += [
            Ratio(name=f"ours, {word}: tokens paid / least possible", value=tokens / floor, most=1.1),
            Ratio(name=f"ours, {word}: units of time less the cost of bare HTTP requests", value=time_units - bare, most=2.2),
            Ratio(name=f"ours, {word}: units of time less the cost of bare SDK requests", value=time_units - sdk),
            Ratio(name=f"ours, {word}: CPU / that of bare SDK requests", value=cpu_ms / best["SDK, all at once", cold][3]),
            Ratio(name=f"ours, {word}: tokens paid / all at once by hand", value=tokens / best["plain HTTP, all at once", cold][1]),
        ]
    ratios.append(Ratio(name="ours / SDK: CPU of the turn that follows a fork", value=ms["ours"] / ms["SDK"], most=1))
    return ratios
