"""Replay: the same answers and ids from a recording, a precise word where it has none, and a whole run made again and compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import simple
from machines import machine as real_machine
from simple import RAN, SCOUT, add, machine, recorded_run

from llmproc_nb.core.clock import SystemClock
from llmproc_nb.core.errors import LogError, PersonError, ProgramError, ProviderError, ReplayMiss, RequestRefused
from llmproc_nb.core.event import AnyEvent, Appended, Replied, ToolRan
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.message import Text
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import Delta, Draft, Reply, Request
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.jsonl import JsonlStore, RecordingStore
from llmproc_nb.drivers.logfile import LogFile
from llmproc_nb.drivers.replay import Recording, reexecute


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    recorded_run(tmp_path / "study.jsonl")
    RAN.clear()
    return LogFile(tmp_path / "study.jsonl")


def never(request: Request) -> None:
    raise AssertionError("the real provider was asked")


OFFLINE = SCOUT.replace(script=never)


def started(recording: Recording, program: Program = OFFLINE) -> Process:
    return machine(recorded=recording).start(program)


def test_replay_gives_the_same_ids_runs_no_tool_and_asks_nobody(log: LogFile) -> None:
    scout = started(Recording(log))
    results = [scout.run(words).result() for words in ("hello", "add it", "both now")]
    recorded = [event.node for event in log.events if isinstance(event, Replied)][:5]
    assert [call.node for result in results for call in result.api_calls] == recorded
    assert all(call.replayed for result in results for call in result.api_calls)
    assert [(run.name, run.result.text, run.replayed) for result in results for run in result.tool_calls] == [
        ("add", "5", True),
        ("add", "2", True),
        ("shout", "HI", True),
    ]
    assert (RAN, results[0].provider, results[0].scripted) == ([], "scripted", True)


@pytest.mark.parametrize(
    ("mode", "right"),
    [("reply", "did you mean 'replay'?"), (None, "it is one of replay, auto, record.")],
)
def test_a_mode_that_there_is_not_never_asks_live(log: LogFile, mode: Any, right: str) -> None:
    with pytest.raises(PersonError) as caught:
        Recording(log, mode)
    assert str(caught.value).startswith(f"Recording: there is no mode {mode!r}; {right}")


def test_a_replayed_call_costs_and_counts_what_it_did(log: LogFile) -> None:
    scout = started(Recording(log))
    usages = [scout.run(words).result().usage for words in ("hello", "add it")]
    recorded = [event.usage for event in log.events if isinstance(event, Replied)]
    assert usages == [recorded[0], recorded[1] + recorded[2]]


def test_a_live_view_sees_a_replayed_reply_in_pieces(log: LogFile) -> None:
    pieces: list[Delta] = []
    started(Recording(log)).run("hello", on_delta=pieces.append).result()
    assert len(pieces) > 1 and "".join(piece.text for piece in pieces) == "You said: hello"


def test_a_recorded_error_is_raised_again_without_waiting(log: LogFile) -> None:
    scout = started(Recording(log))
    for words in ("hello", "add it", "both now"):
        scout.run(words).result()
    with pytest.raises(RequestRefused, match="the script says so"):
        scout.run("fail now").result()
    assert scout.machine.clock.slept_s == []  # type: ignore[attr-defined]


def test_running_a_cell_again_in_a_replay_gives_its_last_answer_again(log: LogFile) -> None:
    scout = started(Recording(log))
    for _ in range(3):
        assert scout.run("hello").result().text == "You said: hello"
        scout.reset_state()


def counting(*, start: int = 0) -> Callable[[Request], dict[str, Any]]:
    """A model that never says the same thing twice."""
    count = [start]

    def answer(request: Request) -> dict[str, Any]:
        count[0] += 1
        return {"say": f"answer {count[0]} for {request.lineage}"}

    return answer


def test_equal_questions_of_parallel_processes_get_their_own_answers(tmp_path: Path) -> None:
    def run(running: Machine, program: Program, order: list[int]) -> list[str]:
        parent = running.start(program)
        children = [running.start(program, name=f"child{number}", parent=parent) for number in range(8)]

        async def ask_all() -> list[str]:
            calls = {number: children[number].run("the same question") for number in order}
            return [(await calls[number]).text for number in range(8)]

        return asyncio.run(ask_all())

    first = machine(tmp_path / "a.jsonl")
    recorded = run(first, SCOUT.replace(script=counting()), list(range(8)))
    first.close()
    assert len(set(recorded)) == 8
    again = machine(recorded=Recording(LogFile(tmp_path / "a.jsonl")))
    assert run(again, OFFLINE, list(reversed(range(8)))) == recorded


def test_asking_the_same_again_in_a_run_gives_the_answers_in_their_order(tmp_path: Path) -> None:
    def run(process: Process) -> list[str]:
        texts = []
        for _ in range(3):
            texts.append(process.run("again").result().text)
            process.reset_state()
        return texts

    live = machine(tmp_path / "a.jsonl")
    recorded = run(live.start(SCOUT.replace(script=counting())))
    live.close()
    assert recorded == [f"answer {n} for scout" for n in (1, 2, 3)]
    assert run(started(Recording(LogFile(tmp_path / "a.jsonl")))) == recorded


def missed(log: LogFile, program: Program, *says: str) -> str:
    scout = started(Recording(log), program)
    with pytest.raises(ReplayMiss) as caught:
        for words in says:
            scout.run(words).result()
    return str(caught.value)


STEP = " Restore what was recorded, or run it once in mode auto or record."


def test_a_miss_names_the_message_that_differs(log: LogFile) -> None:
    assert missed(log, OFFLINE, "hello", "add that") == (
        "study.jsonl: message 3 (user) differs from the recorded one; “add it” is now “add that”." + STEP
    )


def test_a_miss_names_the_system_prompt(log: LogFile) -> None:
    assert missed(log, OFFLINE.replace(system="You scout well."), "hello") == (
        "study.jsonl: the system prompt differs from the recorded one; “You scout.” is now “You scout well.”." + STEP
    )


def test_a_miss_names_the_setting_and_the_model_that_differ(log: LogFile) -> None:
    program = OFFLINE.replace(model="script-2", settings=msgspec.structs.replace(OFFLINE.settings, temperature=0.5))
    assert missed(log, program, "hello") == (
        "study.jsonl: the dialog is recorded, but was asked in another way: the model 'script-1' is now 'script-2'; "
        "the setting temperature null is now 0.5." + STEP
    )


def test_a_miss_names_the_tool_that_differs(log: LogFile) -> None:
    def louder(text: str) -> str:
        """Say it louder."""
        return text.upper()

    assert missed(log, OFFLINE.replace(tools=(add, louder)), "hello") == (
        "study.jsonl: the dialog is recorded, but was asked in another way: the tool shout is gone; the tool louder is new." + STEP
    )


def test_a_miss_says_that_the_recording_ends(log: LogFile) -> None:
    assert missed(log, OFFLINE, "hello", "add it", "both now", "both now") == (
        "study.jsonl: message 11 (user) differs from the recorded one; “fail now” is now “both now”." + STEP
    )
    assert missed(LogFile(cut(log, "fail now", drop=0)), OFFLINE, "hello", "add it", "both now", "more") == (
        "cut.jsonl: message 11 (user) is new: the recording ends before it; it says “more”." + STEP
    )


def cut(log: LogFile, words: str, *, drop: int) -> Path:
    """A copy of a log that ends before a message."""
    path = log.path.with_name("cut.jsonl")
    lines = log.path.read_text().splitlines(keepends=True)
    index = next(number for number, line in enumerate(lines) if words in line)
    path.write_text("".join(lines[: index - drop]))
    return path


def test_a_long_changed_text_is_shown_around_the_change(tmp_path: Path) -> None:
    live = machine(tmp_path / "a.jsonl")
    live.start(SCOUT).run("x" * 5000 + " old " + "y" * 5000).result()
    live.close()
    text = missed(LogFile(tmp_path / "a.jsonl"), OFFLINE, "x" * 5000 + " new " + "y" * 5000)
    assert text == (
        "a.jsonl: message 1 (user) differs from the recorded one; "
        f"“…{'x' * 23} old {'y' * 23}…” is now “…{'x' * 23} new {'y' * 23}…”." + STEP
    )


def test_a_missed_question_is_taken_back_so_that_the_process_goes_on(log: LogFile) -> None:
    scout = started(Recording(log))
    with pytest.raises(ReplayMiss):
        scout.run("never recorded").result()
    assert scout.run("hello").result().text == "You said: hello"


def test_auto_asks_for_what_is_not_recorded_and_adds_only_news(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"

    def session(*says: str) -> list[bool]:
        log = LogFile(path) if path.exists() else ()
        running = machine(store=RecordingStore(path, "auto"), recorded=Recording(log, "auto"))
        scout = running.start(SCOUT)
        replayed = [call.replayed for words in says for call in scout.run(words).result().api_calls]
        running.close()
        return replayed

    assert session("hello", "add it") == [False, False, False]
    before = path.read_bytes()
    RAN.clear()
    assert session("hello", "add it") == [True, True, True]
    assert (path.read_bytes(), RAN) == (before, [])
    assert session("hello", "add it", "both now") == [True, True, True, False, False]
    assert sorted(RAN) == ["add", "shout"]  # at once, each on a thread of its own
    assert session("hello", "add it", "both now") == [True] * 5
    assert started(Recording(LogFile(path))).run("hello").result().text == "You said: hello"


def test_auto_asks_again_where_the_recorded_answer_is_an_error(tmp_path: Path) -> None:
    live = machine(tmp_path / "a.jsonl")
    with pytest.raises(RequestRefused):
        live.start(SCOUT).run("fail now").result()
    live.close()
    program = SCOUT.replace(script=({"say": "now it works"},))
    assert started(Recording(LogFile(tmp_path / "a.jsonl"), "auto"), program).run("fail now").result().text == "now it works"


def test_record_asks_the_real_provider_for_everything(log: LogFile) -> None:
    result = started(Recording(log, "record"), SCOUT).run("add it").result()
    assert (RAN, result.api_calls[0].replayed) == (["add"], False)


def test_a_recording_in_which_nobody_answered_asks_nobody() -> None:
    with pytest.raises(ReplayMiss):
        started(Recording(())).run("hello").result()


def test_an_interrupted_reply_is_replayed_as_far_as_it_went(tmp_path: Path) -> None:
    live = machine(tmp_path / "a.jsonl")
    scout = live.start(SCOUT.replace(script=({"say": "one two three four five six seven eight nine ten", "delay_s": 0.05},)))
    seen: list[Delta] = []

    def stop_after_three(delta: Delta) -> None:
        seen.append(delta)
        if len(seen) == 3:
            scout.calls[0].cancel()

    result = scout.run("count", on_delta=stop_after_three).result()
    assert result.stop_reason == "interrupted"
    live.close()
    again = started(Recording(LogFile(tmp_path / "a.jsonl"))).run("count").result()
    assert (again.text, again.stop_reason) == (result.text, "interrupted")
    assert [node.id for node in again.nodes] == [node.id for node in result.nodes]
    assert reexecute(LogFile(tmp_path / "a.jsonl")).equal


def slow(text: str) -> str:
    """Take a while."""
    import time

    RAN.append("slow")
    time.sleep(0.5)
    return text


def test_an_interrupted_tool_is_replayed_as_such_and_not_run_again(tmp_path: Path) -> None:
    live = machine(tmp_path / "a.jsonl")
    program = SCOUT.replace(tools=(slow,), script=({"call": [{"name": "slow", "arguments": {"text": "x"}}]},))
    scout = live.start(program)
    recorded = scout.run("go", callbacks={"on_tool_start": lambda name, arguments: scout.calls[0].cancel()}).result()
    live.close()
    assert (recorded.stop_reason, recorded.tool_calls[0].outcome) == ("interrupted", "interrupted")
    RAN.clear()
    again = started(Recording(LogFile(tmp_path / "a.jsonl")), program.replace(script=never)).run("go").result()
    assert (again.stop_reason, [node.id for node in again.nodes]) == ("interrupted", [node.id for node in recorded.nodes])
    assert RAN == []
    assert str(reexecute(LogFile(tmp_path / "a.jsonl"))) == "1 process, 1 call, 3 nodes: all equal"


@pytest.mark.parametrize(
    ("turn", "nodes"),
    [
        ({"say": "one two three " * 99, "delay_s": 0.05}, 3),
        ({"call": [{"name": "slow", "arguments": {"text": "x"}}]}, 4),
        (lambda request: asyncio.sleep(60), 2),
    ],
    ids=["in a reply", "in a tool", "before a word"],
)
def test_a_call_that_its_time_ended_is_replayed_as_such(turn: Any, nodes: int) -> None:
    program = SCOUT.replace(tools=(slow,), script=turn if callable(turn) else (turn,))
    live = real_machine(SystemClock())
    scout = live.start(program.replace(limits=Limits(seconds=0.3)))
    recorded = scout.run("go").result()
    assert (recorded.stop_reason, len(scout.path)) == ("max_seconds", nodes)
    again = started(Recording(live.log.events), program.replace(script=never))
    assert again.run("go").result().stop_reason == "max_seconds"
    assert [node.id for node in again.path] == [node.id for node in scout.path]
    assert reexecute(live.log.events).equal


def test_a_whole_run_made_again_is_equal_node_by_node(log: LogFile) -> None:
    comparison = reexecute(log)
    nodes = {event.node for event in log.events if isinstance(event, Appended) and event.parent}
    assert str(comparison) == f"2 processes, 7 calls, {len(nodes)} nodes: all equal"
    assert (bool(comparison), RAN) == (True, [])
    assert (
        comparison._repr_markdown_() == f"| processes | calls | nodes | result |\n|---|---|---|---|\n| 2 | 7 | {len(nodes)} | all equal |\n"
    )


def test_a_run_made_again_with_the_real_drivers_is_equal_too(log: LogFile) -> None:
    assert reexecute(log, lambda recording: machine(recorded=recording)).equal


def test_the_first_difference_of_a_run_made_again_is_named(log: LogFile) -> None:
    """A log whose tool answers were replaced: the answer of the tool is the first thing that is another."""

    def louder(event: AnyEvent) -> AnyEvent:
        if isinstance(event, ToolRan) and event.name == "shout":
            return msgspec.structs.replace(event, result=msgspec.structs.replace(event.result, content=(Text(text="HO"),)))
        return event

    class Louder(Recording):
        def tool(self, node_id: str, position: int, lineage: str = "") -> ToolRan | None:
            ran = super().tool(node_id, position, lineage)
            return None if ran is None else louder(ran)  # type: ignore[return-value]

    def make(recording: Recording) -> Machine:
        return machine(recorded=Louder(log, "replay"))

    comparison = reexecute(log, make)
    assert (comparison.equal, comparison.calls) == (False, 3)
    assert comparison.difference is not None
    assert str(comparison.difference).startswith("call 3 of scout, message 3: part 2 of the result of shout: “HI” is now “HO” (node ")


def broken(request: Request) -> None:
    raise RuntimeError("boom")


def failed_and_asked_again(path: Path) -> LogFile:
    """Three processes and the same words: the first fails twice and then is answered, the second fails for good."""
    running = machine(path)
    fails = iter((True, True, False))

    def mends(request: Request) -> str:
        if next(fails):
            raise RuntimeError("not yet")
        return "mended"

    first = running.start(SCOUT.replace(script=mends), name="first")
    for _ in range(2):
        with pytest.raises(ProgramError, match="not yet"):
            first.run("same").result()
    assert first.run("same").result().text == "mended"
    for script, name in ((broken, "again"), (lambda request: "well", "again"), (lambda request: "fine", "other")):
        process = running.start(SCOUT.replace(script=script), name=name)
        if script is broken:
            with pytest.raises(ProgramError, match="boom"):
                process.run("same").result()
            process.kill()
        else:
            process.run("same").result()
    running.close()
    return LogFile(path)


def test_a_request_that_failed_fails_again_when_a_run_is_made_again(tmp_path: Path) -> None:
    assert str(reexecute(failed_and_asked_again(tmp_path / "a.jsonl"))) == "4 processes, 6 calls, 5 nodes: all equal"


def test_a_request_that_failed_is_not_answered_by_others_in_a_replay(tmp_path: Path) -> None:
    log = failed_and_asked_again(tmp_path / "a.jsonl")
    running = machine(recorded=Recording(log))
    assert running.start(OFFLINE, name="first").run("same").result().text == "mended"  # what was mended then need not fail again
    again = running.start(OFFLINE, name="again")
    for _ in range(2):
        with pytest.raises(ProviderError, match="boom"):
            again.run("same").result()
    assert running.start(OFFLINE, name="again").run("same").result().text == "well"
    assert running.start(OFFLINE, name="stranger").run("same").result().text == "fine"


def test_a_log_that_ends_inside_a_call_is_equal_as_far_as_it_goes(log: LogFile) -> None:
    comparison = reexecute(LogFile(cut(log, '"stopped"', drop=1)))
    assert str(comparison) == "1 process, 1 call, 1 node: all equal. The recording ends inside call 1 of scout"


def test_every_beginning_of_a_log_can_be_made_again(log: LogFile) -> None:
    events = log.events
    for end in range(1, len(events) + 1, 3):
        comparison = reexecute(events[:end])
        assert comparison.equal, f"{end} events: {comparison}"


def test_a_changed_log_is_no_recording(log: LogFile) -> None:
    log.path.write_text(log.path.read_text().replace("You said: hello", "You said: hallo", 1))
    with pytest.raises(LogError, match="gives the id"):
        Recording(LogFile(log.path))


class Real:
    """A provider as a notebook would use it, with parts only it understands."""

    name, api, scripted = "real", "real_v1", False

    async def ask(self, request: Request, draft: Draft) -> Reply:
        draft.open(0, "thinking", signature="c2ln", extra={"id": "r1"})
        draft.write(0, "hm")
        draft.open(1, "opaque", body={"type": "search", "n": 1})
        draft.open(2, "text", extra={"citations": [1]})
        draft.write(2, "found")
        draft.model, draft.id = "real-1-2026", "msg_1"
        return draft.reply()

    def left_out(self, config: Any) -> tuple[str, ...]:
        return ()

    def preview(self, request: Request) -> dict[str, Any]:
        return {"model": request.config.model}

    async def close(self) -> None:
        return None


class RealDrivers:
    def __init__(self, real: Real) -> None:
        self._real, self._others = real, machine().drivers

    def provider(self, program: Program) -> Real:
        return self._real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._others, name)


def test_what_only_a_provider_understands_is_replayed_verbatim(tmp_path: Path) -> None:
    live = Machine(RealDrivers(Real()), store=RecordingStore(tmp_path / "a.jsonl", "record"))
    first = live.start(Program(name="x", model="m", provider="real")).run("hi").result()
    live.close()

    class Gone(Real):
        async def ask(self, request: Request, draft: Draft) -> Reply:
            raise AssertionError("asked")

    again = Machine(RealDrivers(Gone()), recorded=Recording(LogFile(tmp_path / "a.jsonl")))
    second = again.start(Program(name="x", model="m", provider="real")).run("hi").result()
    assert second.nodes[-1].message == first.nodes[-1].message
    assert (second.provider, second.api_calls[0].model, second.api_calls[0].id) == ("real", "real-1-2026", "msg_1")
    assert reexecute(LogFile(tmp_path / "a.jsonl")).equal


def test_the_recording_is_lines_of_json_that_anyone_can_read(log: LogFile) -> None:
    kinds = [json.loads(line)["kind"] for line in log.path.read_text().splitlines()]
    assert kinds[:5] == ["opened", "appended", "started", "declared", "appended"]
    assert simple.SCOUT.name in log.path.read_text()


def test_two_processes_of_one_name_get_each_their_own_answers(tmp_path: Path) -> None:
    said = iter(("first", "second"))

    def start(on: Machine) -> list[Process]:
        program = Program(name="x", provider="scripted", model="m", script=lambda request: next(said))
        return [on.start(program) for _ in range(2)]

    live = machine(store=JsonlStore(tmp_path / "a.jsonl"))
    for process in start(live):
        process.run("hi").result()
    live.close()
    first, second = start(machine(recorded=Recording(LogFile(tmp_path / "a.jsonl"), "replay")))
    assert (second.run("hi").result().text, first.run("hi").result().text) == ("second", "first")
