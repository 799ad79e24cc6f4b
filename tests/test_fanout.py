"""A fan-out pays for its common path once: one child's request writes it to the provider's cache, the others read it.

Through the whole house (process, loop, real SDK) against a server that accounts for its cache as the real APIs do and refuses what they
refuse. What is paid is weighed as the APIs bill it: written 1.25, read 0.1, neither 1.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from caching import CachingServer, Seen
from promptcache import BYTES_A_TOKEN, OpenAICache
from servers import Answer, LoopbackServer, anthropic_text, sse
from strict import Refused, check_responses

from llmproc_nb import Program, new_machine, tool
from llmproc_nb.api import Machine, Process
from llmproc_nb.core.errors import RequestRefused
from llmproc_nb.core.event import Replied
from llmproc_nb.core.message import Message, Text, ToolCall, ToolResult, user
from llmproc_nb.core.program import FdRules, ToolWish
from llmproc_nb.notebook.branchview import summary_line

JSON = dict[str, Any]
WRITE, READ = 1.25, 0.1
CHILDREN = 20
PROMPTS = [f"Child {number:02}: what do you make of it?" for number in range(CHILDREN)]
LONG = "The third column has eleven missing values and two outliers, which come from the merge of both tables. " * 40
"""About a thousand tokens."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    made = new_machine(log=None)
    yield made
    made.close()


def start(machine: Machine, server: CachingServer, *, provider: str = "anthropic", model: str = "m", **fields: Any) -> Process:
    base_url = server.url if provider == "anthropic" else f"{server.url}/v1"
    program = Program(name="scout", provider=provider, base_url=base_url, model=model, system="Be short.", **fields)
    return program.start(machine=machine)


def grown(machine: Machine, server: CachingServer, turns: int = 5, **fields: Any) -> Process:
    """A process whose dialog is a few long turns; its last request has written all but the reply to it."""
    process = start(machine, server, **fields)
    for number in range(turns):
        process.run(f"{number}: {LONG}").result()
    server.reset()
    return process


def paid(seen: Sequence[Seen]) -> float:
    return sum(WRITE * one.written + READ * one.read + one.uncached for one in seen)


def least(seen: Sequence[Seen], known: int = 0, own: int = len(PROMPTS[0]) // BYTES_A_TOKEN) -> float:
    """The least that children with one common path can pay, of which `known` tokens can be read already."""
    common = max(one.read + one.written + one.uncached for one in seen) - own
    count = len(seen)
    return count * (own + READ * known) + (common - known) * (WRITE + READ * (count - 1))


def taken(server: CachingServer) -> list[Seen]:
    """What the server saw, all of which it took."""
    assert [seen.refused for seen in server.seen if seen.status != 200] == []
    return server.seen


def early(seen: Sequence[Seen]) -> int:
    """How many requests arrived before any began to be answered."""
    first = min(one.began_s for one in seen if one.began_s is not None)
    return sum(one.arrived_s <= first for one in seen)


def test_children_of_a_cold_parent_pay_for_the_path_once(machine: Machine):
    with CachingServer(delay_s=0.05) as server:
        process = grown(machine, server)
        server.advance(301)
        branches = process.fork_map(PROMPTS).wait()
        seen = taken(server)
        assert list(branches.texts) == [f"You said: {prompt}" for prompt in PROMPTS]
        assert (len(seen), early(seen)) == (CHILDREN, 1)
        assert paid(seen) <= 1.1 * least(seen)
        assert sum(branch.usage.cache_read_tokens for branch in branches) == sum(one.read for one in seen)
        assert sum(branch.usage.cache_write_tokens for branch in branches) == sum(one.written for one in seen)


def test_children_of_a_warm_parent_read_what_it_wrote(machine: Machine):
    with CachingServer(delay_s=0.05, text=LONG) as server:  # a long last reply, which no request has sent yet
        process = grown(machine, server)
        process.fork_map(PROMPTS).wait()
        seen = taken(server)
        known = min(one.read for one in seen)
        assert known > 4000
        assert paid(seen) <= 1.1 * least(seen, known)


def test_a_long_answer_of_a_tool_is_written_once(machine: Machine):
    @tool
    def look() -> str:
        """Look."""
        return LONG * 10

    def answer(body: JSON) -> list[JSON] | None:
        said = body["messages"][-1]["content"][-1].get("text", "")
        return [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}] if said == "Look." else None

    with CachingServer(answer, delay_s=0.05) as server:
        process = grown(machine, server, turns=1, tools=(look,), fd=FdRules(enabled=False))
        assert process.run("Look.", max_iterations=1).result().stop_reason == "max_steps"
        server.reset()
        process.fork_map(PROMPTS).wait()
        seen = taken(server)
        assert paid(seen) <= 1.1 * least(seen)
        assert sum(one.written for one in seen) < 1.1 * max(one.written for one in seen)


@pytest.mark.parametrize("tools", [(), ("goto",), ("fork", "goto")])
def test_requests_of_siblings_are_the_same_bytes_up_to_their_own_prompt(machine: Machine, tools: tuple[str, ...]):
    with CachingServer(delay_s=0.05) as server:
        process = grown(machine, server, tools=tuple(ToolWish(name=name) for name in tools))
        process.fork_map(PROMPTS).wait()
        assert len({seen.raw[: seen.raw.index(b"Child ")] for seen in taken(server)}) == 1


def fork_then_answer(body: JSON) -> list[JSON] | None:
    """A model that forks when it is told to, and answers otherwise."""
    block = body["messages"][-1]["content"][-1]
    if "Fork." not in block.get("text", ""):
        return None
    number = sum(message["role"] == "assistant" for message in body["messages"])
    return [
        {"type": "text", "text": "I split."},
        {"type": "tool_use", "id": f"f{number}", "name": "fork", "input": {"prompts": PROMPTS[:8]}},
    ]


def test_forks_that_the_model_makes_are_legal_and_pay_once(machine: Machine):
    with CachingServer(fork_then_answer, delay_s=0.05) as server:
        process = grown(machine, server, tools=(ToolWish(name="fork"),))
        server.advance(301)
        result = process.run("Fork.").result()
        parent, *children, last = taken(server)
        assert len(children) == 8
        assert [one["message"] for one in json.loads(result.tool_calls[0].result.text)] == [f"You said: {prompt}" for prompt in PROMPTS[:8]]
        assert paid(children) <= 1.1 * least(children, parent.read + parent.written, own=60)
        assert last.read >= parent.written
        answers = [seen.body["messages"][-2]["content"][0]["content"] for seen in children]
        assert all(seen.body["messages"][-2]["content"][0]["tool_use_id"] == "f5" for seen in children), answers


def test_a_child_may_fork_again(machine: Machine):
    with CachingServer(fork_then_answer, delay_s=0.02) as server:
        process = grown(machine, server, tools=(ToolWish(name="fork"),))
        process.fork_map(["Fork.", "Fork.", "Do not."]).wait()
        assert len(taken(server)) == 3 + 2 * (8 + 1)


def test_the_next_child_takes_over_where_the_first_is_refused(machine: Machine):
    def refuse_one(body: JSON) -> None:
        if "Child 00" in body["messages"][-1]["content"][-1]["text"]:
            raise Refused("not this one")

    with CachingServer(refuse_one, delay_s=0.05) as server:
        process = grown(machine, server)
        server.forget()
        branches = process.fork_map(PROMPTS).wait()
        assert [type(branch.error) for branch in branches] == [RequestRefused, *[type(None)] * (CHILDREN - 1)]
        assert [seen.status for seen in server.seen] == [400, *[200] * (CHILDREN - 1)]
        whole = server.seen[1:]
        assert (early(whole), paid(whole) <= 1.1 * least(whole)) == (1, True)


def test_the_next_child_takes_over_where_the_first_is_stopped(machine: Machine):
    with CachingServer(delay_s=0.3) as server:
        process = grown(machine, server, turns=3)
        server.forget()

        async def main() -> None:
            branches = process.fork_map(PROMPTS[:5])
            while not server.seen:
                await asyncio.sleep(0.01)
            branches[0].call.cancel()
            await branches

        asyncio.run(main())
        assert len(taken(server)) == 5


def test_short_paths_wait_for_nobody(machine: Machine):
    with CachingServer(delay_s=0.3) as server:
        process = start(machine, server)
        process.run("Hello.").result()
        server.reset()
        process.fork_map(PROMPTS).wait()
        assert early(taken(server)) > 1


def test_all_siblings_go_at_once_when_the_path_can_be_read(machine: Machine):
    with CachingServer(delay_s=0.01) as server:
        process = grown(machine, server, turns=2)
        server.options.delay_s = 3.0  # longer than a busy machine takes to send them all
        process.fork_map([f"Child {number:03}" for number in range(100)]).wait()
        assert (len(taken(server)), server.peak) == (100, 99)


def test_siblings_settle_for_what_an_api_takes(machine: Machine):
    with CachingServer(delay_s=0.1, most_at_once=20) as server:
        process = grown(machine, server, turns=2)
        prompts = [f"Child {number:03}" for number in range(100)]
        branches = process.fork_map(prompts).wait()
        assert list(branches.texts) == [f"You said: {prompt}" for prompt in prompts]
        refused = [seen for seen in server.seen if seen.status == 429]
        assert len(server.seen) - len(refused) == 100
        assert len(refused) <= 200
        assert process.limiter.limit <= 40


def test_children_with_other_models_share_no_cache_and_do_not_wait_for_each_other(machine: Machine):
    with CachingServer(delay_s=0.2) as server:
        process = grown(machine, server)
        server.forget()
        other = process.program.replace(model="m2")
        process.fork_map(PROMPTS[:6], programs=[process.program, other] * 3).wait()
        seen = taken(server)
        assert early(seen) == 2
        for model in ("m", "m2"):
            own = [one for one in seen if one.body["model"] == model]
            assert len(own) == 3 and paid(own) <= 1.1 * least(own)


def answering_with_a_reason(asked: Any, number: int) -> Answer:
    events = anthropic_text(f"answer {number}")
    events[0]["message"]["id"] = f"msg_{number}"
    if "diagnostics" in asked.body:
        events[0]["message"]["diagnostics"] = {"cache_miss_reason": {"type": "tools_changed", "cache_missed_input_tokens": 7}}
    return Answer(chunks=sse(events))


def test_the_api_is_asked_why_its_cache_served_nothing_and_the_cell_says_it(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    with LoopbackServer(answering_with_a_reason) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        process = Program(name="scout", provider="anthropic", model="m").start(machine=machine)
        process.run("hello").result()
        branches = process.fork_map(["a", "b"]).wait()
        assert "diagnostics" not in server.seen[0].body  # nobody shares the path of a single process
        assert [one.body["diagnostics"] for one in server.seen[1:]] == [{"previous_message_id": "msg_0"}] * 2
        assert summary_line(process, branches).endswith("nothing was read from a cache; the API says why: tools changed")
        assert {event.cache_miss for event in machine.log.events if isinstance(event, Replied)} == {"", "tools_changed"}
        monkeypatch.delenv("ANTHROPIC_BASE_URL")
        gateway = Program(name="other", provider="anthropic", model="m", base_url=server.url).start(machine=machine)
        gateway.run("hello").result()
        gateway.fork_map(["a"]).wait()
        assert "diagnostics" not in server.seen[-1].body


def test_the_cell_says_what_a_common_path_saved(machine: Machine):
    with CachingServer(delay_s=0.01) as server:
        process = grown(machine, server)
        assert "input tokens were read from the provider's cache" in summary_line(process, process.fork_map(PROMPTS[:3]).wait())
        short = start(machine, server)
        assert summary_line(short, short.fork_map(PROMPTS[:2]).wait()).endswith("their common path is too short to be cached")


def test_a_reply_without_a_word_lets_the_others_go_too(machine: Machine):
    def only_thought(body: JSON) -> list[JSON]:
        return [{"type": "redacted_thinking", "data": "x"}]

    with CachingServer(delay_s=0.01) as server:
        process = grown(machine, server)
        server.answer, server.options.delay_s = only_thought, 0.5
        server.forget()
        process.fork_map(PROMPTS).wait()
        seen = taken(server)
        first = seen[0].began_s
        assert first is not None
        second = min(one.began_s for one in seen[1:] if one.began_s is not None)
        assert sum(one.arrived_s < second for one in seen) > 2  # not one after the other


@pytest.mark.parametrize("provider", ["openai_responses", "openai_chat"])
def test_openai_children_read_the_common_path(machine: Machine, provider: str):
    with CachingServer(delay_s=0.05) as server:
        process = grown(machine, server, provider=provider, model="gpt-5")
        server.forget()
        process.fork_map(PROMPTS).wait()
        seen = taken(server)
        common = max(one.read + one.uncached for one in seen)
        assert (len(seen), early(seen)) == (CHILDREN, 1)
        assert [one.read > 0.95 * common for one in seen[1:]] == [True] * (CHILDREN - 1)


@pytest.mark.parametrize("last", ["user", "tool", "assistant"])
def test_newer_openai_models_find_a_breakpoint_where_siblings_go_apart(machine: Machine, last: str):
    process = Program(name="scout", provider="openai_responses", model="gpt-5.6").start(machine=machine)
    call = ToolCall(id="c1", name="look")
    process.append(user(LONG * 2))
    if last != "user":
        process.append(Message(role="assistant", parts=(call,)))
        process.append(Message(role="tool", parts=(ToolResult(call_id="c1", name="look", content=(Text(text=LONG * 2),)),)))
    if last == "assistant":
        process.append(Message(role="assistant", parts=(Text(text="So it is."),)))
    cache, found = OpenAICache(lambda: 0.0), []
    for number, prompt in enumerate(PROMPTS):
        child = process.fork()
        child.append(user(prompt))
        body = process.provider.preview(child.request(child.config, process.head))
        check_responses(body)
        account = cache.account(json.dumps(body).encode())
        cache.entries.write(account.writes)
        found.append(account)
        again = process.provider.preview(child.request(child.config))
        assert "prompt_cache_breakpoint" not in json.dumps(again), number
    assert [one.read >= 0.99 * (one.total - 20) for one in found] == [False, *[True] * (CHILDREN - 1)]
