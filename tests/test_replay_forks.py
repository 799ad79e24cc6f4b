"""Replays of runs with forks, gotos, spawns, messages and fds: made again from the log alone, and replayed in a machine with its tools."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from typing import Any

import family
import msgspec
import pytest
from machines import machine as real_machine
from simple import machine

from llmproc_nb.core.clock import FixedClock, SystemClock
from llmproc_nb.core.errors import ReplayMiss
from llmproc_nb.core.event import AnyEvent, Appended, Called, Replied, Started
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import Request
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.logfile import LogFile
from llmproc_nb.drivers.rebuild import rebuild
from llmproc_nb.drivers.replay import Recording, reexecute
from llmproc_nb.drivers.schema import tool as declare
from llmproc_nb.drivers.table import LateDrivers


@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory) -> Sequence[AnyEvent]:
    """The events of a run with everything in it, as they are read from disk."""
    path = tmp_path_factory.mktemp("rich") / "a.jsonl"
    running = machine(path)
    family.full_run(running)
    running.close()
    return LogFile(path).events


def test_a_run_with_everything_in_it_is_made_again_equal_node_by_node(happened: Sequence[AnyEvent]) -> None:
    comparison = reexecute(happened)
    begun = [event for event in happened if isinstance(event, Started)]
    calls = [event for event in happened if isinstance(event, Called)]
    nodes = {event.node for event in happened if isinstance(event, Appended) and event.call is not None}
    assert str(comparison) == f"{len(begun)} processes, {len(calls)} calls, {len(nodes)} nodes: all equal"
    assert {event.node for event in happened if isinstance(event, Replied)} <= nodes


def test_every_beginning_of_it_can_be_made_again(happened: Sequence[AnyEvent]) -> None:
    for end in range(1, len(happened) + 1, 2):
        comparison = reexecute(happened[:end])
        assert comparison.equal, f"{end} events: {comparison}"


def test_it_is_made_again_with_the_real_drivers_and_from_the_log_of_a_resumed_kernel(happened: Sequence[AnyEvent]) -> None:
    assert reexecute(happened, lambda recording: machine(recorded=recording)).equal
    running = machine()
    rebuild(happened, running, tools=(family.report, family.add))
    running.find("scout").run("split").result()
    comparison = reexecute(running.log.events)
    assert (comparison.equal, comparison.calls) == (True, 3), str(comparison)


def never(request: Request) -> None:
    raise AssertionError("the real provider was asked")


def standing(on: Machine) -> dict[str, tuple[object, ...]]:
    """Where each process stands, with what numbers and fds, by lineage."""
    return {
        one.lineage: (
            [node.id for node in one.path],
            sorted((number, node.id) for number, node in one.labels.newest_first()),
            [(fd.number, fd.label, fd.text.digest, one.fds.reads(fd.number)) for fd in one.fds],
            one.inbox,
            one.usage,
        )
        for one in on.processes.values()
    }


class Priced(LateDrivers):
    cost_usd: float | None = 0.5

    def price(self, *of: Any) -> float | None:
        return self.cost_usd


def test_a_merge_replays_to_the_same_node_after_failed_attempts_an_interrupt_and_a_change_of_prices() -> None:
    script = (
        {"when": "^think", "say": "tried", "error": "Overloaded", "fail": 2},
        {"when": "^slow", "say": "slowly " * 100, "delay_s": 0.01},
        {"when": ".", "say": "{{last}}"},
    )
    plain = Program(name="scout", provider="scripted", model="m", script=script)
    recorded = Machine(Priced(dict), clock=FixedClock())

    def full_run(on: Machine, program: Program, *, stop: bool = False) -> list[str]:
        scout = on.start(program)
        child = scout.fork("idea")
        child.run("think").result()
        scout.merge(child)
        call = child.run("slow")
        if stop:
            time.sleep(0.3)
            call.cancel()
        call.result()
        scout.merge(child)
        scout.run("and now?").result()
        return [message.text for message in scout.messages]

    said = full_run(recorded, plain, stop=True)
    assert 'cost_usd="0.5000"' in said[1] and ' stopped="interrupted"' in said[2]
    drivers = Priced(dict)
    drivers.cost_usd = None
    assert full_run(Machine(drivers, clock=FixedClock(), recorded=Recording(recorded.log.events)), plain.replace(script=never)) == said
    assert reexecute(recorded.log.events).equal


@pytest.mark.parametrize("seed", range(20))
def test_children_that_answered_in_any_order_replay_to_the_same_ids_numbers_and_fds(seed: int) -> None:
    live = machine()
    family.full_run(live, family.SCOUT.replace(script=family.playing(random.Random(seed), forgetful=True)))
    again = machine(recorded=Recording(live.log.events))
    scout = family.full_run(again, family.SCOUT.replace(script=never))
    assert standing(again) == standing(live)
    assert all(event.replayed for event in again.log.events if isinstance(event, Replied))
    assert scout.usage == live.find("scout").usage
    assert reexecute(live.log.events).equal


def test_a_message_that_came_while_a_call_ran_is_read_at_the_same_place_again() -> None:
    def slow(process: Process) -> str:
        """Take time, in which somebody says something."""
        process.send("stop soon")
        process.send("very soon")
        return "done"

    live = machine()
    script = ({"when": "^go", "call": [{"name": "slow"}]}, {"when": ".", "say": "I read: {{last}}"})
    tool = msgspec.structs.replace(declare(slow), inject={"process": "process"})
    scout = live.start(Program(name="s", provider="scripted", model="m", script=script, tools=(tool,)))
    scout.send("before")
    assert str(scout.run("go")) == "I read: very soon"
    assert [message.text for message in scout.messages if message.role == "user"] == ["before", "go", "stop soon", "very soon"]
    assert str(reexecute(live.log.events)) == "1 process, 1 call, 7 nodes: all equal"


def test_a_fan_out_that_was_stopped_is_made_again_as_far_as_it_went() -> None:
    def script(request: Request) -> dict[str, Any]:
        if request.head.message.text == "split":
            return {"call": [family.call("fork", prompts=["a", "b", "c"])]}
        return {"say": "slowly " * 50, "delay_s": 0.05}

    live = machine()
    scout = live.start(Program(name="s", provider="scripted", model="m", script=script, tools=("fork",)))
    call = scout.run("split")
    while len(live.processes) < 4 or not all(child.running for child in live.children(scout)):
        time.sleep(0.01)
    time.sleep(0.2)
    call.cancel()
    assert call.result().stop_reason == "interrupted"
    for child in live.children(scout):
        child.calls[0].settle(5)
    comparison = reexecute(live.log.events)
    assert (comparison.equal, comparison.processes, comparison.calls) == (True, 4, 4), str(comparison)


@pytest.mark.parametrize("how", ["interrupted", "max_seconds"])
def test_a_fan_out_that_was_cut_short_replays_with_what_its_children_had_said(how: str) -> None:
    def script(request: Request) -> Any:
        words = request.head.message.text
        calls = {"split": family.call("fork", prompts=["a", "b", "c"]), "c": family.call("fork", prompts=["b"])}
        if words in calls:
            return {"call": [calls[words]]}
        return {"a": "an answer", "b": {"say": "slowly " * 500, "delay_s": 0.05}}.get(words, "fine")

    limits = Limits(seconds=0.7) if how == "max_seconds" else Limits()
    declared = Program(name="s", provider="scripted", model="m", script=script, tools=("fork",), limits=limits)
    live = real_machine(SystemClock())
    scout = live.start(declared)
    call = scout.run("split")
    if how == "interrupted":
        time.sleep(0.7)
        call.cancel()
    assert call.result().stop_reason == how
    for child in live.children(scout):
        child.calls[0].settle(5)
    if how == "interrupted":
        assert str(scout.run("and now?")) == "fine"
    assert [one["message"][:6] for one in json.loads(scout.path[3].message.tool_results[0].text)] == ["an ans", "slowly", "(no te"]
    comparison = reexecute(live.log.events)
    assert (comparison.equal, comparison.processes) == (True, 5), str(comparison)
    again = machine(recorded=Recording(live.log.events))
    replayed = again.start(declared.replace(script=never))
    assert replayed.run("split").result().stop_reason == how
    if how == "interrupted":
        assert str(replayed.run("and now?")) == "fine"
    assert standing(again) == standing(live)


def test_a_child_that_is_told_something_else_is_missed_by_its_message(happened: Sequence[AnyEvent]) -> None:
    again = machine(recorded=Recording(happened))
    scout = again.start(family.SCOUT.replace(script=never))
    scout.spawn(family.PLAIN, "helper")
    for words in ("look", "read_fd again", "split", "wander", "background"):
        scout.run(words).result()
    (branch,) = scout.fork("idea").fork_map(["look up"]).wait()
    assert isinstance(branch.error, ReplayMiss)
    assert "is new: the recording ends before it" in str(branch.error) or "differs from the recorded one" in str(branch.error)
    assert "look up" in str(branch.error)
