"""Fds in a process: what becomes one, how the model reads on, what the log and a replay know."""

from __future__ import annotations

import re

import pytest
from machines import events, machine, scripted

from llmproc_nb.core.event import FdOpened
from llmproc_nb.core.program import FdRules
from llmproc_nb.core.provider import Request
from llmproc_nb.drivers.replay import Recording

LONG = "".join(f"line {number}\n" for number in range(5000))


def words(request: Request) -> str:
    message = request.head.message
    return message.text or "\n".join(result.text for result in message.tool_results)


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


def report() -> str:
    """A long report."""
    return LONG


def reading(*arguments, **fields):
    """A process that has a long report made and then reads on, once for each of the arguments."""

    def script(request: Request):
        asked = sum(node.message.role == "assistant" for node in request.path)
        if asked == 0:
            return {"call": [call("report")]}
        return {"call": [call("read_fd", **arguments[asked - 1])]} if asked <= len(arguments) else "read"

    return scripted(script, tools=[report], **fields)


def test_a_long_result_becomes_an_fd_with_its_first_page_in_place():
    scout = reading()
    result = scout.run("go").result()
    told = result.tool_calls[0].result.text
    assert told.startswith('<fd_result fd="fd:1" pages="13" truncated="true" lines="1-') and 'source="tool_result report"' in told
    assert LONG[:4000] in told and len(told) < 4500
    assert "".join(scout.fds.get(1).page(number).text for number in range(1, 14)) == LONG
    opened = events(scout, FdOpened)
    assert [(one.number, one.chars, one.lines, one.text == LONG, one.position) for one in opened] == [(1, len(LONG), 5000, True, 0)]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"fd": "fd:1", "start": 2}, LONG[4000:8000]),
        ({"fd": "fd:1", "mode": "line", "start": 4999, "count": 2}, "line 4998\nline 4999\n"),
        ({"fd": "fd:1", "mode": "char", "start": 1, "count": 6}, "line 0"),
        ({"fd": "fd:1", "pattern": "line 42$", "context_lines": 1}, "42-line 41\n43:line 42\n44-line 43"),
    ],
)
def test_the_model_reads_on_in_every_way(arguments, found):
    result = reading(arguments).run("go").result()
    assert found in result.tool_calls[1].result.text and result.tool_calls[1].error is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"fd": "fd:9"}, "there is no fd 'fd:9'; there are fd:1 (tool_result report)"),
        ({"fd": "fd:1", "start": 99}, "page 99 is past the end; fd:1 has 13 pages"),
        ({"fd": "fd:1", "pattern": "("}, "("),
        ({}, "argument 'fd' is missing"),
    ],
)
def test_a_wrong_read_says_what_would_be_right(arguments, said):
    assert said in reading(arguments).run("go").result().tool_calls[1].error


def test_what_the_model_has_read_is_known():
    scout = reading({"fd": "fd:1", "start": 3})
    scout.run("go").result()
    assert scout.fds.reads(1) == ((0, 4000), (8000, 12000))


def test_a_part_becomes_an_fd_of_its_own():
    scout = reading({"fd": "fd:1", "mode": "line", "start": 1, "count": 3, "extract_to_new_fd": True})
    scout.run("go").result()
    assert scout.fds.get("fd:2").page(1).text == "line 0\nline 1\nline 2\n"
    assert [one.number for one in events(scout, FdOpened)] == [1, 2]


def test_data_too_long_for_the_context_is_paged_as_well():
    def table() -> list[dict[str, int]]:
        """Rows."""
        return [{"n": number} for number in range(5000)]

    scout = scripted({"call": [call("table")]}, {"say": "ok"}, tools=[table])
    scout.run("go").result()
    assert scout.fds.get(1).text.chars > 40_000 and scout.fds.get(1).text.slice(0, 9) == '[{"n":0},'


def test_without_fds_a_result_stays_whole():
    scout = reading(fd=FdRules(enabled=False))
    assert scout.run("go").result().tool_calls[0].result.text == LONG
    assert [tool.name for tool in scout.tools] == ["report"]


def test_a_process_without_tools_has_no_tool_to_read_with():
    assert [tool.name for tool in scripted({"say": "x"}).tools] == []


def test_a_long_message_of_the_person_is_paged_where_the_program_says_so():
    scout = scripted({"say": "ok"}, tools=[report], fd=FdRules())
    scout.run(LONG).result()
    said = scout.messages[1].text
    assert said.startswith('<fd_input fd="fd:1" type="user_input"') and len(said) < 1200
    plain = scripted({"say": "ok"}, tools=[report])
    plain.run(LONG).result()
    assert plain.messages[1].text == LONG


def test_references_in_a_reply_can_be_read_and_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scout = scripted(
        {"say": 'Here: <ref id="code">print(1)</ref>'},
        {"call": [call("fd_to_file", fd="ref:code", file_path="out/code.py")]},
        {"say": "written"},
        tools=["fd_to_file"],
        fd=FdRules(enable_references=True),
    )
    scout.run("write").result()
    result = scout.run("save it").result()
    assert result.tool_calls[0].error is None and (tmp_path / "out/code.py").read_text() == "print(1)"


def test_a_file_is_not_written_outside_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    scout = scripted({"call": [call("fd_to_file", fd="fd:1", file_path="../x.txt")]}, {"say": "no"}, tools=["fd_to_file"])
    scout.open_fd("text", "file")
    assert scout.run("save").result().tool_calls[0].error and not (tmp_path / "x.txt").exists()


def test_a_replay_has_the_same_fds_without_running_the_tool():
    ran = []

    def report() -> str:
        """A long report."""
        ran.append(1)
        return LONG

    def script(request: Request):
        asked = sum(node.message.role == "assistant" for node in request.path)
        return [{"call": [call("report")]}, {"call": [call("read_fd", fd="fd:1", start=2)]}, "read"][asked]

    first = scripted(script, tools=[report])
    first.run("go").result()
    again = scripted(script, tools=[report], on=machine(recorded=Recording(first.machine.log.events, "replay")))
    again.run("go").result()
    assert again.head.id == first.head.id and len(ran) == 1
    assert again.fds.get(1).page(13).text == LONG[48000:]


def test_two_processes_of_one_program_have_fds_of_their_own():
    one = reading()
    two = one.program.start("two", machine=one.machine)
    one.run("go").result()
    assert len(one.fds) == 1 and len(two.fds) == 0


def test_a_paged_result_is_what_the_provider_was_sent():
    seen = []

    def script(request: Request):
        seen.append(words(request))
        return {"call": [call("report")]} if len(seen) == 1 else "ok"

    scripted(script, tools=[report]).run("go").result()
    assert re.match(r'<fd_result fd="fd:1" pages="13"', seen[1])


def test_a_frame_is_paged_by_rows():
    import pandas as pd

    def table() -> pd.DataFrame:
        """Rows."""
        return pd.DataFrame({"n": range(120), "words": [f"row {number}" for number in range(120)]})

    turns = [{"call": [call("table")]}, {"call": [call("read_fd", fd="fd:1", start=3)]}, {"say": "ok"}]
    scout = scripted(*turns, tools=[table])
    result = scout.run("go").result()
    told = '<fd_rows fd="fd:1" pages="3" rows_per_page="50" total_lines="121" source="tool_result table">'
    assert told in result.tool_calls[0].result.text
    assert scout.fds.get(1).page(1).text.startswith(",n,words\n0,0,row 0\n")
    assert "99,99,row 99\n100,100,row 100" in result.tool_calls[1].result.text
    pages = [scout.fds.get(1).page(number).text for number in (1, 2, 3)]
    assert "".join(pages) == table().to_csv() and [page.count("\n") for page in pages] == [50, 50, 21]
    assert scout.fds.reads(1) == ((len(pages[0]) + len(pages[1]), sum(map(len, pages))),)


def test_a_file_too_long_to_hold_is_read_where_it_lies(tmp_path, monkeypatch):
    from llmproc_nb.drivers.builtin import folder

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder, "MAX_BYTES", 10_000)
    (tmp_path / "big.txt").write_text(LONG)
    scout = scripted({"call": [call("read_file", file_path="big.txt")]}, {"say": "ok"}, tools=["read_file"])
    result = scout.run("go").result()
    assert result.tool_calls[0].result.text.startswith('<fd_result fd="fd:1" pages="13"')
    assert "".join(scout.fds.get(1).page(number).text for number in range(1, 14)) == LONG
