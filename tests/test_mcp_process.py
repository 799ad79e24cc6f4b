"""Processes whose programs have MCP servers: from the first call to the last server's end, on real servers over stdio."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kernels import kernel
from machines import events, machine
from paths import ROOT

from llmproc_nb.api import Machine, Process, Program
from llmproc_nb.core.approval import Approval, Ask, Decision, Rule, Scripted
from llmproc_nb.core.clock import SystemClock
from llmproc_nb.core.errors import CallStateError, ProgramError, PromptError, ReplayMiss
from llmproc_nb.core.event import Offered, ServerRead
from llmproc_nb.core.message import Image, Text
from llmproc_nb.core.program import EnvInfo, Link, McpServer, Preload, ToolWish
from llmproc_nb.core.provider import Request
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.jsonl import JsonlStore
from llmproc_nb.drivers.logfile import LogFile
from llmproc_nb.drivers.mcp import Servers
from llmproc_nb.drivers.replay import Recording, reexecute

SCRIPT = ROOT / "tests" / "mcp_server.py"


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def real(tools: Any = "all", **env: str) -> McpServer:
    return McpServer(command=sys.executable, args=(str(SCRIPT), "stdio"), env=env, tools=tools)


def raw(fault: str = "", **fields: Any) -> McpServer:
    server = McpServer(command=sys.executable, args=("-S", "-E", str(SCRIPT), "raw", fault), tools="all")
    return msgspec.structs.replace(server, **fields)


def program(*turns: Any, server: McpServer | None = None, **fields: Any) -> Program:
    script = turns[0] if len(turns) == 1 and callable(turns[0]) else turns
    mcp = {"t": server if server is not None else real()}
    return Program(**{"name": "scout", "provider": "scripted", "model": "script", "script": script, "mcp": mcp, **fields})


@pytest.fixture
def on() -> Iterator[Machine]:
    made = machine()
    yield made
    made.close()


def door(process: Process) -> Servers:
    assert process.servers is not None and isinstance(process.servers.door, Servers)
    return process.servers.door


def os_pid(process: Process, server: str = "t") -> int:
    pid = door(process).info(server).os_pid
    assert pid is not None
    return pid


def until(true: Callable[[], Any], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] if Path("/proc").is_dir() else True


# tools


def test_a_model_calls_the_tools_of_a_server_and_they_are_written_down(on):
    scout = program({"call": [call("t__add", a=2, b=3)]}, {"say": "it is {{result}}"}).start(machine=on)
    result = scout.run("add").result()
    assert result.text == "it is 5" and [(run.name, run.outcome) for run in result.tool_calls] == [("t__add", "ran")]
    (offered,) = events(scout, Offered)
    assert (offered.lineage, offered.access["t__add"], offered.access["t__total"]) == ("scout", "read", "write")
    assert {tool.name for tool in offered.tools} == {tool.name for tool in scout.tools} - {"read_fd"}


def test_a_program_filters_and_describes_what_a_server_offers(on):
    wishes = (ToolWish(name="add", alias="plus", description="Adds.", param_descriptions={"a": "the first"}, access="admin"),)
    scout = program({"say": "x"}, server=real(wishes), tools=(ToolWish(name="calculator"),)).start(machine=on)
    assert [tool.name for tool in scout.tools] == ["calculator", "read_fd", "plus"]
    spec = scout.tools.get("plus").spec
    assert (spec.description, spec.parameters["properties"]["a"]["description"]) == ("Adds.", "the first")
    reader = scout.spawn("", "reader", access="write")
    assert [tool.name for tool in reader.tools] == ["calculator", "read_fd"]


def test_a_long_result_becomes_an_fd_and_is_whole(on):
    scout = program({"call": [call("t__long", chars=50_000)]}, {"say": "ok"}).start(machine=on)
    given = scout.run("go").result().tool_calls[0].result
    assert len(given.text) < 6_000
    assert scout.fds.get(1).text.slice(0, 60_000) == "x" * 50_000


def test_pictures_of_a_result_are_pictures(on):
    scout = program({"call": [call("t__mixed")]}, {"say": "ok"}).start(machine=on)
    parts = scout.run("go").result().tool_calls[0].result.content
    assert [type(part) for part in parts].count(Image) == 1
    assert isinstance(parts[0], Text) and parts[0].text == "words"


def test_what_a_tool_refuses_is_told_to_the_model(on):
    scout = program({"call": [call("t__fails", why="no such shelf"), call("t__add", a="x")]}, {"say": "ok"}).start(machine=on)
    errors = [run.error for run in scout.run("go").result().tool_calls]
    assert "no such shelf" in errors[0] and errors[1]


# processes


def test_forks_share_the_connection_and_their_own_name_is_asked_for(on):
    scout = program({"call": [call("t__ok")]}, {"say": "{{result}}"}, server=raw()).start(machine=on)
    texts = {branch.text for branch in scout.fork_map(["a", "b", "c"]).wait()}
    assert len(texts) == 1 and f'"pid": {os_pid(scout)}' in texts.pop()
    other = scout.fork(program=scout.program.replace(model="other"))
    assert other.servers.door is scout.servers.door


def test_a_spawned_program_has_servers_of_its_own_that_end_with_it(on):
    expert = program({"call": [call("t__ok")]}, {"say": "{{result}}"}, server=raw(), name="expert")
    boss = Program(
        name="boss",
        provider="scripted",
        model="script",
        tools=(ToolWish(name="spawn"),),
        linked={"expert": Link(program=expert)},
        script=({"call": [call("spawn", prompt="?", program_name="expert")]}, {"say": "{{result}}"}),
    ).start(machine=on)
    assert '"name": "ok"' in boss.run("go").result().text
    child = boss.spawn("expert")
    pid = os_pid(child)
    fork = child.fork()
    child.kill()
    time.sleep(0.1)
    assert lives(pid)  # its fork still uses it
    fork.kill()
    until(lambda: not lives(pid))


def asks(*calls: dict[str, Any], wait: bool = True, tools: Any = ("spawn",)) -> Program:
    """A program that spawns an expert with servers, and then makes other calls."""

    def expert(request: Request) -> Any:
        results = request.head.message.tool_results
        return results[0].text if results else {"call": [call("t__ok")]}

    first = call("spawn", prompt="?", program_name="expert", **({} if wait else {"wait": False}))
    linked = {"expert": Link(program=program(expert, server=raw(), name="expert"))}
    script = (*({"call": [one]} for one in (first, *calls)), {"say": "{{result}}"})
    wishes = tuple(ToolWish(name=name) for name in tools)
    return Program(name="boss", provider="scripted", model="script", tools=wishes, linked=linked, script=script)


@pytest.mark.parametrize(
    "boss",
    [asks(), asks(call("wait", pid="expert"), wait=False, tools=("spawn", "wait"))],
    ids=["waited for at once", "in the background"],
)
def test_servers_of_a_spawned_child_rest_when_it_is_done_and_start_again_when_it_is_asked(on, boss):
    assert '"name": "ok"' in boss.start(machine=on).run("go").result().text
    child = on.find("expert")
    until(lambda: not door(child).info("t").alive)
    assert (child.alive, child.state, len(child.messages)) == (True, "idle", 5)
    assert '"name": "ok"' in child.run("once more").result().text
    pid = os_pid(child)
    assert lives(pid) and door(child).info("t").starts == 2
    child.kill()
    until(lambda: not lives(pid))


def test_servers_of_a_child_that_its_parent_may_ask_again_go_on(on):
    boss = asks(call("wait", pid="expert"), wait=False, tools=("spawn", "wait", "send"))
    boss.start(machine=on).run("go").result()
    assert lives(os_pid(on.find("expert")))


def test_servers_of_a_child_that_was_stopped_rest_too(on):
    def expert(request: Request) -> Any:
        return {"call": [call("t__hangs")]}

    linked = {"expert": Link(program=program(expert, server=raw(), name="expert"))}
    script = ({"call": [call("spawn", prompt="?", program_name="expert")]}, {"say": "{{result}}"})
    boss = Program(name="boss", provider="scripted", model="script", tools=("spawn",), linked=linked, script=script).start(machine=on)
    running = boss.run("go")
    until(lambda: any(one.name == "expert" and one.head.message.tool_calls for one in on.processes.values()))
    pid = os_pid(on.find("expert"))
    running.cancel()
    assert running.result().stop_reason == "interrupted"
    until(lambda: not lives(pid))
    assert on.find("expert").alive


def test_what_one_reply_spawns_gets_its_pids_in_order_however_long_its_servers_take(on):
    slow = program({"say": "slow"}, name="slow")
    quick = Program(name="quick", provider="scripted", model="script", script=({"say": "quick"},))
    boss = Program(
        name="boss",
        provider="scripted",
        model="script",
        tools=(ToolWish(name="spawn"),),
        linked={"slow": Link(program=slow), "quick": Link(program=quick)},
        script=({"call": [call("spawn", prompt="?", program_name=name) for name in ("slow", "quick")]}, {"say": "{{result}}"}),
    ).start(machine=on)
    assert boss.run("go").result().text == "slow\nquick"
    assert [process.name for process in on.processes.values()] == ["boss", "slow", "quick"]


def test_close_ends_the_servers():
    on = machine()
    pid = os_pid(program({"say": "x"}, server=raw()).start(machine=on))
    assert lives(pid)
    on.close()
    until(lambda: not lives(pid))


def test_tools_that_change_are_there_with_the_next_call_and_written_down(on):
    def say(request: Request) -> Any:
        words = request.head.message.text
        if words == "learn":
            return {"call": [call("t__learns", name="newer")]}
        if words == "use":
            return {"call": [call("t__newer")]}
        return ", ".join(result.text for result in request.head.message.tool_results)

    scout = program(say).start(machine=on)
    assert scout.run("learn").result().text == "learned"
    until(lambda: "t__newer" in door(scout).toolset)
    assert "t__newer" not in scout.tools
    assert scout.run("use").result().text == "new"
    first, second = events(scout, Offered)
    assert {tool.name for tool in second.tools} - {tool.name for tool in first.tools} == {"t__newer"}


# reading


def test_resources_and_prompts_are_read_through_the_process(on):
    scout = program({"say": "x"}).start(machine=on)
    servers = scout.servers
    assert servers.names == ("t",)
    assert [one.uri for one in servers.resources("t")] == ["note://today", "note://picture", "note://day/{day}"]
    assert servers.read("t", "today") == servers.read("t", "note://today") == (Text(text="rain\nthen sun"),)
    assert isinstance(servers.read("t", "picture")[-1], Image)
    assert [(one.name, one.required) for one in servers.prompts("t")] == [("review", ("code",)), ("plan", ())]
    (message,) = servers.prompt("t", "review", code="x = 1")
    assert (message.role, message.text) == ("user", "Review, kind: x = 1")
    with pytest.raises(PromptError, match="has no resource or prompt 'todai'"):
        servers.read("t", "todai")
    with pytest.raises(PromptError, match="there is no MCP server 'u'"):
        servers.read("u", "today")


def test_on_the_owner_loop_reading_is_refused_and_does_not_wait_for_ever(on):
    async def look() -> str:
        """Look it up."""
        return str(scout.servers.read("t", "today"))

    scout = program({"call": [call("look")]}, {"say": "ok"}, tools=(look,)).start(machine=on)
    assert "async code has (await process.servers.connected()).read(…)" in scout.run("go").result().tool_calls[0].error


# what servers ask


@pytest.mark.parametrize("name", ["scout", "scout.1"])
def test_sampling_is_answered_by_the_own_model_and_counts(on, name):
    def say(request: Request) -> Any:
        if request.head.message.text == "Say a word.":
            return f"word ({request.path[0].message.text}, {len(request.config.tools)} tools)"
        results = request.head.message.tool_results
        return results[0].text if results else {"call": [call("t__asks_model")]}

    scout = program(
        say, system="You scout.", preload=Preload(files=(str(SCRIPT),)), env_info=EnvInfo(extra={"x": "y"}), tools=("calculator",)
    ).start(machine=on)
    asker = scout if name == "scout" else scout.fork()
    result = asker.run("go").result()
    assert result.text == "script says word (Be short., 0 tools)"
    (child,) = on.children(asker)
    assert (child.name, child.origin, child.alive) == (f"{name}.t", "spawn", False)
    assert result.below.requests == 1 and asker.usage.requests == 3
    settings = child.config.settings
    assert (settings.max_tokens, settings.stop) == (9, (".",))


def test_sampling_keeps_to_the_limits_of_the_process(on):
    def say(request: Request) -> Any:
        results = request.head.message.tool_results
        return results[0].text if results else {"call": [call("t__asks_model")]}

    none = program(say, limits=Limits(children=0)).start(machine=on)
    assert "may have 0 children" in none.run("go").result().text
    little = program(say, limits=Limits(tokens=1)).start(machine=on)
    result = little.run("go").result()
    assert result.stop_reason == "max_total_tokens" and result.below.requests == 0
    assert "max_total_tokens" in result.tool_calls[0].error


def test_a_server_asks_the_person_through_the_approver():
    def answers(ask: Ask) -> Any:
        return {"name": "Ada"} if ask.why == "Who are you?" else False

    approver = Scripted(answers)
    on = machine(approver=approver)
    scout = program({"when": "go", "call": [call("t__asks_person")]}, {"when": "", "say": "{{result}}"}).start(machine=on)
    assert scout.run("go").result().text == 'accept {"name": "Ada"}'
    (ask,) = approver.asked
    assert (ask.process, ask.tool, ask.arguments, ask.once) == ("scout", "t asks", {"name": ""}, True)
    on.approver = Scripted(False)
    assert scout.run("go").result().text == "decline null"
    on.close()


def test_without_a_person_an_elicitation_is_declined(on):
    scout = program({"call": [call("t__asks_person")]}, {"say": "{{result}}"}).start(machine=on)
    assert scout.run("go").result().text.startswith("decline")


def test_the_time_a_person_takes_to_answer_a_server_counts_for_no_limit():
    class Slow:
        async def decide(self, ask: Ask) -> Decision:
            await asyncio.sleep(1.2)
            return Decision(allowed=True, by="person", arguments={"name": "Ada"})

    on = machine(SystemClock(), approver=Slow())
    scout = program({"call": [call("t__asks_person")]}, {"say": "{{result}}"}, limits=Limits(seconds=1.0)).start(machine=on)
    result = scout.run("go").result()
    assert (result.stop_reason, result.text) == ("end_turn", 'accept {"name": "Ada"}')
    on.close()


# faults


def test_a_server_that_dies_is_told_to_the_model_and_started_again(on):
    scout = program({"call": [call("t__dies")]}, {"call": [call("t__ok")]}, {"say": "{{result}}"}, server=raw()).start(machine=on)
    first = os_pid(scout)
    result = scout.run("go").result()
    assert "ended by SIGKILL" in result.tool_calls[0].error or "SIGKILL" in result.tool_calls[0].error
    assert '"name": "ok"' in result.text and os_pid(scout) != first


def test_a_call_is_stopped_while_its_server_never_answers(on):
    slow = machine(SystemClock())
    scout = program({"call": [call("t__hangs")]}, {"say": "ok"}, server=raw(), limits=Limits(seconds=0.5)).start(machine=slow)
    began = time.monotonic()
    result = scout.run("go").result()
    assert (result.stop_reason, result.tool_calls[0].outcome) == ("max_seconds", "interrupted")
    running = scout.spawn("", "other").run("go")
    until(lambda: running.process.head.message.tool_calls)
    running.cancel()
    assert running.result().stop_reason == "interrupted"
    assert time.monotonic() - began < 5
    slow.close()


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (raw("crash"), "ImportError: no module named tester"),
        (McpServer(command="no-such-command-here", tools="all"), "there is no command 'no-such-command-here'"),
        (raw(tools=(ToolWish(name="okk"),)), "it has no tool 'okk'"),
        (McpServer(command="x", env={"A": "${NOT_SET_ANYWHERE}"}, tools="all"), "there is no environment variable NOT_SET_ANYWHERE"),
    ],
)
def test_a_server_that_cannot_start_is_one_clear_error_and_no_process(on, server, words):
    with pytest.raises(ProgramError) as caught:
        program({"say": "x"}, server=server).start(machine=on)
    assert words in str(caught.value) and str(caught.value).startswith("MCP server t")
    assert on.processes == {} and not [event for event in on.log.events if isinstance(event, Offered)]


def test_the_environment_gives_servers_the_time_to_connect_where_the_program_does_not(on, monkeypatch):
    monkeypatch.setenv("LLMPROC_TOOL_FETCH_TIMEOUT", "0.4")
    with pytest.raises(ProgramError, match=r"did not answer within 0\.4 s"):
        program({"say": "x"}, server=raw("silent")).start(machine=on)
    with pytest.raises(ProgramError, match=r"did not answer within 0\.2 s"):
        program({"say": "x"}, server=raw("silent", connect_timeout_s=0.2)).start(machine=on)
    for said in ("soon", "0", "nan", "inf"):
        monkeypatch.setenv("LLMPROC_TOOL_FETCH_TIMEOUT", said)
        with pytest.raises(ProgramError) as caught:
            program({"say": "x"}, server=raw()).start(machine=on)
        right = "a number of seconds, more than 0, is needed"
        assert str(caught.value) == f"environment variable LLMPROC_TOOL_FETCH_TIMEOUT: found {said!r}; {right}."


def test_a_process_with_servers_is_not_started_on_the_owner_loop(on):
    declared = program({"say": "x"}, server=raw())

    async def start() -> None:
        declared.start(machine=on)

    with pytest.raises(CallStateError, match="cannot be started on the owner loop"):
        on.owner.wait(start())


# replay


def learner(request: Request) -> Any:
    words = request.head.message.text
    if words == "learn":
        return {"call": [call("t__learns", name="newer")]}
    if words == "use":
        return {"call": [call("t__newer")]}
    if words == "add":
        return {"call": [call("t__add", a=1, b=2)]}
    return ", ".join(result.text for result in request.head.message.tool_results) or "done"


def recorded_run(path: Path) -> None:
    on = machine(store=JsonlStore(path))
    scout = program(learner).start(machine=on)
    assert scout.run("learn").result().text == "learned"
    until(lambda: "t__newer" in door(scout).toolset)
    assert scout.run("use").result().text == "new"
    assert [branch.text for branch in scout.fork_map(["add", "use"]).wait()] == ["3", "new"]
    on.close()


GONE = McpServer(command="no-such-command-here", tools="all")


def test_a_run_with_servers_is_replayed_without_any(tmp_path):
    recorded_run(tmp_path / "log.jsonl")
    log = LogFile(tmp_path / "log.jsonl")
    for mode in ("replay", "auto"):
        on = machine(recorded=Recording(log, mode))  # type: ignore[arg-type]
        scout = program(lambda request: 1 / 0, server=GONE).start(machine=on)
        assert [scout.run(words).result().text for words in ("learn", "use")] == ["learned", "new"]
        assert [branch.text for branch in scout.fork_map(["add", "use"]).wait()] == ["3", "new"]
        on.close()


def test_a_log_with_servers_is_executed_again_and_compared(tmp_path):
    recorded_run(tmp_path / "log.jsonl")
    assert str(reexecute(LogFile(tmp_path / "log.jsonl"))) == "3 processes, 4 calls, 16 nodes: all equal"


def test_in_mode_auto_a_server_is_started_by_the_first_call_that_is_new(tmp_path):
    recorded_run(tmp_path / "log.jsonl")
    on = machine(recorded=Recording(LogFile(tmp_path / "log.jsonl"), "auto"))
    scout = program(learner).start(machine=on)
    assert scout.run("learn").result().text == "learned"
    assert scout.servers is not None and scout.servers.door is None
    result = scout.run("add").result()
    assert (result.text, result.tool_calls[0].replayed) == ("3", False)
    assert scout.servers.read("t", "today") == (Text(text="rain\nthen sun"),)
    on.close()


def test_in_mode_auto_a_rule_for_a_tool_holds_for_its_alias_before_the_server_is_there(tmp_path):
    plus = real((ToolWish(name="add", alias="plus"),))
    script = ({"when": "^hello$", "say": "hello"}, {"when": "^go$", "call": [call("plus", a=1, b=2)]}, {"when": ".", "say": "{{result}}"})
    rules = Approval(rules=(Rule(tool="t__add", decision="never"),))
    path = tmp_path / "log.jsonl"
    on = machine(store=JsonlStore(path))
    assert program(*script, server=plus).start(machine=on).run("hello").result().text == "hello"
    on.close()
    on = machine(recorded=Recording(LogFile(path), "auto"))
    scout = program(*script, server=plus, approval=rules).start(machine=on)
    assert scout.run("go").result().tool_calls[0].outcome == "refused"
    assert scout.servers is not None and scout.servers.door is None
    on.close()


def test_in_mode_replay_a_new_call_is_a_miss_and_starts_nothing(tmp_path):
    recorded_run(tmp_path / "log.jsonl")
    on = machine(recorded=Recording(LogFile(tmp_path / "log.jsonl")))
    scout = program(learner, server=GONE).start(machine=on)
    with pytest.raises(ReplayMiss):
        scout.run("add").result()
    on.close()


def readings(scout: Process) -> list[str]:
    """What a process says of what it reads, some of it twice, and after a tool has changed it."""
    servers = scout.servers
    assert servers is not None
    said = [scout.run(servers.read("t", "note://day/count")).result().text]
    said.append(scout.run(servers.read("t", "note://day/count")).result().text)
    (asked,) = servers.prompt("t", "review", code="x = 1")
    said.append(scout.run(asked).result().text)
    assert isinstance(servers.read("t", "picture")[-1], Image)
    said.append(scout.fork("other").run(servers.read("t", "note://day/count")).result().text)
    return said


def echo(request: Request) -> Any:
    return request.head.message.text


def test_what_was_read_from_servers_is_in_the_log_and_replays_without_them(tmp_path):
    path = tmp_path / "log.jsonl"
    on = machine(store=JsonlStore(path))
    scout = program(echo, name="reader").start(machine=on)
    said = readings(scout)
    assert said == ["1 reads", "2 reads", "Review, kind: x = 1", "3 reads"]
    kept = events(scout, ServerRead)
    assert [(event.name, event.arguments, event.replayed) for event in kept][2] == ("review", {"code": "x = 1"}, False)
    on.close()
    log = LogFile(path)
    for mode in ("replay", "auto"):
        on = machine(recorded=Recording(log, mode))  # type: ignore[arg-type]
        again = program(lambda request: 1 / 0, server=GONE, name="reader").start(machine=on)
        assert readings(again) == said
        assert {event.replayed for event in on.log.events if isinstance(event, ServerRead)} == {True}
        on.close()
    assert "all equal" in str(reexecute(log))


def test_what_was_never_read_is_a_miss_in_a_replay_and_read_now_in_mode_auto(tmp_path):
    path = tmp_path / "log.jsonl"
    on = machine(store=JsonlStore(path))
    readings(program(echo, name="reader").start(machine=on))
    on.close()
    on = machine(recorded=Recording(LogFile(path)))
    scout = program(echo, server=GONE, name="reader").start(machine=on)
    with pytest.raises(ReplayMiss, match="the recording has nothing of the resource 'today' of server 't'"):
        scout.servers.read("t", "today")
    on.close()
    on = machine(recorded=Recording(LogFile(path), "auto"))
    scout = program(echo, name="reader").start(machine=on)
    assert scout.servers.read("t", "note://day/count") == (Text(text="1 reads"),) and scout.servers.door is None
    assert scout.servers.read("t", "today") == (Text(text="rain\nthen sun"),) and scout.servers.door is not None
    assert scout.servers.read("t", "note://day/count") == (Text(text="1 reads"),)  # there a second time: read now
    assert [event.replayed for event in events(scout, ServerRead)] == [True, False, False]
    on.close()


def test_an_argument_of_a_prompt_may_be_called_anything(on):
    scout = program({"say": "x"}).start(machine=on)
    with pytest.raises(PromptError, match="has no prompt 'none'"):
        scout.servers.prompt("t", "none", name="Ada", server="x")


# in a notebook


PROGRAM = """
[model]
name = "script"
provider = "scripted"

[mcp.servers.t]
command = "{python}"
args = ["{script}", "stdio"]

[tools.mcp]
t = ["add"]

[[script.turns]]
when = "^3$"
say = "it is {{{{result}}}}"

[[script.turns]]
call = [{{name = "t__add", arguments = {{a = 1, b = 2}}}}]
"""


@pytest.mark.parametrize("now", [True, False])
def test_an_agent_cell_with_servers_works_at_first_try_and_leaves_none_behind(tmp_path, now):
    path = tmp_path / "adder.toml"
    path.write_text(PROGRAM.format(python=sys.executable, script=SCRIPT))
    with kernel() as front:
        front.run("%load_ext llmproc_nb")
        dry = front.run(f"%%agent scout --program {path} --dry-run\nadd")
        assert "t__add" in dry.data()[0]
        assert front.run("import psutil; psutil.Process().children()").data() == ["[]"]  # the dry run's server is gone
        ran = front.run(f"%%agent scout --program {path}\nadd")
        assert ran.status == "ok" and "it is 3" in ran.data()[0], ran
        pid = int(front.run("scout.servers.door.info('t').os_pid").data()[0])
        assert lives(pid)
        front.client.stop_channels()
        front.manager.shutdown_kernel(now=now)
        until(lambda: not lives(pid))


def test_resources_of_servers_stand_in_prompts_of_cells(tmp_path):
    path = tmp_path / "reader.toml"
    text = PROGRAM.split("[[script")[0] + '[[script.turns]]\nsay = "<{{{{last}}}}>"\n' * 6
    path.write_text(text.format(python=sys.executable, script=SCRIPT))
    with kernel() as front:
        front.run(f"%load_ext llmproc_nb\n%agent --program {path}\nt = 'a variable'")

        def said(prompt: str) -> str:
            ran = front.run(f"%%agent scout\n{prompt}")
            assert ran.status == "ok", ran.error
            return str(front.run("print(scout.path[-2].message.text)").printed).rstrip("\n")

        assert said("On @t:note://day/monday, @t?") == "On nothing on monday, a variable?"
        assert said("Today (see @t:today).\nThen?") == "Today (see t:today).\n\nt:today:\nrain\nthen sun\n\nThen?"
        assert said("@t:picture") == "[resource note://picture, image/png]"
        assert front.run("[type(part).__name__ for part in scout.path[-2].message.parts]").data() == ["['Text', 'Image']"]
        assert said(r"`@t:today` and \@t:today") == "`@t:today` and @t:today"
        wrong = front.run("%%agent scout\nOn @t:todai?")
        there_is = "there is today, picture, day, and the prompts review, plan. Did you mean 'today'?"
        assert f"has no resource or prompt 'todai'; {there_is}" in wrong.error["evalue"]
        assert said("@t:plan Which?") == "Plan 3 days. Which?"
        assert front.complete("%%agent scout\nOn @t:") == ["note://day/", "picture", "plan", "review", "today"]
        assert front.complete("%%agent other\n@t:p") == ["picture", "plan"]
        assert front.complete("%%fork scout\n[a]\n@t:note://") == ["note://day/"]
        lacks = front.run("%%agent scout\n@t:review")
        (shown,) = re.findall(r"{{process(\S*\(.*?\).*?)}}", lacks.error["evalue"])
        assert said("{{scout" + shown.replace("…", "x = 1") + "}}") == "Review, kind: x = 1"
        other = front.run("%%agent scout\nOn @u:today?")
        assert "@u:… is kept for resources of servers" in other.error["evalue"]
        assert front.run("len(scout.messages)").data() == ["13"]


@pytest.mark.parametrize("old", [False, True])
def test_a_notebook_with_a_resource_in_a_prompt_replays_without_the_server(tmp_path, old):
    path, recording = tmp_path / "reader.toml", tmp_path / "run.jsonl"
    text = PROGRAM.split("[[script")[0] + '[[script.turns]]\nsay = "<{{{{last}}}}>"\n' * 3
    path.write_text(text.format(python=sys.executable, script=SCRIPT))
    cells = ("%%agent scout\nToday: @t:today", "%%agent scout\nOn @t:note://day/monday: @t:picture @t:plan")
    look = "%%agent scout --dry-run\nCount: @t:note://day/count"
    count = "%%agent scout\nCount: @t:note://day/count"

    def run(mode: str) -> list[Any]:
        with kernel() as front:
            front.run(f"%load_ext llmproc_nb\n%agent --program {path} --mode {mode} --recording {recording}")
            ran = [front.run(cell) for cell in cells]
            if mode == "replay":  # a dry run takes nothing away and leaves nothing behind
                assert "1 reads" in front.run(look).data()[0]
            ran.append(front.run(count))
            return [one.data() if one.status == "ok" else one.error["evalue"] for one in ran]

    said = run("record")
    if old:  # a recording of an earlier version knows of no reads
        kept = [line for line in recording.read_text().splitlines() if '"server_read"' not in line]
        recording.write_text("\n".join(kept) + "\n")
        assert run("auto") == said  # what was read is added, so that the next run needs no server
    path.write_text(text.format(python="no-such-command-here", script=SCRIPT))
    assert run("replay") == said == run("auto")


def test_a_cell_that_waits_for_a_server_to_start_can_be_interrupted(tmp_path):
    path, trace = tmp_path / "silent.toml", tmp_path / "pid"
    code = f"import os, time; open({str(trace)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    server = f'[mcp.servers.t]\ncommand = "{sys.executable}"\nargs = ["-S", "-E", "-c", "{code}"]\n[tools.mcp]\nt = "all"\n'
    path.write_text('[model]\nname = "script"\nprovider = "scripted"\n' + server + '[[script.turns]]\nsay = "hello"\n')
    with kernel() as front:
        front.run("%load_ext llmproc_nb\nfrom llmproc_nb.api import new_machine")
        for source in (f"%%agent scout --program {path}\nhello", f"%spawn scout from {path}"):
            ran = front.run(source, interrupt_after_s=2.0)
            assert (ran.status, ran.interrupt_s < 5) == ("error", True), ran
            assert front.run("'scout' in globals()").data() == ["False"]
            until(lambda: not lives(int(trace.read_text())))
