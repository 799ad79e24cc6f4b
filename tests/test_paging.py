"""Nothing that is too long is cut off: the whole of it can be read as an fd, in a plain script as in a notebook."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import machine, scripted
from paths import ROOT

from llmproc_nb.core.message import Text
from llmproc_nb.core.output import FRAME, shown
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import FdRules
from llmproc_nb.core.sandbox import Output, Ran
from llmproc_nb.core.tool import Paged
from llmproc_nb.drivers.rebuild import rebuild
from llmproc_nb.drivers.replay import Recording, reexecute
from llmproc_nb.inside.frame import frame_view

LONG = "".join(f"line {number}\n" for number in range(10_000))


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def returned(value: Any, **fields: Any) -> tuple[str, Process]:
    """What a model is told of a value that its tool returned, and its process."""

    def look() -> Any:
        """Look."""
        return value

    scout = scripted({"call": [call("look")]}, {"say": "ok"}, tools=[look], **fields)
    (run,) = scout.run("go").result().tool_calls
    assert run.outcome == "ran", run.result.text
    return run.result.text, scout


def whole(scout: Process, number: int = 1) -> str:
    """All pages of an fd, joined."""
    fd = scout.fds.get(number)
    return "".join(fd.page(page).text for page in range(1, fd.pages + 1))


def reachable(told: str, scout: Process) -> str:
    """Everything the model can come to read."""
    return "\n".join([told, *(whole(scout, fd.number) for fd in scout.fds)])


class Spoken:
    """An object that says itself what a model reads."""

    def __init__(self, text: str, kind: str = "text/plain") -> None:
        self.text, self.kind = text, kind

    def _ai_repr_(self) -> dict[str, str]:
        return {self.kind: self.text}


@dataclasses.dataclass
class Found:
    rows: Any


# ---- what tools return


def wide(rows: int, columns: int) -> pd.DataFrame:
    return pd.DataFrame(np.arange(rows * columns).reshape(rows, columns))


def long_cells(rows: int, chars: int) -> pd.DataFrame:
    return pd.DataFrame({"n": range(rows), "text": [f"{number:x<{chars}}{number}." for number in range(rows)]})


FRAMES: dict[str, Callable[[], pd.DataFrame]] = {
    "many rows": lambda: pd.DataFrame({"n": range(5000)}),
    "many columns": lambda: wide(40, 3000),
    "many columns and no row": lambda: wide(3, 3000).iloc[:0],
    "one row of many columns": lambda: wide(1, 20_000),
    "long cells": lambda: long_cells(40, 10_000),
    "more than is shown at once": lambda: long_cells(45, 190),
    "a long name": lambda: pd.DataFrame({"n" * 9000: [1]}),
    "names in two lines": lambda: wide(20, 400).set_axis(pd.MultiIndex.from_product([range(20), range(20)]), axis=1),
    "an index that means something": lambda: long_cells(30, 900).set_index("text"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_is_read_by_rows_to_its_last_value(name: str) -> None:
    frame = FRAMES[name]()
    told, scout = returned(frame)
    fd = scout.fds.get(1)
    assert len(scout.fds) == 1 and whole(scout) == frame.to_csv() and fd.page_lines == 50
    assert told.startswith('<fd_rows fd="fd:1"') and "\npandas DataFrame, " in told and len(told) <= 8000


@pytest.mark.parametrize(
    "series",
    [
        pd.Series(range(5000)),
        pd.Series([f"word {number}" for number in range(900)], name="words"),
        pd.Series(["x" * 9000 + "end"], index=["a"]),
        pd.Series(range(5000), index=pd.date_range("2026-01-01", periods=5000, freq="h", name="hour")),
    ],
)
def test_a_series_is_read_by_rows_to_its_last_value(series: pd.Series) -> None:
    told, scout = returned(series)
    assert whole(scout) == series.to_csv() and scout.fds.get(1).page_lines == 50
    assert told.startswith('<fd_rows fd="fd:1"') and "\npandas Series" in told


def test_an_index_is_read_by_rows_to_its_last_value() -> None:
    told, scout = returned(pd.Index(range(0, 50_000, 7), name="n"))
    assert "\npandas RangeIndex" in told and whole(scout).splitlines() == ["n", *map(str, range(0, 50_000, 7))]
    _, scout = returned(pd.MultiIndex.from_product([range(90), range(90)], names=["a", "b"]))
    assert whole(scout).startswith("a,b\n0,0\n") and whole(scout).endswith("\n89,89\n")


@pytest.mark.parametrize("shape", [(100, 1000), (100_000,), (3, 4, 5000), (20_000, 2), (1, 1, 1, 9000)])
def test_an_array_is_read_to_its_last_value(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    told, scout = returned(array)
    text = whole(scout)
    title, _, values = text.partition("\n")
    assert told.startswith('<fd_result fd="fd:1"') and text[:4000] in told and "left out]" not in told
    assert title.startswith(f"numpy array, {' × '.join(f'{size:,}' for size in shape)}, int64, all values:")
    assert (np.array(json.loads(values)) == array).all() and len(scout.fds) == 1


@pytest.mark.parametrize("chars", [16_500, 100_000])
@pytest.mark.parametrize("kind", ["text/plain", "text/llm+plain", "application/json"])
def test_what_an_object_says_of_itself_is_read_to_its_end(chars: int, kind: str) -> None:
    told, scout = returned(Spoken("é" * chars + "end", kind))
    assert told.startswith('<fd_result fd="fd:1"') and whole(scout).strip('"') == "é" * chars + "end"


FRAME_IN: dict[str, Callable[[Any], Any]] = {
    "a dict": lambda value: {"rows": value, "n": 1},
    "a list": lambda value: [value, "and"],
    "a tuple in a dict in a list": lambda value: [{"all": (1, value)}],
    "a late place of a list": lambda value: [*range(2000), value],
    "a list in a dict": lambda value: {"found": [value, value.iloc[:2]]},
    "a dict with keys that JSON has not": lambda value: {(1, 2): value},
    "a dataclass": lambda value: Found(rows=value),
    "a list with a picture": lambda value: [type("Drawn", (), {"_repr_png_": lambda self: b"\x89PNG\r\n\x1a\n" + bytes(9)})(), value],
    "a list with a picture and more": lambda value: [
        type("Drawn", (), {"_repr_png_": lambda self: b"\x89PNG\r\n\x1a\n" + bytes(9)})(),
        {"rows": value},
    ],
}


@pytest.mark.parametrize("name", FRAME_IN)
@pytest.mark.parametrize("frame", [pd.DataFrame({"n": range(5000)}), pd.Series(range(5000))], ids=["frame", "series"])
def test_a_frame_in_other_data_has_an_fd_of_its_own(name: str, frame: Any) -> None:
    told, scout = returned(FRAME_IN[name](frame))
    fds = [fd for fd in scout.fds if fd.page_lines]
    assert [whole(scout, fd.number) for fd in fds] == [frame.to_csv()]
    words = told if len(scout.fds) == 1 else whole(scout, 2)
    assert "<fd_rows fd=" in words and "pandas " in words


def test_an_array_in_other_data_has_an_fd_of_its_own() -> None:
    told, scout = returned({"a": np.arange(100_000), "b": {"c": np.arange(3)}})
    assert "99998, 99999]" in whole(scout, 1) and "numpy array, 3, int64, all values:\\n[0, 1, 2]" in told + whole(scout, len(scout.fds))


@pytest.mark.parametrize("cell", [np.arange(5000), list(range(5000)), [np.arange(5000)], {"v": np.arange(5000)}, pd.Series(range(5000))])
def test_an_array_in_a_cell_is_written_whole(cell: Any) -> None:
    told, scout = returned(pd.DataFrame({"n": [1, 2], "vector": [cell, None]}))
    numbers = re.findall(r"\d+", reachable(told, scout))
    assert {str(number) for number in range(5000)} <= set(numbers) and len(scout.fds) == 1


def test_rows_stay_as_they_are_beside_cells_that_are_written_out() -> None:
    frame = pd.DataFrame({"day": pd.to_datetime(["2026-01-01", None]), "n": [1, 2], "v": [[1], None]}, index=[7, 7])
    frame.columns = ["a", "a", "a"]
    frame.iloc[0, 2].extend(range(2000))
    _, scout = returned(frame)
    assert whole(scout) == frame.to_csv()


def test_what_fits_is_shown_whole_and_in_place() -> None:
    for value in (wide(40, 5), pd.Series(range(50)), np.arange(300), {"a": wide(2, 2)}, Spoken("x" * 8000), [np.arange(3)]):
        told, scout = returned(value)
        assert not scout.fds and "fd" not in told and "left out" not in told


def test_a_process_that_cannot_read_on_has_a_sample() -> None:
    told, scout = returned(pd.DataFrame({"n": range(5000)}), fd=FdRules(enabled=False))
    assert told.startswith("pandas DataFrame, 5,000 rows × 1 column") and "of 5,000 rows left out]" in told and not scout.fds


def test_little_room_for_a_result_leaves_one_fd_all_the_same() -> None:
    told, scout = returned(wide(200, 50), fd=FdRules(max_direct_output_chars=600))
    assert len(scout.fds) == 1 and len(told) <= 700 and whole(scout) == wide(200, 50).to_csv()


def test_lone_surrogates_in_a_frame_are_replaced() -> None:
    _, scout = returned(pd.DataFrame({"n": range(60), "text": pd.Series(["a\ud800"] * 60, dtype=object)}))
    assert "59,a\ufffd" in whole(scout)


def test_a_plain_script_shows_what_a_notebook_shows() -> None:
    code = (
        "import pandas as pd\nimport llmproc_nb as l\n"
        "def look():\n    '''Look.'''\n    return pd.DataFrame({'n': range(5000)})\n"
        "turns = ({'call': [{'name': 'look', 'arguments': {}}]}, {'say': 'ok'})\n"
        "p = l.Program(name='a', provider='scripted', model='script', script=turns, tools=(look,)).start()\n"
        "print(p.run('go').result().tool_calls[0].result.text)\nprint(p.fds.get(1).page(101).text)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith('<fd_rows fd="fd:1" pages="101"') and "\n4999,4999\n" in done.stdout, done.stderr


leaves = st.one_of(
    st.integers(0, 400).map(lambda rows: pd.DataFrame({"n": range(rows), "m": [f"m{row}" for row in range(rows)]})),
    st.integers(1, 3000).map(lambda columns: wide(3, columns)),
    st.integers(1, 1500).map(lambda chars: long_cells(8, chars)),
    st.integers(0, 4000).map(lambda size: pd.Series(range(size))),
    st.integers(0, 6000).map(np.arange),
    st.tuples(st.integers(1, 60), st.integers(1, 60)).map(lambda shape: np.arange(shape[0] * shape[1]).reshape(shape)),
    st.integers(0, 20_000).map(lambda size: Spoken(" ".join(map(str, range(size))))),
)
values = st.recursive(leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("ab"), inner, max_size=3)))


def numbers_in(value: Any) -> set[str]:
    """The numbers that a value holds."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return set().union(*(numbers_in(item) for item in items))
    text = value.text if isinstance(value, Spoken) else value.to_csv() if hasattr(value, "to_csv") else str(value.tolist())
    return set(re.findall(r"\d+", text))


@given(values, st.sampled_from([500, 8000]))
@settings(max_examples=60, deadline=None)
def test_no_value_of_any_result_is_lost(value: Any, most: int) -> None:
    told, scout = returned(value, fd=FdRules(max_direct_output_chars=most, page_user_input=False))
    assert numbers_in(value) - set(re.findall(r"\d+", reachable(told, scout).replace("\\n", "\n"))) == set()


# ---- what comes out of a sandbox


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_from_a_sandbox_is_whole(name: str) -> None:
    frame = FRAMES[name]()
    (paged,) = shown(Ran(status="ok", outputs=(Output(kind="execute_result", data={FRAME: frame_view(frame)}),)))
    assert isinstance(paged, Paged) and "".join(paged.pieces()) == frame.to_csv() and paged.said.startswith("pandas DataFrame, ")


def test_a_small_frame_from_a_sandbox_is_said_whole() -> None:
    (part,) = shown(Ran(status="ok", outputs=(Output(kind="execute_result", data={FRAME: frame_view(wide(3, 3))}),)))
    assert isinstance(part, Text) and part.text.endswith("all rows as CSV:\n0,1,2\n0,1,2\n3,4,5\n6,7,8\n")


def test_a_frame_of_a_cell_that_was_stopped_is_told_with_its_rows() -> None:
    outputs = (Output(kind="display_data", data={FRAME: frame_view(pd.DataFrame({"n": range(500)}))}),)
    with pytest.raises(Exception, match="took too long") as caught:
        shown(Ran(status="timed_out", outputs=outputs))
    assert "\n499,499\n" in str(caught.value)


# ---- what is said to a process


def look() -> str:
    """Look."""
    return "seen"


def reader(*turns: Any, **fields: Any) -> Process:
    return scripted(*(turns or ({"say": "ok"},) * 3), tools=[look], fd=FdRules(), **fields)


def said_last(scout: Process) -> str:
    return [message for message in scout.messages if message.role == "user"][-1].text


def test_what_is_sent_is_paged_like_a_prompt() -> None:
    scout = reader()
    scout.send(LONG)
    scout.run("go").result()
    told = scout.messages[1].text
    assert told.startswith('<fd_input fd="fd:1"') and len(told) < 1200 and whole(scout) == LONG
    assert scout.fds.reads(1) == ((0, 400),)


def test_what_is_said_between_calls_is_paged_like_a_prompt() -> None:
    from llmproc_nb.core.message import user

    scout = reader()
    scout.say(user(LONG))
    assert said_last(scout).startswith('<fd_input fd="fd:1"') and whole(scout) == LONG


def test_a_note_that_a_person_leaves_is_paged_like_a_prompt() -> None:
    scout = reader()
    scout.run("one").result()
    scout.goto("msg_1", LONG)
    assert said_last(scout).startswith('<fd_input fd="fd:1"') and whole(scout) == LONG


def test_a_note_of_the_model_is_paged_and_stays_a_note() -> None:
    scout = family(more=False)
    told = said_last(scout)
    assert re.match(r'\[msg_\d\] <goto to="msg_1">You went back .* about them:\n<fd_input fd="fd:2"', told), told[:300]
    assert told.endswith("</fd_input>\n</goto>") and len(told) < 1500 and whole(scout, 2) == LONG


def test_what_a_branch_concluded_is_paged_and_its_fds_are_named() -> None:
    scout = reader({"say": LONG})
    child = scout.fork("idea")
    child.open_fd("a table", "table")
    child.run("think").result()
    scout.merge(child, "Its idea:")
    told = said_last(scout)
    assert re.match(r'Its idea:\n<merged from="idea" tokens="\d+">\n<fd_input fd="fd:2"', told) and '<fd here="fd:1" there="fd:1"/>' in told
    assert len(told) < 1500 and whole(scout, 2) == child.get_last_message()


def test_a_short_limit_pages_once() -> None:
    scout = scripted({"say": "x" * 200}, tools=[look], fd=FdRules(max_input_chars=100))
    child = scout.fork("idea")
    child.run("think").result()
    scout.merge(child)
    assert len(scout.fds) == 1 and whole(scout) == "x" * 200


@pytest.mark.parametrize("rules", [None, FdRules(page_user_input=False), FdRules(enabled=False)])
def test_nothing_said_is_paged_unless_the_program_says_so(rules: FdRules | None) -> None:
    scout = scripted({"say": LONG}, {"say": "ok"}, tools=[look], fd=rules)
    child = scout.fork("idea")
    child.run("think").result()
    scout.merge(child)
    scout.send(LONG)
    scout.run("go").result()
    assert len(scout.fds) == 0 and [len(message.text) > len(LONG) - 1 for message in scout.messages[1:3]] == [True, True]


def family(more: bool = True) -> Process:
    """A process that was sent much, went back with a long note and took home a long conclusion."""

    def script(request: Any) -> Any:
        said = request.head.message.text
        if "go back" in said:
            return {"call": [call("goto", position="msg_1", message=LONG)]}
        return LONG if "think" in said else "ok"

    scout = scripted(script, tools=[look, "goto"], fd=FdRules())
    scout.run("one").result()
    scout.send(LONG[:50_000])
    scout.run("go back").result()
    if not more:
        return scout
    child = scout.fork("idea")
    child.run("think").result()
    scout.merge(child)
    scout.run(LONG[1:]).result()
    return scout


def test_a_log_with_paged_messages_runs_again_to_the_same_nodes() -> None:
    comparison = reexecute(family().machine.log)
    assert comparison.difference is None


def test_a_recording_with_paged_messages_answers() -> None:
    first = family()
    recording = Recording(first.machine.log.events, "replay")
    again = scripted(lambda request: "never", tools=[look, "goto"], fd=FdRules(), on=machine(recorded=recording))
    again.run("one").result()
    again.send(LONG[:50_000])
    again.run("go back").result()
    child = again.fork("idea")
    child.run("think").result()
    again.merge(child)
    again.run(LONG[1:]).result()
    assert again.head.id == first.head.id
    assert [(fd.number, fd.label, fd.text.digest) for fd in again.fds] == [(fd.number, fd.label, fd.text.digest) for fd in first.fds]


def test_a_process_made_again_from_its_log_has_read_what_it_had_read_and_waits_for_nothing() -> None:
    first = family()
    made = rebuild(first.machine.log, machine(), tools=(look,), programs={"scout": first.program})
    back = next(one.process for one in made if one.name == "scout")
    assert back is not None and back.head.id == first.head.id and back.inbox == ()
    assert [(fd.text.digest, back.fds.reads(fd.number)) for fd in back.fds] == [
        (fd.text.digest, first.fds.reads(fd.number)) for fd in first.fds
    ]
