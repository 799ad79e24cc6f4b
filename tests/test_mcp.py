"""MCP servers: real ones over stdio, SSE and HTTP, and ones that crash, hang, lie and die when they are told to."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from kernels import kernel
from machines import machine, scripted
from paths import ROOT

from llmproc_nb.core.errors import ProgramError, PromptError, ToolError
from llmproc_nb.core.message import Document, Image, Message, Text
from llmproc_nb.core.owner import OwnerLoop
from llmproc_nb.core.program import McpServer, ToolWish
from llmproc_nb.core.tail import Tail
from llmproc_nb.drivers.mcp import (
    Change,
    ElicitAnswer,
    ElicitAsk,
    LogLine,
    Resource,
    SamplingAnswer,
    SamplingAsk,
    Servers,
    Terms,
    connect,
)
from llmproc_nb.drivers.mcp.launch import launch

SCRIPT = ROOT / "tests" / "mcp_server.py"
ENV = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
SHORT = Terms(connect_timeout_s=1.0, call_timeout_s=0.4, stop_grace_s=0.3)


def stdio(*arguments: str, tools: Any = "all", **env: str) -> McpServer:
    return McpServer(command=sys.executable, args=(str(SCRIPT), *arguments), env=env, tools=tools)


def raw(fault: str = "", **fields: Any) -> McpServer:
    server = McpServer(command=sys.executable, args=("-S", "-E", str(SCRIPT), "raw", fault), tools="all")
    return msgspec.structs.replace(server, **fields)


@pytest.fixture(scope="module")
def owner() -> Iterator[OwnerLoop]:
    loop = OwnerLoop()
    yield loop
    loop.close()


class Connected:
    """Servers on the owner loop, and what they told."""

    def __init__(self, owner: OwnerLoop, servers: dict[str, McpServer], environ: dict[str, str] | None = None, **fields: Any) -> None:
        self.owner = owner
        self.told: list[Any] = []
        self.asked: list[SamplingAsk] = []
        self.trace = ROOT
        ears = dict.fromkeys(("on_change", "on_log", "on_progress"), self.told.append)
        self.servers: Servers = owner.wait(
            connect(servers, environ=ENV if environ is None else environ, base_dir=ROOT, **{**ears, **fields}), 30
        )

    def call(self, name: str, /, **arguments: Any) -> tuple[Any, ...]:
        tool = self.servers.toolset.get(name)
        assert tool is not None, self.servers.toolset
        return self.wait(tool.function(**arguments))

    def wait(self, work: Awaitable[Any]) -> Any:
        return self.owner.wait(work, 30)

    def text(self, name: str, /, **arguments: Any) -> str:
        parts = self.call(name, **arguments)
        assert [type(part) for part in parts] == [Text]
        return parts[0].text

    def refused(self, name: str, /, **arguments: Any) -> str:
        with pytest.raises(ToolError) as caught:
            self.call(name, **arguments)
        return caught.value.for_model()


@contextmanager
def connected(owner: OwnerLoop, servers: McpServer | dict[str, McpServer], **fields: Any) -> Iterator[Connected]:
    made = Connected(owner, servers if isinstance(servers, dict) else {"t": servers}, **fields)
    try:
        yield made
    finally:
        owner.wait(made.servers.close(), 15)


def start_fails(owner: OwnerLoop, server: McpServer | dict[str, McpServer], **fields: Any) -> str:
    with pytest.raises(ProgramError) as caught, connected(owner, server, **fields):
        pass
    return str(caught.value)


def until(true: Callable[[], Any], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


@contextmanager
def served(tmp_path: Any, transport: str, **env: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real server on loopback: its address and its process."""
    port_file = tmp_path / f"port-{time.monotonic_ns()}"
    process = subprocess.Popen([sys.executable, str(SCRIPT), transport, str(port_file)], env={**os.environ, **env})
    try:
        until(port_file.exists, 15)
        yield f"http://127.0.0.1:{port_file.read_text()}/{'sse' if transport == 'sse' else 'mcp'}", process
    finally:
        process.kill()
        process.wait()


async def says_hello(ask: SamplingAsk) -> SamplingAnswer:
    return SamplingAnswer(text=f"hello ({getattr(ask.caller, 'name', ask.caller)})", model="small")


async def is_ada(ask: ElicitAsk) -> ElicitAnswer:
    return ElicitAnswer(action="accept", content={"name": f"Ada ({ask.message})"})


@pytest.fixture(scope="module", params=["auto", "legacy"])
def real(request: Any, owner: OwnerLoop) -> Iterator[Connected]:
    """A real server over stdio, in the newest protocol and in the older one."""
    terms = Terms(protocol=request.param)
    with connected(owner, stdio("stdio"), terms=terms, sampler=says_hello, elicitor=is_ada) as made:
        yield made


@pytest.fixture(scope="module", params=["auto", "legacy"])
def strict(request: Any, owner: OwnerLoop, tmp_path_factory: Any) -> Iterator[Connected]:
    """One that has little time, with a model that refuses and a person who thinks longer than the server may."""
    asked: list[SamplingAsk] = []
    trace = tmp_path_factory.mktemp("trace") / "trace"

    async def refuses(ask: SamplingAsk) -> SamplingAnswer:
        asked.append(ask)
        raise ToolError("the limit of 3 calls is reached")

    async def thinks(ask: ElicitAsk) -> ElicitAnswer:
        await asyncio.sleep(0.8)
        return ElicitAnswer(action="cancel")

    terms = Terms(protocol=request.param, call_timeout_s=0.5)
    with connected(owner, stdio("stdio", TRACE=str(trace)), terms=terms, sampler=refuses, elicitor=thinks) as made:
        made.asked, made.trace = asked, trace
        yield made


# tools


def test_tools_have_the_servers_words_schema_and_access(real):
    add = real.servers.toolset.get("t__add")
    schema = add.spec.parameters
    assert (add.spec.description, add.access) == ("The sum of two whole numbers.", "read")
    assert (schema["required"], schema["properties"]["a"]) == (["a", "b"], {"title": "A", "type": "integer"})
    assert real.servers.toolset.get("t__total").access == "write"


def test_a_call_gives_the_servers_answer(real):
    assert real.text("t__add", a=2, b=40) == "42"


def test_structured_content_that_the_text_repeats_is_given_once(real):
    assert json.loads(real.text("t__total", numbers=[1, 2])) == {"total": 3}


def test_every_kind_of_content_becomes_a_part_and_none_is_dropped(real):
    parts = real.call("t__mixed")
    picture, document = parts[1], parts[4]
    assert (type(picture), picture.media_type, picture.data[:4]) == (Image, "image/png", b"\x89PNG")  # what it is, not what it is called
    assert document == Document(media_type="application/pdf", data=b"%PDF-1.4", title="paper.pdf")
    assert [part.text for part in parts if isinstance(part, Text)] == [
        "words",
        "[audio/wav, 3 bytes as base64]\nAAEC",
        "[resource note://1, text/plain]\na note",
        "[resource link note://2: second, text/plain, 7 bytes, more]",
        '{"more": [1, 2]}',
    ]


def test_an_error_of_a_tool_is_an_answer_for_the_model(real):
    assert real.refused("t__fails", why="the moon is full") == "Error executing tool fails: the moon is full."


def test_arguments_that_do_not_fit_are_refused_by_the_server(real):
    assert "valid integer" in real.refused("t__add", a="x", b=1)


def test_calls_from_many_tasks_run_at_once(real):
    sleeps = real.servers.toolset.get("t__sleeps").function

    async def five() -> float:
        began = time.monotonic()
        await asyncio.gather(*(sleeps(seconds=0.3) for _ in range(5)))
        return time.monotonic() - began

    assert real.wait(five()) < 1.0


def test_a_cancelled_call_tells_the_server(owner, strict):
    call = asyncio.run_coroutine_threadsafe(strict.servers.toolset.get("t__sleeps").function(seconds=30), owner.loop)
    until(strict.trace.exists)
    call.cancel()
    until(lambda: strict.trace.read_text() == "began\ncancelled\n")


def test_a_process_calls_the_tools_as_its_own():
    on = machine()
    with connected(on.owner, stdio("stdio"), sampler=says_hello) as made:
        call = {"name": "t__asks_model", "arguments": {}}
        scout = scripted({"call": [call]}, {"say": "done"}, tools=made.servers.toolset, on=on)
        result = scout.run("go").result()
        assert [run.result.text for run in result.tool_calls] == ["small says hello (scout)"]
    on.close()


# what servers ask and tell


def test_a_server_may_ask_the_model(real):
    assert real.text("t__asks_model", _process="scout") == "small says hello (scout)"


def test_the_model_is_asked_in_our_words_and_may_refuse(strict):
    strict.asked.clear()
    assert "the limit of 3 calls is reached" in strict.refused("t__asks_model")
    message = Message(role="user", parts=(Text(text="Say a word."),))
    assert strict.asked == [SamplingAsk(server="t", messages=(message,), system="Be short.", max_tokens=9, stop_sequences=(".",))]


def test_a_server_may_ask_the_person(real):
    assert real.text("t__asks_person") == 'accept {"name": "Ada (Who are you?)"}'


def test_without_answers_the_person_declines_and_the_model_is_refused(owner):
    with connected(owner, {"t": stdio("stdio", tools=None)}) as made:
        assert (list(made.servers.toolset), made.servers.info("t").alive) == ([], False)
        assert made.wait(made.servers.read("t", "note://today")) == (Text(text="rain\nthen sun"),)  # starts what no tool is wanted of
        assert (list(made.servers.toolset), made.servers.info("t").alive) == ([], True)
    with connected(owner, stdio("stdio"), terms=Terms(protocol="legacy")) as made:
        assert made.text("t__asks_person") == "decline null"
        assert "Sampling not supported" in made.refused("t__asks_model")


def test_time_in_which_the_person_thinks_is_not_the_servers(strict):
    assert strict.text("t__asks_person") == "cancel null"


def test_a_server_is_told_of_the_working_folder(real):
    assert real.text("t__asks_roots") == ROOT.as_uri()
    assert real.text("t__folder") == str(ROOT)


def test_log_lines_arrive_cleaned(real):
    real.told.clear()
    real.call("t__says")
    until(lambda: real.told)
    assert real.told == [LogLine(server="t", level="info", text="a line for the log", logger="tester")]


def test_progress_is_told_and_starts_the_clock_anew(strict):
    strict.told.clear()
    assert strict.text("t__waits", seconds=0.8) == "waited"
    assert [(said.tool, said.progress, said.total, said.text) for said in strict.told][:2] == [
        ("waits", 1.0, 16.0, "still here"),
        ("waits", 2.0, 16.0, "still here"),
    ]
    said = strict.refused("t__sleeps", seconds=5)
    assert said.startswith("MCP server 't' said nothing about tool 'sleeps' for 0.5 s and was told to stop; whether it took effect is")


def test_a_list_of_tools_that_changes_gives_a_new_toolset(real):
    before = real.servers.toolset
    real.told.clear()
    assert real.text("t__learns", name="newer") == "learned"
    until(lambda: real.told)
    assert real.told == [Change(server="t", added=("t__newer",))]
    assert ("t__newer" in before, real.text("t__newer")) == (False, "new")


def test_resources_are_listed_and_read_by_uri_or_name(real):
    assert real.wait(real.servers.resources("t")) == (
        Resource(uri="note://today", name="today", description="What is on.", media_type="text/plain"),
        Resource(uri="note://picture", name="picture", media_type="image/png"),
        Resource(uri="note://day/{day}", name="day", media_type="text/plain", template=True),
    )
    for name in ("today", "note://today"):
        assert real.wait(real.servers.read("t", name)) == (Text(text="rain\nthen sun"),)
    assert real.wait(real.servers.read("t", "note://day/3")) == (Text(text="nothing on 3"),)
    words, picture = real.wait(real.servers.read("t", "picture"))
    assert (words.text, type(picture)) == ("[resource note://picture, image/png]", Image)


def test_a_resource_or_server_that_is_not_there_is_named_with_one_that_is(real):
    none = "MCP server 't' has no resource or prompt"
    for server, name, words in (
        ("t", "todya", f"{none} 'todya'; there is today, picture, day, and the prompts review, plan. Did you mean 'today'?"),
        ("t", "plann", f"{none} 'plann'; there is today, picture, day, and the prompts review, plan. Did you mean 'plan'?"),
        ("tt", "today", "there is no MCP server 'tt'; there is t. Did you mean 't'?"),
        ("t", "note://nowhere", "MCP server 't' refuses the resource 'note://nowhere'"),
    ):
        with pytest.raises(PromptError) as caught:
            real.wait(real.servers.read(server, name))
        assert str(caught.value).startswith(words)


def test_prompts_give_messages(real):
    review = real.servers.prompt("t", "review", {"code": "x = 1", "style": "stern"})
    assert real.wait(review) == (Message(role="user", parts=(Text(text="Review, stern: x = 1"),)),)
    listed, _ = real.wait(real.servers.prompts("t"))
    assert (listed.name, listed.arguments, listed.required) == ("review", ("code", "style"), ("code",))
    for name, arguments, words in (("review", {}, "needs code"), ("revue", {}, "Did you mean 'review'?")):
        with pytest.raises(PromptError, match=words.replace("?", r"\?")):
            real.wait(real.servers.prompt("t", name, arguments))


def test_where_there_is_no_resource_of_a_name_it_is_a_prompts(real):
    assert real.wait(real.servers.read("t", "plan")) == (Text(text="Plan 3 days."),)
    with pytest.raises(PromptError) as caught:
        real.wait(real.servers.read("t", "review"))
    assert str(caught.value) == (
        "the prompt 'review' of 't' needs code; its messages are process.servers.prompt('t', 'review', code='…'). "
        "In a cell, {{process.servers.prompt('t', 'review', code='…')[0].text}} is the first one's text."
    )


def test_what_can_be_read_is_known_of_a_server_that_is_or_was_there_and_starts_none(owner):
    with connected(owner, {"t": stdio("stdio"), "u": raw(tools=None)}) as made:
        names = ["today", "picture", "day", "review", "plan"]
        assert [one.name for one in made.wait(made.servers.known("t"))] == names
        made.servers.rest()
        until(lambda: not made.servers.info("t").alive)
        assert [one.name for one in made.wait(made.servers.known("t"))] == names
        assert made.wait(made.servers.known("u")) == ()
        assert (made.servers.info("t").alive, made.servers.info("u").alive) == (False, False)


# which tools, under which names


def test_wishes_choose_rename_and_describe(owner):
    wishes = (
        ToolWish(name="ok", alias="fine", description="All is well.", param_descriptions={"_process": "yours"}, access="read"),
        ToolWish(name="t__nan"),
    )
    with connected(owner, raw(tools=wishes)) as made:
        assert [(tool.name, tool.access) for tool in made.servers.toolset] == [("fine", "read"), ("t__nan", "write")]
        fine = made.servers.toolset.get("fine")
        assert (fine.spec.description, fine.spec.parameters["properties"]["_process"]["description"]) == ("All is well.", "yours")
        assert json.loads(made.text("fine", _process="mine"))["_process"] == "mine"  # a parameter of the server keeps its name
        assert list(fine.inject) == ["_process_"]


def test_a_tool_that_the_server_lacks_is_a_fault_of_the_program(owner):
    said = start_fails(owner, raw(tools=(ToolWish(name="surogate"),)))
    assert said.startswith("MCP server t: it has no tool 'surogate'; it has ok, twice,")
    assert "Did you mean 'surrogate'" in said


def test_names_are_made_fit_for_every_api(owner):
    with connected(owner, {"my files": raw()}) as made:
        names = [tool.name for tool in made.servers.toolset]
        assert "my_files__a_b_c" in names and all(len(name) <= 64 for name in names)
        assert json.loads(made.text("my_files__a_b_c"))["name"] == "a b/c"


# variables and secrets


def test_variables_are_filled_in_everywhere():
    environ = {"A": "one", "HOME": "/h", "KEY": "sk-1", "EMPTY": ""}
    server = McpServer(command="${A}", args=("-x", "${env:A}${NO:-two}", "$A", "${EMPTY:-three}"), env={"K": "${KEY}"})
    ready = launch("t", server, environ, ROOT)
    assert (ready.command, ready.env) == (("one", "-x", "onetwo", "$A", "three"), {"HOME": "/h", "K": "sk-1"})
    away = McpServer(type="http", url="https://${A}.org/mcp?k=${KEY}", headers={"Authorization": "Bearer ${KEY}"})
    ready = launch("t", away, environ, ROOT)
    assert (ready.url, ready.headers, ready.words) == (
        "https://one.org/mcp?k=sk-1",
        {"Authorization": "Bearer sk-1"},
        "https://${A}.org/mcp",
    )


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (McpServer(command="x", env={"K": "${NOT_SET}"}), "t: env.K: there is no environment variable NOT_SET; ${NOT_SET} needs it."),
        (McpServer(command="x", args=("a", "${NOT_SET}")), "t: args[1]: there is no environment variable NOT_SET"),
        (McpServer(type="sse", url="http://h/${NOT_SET}"), "t: url: there is no environment variable NOT_SET"),
        (McpServer(type="http", url="http://h", headers={"A": "${NOT_SET}"}), "t: headers.A: there is no environment variable NOT_SET"),
        (McpServer(type="http", url="h/mcp"), "t: url: 'h/mcp' is no address; it begins with http:// or https://."),
        (McpServer(), "t: no command is given"),
        (McpServer(command="x", args=("\0",)), "t: a command, an argument or a variable holds a NUL character"),
        (McpServer(command="x", env={"K": "${input:key}"}), "t: env.K: ${input:key} asks an editor for a value"),
    ],
)
def test_a_declaration_that_cannot_work_names_server_key_and_variable(server, words):
    with pytest.raises(ProgramError) as caught:
        launch("t", server, {}, ROOT)
    assert str(caught.value).startswith(f"MCP server {words}")


def test_a_server_gets_no_key_that_its_declaration_does_not_name(owner):
    environ = {**ENV, "ANTHROPIC_API_KEY": "sk-host", "MINE": "sk-mine", "LANG": "C.UTF-8"}
    with connected(owner, raw(env={"GIVEN": "${MINE}"}), environ=environ) as made:
        got = json.loads(made.text("t__environment"))
    assert set(got) - {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"} == {*ENV, "LANG", "GIVEN"}
    assert got["GIVEN"] == "sk-mine"


def test_the_last_words_are_cleaned_and_bounded():
    tail = Tail(["sk-very-secret"])
    tail.add(b"\n" * 90_000 + b"x" * 90_000 + b"\n")
    tail.add(b"\x1b[31mred\x1b]0;title\x07\x00 sk-very-secret \xff\xe2\x80\xae end\r\n\n")
    assert tail.lines[-1] == "red (hidden) � end"
    assert (len(tail.text), tail.last_words(20)[-5:]) == (1200, " end.")


# faults at the start


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (
            McpServer(command="no-such-command", tools="all"),
            "there is no command 'no-such-command'; the command must be a program on PATH.",
        ),
        (McpServer(command=str(ROOT), tools="all"), "may not be run"),
        (raw("crash"), "ended with code 7 before it answered"),
        (raw("silent"), "did not answer within 1 s; a server of type stdio answers on its stdout. It said last: thinking."),
        (raw("flood"), "wrote megabytes on stdout that are no messages, and was stopped before it answered"),
        (McpServer(command="echo", args=("hello",), tools="all"), "It said last: stdout: hello."),
        (McpServer(type="http", url="http://127.0.0.1:9/mcp", tools="all"), "no connection to http://127.0.0.1:9/mcp (ConnectError"),
        (McpServer(type="sse", url="http://127.0.0.1:9/sse", tools="all"), "no connection to 'http://127.0.0.1:9/sse'"),
    ],
    ids=["missing", "folder", "crash", "silent", "flood", "echo", "http", "sse"],
)
def test_a_server_that_does_not_start_says_why(owner, server, words):
    said = start_fails(owner, server, terms=SHORT)
    assert said.startswith("MCP server t: ") and words in said
    assert "Traceback (most" not in said or "crash" in str(server.args)


def test_a_server_may_be_given_more_or_less_time_than_the_others(owner):
    began = time.monotonic()
    said = start_fails(owner, raw("silent", connect_timeout_s=0.3))
    assert "did not answer within 0.3 s" in said and time.monotonic() - began < 5
    servers = {"t": raw(timeout_s=0.2, connect_timeout_s=20.0), "u": raw(timeout_s=30.0)}
    with connected(owner, servers, terms=Terms(call_timeout_s=0.5)) as made:
        assert "said nothing about tool 'hangs' for 0.2 s" in made.refused("t__hangs")
        slow = asyncio.run_coroutine_threadsafe(made.servers.toolset.get("u__hangs").function(), owner.loop)
        time.sleep(1.0)
        assert not slow.done()
        slow.cancel()


def test_a_crash_at_the_start_gives_the_last_words(owner):
    assert start_fails(owner, raw("crash")).endswith(
        "It said last: Traceback (most recent call last): | ... | ImportError: no module named tester."
    )


def test_of_several_servers_each_that_failed_is_named_and_none_stays(owner):
    servers = {"a": raw("crash"), "b": raw(), "c": McpServer(command="no-such-command", tools="all")}
    said = start_fails(owner, servers)
    assert "2 MCP servers did not start: MCP server a:" in said and "MCP server c: there is no command" in said
    until(lambda: not _children())


def _children() -> list[str]:
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        mine = file.read().split()
    return [pid for pid in mine if b"raw" in open(f"/proc/{pid}/cmdline", "rb").read()]


@pytest.mark.parametrize("fault", ["noise", "chatty", "endless"])
def test_noise_floods_of_stderr_and_endless_lists_do_no_harm(owner, fault, capfd):
    with connected(owner, raw(fault)) as made:
        assert ("t__ok" in made.servers.toolset) is (fault != "endless")
        assert ("Welcome" in made.servers.last_words("t")) is (fault == "noise")
    assert capfd.readouterr() == ("", "")


# faults of calls


@pytest.fixture(scope="module")
def faulty(owner: OwnerLoop) -> Iterator[Connected]:
    with connected(owner, raw(), terms=Terms(call_timeout_s=1.0, max_message_bytes=1_000_000)) as made:
        yield made


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("t__bytes", {}, "\ufffd\ufffd"),
        ("t__surrogate", {}, "\ufffd!"),
        ("t__nan", {}, '{"x": NaN}'),
        ("t__huge", {"chars": 900_000}, "x" * 900_000),
    ],
)
def test_odd_answers_are_read(faulty, tool, arguments, text):
    assert faulty.text(tool, **arguments) == text


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("t__huge", {"chars": 3_000_000}, "tool 'huge' of MCP server 't': the answer is longer than may be read at once (3,0"),
        ("t__tail_id", {"chars": 3_000_000}, "tool 'tail_id' of MCP server 't': the answer is longer than may be read at once"),
        ("t__broken", {}, "tool 'broken' of MCP server 't': the answer is no valid message; it was run."),
        ("t__wrong", {}, "what MCP server 't' answered to tool 'wrong' cannot be read"),
        ("t__hangs", {}, "MCP server 't' said nothing about tool 'hangs' for 1 s and was told to stop; whether it took effect is unknown."),
    ],
)
def test_what_cannot_be_read_is_an_error_of_that_call_alone(faulty, tool, arguments, words):
    pid = faulty.servers.info("t").os_pid
    assert faulty.refused(tool, **arguments).startswith(words)
    assert json.loads(faulty.text("t__ok"))["pid"] == pid


def test_a_hundred_megabytes_arrive_whole_and_soon(owner):
    with connected(owner, raw()) as made:
        began = time.monotonic()
        (part,) = made.call("t__huge", chars=100_000_000)
        assert (len(part.text), part.text[:1], part.text[-1:]) == (100_000_000, "x", "x")
        assert time.monotonic() - began < 5


def test_a_server_that_dies_during_a_call_is_not_asked_twice_and_starts_anew(owner):
    with connected(owner, raw()) as made:
        first = json.loads(made.text("t__ok"))["pid"]
        assert made.refused("t__dies") == (
            "MCP server 't' was ended by SIGKILL during tool 'dies'; whether it took effect is unknown. "
            "It said last: no more memory. The next call starts it again."
        )
        assert json.loads(made.text("t__ok"))["pid"] != first
        assert made.servers.info("t").starts == 2


def test_a_server_that_died_between_calls_starts_anew_unnoticed(owner):
    with connected(owner, raw()) as made:
        pids = set()
        for _ in range(4):
            pids.add(json.loads(made.text("t__quits"))["pid"])
            until(lambda: not made.servers.info("t").alive)
        assert len(pids) == made.servers.info("t").starts == 4


def test_other_calls_of_a_server_that_dies_are_answered_too(owner):
    with connected(owner, raw(), terms=Terms(call_timeout_s=5)) as made:

        async def both() -> list[Any]:
            tools = made.servers.toolset
            return await asyncio.gather(tools.get("t__hangs").function(), tools.get("t__dies").function(), return_exceptions=True)

        assert ["SIGKILL" in error.found for error in made.wait(both())] == [True, True]


def test_many_calls_that_find_it_dead_start_it_once(owner):
    with connected(owner, raw()) as made:
        made.text("t__quits")
        time.sleep(0.1)

        async def many() -> None:
            await asyncio.gather(*(made.servers.toolset.get("t__ok").function() for _ in range(10)))

        made.wait(many())
        assert made.servers.info("t").starts == 2


def test_a_server_that_cannot_start_again_says_so_to_the_model(owner, tmp_path):
    script = tmp_path / "server.py"
    script.write_text(SCRIPT.read_text())
    with connected(owner, McpServer(command=sys.executable, args=("-S", "-E", str(script), "raw"), tools="all")) as made:
        made.text("t__quits")
        script.unlink()
        time.sleep(0.1)
        said = made.refused("t__ok")
    assert said.startswith("MCP server 't' is not there: ") and "No such file" in said


def test_a_server_that_will_not_stop_is_ended_with_its_children(owner):
    code = f"""
import runpy, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "60"])
sys.stderr.write(f"child {{child.pid}}\\n")
sys.stderr.flush()
sys.argv = ["server", "raw"]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
time.sleep(60)
"""
    began = time.monotonic()
    with connected(owner, McpServer(command=sys.executable, args=("-c", code), tools="all"), terms=SHORT) as made:
        pids = [made.servers.info("t").os_pid, int(made.servers.last_words("t").split()[-1])]
        assert [lives(pid) for pid in pids] == [True, True]
    assert [lives(pid) for pid in pids] == [False, False]
    assert time.monotonic() - began < 3


def test_the_end_answers_calls_under_way_and_refuses_later_ones(owner):
    with connected(owner, raw()) as made:
        call = asyncio.run_coroutine_threadsafe(made.servers.toolset.get("t__hangs").function(), owner.loop)
        time.sleep(0.1)
    with pytest.raises(ToolError, match="was closed during tool 'hangs'; whether it took effect is unknown"):
        call.result(1)
    assert made.refused("t__ok") == "MCP server 't' is not there: it was closed."


def test_servers_end_with_the_interpreter(tmp_path):
    code = f"""
import asyncio, os, sys
from llmproc_nb.core.owner import OwnerLoop
from llmproc_nb.core.program import McpServer
from llmproc_nb.drivers.mcp import connect
server = McpServer(command=sys.executable, args=("-c", "import time; time.sleep(60)"), tools="all")
good = McpServer(command=sys.executable, args=({str(SCRIPT)!r}, "raw"), tools="all")
servers = OwnerLoop().wait(connect({{"t": good}}, environ=os.environ, base_dir="."))
print(servers.info("t").os_pid)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.stderr == ""
    until(lambda: not lives(int(done.stdout)))


# HTTP


HEADER = "Bearer sk-1234567"


def over_http(transport: str, url: str) -> McpServer:
    return McpServer(type=transport, url=url, headers={"Authorization": "Bearer ${KEY}"}, tools="all")  # type: ignore[arg-type]


def try_everything(made: Connected) -> None:
    assert made.text("t__add", a=1, b=2) == "3"
    assert len(made.text("t__long", chars=3_000_000)) == 3_000_000
    assert made.text("t__asks_model", _process="scout") == "small says hello (scout)"
    assert made.text("t__asks_person").startswith("accept")
    assert made.text("t__learns", name="newer") == "learned"
    until(lambda: "t__newer" in made.servers.toolset)


@pytest.mark.parametrize("transport", ["sse", "http"])
def test_over_http_with_headers_long_answers_changes_and_the_end_of_the_server(owner, tmp_path, transport):
    terms = Terms(stop_grace_s=0.3)
    fields: dict[str, Any] = {"terms": terms, "sampler": says_hello, "elicitor": is_ada}
    with served(tmp_path, transport, HEADER=HEADER) as (url, process):
        server = over_http(transport, url)
        assert "HTTP 401" in start_fails(owner, server, environ={"KEY": "wrong-key"}, terms=terms)
        other = over_http("http" if transport == "sse" else "sse", url)
        assert "Is its type" in start_fails(owner, other, environ={"KEY": "sk-1234567"}, terms=terms)
        with connected(owner, server, environ={"KEY": "sk-1234567"}, **fields) as made:
            try_everything(made)
            assert "whether it took effect is unknown" in made.refused("t__dies")
            assert process.wait() == 3
            assert made.refused("t__add", a=1, b=1).startswith("MCP server 't' is not there: no connection to 'http://127.0.0.1")
            with served(tmp_path, transport, HEADER=HEADER, PORT=url.split(":")[2].split("/")[0]):
                assert made.text("t__add", a=2, b=2) == "4"


def test_the_older_protocol_over_http_and_a_server_that_forgot_us(owner, tmp_path):
    terms = Terms(protocol="legacy", stop_grace_s=0.3)
    fields: dict[str, Any] = {"terms": terms, "sampler": says_hello, "elicitor": is_ada}
    with served(tmp_path, "http") as (url, process), connected(owner, over_http("http", url), environ={"KEY": "k"}, **fields) as made:
        try_everything(made)
        process.kill()
        process.wait()
        with served(tmp_path, "http", JSON="1", PORT=url.split(":")[2].split("/")[0]):
            # the new server knows no session of ours: it has run nothing, so it is asked again
            assert made.text("t__add", a=2, b=2) == "4"
            assert made.servers.info("t").starts == 2
            short = Terms(max_message_bytes=1_000_000)
            with connected(owner, over_http("http", url), environ={"KEY": "k"}, terms=short) as other:
                assert other.text("t__add", a=1, b=2) == "3"
                assert "longer than may be read at once" in other.refused("t__long", chars=3_000_000)


# the notebook


def test_it_connects_and_answers_in_a_real_kernel_in_silence():
    source = f"""
import asyncio, os, sys
from llmproc_nb.core.owner import OwnerLoop
from llmproc_nb.core.program import McpServer
from llmproc_nb.drivers.mcp import connect
owner = OwnerLoop()
declared = McpServer(command=sys.executable, args=({str(SCRIPT)!r}, "raw", "noise"), tools="all")
servers = owner.wait(connect({{"t": declared}}, environ=os.environ, base_dir="."))
pid = servers.info("t").os_pid
"""
    with kernel() as front:
        assert front.run(source).outputs == []
        assert front.run("owner.wait(servers.toolset.get('t__ok').function())[0].text").data()[0].startswith('\'{"name": "ok"')
        died = front.run("owner.wait(servers.toolset.get('t__dies').function())")
        assert [kind for kind, _ in died.outputs] == ["error"] and "ToolError" in str(died.error)
        assert front.run("[owner.wait(servers.toolset.get('t__broken').function())]").status == "error"
        assert front.run("owner.wait(servers.close())").outputs == []


def test_the_import_loads_no_sdk():
    heavy = ("mcp", "mcp_types", "pydantic", "httpx2", "anyio")
    code = f"import sys, llmproc_nb.drivers.mcp; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"
