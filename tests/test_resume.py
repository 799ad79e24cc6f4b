"""Processes of an earlier kernel run come back from its log: whole, legal, with a word on everything that was open when the kernel died."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import family
import pytest
from simple import RAN, SCOUT, add, is_legal, machine, recorded_run, shout

from llmproc_nb.core.errors import LogError
from llmproc_nb.core.event import AnyEvent, Appended, Called, Killed, Moved, Replied, Started, ToolRan, ToolStarted
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import Request
from llmproc_nb.core.record import total
from llmproc_nb.drivers.logfile import LogFile
from llmproc_nb.drivers.rebuild import Resumed, rebuild
from llmproc_nb.drivers.replay import Recording, reexecute
from llmproc_nb.notebook.frames import frames


def resumed(log: Path, new: Path | None = None) -> tuple[Machine, list[Resumed]]:
    running = machine(new)
    return running, rebuild(LogFile(log), running, tools=(add, shout))


def test_a_process_comes_back_with_its_path_name_and_usage_and_goes_on(tmp_path: Path) -> None:
    old = recorded_run(tmp_path / "a.jsonl")
    running, (back,) = resumed(tmp_path / "a.jsonl")
    process = back.process
    assert process is not None
    assert (process.name, process.head.id, process.messages, process.usage) == ("scout", old.head.id, old.messages, old.usage)
    assert process.steps == old.steps > 0
    assert [node.id for node in running.dialog] == [node.id for node in old.machine.dialog]
    assert process.tools.specs == old.tools.specs
    assert process.config.id == old.config.id
    assert (back.finished, back.unknown, back.never_started, back.unanswered, back.missing_tools, back.fault) == (
        (),
        (),
        (),
        None,
        (),
        None,
    )
    assert process.run("add it").result().text == "It is 5."
    process.reset_state()
    assert [message.role for message in process.messages] == ["system"]


def test_a_killed_process_stays_dead_and_its_use_still_counts(tmp_path: Path) -> None:
    old = recorded_run(tmp_path / "a.jsonl")
    _, back = resumed(tmp_path / "a.jsonl")
    assert [one.name for one in back] == ["scout"]
    helper = next(process for process in old.machine.processes.values() if process.name == "helper")
    assert helper.usage.requests == 2
    assert back[0].process is not None and back[0].process.usage == old.usage


def test_the_new_log_stands_alone(tmp_path: Path) -> None:
    """Resumed three times, each time from the log of the time before only."""
    old = recorded_run(tmp_path / "0.jsonl")
    for number in range(3):
        running, (back,) = resumed(tmp_path / f"{number}.jsonl", tmp_path / f"{number + 1}.jsonl")
        running.close()
        (tmp_path / f"{number}.jsonl").unlink()
    process = back.process
    assert process is not None
    assert (process.head.id, process.usage, process.first.id) == (old.head.id, old.usage, old.first.id)
    assert back.missing_tools == ()
    log = LogFile(tmp_path / "3.jsonl")
    assert {node.id for node in log.dialog()} == {node.id for node in old.machine.dialog}
    assert len(Recording(log)) == len([event for event in old.machine.log.events if isinstance(event, Replied)])


def test_a_run_after_resume_can_be_made_again_from_the_new_log(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    running, (back,) = resumed(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert back.process is not None
    back.process.run("both now").result()
    running.close()
    comparison = reexecute(LogFile(tmp_path / "b.jsonl"))
    assert str(comparison) == "1 process, 1 call, 4 nodes: all equal"


def test_tools_whose_functions_are_missing_are_named_and_keep_their_place(tmp_path: Path) -> None:
    old = recorded_run(tmp_path / "a.jsonl")
    running = machine()
    (back,) = rebuild(LogFile(tmp_path / "a.jsonl"), running)
    assert back.process is not None
    assert (back.missing_tools, back.process.config.id) == (("add", "shout"), old.config.id)
    result = back.process.run("add it").result()
    assert result.tool_calls[0].error == "the function behind add is not there in this kernel. Go on without it."
    back.process.add_tools([add, shout])
    assert back.process.run("both now").result().text == "Done."


def test_children_come_back_under_their_parents(tmp_path: Path) -> None:
    first = machine(tmp_path / "a.jsonl")
    parent = first.start(SCOUT)
    child = first.start(SCOUT, name="child", parent=parent)
    child.run("hello").result()
    first.close()
    _, (one, other) = resumed(tmp_path / "a.jsonl")
    assert one.process is not None and other.process is not None
    assert (other.process.parent, other.process.lineage) == (one.process, "scout/child")
    assert one.process.usage == other.process.usage == child.usage


def test_a_program_can_be_given_in_place_of_the_recorded_one(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    program = Program(name="scout", model="script-2", provider="scripted", script=({"when": ".", "say": "new words"},))
    (back,) = rebuild(LogFile(tmp_path / "a.jsonl"), machine(), programs={"scout": program}, only=["scout"])
    assert back.process is not None
    assert back.process.run("go on").result().text == "new words"


def test_a_process_whose_provider_is_gone_says_so_and_the_others_come_back(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    path = tmp_path / "a.jsonl"
    first = machine(tmp_path / "b.jsonl")
    first.start(SCOUT, name="one")
    first.start(SCOUT, name="two")
    first.close()
    path = tmp_path / "b.jsonl"
    path.write_text(path.read_text().replace('"provider":"scripted"', '"provider":"gone"', 2))
    back = rebuild(LogFile(path), machine(), tools=(add, shout))
    assert [(one.name, one.process is None) for one in back] == [("one", True), ("two", False)]
    assert str(back[0]).startswith("one: not resumed. [model] provider: unknown provider 'gone'")


def answer(request: Request) -> str:
    return "well"


def test_a_script_that_cannot_be_found_again_is_named(tmp_path: Path) -> None:
    first = machine(tmp_path / "a.jsonl")
    first.start(SCOUT.replace(script=lambda request: "well"), name="one")
    first.start(SCOUT.replace(script=answer), name="two")
    first.close()
    one, two = rebuild(LogFile(tmp_path / "a.jsonl"), machine())
    said = "one: its script was a lambda, which has no name to find it by; a function made with def is found. Give its program one."
    assert (one.process, one.fault) == (None, said)
    said = "two: its script is not in this kernel: answer; a function is found by its name. Define answer before resuming."
    assert (two.process, two.fault) == (None, said)
    _, two = rebuild(LogFile(tmp_path / "a.jsonl"), machine(), scripts={"answer": answer})
    assert two.process is not None
    assert two.process.run("hello").result().text == "well"


def test_a_changed_log_is_not_resumed(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text((tmp_path / "a.jsonl").read_text().replace("You said: hello", "You said: hallo", 1))
    with pytest.raises(LogError, match="gives the id"):
        resumed(tmp_path / "a.jsonl")


def tail(log: Path, after: type, number: int) -> Path:
    """A copy of a log whose kernel died right after the given event of that type."""
    events = LogFile(log).events
    index = [i for i, event in enumerate(events) if isinstance(event, after)][number]
    path = log.with_name("died.jsonl")
    path.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[: index + 1]))
    return path


def test_open_tool_calls_are_finished_unknown_or_never_started(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    (begun,) = resumed(tail(tmp_path / "a.jsonl", ToolStarted, 1))[1]
    assert (begun.finished, begun.unknown, begun.never_started) == ((), ("add",), ("shout",))
    assert begun.process is not None and is_legal(begun.process)
    assert [result.text for result in begun.process.head.message.tool_results] == [
        "the kernel died while the tool ran: whether it took effect is unknown",
        "not run: the kernel died before this tool started",
    ]
    assert str(begun) == "scout (pid 1): 9 messages; begun, whether it took effect is unknown: add; never started: shout"
    (half,) = resumed(tail(tmp_path / "a.jsonl", ToolRan, 1))[1]
    assert ({half.finished, half.unknown}, half.never_started) == ({("add",), ("shout",)}, ())  # which one ends first is chance
    assert half.process is not None and {"2", "HI"} & {result.text for result in half.process.head.message.tool_results}
    (whole,) = resumed(tail(tmp_path / "a.jsonl", ToolRan, 2))[1]
    assert (whole.finished, whole.unknown, whole.never_started) == (("add", "shout"), (), ())


def test_no_tool_is_run_by_resuming(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    RAN.clear()
    resumed(tail(tmp_path / "a.jsonl", ToolStarted, 1))
    assert RAN == []


def test_a_question_without_an_answer_is_taken_back_and_named(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    _, (back,) = resumed(tail(tmp_path / "a.jsonl", Called, 1))
    assert back.process is not None
    assert (back.unanswered, back.process.head.message.text) == ("add it", "You said: hello")
    assert back.process.run("add it").result().text == "It is 5."


def test_wherever_the_log_ends_the_processes_come_back_and_go_on(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_bytes().splitlines(keepends=True)
    torn = random.Random(1)
    for end in range(3, len(lines)):
        path = tmp_path / "died.jsonl"
        path.write_bytes(b"".join(lines[:end]) + lines[end][: torn.randrange(len(lines[end]) - 1)])
        running, back = resumed(path)
        for one in back:
            assert one.process is not None and is_legal(one.process), f"{end} lines: {one}"
            assert one.process.run("both later").result().text == "Done.", f"{end} lines: {one}"
            assert is_legal(one.process)
        running.close()


def beginnings(events: Sequence[AnyEvent]) -> Iterator[tuple[int, Sequence[AnyEvent]]]:
    """Every beginning of a list of events in which a process had started."""
    first = next(number for number, event in enumerate(events, 1) if isinstance(event, Started))
    return ((end, events[:end]) for end in range(first, len(events) + 1))


@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory) -> Sequence[AnyEvent]:
    """The events of a run with everything in it, as they are read from disk."""
    path = tmp_path_factory.mktemp("rich") / "a.jsonl"
    running = machine(path)
    family.full_run(running)
    running.close()
    return LogFile(path).events


def back_from(events: Sequence[AnyEvent], *, linked: bool = True) -> tuple[Machine, dict[int, Process]]:
    """The processes of a log that ended so, by their old pids."""
    running = machine()
    back = rebuild(events, running, tools=(family.report, family.add), programs={"expert": family.EXPERT} if linked else None)
    assert all(one.process is not None and one.missing_tools == one.missing_links == () for one in back), back
    return running, {one.old_pid: one.process for one in back if one.process is not None}


def test_wherever_a_run_with_forks_gotos_and_spawns_ends_its_processes_come_back_and_go_on(happened: Sequence[AnyEvent]) -> None:
    for end, events in beginnings(happened):
        running, back = back_from(events)
        lived = {event.pid for event in events if isinstance(event, Started)} - {event.pid for event in events if isinstance(event, Killed)}
        assert set(back) == lived, end
        used_above = total(process.usage for process in running.processes.values() if process.parent is None)
        assert used_above == total(event.usage for event in events if isinstance(event, Replied)), f"{end} events: children count once"
        for pid, process in back.items():
            assert is_legal(process), f"{end} events: {process}"
            numbers = {event.number: event.node for event in events if isinstance(event, Appended) and event.pid == pid and not event.aside}
            assert all(process.labels.get(number).id == node for number, node in numbers.items() if number is not None), f"{end}: {pid}"  # type: ignore[union-attr]
            began = next(event for event in events if isinstance(event, Started) and event.pid == pid)
            assert (process.name, process.lineage, process.origin) == (began.name, began.lineage, began.origin)
            assert (process.parent is None) == (began.parent_pid is None)
            used = process.labels.next
            number = used + len(process.inbox)
            assert process.run("go on").result().text in ("You said: go on", f"You said: [msg_{number}] go on", "42")
            assert is_legal(process) and process.labels.next >= used + 2, f"{end} events: {process}"
        running.close()


def test_forks_and_spawned_processes_come_back_as_they_were(happened: Sequence[AnyEvent]) -> None:
    live = machine()
    scout = family.full_run(live)
    _, back = back_from(happened, linked=False)
    assert [(one.name, one.origin, one.parent.name if one.parent else None) for one in back.values()] == [
        ("scout", "start", None),
        ("helper", "spawn", "scout"),
        ("scout.1", "fork", "scout"),
        ("scout.2", "fork", "scout"),
        ("idea", "fork", "scout"),
        ("scout.3", "fork", "scout"),
        ("scout.4", "fork", "scout"),
        ("scout.5", "fork", "scout"),
        ("plain.1", "fork", "plain"),
    ]
    for pid, process in back.items():
        was = live.processes[pid]
        assert (process.head.id, process.first.id, process.lineage) == (was.head.id, was.first.id, was.lineage)
        assert (process.tools.specs, process.config.id, process.access) == (was.tools.specs, was.config.id, was.access)
        assert (process.labels.next, list(numbers(process))) == (was.labels.next, list(numbers(was)))
        assert [(fd.name, fd.label, fd.text.digest, fd.page_chars) for fd in process.fds] == [
            (fd.name, fd.label, fd.text.digest, fd.page_chars) for fd in was.fds
        ]
        assert [process.fds.reads(fd.number) for fd in process.fds] == [was.fds.reads(fd.number) for fd in was.fds]
        assert (process.inbox, process.usage, process.children) == (was.inbox, was.usage, was.children)
    back_scout = back[scout.pid]
    assert back_scout.inbox == ("unread", "[message from helper] unread, too")
    assert [back_scout.undo().id for _ in range(2)] == [scout.undo().id for _ in range(2)]
    assert (back_scout.fork().name, back_scout.parent) == (scout.fork().name, None)
    assert back[next(pid for pid, one in back.items() if one.name == "plain.1")].parent.state == "killed"  # type: ignore[union-attr]


def numbers(process: Process) -> Iterator[tuple[int, str]]:
    return ((number, node.id) for number, node in process.labels.newest_first())


def test_a_log_that_was_resumed_is_as_good_as_the_one_before(happened: Sequence[AnyEvent]) -> None:
    for end in (*range(60, len(happened), 16), len(happened)):
        running, back = back_from(happened[:end])
        for _ in range(2):
            running, again = back_from(running.log.events)
            assert [facts(one) for one in again.values()] == [facts(one) for one in back.values()], f"{end} events"
            back = again


def facts(process: Process) -> tuple[Any, ...]:
    """What should be the same of a process after every resume."""
    fds = [(fd.number, fd.label, fd.text.digest, process.fds.reads(fd.number)) for fd in process.fds]
    place = process.name, process.lineage, process.origin, process.head.id, process.first.id, [node.id for node in process._left]
    return (*place, list(numbers(process)), process.labels.next, fds, process.usage, process.inbox, process.config.id)


def test_a_goto_that_was_followed_gets_its_note(happened: Sequence[AnyEvent]) -> None:
    at = next(number for number, event in enumerate(happened, 1) if isinstance(event, Moved) and event.call is not None)
    note = happened[at]
    assert isinstance(note, Appended)
    _, back = back_from(happened[:at])
    assert back[note.pid].head.id == note.node


def test_a_message_that_came_in_behind_an_unanswered_question_is_read_again() -> None:
    running = machine()
    scout = running.start(SCOUT)
    scout.send("first this")
    scout.run("hello").result()
    events = running.log.events
    cut = next(number for number, event in enumerate(events, 1) if isinstance(event, Called))
    (back,) = rebuild(events[:cut], machine(), tools=(add, shout))
    assert back.process is not None
    assert (back.unanswered, back.process.head.message.text, back.process.inbox) == ("hello", "first this", ())


def test_a_function_of_the_notebook_is_not_taken_for_a_system_call(happened: Sequence[AnyEvent]) -> None:
    def send(text: str) -> str:
        """Send a letter."""
        return text

    (scout, *_) = rebuild(happened, machine(), tools=(family.report, family.add, send))
    assert scout.process is not None and scout.process.tools.get("send").kind == "syscall"  # type: ignore[union-attr]


def test_rows_of_a_table_come_back_with_pages_of_lines() -> None:
    live = machine()
    scout = live.start(SCOUT)
    scout.fds.open("a,b\n" + "1,2\n" * 99, "table", page_lines=30)
    scout.log_fds()
    (back,) = rebuild(live.log.events, machine(), tools=(add, shout))
    assert back.process is not None
    fd = back.process.fds.get(1)
    assert (fd.page_lines, fd.pages, fd.page(4).text) == (30, 4, "1,2\n" * 10)
    made = frames(live.log.events).fds
    assert made[["chars", "lines", "pages", "page_lines"]].values.tolist() == [[400, 100, 4, 30]] and made.page_chars.isna().all()


def test_a_long_text_that_lies_beside_the_log_is_open_again(tmp_path: Path) -> None:
    long = "".join(f"line {number}\n" for number in range(500_000))

    def report() -> str:
        """A long report."""
        return long

    first = machine(tmp_path / "a.jsonl")
    script = ({"when": "^go", "call": [{"name": "report"}]}, {"when": ".", "say": "ok"})
    scout = first.start(SCOUT.replace(tools=(report,), script=script))
    scout.run("go").result()
    digest = scout.fds.get(1).text.digest
    first.close()
    (back,) = rebuild(LogFile(tmp_path / "a.jsonl"), machine(), tools=(report,))
    assert back.process is not None and back.process.fds.get(1).text.slice(0, 12) == "(this text w"
    (tmp_path / "a.blobs").mkdir(exist_ok=True)
    (tmp_path / "a.blobs" / digest).write_text(long)
    (back,) = rebuild(LogFile(tmp_path / "a.jsonl"), machine(), tools=(report,))
    assert back.process is not None and back.process.fds.get(1).text.digest == digest


CHILD = """
import os, sys, time
from pathlib import Path
import simple
from llmproc_nb.core.event import AnyEvent
running = simple.machine(Path(sys.argv[1]))
def pause(n: int) -> int:
    "Wait."
    time.sleep(0.002 * n)
    return n
calls = [{"name": "pause", "arguments": {"n": n}} for n in range(4)]
program = simple.SCOUT.replace(tools=(pause,), script=({"when": "^go", "call": calls}, {"when": ".", "say": "x" * 70000}))
running.log.add(lambda event: os.write(1, f"{event.seq}\\n".encode()))
scout = running.start(program)
for number in range(100000):
    scout.run(f"go {number}").result()
"""


@pytest.mark.parametrize("batch", range(3))
def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path, batch: int) -> None:
    """Five kernels at once, each killed at a moment of its own while it writes, runs tools and asks."""
    chance = random.Random(batch)
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": str(here.parent)}
    paths = [tmp_path / f"{number}.jsonl" for number in range(5)]
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(path)], cwd=here, env=env, stdout=-1, stderr=-1, bufsize=0) for path in paths
    ]
    for child, path in zip(children, paths, strict=True):
        assert child.stdout is not None
        first = [child.stdout.readline() for _ in range(3)][-1]  # the process has started
        assert first, child.stderr.read().decode() if child.stderr else ""
        time.sleep(chance.random() * 0.15)
        child.kill()
        acknowledged = int([first, *child.communicate()[0].splitlines(keepends=True)][-1].rstrip() or b"0")
        log = LogFile(path)
        assert log.events[-1].seq >= acknowledged
        running = machine()
        (back,) = rebuild(log, running)
        assert back.process is not None and is_legal(back.process)
        written = {event.node for event in log.events if isinstance(event, Appended)}
        assert written <= {node.id for node in running.dialog}
        assert set(back.finished + back.unknown + back.never_started) <= {"pause"}
        assert back.process.run("and on").result().text == "x" * 70000
        running.close()


def test_what_a_process_may_do_comes_back() -> None:
    live = machine()
    live.start(SCOUT).spawn("", "reader", access="read")
    back = rebuild(live.log.events, machine(), tools=(add, shout))
    assert [(one.process.access, len(one.process.tools)) for one in back if one.process is not None] == [("admin", 3), ("read", 0)]
    assert frames(live.log.events).processes.access.tolist() == ["admin", "read"]
