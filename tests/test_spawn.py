"""Spawn and linked programs: other programs as children, one gate for all of them, messages between living processes."""

from __future__ import annotations

import time

import pytest
from machines import machine, roles, scripted

from llmproc_nb.api import Program
from llmproc_nb.core.clock import SystemClock
from llmproc_nb.core.errors import LimitReached, ToolError
from llmproc_nb.core.event import Sent, Started
from llmproc_nb.core.program import Link
from llmproc_nb.core.provider import Request
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.replay import Recording, reexecute


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


def said(request: Request) -> str:
    message = request.head.message
    return message.text or "\n".join(result.text for result in message.tool_results)


EXPERT = Program(name="expert", provider="scripted", model="script", system="You know.", script=({"say": "42"},))


def boss(*turns, tools=("spawn",), **fields):
    return scripted(*turns, tools=tools, linked={"expert": Link(program=EXPERT, description="Knows numbers")}, **fields)


def test_the_model_sees_the_programs_it_may_spawn():
    spec = boss({"say": "x"}).tools.get("spawn").spec
    assert spec.description.endswith("Programs:\n- expert: Knows numbers")
    assert list(spec.parameters["properties"]) == ["prompt", "program_name", "additional_preload_files", "fds"]
    with_wait = boss({"say": "x"}, tools=("spawn", "wait")).tools.get("spawn").spec
    assert "wait" in with_wait.parameters["properties"]


def test_a_spawned_process_knows_nothing_of_the_dialog_and_its_answer_comes_back():
    scout = boss({"call": [call("spawn", prompt="What is it?", program_name="expert")]}, {"say": "it is {{result}}"})
    result = scout.run("ask the expert").result()
    assert result.text == "it is 42"
    child = scout.machine.find("expert")
    assert roles(child) == ["system", "user", "assistant"] and child.parent is scout and child.messages[0].text == "You know."
    assert [event.origin for event in scout.machine.log.events if isinstance(event, Started)] == ["start", "spawn"]
    assert result.below.requests == 1 and scout.usage.requests == 3


def test_an_empty_name_spawns_the_own_program():
    scout = boss(
        lambda request: (
            "I am new" if said(request) == "new" else {"call": [call("spawn", prompt="new")]} if len(request.path) == 2 else "ok"
        )
    )
    assert scout.run("go").result().tool_calls[0].result.text == "I am new"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"prompt": "x", "program_name": "expirt"}, "there is no program 'expirt'; did you mean 'expert'?"),
        ({"prompt": "x", "program_name": "zzz"}, "programs: expert (Knows numbers); or leave it empty"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "x", "additional_preload_files": ["../../etc/passwd"]}, "lies outside of the program's folder"),
        ({"prompt": "x", "additional_preload_files": ["nothing.txt"]}, "there is no file 'nothing.txt'"),
        ({"prompt": "x", "fds": ["fd:3"]}, "there is no fd 'fd:3'"),
    ],
)
def test_a_wrong_spawn_makes_no_process(arguments, error):
    scout = boss({"call": [call("spawn", **arguments)]}, {"say": "ok"})
    assert error in scout.run("go").result().tool_calls[0].error
    assert len(scout.machine.processes) == 1


def test_files_and_fds_are_handed_to_a_child(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "facts.txt").write_text("the facts")
    scout = boss(
        {"call": [call("spawn", prompt="x", program_name="expert", additional_preload_files=["facts.txt"], fds=["fd:1"])]}, {"say": "ok"}
    )
    scout.open_fd("long", "file")
    scout.run("go").result()
    child = scout.machine.find("expert")
    assert "the facts" in child.messages[0].text and child.fds.get(1).page(1).text == "long"


def test_programs_may_link_to_each_other_and_depth_ends_it(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.toml").write_text(
            f'''
[model]
name = "script"
provider = "scripted"
[tools]
builtin = ["spawn"]
[linked_programs]
{other} = "{other}.toml"
[[script.turns]]
when = "go"
call = [{{name = "spawn", arguments = {{prompt = "go", program_name = "{other}"}}}}]
[[script.turns]]
say = "done"
'''
        )
    scout = Program.from_toml(tmp_path / "a.toml").start(machine=machine())
    assert scout.run("go").result().text == "done"
    assert [process.name for process in scout.machine.processes.values()] == ["a", "b", "a", "b"]


def test_edits_on_disk_are_seen_at_the_next_start(tmp_path):
    text = '[model]\nname = "script"\nprovider = "scripted"\n[[script.turns]]\nsay = "{}"\n'
    (tmp_path / "child.toml").write_text(text.format("old"))
    (tmp_path / "top.toml").write_text(
        '[model]\nname = "script"\nprovider = "scripted"\n[linked_programs]\nchild = "child.toml"\n[[script.turns]]\nsay = "x"\n'
    )
    top = Program.from_toml(tmp_path / "top.toml")
    on = machine()
    first = top.start(machine=on)
    (tmp_path / "child.toml").write_text(text.format("new"))
    second = top.start(machine=on)
    assert [str(process.spawn("child").run("x")) for process in (first, second)] == ["old", "new"]


def test_children_get_no_more_access_than_their_parent():
    scout = boss({"say": "x"}, tools=("spawn", "goto", "fd_to_file", "calculator"))
    reader = scout.spawn("", "reader", access="read")
    assert [tool.name for tool in reader.tools] == ["goto", "calculator", "read_fd"]
    assert reader.fork().access == "read"
    asked = r"a child with admin access was asked for; reader has read access itself\. Ask for read access, or start reader with more"
    with pytest.raises(LimitReached, match=asked):
        reader.spawn("", access="admin")
    with pytest.raises(LimitReached):
        scout.machine.start(EXPERT, parent=reader, access="write")


def test_a_tool_that_is_not_granted_is_not_there_also_when_the_model_calls_it():
    scout = boss({"call": [call("fork", prompts=["x"])]}, {"say": "ok"}, tools=("fork", "calculator"))
    reader = scout.spawn("", "reader", access="read")
    assert "there is no tool 'fork'" in reader.run("go").result().tool_calls[0].error


def test_a_child_in_the_background_is_waited_for_by_name():
    scout = boss(
        {"call": [call("spawn", prompt="What?", program_name="expert", wait=False)]},
        {"call": [call("wait", pid="expert")]},
        {"say": "got {{result}}"},
        tools=("spawn", "wait"),
    )
    result = scout.run("go").result()
    assert result.text == "got 42"
    assert result.tool_calls[0].result.text.startswith("expert runs in the background: wait(pid='expert') gives its answer")


@pytest.mark.parametrize("waits", [True, False])
def test_a_child_whose_answer_was_cut_short_has_said_what_it_had_until_then(waits):
    expert = EXPERT.replace(script=({"say": "slowly " * 500, "delay_s": 0.05},))
    turns = [{"call": [call("spawn", prompt="What?", program_name="expert", wait=waits)]}, {"call": [call("wait", pid="expert")]}]
    script, links = turns[: 1 if waits else 2], {"expert": Link(program=expert)}

    def run(on, **fields):
        scout = scripted(*script, tools=("spawn", "wait"), on=on, linked=links, **fields)
        result = scout.run("go").result()
        return result.stop_reason, [(one.outcome, one.result.text) for one in result.tool_calls], scout.head.id

    live = machine(SystemClock())
    reason, answers, head = run(live, limits=Limits(seconds=1.0))
    assert (reason, answers[-1][0]) == ("max_seconds", "interrupted")
    assert answers[-1][1].startswith("slowly")
    assert answers[-1][1].endswith(("\n[expert stopped: max_seconds]", "\n[expert stopped: interrupted]"))
    assert run(machine(recorded=Recording(live.log.events))) == (reason, answers, head)
    assert reexecute(live.log.events).equal


def test_a_process_can_be_told_something_while_it_runs():
    def slow() -> str:
        """Takes its time."""
        time.sleep(0.3)
        return "done"

    scout = scripted({"call": [call("slow")]}, {"say": "I read: {{last}}"}, tools=[slow], on=machine(SystemClock()))
    running = scout.run("go")
    while not scout.head.message.tool_calls:
        time.sleep(0.01)
    scout.send("stop soon")
    assert running.result().text == "I read: stop soon"
    assert roles(scout) == ["system", "user", "assistant", "tool", "user", "assistant"]
    assert [event.text for event in scout.machine.log.events if isinstance(event, Sent)] == ["stop soon"]


def test_what_is_sent_to_an_idle_process_is_read_with_its_next_call():
    scout = scripted(lambda request: " / ".join(node.message.text for node in request.path[1:]))
    scout.send("by the way")
    assert str(scout.run("hello")) == "by the way / hello"


def test_a_model_sends_to_its_child_and_kills_it():
    scout = boss(
        {"call": [call("spawn", prompt="What?", program_name="expert", wait=False)]},
        {"call": [call("wait", pid="expert")]},
        {"call": [call("kill", pid="expert")]},
        {"call": [call("send", pid="expert", text="hello?")]},
        {"call": [call("kill", pid="scout")]},
        {"say": "ok"},
        tools=("spawn", "wait", "send", "kill"),
    )
    result = scout.run("go").result()
    assert [run.error for run in result.tool_calls[:3]] == [None, None, None]
    assert "'expert' was ended; there are none" in result.tool_calls[3].error
    assert "'scout' is none of your children" in result.tool_calls[4].error
    assert not scout.machine.find("expert").alive


def test_a_killed_process_takes_those_it_spawned_along():
    scout = boss({"say": "x"})
    child, fork = scout.spawn("expert"), scout.fork()
    scout.kill()
    assert (child.alive, fork.alive) == (False, True)


def test_a_wrong_link_is_an_error_at_start_and_spawn_says_the_names():
    scout = boss({"say": "x"})
    with pytest.raises(ToolError, match="programs: expert"):
        scout.spawn("nobody")
