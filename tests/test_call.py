"""The loop: what a call does, how it ends, and what is true of the path afterwards."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings

import pytest
from machines import events, kinds, machine, roles, scripted
from paths import ROOT  # noqa: F401 - makes the folder importable in every runner

from llmproc_nb import Limits, ToolError, Usage
from llmproc_nb.core.clock import SystemClock
from llmproc_nb.core.errors import CallStateError, Overloaded, PromptError, RequestRefused
from llmproc_nb.core.event import AttemptFailed, Moved, ReaderFailed, Replied, Stopped, ToolRan
from llmproc_nb.core.message import ToolResult


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def answers(process):
    """Each tool call on the path with its answer, and whether every call has exactly one."""
    calls = [call.id for message in process.messages for call in message.tool_calls]
    results = [result.call_id for message in process.messages for result in message.tool_results]
    return calls == results and len(set(calls)) == len(calls)


def test_a_call_gives_its_text_in_every_way():
    scout = scripted({"say": "one"}, {"say": "two"}, {"say": "three"}, {"say": "four"})

    async def main():
        return await scout.run("a")

    assert asyncio.run(main()).text == "one"
    assert scout.run("b").result().text == "two"
    assert str(scout.run("c")) == "three"
    assert f"{scout.run('d')}" == "four"


def test_a_call_can_be_awaited_twice_and_from_two_loops():
    call = scripted({"say": "one"}).run("a")

    async def main():
        return await call, await call

    assert asyncio.run(main()) == asyncio.run(main()) == (call.result(), call.result())


def test_parallel_tool_calls_run_at_once_and_answer_in_order():
    barrier = threading.Barrier(3, timeout=5)

    def meet(name: str) -> str:
        barrier.wait()
        return name

    calls = [{"name": "meet", "arguments": {"name": name}} for name in "abc"]
    scout = scripted({"say": "go", "call": calls}, {"say": "done"}, tools=[meet], on=machine(SystemClock()))
    result = scout.run("go").result()
    assert [run.result.text for run in result.tool_calls] == ["a", "b", "c"]
    assert roles(scout) == ["system", "user", "assistant", "tool", "assistant"]
    assert answers(scout)


def test_async_tools_run_at_once():
    arrived = []

    async def meet(name: str) -> int:
        arrived.append(name)
        while len(arrived) < 2:
            await asyncio.sleep(0.001)
        return len(arrived)

    calls = [{"name": "meet", "arguments": {"name": name}} for name in "ab"]
    scout = scripted({"call": calls}, {"say": "done"}, tools=[meet], on=machine(SystemClock()))
    assert [run.result.text for run in scout.run("go").result().tool_calls] == ["2", "2"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"name": "ad"}, "there is no tool 'ad'; did you mean 'add'?"),
        ({"name": "add", "arguments": "[1, 2]"}, "the arguments are a JSON list; one JSON object is needed. Call the tool again."),
        ({"name": "add", "arguments": "NaN"}, "NaN is no JSON value"),
        ({"name": "add", "arguments": "[" * 100_000}, "the arguments are not valid JSON"),
        ({"name": "add", "arguments": '{"a": 1}'}, "b"),
        ({"name": "fail"}, "KeyError: 'no such key'"),
        ({"name": "refuse"}, "nothing is there; look elsewhere."),
        ({"name": "leave"}, "SystemExit: 3"),
    ],
)
def test_a_tool_call_that_fails_is_answered_for_the_model(call, said):
    def fail() -> None:
        raise KeyError("no such key")

    def refuse() -> None:
        raise ToolError("nothing is there", right="look elsewhere")

    def leave() -> None:
        raise SystemExit(3)

    scout = scripted({"call": [call]}, {"say": "I see"}, tools=[add, fail, refuse, leave])
    result = scout.run("go").result()
    assert result.text == "I see"
    assert said in result.tool_calls[0].error
    assert answers(scout)


def test_a_tool_that_never_returns_is_given_up():
    from llmproc_nb import tool

    never = threading.Event()

    @tool(timeout_s=0.05)
    def wait() -> None:
        """Wait."""
        never.wait(20)

    scout = scripted({"call": [{"name": "wait"}]}, {"say": "gave up"}, tools=[wait], on=machine(SystemClock()))
    result = scout.run("go").result(timeout_s=5)
    never.set()
    assert result.tool_calls[0].outcome == "timed_out"
    assert "whether it took effect is unknown" in result.tool_calls[0].error


def test_equal_call_ids_are_told_apart():
    twice = [{"name": "add", "id": "x", "arguments": {"a": 1, "b": n}} for n in (1, 2)]
    scout = scripted({"call": twice}, {"call": twice[:1]}, {"say": "done"}, tools=[add])
    scout.run("go").result()
    assert [call.id for message in scout.messages for call in message.tool_calls] == ["x", "x_2", "x_3"]
    assert answers(scout)


def test_a_reply_that_was_cut_off_runs_no_tool():
    ran = []
    scout = scripted(
        {"say": "let me", "call": [{"name": "ran", "arguments": '{"x": 1'}], "stop": "max_tokens"}, tools=[_named(ran.append, "ran")]
    )
    result = scout.run("go").result()
    assert (result.stop_reason, ran, result.tool_calls[0].outcome) == ("max_tokens", [], "refused")
    assert answers(scout)


def _named(function, name):
    def call(x: int) -> None:
        function(x)

    call.__name__ = name
    return call


def test_steps_are_limited_and_the_process_goes_on():
    scout = scripted(*[{"call": [{"name": "add", "arguments": {"a": 1, "b": n}}]} for n in range(4)], {"say": "done"}, tools=[add])
    first = scout.run("go", max_iterations=2).result()
    assert (first.stop_reason, first.api_call_count, first.tool_call_count) == ("max_steps", 2, 2)
    assert answers(scout)
    assert scout.run("go on").result().text == "done"


@pytest.mark.parametrize(("limits", "reason"), [(Limits(tokens=1), "max_total_tokens"), (Limits(seconds=0.0), "max_seconds")])
def test_limits_end_a_call_with_their_reason(limits, reason):
    scout = scripted({"say": "one"}, {"say": "two"}, limits=limits)
    if reason == "max_total_tokens":
        scout.run("a").result()
    assert scout.run("b").result().stop_reason == reason


def test_passing_faults_are_retried_and_nothing_is_doubled():
    scout = scripted({"say": "hello there", "error": "Overloaded", "fail": 4})
    said = []
    result = scout.run("hi", on_delta=said.append).result()
    assert result.text == "hello there"
    assert [event.attempt for event in events(scout, AttemptFailed)] == [1, 2, 3, 4]
    assert scout.machine.clock.slept_s == [0.5, 1.0, 2.0, 4.0]
    assert roles(scout) == ["system", "user", "assistant"]
    assert result.api_calls[0].attempts == 5
    last = [delta.text for delta in said[len(said) - [delta.kind for delta in reversed(said)].index("reset") :]]
    assert "".join(last) == "hello there"


def test_what_a_failed_attempt_said_and_cost_is_kept():
    scout = scripted({"say": "hello there", "error": "ConnectionLost", "fail": 1})
    result = scout.run("hi").result()
    failed = events(scout, AttemptFailed)[0]
    assert failed.partial.text == "hello there"
    assert result.usage.requests == 2


def test_a_final_fault_takes_the_question_back():
    scout = scripted({"say": "x", "error": "RequestRefused"})
    before = scout.head
    with pytest.raises(RequestRefused):
        scout.run("hi").result()
    assert scout.head is before
    assert [event.reason for event in events(scout, Moved)] == ["failed"]
    assert [event.reason for event in events(scout, Stopped)] == ["error"]


def test_a_fault_that_does_not_pass_is_raised_in_the_end():
    scout = scripted({"say": "", "error": "Overloaded"})
    with pytest.raises(Overloaded):
        scout.run("hi").result()
    assert len(events(scout, AttemptFailed)) == 8
    assert events(scout, AttemptFailed)[-1].retry_in_s is None


def test_a_fault_after_tools_ran_keeps_what_they_gave():
    scout = scripted({"call": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}, {"error": "RequestRefused"}, tools=[add])
    with pytest.raises(RequestRefused):
        scout.run("hi").result()
    assert roles(scout) == ["system", "user", "assistant", "tool"]


def test_a_cancelled_call_keeps_what_was_said():
    scout = scripted({"say": "one two three four five six", "delay_s": 0.05}, {"say": "going on"}, on=machine(SystemClock()))
    call = scout.run("hi")
    time.sleep(0.13)
    call.cancel()
    result = call.result(timeout_s=2)
    assert result.stop_reason == "interrupted"
    assert result.text.startswith("one") and "six" not in result.text
    assert scout.head.message.interrupted
    assert scout.run("go on").result().text == "going on"


def test_a_call_cancelled_while_tools_run_answers_them_all():
    started = threading.Event()

    async def wait() -> None:
        started.set()
        await asyncio.sleep(30)

    calls = [{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "wait"}]
    scout = scripted({"call": calls}, {"say": "going on"}, tools=[add, wait], on=machine(SystemClock()))
    call = scout.run("hi")
    started.wait(2)
    time.sleep(0.05)
    call.cancel()
    assert call.result(timeout_s=2).stop_reason == "interrupted"
    assert [event.outcome for event in sorted(events(scout, ToolRan), key=lambda event: event.position)] == ["ran", "interrupted"]
    assert answers(scout)
    assert scout.run("go on").result().text == "going on"


def test_a_cancelled_await_cancels_the_call():
    scout = scripted({"say": "one two three", "delay_s": 1}, on=machine(SystemClock()))

    async def main():
        call = scout.run("hi")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.1)
        return call

    assert asyncio.run(main()).result(timeout_s=2).stop_reason == "interrupted"


def test_a_call_keeps_to_the_time_that_is_given_to_it():
    scout = scripted({"say": "one two three", "delay_s": 1}, on=machine(SystemClock()))

    async def main():
        async with asyncio.timeout(0.1):
            await scout.run("hi")

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_calls_of_one_process_take_turns():
    scout = scripted({"say": "one", "delay_s": 0.05}, {"say": "two"}, on=machine(SystemClock()))
    first, second = scout.run("a"), scout.run("b")
    assert (second.result().text, first.result().text) == ("two", "one")
    assert roles(scout) == ["system", "user", "assistant", "user", "assistant"]


def test_callbacks_hear_tools_and_answers():
    heard = []

    async def on_response(text):
        heard.append(("response", text))

    scout = scripted({"say": "let me", "call": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}, {"say": "it is 3"}, tools=[add])
    scout.run(
        "go",
        callbacks={
            "on_tool_start": lambda name, arguments: heard.append(("start", name, arguments)),
            "on_tool_end": lambda name, result: heard.append(("end", name, result.text)),
            "on_response": on_response,
        },
    ).result()
    assert heard == [("response", "let me"), ("start", "add", {"a": 1, "b": 2}), ("end", "add", "3"), ("response", "it is 3")]


def test_a_reply_of_tool_calls_alone_is_no_text_to_hear():
    heard = []
    scout = scripted({"call": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}, {"say": "it is 3"}, tools=[add])
    scout.run("go", callbacks={"on_response": heard.append}).result()
    assert heard == ["it is 3"]


def test_a_callback_that_raises_stops_nothing():
    scout = scripted({"call": [{"name": "add", "arguments": {"a": 1, "b": 2}}], "say": "zero"}, {"say": "one"}, tools=[add])
    with pytest.warns(RuntimeWarning) as warned:
        assert scout.run("go", callbacks={"on_response": lambda text: 1 / 0}).result().text == "one"
    assert [str(one.message) for one in warned] == [
        "scout: the callback on_response raised ZeroDivisionError: division by zero; it was not called again"
    ]
    assert [(event.reader, event.error) for event in events(scout, ReaderFailed)] == [
        ("on_response", "ZeroDivisionError: division by zero")
    ]


def test_a_callback_that_raises_stops_nothing_where_warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scripted({"say": "one"}).run("go", callbacks={"on_response": lambda text: 1 / 0}).result().text == "one"


def test_a_reader_that_raises_is_taken_off():
    scout = scripted({"say": "one"})
    scout.machine.log.add(lambda event: {}[event.kind])
    assert scout.run("go").result().text == "one"
    assert len([event for event in scout.machine.log.events if isinstance(event, ReaderFailed)]) == 1


def test_a_killed_process_takes_no_call():
    scout = scripted({"say": "one two three", "delay_s": 0.2}, on=machine(SystemClock()))
    call = scout.run("go")
    time.sleep(0.05)
    scout.kill()
    assert call.result(timeout_s=2).stop_reason == "killed"
    with pytest.raises(CallStateError, match="was killed"):
        scout.run("again")


def test_an_empty_prompt_is_refused_before_anything_is_sent():
    scout = scripted({"say": "one"})
    with pytest.raises(PromptError):
        scout.run("  \n")
    assert "called" not in kinds(scout)


def test_reset_goes_back_and_keeps_what_was_said():
    scout = scripted({"say": "one"}, {"say": "two"})
    scout.run("go").result()
    said = scout.head
    scout.reset_state()
    assert roles(scout) == ["system"] and said in list(scout.machine.dialog)
    assert scout.run("go").result().nodes[-1] is said
    assert scout.get_last_message() == "one"


def test_equal_dialogs_share_their_nodes():
    house = machine()
    first, second = (scripted({"say": "one"}, on=house, name=name) for name in ("a", "b"))
    first.run("go").result(), second.run("go").result()
    assert first.head is second.head


def test_waiting_on_the_owner_loop_is_refused():
    scout = scripted({"say": "inner"}, {"say": "outer"})

    async def ask() -> str:
        try:
            other.run("x").result()
        except CallStateError as error:
            return error.found + " / " + (await other.run("x")).text
        return "it waited"

    other = scripted({"say": "hello"}, {"say": "hello"}, on=scout.machine, name="other")
    scout.add_tools([ask])
    scout.program = scout.program.replace(script=())
    asker = scripted({"call": [{"name": "ask"}]}, {"say": "{{result}}"}, tools=[ask], on=scout.machine, name="asker")
    assert asker.run("go").result(timeout_s=5).text == "a coroutine on the owner loop waits for a call that runs there too / hello"


def test_a_result_counts_everything():
    scout = scripted({"say": "let me", "call": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}, {"say": "it is 3"}, tools=[add])
    result = scout.run("go").result()
    run = result.tool_calls[0]
    assert (run.name, run.arguments, run.result, run.outcome, run.error) == (
        "add",
        {"a": 1, "b": 2},
        ToolResult(call_id=run.result.call_id, name="add", content=run.result.content),
        "ran",
        None,
    )
    assert result.usage == sum((call.usage for call in result.api_calls), Usage())
    assert (result.stop_reason, result.cost_usd, result.scripted, result.model) == ("end_turn", 0.0, True, "script")
    assert [event.stop for event in events(scout, Replied)] == ["tool_use", "end_turn"]


def test_lone_surrogates_do_not_get_in():
    def broken() -> str:
        return "a\ud800b"

    scout = scripted({"say": "c\udfffd", "call": [{"name": "broken", "arguments": '{"x": "\\ud800"}'}]}, {"say": "ok"}, tools=[broken])
    scout.run("e\ud83df").result()
    for message in scout.messages:
        repr(message).encode()
        message.text.encode()
