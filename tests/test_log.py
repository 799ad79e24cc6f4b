"""The log on disk: what was acknowledged is there, whatever happens to the disk or the kernel, and it reads back as it was."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simple import SCOUT, machine, recorded_run

from llmproc_nb.core.clock import FixedClock
from llmproc_nb.core.errors import LogError, Unreachable
from llmproc_nb.core.event import AnyEvent, Appended, Merged, Opened, Sent, Warned
from llmproc_nb.core.line import MAX_TEXT_BYTES, blob_folder, decode, encode
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.message import Document, Image, Message, Opaque, Text, ToolResult, user
from llmproc_nb.core.program import Program
from llmproc_nb.drivers import jsonl
from llmproc_nb.drivers.jsonl import JsonlStore, RecordingStore, Tee, name_beside, open_store, place_beside, recording_path
from llmproc_nb.drivers.logfile import LogFile, find_log, list_logs
from llmproc_nb.drivers.table import LateDrivers

BIG = "ä" * MAX_TEXT_BYTES
NOW = 1_760_000_000_000_000_000


def warned(seq: int, text: str = "x") -> Warned:
    return Warned(seq=seq, time_ns=NOW + seq, text=text)


def appended(seq: int, message: Message) -> Appended:
    return Appended(seq=seq, time_ns=NOW, node=f"n{seq}", message=message)


def test_a_log_reads_back_as_the_same_events(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    process = recorded_run(path)
    log = LogFile(path)
    assert list(log.events) == process.machine.log.events
    assert (log.torn, log.unknown, log.notes) == (False, (), ())


def test_the_tree_of_a_log_has_the_ids_of_the_run(tmp_path: Path) -> None:
    process = recorded_run(tmp_path / "a.jsonl")
    assert [node.id for node in LogFile(tmp_path / "a.jsonl").dialog()] == [node.id for node in process.machine.dialog]


def test_a_changed_message_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    recorded_run(path)
    path.write_text(path.read_text().replace("You said: hello", "You said: hallo", 1))
    with pytest.raises(LogError, match=r"a\.jsonl, event \d+: the assistant message at depth 2 gives the id \w{8}, the log says \w{8}"):
        LogFile(path).dialog()


def test_repr_says_what_is_in_a_log_and_when(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    log = LogFile(tmp_path / "a.jsonl")
    assert "7 calls" in repr(log) and "processes: scout, helper" in repr(log) and "2025-10-09 08:53:20" in repr(log)
    assert log._repr_markdown_().startswith("**Log** `a.jsonl`\n\n- ")


def test_long_content_goes_into_files_named_by_its_hash_once(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    picture, small = bytes(range(256)) * 20, b"\x89PNG"
    parts = (Text(text=BIG), Image(data=picture), Image(data=small), Document(data=picture), Opaque(body={"deep": [{"key": BIG}]}))
    event = appended(1, Message(role="user", parts=parts))
    store.write(event)
    store.close()
    assert LogFile(tmp_path / "a.jsonl").events == (event,)
    assert len(list((tmp_path / "a.blobs").iterdir())) == 2
    assert (tmp_path / "a.jsonl").stat().st_size < 1000


def test_a_blob_that_a_killed_writer_left_torn_is_written_again(tmp_path: Path) -> None:
    (name,) = encode(appended(1, user(BIG)))[1]
    (tmp_path / "a.blobs").mkdir()
    (tmp_path / "a.blobs" / name).write_text(BIG[:1000])
    JsonlStore(tmp_path / "a.jsonl").write(appended(1, user(BIG)))
    assert LogFile(tmp_path / "a.jsonl").events == (appended(1, user(BIG)),)


def test_a_disk_that_is_full_for_a_blob_loses_nothing(tmp_path: Path) -> None:
    script = f"""
import resource
from pathlib import Path
from test_log import BIG, JsonlStore, LogError, LogFile, appended, user
path = Path({str(tmp_path / "a.jsonl")!r})
store = JsonlStore(path)
store.write(appended(1, user("before")))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    store.write(appended(2, user(BIG)))
except LogError as error:
    print(error.found)
assert [file.stat().st_size for file in path.with_suffix(".blobs").iterdir()] == [0]
assert LogFile(path).events == (appended(1, user("before")),)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.write(appended(3, user("after")))
assert LogFile(path).events == tuple(appended(seq, user(text)) for seq, text in enumerate(("before", BIG, "after"), 1))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("the log cannot be written: File too large\n", "")


def test_bytes_are_in_fields_called_data_only() -> None:
    """The line of an event without such a field is not looked through for something too long."""
    seen: set[type] = set()

    def names(kind: Any) -> set[str]:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            if kind in seen:
                return set()
            seen.add(kind)
            fields = [(field.name, field.type) for field in msgspec.structs.fields(kind)]
            own = {name for name, form in fields if form is bytes or bytes in get_args(form)}
            return own.union(*(names(form) for _, form in fields))
        return set().union(*map(names, get_args(kind)))

    assert names(AnyEvent) == {"data"}


@pytest.mark.parametrize("size", [4000, 5000, 300_000])
def test_a_picture_among_short_words_leaves_the_line(size: int) -> None:
    event = appended(1, Message(role="user", parts=(Text(text="x" * 5000), Image(data=b"p" * size))))
    line, blobs = encode(event)
    assert (len(line) < 11_000, list(map(len, blobs.values()))) == (True, [size] if size > 4096 else [])
    assert decode(line, blobs.__getitem__) == event


def test_content_that_looks_like_a_reference_stays_content(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    fake = {"blobs": [[["text"], "0" * 32, "text"]], "x": 'a,"blobs":[[['}
    events = (appended(1, Message(role="user", parts=(Text(text=',"blobs":[[["x"]]]', extra=fake), Opaque(body={"z": 1, **fake})))),)
    events += (appended(2, Message(role="user", parts=(Opaque(body={"z": 1, **fake}), Text(text=BIG)))),)
    for event in events:
        store.write(event)
    assert LogFile(tmp_path / "a.jsonl").events == events


@settings(max_examples=60)
@given(
    st.text(max_size=30),
    st.binary(max_size=30),
    st.dictionaries(st.text(max_size=5), st.recursive(st.none() | st.text() | st.integers(-(2**60), 2**60), st.lists, max_leaves=5)),
)
def test_any_message_survives_the_line(text: str, data: bytes, extra: dict[str, object]) -> None:
    times = 1 + MAX_TEXT_BYTES // max(1, len(text)) if text else 1
    long = text * times
    message = Message(role="user", parts=(Text(text=text, extra=extra), Image(data=data * 500), Opaque(body=extra), Text(text=long)))
    event = appended(1, message)
    line, blobs = encode(event)
    assert decode(line, blobs.__getitem__) == event
    assert b"\n" not in line


def test_a_lone_surrogate_in_free_form_data_does_not_stop_the_log(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    store.write(appended(1, Message(role="user", parts=(Opaque(body={"x": "a\ud800b"}),))))
    assert LogFile(tmp_path / "a.jsonl").events == (appended(1, Message(role="user", parts=(Opaque(body={"x": "a\ufffdb"}),))),)


def test_a_missing_or_changed_blob_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    store = JsonlStore(path)
    store.write(appended(1, user(BIG)))
    blob = next((tmp_path / "a.blobs").iterdir())
    blob.write_text("other")
    with pytest.raises(LogError, match=rf"a\.jsonl, line 1: its content in a\.blobs/{blob.name} was changed"):
        _ = LogFile(path).events
    blob.unlink()
    with pytest.raises(LogError, match=r"line 1: its content in .* cannot be read: No such file"):
        _ = LogFile(path).events


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl"
    recorded_run(path)
    events = LogFile(path).events
    path.write_bytes(path.read_bytes()[: -cut - 1])
    log = LogFile(path)
    assert (log.events, log.torn) == (events[:-1], True)
    assert "torn" in repr(log)


@pytest.mark.parametrize("lines", [1, 2])
def test_a_last_line_that_has_its_end_is_not_torn_but_wrong(tmp_path: Path, lines: int) -> None:
    (tmp_path / "a.jsonl").write_text("garbage\n" * lines)
    with pytest.raises(LogError, match=r"^a\.jsonl, line 1: this is no event"):
        _ = LogFile(tmp_path / "a.jsonl").events


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    recorded_run(path)
    lines = path.read_text().splitlines()
    lines[3] = lines[3][:30]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(LogError, match=r"^a\.jsonl, line 4: this is no event .* one JSON event in each line"):
        _ = LogFile(path).events


def test_events_of_a_newer_version_are_kept_as_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    recorded_run(path)
    events = LogFile(path).events
    with path.open("a") as file:
        file.write('{"kind":"dreamed","seq":99,"time_ns":1,"of":"sheep"}\n')
    log = LogFile(path)
    assert log.events == events
    assert [(event.kind, event.fields["of"]) for event in log.unknown] == [("dreamed", "sheep")]
    assert log.notes == ("1 event of kinds this version does not know: dreamed",)


def test_missing_lines_are_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    recorded_run(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5] + lines[6:]))
    assert LogFile(path).notes == ("lines are missing or out of order at 1 place",)


def test_a_file_that_is_no_log_and_a_folder_without_one_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("name,age\nx,1\n")
    with pytest.raises(LogError, match="line 1: this is no event"):
        _ = LogFile(tmp_path / "a.jsonl").events
    with pytest.raises(LogError, match="no such file or folder"):
        LogFile(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogError, match="has no logs"):
        LogFile(tmp_path / "empty")


def test_an_empty_log_is_a_log(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    log = LogFile(tmp_path / "a.jsonl")
    assert (log.events, len(log.dialog()), len(log)) == ((), 0, 0)


def test_logs_lie_beside_the_notebook_ignored_by_git_and_private(tmp_path: Path) -> None:
    store, opened = open_store(tmp_path, "work/my study.ipynb", NOW)
    store.write(Opened(seq=1, time_ns=NOW, **opened))
    assert not (tmp_path / ".llmproc").exists()  # a run in which nothing happens leaves nothing behind
    store.write(appended(2, user(BIG)))
    run = f"20251009T085320.000Z-{os.getpid()}"
    assert opened == {"run": run, "software": "llmproc-nb", "notebook": "my study.ipynb"}
    assert store.path == tmp_path / ".llmproc" / f"my study-{run}.jsonl"
    assert (tmp_path / ".llmproc" / ".gitignore").read_text() == "*\n"
    files = [store.path, *store.path.with_suffix(".blobs").iterdir()]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 2
    assert [type(event) for event in LogFile(tmp_path).events] == [Opened, Appended]


def test_two_machines_of_one_moment_have_two_logs(tmp_path: Path) -> None:
    for _ in range(2):
        store, _ = open_store(tmp_path, None, NOW)
        store.write(warned(1))
        store.close()
    assert len(list_logs(tmp_path)) == 2


def test_the_logs_of_one_notebook_are_not_those_of_another_with_a_longer_name(tmp_path: Path) -> None:
    for name in ("a.ipynb", "a-b.ipynb", "v1.2"):
        store, _ = open_store(tmp_path, name, NOW)
        store.write(warned(1))
        store.close()
    run = f"20251009T085320.000Z-{os.getpid()}.jsonl"
    found = {name: [path.name for path in list_logs(tmp_path, name)] for name in ("a.ipynb", "a-b", "v1.2.ipynb", "v1")}
    assert found == {"a.ipynb": [f"a-{run}"], "a-b": [f"a-b-{run}"], "v1.2.ipynb": [f"v1.2-{run}"], "v1": []}


def test_a_folder_gives_its_newest_log(tmp_path: Path) -> None:
    (tmp_path / ".llmproc").mkdir()
    for age, name in enumerate(["a-1", "b-1", "a-2"]):
        (tmp_path / ".llmproc" / f"{name}.jsonl").write_text("")
        os.utime(tmp_path / ".llmproc" / f"{name}.jsonl", (age, age))
    assert find_log(tmp_path).name == "a-2.jsonl"


def test_a_new_writer_cuts_off_a_torn_line_before_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(encode(warned(1))[0] + b'\n{"kind":"war')
    JsonlStore(path).write(warned(2))
    assert LogFile(path).events == (warned(1), warned(2))


def test_a_second_writer_of_the_same_log_is_refused(tmp_path: Path) -> None:
    first, second = JsonlStore(tmp_path / "a.jsonl"), JsonlStore(tmp_path / "a.jsonl")
    first.write(warned(1))
    with pytest.raises(LogError, match="another kernel is writing it"):
        second.write(warned(1))
    first.close()


def test_a_full_disk_is_an_error_with_a_next_step_and_nothing_is_lost(tmp_path: Path) -> None:
    script = f"""
import resource, sys
from pathlib import Path
from test_log import JsonlStore, LogError, LogFile, warned
path = Path({str(tmp_path / "a.jsonl")!r})
store = JsonlStore(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
faults = []
for seq in range(1, 31):
    try:
        store.write(warned(seq, "y" * seq))
    except LogError as error:
        faults.append(str(error))
        whole = path.read_bytes()
        assert whole.endswith(b"}}\\n"), whole[-80:]
assert LogFile(path).torn is False
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.write(warned(31))
assert LogFile(path).events == tuple(warned(seq, "y" * seq) for seq in range(1, 31)) + (warned(31),)
print(faults[0]); print(faults[-1])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    first, last = done.stdout.splitlines() or (done.stderr, "")
    assert first == (
        f"{tmp_path}/a.jsonl: the log cannot be written: File too large; 1 event waits in memory and will be written first. "
        "Make room on the disk, then go on."
    ), done.stderr
    assert "events wait in memory" in last


def test_a_device_without_room_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to("/dev/full")
    store = JsonlStore(tmp_path / "a.jsonl")
    with pytest.raises(LogError, match="No space left on device; 1 event waits"):
        store.write(warned(1))
    with pytest.raises(LogError, match="2 events wait"):
        store.write(warned(2))


def test_a_call_on_a_full_disk_fails_and_the_path_stays_legal(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to("/dev/full")
    running = machine()
    scout = running.start(SCOUT)
    running.log.store = JsonlStore(tmp_path / "a.jsonl")
    with pytest.raises(LogError):
        scout.run("hello").result()
    (tmp_path / "a.jsonl").unlink()
    running.log.store = None
    assert scout.run("hello").result().text == "You said: hello"


def test_a_blob_that_cannot_be_written_keeps_its_event_waiting(tmp_path: Path) -> None:
    (tmp_path / "a.blobs").write_text("in the way")
    store = JsonlStore(tmp_path / "a.jsonl")
    with pytest.raises(LogError, match=r"a\.jsonl: the log cannot be written"):
        store.write(appended(1, user(BIG)))
    (tmp_path / "a.blobs").unlink()
    store.write(warned(2))
    assert LogFile(tmp_path / "a.jsonl").events == (appended(1, user(BIG)), warned(2))


def test_both_stores_of_a_tee_get_every_event_even_if_one_fails(tmp_path: Path) -> None:
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    tee = Tee(JsonlStore(tmp_path / "full.jsonl"), JsonlStore(tmp_path / "b.jsonl"))
    with pytest.raises(LogError, match=r"full\.jsonl"):
        tee.write(warned(1))
    assert LogFile(tmp_path / "b.jsonl").events == (warned(1),)


def test_recording_again_keeps_the_old_recording_beside_it(tmp_path: Path) -> None:
    path = recording_path(tmp_path, "study")
    assert path == tmp_path / "recordings" / "study.jsonl"
    recording_path(tmp_path, "study.2").parent.mkdir()
    recording_path(tmp_path, "study.2").write_text("of somebody else")
    for words in ("hello", BIG, "again"):
        running = machine(store=RecordingStore(path, "record"))
        running.start(SCOUT).run(words).result()
        running.close()
    for name, words in (("study", "again"), ("study.1", "hello"), ("study.3", BIG)):
        log = LogFile(recording_path(tmp_path, name))
        assert [event.message.text for event in log.events if isinstance(event, Appended) and event.message.role == "user"] == [words]
        assert blob_folder(log.path).exists() == (words == BIG)


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("keep", "keep.1"),
        ("v1.2", "v1.2.1"),
        ("keep.jsonl", "keep.1.jsonl"),
        ("sub/keep", "sub/keep.1.jsonl"),
        ("sub/a.log", "sub/a.1.log"),
    ],
)
def test_a_recording_that_was_kept_is_found_by_its_name(name: str, again: str, tmp_path: Path) -> None:
    path = recording_path(tmp_path, name)
    for words in (BIG, "again"):
        running = machine(store=RecordingStore(path, "record"))
        running.start(SCOUT).run(words).result()
        place = place_beside(path)
        running.close()
    assert place != recording_path(tmp_path, again) and name_beside(name, recording_path(tmp_path, again)) == again
    assert BIG in [event.message.text for event in LogFile(recording_path(tmp_path, again)).events if isinstance(event, Appended)]


def test_a_recording_that_cannot_be_kept_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recording_path(tmp_path, "study")
    first = machine(store=RecordingStore(path, "record"))
    first.start(SCOUT).run("hello").result()
    first.close()
    before, written = path.read_bytes(), []

    def full(fd: int, data: bytes) -> None:
        written.append(data)
        raise OSError(28, "No space left on device")

    again = machine(store=RecordingStore(path, "record"))
    with monkeypatch.context() as patch:
        patch.setattr(jsonl, "_write", full)
        with pytest.raises(LogError, match="No space left"):
            again.start(SCOUT).run("again").result()
    assert written
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["study.jsonl"]
    again.start(SCOUT).run("more").result()
    again.close()
    assert recording_path(tmp_path, "study.1").read_bytes() == before
    assert "again" in path.read_text()


def test_an_empty_recording_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    path.touch()
    running = machine(store=RecordingStore(path, "record"))
    running.start(SCOUT).run("hello").result()
    running.close()
    assert [file.name for file in tmp_path.iterdir()] == ["study.jsonl"]


def test_several_runs_in_one_file_have_numbers_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for _ in range(2):
        process = recorded_run(path)
    log = LogFile(path)
    assert [event.seq for event in log.events] == list(range(1, len(log.events) + 1))
    assert {event.pid for event in log.events} == {0, 1, 2, 3, 4}
    assert len(log.dialog()) == len(process.machine.dialog)
    assert "2 runs" in repr(log)


def test_tool_results_are_written_once(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    tool_nodes = [line for line in lines if line["kind"] == "appended" and line.get("results")]
    assert tool_nodes and not any("message" in line for line in tool_nodes)
    results = [part for node in LogFile(tmp_path / "a.jsonl").dialog() for part in node.message.tool_results]
    assert results[0] == ToolResult(call_id=results[0].call_id, name="add", content=(Text(text="5"),))


def test_a_key_in_the_environment_is_in_no_log(tmp_path: Path) -> None:
    """Through the real SDK, to a port where nobody listens."""
    key = "sk-" + "verysecret" * 4
    running = Machine(LateDrivers(lambda: {"OPENAI_API_KEY": key}), clock=FixedClock(), store=JsonlStore(tmp_path / "a.jsonl"))
    asker = running.start(Program(name="asker", model="gpt-5", provider="openai", base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(Unreachable):
        asker.run("hello").result()
    running.close()
    written = (tmp_path / "a.jsonl").read_text()
    assert "attempt_failed" in written and "verysecret" not in written


def test_messages_and_merges_of_a_later_run_name_processes_of_that_run(tmp_path: Path) -> None:
    for _ in range(2):
        running = machine(tmp_path / "a.jsonl")
        scout = running.start(SCOUT)
        child = scout.fork()
        child.run("hello").result()
        scout.send("hi", sender=child)
        scout.merge(child)
        running.close()
    events = LogFile(tmp_path / "a.jsonl").events
    assert [event.sender for event in events if isinstance(event, Sent)] == [2, 4]
    assert [event.child for event in events if isinstance(event, Merged)] == [2, 4]
