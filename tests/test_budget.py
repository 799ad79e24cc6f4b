"""Limits of tokens and dollars hold for many requests at once: those that might not fit wait for what the others took."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from caching import CachingServer

from llmproc_nb import Program, new_machine
from llmproc_nb.api import Machine, Process
from llmproc_nb.core.event import Warned
from llmproc_nb.core.usage import Limits

MODEL = "claude-sonnet-4-5"
ANSWER = "word " * 500
ONE_USD = 0.012
"""More than one request with such an answer costs."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    made = new_machine(log=None)
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[CachingServer]:
    with CachingServer(delay_s=0.02, text=ANSWER) as made:
        yield made


def start(machine: Machine, server: CachingServer, model: str = MODEL, **limits: float) -> Process:
    program = Program(name="scout", provider="anthropic", base_url=server.url, model=model, limits=Limits(**limits))  # type: ignore[arg-type]
    return program.start(machine=machine)


def test_a_limit_of_dollars_stops_a_process(machine: Machine, server: CachingServer) -> None:
    process = start(machine, server, cost_usd=0.02)
    reasons = [process.run("go on").result().stop_reason for _ in range(5)]
    assert reasons[0] == "end_turn" and reasons[-1] == "max_cost" and 0.02 <= process.usage.cost_usd < 0.02 + ONE_USD


@pytest.mark.parametrize("known", [False, True])
def test_a_fan_out_goes_no_further_than_one_request_beyond_its_dollars(machine: Machine, server: CachingServer, known: bool) -> None:
    process = start(machine, server, cost_usd=0.1)
    if known:
        process.run("hello").result()
    branches = process.fork_map([f"question {number:02}" for number in range(40)]).wait()
    assert {branch.stop_reason for branch in branches} == {"end_turn", "max_cost"}
    assert 0.1 - ONE_USD <= process.usage.cost_usd < 0.1 + ONE_USD
    assert server.peak > 1  # as many at once as fit


def test_a_fan_out_goes_no_further_than_one_request_beyond_its_tokens(machine: Machine, server: CachingServer) -> None:
    process = start(machine, server, tokens=5000)
    process.fork_map(["x"] * 50).wait()
    assert 4000 <= process.usage.total_tokens < 6000


def test_the_limits_of_all_above_hold_at_once(machine: Machine, server: CachingServer) -> None:
    parent = start(machine, server, cost_usd=0.05)
    children = [parent.spawn(Program(name=f"c{n}", provider="anthropic", base_url=server.url, model=MODEL)) for n in range(12)]
    calls = [child.run("what?") for child in children]
    assert {call.result().stop_reason for call in calls} == {"end_turn", "max_cost"}
    assert parent.usage.cost_usd < 0.05 + ONE_USD


def test_who_waits_for_room_can_be_stopped_and_runs_out_of_time(machine: Machine, server: CachingServer) -> None:
    server.options.delay_s = 1.0
    process = start(machine, server, cost_usd=0.011)
    branches = process.fork_map(["a", "b", "c"])
    time.sleep(0.2)
    branches[1].call.cancel()
    assert branches[1].call.result().stop_reason == "interrupted"
    branches.wait()
    assert branches[0].stop_reason == "end_turn" and process.usage.requests <= 2
    late = start(machine, server, cost_usd=0.011, seconds=0.3)
    assert {branch.stop_reason for branch in late.fork_map(["a", "b"]).wait()} == {"max_seconds"}


def test_a_limit_of_dollars_that_cannot_hold_is_said(machine: Machine, server: CachingServer) -> None:
    process = start(machine, server, "no-such-model", cost_usd=0.01)
    assert "no price of no-such-model is known" in process.notes[0]
    assert any("never stops it" in event.text for event in machine.log.events if isinstance(event, Warned))
    assert start(machine, server, cost_usd=0.01).notes == ()
