"""The local server that stands for the real APIs: its prompt caches count as documented, and it refuses what they refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from caching import CachingServer, Seen
from promptcache import Account, AnthropicCache, OpenAICache
from strict import Refused, check_anthropic, check_chat, check_responses

JSON = dict[str, Any]
MARK = {"cache_control": {"type": "ephemeral"}}
KILO = "k" * 4000
"""A thousand tokens."""


class Watch:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def text(words: str, *, mark: bool = False, life: str = "5m") -> JSON:
    marked = {"cache_control": {"type": "ephemeral", **({"ttl": life} if life != "5m" else {})}} if mark else {}
    return {"type": "text", "text": words, **marked}


def asked(*blocks: JSON, **more: Any) -> bytes:
    """A body for Messages: each block a message of its own, by turns."""
    messages = [{"role": ("user", "assistant")[at % 2], "content": [block]} for at, block in enumerate(blocks)]
    return json.dumps({"model": "m", "max_tokens": 9, **more, "messages": messages}).encode()


def items(*words: str, model: str = "gpt-5", **more: Any) -> bytes:
    """A body for Responses: what the user says."""
    return json.dumps({"model": model, "input": [{"role": "user", "content": word} for word in words], **more}).encode()


def counts(account: Account) -> tuple[int, int, int]:
    """Read, written, in full."""
    return account.read, account.written, account.uncached


def one_after_the_other(cache: AnthropicCache | OpenAICache, *bodies: bytes) -> list[tuple[int, int, int]]:
    """What requests read, write and pay in full when each begins to be answered before the next one comes."""
    found = []
    for body in bodies:
        account = cache.account(body)
        cache.entries.write(account.writes)
        found.append(counts(account))
    return found


# Anthropic


def test_a_prefix_can_be_read_when_the_request_that_writes_it_has_begun_to_answer():
    cache = AnthropicCache(Watch())
    body = asked(text(KILO * 2, mark=True), text("ok"), text("next"))
    first, second = cache.account(body), cache.account(body)
    cache.entries.write(first.writes)
    third = cache.account(body)
    assert [counts(account) for account in (first, second, third)] == [(0, 2000, 1), (0, 2000, 1), (2000, 0, 1)]


def test_an_entry_is_written_at_a_breakpoint_and_nowhere_else():
    cache = AnthropicCache(Watch())
    grown = asked(text(KILO * 2), text(KILO), text("one", mark=True))
    other = asked(text(KILO * 2), text(KILO), text("two", mark=True))
    marked = asked(text(KILO * 2), text(KILO, mark=True), text("two", mark=True))
    assert one_after_the_other(cache, grown, other, marked, grown) == [(0, 3000, 0), (0, 3000, 0), (3000, 0, 0), (3000, 0, 0)]


@pytest.mark.parametrize(("between", "read"), [(18, 2000), (19, 0)])
def test_an_older_entry_is_found_at_twenty_places_and_no_further(between: int, read: int):
    cache = AnthropicCache(Watch())
    common = text(KILO * 2)
    before = asked({**common, **MARK})
    after = asked(common, *[text("x") for _ in range(between)], text("last", mark=True))
    assert one_after_the_other(cache, before, after)[1][0] == read


def test_what_is_too_short_is_not_cached():
    cache = AnthropicCache(Watch())
    short, long = asked(text("k" * 4092, mark=True)), asked(text("k" * 4096, mark=True))
    assert one_after_the_other(cache, short, short, long, long) == [(0, 0, 1023), (0, 0, 1023), (0, 1024, 0), (1024, 0, 0)]


def test_entries_live_for_five_minutes_and_longer_when_they_are_read():
    watch, body = Watch(), asked(text(KILO * 2, mark=True))
    cache, found = AnthropicCache(watch), []
    for later_s in (0, 299, 299, 301):
        watch.now_s += later_s
        found += one_after_the_other(cache, body)
    assert found == [(0, 2000, 0), (2000, 0, 0), (2000, 0, 0), (0, 2000, 0)]


def test_an_hour_costs_more_and_lasts_longer():
    watch, body = Watch(), asked(text(KILO * 2, mark=True, life="1h"), text("ok"), text(KILO, mark=True))
    cache = AnthropicCache(watch)
    account = cache.account(body)
    cache.entries.write(account.writes)
    watch.now_s = 3599
    assert (account.written, account.written_1h, counts(cache.account(body))) == (3000, 2000, (2000, 1000, 0))


def test_what_differs_early_spoils_what_is_late():
    tools = [{"name": "look", "description": KILO * 2, "input_schema": {"type": "object"}, **MARK}]
    more = [{**tools[0], "description": KILO * 2 + "!"}]
    body = text(KILO * 2, mark=True)
    cache = AnthropicCache(Watch())
    found = one_after_the_other(
        cache, asked(body, tools=tools), asked(body, tools=tools, tool_choice={"type": "any"}), asked(body, tools=more)
    )
    assert [read > 0 for read, _, _ in found] == [False, True, False]
    assert [written >= 4000 for _, written, _ in found] == [True, False, True]


# OpenAI


def test_openai_caches_by_itself_in_steps_of_128_tokens():
    found = one_after_the_other(OpenAICache(Watch()), items(KILO * 2, "a"), items(KILO * 2, "b"), items("k" * 4000, "b"))
    assert found == [(0, 0, 2000), (1920, 0, 80), (0, 0, 1000)]


def test_a_prompt_cache_key_keeps_requests_apart():
    bodies = [items(KILO * 2, prompt_cache_key=key) for key in ("a", "b", "a")]
    assert [read for read, _, _ in one_after_the_other(OpenAICache(Watch()), *bodies)] == [0, 0, 1920]


def test_newer_models_read_only_at_breakpoints():
    def two(words: str, *, marked: bool) -> bytes:
        mark = {"prompt_cache_breakpoint": {"mode": "explicit"}} if marked else {}
        first = {"role": "user", "content": [{"type": "input_text", "text": KILO * 2, **mark}]}
        return json.dumps({"model": "gpt-5.6", "input": [first, {"role": "user", "content": words}]}).encode()

    plain = one_after_the_other(OpenAICache(Watch()), two("aaaa", marked=False), two("bbbb", marked=False))
    marked = one_after_the_other(OpenAICache(Watch()), two("aaaa", marked=True), two("bbbb", marked=True))
    assert (plain, marked) == ([(0, 2001, 0), (0, 2001, 0)], [(0, 2001, 0), (2000, 1, 0)])


# the server


def talk(server: CachingServer, work: Callable[[Callable[[bytes], Awaitable[httpx2.Response]]], Awaitable[None]]) -> list[Seen]:
    """Run something that asks; gives what the server saw."""

    async def main() -> None:
        async with httpx2.AsyncClient(timeout=30) as client:
            await work(lambda body: client.post(f"{server.url}/v1/messages", content=body))

    asyncio.run(main())
    return server.seen


def test_all_at_once_pay_for_what_one_would_write():
    bodies = [asked(text(KILO * 2, mark=True), text("ok"), text(f"child {number}")) for number in range(10)]

    async def at_once(ask: Callable[[bytes], Awaitable[httpx2.Response]]) -> None:
        await asyncio.gather(*map(ask, bodies))

    async def one_first(ask: Callable[[bytes], Awaitable[httpx2.Response]]) -> None:
        await ask(bodies[0])
        await asyncio.gather(*map(ask, bodies[1:]))

    with CachingServer(delay_s=0.1) as server:
        assert [seen.written for seen in talk(server, at_once)] == [2000] * 10
        server.reset()
        server.forget()
        assert [(seen.written, seen.read) for seen in talk(server, one_first)] == [(2000, 0), *[(0, 2000)] * 9]
        server.reset()
        server.advance(301)
        assert [seen.paid() for seen in talk(server, one_first)] == [2502, *[202.0] * 9]


def test_a_request_for_no_tokens_only_warms_the_cache():
    async def warm(ask: Callable[[bytes], Awaitable[httpx2.Response]]) -> None:
        answer = (await ask(asked(text(KILO * 2, mark=True), max_tokens=0))).json()
        assert (answer["content"], answer["usage"]["output_tokens"]) == ([], 0)
        usage = (await ask(asked(text(KILO * 2, mark=True)))).json()["usage"]
        assert (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"], usage["input_tokens"]) == (2000, 0, 0)

    with CachingServer(delay_s=0) as server:
        talk(server, warm)


def test_the_server_says_what_it_refuses():
    async def wrong(ask: Callable[[bytes], Awaitable[httpx2.Response]]) -> None:
        answer = await ask(asked(text("hello"), text("a reply is last")))
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")

    with CachingServer(delay_s=0) as server:
        assert "the first and the last message are the user's" in talk(server, wrong)[0].refused


CALL = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "ok"}
HELLO = {"role": "user", "content": [text("hello")]}


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([{"role": "assistant", "content": [text("hi")]}, HELLO], "the first"),
        ([HELLO, {"role": "assistant", "content": [CALL]}, HELLO], "tool_result"),
        ([HELLO, {"role": "assistant", "content": [CALL, CALL]}, {"role": "user", "content": [RESULT]}], "used twice"),
        ([HELLO, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [text("so"), RESULT]}], "before all else"),
        ([HELLO, {"role": "assistant", "content": [text("a")]}, {"role": "user", "content": [RESULT]}], "tool_result"),
        ([HELLO, {"role": "assistant", "content": [text("a")]}, {"role": "assistant", "content": [text("b")]}, HELLO], "two replies"),
        ([{"role": "user", "content": [text("  ")]}], "without a word"),
        ([{"role": "user", "content": []}], "nothing in"),
        ([{"role": "user", "content": [text("x", mark=True) for _ in range(5)]}], "cache_control"),
        ([{"role": "user", "content": [text("x", mark=True), text("y", mark=True, life="1h")]}], "1h stands before"),
    ],
)
def test_messages_that_the_api_refuses(messages: list[JSON], why: str):
    with pytest.raises(Refused, match=why):
        check_anthropic({"model": "m", "max_tokens": 1, "messages": messages})


def test_messages_that_the_api_takes():
    answered = [HELLO, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT, text("and now?", mark=True)]}]
    check_anthropic({"model": "m", "max_tokens": 0, "messages": [*answered, {"role": "user", "content": "and this?"}]})
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    check_responses({"input": [HELLO, call, {"type": "function_call_output", "call_id": "c", "output": "ok"}]})
    with pytest.raises(Refused):
        check_responses({"input": [HELLO, call]})
    with pytest.raises(Refused):
        check_chat({"messages": [HELLO, {"role": "tool", "tool_call_id": "c", "content": "ok"}]})
