"""Long texts: exact for any bytes, whatever happens to the file; found like a line-by-line search would, in bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import tracemalloc
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from paths import ROOT

from llmproc_nb.core.errors import LogError, ToolError
from llmproc_nb.core.longtext import Found, Line, Match
from llmproc_nb.drivers.text import StoredText, long_text, long_text_from, write_file
from llmproc_nb.drivers.text.make import IN_PLACE_BYTES
from llmproc_nb.drivers.text.search import OVERLAP_BYTES, WINDOW_BYTES
from llmproc_nb.drivers.text.spool import HELD_BYTES

SNIPPETS = [
    b"a",
    b"word ",
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    "é".encode(),
    "日本".encode(),
    "😀".encode(),
    b"\xff",
    b"\x80\x80\x80\x80\x80",
    b"\xf0\x9f",
]
SNIPPETS += [b"\xe2\x82", b"\xed\xa0\x80", b"\xef\xbb\xbf", "e\u0301".encode(), b'{"k": [1, 2]}', "\u2028".encode(), b"\xc0\xaf", b"\n\n\n"]
some_bytes = st.lists(st.sampled_from(SNIPPETS), max_size=40).map(b"".join)


def check(text: StoredText, data: bytes) -> None:
    """All that a text tells, against the plain string."""
    right = data.decode(errors="replace")
    lines = right.split("\n")
    starts = [0]
    for line in lines[:-1]:
        starts.append(starts[-1] + len(line) + 1)
    count = len(lines) - (lines[-1] == "")
    assert (text.chars, text.lines, text.size_bytes) == (len(right), count, len(data))
    assert text.digest == blake2b(right.encode(), digest_size=16).hexdigest()
    assert b"".join(text.original()) == data
    places = sorted(
        {0, 1, 2, len(right) // 3, len(right) // 2, len(right) - 1, len(right), len(right) + 5} | set(starts[:20]) | set(starts[-20:])
    )
    for char in places:
        assert text.slice(char, char + 37) == right[max(0, char) : max(0, char + 37)]
        assert text.line_at(char) == (max(1, min(right.count("\n", 0, max(0, char)) + 1, count)))
    for line in (*range(1, min(count, 20) + 1), *range(max(1, count - 20), count + 1)):
        assert text.line_start(line) == starts[line - 1]
    assert (text.line_start(count + 1), text.line_start(count + 9), text.line_start(0)) == (len(right), len(right), 0)
    assert "".join(text.slice(at, at + 10_007) for at in range(0, len(right), 10_007)) == right


@given(some_bytes)
@settings(max_examples=150)
def test_any_bytes_are_read_as_python_reads_them(data: bytes) -> None:
    check(long_text(data), data)


@given(some_bytes, some_bytes, st.integers(0, 3))
@settings(max_examples=25)
def test_blocks_join_without_a_seam(head: bytes, body: bytes, shift: int) -> None:
    assume(body)
    data = b"x" * shift + head + body * (600_000 // len(body))
    check(long_text(data), data)


def test_all_ways_to_make_a_text_keep_the_same(tmp_path: Path) -> None:
    words = "é😀 line\r\n" * 20_000
    (tmp_path / "a.txt").write_bytes(words.encode())
    folder = tmp_path / "blobs"
    made = [
        long_text(words, folder=folder),
        long_text(words.encode(), folder=folder),
        long_text(tmp_path / "a.txt", folder=folder),
        long_text_from((words[at : at + 777] for at in range(0, len(words), 777)), folder=folder),
    ]
    name = blake2b(words.encode(), digest_size=16).hexdigest()
    assert [(text.blob, text.digest, text.path) for text in made] == [(name, name, folder / name)] * 4
    assert [path.name for path in folder.iterdir()] == [name]
    again = long_text(folder / name, folder=folder)
    assert (again.path, again.digest, again.slice(0, 5)) == (folder / name, name, words[:5])
    for text in made:
        check(text, words.encode())


def test_short_texts_make_no_file(tmp_path: Path) -> None:
    text = long_text("x" * HELD_BYTES, folder=tmp_path / "blobs")
    assert (text.blob, text.path, list(tmp_path.iterdir())) == (None, None, [])
    assert long_text("x" * (HELD_BYTES + 1), folder=tmp_path / "blobs").blob is not None


def test_lone_surrogates_are_replaced_and_pairs_joined_across_pieces() -> None:
    pieces = ["a\ud83d", "\ude00b", "\udc00", "c\ud800", "", "d\ud83d"]
    text = long_text_from(pieces)
    assert text.slice(0, 99) == "a😀b\ufffdc\ufffdd\ufffd"


def test_a_text_from_pieces_takes_constant_memory() -> None:
    piece = "row 1, row 2\n" * 1000
    tracemalloc.start()
    text = long_text_from(piece for _ in range(3000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (text.chars, text.lines) == (39_000_000, 3_000_000)
    assert peak < 6_000_000


def test_thousands_of_texts_hold_no_handles(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    kept = [long_text(f"{number}\n" * 30_000, folder=tmp_path) for number in range(50)]
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    assert [text.slice(0, 2) for text in kept[:3]] == ["0\n", "1\n", "2\n"]
    assert after <= before + 1


def test_the_private_folder_goes_with_its_kernel_or_with_the_next(tmp_path: Path) -> None:
    source = "from llmproc_nb.drivers.text import long_text; text = long_text('x' * 100_000); import os, sys;"
    environ = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def start(then: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", source + then]
        return subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    killed = start("print(text.path.parent.name, flush=True); os.kill(os.getpid(), 9)")
    left = killed.communicate()[0].strip()
    assert [path.name for path in tmp_path.iterdir()] == [left]
    living = start("print(text.path.parent.name, flush=True); sys.stdin.read(); print(text.slice(0, 3))")
    assert living.stdout is not None
    name = living.stdout.readline().strip()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    start("").communicate()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert living.communicate("")[0].strip() == "xxx"
    assert list(tmp_path.iterdir()) == []


def test_threads_read_one_text_together() -> None:
    data = "".join(f"{number:07}\n" for number in range(100_000))
    text = long_text(data)
    wrong: list[int] = []

    def read(seed: int) -> None:
        for step in range(200):
            at = (seed * 7919 + step * 104_729) % (len(data) - 64)
            if text.slice(at, at + 64) != data[at : at + 64]:
                wrong.append(at)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- files that change


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file too large to be copied; most of it is a hole."""
    path = tmp_path / "large.log"
    with open(path, "wb") as file:
        file.write(b"first\n")
        file.truncate(IN_PLACE_BYTES + 10)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast")
    return path


def test_a_large_file_is_read_where_it_lies(large: Path, tmp_path: Path) -> None:
    text = long_text(large, folder=tmp_path / "blobs")
    assert (text.path, text.blob, text.lines, text.chars) == (large, None, 3, IN_PLACE_BYTES + 15)
    assert (text.slice(0, 6), text.slice(text.chars - 4, text.chars), text.line_start(3)) == ("first\n", "last", text.chars - 4)
    assert not (tmp_path / "blobs").exists()


def test_a_large_file_that_is_replaced_or_deleted_stays_readable(large: Path, tmp_path: Path) -> None:
    text = long_text(large)
    (tmp_path / "new").write_text("other")
    (tmp_path / "new").replace(large)
    assert text.slice(0, 6) == "first\n"
    large.unlink()
    assert text.slice(text.chars - 4, text.chars) == "last"


@pytest.mark.parametrize("how", ["cut", "longer", "same size"])
def test_a_large_file_that_is_written_to_gives_an_error_and_no_garbage(large: Path, how: str) -> None:
    text = long_text(large)
    size = large.stat().st_size
    with open(large, "r+b") as file:
        if how == "cut":
            file.truncate(3)
        elif how == "longer":
            file.seek(0, os.SEEK_END)
            file.write(b"more")
        else:
            file.write(b"F")
    if how == "same size":
        os.utime(large, ns=(0, large.stat().st_mtime_ns + 1))
    told = {"cut": f" (it had {size:,} bytes and has 3)", "longer": f" (it had {size:,} bytes and has {size + 4:,})", "same size": ""}[how]
    for read in (lambda: text.slice(0, 5), lambda: text.line_at(5), lambda: text.search("x"), lambda: text.digest):
        with pytest.raises(ToolError) as caught:
            read()
        assert caught.value.for_model() == (
            f"the file 'large.log' was written to after it was opened as a text{told}; "
            "the text can no longer be read from it. Open the file again."
        )


def test_a_change_that_hides_its_time_shows_in_what_is_read(large: Path) -> None:
    text = long_text(large)
    status = large.stat()
    with open(large, "r+b") as file:
        file.write("é".encode())
    os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ToolError, match="neither in its size nor in its time"):
        text.slice(0, 5)


def test_a_small_file_may_change_once_it_is_open(tmp_path: Path) -> None:
    for size in (100, 100_000):
        (tmp_path / "a").write_text("x" * size)
        text = long_text(tmp_path / "a")
        (tmp_path / "a").write_text("y")
        assert text.slice(0, size) == "x" * size


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    told = {}
    for name in ("pipe", "folder", "nothing", "a\0b"):
        with pytest.raises(ToolError) as caught:
            long_text(tmp_path / name)
        told[name] = caught.value.for_model()
    assert told == {
        "pipe": "'pipe' is no ordinary file; a file with text is needed.",
        "folder": "'folder' is no ordinary file; a file with text is needed.",
        "nothing": "the file 'nothing' cannot be read (No such file or directory).",
        "a\0b": "the file 'a\\x00b' cannot be read (no path can have a NUL in it).",
    }


def test_a_text_that_cannot_be_kept_is_a_fault_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("in the way")
    with pytest.raises(LogError, match="a long text cannot be kept: File exists"):
        long_text("x" * 100_000, folder=tmp_path / "blobs")


def test_a_kept_file_that_is_gone_or_cut_is_told(tmp_path: Path) -> None:
    text = long_text("x" * 100_000, folder=tmp_path)
    assert text.path is not None
    os.truncate(text.path, 10)
    with pytest.raises(ToolError, match="the kept text was cut short"):
        text.slice(0, 5)
    text.path.unlink()
    with pytest.raises(ToolError, match="the kept text is gone"):
        text.slice(0, 5)


# ---- search


def naive(text: str, pattern: Any) -> list[tuple[int, int]]:
    """What a search should find: line by line, a match of nothing only where a line has no other, and as its last."""
    found, begin = [], 0
    lines = text.split("\n")
    for line in lines[: len(lines) - (lines[-1] == "")]:
        for match in pattern.finditer(line.removesuffix("\r")):
            if match.end() > match.start():
                found.append((begin + match.start(), begin + match.end()))
                continue
            if not found or found[-1][0] < begin:
                found.append((begin + match.start(), begin + match.end()))
            break
        begin += len(line) + 1
    return found


def spans(found: Found) -> list[tuple[int, int]]:
    return [(match.start, match.stop) for match in found.matches]


ATOMS = [
    "a",
    "b",
    "K",
    "é",
    "İ",
    "ß",
    "1",
    "ſ",
    ".",
    "^",
    "$",
    "{",
    "}",
    r"\w",
    r"\d",
    r"\s",
    r"\W",
    r"\D",
    r"\S",
    r"\b",
    r"\B",
    r"\A",
    r"\Z",
]
ATOMS += [
    "[ab]",
    "[^ab]",
    r"[\w-]",
    r"[^\W\d_]",
    "[]a]",
    r"[^\S]",
    "[é-ü]",
    "[i-k]",
    "[^k]",
    "[[:alpha:]]",
    "(a|b)",
    "(?:ab)",
    "(?P<n>a)",
    "(?i:k)",
]
ATOMS += ["(?=b)", "(?!a)", "(?<=a)", "(?<!b)", r"(a)\1", "(?>a+)", r"\.", r"\x61", r"\u0130", r"\p{L}", r"\t", r"\n", r"\r", "\n"]
patterns = st.lists(
    st.tuples(st.sampled_from(ATOMS), st.sampled_from(["", "", "", "*", "+", "?", "*?", "++", "{2}", "{1,2}", "{,2}", "|"])).map("".join),
    min_size=1,
    max_size=4,
).map("".join)
haystacks = st.lists(
    st.sampled_from([*"abkK1 _.{}-\t\0\r\n", "\n", "\r\n", "é", "É", "İ", "ı", "K", "ß", "s", "ſ", "٣", "\x0b", "\x1c", "𝔘"]), max_size=40
).map("".join)


@given(patterns, haystacks | st.text("abk1 \n", max_size=40), st.booleans())
@settings(max_examples=600)
def test_a_search_finds_what_a_plain_one_finds(pattern: str, text: str, ignore_case: bool) -> None:
    try:
        compiled = regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except regex.error:
        assume(False)
    assert spans(long_text(text).search(pattern, limit=1000, ignore_case=ignore_case)) == naive(text, compiled)


@given(patterns, st.text("abk1é \n", max_size=40), st.integers(1, 3))
@settings(max_examples=150)
def test_a_search_in_parts_finds_the_same(pattern: str, text: str, limit: int) -> None:
    try:
        regex.compile(pattern)
    except regex.error:
        assume(False)
    kept = long_text(text)
    parts, at, steps = [], 0, 0
    while at is not None and steps < 99:
        found = kept.search(pattern, limit=limit, start_char=at)
        assert len(found.matches) <= limit
        parts, at, steps = parts + spans(found), found.next_char, steps + 1
    assert parts == spans(kept.search(pattern, limit=1000))


@pytest.mark.parametrize("filler", ["plain ascii line\n", "Zeile mit é und 日本\r\n"])
@pytest.mark.parametrize(
    "pattern", [r"needle\d+", r"(?i)NEEDLE\d", r"\bneedle\d+\b", r"(?<=x )needle\d+", r"(n)eedle(?:\d)(?!\1)", "^x needle", r"\d$"]
)
def test_a_search_goes_across_blocks(filler: str, pattern: str) -> None:
    text = "".join(filler * 9001 + f"x needle{number}\n" for number in range(6))
    found = long_text(text).search(pattern)
    assert spans(found) == naive(text, regex.compile(pattern))
    assert [match.line for match in found.matches] == [9002 * number for number in range(1, 7)]


@pytest.mark.parametrize("filler", ['{"k": 0},', '{"é": 0},'])
def test_in_a_line_without_end_matches_are_found_wherever_they_lie(filler: str) -> None:
    places = [0, WINDOW_BYTES - OVERLAP_BYTES - 3, WINDOW_BYTES - 3, 2 * (WINDOW_BYTES - OVERLAP_BYTES) - 1030, 3_000_000]
    text = filler * (3_200_000 // len(filler))
    for place in places:
        text = text[:place] + "needle" + text[place + 6 :]
    text += "\nneedle\n"
    kept = long_text(text)
    assert spans(kept.search("needle")) == spans(kept.search("(?=n)ne+dle")) == [(at, at + 6) for at in (*places, len(text) - 7)]
    assert spans(kept.search("^needle")) == [(0, 6), (len(text) - 7, len(text) - 1)]
    assert spans(kept.search("needle", start_char=2_900_000)) == [(3_000_000, 3_000_006), (len(text) - 7, len(text) - 1)]
    assert spans(kept.search("x*")) == [(0, 0), (len(text) - 7, len(text) - 7)]


def test_a_match_shows_the_lines_around_it() -> None:
    text = long_text("one\ntwo\r\nthree\n" + "y" * 1000 + "x" + "y" * 1000 + "\nfive")
    assert text.search("two", context_lines=1) == Found(
        matches=(
            Match(
                start=4,
                stop=7,
                line=2,
                shown=(Line(number=1, start=0, text="one"), Line(number=2, start=4, text="two"), Line(number=3, start=9, text="three")),
            ),
        )
    )
    assert text.search("x", context_lines=9).matches[0].shown[3:] == (
        Line(number=4, start=895, text="y" * 120 + "x" + "y" * 279, whole=False),
        Line(number=5, start=2017, text="five"),
    )
    huge = long_text("a\n" + "y" * 99_000 + "x" + "y" * 99_000 + "\r\nb\n")
    assert huge.search("x", context_lines=1).matches[0].shown == (
        Line(number=1, start=0, text="a"),
        Line(number=2, start=98_882, text="y" * 120 + "x" + "y" * 279, whole=False),
        Line(number=3, start=198_005, text="b"),
    )


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|aa)+$",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
        r"(?=(a+)+$)b|(a+)+$",
        r"(a*)*\1$",
        "(.*)(.*)(.*)(.*)x(?!y)",
        "(a?){50}a{50}(?=b)",
    ],
)
def test_a_catastrophic_pattern_is_stopped_and_other_threads_go_on(pattern: str) -> None:
    text = long_text(("a" * 5000 + "!\n") * 3)
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.005):
            ticks.append(time.monotonic())

    other = threading.Thread(target=tick)
    other.start()
    began = time.process_time()
    found = text.search(pattern, timeout_s=0.3)
    took_s = time.process_time() - began
    done.set()
    other.join()
    assert took_s < 2
    if found.timed_out:
        assert found.next_char is not None and found.next_char < text.chars
        assert len(ticks) > 10


def test_what_was_found_before_the_time_was_up_is_kept() -> None:
    text = long_text("aX\n" + "a" * 5000 + "!\nlater aX\n")
    found = text.search("(a|aa)+(?=$)|aX", timeout_s=0.2)
    assert (spans(found), found.next_char, found.timed_out) == ([(0, 2)], 3, True)


# ---- writing


def test_the_original_bytes_are_written(tmp_path: Path) -> None:
    data = b"\xff\xfe\r\n\0" * 60_000
    text = long_text(data)
    assert write_file(text, tmp_path / "deep" / "er" / "a.bin") == len(data)
    assert (tmp_path / "deep/er/a.bin").read_bytes() == data
    write_file(text, tmp_path / "deep/er/a.bin", mode="append")
    assert (tmp_path / "deep/er/a.bin").read_bytes() == data * 2
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["a.bin"]


def test_a_file_keeps_its_rights_and_a_link_its_place(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("old")
    (tmp_path / "run.sh").chmod(0o750)
    (tmp_path / "link").symlink_to("run.sh")
    write_file(long_text("new"), tmp_path / "link")
    assert ((tmp_path / "run.sh").read_text(), (tmp_path / "run.sh").stat().st_mode & 0o777) == ("new", 0o750)
    assert (tmp_path / "link").is_symlink()


def test_a_text_can_be_written_over_its_own_file_but_not_added_to_it(large: Path) -> None:
    text = long_text(large)
    with pytest.raises(ToolError, match=r"the text is read from .* itself; it can be added to any other file\."):
        write_file(text, large, mode="append")
    assert write_file(text, large) == text.size_bytes == large.stat().st_size
    assert text.slice(0, 5) == "first"


def test_what_may_not_be_written_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "there").write_text("x")
    (root / "up").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    outside = "lies outside of the working folder; only what is in the working folder can be written."
    outside += ' Give a path relative to it, such as "out/report.txt".'
    for path, options, told in [
        ("../a", {}, f"'../a' {outside}"),
        ("up/a", {}, f"'up/a' {outside}"),
        ("/a", {}, f"'/a' {outside}"),
        ("folder", {}, "'folder' is a folder; the path of a file is needed."),
        ("pipe", {}, "'pipe' is no ordinary file; only those can be written."),
        ("there", {"exist_ok": False}, "the file 'there' exists; exist_ok=false asks for a new one. Give another path."),
        ("new", {"create": False}, "there is no file 'new'; create=false asks for one that exists. Give create=true to make it."),
        ("there/a", {}, "'there/a' lies below a file; it can only lie in a folder."),
        ("x" * 300, {}, f"{'x' * 200!r} cannot be written (File name too long); a path to a file that may be written is needed."),
    ]:
        with pytest.raises(ToolError) as caught:
            write_file(long_text("x"), path, root=root, **options)  # type: ignore[arg-type]
        assert caught.value.for_model() == told
    assert sorted(path.name for path in root.iterdir()) == ["folder", "pipe", "there", "up"]
