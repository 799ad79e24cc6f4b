"""The log as frames: seven tables with documented columns and dtypes, joined by ids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import family
import pandas as pd
import pytest
from simple import SCOUT, machine, recorded_run

from llmproc_nb.core.errors import LogError
from llmproc_nb.core.event import AnyEvent, Decided, ToolRan, ToolStarted
from llmproc_nb.notebook.columns import tables
from llmproc_nb.notebook.frames import COLUMNS, Frames, frames, read_log
from llmproc_nb.notebook.summary import WORDS


@pytest.fixture
def made(tmp_path: Path) -> Frames:
    recorded_run(tmp_path / "a.jsonl")
    return read_log(tmp_path / "a.jsonl").frames()


def dtypes(made: Frames) -> dict[str, dict[str, str]]:
    return {name: {column: str(dtype) for column, dtype in getattr(made, name).dtypes.items()} for name in COLUMNS}


DOCUMENTED = {name: {column: dtype for column, (dtype, _) in columns.items()} for name, columns in COLUMNS.items()}


def test_columns_and_dtypes_are_as_documented(made: Frames) -> None:
    assert dtypes(made) == DOCUMENTED
    assert {name: set(table) for name, table in tables([]).items()} == {name: set(columns) for name, columns in DOCUMENTED.items()}


def test_an_empty_log_gives_the_same_columns_and_dtypes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    empty = read_log(tmp_path / "a.jsonl").frames()
    assert dtypes(empty) == DOCUMENTED
    assert repr(empty) == "<Frames 0 events, 0 messages, 0 calls, 0 tools, 0 processes, 0 fds, 0 code>"


def test_one_row_for_each_event_message_call_tool_and_process(made: Frames, tmp_path: Path) -> None:
    log = read_log(tmp_path / "a.jsonl")
    assert repr(made) == f"<Frames {len(log.events)} events, {len(log.dialog())} messages, 7 calls, 5 tools, 2 processes, 0 fds, 0 code>"
    assert log.calls is log.frames().calls and log.events_frame is log.frames().events


def test_calls_say_what_was_asked_answered_and_used(made: Frames) -> None:
    calls = made.calls.set_index("call")
    assert calls[["process", "stop", "requests", "retries", "tools", "prompt", "text"]].astype(object).values.tolist() == [
        ["scout", "end_turn", 1, 0, 0, "hello", "You said: hello"],
        ["scout", "end_turn", 2, 0, 1, "add it", "It is 5."],
        ["scout", "end_turn", 2, 0, 2, "both now", "Done."],
        ["scout", "error", 0, 1, 0, "fail now", pd.NA],
        ["scout", "end_turn", 1, 0, 0, "hello", "You said: hello"],
        ["scout", "max_steps", 0, 0, 0, "and on", pd.NA],
        ["helper", "end_turn", 2, 0, 2, "both now", "Done."],
    ]
    assert calls.error[4] == "RequestRefused: scripted: the script says so."
    assert calls.cell[1] == "cell-1" and pd.isna(calls.cell[5])
    assert calls.scripted.all() and not calls.replayed.any()
    assert calls.input_tokens.sum() == made.processes.input_tokens.sum()


def test_tools_say_what_was_called_with_what_and_what_came_of_it(made: Frames) -> None:
    columns = ["call", "name", "arguments", "result", "outcome", "position"]
    assert made.tools[columns].astype(object).values.tolist() == [
        [2, "add", '{"a": 2, "b": 3}', "5", "ran", 0],
        [3, "add", '{"a": 1, "b": 1}', "2", "ran", 0],
        [3, "shout", '{"text": "hi"}', "HI", "ran", 1],
        [7, "add", '{"a": 1, "b": 1}', "2", "ran", 0],
        [7, "shout", '{"text": "hi"}', "HI", "ran", 1],
    ]


def test_messages_know_their_place_and_whose_path_they_are_on(made: Frames) -> None:
    messages = made.messages
    columns = ["depth", "role", "text", "parts", "process", "on_path"]
    assert messages[columns].head(6).astype(object).values.tolist() == [
        [0, "system", "You scout.", "text", "scout", "scout"],
        [1, "user", "hello", "text", "scout", "scout"],
        [2, "assistant", "You said: hello", "text", "scout", "scout"],
        [3, "user", "add it", "text", "scout", pd.NA],
        [4, "assistant", "I add.", "text, tool_call", "scout", pd.NA],
        [5, "tool", "5", "tool_result", "scout", pd.NA],
    ]
    families = messages.merge(messages, left_on="parent", right_on="node", suffixes=("", "_parent"))
    assert len(families) == len(messages) - 1 and (families.depth == families.depth_parent + 1).all()


def test_frames_join_by_id_and_by_cell(made: Frames) -> None:
    joined = made.tools.merge(made.calls, on="call", suffixes=("", "_call")).merge(made.messages, on="node", suffixes=("", "_reply"))
    assert len(joined) == len(made.tools)
    assert set(joined.role) == {"assistant"}
    assert made.calls.merge(made.processes, on="pid").shape[0] == 7
    assert made.tools.merge(made.events, on="seq").kind.eq("tool_ran").all()
    assert made.events[made.events.cell == "cell-1"].call.dropna().unique().tolist() == [1, 2, 3]


def test_processes_say_where_they_stand_and_what_they_used(made: Frames) -> None:
    columns = ["pid", "process", "parent_pid", "lineage", "model", "provider", "state", "depth", "calls", "requests"]
    assert made.processes[columns].astype(object).values.tolist() == [
        [1, "scout", pd.NA, "scout", "script-1", "scripted", "idle", 3, 6, 7],
        [2, "helper", 1, "scout/helper", "script-1", "scripted", "killed", 4, 1, 2],
    ]


def test_times_are_utc_and_an_unknown_price_is_missing(made: Frames) -> None:
    assert str(made.events.time.iloc[0]) == "2025-10-09 08:53:20+00:00"
    running = machine()
    drivers = running.drivers
    running.drivers = type("Unpriced", (), {"__getattr__": lambda _, name: getattr(drivers, name), "price": lambda *_: None})()
    running.start(SCOUT).run("hello").result()
    unpriced = frames(running.log.events)
    assert unpriced.calls.cost_usd.isna().all() and unpriced.processes.cost_usd.isna().all()


def test_a_call_and_a_tool_that_have_no_end_are_there_as_unknown(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    events = read_log(tmp_path / "a.jsonl").events
    index = next(number for number, event in enumerate(events) if isinstance(event, ToolStarted))
    cut = frames(events[: index + 1])
    assert cut.tools[["name", "outcome"]].astype(object).values.tolist() == [["add", "unknown"]]
    assert cut.tools.result.isna().all()
    assert (cut.calls.stop.isna().tolist(), cut.processes.state.tolist()) == ([False, True], ["running"])


def test_every_beginning_of_a_log_gives_frames(tmp_path: Path) -> None:
    recorded_run(tmp_path / "a.jsonl")
    events = read_log(tmp_path / "a.jsonl").events
    for end in range(0, len(events), 7):
        assert dtypes(frames(events[:end])) == DOCUMENTED


def test_frames_of_the_running_kernel_are_those_of_its_log(tmp_path: Path) -> None:
    process = recorded_run(tmp_path / "b.jsonl")
    live, made = frames(process.machine.log.events), read_log(tmp_path / "b.jsonl").frames()
    for name in COLUMNS:
        pd.testing.assert_frame_equal(getattr(live, name), getattr(made, name))


@pytest.fixture
def full(tmp_path: Path) -> Frames:
    """The frames of a run with forks, gotos, spawns, fds and messages."""
    running = machine(tmp_path / "full.jsonl")
    family.full_run(running)
    running.close()
    return read_log(tmp_path / "full.jsonl").frames()


def test_processes_say_who_made_them_and_how(full: Frames) -> None:
    columns = ["process", "parent", "origin", "program", "model", "state"]
    assert dtypes(full) == DOCUMENTED
    assert full.processes[columns].astype(object).fillna("").values.tolist() == [
        ["scout", "", "start", "scout", "script", "idle"],
        ["helper", "scout", "spawn", "plain", "script", "idle"],
        ["scout.1", "scout", "fork", "scout", "script", "idle"],
        ["scout.2", "scout", "fork", "scout", "script", "idle"],
        ["expert", "scout", "spawn", "expert", "script", "killed"],
        ["idea", "scout", "fork", "scout", "script", "idle"],
        ["scout.3", "scout", "fork", "scout", "script", "idle"],
        ["scout.4", "scout", "fork", "scout", "script", "idle"],
        ["scout.5", "scout", "fork", "scout", "script", "idle"],
        ["plain", "", "start", "plain", "script", "killed"],
        ["plain.1", "plain", "fork", "plain", "script", "idle"],
    ]


def test_messages_have_the_numbers_their_processes_gave_them(full: Frames) -> None:
    scout = full.messages[(full.messages.process == "scout") & ~full.messages.aside]
    assert scout.number.dropna().tolist() == list(range(32))
    labels = scout[scout.role == "user"].text.str.extract(r"^\[msg_(\d+)\]")[0]
    shown = labels.dropna().astype("Int64")
    assert len(shown) == 11 and (shown == scout.number[shown.index]).all()
    assert full.messages.aside.sum() == 3 and full.messages[full.messages.aside].number.isna().all()


def test_fds_join_with_the_tools_whose_results_they_are(full: Frames) -> None:
    columns = ["process", "number", "label", "chars", "lines", "pages", "read_chars", "position"]
    assert full.fds[columns].astype(object).values.tolist() == [
        ["scout", 1, "tool_result report", 16890, 2000, 5, 8000, 0],
        ["scout.1", 2, "tool_result report", 18890, 2000, 5, 4000, 0],
        ["scout", 2, "tool_result report (scout.1 fd:2)", 18890, 2000, 5, 0, pd.NA],
        ["idea", 3, "tool_result report", 16890, 2000, 5, 4000, 0],
        ["scout", 3, "tool_result report (idea fd:3)", 16890, 2000, 5, 0, pd.NA],
    ]
    joined = full.fds.merge(full.tools, on=["pid", "node", "position"], suffixes=("", "_tool"))
    assert joined.name.tolist() == ["report"] * 3 and joined.outcome.eq("ran").all()
    assert full.fds.digest.nunique() == 2


def test_every_kind_of_event_has_its_words(full: Frames) -> None:
    assert {kind for kind in AnyEvent.__args__ if kind not in WORDS} == set()
    moved = full.events[full.events.kind == "moved"]
    assert moved.summary.tolist() == ["goto", "goto", "undo", "reset", "reset", "goto"]
    assert full.events[full.events.kind == "sent"].summary.tolist() == ["by the way", "unread", "unread, too"]
    assert full.events[full.events.kind == "fd_opened"].summary.iloc[0] == "fd:1 tool_result report, 16890 characters"


def test_tools_say_what_was_decided_on_them(tmp_path: Path) -> None:
    running = machine(tmp_path / "a.jsonl")
    running.start(SCOUT).run("both now").result()
    events = list(running.log.events)
    ran = [event for event in events if isinstance(event, ToolRan)]
    fields = {"time_ns": 1, "pid": 1, "call": 1, "node": ran[0].node, "name": "add"}
    events += [
        Decided(seq=101, position=0, allowed=True, by="person", arguments='{"a": 2, "b": 2}', **fields),
        Decided(seq=102, position=1, allowed=False, by="rule 2", **fields),
    ]
    assert frames(events).tools[["name", "allowed", "decided_by", "changed"]].astype(object).values.tolist() == [
        ["add", True, "person", True],
        ["shout", False, "rule 2", False],
    ]
    assert frames(running.log.events).tools[["allowed", "decided_by", "changed"]].isna().all().all()


def test_parquet_reads_back_with_the_same_dtypes(made: Frames, tmp_path: Path) -> None:
    files = made.to_parquet(tmp_path / "out")
    assert [file.name for file in files] == [f"{name}.parquet" for name in COLUMNS]
    for name, file in zip(COLUMNS, files, strict=True):
        back = pd.read_parquet(file)
        assert {column: str(dtype) for column, dtype in back.dtypes.items()} == DOCUMENTED[name]
        assert back.astype(object).equals(getattr(made, name).astype(object))


def test_a_folder_without_logs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="has no logs"):
        read_log(tmp_path)


def test_pandas_is_not_loaded_before_the_first_frame() -> None:
    code = "import sys, llmproc_nb.notebook.frames; print(sorted({'pandas', 'numpy', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert done.stdout == "[]\n"
