"""Many calls, few faults: all end right, nothing is doubled, waits are seen and can be stopped; the loop under random turns and stops."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Answer, Seen
from test_faults import CHAT, Api, House, every_api, legal, ordered

from llmproc_nb import Limits, Program, new_machine, read_log, tool
from llmproc_nb.core.errors import CallStateError, LlmprocError
from llmproc_nb.core.event import AttemptFailed, Replied, Stopped, ToolRan, ToolStarted
from llmproc_nb.core.usage import Usage


class QuickClock:
    """Real time, run faster: a second of waiting takes 1 / `speed` seconds."""

    def __init__(self, speed: float = 50) -> None:
        self._speed, self._chance = speed, random.Random(1)

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic() * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)

    def jitter(self) -> float:
        return self._chance.uniform(0.75, 1.25)


def _question(api: Api, body: Any) -> tuple[int, bool]:
    """The number in the question of a request, and whether its tool has answered."""
    messages = body["input"] if "input" in body else body["messages"]
    text = str(next(message["content"] for message in messages if message.get("role") == "user"))
    number = int(next(word for word in text.replace("'", " ").replace("}", " ").split() if word.isdigit()))
    return number, len(messages) > (2 if api is CHAT else 1)


def _broken(api: Api, whole: list[bytes], kind: int) -> Any:
    """One of ten ways in which a reply can fail."""
    half = whole[: max(1, len(whole) // 2)]
    return [
        api.fault(429, "rate_limit_error", "slow down", {"retry-after": "1"}),
        api.fault(529, "overloaded_error", "Overloaded"),
        api.fault(500, "api_error", "Internal"),
        ConnectionResetError(),
        Answer(chunks=half, then="reset"),
        Answer(chunks=half, then="cut"),
        Answer(chunks=[*half, b"data: {garbled\n\n", *whole[-1:]]),
        Answer(chunks=[*half, api.error_event("overloaded_error", "Overloaded")]),
        Answer(chunks=half),
        Answer(503, {"content-type": "text/html"}, "<html>unavailable</html>"),
    ][kind]


CALLS, FAILING, FAILS = 200, 20, 4


@every_api
def test_two_hundred_calls_of_which_a_tenth_fails_four_times_all_end_right(api: Api, tmp_path: Path) -> None:
    asked: Counter[tuple[int, bool]] = Counter()
    ran: Counter[int] = Counter()
    faults: list[int] = []

    def record(number: int) -> str:
        """Write a number down; must not happen twice."""
        ran[number] += 1
        return f"recorded {number}"

    def answer(seen: Seen, n: int) -> Answer:
        number, answered = _question(api, seen.body)
        asked[number, answered] += 1
        whole = api.text(f"the answer to {number} is whole") if answered else api.tools([(f"c{number}", "record", {"number": number})])
        # of the calls that fail, one half fails before the tool ran and one half after
        if number < FAILING and answered == (number % 2 == 1) and asked[number, answered] <= FAILS:
            faults.append(number)
            made = _broken(api, whole, (number // 2 + asked[number, answered] - 1) % 10)
            if isinstance(made, Exception):
                raise made
            return made  # type: ignore[no-any-return]
        return Answer(chunks=whole)

    with House(api, tmp_path, answer, tools=[record], clock=QuickClock()) as house:
        processes = [house.scout.program.start(f"p{number}", machine=house.machine) for number in range(CALLS)]  # type: ignore[attr-defined]
        heard: list[list[Any]] = [[] for _ in processes]
        calls = [process.run(f"question {n}", on_delta=heard[n].append) for n, process in enumerate(processes)]
        results = [call.result(timeout_s=60) for call in calls]

        assert [result.text for result in results] == [f"the answer to {number} is whole" for number in range(CALLS)]
        assert ran == Counter(range(CALLS)) and len(faults) == FAILING * FAILS
        assert Counter(asked.values()) == {1: 2 * CALLS - FAILING, FAILS + 1: FAILING}
        assert [[run.result.text for run in result.tool_calls] for result in results] == [[f"recorded {n}"] for n in range(CALLS)]
        assert all(len(process.path) == 5 for process in processes)
        for deltas, result in zip(heard, results, strict=True):
            last = max((at for at, delta in enumerate(deltas) if delta.kind == "reset"), default=-1)
            assert "".join(delta.text for delta in deltas[last + 1 :] if delta.kind == "text") == result.text
        assert len(house.events(AttemptFailed)) == FAILING * FAILS
        assert len(house.events(ToolStarted)) == len(house.events(ToolRan)) == CALLS
        assert len(house.events(Replied)) == 2 * CALLS
        for process, result in zip(processes, results, strict=True):
            legal(process.path)
            assert process.usage == result.usage
        for seen in house.server.seen:
            api.check(seen.body)
        ordered(house.machine.log.events)
        house.check_log()


ROOM = 5


def test_the_limiter_finds_how_many_requests_a_server_takes(tmp_path: Path) -> None:
    active = refused = most = 0

    def stream(text: str) -> Iterator[bytes]:
        nonlocal active
        try:
            yield from CHAT.text(text)
        finally:
            active -= 1

    def answer(seen: Seen, n: int) -> Answer:
        nonlocal active, refused, most
        if active >= ROOM:
            refused += 1
            return CHAT.fault(429, "rate_limit_error", "too many at once")
        active += 1
        most = max(most, active)
        return Answer(chunks=stream("ok"), delay_s=0.01)

    with House(CHAT, tmp_path, answer, clock=QuickClock()) as house:
        processes = [house.scout.program.start(f"p{number}", machine=house.machine) for number in range(60)]  # type: ignore[attr-defined]
        heard: list[Any] = []
        calls = [process.run(f"question {n}", on_delta=heard.append) for n, process in enumerate(processes)]
        assert [call.result(timeout_s=60).text for call in calls] == ["ok"] * 60
        limiter = house.scout.limiter
        assert most == ROOM and refused <= 40, refused
        assert ROOM / 2 <= limiter.limit <= ROOM * 2, limiter.limit
        assert (limiter.active, len(house.events(AttemptFailed))) == (0, refused)
        assert any(delta.kind == "wait" and "under way" in delta.text for delta in heard)


def test_a_pause_the_api_asks_for_holds_everyone_and_is_seen(tmp_path: Path) -> None:
    times: list[float] = []

    def answer(seen: Seen, n: int) -> Answer:
        times.append(time.monotonic())
        return CHAT.fault(429, "rate_limit_error", "slow down", {"retry-after": "20"}) if n == 0 else CHAT.says("ok")

    with House(CHAT, tmp_path, answer, clock=QuickClock()) as house:
        processes = [house.scout.program.start(f"p{number}", machine=house.machine) for number in range(5)]  # type: ignore[attr-defined]
        first = processes[0].run("question 0")
        while not house.events(AttemptFailed):
            time.sleep(0.002)
        heard: list[Any] = []
        others = [process.run("question", on_delta=heard.append) for process in processes[1:]]
        assert [call.result(timeout_s=20).text for call in (first, *others)] == ["ok"] * 5
        assert min(times[1:]) - times[0] >= 0.38
        assert Counter(delta.text for delta in heard if delta.kind == "wait") == {"the API asked for a pause of 20 s": 4}


def test_a_pause_made_longer_meanwhile_is_waited_for_to_its_end(tmp_path: Path) -> None:
    times: list[float] = []

    def answer(seen: Seen, n: int) -> Answer:
        times.append(time.monotonic())
        waits = {0: "5", 1: "40"}
        if n in waits:
            return CHAT.fault(429, "rate_limit_error", "slow down", {"retry-after": waits[n]})
        return CHAT.says("ok")

    with House(CHAT, tmp_path, answer, clock=QuickClock()) as house:
        processes = [house.scout.program.start(f"p{number}", machine=house.machine) for number in range(6)]  # type: ignore[attr-defined]
        house.scout.limiter.limit = 1.0  # one after the other: the second asks when the first pause is over and makes it longer
        calls = [process.run("question") for process in processes]
        assert [call.result(timeout_s=20).text for call in calls] == ["ok"] * 6
        assert times[2] - times[1] >= 0.75


# stopping


def _stopped(call: Any) -> Any:
    """The result of a call that is stopped now, which must take no time."""
    began = time.monotonic()
    call.cancel()
    result = call.result(timeout_s=5)
    assert time.monotonic() - began < 2
    assert result.stop_reason == "interrupted"
    return result


def _until(what: Any) -> None:
    end = time.monotonic() + 5
    while not what():
        assert time.monotonic() < end
        time.sleep(0.002)


@every_api
def test_a_call_stopped_while_it_waits_to_try_again_ends_at_once_and_counts_nothing_twice(api: Api, tmp_path: Path) -> None:
    chunks = api.text("half of it")
    broken = Answer(chunks=chunks[: len(chunks) // 2], then="cut")
    with House(api, tmp_path, [broken], clock=QuickClock(0.05)) as house:
        call = house.scout.run("hello")
        _until(lambda: house.events(AttemptFailed))
        time.sleep(0.05)
        result = _stopped(call)
        assert (result.text, [message.role for message in house.scout.messages]) == ("", ["system", "user"])
        assert len(house.events(Replied)) == 0
        house.goes_on()


def test_calls_stopped_in_a_pause_and_in_the_queue_end_at_once(tmp_path: Path) -> None:
    with House(CHAT, tmp_path, [CHAT.fault(429, "rate_limit_error", "slow down", {"retry-after": "60"})], clock=QuickClock(1)) as house:
        processes = [house.scout.program.start(f"p{number}", machine=house.machine) for number in range(3)]  # type: ignore[attr-defined]
        heard: list[Any] = []
        first = processes[0].run("hello")
        _until(lambda: house.events(AttemptFailed))
        house.scout.limiter.limit = 1.0
        in_pause = processes[1].run("hello", on_delta=heard.append)
        in_queue = processes[2].run("hello", on_delta=heard.append)
        _until(lambda: len(heard) == 2)
        assert sorted(delta.text.split(" a ")[0] for delta in heard) == ["1 request under way", "the API asked for"]
        for call in (in_queue, in_pause, first):
            _stopped(call)
        assert house.scout.limiter.active == 0
        ordered(house.machine.log.events)


@every_api
def test_a_call_stopped_many_times_while_tools_run_answers_each_tool_once(api: Api, tmp_path: Path) -> None:
    begun: list[str] = []

    async def tidy() -> None:
        """Take a while to end."""
        begun.append("tidy")
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)

    async def deaf() -> None:
        """Never end."""
        begun.append("deaf")
        while True:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                continue

    def stuck() -> None:
        """Sleep on a thread that nobody can stop."""
        begun.append("stuck")
        time.sleep(3)

    offered = [tidy, deaf, stuck]
    calls = [(f"c{n}", function.__name__, {}) for n, function in enumerate(offered)]
    with House(api, tmp_path, [api.calls(*calls)], tools=offered, clock=QuickClock(1)) as house:
        call = house.scout.run("hello")
        _until(lambda: len(begun) == 3)
        began = time.monotonic()
        for _ in range(20):
            call.cancel()
            time.sleep(0.003)
        assert call.result(timeout_s=5).stop_reason == "interrupted"
        assert time.monotonic() - began < 2
        assert [run.outcome for run in call.result().tool_calls] == ["interrupted"] * 3
        house.goes_on()


def test_a_call_stopped_before_it_begins_says_so(tmp_path: Path) -> None:
    with House(CHAT, tmp_path, [CHAT.says("ok")], clock=QuickClock(1)) as house:

        async def start_and_stop() -> Any:  # on the owner loop both come before the call's own first step
            call = house.scout.run("hello")
            call.cancel()
            return call

        call = house.machine.owner.wait(start_and_stop(), 5)
        with pytest.raises(CallStateError, match="stopped before it began"):
            call.result(timeout_s=1)
        house.goes_on()


def test_a_call_stopped_while_a_callback_hears_of_a_tool_answers_it_once(tmp_path: Path) -> None:
    heard: list[str] = []

    async def on_tool_end(name: str, result: Any) -> None:
        heard.append(name)
        await asyncio.sleep(30)

    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    with House(CHAT, tmp_path, [CHAT.calls(("c1", "add", {"a": 1, "b": 2}))], tools=[add], clock=QuickClock(1)) as house:
        call = house.scout.run("hello", callbacks={"on_tool_end": on_tool_end})
        _until(lambda: heard)
        result = _stopped(call)
        assert [(run.outcome, run.result.text) for run in result.tool_calls] == [("ran", "3")]
        house.goes_on()


# the loop under random turns


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def explode() -> None:
    """Raise."""
    raise ValueError("it broke")


def on_a_thread() -> str:
    """Take a while on a thread."""
    time.sleep(0.01)
    return "slept"


@tool(timeout_s=0.03)
async def slow() -> str:
    """Take longer than it may."""
    await asyncio.sleep(30)
    return "late"


async def short() -> str:
    """Take a moment."""
    await asyncio.sleep(0.002)
    return "a moment"


async def give_up() -> str:
    """Stop itself."""
    raise asyncio.CancelledError


TOOLS = [add, explode, on_a_thread, slow, short, give_up]
a_call = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["add", "add", "short", "explode", "on_a_thread", "slow", "give_up", "addd", ""]),
        "arguments": st.sampled_from([{}, {"a": 1, "b": 2}, {"a": "x"}, "{", "[]", "", '{"a": 1, "b": ']),
    }
)
a_turn = st.fixed_dictionaries(
    {"say": st.sampled_from(["", "one", "one two three four five six"]), "call": st.lists(a_call, max_size=4)},
    optional={
        "think": st.just("hm, let me see"),
        "delay_s": st.just(0.003),
        "stop": st.sampled_from(["max_tokens", "refusal", "end_turn", "pause_turn", "context_window", "other", "tool_use"]),
        "error": st.sampled_from(["Overloaded", "RateLimited", "ConnectionLost", "GarbledReply", "RequestRefused", "Unreachable"]),
        "fail": st.integers(0, 3),
    },
)
some_limits = st.builds(
    Limits, max_iterations=st.integers(1, 6), steps=st.none() | st.integers(1, 9), tokens=st.none() | st.integers(1, 400)
)


@settings(max_examples=int(os.environ.get("LLMPROC_NB_EXAMPLES", "120")))
@given(
    turns=st.lists(a_turn, min_size=1, max_size=5),
    stops_ms=st.lists(st.integers(0, 60), max_size=3),
    limits=some_limits,
    count=st.integers(1, 3),
)
def test_whatever_happens_the_path_is_legal_and_the_log_is_whole(
    turns: list[dict[str, Any]], stops_ms: list[int], limits: Limits, count: int
) -> None:
    script = ({"when": "^GO ON$", "say": "fine"}, *turns, *({"say": "the end"},) * 8)
    program = Program(name="scout", provider="scripted", model="script", script=script, tools=tuple(TOOLS), limits=limits)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        machine = new_machine(log=path, clock=QuickClock(1000))
        processes = [program.start(machine=machine) for _ in range(count)]
        calls = [process.run("go") for process in processes]
        began = time.monotonic()
        for stop_ms in sorted(stops_ms):
            time.sleep(max(0.0, began + stop_ms / 1000 - time.monotonic()))
            for call in calls:
                call.cancel()
        for process, call in zip(processes, calls, strict=True):
            _ended(call)
            legal(process.path)
            assert process.usage == _spent(machine, process.pid, Stopped) == _spent(machine, process.pid, Replied, AttemptFailed)
            after = process.run("GO ON").result(timeout_s=10)
            assert after.stop_reason in ("max_total_steps", "max_total_tokens") or (after.text, after.stop_reason) == ("fine", "end_turn")
            legal(process.path)
        ordered(machine.log.events)
        machine.close()
        log = read_log(path)
        assert log.events == tuple(machine.log.events)
        assert {node.id for node in log.dialog()} == {node.id for node in machine.dialog}


def _ended(call: Any) -> None:
    try:
        call.result(timeout_s=10)
    except (LlmprocError, CallStateError) as error:
        assert str(error)


def _spent(machine: Any, pid: int, *kinds: type) -> Usage:
    return sum((event.usage for event in machine.log.events if isinstance(event, kinds) and event.pid == pid), Usage())
