"""Attacks on the system calls that got through once: threads at the same time, names that mean two things, ends at odd moments."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from machines import machine, scripted

from llmproc_nb.api import Machine
from llmproc_nb.core import message as messages
from llmproc_nb.core.call import until
from llmproc_nb.core.clock import SystemClock
from llmproc_nb.core.errors import CallStateError, LogError, ProgramError
from llmproc_nb.core.event import Appended, Killed, Started
from llmproc_nb.core.program import FdRules, Link, Program
from llmproc_nb.core.provider import Request
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.jsonl import JsonlStore
from llmproc_nb.drivers.logfile import LogFile
from llmproc_nb.drivers.rebuild import rebuild
from llmproc_nb.drivers.replay import Recording, reexecute


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def last_words(request: Request) -> str:
    return request.head.message.text


def heard(request: Request, words: str) -> bool:
    return any(words in node.message.text for node in request.path)


def test_no_message_is_lost_when_many_threads_send(restless):
    scout = scripted({"say": "x"})
    at_once(8, lambda number: [scout.send(f"{number}-{count}") for count in range(200)] and None)
    assert sorted(scout.inbox) == sorted(f"{number}-{count}" for number in range(8) for count in range(200))


def test_what_many_threads_say_stands_on_the_path_once_each(restless):
    scout = scripted({"say": "x"})
    at_once(8, lambda number: [scout.say(messages.user(f"{number}-{count}")) for count in range(100)] and None)
    said = [message.text for message in scout.messages[1:]]
    assert sorted(said) == sorted(f"{number}-{count}" for number in range(8) for count in range(100))
    assert [scout.labels.get(number) for number in range(800)] == list(scout.path[1:])


def test_the_fds_that_an_answer_names_are_told_by_the_numbers_of_who_reads_it():
    def long(word: str) -> str:
        """A long text."""
        return f"{word} " * 3000

    def script(request: Request) -> Any:
        if last_words(request) in ("go", "look"):
            return {"call": [call("long", word="OURS" if last_words(request) == "go" else "THEIRS")]}
        if heard(request, "look"):
            return "it is in fd:1, see fd:12"
        return {"call": [call("spawn", prompt="look")]} if "OURS" in request.head.message.tool_results[0].text else "end"

    scout = scripted(script, tools=[long, "spawn"])
    result = scout.run("go").result()
    assert result.tool_calls[1].result.text == "it is in fd:1, see fd:12\n[fd:1 of scout is your fd:2]"
    assert [fd.text.slice(0, 4) for fd in scout.fds] == ["OURS", "THEI"]


def test_an_fd_that_was_passed_to_a_child_comes_back_under_the_number_it_has():
    def long() -> str:
        """A long text."""
        return "abc " * 3000

    def script(request: Request) -> Any:
        if last_words(request) == "go":
            return {"call": [call("long"), call("long")]}
        if heard(request, "look"):
            return "read fd:1"
        results = request.head.message.tool_results
        return {"call": [call("spawn", prompt="look", fds=["fd:2"])]} if len(results) == 2 else "end"

    scout = scripted(script, tools=[long, "spawn"])
    result = scout.run("go").result()
    assert result.tool_calls[2].result.text == "read fd:1\n[fd:1 of scout is your fd:2]"
    assert len(scout.fds) == 2


def test_two_children_of_one_program_in_the_background_are_told_apart():
    def script(request: Request) -> Any:
        words = last_words(request)
        if words == "go":
            return {"call": [call("spawn", prompt=f"task {word}", wait=False) for word in "ab"]}
        if words.startswith("task"):
            return f"did {words}"
        told = [part.text for part in request.head.message.tool_results]
        if told and "background" in told[0]:
            return {"call": [call("wait", pid=one.split("pid='")[1].split("'")[0]) for one in told]}
        return "end"

    scout = scripted(script, tools=["spawn", "wait"])
    result = scout.run("go").result()
    assert [one.result.text for one in result.tool_calls[2:]] == ["did task a", "did task b"]


def test_a_child_that_was_being_made_when_its_parent_was_killed_ends_too():
    scout = scripted({"call": [call("spawn", prompt="x")]}, tools=["spawn"], on=machine(SystemClock()))
    drivers, began, go_on = scout.machine.drivers, threading.Event(), threading.Event()
    workers = scout.machine.owner.workers
    slow = type(drivers).system

    class Slow(type(drivers)):
        def system(self, program):
            began.set()
            go_on.wait(5)
            return slow(self, program)

    drivers.__class__ = Slow
    asked = scout.run("go")
    assert began.wait(5)
    scout.kill()
    asked.result()
    go_on.set()
    for _ in range(100):
        if len(scout.machine.processes) == 2 and not scout.machine.find(2).alive:
            break
        scout.machine.owner.wait(workers.run(lambda: None), 5)
        threading.Event().wait(0.02)
    assert [one.alive for one in scout.machine.processes.values()] == [False, False]


def test_a_number_that_only_looks_like_one_is_told_in_words():
    scout = scripted({"when": "go", "call": [call("read_fd", fd="fd:1", start="--5")]}, {"say": "end"}, tools=["read_fd"])
    result = scout.run("go").result()
    assert result.tool_calls[0].result.text == "argument 'start' is '--5'; it should be a whole number."


def nap() -> str:
    """A short rest."""
    time.sleep(0.02)
    return "rested"


def restless_child() -> Link:
    """A program that never comes to an end by itself."""
    script = ({"when": ".", "call": [call("nap")]},)
    return Link(
        program=Program(name="kid", provider="scripted", model="script", script=script, tools=(nap,), limits=Limits(max_iterations=10**6))
    )


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


BACKGROUND = {"when": "^go$", "call": [call("spawn", prompt="work", program_name="kid", wait=False)]}


def test_a_child_in_the_background_ends_with_the_seconds_of_the_call_that_began_it():
    links, clock = {"kid": restless_child()}, SystemClock()
    scout = scripted(BACKGROUND, {"say": "end"}, tools=["spawn", "wait"], limits=Limits(seconds=0.3), on=machine(clock), linked=links)
    assert scout.run("go").result().stop_reason == "end_turn"
    kid = scout.machine.find("kid")
    assert kid.busy
    assert kid.calls[0].result(5).stop_reason == "max_seconds"


def test_steps_count_for_the_whole_subtree_and_none_too_many_is_made():
    split = {"when": "^split$", "call": [call("fork", prompts=list("abcdefgh"))]}
    scout = scripted(split, {"when": ".", "say": "done"}, tools=["fork"], limits=Limits(steps=5))
    result = scout.run("split").result()
    told = json.loads(result.tool_calls[0].result.text)
    assert [one.get("stopped") for one in told] == [None] * 4 + ["max_total_steps"] * 4
    assert (result.stop_reason, scout.usage.requests, scout.steps) == ("max_total_steps", 5, 5)
    again = scout.run("and now?").result()
    assert (again.stop_reason, again.api_calls) == ("max_total_steps", ())


def test_a_fan_out_that_its_steps_ended_replays_and_is_executed_again(tmp_path):
    def script(request: Request):
        words = request.head.message.text
        made = "split" if words == "split" else words if len(words) == 1 else ""
        calls = {"split": call("fork", prompts=list("abcd")), "": None}.get(made, call("calculator", expression="1 + 1"))
        return {"call": [calls]} if calls else "done"

    def run(script: Any, on: Machine) -> tuple[Any, ...]:
        scout = scripted(script, tools=["fork", "calculator"], limits=Limits(steps=7), on=on)
        result = scout.run("split").result()
        children = [(child.head.id, child.usage.requests) for child in scout.machine.children(scout)]
        return result.stop_reason, scout.steps, scout.head.id, children

    on = machine(store=JsonlStore(tmp_path / "log.jsonl"))
    live = run(script, on)
    assert live[:2] == ("max_total_steps", 7) and sum(count for _, count in live[3]) == 6
    on.close()
    log = LogFile(tmp_path / "log.jsonl")
    assert run(lambda request: 1 / 0, machine(recorded=Recording(log))) == live
    assert "all equal" in str(reexecute(log))


def test_a_child_in_the_background_ends_with_the_steps_of_those_above_it():
    links = {"kid": restless_child()}
    scout = scripted(BACKGROUND, {"say": "end"}, tools=["spawn", "wait"], limits=Limits(steps=20), on=machine(SystemClock()), linked=links)
    assert scout.run("go").result().stop_reason == "end_turn"
    assert scout.machine.find("kid").calls[0].result(10).stop_reason == "max_total_steps"
    assert scout.usage.requests == 20


def test_max_iterations_counts_the_requests_of_one_call_and_not_those_of_children():
    split = {"when": "^split$", "call": [call("fork", prompts=["a", "b", "c"])]}
    scout = scripted(split, {"when": ".", "say": "done"}, tools=["fork"], limits=Limits(max_iterations=2))
    assert [scout.run("split").result().stop_reason for _ in range(3)] == ["end_turn"] * 3
    assert scout.usage.requests == 15
    assert scout.run("split", max_iterations=1).result().stop_reason == "max_steps"


def test_killing_a_process_ends_what_forks_of_its_model_left_in_the_background():
    split = {"when": "^split$", "call": [call("fork", prompts=["go"])]}
    links, clock = {"kid": restless_child()}, SystemClock()
    scout = scripted(split, BACKGROUND, {"say": "end"}, tools=["fork", "spawn", "wait"], on=machine(clock), linked=links)
    by_hand = scout.fork("alice")
    by_hand.run("go").result()
    scout.run("split").result()
    kids = [one for one in scout.machine.processes.values() if one.name == "kid"]
    assert [kid.parent.name for kid in kids] == ["alice", "scout.1"]
    scout.kill()
    assert eventually(lambda: not kids[1].busy)
    assert [(one.name, one.alive) for one in scout.machine.processes.values()] == [
        ("scout", False),
        ("alice", True),
        ("kid", True),
        ("scout.1", True),
        ("kid", False),
    ]
    assert kids[0].busy
    scout.machine.close()


class FullStore(JsonlStore):
    """A log on a disk that is full whenever `full` says so of an event."""

    full: Callable[[Any], bool] = staticmethod(lambda event: False)

    def _append(self, fd: int, event: Any) -> None:
        if self.full(event):
            raise OSError(28, "No space left on device")
        super()._append(fd, event)


def test_children_that_the_log_could_not_take_are_none(tmp_path):
    def script(request: Request) -> Any:
        return {"call": [call("fork", prompts=["a", "b", "c"])]} if last_words(request) == "go" else "end"

    store = FullStore(tmp_path / "a.jsonl")
    scout = scripted(script, tools=["fork"], on=machine(SystemClock(), store=store), limits=Limits(children=3))
    store.full = lambda event: isinstance(event, Started) and event.name == "scout.2"
    with pytest.raises(LogError):
        scout.run("go").result()
    store.full = lambda event: False
    assert list(scout.machine.processes.values()) == [scout]
    assert scout.children == 0 and not scout.head.message.tool_calls
    assert len(scout.fork_map(["a", "b", "c"]).wait()) == 3


def test_children_stand_on_answers_also_where_the_log_could_not_take_them(tmp_path):
    def script(request: Request) -> Any:
        return {"call": [call("fork", prompts=["a", "b", "c"])]} if last_words(request) == "go" else "end"

    store = FullStore(tmp_path / "a.jsonl")
    scout = scripted(script, tools=["fork"], on=machine(SystemClock(), store=store))
    store.full = lambda event: isinstance(event, Appended) and event.pid == 2
    with pytest.raises(LogError):
        scout.run("go").result()
    store.full = lambda event: False
    assert [child.head.message.role for child in scout.machine.children(scout)] == ["tool"] * 3


def test_a_kill_that_the_log_could_not_take_ends_the_children_all_the_same(tmp_path):
    store = FullStore(tmp_path / "a.jsonl")
    scout = scripted({"say": "x"}, on=machine(SystemClock(), store=store))
    child = scout.spawn(scout.program)
    store.full = lambda event: isinstance(event, Killed)
    with pytest.raises(LogError):
        scout.kill()
    assert (scout.alive, child.alive) == (False, False)


def test_one_wrong_program_of_many_leaves_no_child_behind():
    scout = scripted({"say": "x"}, limits=Limits(children=2))
    wrong = scout.program.replace(tools=("there is none",))
    with pytest.raises(ProgramError):
        scout.fork_map(["a", "b"], programs=[scout.program.replace(name="other"), wrong])
    assert list(scout.machine.processes.values()) == [scout] and scout.children == 0


def test_what_two_forks_said_alike_between_calls_comes_back_for_both(tmp_path):
    scout = scripted({"say": "end"}, on=machine(SystemClock(), store=JsonlStore(tmp_path / "a.jsonl")))
    scout.run("go").result()
    forks = [scout.fork(), scout.fork()]
    for one in forks:
        one.goto("msg_0", "try again")
    scout.machine.close()
    running = machine(SystemClock())
    scripted({"say": "end"}, on=running)

    class Drivers(type(running.drivers)):
        def provider(self, program):
            return scout.provider

    running.drivers.__class__ = Drivers
    back = rebuild(LogFile(tmp_path / "a.jsonl"), running)
    assert [[message.text for message in one.process.messages] for one in back[1:]] == [["", "go", "try again"]] * 2
    assert [one.process.labels.next for one in back[1:]] == [3, 3]


def test_a_wait_that_was_stopped_leaves_no_complaint_behind(caplog):
    """asyncio complains of a future whose error nobody heard; it prints that into the notebook."""

    async def stopped(future: Future[Any]) -> None:
        waiting = asyncio.create_task(until(future, lambda: None, "scout"))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        future.set_exception(RuntimeError("too late"))
        await asyncio.sleep(0.01)

    asyncio.run(stopped(Future()))
    gc.collect()
    assert [record.message for record in caplog.records] == []


def test_an_answer_of_a_child_that_is_too_long_becomes_an_fd_like_any_other_result():
    def script(request: Request) -> Any:
        if last_words(request) == "go":
            return {"call": [call("spawn", prompt="tell"), call("fork", prompts=["tell"])]}
        return "word " * 20_000 if last_words(request) == "tell" else "end"

    scout = scripted(script, tools=["spawn", "fork"])
    result = scout.run("go").result()
    assert [one.result.text.startswith("<fd_result fd=") for one in result.tool_calls] == [True, True]
    assert [fd.text.chars > 99_000 for fd in scout.fds] == [True, True]


def test_an_error_that_is_too_long_becomes_an_fd_like_any_other_result():
    def bad() -> str:
        """Fails."""
        raise ValueError("word " * 20_000)

    scout = scripted({"when": "go", "call": [call("bad"), call("x" * 50_000)]}, {"say": "end"}, tools=[bad])
    result = scout.run("go").result()
    assert [(one.outcome, len(one.result.text) < 5000) for one in result.tool_calls] == [("failed", True), ("refused", True)]
    whole = next(fd.text for fd in scout.fds if fd.label == "error of bad")
    assert whole.slice(0, whole.chars) == f"ValueError: {'word ' * 20_000}"


def test_long_names_of_references_do_not_fill_an_error():
    said = "".join(f'<ref id="{letter * 20_000}">x</ref>' for letter in "abc")
    turns = ({"when": "go", "say": said}, {"when": "look", "call": [call("read_fd", fd="fd:99")]}, {"say": "end"})
    scout = scripted(*turns, tools=["read_fd"], fd=FdRules(enable_references=True))
    scout.run("go").result()
    assert len(scout.run("look").result().tool_calls[0].result.text) < 1000


def test_a_merge_that_comes_during_a_call_takes_nothing():
    scout = scripted(BACKGROUND, {"when": "^rest$", "call": [call("nap")]}, {"say": "end"}, tools=[nap], on=machine(SystemClock()))
    child = scout.fork()
    child.run("hi").result()
    child.open_fd("a text", "mine")
    asked = scout.run("rest")
    assert eventually(lambda: scout.running is not None)
    with pytest.raises(CallStateError):
        scout.merge(child)
    assert len(scout.fds) == 0
    asked.result()


def test_the_log_has_the_results_of_labelled_messages_once(tmp_path):
    def long() -> str:
        """A text."""
        return "word " * 1000

    store = JsonlStore(tmp_path / "a.jsonl")
    scout = scripted({"when": "go", "call": [call("long")]}, {"say": "end"}, tools=[long, "goto"], on=machine(SystemClock(), store=store))
    scout.run("go").result()
    scout.machine.close()
    assert (tmp_path / "a.jsonl").read_text().count("word " * 1000) == 1
    assert [node.id for node in LogFile(tmp_path / "a.jsonl").dialog()] == [node.id for node in scout.machine.dialog]


@pytest.mark.parametrize("name", [".env", ".env.local", "sub/../.env", "link", "a\0b", "z" * 5000])
def test_a_model_gets_no_secrets_into_a_child_by_preloading_them(name, tmp_path):
    (tmp_path / "sub").mkdir()
    for file in (".env", ".env.local"):
        (tmp_path / file).write_text("KEY=hunter2")
    (tmp_path / "link").symlink_to(tmp_path / ".env")
    turns = ({"when": "go", "call": [call("spawn", prompt="x", additional_preload_files=[name])]}, {"say": "end"})
    scout = scripted(*turns, tools=["spawn"], base_dir=str(tmp_path))
    told = scout.run("go").result().tool_calls[0].result
    assert told.is_error and len(told.text) < 300 and "Error" not in told.text
    assert list(scout.machine.processes.values()) == [scout]
