"""Attacks: what a careless person, a hostile model or bad luck can do. Those that still get through are marked, with what they break."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel
from machines import events, kinds, machine, roles, scripted
from servers import Answer, LoopbackServer
from simple import is_legal
from turns import finished

from llmproc_nb.api import Machine, Process, Program
from llmproc_nb.core.call import Interrupted
from llmproc_nb.core.clock import SystemClock
from llmproc_nb.core.dialog import Node, node_id
from llmproc_nb.core.errors import AuthError, CallStateError, LlmprocError, LogError, PromptError
from llmproc_nb.core.event import ToolRan
from llmproc_nb.core.message import Document, Image, Message, Text, ToolCall, ToolResult, user
from llmproc_nb.core.program import Link, McpServer
from llmproc_nb.core.provider import Delta, Settings
from llmproc_nb.drivers.jsonl import JsonlStore, RecordingStore
from llmproc_nb.drivers.logfile import LogFile
from llmproc_nb.drivers.schema import tool
from llmproc_nb.notebook.live import LiveView
from llmproc_nb.notebook.maintools import WaitingTools
from llmproc_nb.notebook.turn import Turn

SLOW = {"when": "slow", "say": "word " * 200, "delay_s": 0.02}


def live(*turns: Any, on: Machine | None = None, **fields: Any) -> Process:
    """A scripted process on a machine whose clock runs."""
    return scripted(*turns, on=on or machine(SystemClock()), **fields)


def calling(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"when": "^go", "call": [{"name": tool, **arguments}]}


# cancelling


def ended(call: Any, within_s: float = 2.0) -> str:
    """How a call ended; a call that does not end is a failure."""
    try:
        return str(call.result(within_s).stop_reason)
    except CallStateError:
        return "never began"


def test_a_call_that_is_cancelled_at_once_ends():
    process = live(SLOW)
    for _ in range(20):
        call = process.run("slow")
        call.cancel()
        assert ended(call, 0.5) in ("interrupted", "never began")


def test_a_process_that_is_killed_at_once_ends_its_call():
    for _ in range(20):
        process = live(SLOW)
        call = process.run("slow")
        process.kill()
        assert ended(call, 0.5) in ("killed", "never began")


def test_a_call_that_is_cancelled_while_it_waits_its_turn_disturbs_nobody():
    process = live({"when": "slow", "say": "word " * 20, "delay_s": 0.01}, {"say": "one"})
    first, second, third = process.run("slow"), process.run("never"), process.run("third")
    time.sleep(0.05)
    second.cancel()
    second.cancel()
    assert (ended(first), ended(second), ended(third)) == ("end_turn", "never began", "end_turn")
    assert roles(process) == ["system", "user", "assistant", "user", "assistant"]


def test_a_call_that_is_cancelled_twice_answers_each_tool_once():
    async def act() -> str:
        try:
            await asyncio.sleep(5)
        finally:
            await asyncio.sleep(0.1)
        return "never"

    process = live(calling("act"), tools=[act])
    call = process.run("go")
    time.sleep(0.1)
    call.cancel()
    time.sleep(0.03)
    call.cancel()
    assert ended(call) == "interrupted"
    assert [event.outcome for event in events(process, ToolRan)] == ["interrupted"]
    assert is_legal(process)


def test_a_tool_that_ran_is_not_called_unrun_because_a_callback_was_cancelled():
    async def slowly(*values: Any) -> None:
        await asyncio.sleep(5)

    def act() -> str:
        """Take effect."""
        return "acted"

    process = live(calling("act"), tools=[act])
    call = process.run("go", callbacks={"on_tool_end": slowly})
    time.sleep(0.1)
    call.cancel()
    assert ended(call) == "interrupted"
    assert [result.text for result in process.messages[-1].tool_results] == ["acted"]


def test_a_cancelled_call_stops_the_calls_its_tools_wait_for():
    on = machine(SystemClock())
    helper = live(SLOW, on=on, name="helper")

    def ask() -> str:
        """Ask the other one."""
        return helper.run("slow").result().text

    process = live(calling("ask"), tools=[ask], on=on)
    call = process.run("go")
    time.sleep(0.1)
    call.cancel()
    ended(call)
    time.sleep(0.2)
    assert helper.state == "idle"


def test_closing_a_machine_ends_its_calls():
    async def act() -> str:
        try:
            await asyncio.sleep(5)
        finally:
            await asyncio.sleep(0.1)
        return "never"

    process = live(calling("act"), {"say": "end"}, tools=[act])
    first, second = process.run("go"), process.run("waits")
    time.sleep(0.1)
    process.machine.close()
    assert (ended(first), ended(second)) == ("interrupted", "never began")
    assert kinds(process)[-1] == "stopped"


# a process inside itself


def told(wait: Any) -> str:
    """The kind of error of a wait that must not last."""
    try:
        wait()
    except (LlmprocError, TimeoutError) as error:
        return type(error).__name__
    return "an answer"


def test_a_tool_that_waits_for_its_own_process_is_told_so():
    def again() -> str:
        """Ask myself."""
        return told(lambda: process.run("inner").result(1.0))

    process = live(calling("again"), {"say": "{{result}}"}, {"say": "inner"}, {"say": "more"}, tools=[again])
    assert process.run("go").result(5).text == "CallStateError"


def test_an_async_tool_that_awaits_its_own_process_is_told_so():
    async def again() -> str:
        """Ask myself."""
        try:
            return (await asyncio.wait_for(process.run("inner"), 1.0)).text
        except (LlmprocError, TimeoutError) as error:
            return type(error).__name__

    process = live(calling("again"), {"say": "{{result}}"}, {"say": "inner"}, {"say": "more"}, tools=[again])
    assert process.run("go").result(5).text == "CallStateError"


def test_two_processes_that_wait_for_each_other_are_told_so():
    on = machine(SystemClock())

    def ask_b() -> str:
        """Ask b."""
        return b.run("go").result(3.0).text

    def ask_a() -> str:
        """Ask a."""
        return told(lambda: a.run("inner").result(1.0))

    a = live(calling("ask_b"), {"say": "{{result}}"}, {"say": "more"}, tools=[ask_b], on=on, name="a")
    b = live(calling("ask_a"), {"say": "{{result}}"}, {"say": "more"}, tools=[ask_a], on=on, name="b")
    assert a.run("go").result(5).text == "CallStateError"


def test_a_tool_may_leave_a_further_question_to_its_own_process():
    later = []

    def again() -> str:
        """Ask myself, later."""
        later.append(process.run("inner"))
        return "asked"

    process = live(calling("again"), {"when": "inner", "say": "in"}, {"say": "{{result}}"}, tools=[again])
    assert process.run("go").result(5).text == "asked"
    assert later[0].result(5).text == "in"


def test_a_head_does_not_move_under_a_running_call():
    def reset() -> str:
        """Go back."""
        try:
            process.reset_state()
        except CallStateError:
            return "refused"
        return "moved"

    process = live(calling("reset"), {"say": "{{result}}"}, tools=[reset])
    assert process.run("go").result(5).text == "refused"
    assert is_legal(process)


def test_tools_that_are_added_during_a_call_count_from_the_next_one():
    def old() -> str:
        """Say which."""
        return "old"

    def swap() -> str:
        """Change the tool."""
        process.add_tools([new])
        return "swapped"

    def new() -> str:
        """Say which."""
        return "new"

    new.__name__ = "old"
    process = live(calling("swap"), {"when": "swapped", "call": [{"name": "old"}]}, {"say": "{{result}}"}, tools=[swap, old])
    assert process.run("go").result(5).text == "old"


# foreign code


LEAVING = """
from machines import kinds, machine, scripted
from llmproc_nb.core.call import Interrupted
from llmproc_nb.core.clock import SystemClock

def act() -> str:
    return "acted"

def leave(*values):
    raise SystemExit(3)

turns = {"when": "go", "call": [{"name": "act"}]}, {"say": "{{result}}"}
process = scripted(*turns, tools=[act], on=machine(SystemClock()))
print(process.run("go", callbacks={"on_tool_end": leave}).result(2).text, "reader_failed" in kinds(process))
"""


def test_a_callback_that_exits_ends_no_loop():
    done = subprocess.run([sys.executable, "-c", LEAVING], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20)
    assert done.stdout == "acted True\n", done.stderr[-1000:]


def test_a_value_that_is_slow_to_show_holds_up_nobody():
    class Slow:
        def __repr__(self) -> str:
            time.sleep(2)
            return "slow"

    def act() -> Any:
        """Act."""
        return Slow()

    on = machine(SystemClock())
    process, other = live(calling("act"), {"say": "end"}, tools=[act], on=on), live({"say": "one"}, on=on, name="other")
    call = process.run("go")
    time.sleep(0.1)
    began = time.monotonic()
    other.run("hi").result()
    assert time.monotonic() - began < 1
    call.result()


def test_the_timeout_of_something_in_a_tool_is_not_the_tools_own():
    def act() -> str:
        """Act."""
        raise TimeoutError("the host did not answer")

    process = live(calling("act"), {"say": "{{result}}"}, tools=[act])
    result = process.run("go").result()
    assert (result.text, result.tool_calls[0].outcome) == ("TimeoutError: the host did not answer", "failed")


@pytest.mark.parametrize("name", ["", "__class__", "a b", "\x1b[2J", "x" * 1_000_000, "act\n", "ACT", "act\u202e"])
def test_a_hostile_tool_name_is_answered_and_runs_nothing(name):
    def act() -> str:
        """Act."""
        raise AssertionError("ran")

    process = live({"when": "^go", "call": [{"name": name}]}, {"say": "end"}, tools=[act])
    result = process.run("go").result(5)
    assert (result.text, result.tool_calls[0].outcome) == ("end", "refused")


@pytest.mark.parametrize("depth", [100, 300, 495])
def test_deep_arguments_of_a_reply_that_was_cut_off_leave_a_legal_path(depth):
    deep = '{"a":' + "[" * depth + "]" * depth + "}"
    process = live({"when": "^go", "call": [{"name": "x", "arguments": deep}], "stop": "max_tokens"}, {"say": "end"})
    call = process.run("go")
    call.settle(5)
    assert repr(call.exception()) == "None"
    assert is_legal(process)


# what goes in


@pytest.mark.parametrize("prompt", [["hello"], b"hello", [1]], ids=["texts", "bytes", "numbers"])
def test_a_prompt_of_wrong_parts_is_refused_and_the_log_stays_whole(prompt, tmp_path):
    process = live({"say": "one"}, on=machine(SystemClock(), store=JsonlStore(tmp_path / "a.jsonl")))
    with pytest.raises(PromptError):
        process.run(prompt).result(2)
    process.run("hi").result(2)
    process.machine.close()
    assert [event.kind for event in LogFile(tmp_path / "a.jsonl").unknown] == []


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        5,
        Message(role="assistant", parts=(Text(text="x"),)),
        Message(role="tool", parts=(ToolResult(call_id="q"),)),
        [ToolCall(id="a", name="b")],
    ],
    ids=["None", "5", "assistant", "tool", "call"],
)
def test_what_is_no_prompt_is_refused(prompt):
    process = live({"say": "one"})
    with pytest.raises(PromptError):
        process.run(prompt).result(2)
    assert roles(process) == ["system"]


def test_a_name_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(LlmprocError):
        live({"say": "one"}, name=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["name", "id"])
def test_a_lone_surrogate_in_a_tool_call_is_replaced(field):
    call = {"name": "x", "id": "i", field: "\ud800"}
    process = live({"when": "^go", "call": [call]}, {"say": "end"})
    assert process.run("go").result(2).text == "end"


@pytest.mark.parametrize(
    "part",
    [Document(text="\ud800"), Document(text="x", title="\ud800"), Image(url="\ud800"), Text(text="x", extra={"k": "\ud800"})],
    ids=["document", "title", "url", "extra"],
)
def test_a_lone_surrogate_in_a_part_is_replaced_or_refused(part):
    process = live({"say": "end"})
    try:
        text = process.run([part]).result(2).text
    except PromptError:
        text = "end"
    assert text == "end"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**80, -(2**64), 1e-320])
def test_odd_numbers_in_what_a_provider_keeps_survive_the_log(value, tmp_path):
    process = live({"say": "end"}, on=machine(SystemClock(), store=JsonlStore(tmp_path / "a.jsonl")))
    process.run([Text(text="x", extra={"k": value})]).result(2)
    process.machine.close()
    assert {node.id for node in LogFile(tmp_path / "a.jsonl").dialog()} == {node.id for node in process.machine.dialog}


def test_messages_that_differ_have_different_ids():
    messages = [
        Message(role="user"),
        Message(role="system"),
        Message(role="user", api=""),
        Message(role="user", parts=(Text(text=""),)),
        Message(role="user", parts=(Text(text="", extra={}),)),
        Message(role="user", parts=(Image(),)),
        Message(role="user", parts=(Image(data=b""),)),
        Message(role="user", parts=(Document(),)),
        Message(role="user", parts=(Document(text=""),)),
        Message(role="assistant", parts=(ToolCall(id="", name=""),)),
        Message(role="assistant", parts=(ToolCall(id="", name="", arguments=""),)),
        Message(role="assistant", interrupted=True),
    ]
    assert len({node_id(message, parent) for message in messages for parent in ("", "0" * 32)}) == 2 * len(messages)


# size


def chain(depth: int) -> Node:
    node = Node(user("x"), None)
    for _ in range(depth):
        node = Node(user("x"), node)
    return node


def test_a_very_deep_dialog_is_walked_shown_and_let_go():
    node = chain(100_000)
    assert (len(node.path()), repr(node)[:6]) == (100_001, "<Node ")
    del node
    gc.collect()


def test_a_deep_dialog_can_be_pickled():
    node = chain(5_000)
    try:
        again = pickle.loads(pickle.dumps(node))
    except RecursionError:
        again = None
    assert again is not None and (again.id, again.depth) == (node.id, node.depth)


def test_many_calls_leave_nothing_behind_but_their_events():
    process = live(lambda request: "ok")
    for _ in range(200):
        process.run("x", callbacks={"on_response": lambda text: None}).result()
    assert (len(process.calls), len(process.machine.log._readers)) == (1, 0)
    assert [event.seq for event in process.machine.log.events] == list(range(1, len(process.machine.log.events) + 1))


# many threads


def at_once(count: int, work: Any) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_processes_of_one_endpoint_share_a_provider_whoever_starts_them():
    class LateDrivers:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def provider(self, program: Any) -> Any:
            time.sleep(0.02)
            return self._inner.provider(program)

    on = machine()
    on.drivers = LateDrivers(on.drivers)
    program = Program(name="x", provider="scripted", model="m", script=({"say": "hi"},))
    at_once(8, lambda: program.start(machine=on))
    assert len({id(process.provider) for process in on.processes.values()}) == 1
    assert [event.seq for event in on.log.events] == list(range(1, len(on.log.events) + 1))


def test_a_process_is_found_while_others_start():
    process = live({"say": "hi"})

    class Name:
        def __eq__(self, other: object) -> bool:
            process.program.start(machine=process.machine)
            return other == process.name

        __hash__ = None  # type: ignore[assignment]

    assert process.machine.find(Name()).name == process.name  # type: ignore[arg-type]


def test_no_call_is_forgotten_whoever_makes_it():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(12):
            process, made = live(SLOW), []

            def ask(process: Process = process, made: list[Any] = made) -> None:
                made.extend([process.run("slow") for _ in range(10)])

            at_once(8, ask)
            kept = {id(call) for call in process.calls}
            for call in made:
                call.cancel()
            assert [call for call in made if id(call) not in kept and not call.done()] == []
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_interpreter_can_run_its_processes():
    process = live({"say": "a"}, {"say": "b"})
    process.run("x").result()
    child = os.fork()
    if not child:
        try:
            os._exit(0 if process.run("y").result(1.0).text == "b" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# recordings


def test_two_notebooks_cannot_record_into_one_file(tmp_path):
    path = tmp_path / "r.jsonl"
    first, second = (live({"say": "a"}, on=machine(SystemClock(), store=RecordingStore(path, "record"))) for _ in range(2))
    first.run("x").result(2)
    with pytest.raises(LogError, match="another kernel"):
        second.run("x").result(2)
    first.machine.close()
    assert "Replied" in [type(event).__name__ for event in LogFile(path).events]


def test_a_run_that_gets_no_answer_leaves_the_recording_as_it_was(tmp_path):
    path = tmp_path / "r.jsonl"
    good = live({"say": "a"}, on=machine(SystemClock(), store=RecordingStore(path, "record")))
    good.run("x").result(2)
    good.machine.close()
    before = path.read_bytes()
    bad = live({"error": "AuthError"}, on=machine(SystemClock(), store=RecordingStore(path, "record")))
    with pytest.raises(AuthError):
        bad.run("x").result(2)
    bad.machine.close()
    assert path.read_bytes() == before


# the view


def test_what_is_shown_last_is_the_finished_turn():
    at_work, go_on = threading.Event(), threading.Event()
    shown: list[str] = []

    class SlowTurn(Turn):
        def parts(self) -> Any:
            at_work.set()
            go_on.wait(2)
            return super().parts()

    class Handle:
        def display(self, data: Any, raw: bool) -> None:
            shown.append(data["text/plain"])

        update = display

    view = LiveView(SlowTurn(process="scout", scripted=True), stream=True)
    view._handle = Handle()  # type: ignore[assignment]
    thread = threading.Thread(target=lambda: view.delta(Delta("text", "The answer")))
    thread.start()
    at_work.wait(2)
    view.finish(finished())
    go_on.set()
    thread.join()
    assert shown[-1] == "scout (scripted: no model answered): The answer is 42."


def test_a_view_that_failed_before_anything_came_shows_nothing_later():
    shown: list[str] = []

    class Handle:
        def display(self, data: Any, raw: bool) -> None:
            shown.append(data["text/plain"])

        update = display

    async def fail_with_a_frame_due() -> None:
        view = LiveView(Turn(process="scout", scripted=True), stream=True)
        view._handle = Handle()  # type: ignore[assignment]
        view.delta(Delta("wait", "a moment"))
        view.delta(Delta("wait", "another one"))  # too soon after the first: due in a moment
        view._handle = None
        view.failed("it failed")
        view._handle = Handle()  # type: ignore[assignment]
        await asyncio.sleep(0.3)

    asyncio.run(fail_with_a_frame_due())
    assert shown == ["scout (scripted: no model answered): asked [a moment] …"]


# secrets

HIDING = {
    "settings": Settings(headers={"Authorization": "Bearer SECRET-1"}),
    "mcp": {
        "files": McpServer(env={"K": "SECRET-2"}, headers={"X": "SECRET-3"}, args=("--token", "SECRET-4"), url="https://h/?key=SECRET-5")
    },
    "base_url": "https://me:SECRET-6@host/v1",
}


def secrets(text: str) -> set[str]:
    return set(re.findall(r"SECRET-\d", text))


@pytest.mark.parametrize(
    ("field", "marks"),
    [
        ("settings", ()),
        ("mcp", ()),
        ("base_url", ()),
    ],
    ids=["headers", "mcp", "base_url"],
)
def test_no_secret_of_a_program_is_in_the_log(field, marks, request):
    for mark in marks:
        request.applymarker(mark)
    process = live({"say": "hi"}, **{field: HIDING[field]})
    process.run("x").result()
    assert secrets(repr(process.machine.log.events)) == set()


def test_no_secret_of_a_linked_program_is_in_the_log():
    inner = Program(name="inner", settings=HIDING["settings"], mcp={"files": McpServer(env={"K": "SECRET-2"})})
    process = live({"say": "hi"}, linked={"inner": Link(program=inner)})
    assert secrets(repr(process.machine.log.events)) == set()


@pytest.mark.parametrize("field", ["settings", "mcp", "base_url"])
def test_no_secret_is_in_the_repr_of_a_program(field):
    assert secrets(repr(Program(name="x", **{field: HIDING[field]}))) == set()


def echo_key(request: Any, number: int) -> Answer:
    key = request.headers.get("authorization") or request.headers.get("x-api-key")
    error = {"type": "authentication_error", "message": f"Incorrect API key provided: {key}"}
    return Answer(status=401, headers={"content-type": "application/json"}, body={"type": "error", "error": error})


@pytest.fixture(scope="module", params=["anthropic", "openai_chat"])
def refused_keys(request: pytest.FixtureRequest) -> tuple[list[str], str, list[str]]:
    """What two keys that a server refuses lead to: the errors, the log, and the keys the server saw."""
    variable, errors = f"{request.param.split('_')[0].upper()}_API_KEY", []
    with LoopbackServer(echo_key) as server, pytest.MonkeyPatch.context() as patch:
        program = Program(name="x", provider=request.param, model="m", base_url=server.url)
        process = program.start(machine=machine(SystemClock()))
        for key in ("sk-SECRET-1-abcdefgh", "sk-SECRET-2-abcdefgh"):
            patch.setenv(variable, key)
            with pytest.raises(AuthError) as caught:
                process.run("hi").result(20)
            errors.append(repr(caught.value))
        seen = [str(seen.headers.get("authorization") or seen.headers.get("x-api-key")) for seen in server.seen]
    return errors, repr(process.machine.log.events), seen


def test_a_key_that_an_api_repeats_in_its_error_is_told_to_nobody(refused_keys):
    errors, log, _ = refused_keys
    assert secrets(log + "".join(errors)) == set()


def test_a_key_that_was_refused_is_read_again(refused_keys):
    assert [sorted(secrets(key)) for key in refused_keys[2]] == [["SECRET-1"], ["SECRET-2"]]


# the notebook

SETUP = '''
%load_ext llmproc_nb
import os, signal, time
from llmproc_nb import Program

def where() -> str:
    """Say where."""
    return "here"

def block() -> str:
    """Take long."""
    time.sleep(30)

def ask_other() -> str:
    """Ask another process, with a cell."""
    get_ipython().run_cell_magic("agent", "other -p prog --tools where", "where are you")
    return other.get_last_message()

prog = Program(name="prog", provider="scripted", model="m", script=(
    {"when": "slow please|^slow", "say": "word " * 400, "delay_s": 0.02},
    {"when": "^where", "call": [{"name": "where"}]},
    {"when": "^block", "call": [{"name": "block"}]},
    {"when": "^other", "call": [{"name": "ask_other"}]},
    {"when": "^endless", "call": [{"name": "where", "arguments": '{"x": 1e999}'}]},
    {"when": "here", "say": "{{result}}"},
    {"say": "one"}, {"say": "two"}, {"say": "three"}, {"say": "four"},
))
'''


@pytest.fixture(scope="module")
def kernel():
    made = Kernel(LLMPROC_NB_STREAM="0")
    assert made.run(SETUP).status == "ok"
    yield made
    made.close()


@pytest.mark.parametrize(
    "name",
    [
        "class",
        "None",
        "print",
        "_5",
        "__x__",
        "\ufb01",
    ],
)
def test_a_name_that_python_could_not_use_or_would_lose_is_refused(kernel, name):
    before = kernel.run(f"globals().get({name!r})").data()
    ran = kernel.run(f"%%agent {name} -p prog\nhi")
    kernel.run(f"globals().pop({name!r}, None)")
    assert (ran.status, ran.error and ran.error["ename"], before) == ("error", "PersonError", [])


@pytest.mark.parametrize("name", ["In", "_ih", "get_ipython", "exit"])
def test_a_name_that_the_notebook_uses_is_refused(kernel, name):
    assert kernel.run(f"%%agent {name} -p prog\nhi").error["ename"] == "PersonError"


def test_an_endless_number_in_an_argument_leaves_a_notebook_that_can_be_read(kernel):
    ran = kernel.run("%%agent endless -p prog --tools where\nendless")
    assert "serialization failed" not in ran.printed
    assert "Infinity" not in str(ran.data("application/vnd.llmproc.turn+json"))


@pytest.mark.parametrize("magic", ["time", "capture"])
def test_an_agent_cell_runs_after_a_cell_within_the_cell(kernel, magic):
    name = f"after_{magic}"
    kernel.run(f"get_ipython().run_cell('1')\nget_ipython().run_cell_magic({magic!r}, '', '%%agent {name} -p prog\\nhi')", cell=name)
    assert kernel.run(f"{name}.messages[-1].text").data() == ["'one'"]


def test_a_captured_cell_that_is_run_again_branches(kernel):
    for _ in range(2):
        kernel.run("%%capture\n%%agent captured -p prog\nhi", cell="captured")
    assert kernel.run("len(captured.messages)").data() == ["3"]


def test_an_agent_cell_runs_where_autoawait_is_off(kernel):
    kernel.run("%autoawait off")
    try:
        assert kernel.run("%%agent plain -p prog\nhi").data() == ["plain (scripted: no model answered): one"]
    finally:
        kernel.run("%autoawait asyncio")


@pytest.mark.parametrize(
    ("source", "text"),
    [("\n\n%%agent {n} -p prog\nhi", "hi"), ("%%agent {n} -p prog\nhi;", "hi;"), ("%%agent {n} -p prog\n---\n", "---")],
    ids=["blank lines first", "semicolon", "only a rule"],
)
def test_odd_cells_keep_their_text(kernel, source, text):
    name = f"odd{len(source)}{len(text)}"
    assert kernel.run(source.replace("{n}", name)).status == "ok"
    assert kernel.run(f"{name}.messages[1].text").data() == [repr(text)]


@pytest.mark.parametrize("outer", ["", "%%time\n"])
def test_a_tool_may_run_an_agent_cell(kernel, outer):
    ran = kernel.run(f"{outer}%%agent outer -p prog --tools ask_other\nother please", cell=f"outer{len(outer)}")
    assert ran.data()[-1].endswith("here") and ran.status == "ok"


def test_an_interrupt_while_a_value_is_made_acts_at_once_and_starts_nothing(kernel):
    ran = kernel.run("%%agent waits -p prog\nslow {{time.sleep(4)}}", cell="waits", interrupt_after_s=0.3)
    state = kernel.run("'waits' in globals() and waits.state").data()
    kernel.run("'waits' in globals() and waits.kill()")
    assert ran.status == "error" and ran.interrupt_s < 3
    assert state in (["False"], ["'idle'"])


def test_a_tool_that_was_interrupted_says_that_its_effect_is_unknown(kernel):
    kernel.run("%%agent blocked -p prog --tools block\nblock please", cell="blocked", interrupt_after_s=0.4)
    assert "whether it took effect is unknown" in kernel.run("blocked.messages[-1].tool_results[0].text").data()[0]


def test_an_interrupt_of_a_call_within_a_tool_stops_the_outer_one_too():
    def act() -> str:
        """Wait for another process, and be interrupted."""
        raise Interrupted("other")

    process = live(calling("act"), {"say": "went on"}, tools=[tool(act, where="main")])
    tools = WaitingTools()
    with pytest.raises(KeyboardInterrupt):
        tools.wait(process.run("go", on_main=tools))
    assert process.get_last_message() == ""


def test_waiting_for_many_loses_none_when_one_fails(kernel):
    kernel.run("failing = Program(name='failing', provider='scripted', model='m', script=({'error': 'RequestRefused'},))")
    kernel.run("%%agent w1 -p failing --bg\nhi")
    kernel.run("%%agent w2 -p prog --bg\nhi")
    assert kernel.run("%wait").error["ename"] == "RequestRefused"
    assert kernel.run("%wait").data() == ["w2 (scripted: no model answered): one"]


def test_an_interrupt_of_wait_stops_all_that_it_waits_for(kernel):
    for name in ("i1", "i2"):
        kernel.run(f"%%agent {name} -p prog --bg\nslow please")
    kernel.run("%wait", interrupt_after_s=0.3)
    states = kernel.run("[i1.state, i2.state]").data()
    kernel.run("%kill i1 i2")
    assert states == ["['idle', 'idle']"]


@pytest.fixture(scope="module")
def other_kernel(tmp_path_factory):
    """A kernel in which the extension is loaded and unloaded: these tests follow each other."""
    made = Kernel(LLMPROC_NB_STREAM="0", LLMPROC_NB_MODE="replya", FOLDER=str(tmp_path_factory.mktemp("recordings")))
    yield made
    made.close()


def test_a_wrong_mode_is_one_line_and_can_be_mended(other_kernel):
    ran = other_kernel.run("%load_ext llmproc_nb")
    again = other_kernel.run("import os; os.environ['LLMPROC_NB_MODE'] = 'live'\n%load_ext llmproc_nb\n%agent")
    other_kernel.run(
        "ip = get_ipython()\nif 'agent' not in ip.magics_manager.magics['line']:\n"
        "    ip.llmproc = None\n    ip.run_line_magic('reload_ext', 'llmproc_nb')"
    )
    assert (ran.error["ename"], len(ran.error["traceback"]), again.status) == ("PersonError", 1, "ok")


def test_reloading_leaves_one_set_of_settings(other_kernel):
    other_kernel.run("os.environ['LLMPROC_NB_MODE'] = 'live'\n%reload_ext llmproc_nb\n%reload_ext llmproc_nb")
    found = other_kernel.run("[type(one).__name__ for one in get_ipython().configurables].count('AgentMagics')").data()
    assert found == ["1"]


def test_a_process_that_is_started_in_python_follows_the_mode(other_kernel):
    other_kernel.run("os.environ.update(LLMPROC_NB_MODE='replay', LLMPROC_NB_RECORDING=os.environ['FOLDER'] + '/none.jsonl')")
    ran = other_kernel.run(SETUP.replace("%load_ext", "%reload_ext") + "\nprint(prog.start().run('hello'))")
    assert "there is no recording" in str(ran.error) and ran.printed == ""


def test_reloading_gives_the_recording_back(other_kernel):
    other_kernel.run("os.environ.update(LLMPROC_NB_MODE='auto', LLMPROC_NB_RECORDING=os.environ['FOLDER'] + '/auto.jsonl')")
    other_kernel.run(SETUP.replace("%load_ext", "%reload_ext"))
    other_kernel.run("%%agent r1 -p prog\nhi")
    other_kernel.run("%reload_ext llmproc_nb")
    assert other_kernel.run("%%agent r2 -p prog\nhi again").data() == ["r2 (scripted: no model answered): one"]


def logged(folder: Path) -> Path:
    """A log in which process `back` lives."""
    process = live({"say": "one"}, {"say": "two"}, on=machine(SystemClock(), store=JsonlStore(folder / "back.jsonl")), name="back")
    process.run("hi").result()
    process.machine.close()
    return folder / "back.jsonl"


def test_a_function_that_is_no_tool_keeps_nobody_from_coming_back(other_kernel, tmp_path):
    other_kernel.run("os.environ['LLMPROC_NB_MODE'] = 'live'\n%reload_ext llmproc_nb\ndef many(*args): ...")
    assert "many" not in other_kernel.run(f"%agent --resume {logged(tmp_path)}").data()[0]
    assert other_kernel.run("back.state").data() == ["'idle'"]


SAME = """
from llmproc_nb import Program
same = Program(name="back", provider="scripted", model="script", script=({"say": "one"}, {"say": "two"}))
"""


def test_a_process_that_came_back_takes_its_own_cell(other_kernel, tmp_path):
    other_kernel.run("os.environ['LLMPROC_NB_MODE'] = 'live'\n%reload_ext llmproc_nb\nglobals().pop('many', None)")
    other_kernel.run(SAME)
    other_kernel.run(f"%agent --resume {logged(tmp_path)}")
    assert other_kernel.run("%%agent back -p same\nmore", cell="back").status == "ok"


ODD = """
class Odd(SystemExit):
    def __str__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        return "odd"

def where() -> str:
    raise Odd
"""


def test_an_interrupt_at_the_worst_moment_does_not_kill_the_kernel():
    made = Kernel(LLMPROC_NB_STREAM="0")
    try:
        made.run(SETUP)
        made.run(ODD)
        made.run("%%agent odd -p prog --tools where\nwhere", timeout_s=2)
        assert made.run("1 + 1", timeout_s=2).data() == ["2"]
    finally:
        made.close()


@pytest.mark.parametrize(
    "way",
    ["result", "cell"],
)
def test_a_tool_on_the_main_thread_that_waits_for_its_own_process_is_told_so(way):
    def again() -> str:
        """Ask myself."""
        threading.Timer(3, outer[0].cancel).start()
        inner = process.run("inner")
        return told(lambda: inner.result() if way == "result" else WaitingTools().wait(inner))

    process = live(calling("again"), {"say": "{{result}}"}, {"say": "inner"}, {"say": "more"}, tools=[tool(again, where="main")])
    tools = WaitingTools()
    outer = [process.run("go", on_main=tools)]
    began = time.monotonic()
    assert tools.wait(outer[0]).text == "CallStateError"
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("way", ["reader", "view"])
def test_a_reader_that_exits_ends_no_loop(way):
    code = LEAVING.replace(', callbacks={"on_tool_end": leave}', "" if way == "reader" else ", on_event=leave")
    code = code.replace("    raise SystemExit(3)", '    if type(values[0]).__name__ == "ToolRan":\n        raise SystemExit(3)')
    code = code.replace("print(", "process.machine.log.add(leave)\nprint(") if way == "reader" else code
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20)
    assert done.stdout == "acted True\n", done.stderr[-1000:]


def test_a_process_started_before_the_extension_does_not_undo_the_replay(tmp_path):
    made = Kernel(LLMPROC_NB_STREAM="0", LLMPROC_NB_MODE="replay", LLMPROC_NB_RECORDING=str(tmp_path / "none.jsonl"))
    try:
        made.run(SETUP.replace("%load_ext llmproc_nb", "") + "\nearly = prog.start('early')")
        made.run("%load_ext llmproc_nb")
        assert made.run("%%agent late -p prog\nhi").status == "error"  # there is no recording, so nothing may answer
    finally:
        made.close()


def test_a_dry_run_of_a_new_process_leaves_nothing(kernel):
    assert "nothing was sent" in kernel.run("%%agent never_started -p prog --dry-run\nhi").data()[0]
    assert kernel.run("'never_started' in globals()").data() == ["False"]
