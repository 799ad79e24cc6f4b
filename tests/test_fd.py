"""Fds, their table and what a model is shown: every character can be reached, forks share what was and not what comes, words are exact."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.fd import Fd, Page
from llmproc_nb.core.fdtable import FdTable
from llmproc_nb.core.longtext import LongText
from llmproc_nb.core.reading import (
    READ_CHARS,
    fd_input,
    fd_result,
    fd_to_file,
    instructions,
    read_fd,
    references,
)
from llmproc_nb.drivers.text import long_text, long_text_from, write_file

texts = st.text(st.sampled_from(list("ab \t\r\n\n\0é😀ก́\u2028\ufeff{}<&")), max_size=80)
ODD = ["", "x", "\n", "\n\n", "a\r\nb\rc\n", "no end", '{"a":[1,2,3]}' * 9, "日本語\n" * 7, "👩‍👩‍👧‍👦é" * 5, "\0" * 30, "\ufeffbom\n"]


def table_of(*contents: str, page_chars: int = 10) -> FdTable:
    table = FdTable(long_text_from, page_chars=page_chars)
    for content in contents:
        table.open(content, "tool_result look")
    return table


def shown(answer: str) -> str:
    """The content between the tags of an answer."""
    found = re.fullmatch(r"<(fd_\w+)[^>]*>\n(.*)\n</\1>(?:\n.*)?", answer, re.DOTALL)
    assert found is not None, answer
    return found[2]


def refusal(table: FdTable, **arguments: Any) -> str:
    with pytest.raises(ToolError) as caught:
        read_fd(table, **arguments)
    return caught.value.for_model()


# ---- reading


@pytest.mark.parametrize("mode", ["page", "line", "char"])
@given(texts | st.sampled_from(ODD), st.integers(1, 12), st.integers(1, 7))
@settings(max_examples=80)
def test_every_mode_reads_to_the_last_character(mode: Any, text: str, page_chars: int, count: int) -> None:
    table = table_of(text, page_chars=page_chars)
    fd = table.get(1)
    total = {"page": fd.pages, "line": fd.text.lines, "char": fd.text.chars}[mode]
    starts = range(1, max(1, total) + 1, count)
    assert "".join(fd.read(mode, start, count).text for start in starts) == text
    assert "".join(shown(read_fd(table, fd="fd:1", mode=mode, start=start, count=count)) for start in starts) == text
    assert table.reads(1) == (((0, len(text)),) if text else ())
    assert shown(read_fd(table, fd=1, read_all=True)) == text
    assert "beginning" in refusal(table, fd=1, mode=mode, start=max(1, total) + 1) or "past the end" in refusal(
        table, fd=1, mode=mode, start=max(1, total) + 1
    )


@given(texts, st.integers(1, 12))
@settings(max_examples=80)
def test_a_page_says_where_it_lies(text: str, page_chars: int) -> None:
    fd = Fd(number=1, label="file", text=long_text(text), page_chars=page_chars)
    for number in range(1, fd.pages + 1):
        start, stop = (number - 1) * page_chars, min(number * page_chars, len(text))
        assert fd.page(number) == Page(
            text=text[start:stop],
            start=start,
            stop=stop,
            number=number,
            pages=max(1, -(-len(text) // page_chars)),
            first_line=text.count("\n", 0, start) + 1,
            last_line=text.count("\n", 0, max(start, stop - 1)) + 1,
            continued=start > 0 and text[start - 1] != "\n",
            truncated=stop < len(text) and text[stop - 1] != "\n",
        )


def test_a_long_result_comes_with_its_first_page() -> None:
    fd = table_of("a<b\nsecond\nthird\n").get("fd:1")
    assert fd_result(fd) == (
        '<fd_result fd="fd:1" pages="2" truncated="true" lines="1-2" total_lines="3" source="tool_result look">\n'
        '<message>The result has 17 characters. This is page 1 of 2. Use read_fd(fd="fd:1", start=2) to read on, '
        'or read_fd(fd="fd:1", pattern="…") to search.</message>\n'
        "<preview>\na<b\nsecond\n</preview>\n</fd_result>"
    )


def test_a_long_message_comes_with_its_beginning() -> None:
    fd = FdTable(long_text_from, page_chars=10).open("please read all of this\n", "user_input")
    assert fd_input(fd, 6) == (
        '<fd_input fd="fd:1" type="user_input" pages="3" lines="1" total_lines="1">\n'
        "<message>The person's message has 24 characters, and this is how it begins. "
        'Use read_fd(fd="fd:1", start=1) to read on, or read_fd(fd="fd:1", pattern="…") to search.</message>\n'
        "<preview>\nplease\n</preview>\n</fd_input>"
    )


def test_reads_say_what_they_show() -> None:
    table = table_of("one\ntwo\nthree\nfour\n")
    assert read_fd(table, fd="fd:1") == (
        '<fd_content fd="fd:1" page="1" pages="2" continued="false" truncated="true" chars="1-10" total_chars="19" lines="1-3" '
        'total_lines="4">\none\ntwo\nth\n</fd_content>'
    )
    assert read_fd(table, fd="1", mode="line", start="2", count=2) == (  # type: ignore[arg-type]
        '<fd_content fd="fd:1" page="1-2" pages="2" continued="false" truncated="false" chars="5-14" total_chars="19" lines="2-3" '
        'total_lines="4">\ntwo\nthree\n\n</fd_content>'
    )
    assert read_fd(table, fd=1, mode="char", start=2.0) == (  # type: ignore[arg-type]
        '<fd_content fd="fd:1" page="1" pages="2" continued="true" truncated="true" chars="2" total_chars="19" lines="1" '
        'total_lines="4">\nn\n</fd_content>'
    )
    assert read_fd(table_of(""), fd=1) == (
        '<fd_content fd="fd:1" page="1" pages="1" continued="false" truncated="false" chars="0" total_chars="0" lines="0" '
        'total_lines="0">\n\n</fd_content>'
    )


@pytest.mark.parametrize(
    "arguments", [{"read_all": True}, {"count": 10**12}, {"mode": "char", "count": 10**9}, {"mode": "line", "count": 10**6}]
)
def test_one_read_does_not_flood_the_context_and_says_how_to_go_on(arguments: dict[str, Any]) -> None:
    text = "0123456789\n" * 20_000
    table = table_of(text, page_chars=4000)
    answer = read_fd(table, fd=1, **arguments)
    assert shown(answer) == text[:READ_CHARS]
    assert answer.split("</fd_content>\n")[1] == (
        'Shown are 50,000 of the 220,000 characters asked for, the most that one read gives. Go on with read_fd(fd="fd:1", mode="char", '
        "start=50001, count=50000); search with pattern; or write it to a file with fd_to_file."
    )
    assert shown(read_fd(table, fd=1, mode="char", start=50001, count=50000)) == text[50000:100000]
    assert table.reads(1) == ((0, 100000),)


def test_an_extraction_is_an_fd_of_its_own_that_nobody_has_read() -> None:
    table = table_of("one\ntwo\nthree\nfour\n")
    assert read_fd(table, fd=1, mode="line", start=2, count=2, extract_to_new_fd=True) == (
        '<fd_extraction source_fd="fd:1" new_fd="fd:2" extracted="lines 2 to 3" content_size="10" pages="1">\n'
        "<message>lines 2 to 3 of fd:1 can now be read as fd:2</message>\n</fd_extraction>"
    )
    read_fd(table, fd=1, read_all=True, extract_to_new_fd=True)
    assert [(fd.name, fd.label, fd.text.slice(0, 99), table.reads(fd.number)) for fd in table][1:] == [
        ("fd:2", "lines 2 to 3 of fd:1", "two\nthree\n", ()),
        ("fd:3", "the whole of fd:1", "one\ntwo\nthree\nfour\n", ()),
    ]


def test_a_search_shows_lines_with_numbers_and_what_is_around_them() -> None:
    table = table_of("".join(f"line {number} {'ERROR <x>' if number in (3, 5, 12) else 'ok'}\r\n" for number in range(1, 21)))
    assert read_fd(table, fd=1, pattern='ERROR|"', context_lines=1) == (
        '<fd_search fd="fd:1" pattern="ERROR|&quot;" matches="3" more="false" total_lines="20">\n'
        "2-line 2 ok\n3:line 3 ERROR <x>\n4-line 4 ok\n5:line 5 ERROR <x>\n6-line 6 ok\n"
        "--\n11-line 11 ok\n12:line 12 ERROR <x>\n13-line 13 ok\n</fd_search>"
    )
    assert table.reads(1)[0] == (11, 20)
    assert read_fd(table, fd=1, pattern="ERROR", mode="line", start=6, context_lines=0).splitlines()[1:2] == ["12:line 12 ERROR <x>"]
    assert read_fd(table, fd=1, pattern="nothing").splitlines() == [
        '<fd_search fd="fd:1" pattern="nothing" matches="0" more="false" total_lines="20">',
        "",
        "</fd_search>",
    ]


def test_a_search_in_one_long_line_shows_the_parts_around_each_match() -> None:
    text = '{"x":0},' * 1000 + '{"needle":1},' + '{"x":0},' * 1000 + '{"needle":2}'
    table = table_of(text, page_chars=4000)
    lines = shown(read_fd(table, fd=1, pattern="needle")).splitlines()
    assert [line.split(":")[0] for line in lines] == ["1 char 7883", "1 char 15896"]
    assert all('"needle"' in line and len(line) < 430 for line in lines)
    assert shown(read_fd(table, fd=1, mode="char", start=7883, count=400)) == lines[0].removeprefix("1 char 7883:")


def test_many_matches_come_in_parts_that_together_are_all() -> None:
    table = table_of("".join(f"n{number}\n" for number in range(120)), page_chars=100)
    got: list[str] = []
    start, notes = 1, []
    while True:
        answer = read_fd(table, fd=1, pattern=r"n\d+", mode="char", start=start, context_lines=0)
        content, _, note = answer.partition("\n</fd_search>")
        got += content.splitlines()[1:]
        if not note:
            break
        notes.append(note.strip())
        start = int(re.findall(r"start=(\d+)", note)[0])
    assert got == [f"{number + 1}:n{number}" for number in range(120)]
    assert notes[0] == 'These are the first 50 matches; go on with the same pattern and mode="char", start=191.'
    assert len(notes) == 2


def test_matches_can_become_an_fd() -> None:
    table = table_of("".join(f"n{number}\n" for number in range(120)), page_chars=100)
    lines = "\n--\n".join(f"{number + 1}:n{number}" for number in range(7, 120, 10))
    assert read_fd(table, fd=1, pattern="7$", context_lines=0, extract_to_new_fd=True) == (
        f'<fd_extraction source_fd="fd:1" new_fd="fd:2" extracted="12 matches of 7$" content_size="{len(lines)}" pages="2">\n'
        "<message>12 matches of 7$ of fd:1 can now be read as fd:2</message>\n</fd_extraction>"
    )
    assert table.get(2).text.slice(0, 999) == lines


def test_matches_close_together_in_a_long_line_are_shown_once() -> None:
    table = table_of("".join(f"[{number:03}] " for number in range(500)), page_chars=1000)
    answer = read_fd(table, fd=1, pattern=r"\[\d")
    assert answer.splitlines()[0] == '<fd_search fd="fd:1" pattern="\\[\\d" matches="50" more="true" total_lines="1">'
    assert shown(answer) == "1 char 1:" + "".join(f"[{number:03}] " for number in range(67))[:400]


def test_a_search_does_not_flood_the_context_either() -> None:
    table = table_of("".join(f"{number:04} {'x' * 390}\n" for number in range(1000)), page_chars=1000)
    seen: list[str] = []
    start = 1
    for _ in range(4):
        answer = read_fd(table, fd=1, pattern="5 x", mode="char", start=start, context_lines=20)
        assert 40_000 < len(shown(answer)) <= READ_CHARS
        seen += re.findall(r"^\d+:(\d+)", answer, re.MULTILINE)
        start = int(re.findall(r"start=(\d+)", answer)[0])
    assert seen == [f"{number:04}" for number in range(5, 10 * len(seen), 10)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"fd": "fd:9"}, "there is no fd 'fd:9'; there are fd:1 (tool_result look), fd:2 (reference plan, ref:plan)."),
        ({"fd": "ref:x"}, "there is no fd 'ref:x'; there are fd:1 (tool_result look), fd:2 (reference plan, ref:plan)."),
        ({"fd": 0}, "there is no fd '0'; there are fd:1 (tool_result look), fd:2 (reference plan, ref:plan)."),
        ({"fd": True}, "there is no fd 'True'; there are fd:1 (tool_result look), fd:2 (reference plan, ref:plan)."),
        ({"fd": "fd:1", "start": 9}, "page 9 is past the end; fd:1 has 2 pages, counted from 1."),
        ({"fd": "fd:1", "start": 10**30}, f"page {10**30:,} is past the end; fd:1 has 2 pages, counted from 1."),
        ({"fd": "fd:1", "mode": "line", "start": 5}, "line 5 is past the end; fd:1 has 4 lines, counted from 1."),
        ({"fd": "fd:1", "mode": "char", "start": 20}, "character 20 is past the end; fd:1 has 19 characters, counted from 1."),
        ({"fd": "fd:1", "start": 0}, "argument 'start' is 0; it should be a whole number from 1 on."),
        ({"fd": "fd:1", "count": -1}, "argument 'count' is -1; it should be a whole number from 1 on."),
        ({"fd": "fd:1", "start": "two"}, "argument 'start' is 'two'; it should be a whole number from 1 on."),
        ({"fd": "fd:1", "start": True}, "argument 'start' is True; it should be a whole number from 1 on."),
        ({"fd": "fd:1", "start": 1.5}, "argument 'start' is 1.5; it should be a whole number from 1 on."),
        ({"fd": "fd:1", "mode": "word"}, "mode 'word' is unknown; it is page, line or char; a search needs pattern only."),
        ({"fd": "fd:1", "pattern": ""}, "the pattern is empty; a regular expression is needed. To read on without one, leave pattern out."),
        (
            {"fd": "fd:1", "pattern": "a", "context_lines": 21},
            "argument 'context_lines' is 21; it should be a whole number between 0 and 20.",
        ),
        (
            {"fd": "fd:1", "pattern": "f(o"},
            "the pattern 'f(o' is no regular expression: missing ) at character 4; one as in Python's re is needed. "
            r"Put a backslash before signs that are meant as they stand, as in \( or \[.",
        ),
        ({"fd": "fd:1", "pattern": "(" * 400 + ")" * 400}, "the pattern is too deeply nested; a simpler regular expression is needed."),
        ({"fd": "fd:1", "pattern": "a" * 1001}, "the pattern has 1,001 characters; up to 1,000 are possible."),
    ],
)
def test_what_cannot_be_read_is_told_with_what_could(arguments: dict[str, Any], told: str) -> None:
    table = table_of("one\ntwo\nthree\nfour\n")
    table.open("a plan", "reference plan", reference="plan")
    assert refusal(table, **arguments) == told


def test_of_many_fds_the_last_are_listed_and_of_none_that_is_said() -> None:
    assert refusal(FdTable(), fd=1) == "there is no fd '1'; nothing is open as an fd."
    listed = ", ".join(f"fd:{number} (tool_result look)" for number in range(19, 31))
    assert refusal(table_of(*"x" * 30), fd=31) == f"there is no fd '31'; there are fd:1 to fd:30, last {listed}."


def test_a_search_that_takes_too_long_is_told_with_how_far_it_got() -> None:
    table = table_of("fine\n" + "a" * 5000 + "!\n")
    assert refusal(table, fd=1, pattern="(a|aa)+(?=$)") == (
        "the search took too long and got as far as character 6 of 5,007; a pattern without nested repeats such as (a+)+ is faster. "
        'Or go on from there: mode="char", start=6.'
    )
    assert read_fd(table, fd=1, pattern="(a|aa)+(?=$)|fine", context_lines=0) == (
        '<fd_search fd="fd:1" pattern="(a|aa)+(?=$)|fine" matches="1" more="true" total_lines="2">\n1:fine\n</fd_search>\n'
        "The search took too long and stopped at character 6 of 5,007; use a simpler pattern, "
        'or go on with the same pattern and mode="char", start=6.'
    )


# ---- files


def test_an_fd_is_written_whole_to_a_file(tmp_path: Path) -> None:
    table = table_of("a\r\né\0")

    def write(text: LongText, path: str, **options: Any) -> int:
        return write_file(text, path, root=tmp_path, **options)

    assert fd_to_file(table, write, fd="fd:1", file_path='out/"a".txt') == (
        '<fd_file_result fd="fd:1" file_path="out/&quot;a&quot;.txt" mode="write" chars="5" bytes="6">\n'
        '<message>fd:1 was written to out/"a".txt</message>\n</fd_file_result>'
    )
    fd_to_file(table, write, fd=1, file_path='out/"a".txt', mode="append")
    assert (tmp_path / 'out/"a".txt').read_bytes() == "a\r\né\0".encode() * 2
    for arguments, told in (
        ({"fd": 2, "file_path": "b"}, "there is no fd '2'; there are fd:1 (tool_result look)."),
        ({"fd": 1, "file_path": " "}, "' ' cannot be a path; a path such as out/report.txt is needed."),
        ({"fd": 1, "file_path": "b", "mode": "w"}, "mode 'w' is unknown; it is write or append."),
        (
            {"fd": 1, "file_path": "b", "create": False},
            "there is no file 'b'; create=false asks for one that exists. Give create=true to make it.",
        ),
    ):
        with pytest.raises(ToolError) as caught:
            fd_to_file(table, write, **arguments)  # type: ignore[arg-type]
        assert caught.value.for_model() == told


# ---- the table


def test_an_fd_has_several_names() -> None:
    table = table_of("a", "b")
    table.open("old", "reference x", reference="x")
    last = table.open("new", "reference x", reference="x")
    assert [table.get(name).number for name in ("fd:2", "2", 2, " fd:2 ", "ref:x")] == [2, 2, 2, 2, 4]
    assert ("fd:2" in table, 5 in table, "ref:y" in table, None in table) == (True, False, False, False)
    assert (table.references, len(table), [fd.number for fd in table]) == ({"x": last}, 4, [1, 2, 3, 4])


def test_an_fd_of_another_process_is_taken_by_reference() -> None:
    theirs, ours = table_of("theirs"), table_of("ours", page_chars=3)
    taken = ours.take(theirs.get(1), "fd:1 of scout")
    assert (taken.name, taken.label, taken.page_chars, taken.text is theirs.get(1).text) == ("fd:2", "fd:1 of scout", 10, True)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["open", "refer", "mark", "fork", "fork"]),
            st.integers(0, 9),
            st.integers(1, 6),
            st.integers(0, 5),
            st.integers(0, 5),
        ),
        max_size=40,
    )
)
@settings(max_examples=150)
def test_a_fork_behaves_like_a_copy(steps: list[tuple[str, int, int, int, int]]) -> None:
    """Beside every table runs a plain copy of everything: whatever happens in whichever order, both tell the same."""
    shared = long_text("five5")
    tables: list[tuple[FdTable, list[Fd], dict[str, Fd], set[tuple[int, int]]]] = [(FdTable(), [], {}, set())]
    for kind, which, number, start, stop in steps:
        table, fds, refs, marked = tables[which % len(tables)]
        if kind == "fork":
            tables.append((table.fork(), list(fds), dict(refs), set(marked)))
        elif kind == "mark":
            table.mark_read(number, start, stop)
            if number <= len(fds):
                marked |= {(number, char) for char in range(start, stop)}
        else:
            key = f"r{start}" if kind == "refer" else ""
            fds.append(table.open(shared, f"{which} {number}", reference=key))
            if key:
                refs[key] = fds[-1]
    for table, fds, refs, marked in tables:
        assert list(table) == fds
        assert table.references == refs
        assert [fd.number for fd in fds] == list(range(1, len(fds) + 1))
        for number in range(1, 8):
            reads = table.reads(number)
            assert {(number, char) for start, stop in reads for char in range(start, stop)} == {
                mark for mark in marked if mark[0] == number
            }
            assert all(a[1] < b[0] for a, b in pairwise(reads))


# ---- references


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('a <ref id="x">one\n</ref> b', {"x": "one\n"}),
        ('<ref id="x">1</ref><ref id="y">2</ref><ref id="x">3</ref>', {"y": "2", "x": "3"}),
        ('<ref id="a">1<ref id="b">2</ref>3</ref>', {"a": '1<ref id="b">2</ref>3', "b": "2"}),
        ("<ref id='a b'></ref>", {"a b": ""}),
        ('<ref id="a">never closed', {}),
        ('</ref><ref id="a">1</ref></ref>', {"a": "1"}),
        ('<ref id="a">1<ref id="b">2</ref>', {"b": "2"}),
        ('<ref id="">1</ref><ref>2</ref>', {}),
        ('<ref id="x">a<ref id="x">b</ref></ref>', {"x": "b"}),
        ("nothing", {}),
    ],
)
def test_references_are_found_whole(text: str, found: dict[str, str]) -> None:
    assert references(text) == found
    assert list(references(text)) == list(found)


def test_a_hundred_thousand_tags_take_no_time() -> None:
    assert references("</ref>" * 100_000) == {}
    assert references('<ref id="a">' * 100_000) == {}


def test_the_instructions_name_what_there_is() -> None:
    assert [len(instructions(page_chars=4000, user_input=a, references=b).split("\n\n")) for a, b in ((True, True), (False, False))] == [
        3,
        1,
    ]
    assert "4,000 characters" in instructions(page_chars=4000)
