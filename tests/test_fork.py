"""Forks, by a person and by a model: a second head on one dialog, legal at every request, cheap, inspectable, inside its limits."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time

import pytest
from machines import events, machine, roles, scripted

from llmproc_nb.api import Machine
from llmproc_nb.core.clock import FixedClock, SystemClock
from llmproc_nb.core.errors import LimitReached, PersonError, PromptError
from llmproc_nb.core.event import Appended, Merged, Started
from llmproc_nb.core.provider import Request
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.table import LateDrivers

FORKS = {"when": "^split", "call": [{"name": "fork", "arguments": {"prompts": ["task a", "task b"]}}]}


def forking(*turns, **fields):
    return scripted(FORKS, *turns, tools=["fork", *fields.pop("tools", ())], **fields)


def last_words(request: Request) -> str:
    return request.head.message.text


def test_a_fork_is_a_second_head_on_the_same_nodes():
    scout = scripted({"say": "one"}, {"say": "two"})
    scout.run("first").result()
    child, alice = scout.fork(), scout.fork("alice")
    assert (child.name, alice.name, child.parent) == ("scout.1", "alice", scout)
    assert all(one is other for one, other in zip(child.path, scout.path, strict=True))
    assert str(child.run("second")) == "two"
    assert roles(scout) == ["system", "user", "assistant"]
    assert roles(child) == ["system", "user", "assistant", "user", "assistant"]
    assert [event.origin for event in scout.machine.log.events if isinstance(event, Started)] == ["start", "fork", "fork"]


def test_a_fork_at_an_address_stands_there():
    scout = scripted({"say": "one"}, {"say": "two"})
    scout.run("first").result()
    scout.run("second").result()
    assert scout.fork(at="~1").get_last_message() == "one"
    assert scout.fork(at="msg_0").head.message.text == "first"
    assert scout.fork(at=scout.head.id[:8]).head is scout.head
    with pytest.raises(PersonError, match=r"no msg_9.*newest on its path are msg_3 \(assistant: two\)"):
        scout.fork(at="msg_9")


def test_a_shorter_fork_says_what_it_left_out_and_keeps_calls_with_their_answers():
    calls = {"when": "count", "call": [{"name": "calculator", "arguments": {"expression": "1+1"}}]}
    scout = scripted(calls, {"say": "one"}, {"say": "two"}, {"say": "three"}, tools=["calculator"])
    for words in ("hello", "count", "bye"):
        scout.run(words).result()
    assert roles(scout)[1:] == ["user", "assistant", "user", "assistant", "tool", "assistant", "user", "assistant"]
    short = scout.fork(first_k=1, last_n=4)
    assert roles(short) == ["system", "user", "user", "assistant", "tool", "assistant", "user", "assistant"]
    assert short.messages[2].text == "[2 messages between here are left out of this branch]"
    assert scout.fork(first_k=9, last_n=9).head is scout.head


def test_fork_map_answers_all_prompts_in_order_and_counts_for_the_parent():
    scout = scripted(lambda request: f"re: {last_words(request)}")
    scout.run("start").result()
    before = scout.usage.total_tokens
    branches = asyncio.run(_awaited(scout, [f"p{number}" for number in range(20)]))
    assert branches.texts == tuple(f"re: p{number}" for number in range(20))
    assert [branch.process.name for branch in branches][:2] == ["scout.1", "scout.2"]
    assert scout.usage.total_tokens == before + sum(branch.usage.total_tokens for branch in branches)
    assert roles(scout) == ["system", "user", "assistant"]


async def _awaited(process, prompts):
    return await process.fork_map(prompts)


def test_a_child_that_fails_keeps_its_error_and_the_others_answer():
    scout = scripted(lambda request: {"error": "RequestRefused"} if last_words(request) == "b" else "fine")
    branches = scout.fork_map(["a", "b", "c"]).wait()
    assert [branch.stop_reason for branch in branches] == ["end_turn", "RequestRefused", "end_turn"]
    assert "the script says so" in str(branches[1].error)


def test_one_text_is_no_list_of_prompts():
    with pytest.raises(PromptError, match="a list of prompts is needed"):
        scripted({"say": "x"}).fork_map("abc")


def test_a_models_fork_gives_each_child_the_whole_dialog_and_the_parent_all_answers():
    def script(request: Request):
        words = last_words(request)
        if words == "split":
            return {
                "call": [
                    {"name": "calculator", "arguments": {"expression": "6*7"}},
                    {"name": "fork", "arguments": {"prompts": ["task a", "task b"]}},
                ]
            }
        return f"done {words}" if words.startswith("task") else "all done"

    scout = scripted(script, tools=["fork", "calculator"])
    result = scout.run("split").result()
    assert result.text == "all done"
    told = json.loads(result.tool_calls[1].result.text)
    assert told == [{"id": 0, "process": "scout.1", "message": "done task a"}, {"id": 1, "process": "scout.2", "message": "done task b"}]
    one, two = (scout.machine.find(name) for name in ("scout.1", "scout.2"))
    assert one.path[:3] == two.path[:3] == scout.path[:3]
    assert roles(one)[2:] == ["assistant", "tool", "user", "assistant"]
    assert [part.text for part in one.messages[3].tool_results] == [
        "not run here: this call is left to the parent process",
        "You are scout.1, child 1 of 2. What follows is your task; your answer to it goes to the parent.",
    ]
    assert result.usage.requests == 4 and result.below.requests == 2


def test_children_may_fork_again_up_to_the_limit_of_depth():
    def script(request: Request):
        words = last_words(request)
        return {"call": [{"name": "fork", "arguments": {"prompts": ["deeper"]}}]} if words in ("deeper", "go") else "end"

    scout = scripted(script, tools=["fork"], limits=Limits(depth=2))
    assert scout.run("go").result().text == "end"
    deepest = scout.machine.find("scout.1.1")
    assert not scout.machine.children(deepest)
    step = "Go on without one, or start scout from a program with a higher limits.depth."
    assert f"its limit of depth is 2. {step}" in deepest.path[-2].message.tool_results[0].text


def test_a_thousand_children_with_a_limit_of_ten_are_refused_before_the_first():
    scout = scripted({"say": "x"}, limits=Limits(children=10))
    had = "0 made so far, 1000 more asked for; scout may have 10 children and children's children in all. "
    with pytest.raises(LimitReached, match=had + "Go on with those it has, or start scout from a program with a higher limits.children"):
        scout.fork_map(["x"] * 1000)
    assert len(scout.machine.processes) == 1
    for _ in range(10):
        scout.fork()
    with pytest.raises(LimitReached):
        scout.fork()


def test_a_model_has_a_limit_of_children_also_where_its_program_sets_none():
    scout = scripted(
        {"when": "^split", "call": [{"name": "fork", "arguments": {"prompts": ["x"] * 101}}]}, {"say": "I see"}, tools=["fork"]
    )
    result = scout.run("split").result()
    assert "scout may have 100 children" in result.tool_calls[0].error and result.text == "I see"
    assert len(scout.machine.processes) == 1


def test_a_parents_token_limit_stops_its_children():
    scout = scripted(lambda request: "word " * 400, limits=Limits(tokens=600))
    first = scout.fork_map(["a"]).wait()
    assert first[0].stop_reason == "end_turn"
    scout.fork_map(["b"]).wait()
    assert scout.fork_map(["c"]).wait()[0].stop_reason == "max_total_tokens"


def test_a_stop_in_the_middle_of_a_fan_out_stops_all_children_and_keeps_what_they_said():
    def script(request: Request):
        words = last_words(request)
        if words == "split":
            return {"call": [{"name": "fork", "arguments": {"prompts": ["a", "b", "c"]}}]}
        return {"say": "slowly " * 50, "delay_s": 0.05}

    scout = scripted(script, tools=["fork"], on=machine(SystemClock()))
    call = scout.run("split")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and sum(child.running is not None for child in scout.machine.children(scout)) < 3:
        time.sleep(0.01)
    time.sleep(0.3)
    call.cancel()
    assert call.result().stop_reason == "interrupted"
    children = scout.machine.children(scout)
    for child in children:
        child.calls[0].settle(5)
        assert child.calls[0].result().stop_reason == "interrupted"
        assert child.head.message.interrupted and "slowly" in child.get_last_message()
    assert scout.head.message.role == "tool" and scout.state == "idle"


def unfinished(request: Request):
    """One child answers at once, one never ends, one fails, one splits again."""
    words = last_words(request)
    if words in ("split", "deeper"):
        prompts = ["quick", "slow", "fail", "deeper"] if words == "split" else ["slow", "quick"]
        return {"call": [{"name": "fork", "arguments": {"prompts": prompts}}]}
    slow = {"say": "slowly " * 500, "delay_s": 0.05}
    return {"quick": "an answer", "slow": slow, "fail": {"error": "RequestRefused"}}.get(words, "go on")


def cut_short(process, call) -> list[str]:
    """Stop a call when its children have said what they can."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and sum(bool(one.get_last_message()) for one in process.machine.processes.values()) < 2:
        time.sleep(0.01)
    time.sleep(0.3)
    call.cancel()
    call.cancel()  # whoever is impatient loses nothing by it
    return call.result().stop_reason


@pytest.mark.parametrize("how", ["interrupted", "max_seconds"])
def test_a_fork_that_is_cut_short_gives_the_answers_of_the_children_that_had_ended(how):
    limits = Limits(seconds=1.0) if how == "max_seconds" else Limits()
    scout = scripted(unfinished, tools=["fork"], on=machine(SystemClock()), limits=limits)
    call = scout.run("split")
    assert (call.result().stop_reason if how == "max_seconds" else cut_short(scout, call)) == how
    (run,) = call.result().tool_calls
    assert (run.outcome, run.result.is_error) == ("interrupted", True)
    assert scout.head.message.tool_results == (run.result,) and scout.state == "idle"
    quick, slow, failed, deeper = json.loads(run.result.text)
    assert quick == {"id": 0, "process": "scout.1", "message": "an answer"}
    assert slow["message"].startswith("slowly") and slow["stopped"] in (how, "interrupted")
    assert (failed["error"], failed["message"]) == (True, "the script says so.")
    assert (deeper["process"], deeper["message"]) == ("scout.4", "(no text)")
    assert deeper["stopped"] in (how, "interrupted")  # by its own time, or by its parent's, whichever is noticed first
    below = json.loads(scout.machine.find("scout.4").head.message.tool_results[0].text)
    assert [one["message"][:6] for one in below] == ["slowly", "an ans"] and "stopped" not in below[1]
    if how == "interrupted":
        assert scout.run("and now?").result().text == "go on"


def test_merge_brings_the_conclusion_home_as_one_message():
    scout = scripted(lambda request: f"re: {last_words(request)}")
    child = scout.fork("idea")
    child.run("think").result()
    child.open_fd("long text", "tool_result x")
    node = scout.merge(child, "What the idea gave:")
    assert node is scout.head and node.message.role == "user"
    assert node.message.text == (
        'What the idea gave:\n<merged from="idea" tokens="5">\nre: think\n<fd here="fd:1" there="fd:1"/>\n</merged>'
    )
    assert scout.fds.get("fd:1").page(1).text == "long text"
    assert events(scout, Merged)[0].child == child.pid
    assert roles(child) == ["system", "user", "assistant"]
    with pytest.raises(PersonError, match="into itself"):
        scout.merge(scout)
    with pytest.raises(PersonError, match="has not said anything yet"):
        scout.merge(scout.fork(at="first"))


PNG = b"\x89PNG\r\n\x1a\n"


def plot(number: int) -> bytes:
    """A picture."""
    return PNG + bytes([number])


def test_merge_brings_the_newest_pictures_the_branch_made_and_none_it_began_with():
    def script(request: Request):
        found = re.fullmatch(r"plot (\d) to (\d)", last_words(request))
        numbers = range(int(found[1]), int(found[2])) if found else ()
        return {"call": [{"name": "plot", "arguments": {"number": number}} for number in numbers]} if found else "plotted"

    scout = scripted(script, tools=[plot])
    scout.run("plot 0 to 1").result()
    child = scout.fork("idea")
    for words in ("plot 1 to 3", "plot 3 to 6"):
        child.run(words).result()
    node = scout.merge(child)
    assert [part.data[-1] for part in node.message.parts[1:]] == [2, 3, 4, 5]
    assert node.message.parts[0].text.startswith('<merged from="idea" tokens=')
    assert str(scout.run("go on")) == "plotted"


def test_merge_says_how_a_branch_was_stopped_and_what_it_took():
    def script(request: Request):
        if last_words(request) == "slow":
            return {"say": "slowly " * 200, "delay_s": 0.02}
        return {"say": "half an ans", "stop": "max_tokens"} if last_words(request) == "long" else f"re: {last_words(request)}"

    scout = scripted(script, on=machine(SystemClock()))
    child = scout.fork("idea")
    for words, said in (("think", ' tokens="5"'), ("long", ' stopped="max_tokens" tokens="13"'), ("think", ' tokens="25"')):
        child.run(words).result()
        assert scout.merge(child).message.text.startswith(f'<merged from="idea"{said}>\n')
    call = child.run("slow")
    time.sleep(0.3)
    call.cancel()
    assert call.result().stop_reason == "interrupted"
    assert scout.merge(child).message.text.startswith('<merged from="idea" stopped="interrupted" tokens="')
    child.goto("~1")
    assert scout.merge(child).message.text.startswith('<merged from="idea" tokens="')  # what it says now is whole


class Priced(LateDrivers):
    """Drivers that know the price of two requests."""

    prices = (0.0125, 0.0125, None)

    def price(self, model, provider, usage, when_ns):
        price, *self.prices = self.prices
        return price


def test_merge_says_what_a_branch_cost_with_all_below_it_where_that_is_known():
    scout = scripted(lambda request: f"re: {last_words(request)}", on=Machine(Priced(lambda: os.environ), clock=FixedClock()))
    child = scout.fork("idea")
    child.run("think").result()
    child.fork().run("think").result()
    assert '<merged from="idea" tokens="13" cost_usd="0.0250">' in scout.merge(child).message.text
    child.run("more").result()
    assert re.search(r'<merged from="idea" tokens="\d\d">', scout.merge(child).message.text)


def test_a_fork_sees_the_fds_opened_until_then_and_numbers_its_own():
    scout = scripted({"say": "x"})
    scout.open_fd("shared", "file")
    child = scout.fork()
    assert child.open_fd("own", "file").name == "fd:2" and scout.open_fd("other", "file").name == "fd:2"
    assert [fd.page(1).text for fd in child.fds] == ["shared", "own"]
    assert [fd.page(1).text for fd in scout.fds] == ["shared", "other"]


def test_numbers_of_messages_go_on_in_a_fork_and_are_never_used_twice():
    scout = scripted(lambda request: "x")
    scout.run("a").result()
    child = scout.fork()
    scout.run("b").result()
    child.run("c").result()
    assert (scout.at("msg_2").message.text, child.at("msg_2").message.text, child.at("msg_0").message.text) == ("b", "c", "a")
    scout.goto("msg_1")
    scout.run("d").result()
    assert scout.at("msg_4").message.text == "d" and scout.at("msg_2").message.text == "b"
    assert [event.number for event in events(scout, Appended)] == [None, 0, 1, 2, 3, 4, 5]


def test_a_fork_with_another_program_goes_on_from_the_same_node():
    scout = scripted({"say": "one"})
    scout.run("a").result()
    child = scout.fork("other", program=scout.program.replace(name="b", script=({"say": "x"}, {"say": "two"})))
    assert str(child.run("b")) == "two" and child.path[:3] == scout.path


def test_a_child_that_said_nothing_itself_has_nothing_to_show_or_to_bring():
    scout = scripted(lambda request: {"error": "RequestRefused"} if last_words(request) == "boom" else "said by the parent")
    scout.run("hello").result()
    failed = scout.fork_map(prompt for prompt in ["boom", "fine"]).wait()
    assert failed.texts == ("", "said by the parent")
    with pytest.raises(PersonError, match="has not said anything yet"):
        scout.merge(scout.fork())


def test_what_is_no_address_is_told():
    for wrong in (2.5, True, None, object()):
        with pytest.raises(PersonError, match="is no address; an address is msg_7"):
            scripted({"say": "x"}).goto(wrong)
