"""ast_grep, copy and paste: through a process whose script calls them, in a real folder, with what a model may send by mistake."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import machine, scripted

from llmproc_nb.api import Machine, Process, Program
from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.event import ToolRan
from llmproc_nb.core.message import Text
from llmproc_nb.drivers.builtin import matcher, search
from llmproc_nb.drivers.builtin.folder import Folder
from llmproc_nb.drivers.builtin.language import SUFFIXES, named
from llmproc_nb.drivers.builtin.matcher import Matcher
from llmproc_nb.drivers.replay import Recording

ALL = ("ast_grep", "copy", "paste")
WORDS = "a pattern is code that parses by itself, with $NAME for one part of it and $$$NAME for any number."
WORDS += " Write the whole expression or statement."


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def runs(process: Process) -> list[tuple[str, str]]:
    """The outcome and the text of each tool call of a process."""
    events = [event for event in process.machine.log.events if isinstance(event, ToolRan) and event.pid == process.pid]
    return [(event.outcome, "".join(part.text for part in event.result.content if isinstance(part, Text))) for event in events]


def told(*calls: dict[str, Any], on: Machine | None = None) -> list[tuple[str, str]]:
    """What a process is told of calls that it makes one after the other."""
    process = scripted(*({"call": [one]} for one in calls), {"say": "done"}, tools=ALL, on=on)
    process.run("go").result(30)
    return runs(process)


def answer(**arguments: Any) -> str:
    (outcome, text) = told(call("ast_grep", **arguments))[0]
    assert outcome == "ran", text
    return text


def refusal(*calls: dict[str, Any]) -> str:
    (outcome, text) = told(*calls)[-1]
    assert outcome == "failed", text
    return text


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder: a small project, and something beside it that is none of its business."""
    folder = tmp_path / "root"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "a.py").write_text(
        "import os\n\n\ndef area(r):\n    print(r)\n    return 3 * r\n\n\nprint(area(1),\n      area(2))\n"
    )
    (folder / "src" / "b.js").write_text("print(1); console.log(2)\n")
    (folder / "notes.txt").write_text("print(0)\n")
    (tmp_path / "outside.py").write_text("print('secret')\n")
    monkeypatch.chdir(folder)
    yield folder


# ---- ast_grep


def test_matches_come_with_path_and_line_counted_and_sorted() -> None:
    assert answer(pattern="print($$$ARGS)").splitlines() == [
        "3 matches in 2 of 2 files",
        "src/a.py:5: print(r)",
        "src/a.py:9: print(area(1),",
        "          area(2))",
        "src/b.js:1: print(1)",
    ]
    assert answer(pattern="console.log($X)", path="src/b.js") == "1 match in 1 of 1 file\nsrc/b.js:1: console.log(2)"
    assert answer(pattern="nothing($X)") == "0 matches in 0 of 2 files"


def test_a_match_of_several_lines_is_shown_whole_and_indented_from_where_it_begins(root: Path) -> None:
    (root / "deep.py").write_bytes(b"class A:\r\n    def f(self):\r\n        if x:\r\n\r\n            y()\r\n        return 1\r\n")
    assert answer(pattern="def f(self): $$$BODY", path="deep.py").splitlines() == [
        "1 match in 1 of 1 file",
        "deep.py:2: def f(self):",
        "        if x:",
        "",
        "            y()",
        "        return 1",
    ]


def test_a_language_says_how_a_file_is_read_and_which_files_of_a_folder_are(root: Path) -> None:
    assert answer(pattern="print($X)", language="py") == "1 match in 1 of 1 file\nsrc/a.py:5: print(r)"
    assert answer(pattern="print($X)", path="notes.txt", language="python") == "1 match in 1 of 1 file\nnotes.txt:1: print(0)"
    (root / "v.h").write_text("int f(int a) { return g(a); }\n")
    assert [answer(pattern="g($A)", path=".", language=name).splitlines()[1:] for name in ("c", "C++")] == [
        ["(in c the pattern is only a part of a statement; the whole one may be found)"],
        ["v.h:1: g(a)"],
    ]
    (root / "v.h").write_text("int f(int a) { g(a); return 1; }\n")
    assert answer(pattern="g($A);", path=".", language="c").splitlines()[1:] == ["v.h:1: g(a);"]
    assert refusal(call("ast_grep", pattern="a", path="notes.txt")) == (
        f"'notes.txt' does not tell its language; language may be one of {', '.join(SUFFIXES)}."
    )
    assert refusal(call("ast_grep", pattern="a", language="qqq")).startswith("there is no language 'qqq' here; there are bash, c,")
    assert refusal(call("ast_grep", pattern="a", language="pyton")) == "there is no language 'pyton' here; did you mean 'python'?"
    assert refusal(call("ast_grep", pattern="a", language="go")) == "there is no go in '.'; its files would end in .go."


def test_every_language_of_the_table_is_one_of_the_library() -> None:
    from ast_grep_py import SgRoot

    assert all(SgRoot("a", name).root() is not None for name in SUFFIXES)
    assert {named(suffix[1:]) for suffixes in SUFFIXES.values() for suffix in suffixes} == set(SUFFIXES)


def test_what_is_hidden_installed_closed_or_outside_is_not_searched(root: Path, tmp_path: Path) -> None:
    for name in (
        ".venv/x.py",
        "venv/x.py",
        "node_modules/x.js",
        "src/__pycache__/x.py",
        ".git/x.py",
        ".hidden.py",
        ".env.yaml",
        "env.yaml",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("print(7)\n")
    (root / "link.py").symlink_to(tmp_path / "outside.py")
    (root / "up").symlink_to(tmp_path)
    (root / "again").symlink_to(root / "src")
    assert answer(pattern="print(7)").splitlines()[1:] == ["env.yaml:1: print(7)"]
    assert "secret" not in answer(pattern="print($X)")
    assert answer(pattern="print(7)", path=".git") == "1 match in 1 of 1 file\n.git/x.py:1: print(7)"
    assert answer(pattern="console.log($X)", path="again").splitlines()[1:] == ["src/b.js:1: console.log(2)"]
    outside = "lies outside of the working folder; only what is in the working folder can be read."
    outside += ' Give a path relative to it, such as "data/a.csv".'
    for path in ("..", "../outside.py", "link.py", "up", str(tmp_path)):
        assert refusal(call("ast_grep", pattern="print($X)", path=path)) == f"{path!r} {outside}"
    closed = "'.env.yaml' holds keys and stays closed; ask the person for what is needed from it."
    assert refusal(call("ast_grep", pattern="a", path=".env.yaml", language="yaml")) == closed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"pattern": " "}, "the pattern is empty; a pattern is code"),
        ({"pattern": "x" * 2_001}, "the pattern has 2,001 characters; up to 2,000 are possible."),
        ({"pattern": "foo(", "path": "src/a.py"}, f"the pattern 'foo(' is no whole piece of code in python; {WORDS}"),
        (
            {"pattern": "a b", "path": "src/a.py"},
            "the pattern 'a b' is no whole piece of code in python (Multiple AST nodes are detected); ",
        ),
        (
            {"pattern": "print($x)", "path": "src/a.py"},
            "the pattern 'print($x)' has a name in small letters, '$x', which stands for nothing; "
            "what stands for a part of the code is written in capitals, as $X.",
        ),
        ({"pattern": "$$$", "path": "src"}, "the pattern '$$$' is no whole piece of code in javascript, python (Standalone multi meta"),
        ({"pattern": "a", "path": "scr"}, "there is no file or folder 'scr'; there is 'src' in '.'."),
        ({"pattern": "a", "path": "x" * 5_000}, "(File name too long)"),
        ({"pattern": "a", "path": "a\0b"}, "'a\\x00b' cannot be a path; a path relative to the working folder is needed."),
        ({"pattern": "a", "language": "rust"}, "there is no rust in '.'; its files would end in .rs."),
    ],
)
def test_what_cannot_be_searched_is_told_with_what_could(arguments: dict[str, Any], said: str) -> None:
    assert said in refusal(call("ast_grep", **arguments))


def test_a_pattern_that_is_code_in_one_language_only_is_searched_in_that_one(root: Path) -> None:
    (root / "c.css").write_text("a { color: red }\n")
    assert answer(pattern="import os").splitlines()[:2] == ["1 match in 1 of 3 files", "src/a.py:1: import os"]


def test_files_that_are_too_large_unreadable_or_no_text_are_said(root: Path) -> None:
    (root / "big.py").write_text("print(1)\n" * 120_000)
    (root / "bytes.py").write_bytes(b"print(1)\0")
    (root / "latin.py").write_bytes(b"# caf\xe9\nprint(8)\n")
    (root / "wide.py").write_text("print(8)\n", encoding="utf-16")
    assert answer(pattern="print(8)").splitlines() == [
        "2 matches in 2 of 4 files",
        "latin.py:2: print(8)",
        "wide.py:1: print(8)",
        "(big.py is not searched: it has 1,080,000 bytes)",
        "(files of up to 1,000,000 bytes are searched)",
        "(bytes.py is not searched: is no text)",
    ]


def test_a_file_that_ends_or_holds_up_its_parser_costs_that_file_only(root: Path) -> None:
    (root / "ends.yaml").write_text("- " * 400_000)
    files = [(root / "ends.yaml", "yaml"), (root / "src" / "a.py", "python")]
    found = Matcher("print(r)").search(files)
    assert (found.faults, found.shown) == ({0: "the parser of yaml fails on it, or takes too long"}, {1: ["5: print(r)"]})
    (root / "slow.html").write_text("<a>" * 300_000)
    began = time.monotonic()
    found = Matcher("print(r)", file_s=0.3).search([(root / "slow.html", "html"), *files[1:]])
    assert (list(found.faults), list(found.shown), found.end) == ([0], [1], "")
    assert time.monotonic() - began < 10


def test_a_search_ends_with_its_time_and_when_too_many_files_make_it_fail(root: Path) -> None:
    python = (root / "src" / "a.py", "python")
    assert Matcher("print(r)", search_s=-1).search([python] * 3).end == "this took more than -1 s"
    (root / "ends.yaml").write_text("- " * 400_000)
    found = Matcher("print(r)").search([(root / "ends.yaml", "yaml")] * 7)
    assert (found.end, found.done) == ("its parser failed on 5 files", 5)


def test_more_is_not_shown_than_anybody_could_read(root: Path) -> None:
    (root / "deep.py").write_text("(" * 20_000 + "1" + ")" * 20_000)
    text = Matcher("$X").search([(root / "deep.py", "python"), (root / "src" / "a.py", "python")])
    assert (text.end, text.done) == (f"these are more than {matcher.MOST_CHARS:,} characters", 1)
    assert sum(map(len, text.shown[0])) < matcher.MOST_CHARS + 10 * len(text.shown[0])


def test_of_too_many_files_the_first_are_searched_and_the_rest_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_FILES", 1)
    assert search.chosen_files(Folder(root), ".", "").notes == ["(1 files are not searched: up to 1 are; name a folder further down)"]
    (root / "c.py").write_text("c\n")
    monkeypatch.setattr(search, "MOST_ENTRIES", 4)
    assert search.chosen_files(Folder(root), ".", "").notes == [
        "(not all is searched: there are more than 4 files and folders; name a folder further down)"
    ]


def test_an_interrupt_ends_a_search_at_once(root: Path) -> None:
    (root / "slow.html").write_text("<a>" * 300_000)
    process = scripted({"call": [call("ast_grep", pattern="<b>$X</b>", path="slow.html")]}, {"say": "done"}, tools=ALL)
    running = process.run("go")
    time.sleep(0.5)
    began = time.monotonic()
    running.cancel()
    assert running.result(10).stop_reason == "interrupted"
    assert time.monotonic() - began < 4
    assert runs(process)[0][0] == "interrupted"


def test_a_search_keeps_nobody_waiting(root: Path) -> None:
    (root / "slow.html").write_text("<a>" * 25_000)
    longest, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            began = time.monotonic()
            time.sleep(0.01)
            longest[0] = max(longest[0], time.monotonic() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer(pattern="<b>$X</b>", path="slow.html")
    stop.set()
    watcher.join()
    assert longest[0] < 0.5


def test_a_long_result_becomes_an_fd(root: Path) -> None:
    (root / "many.py").write_text("print(1)\n" * 5_000)
    process = scripted({"call": [call("ast_grep", pattern="print(1)")]}, {"say": "done"}, tools=ALL)
    process.run("go").result(30)
    (fd,) = process.fds
    assert (fd.text.slice(0, 29), fd.text.lines) == ("5,001 matches in 2 of 3 files", 5_002)


def test_a_program_that_names_it_without_its_package_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ast_grep_py", None)
    program = Program(name="p", provider="scripted", model="script", script=({"say": "x"},), tools=ALL)
    with pytest.raises(ProgramError) as caught:
        machine().start(program)
    assert str(caught.value) == (
        "p: [tools] builtin: the tool ast_grep needs the package ast-grep-py, which is not installed; "
        "the extra llmproc-nb[code] brings it. "
        'Run pip install "llmproc-nb[code]" and start the program again.'
    )
    assert machine().start(program.replace(tools=("copy", "paste"))).notes == ()


# ---- copy and paste

COPY = call("copy", file_path="src/a.py", start="def area", end="3 * r\n")


def test_what_is_copied_is_pasted_into_a_new_file(root: Path) -> None:
    assert told(COPY, call("paste", file_path="new/area.py")) == [
        ("ran", "copied 43 characters (3 lines), from lines 4 to 6 of 'src/a.py'\nfirst line: def area(r):\nlast line:     return 3 * r"),
        ("ran", "pasted 43 characters (3 lines) into 'new/area.py', now lines 1 to 3 of it\n1: def area(r):\n4: "),
    ]
    assert (root / "new" / "area.py").read_text() == "def area(r):\n    print(r)\n    return 3 * r\n"
    assert (root / "src" / "a.py").read_text().count("def area") == 1


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ({"before": "one\n"}, "one\nX\ntwo\n\nthree\ntwo\n"),
        ({"after": "three"}, "one\ntwo\n\nX\nthree\ntwo\n"),
        ({"before": "two\n", "after": "three"}, "one\ntwo\nX\n\nthree\ntwo\n"),
        ({"before": "three\n", "after": "two"}, "one\ntwo\n\nthree\nX\ntwo\n"),
        ({"after": "one"}, "X\none\ntwo\n\nthree\ntwo\n"),
        ({"before": "three\ntwo\n"}, "one\ntwo\n\nthree\ntwo\nX\n"),
    ],
)
def test_it_goes_after_before_or_between_and_nothing_is_replaced(root: Path, places: dict[str, str], text: str) -> None:
    (root / "x.txt").write_text("X\n")
    (root / "to.txt").write_text("one\ntwo\n\nthree\ntwo\n")
    assert told(call("copy", file_path="x.txt", start="X\n", end="X\n"), call("paste", file_path="to.txt", **places))[1][0] == "ran"
    assert (root / "to.txt").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"start": "area(", "end": "r"}, "`start` stands at 3 places of 'src/a.py' (lines 4, 9, 10); it must stand at one; take more"),
        ({"start": "def  area", "end": "r"}, "`start` stands at 0 places of 'src/a.py'; blanks and line breaks count; read_file shows"),
        (
            {"start": "    import os", "end": "r"},
            "`start` stands at 0 places of 'src/a.py'; what its first line says is there (line 1), what",
        ),
        ({"start": "def area", "end": "return 4"}, "`end` stands at 0 places of 'src/a.py'; blanks and line breaks count"),
        (
            {"start": "return", "end": "import"},
            "after `start`, `end` stands at 0 places of 'src/a.py'; before, on line 1; `start` ends on line 6",
        ),
        ({"start": "", "end": "r"}, "`start` is empty; an exact text of the file is needed."),
        ({"start": "return", "end": ""}, "`end` is empty; an exact text of the file is needed."),
        ({"file_path": "src/c.py", "start": "a", "end": "r"}, "there is no file 'src/c.py'; there is"),
        ({"file_path": "src", "start": "a", "end": "r"}, "'src' is a folder; the path of a file is needed."),
        ({"file_path": "../outside.py", "start": "a", "end": "r"}, "'../outside.py' lies outside of the working folder; only what is"),
        ({"file_path": ".env", "start": "KEY", "end": "1"}, "'.env' holds keys and stays closed; ask the person for what is needed"),
        ({"file_path": "latin.txt", "start": "a", "end": "c"}, "'latin.txt' is no UTF-8 text (byte 3); text files are needed."),
        ({"file_path": "data.bin", "start": "a", "end": "c"}, "'data.bin' is no text; text files are needed."),
    ],
)
def test_what_cannot_be_copied_is_told_with_how_often_and_where_it_stands(root: Path, arguments: dict[str, str], said: str) -> None:
    (root / ".env").write_text("KEY=1")
    (root / "latin.txt").write_bytes(b"caf\xe9")
    (root / "data.bin").write_bytes(b"a\0bc")
    assert refusal(call("copy", **{"file_path": "src/a.py", **arguments})).startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "the file 'to.txt' exists; before or after says where in it the text goes; without them a new file is made."),
        ({"before": "two"}, "`before` stands at 2 places of 'to.txt' (lines 2, 4); it must stand at one; take more of the text around it."),
        ({"after": "four"}, "`after` stands at 0 places of 'to.txt'; blanks and line breaks count"),
        (
            {"before": "one", "after": "three"},
            "nowhere in 'to.txt' `after` follows on `before` (`before` on line 1, `after` on line 3); only",
        ),
        ({"before": "e", "after": "\n"}, "`before` followed by `after` stands at 2 places of 'to.txt' (lines 1, 3); it must stand at one"),
        ({"file_path": "no.txt", "before": "a"}, "there is no file 'no.txt'; there is 'to.txt' in '.'."),
        ({"file_path": "../no.txt"}, "'../no.txt' lies outside of the working folder; only what is in the working folder can be written."),
        ({"file_path": "link.txt", "before": "s"}, "'link.txt' lies outside of the working folder; only what"),
        ({"file_path": ".env"}, "'.env' is where keys are and is not written; give another path."),
        ({"file_path": ".env.example"}, "'.env.example' is where keys are and is not written; give another path."),
        ({"file_path": "src"}, "'src' is a folder; the path of a file is needed."),
        ({"file_path": "to.txt/x.txt"}, "'to.txt/x.txt' "),
        ({"file_path": "x" * 5_000}, "'xxx"),
    ],
)
def test_what_cannot_be_pasted_is_told_and_nothing_is_written(root: Path, tmp_path: Path, arguments: dict[str, str], said: str) -> None:
    (root / "to.txt").write_text("one\ntwo\nthree\ntwo\n")
    (root / "link.txt").symlink_to(tmp_path / "outside.py")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert refusal(COPY, call("paste", **{"file_path": "to.txt", **arguments})).startswith(said)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_line_ends_encoding_and_rights_stay_as_they_are(root: Path) -> None:
    (root / "crlf.txt").write_bytes("\ufeffone\r\ntwö\r\nthree\r\n".encode())
    (root / "wide.txt").write_bytes("\ufeffone\ntwo\n".encode("utf-16-be"))
    (root / "both.txt").write_bytes(b"one\r\ntwo\nthree")
    (root / "wide.txt").chmod(0o640)
    calls = [
        call("copy", file_path="crlf.txt", start="one\ntwö", end="\n"),
        call("paste", file_path="wide.txt", after="two"),
        call("paste", file_path="both.txt", after="three"),
        call("paste", file_path="new.txt"),
        call("copy", file_path="wide.txt", start="two\n", end="two\n"),
        call("paste", file_path="crlf.txt", before="one\n"),
    ]
    assert [outcome for outcome, _ in told(*calls)] == ["ran"] * 6
    assert (root / "wide.txt").read_bytes() == "\ufeffone\none\ntwö\ntwo\n".encode("utf-16-be")
    assert (root / "both.txt").read_bytes() == b"one\r\ntwo\none\r\ntw\xc3\xb6\r\nthree"
    assert (root / "new.txt").read_bytes() == b"one\r\ntw\xc3\xb6\r\n"
    assert (root / "crlf.txt").read_bytes() == "\ufeffone\r\ntwo\r\ntwö\r\nthree\r\n".encode()
    assert (root / "wide.txt").stat().st_mode & 0o777 == 0o640


def test_an_empty_clipboard_is_told_and_each_process_has_its_own() -> None:
    empty = "nothing was copied yet in this run of the kernel; copy puts a part of a file on the clipboard."
    on = machine()
    assert told(COPY, on=on)[0][0] == "ran"
    assert told(call("paste", file_path="new.py"), on=on) == [("failed", empty)]


def test_a_fork_begins_with_what_its_parent_copied_and_goes_its_own_way(root: Path) -> None:
    process = scripted({"call": [COPY]}, {"say": "copied"}, {"say": "done"}, tools=ALL)
    process.run("copy").result(30)
    child = process.fork()
    process.clipboard = "other"
    assert child.clipboard == "def area(r):\n    print(r)\n    return 3 * r\n"
    assert process.spawn(process.program).clipboard == ""


def test_what_one_reply_copies_and_pastes_is_done_in_order(root: Path) -> None:
    (root / "to.txt").write_text("end")
    calls = [COPY, *[call("paste", file_path="to.txt", after="end") for _ in range(5)]]
    calls += [call("copy", file_path="src/a.py", start="import os", end="\n"), call("paste", file_path="os.py")]
    process = scripted({"call": calls}, {"say": "done"}, tools=ALL)
    process.run("go").result(30)
    assert [outcome for outcome, _ in runs(process)] == ["ran"] * 8
    assert (root / "to.txt").read_text() == "def area(r):\n    print(r)\n    return 3 * r\n" * 5 + "end"
    assert (root / "os.py").read_text() == "import os\n"


def test_processes_that_paste_into_one_file_lose_nothing(root: Path) -> None:
    (root / "to.txt").write_text("end")
    on = machine()
    turns = [{"call": [COPY]}, *[{"call": [call("paste", file_path="to.txt", after="end")]}] * 8, {"say": "done"}]
    started = [scripted(*turns, tools=ALL, name=f"p{number}", on=on).run("go") for number in range(6)]
    for running in started:
        running.result(60)
    assert (root / "to.txt").read_text().count("def area") == 48


def test_without_write_access_they_are_not_there() -> None:
    parent = scripted({"say": "x"}, tools=ALL)
    assert {tool.name for tool in parent.spawn(parent.program, access="read").tools} == {"ast_grep", "read_fd"}


def test_a_replay_takes_the_answers_from_the_log_and_writes_nothing(root: Path) -> None:
    turns = [{"call": [COPY]}, {"call": [call("paste", file_path="new.py")]}, {"call": [call("ast_grep", pattern="os")]}, {"say": "done"}]
    process = scripted(*turns, tools=ALL)
    process.run("go").result(30)
    (root / "new.py").unlink()
    (root / "src" / "a.py").unlink()
    again = scripted(*turns, tools=ALL, on=machine(recorded=Recording(process.machine.log.events)))
    again.run("go").result(30)
    assert (runs(again), again.head.id) == (runs(process), process.head.id)
    assert not (root / "new.py").exists()
