"""Which state a sandbox has where: at forks, gotos, re-runs, after deaths and restarts. Against plain dicts in place of real shells."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from family import call
from hypothesis import given, settings
from hypothesis import strategies as st
from plainshell import PlainDoor, PlainDrivers

from llmproc_nb.api import Machine, Process, Program
from llmproc_nb.core.branch import shortened
from llmproc_nb.core.clock import FixedClock
from llmproc_nb.core.errors import ReplayMiss, ToolError
from llmproc_nb.core.event import CodeRan, ToolRan
from llmproc_nb.core.message import Text
from llmproc_nb.core.sandbox import SandboxRules
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.rebuild import rebuild as resume
from llmproc_nb.drivers.replay import Recording, reexecute

LABEL = r"\n?\[msg_\d+\] ?"


def coder(request: Any) -> Any:
    """Runs what it is told (`run: code`, `;;` between cells of one reply), forks (`fork: code -> a | b`), else says what came."""
    last = request.path[-1].message
    text = re.sub(LABEL, "", last.text)
    if last.role == "tool":
        return re.sub(LABEL, "", " / ".join(result.text for result in last.tool_results))
    word, _, rest = text.partition(": ")
    if word == "run":
        return {"call": [call("run_python", code=code.strip()) for code in rest.split(";;")]}
    if word == "fork":
        code, _, prompts = rest.partition(" -> ")
        before = [call("run_python", code=code)] if code else []
        return {"call": [*before, call("fork", prompts=[prompt.strip() for prompt in prompts.split("|")])]}
    return f"you said {text}"


def machine(*, keeps: bool = True, **fields: Any) -> Machine:
    return Machine(PlainDrivers(keeps=keeps), clock=FixedClock(), **fields)


def start(on: Machine | None = None, rules: SandboxRules | None = None, **fields: Any) -> Process:
    program = Program(
        name="scout",
        provider="scripted",
        model="script",
        script=coder,
        tools=("run_python", "fork", "goto"),
        sandbox=rules,
        limits=Limits(children=10_000, depth=100),
    )
    return program.start(machine=on or machine(**fields))  # type: ignore[return-value]


def door(process: Process) -> PlainDoor:
    return process.machine.drivers.doors[0]  # type: ignore[attr-defined, no-any-return]


def said(process: Process, text: str) -> str:
    return process.run(text).result().text


def value(process: Process, name: str = "x") -> str:
    """What the sandbox of a process has under a name."""
    outputs = process.sandbox.run(f"print({name} if '{name}' in globals() else None)").outputs
    return outputs[0].text.strip()


def test_variables_stay_from_call_to_call() -> None:
    scout = start()
    said(scout, "run: x = 41")
    assert said(scout, "run: print(x + 1)").strip() == "42"
    cells = [event for event in scout.machine.log.events if isinstance(event, CodeRan)]
    assert [(cell.code, cell.status, cell.after) for cell in cells] == [
        ("x = 41", "ok", None),
        ("print(x + 1)", "ok", cells[0].seq),
    ]
    assert cells[1].outputs[0].text == "42\n"


def test_an_error_is_told_and_the_variables_stay() -> None:
    scout = start()
    answer = said(scout, "run: x = 1 ;; 1 / 0 ;; print(x)")
    assert "ZeroDivisionError" in answer and answer.endswith("/ 1")


def test_a_fork_has_the_variables_and_neither_side_sees_what_the_other_does_later() -> None:
    scout = start()
    said(scout, "run: x = [1]")
    child = scout.fork("child")
    said(scout, "run: x.append(2)")
    said(child, "run: x.append(3)")
    assert value(scout) == "[1, 2]" and value(child) == "[1, 3]"


def test_a_fork_costs_nothing_before_it_runs_code() -> None:
    scout = start()
    said(scout, "run: x = 1")
    for _ in range(100):
        scout.fork()
    assert len(door(scout).shells) == 1


def test_a_goto_takes_the_state_along_and_undo_brings_it_back() -> None:
    scout = start()
    said(scout, "run: x = 1")
    said(scout, "run: x = 2")
    scout.goto("~1")
    assert value(scout) == "1"
    said(scout, "run: x = 10")
    assert value(scout) == "10"
    scout.undo()
    assert value(scout) == "2"
    scout.reset_state()
    assert value(scout) == "None"


def test_children_that_a_model_forks_begin_with_the_state_before_that_reply() -> None:
    scout = start()
    said(scout, "run: x = 1")
    said(scout, "fork: x = 2 -> run: x += 10 | run: x += 20")
    children = [one for one in scout.machine.processes.values() if one.parent is scout]
    assert [value(child) for child in children] == ["11", "21"]  # type: ignore[arg-type]
    assert value(scout) == "2"


def test_what_a_person_runs_is_in_the_same_place() -> None:
    scout = start()
    scout.sandbox.run("x = 5")
    assert said(scout, "run: print(x)").strip() == "5"
    scout.sandbox.put(y={"a": [1, 2]})
    assert said(scout, "run: print(y['a'])").strip() == "[1, 2]"
    assert scout.sandbox.get("y") == {"a": [1, 2]}
    assert [cell.put for cell in scout.sandbox.cells if cell.put] == [("y",)]


def test_two_forks_from_one_place_do_not_see_what_a_person_runs_in_the_other() -> None:
    scout = start()
    scout.sandbox.run("x = 1")
    one, two = scout.fork("one"), scout.fork("two")
    one.sandbox.run("x = 2")
    assert (value(one), value(two), value(scout)) == ("2", "1", "1")  # type: ignore[arg-type]


def test_a_question_that_is_asked_again_begins_with_the_state_of_that_time() -> None:
    scout = start()
    said(scout, "run: x = 0")
    for _ in range(3):
        scout.goto("~1") if scout.head.depth > 4 else None
        before = scout.head
        assert said(scout, "run: x += 1 ;; print(x)").strip().endswith("1")
        scout.move(before, "rerun")


def test_a_death_takes_back_only_its_own_cell() -> None:
    scout = start()
    said(scout, "run: x = 1")
    answer = said(scout, "run: die")
    assert "ended with this cell" in answer
    assert said(scout, "run: print(x)").strip() == "1"
    assert door(scout).woken == 1


@pytest.mark.parametrize("rules", [SandboxRules(checkpoints=0), SandboxRules(checkpoints=1)])
def test_without_a_checkpoint_the_cells_are_run_again(rules: SandboxRules) -> None:
    scout = start(rules=rules)
    for number in range(4):
        said(scout, f"run: x = {number}")
    scout.goto("~2")
    ran = scout.sandbox.run("print(x)")
    assert ran.outputs[0].text == "1\n" and "running 2 earlier cells" in ran.notes[0]
    assert door(scout).ran[-3:] == ["x = 0", "x = 1", "print(x)"]


def test_kernels_that_cannot_fork_run_the_cells_again() -> None:
    scout = start(keeps=False)
    said(scout, "run: x = 1")
    child = scout.fork("child")
    assert value(child) == "1"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("on_fork", "found", "woken"),
    [("fork", ["1", "1"], 1), ("fresh", ["None", "1"], 0), ("replay", ["1", "1"], 0), ("share", ["1", "7"], 0)],
)
def test_what_a_child_begins_with_is_the_programs_choice(on_fork: Any, found: list[str], woken: int) -> None:
    scout = start(rules=SandboxRules(on_fork=on_fork))
    said(scout, "run: x = 1")
    child = scout.fork("child")
    first = value(child)  # type: ignore[arg-type]
    said(child, "run: x = 7")
    assert [first, value(scout)] == found
    assert door(scout).woken == woken


def test_an_interrupt_stops_the_code_and_is_written_down() -> None:
    scout = start()
    call = scout.run("run: hang")
    asyncio.run(_begun(scout))
    call.cancel()
    assert call.result().stop_reason == "interrupted"
    cells = [event for event in scout.machine.log.events if isinstance(event, CodeRan)]
    assert [cell.status for cell in cells] == ["interrupted"]
    assert said(scout, "run: print(1)").strip() == "1"


async def _begun(scout: Process) -> None:
    while not (scout.machine.drivers.doors and door(scout).ran):  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)


def test_restarting_leaves_earlier_places_their_state() -> None:
    scout = start()
    said(scout, "run: x = 1")
    said(scout, "hello")
    scout.sandbox.restart()
    assert value(scout) == "None"
    scout.goto("~1")
    assert value(scout) == "1"


def test_the_end_of_the_last_process_ends_the_sandbox() -> None:
    scout = start()
    said(scout, "run: x = 1")
    child = scout.fork("child")
    assert value(child) == "1"  # type: ignore[arg-type]
    scout.kill()
    scout.machine.owner.wait(asyncio.sleep(0.05))
    assert not door(scout).closed and value(child) == "1"  # type: ignore[arg-type]
    child.kill()
    scout.machine.owner.wait(asyncio.sleep(0.05))
    assert door(scout).closed


def test_a_recording_answers_without_running_code_and_goes_on_live_with_the_state() -> None:
    scout = start()
    said(scout, "run: x = 3")
    seen = scout.sandbox.run("print(x)")
    events = tuple(scout.machine.log.events)
    again = start(machine(recorded=Recording(events, "replay")))
    assert said(again, "run: x = 3") == said(scout, "hello").replace("you said hello", "(no output)")
    assert again.sandbox.run("print(x)") == seen
    assert not again.machine.drivers.doors  # type: ignore[attr-defined]
    with pytest.raises(ReplayMiss, match="no such code cell"):
        again.sandbox.run("print(y)")
    live = start(machine(recorded=Recording(events, "auto")))
    said(live, "run: x = 3")
    assert live.sandbox.run("print(x + 1)").outputs == (seen.outputs[0].__class__(kind="stream", name="stdout", text="4\n"),)
    assert door(live).ran == ["x = 3", "print(x + 1)"]


def test_what_comes_in_and_what_is_looked_at_is_as_it_was_recorded() -> None:
    scout = start()
    scout.sandbox.put(y=[1, 2])
    scout.sandbox.run("z = sum(y)")
    seen, taken = scout.sandbox.look(), scout.sandbox.get("z")
    events = tuple(scout.machine.log.events)
    again = start(machine(recorded=Recording(events, "replay")))
    again.sandbox.put(y=[1, 2])
    again.sandbox.run("z = sum(y)")
    assert again.sandbox.look() == seen and again.sandbox.get("z") == taken == 3
    assert [cell.code for cell in again.sandbox.cells] == [cell.code for cell in scout.sandbox.cells]
    with pytest.raises(ReplayMiss, match="set from the notebook: y"):
        start(machine(recorded=Recording(events, "replay"))).sandbox.put(y=[100])
    live = start(machine(recorded=Recording(events, "auto")))
    live.sandbox.put(y=[100])
    live.sandbox.run("z = sum(y)")
    assert live.sandbox.run("z = sum(y)") and live.sandbox.run("print(z)").outputs[0].text == "100\n"
    assert door(live).ran == ["z = sum(y)", "z = sum(y)", "print(z)"]


def test_of_very_much_that_came_from_outside_only_the_latest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmproc_nb.core.state.MOST_GIVEN", 1000)
    scout = start()
    for number in range(4):
        scout.sandbox.write_file(f"f{number}", b"x" * 400)
    assert len(scout.sandbox.family.given) == 2


def test_a_resumed_process_runs_its_cells_again_when_they_are_needed() -> None:
    scout = start()
    said(scout, "run: x = 3")
    said(scout, "run: x += 1")
    child = scout.fork("child")
    said(child, "run: x += 100")
    on = machine()
    found = resume(tuple(scout.machine.log.events), on, programs={"scout": scout.program})
    again, forked = (one.process for one in found)
    assert again is not None and forked is not None
    assert value(again) == "4" and value(forked) == "104"  # type: ignore[arg-type]


def test_what_came_from_outside_comes_back_with_a_log_unless_it_was_much() -> None:
    scout = start()
    scout.sandbox.put(y={"a": [1, None]})
    scout.sandbox.put(z="z" * 2_000_000)
    scout.sandbox.run("x = y['a'][0]")
    on = machine()
    again = resume(tuple(scout.machine.log.events), on, programs={"scout": scout.program})[0].process
    assert again is not None
    ran = again.sandbox.run("print(x, y, 'z' in globals())")
    assert ran.outputs[0].text == "1 {'a': [1, None]} False\n"
    assert "2 earlier cells; z missing: it came from outside" in ran.notes[0]


def test_a_shorter_fork_has_the_state_of_the_place_it_was_made_from() -> None:
    scout = start()
    said(scout, "run: x = 1")
    said(scout, "run: x = 2")
    short = scout.fork(last_n=1)
    assert len(short.path) < len(scout.path) and value(short) == "2"  # type: ignore[arg-type]
    said(short, "run: x = 3")  # type: ignore[arg-type]
    again = short.fork()
    assert (value(again), value(scout)) == ("3", "2")  # type: ignore[arg-type]


def test_the_live_view_has_the_last_line_of_code_that_runs() -> None:
    scout, heard = start(), list[tuple[str, str]]()
    scout.run("run: print('one'); print('two')", on_delta=lambda delta: heard.append((delta.kind, delta.text))).result()
    assert ("wait", "two") in heard


def test_the_checkpoint_that_many_forks_begin_with_is_the_last_to_give_way() -> None:
    scout = start(rules=SandboxRules(checkpoints=3))
    said(scout, "run: x = 1")
    for _ in range(10):
        assert value(scout.fork()) == "1"  # type: ignore[arg-type]
    assert door(scout).ran.count("x = 1") == 1


def test_two_results_of_a_reply_are_answered_in_order() -> None:
    scout = start()
    result = scout.run("run: print(1) ;; print(2) ;; print(3)").result()
    assert [run.result.text for run in result.tool_calls] == ["1\n", "2\n", "3\n"]


def test_a_goto_of_the_model_brings_its_state_back() -> None:
    def script(request: Any) -> Any:
        last = request.path[-1].message
        words = re.sub(LABEL, "", last.text)
        if words.startswith("<goto"):
            return {"call": [call("run_python", code="print(x)")]}
        if last.role == "tool":
            text = last.tool_results[0].text
            return {"call": [call("goto", position="msg_3", message="x was spoilt")]} if "spoilt" in text else f"x is {text}"
        if words.startswith("spoil"):
            return {"call": [call("run_python", code="x = 'bad'; print('spoilt')")]}
        return {"call": [call("run_python", code="x = 'good'; print('fine')")]}

    program = Program(name="scout", provider="scripted", model="script", script=script, tools=("run_python", "goto"))
    scout = program.start(machine=machine())
    scout.run("begin").result()
    assert scout.run("spoil").result().text.startswith("x is good\n")


Step = tuple[str, int]
STEPS = st.lists(st.tuples(st.sampled_from(["run", "person", "fork", "goto", "undo", "switch"]), st.integers(0, 50)), max_size=25)


@settings(max_examples=60)
@given(STEPS, st.sampled_from([0, 2, 20]))
def test_any_order_of_cells_forks_and_gotos_gives_what_dicts_would(steps: list[Step], checkpoints: int) -> None:
    """A model that keeps one value for each node and process, by hand."""
    scout = start(rules=SandboxRules(checkpoints=checkpoints))
    living = [scout]
    at: dict[tuple[int, str], list[int]] = {(scout.pid, scout.head.id): []}
    current, count = 0, 0

    def state(process: Process) -> list[int]:
        for node in process.head.up():
            if (process.pid, node.id) in at:
                return at[process.pid, node.id]
        return []

    for kind, number in steps:
        process = living[current % len(living)]
        before, depth = list(state(process)), process.head.depth
        if kind in ("run", "person"):
            count += 1
            code = f"x = [*globals().get('x', []), {count}]"
            if kind == "run":
                said(process, f"run: {code}")
            else:
                process.sandbox.run(code)
            after = kind == "person"
            for node in process.path[depth + (not after) :]:  # what was said before a cell ran has nothing of it, whatever comes later
                after = after or node.message.role == "tool"
                at[process.pid, node.id] = [*before, count] if after else list(before)
        elif kind == "fork":
            child = process.fork()
            for (pid, node), known in tuple(at.items()):
                if pid == process.pid:
                    at[child.pid, node] = list(known)
            living.append(child)  # type: ignore[arg-type]
        elif kind == "goto":
            path = process.path
            process.goto(path[number % len(path)].id)
        elif kind == "undo" and process._left:
            process.undo()
        elif kind == "switch":
            current = number
        shown = value(process)
        wanted = state(process)
        assert shown == (str(wanted) if wanted else "None")
        at[process.pid, process.head.id] = list(wanted)
    scout.machine.close()


def test_what_the_code_prints_becomes_an_fd_where_it_is_long() -> None:
    scout = start()
    result = scout.run("run: print('a' * 20_000)").result()
    assert "fd:1" in result.tool_calls[0].result.text and scout.fds.get(1).text.chars == 20_001


def test_a_stopped_cell_is_an_error_with_all_it_said() -> None:
    from llmproc_nb.core.output import shown
    from llmproc_nb.core.sandbox import Output, Ran

    notes = ("The cell was stopped after 60 s.",)
    ran = Ran(status="timed_out", outputs=(Output(kind="stream", name="stdout", text="so far\n"),), notes=notes)
    with pytest.raises(ToolError, match=r"^The cell was stopped after 60 s\. Until then:\nso far"):
        shown(ran)
    ended = Ran(status="ok", outputs=(Output(kind="stream", name="stdout", text="10%\r20%\r\x1b[31m30%\x1b[0m\n"),))
    assert shown(ended) == (Text(text="30%\n"),)


@given(st.lists(st.sampled_from(("\x1b[31m", "\x1b[0m", "a", "bc", "\n", "\r\n", "x\r", "\x1b[1;2", "\x1b(", "z" * 9)), max_size=60))
def test_a_long_text_is_made_plain_in_parts_as_it_is_in_one(pieces: list[str]) -> None:
    from llmproc_nb.core import output

    text, whole = "".join(pieces), output.plain("".join(pieces))
    with pytest.MonkeyPatch.context() as patch:
        for size in (7, 20, 50):
            patch.setattr(output, "PIECE_CHARS", size)
            assert output.plain(text) == whole


def test_the_answers_of_tools_are_all_there() -> None:
    scout = start()
    said(scout, "run: die ;; print(2)")
    outcomes = [event.outcome for event in scout.machine.log.events if isinstance(event, ToolRan)]
    assert outcomes == ["failed", "ran"]


def test_a_log_with_code_runs_again_from_itself_node_by_node() -> None:
    scout = start()
    said(scout, "run: x = 1 ;; print(x)")
    said(scout, "fork: x = 2 -> run: print(x) | run: x = 5 ;; print(x)")
    scout.goto("~1")
    said(scout, "run: print(x)")
    comparison = reexecute(tuple(scout.machine.log.events))
    assert comparison.difference is None and comparison.processes == 3


def test_a_path_that_was_shortened_keeps_the_state_also_in_forks_made_later() -> None:
    scout = start()
    said(scout, "run: x = 1")
    said(scout, "run: x = 2")
    scout.move(shortened(scout, scout.head, 0, 1), "compacted")
    assert value(scout) == "2"
    said(scout, "run: x = 3")
    child = scout.fork()
    assert value(child) == "3"  # type: ignore[arg-type]
