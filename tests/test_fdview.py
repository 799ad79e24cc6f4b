"""Fds to look at: the static twin, what stands on a page, and what travels when one is turned."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from kernels import Kernel, kernel
from markup import Markup
from test_hostile_views import ALL

from llmproc_nb.core.errors import PersonError, ToolError
from llmproc_nb.core.fd import Fd
from llmproc_nb.core.fdtable import FdTable
from llmproc_nb.core.message import clean
from llmproc_nb.core.visible import visible
from llmproc_nb.drivers.text import long_text
from llmproc_nb.notebook.fdpage import ShownPage, bar, shown_page, summary_of, ticks
from llmproc_nb.notebook.fdview import FdView, fd_bundle, fd_table
from llmproc_nb.notebook.fdwidget import save_text

POEM = "one\r\ntwo <b>bold</b>\nthree\u2028still three\n\x1b[31mfour\x1b[0m \u202eevil\n"


def table(*texts: str, page_chars: int = 4000) -> FdTable:
    made = FdTable(lambda pieces: long_text("".join(pieces)), page_chars=page_chars)
    for number, text in enumerate(texts, start=1):
        made.open(text, f"source {number}")
    return made


def one(text: str, page_chars: int = 4000) -> Fd:
    return table(text, page_chars=page_chars).get(1)


def test_a_page_shows_what_is_hostile_and_keeps_every_line_one_line() -> None:
    assert shown_page(one(POEM), 1) == snapshot(
        ShownPage(
            number=1,
            pages=1,
            first_line=1,
            text="one\ntwo <b>bold</b>\nthree⟨U+2028⟩still three\nfour ⟨U+202E⟩evil",
            continued=False,
            truncated=False,
            found=(),
            read=(),
        )
    )


def test_pages_that_cut_a_line_say_so_and_count_on() -> None:
    fd = one("aaaa\nbbbb\ncccc", page_chars=7)
    assert [shown_page(fd, 1), shown_page(fd, 2)] == snapshot(
        [
            ShownPage(number=1, pages=2, first_line=1, text="aaaa\nbb", continued=False, truncated=True, found=(), read=()),
            ShownPage(number=2, pages=2, first_line=2, text="bb\ncccc", continued=True, truncated=False, found=(), read=()),
        ]
    )


def test_a_line_end_that_a_page_cuts_in_two_is_shown_once() -> None:
    fd = one("aaaaa\r\nb\r\n", page_chars=6)
    assert [(page.text, page.first_line) for page in (shown_page(fd, 1), shown_page(fd, 2))] == [("aaaaa", 1), ("\nb", 1)]


def test_matches_are_marked_where_they_are_seen() -> None:
    fd = one("fox \x1b[1mfox\x1b[0m\nFOX\x00fox\n", page_chars=12)
    found = [(match.start, match.stop) for match in fd.text.search("fox").matches]
    pages = [shown_page(fd, number, (), found) for number in (1, 2)]
    assert [[(page.text[start:stop], match) for start, stop, match in page.found] for page in pages] == [
        [("fox", 0), ("fox", 1)],
        [("fox", 2)],
    ]


@given(st.text(alphabet="ab\n\r\u0301é\x00🙂", max_size=200), st.integers(1, 40), st.lists(st.integers(0, 200), max_size=12))
def test_marks_never_change_what_a_page_says(text: str, page_chars: int, cuts: list[int]) -> None:
    fd = one(text, page_chars=page_chars)
    cuts = sorted(cut for cut in cuts if cut <= len(text))
    found = list(zip(cuts[::2], cuts[1::2], strict=False))
    for number in range(1, fd.pages + 1):
        page = shown_page(fd, number, found, found)
        assert all(0 <= start <= stop <= len(page.text) for start, stop, _ in page.found)
        assert all(0 <= start < stop <= page.text.count("\n") + 1 for start, stop in page.read)
        assert page.text.count("\n") == shown_page(fd, number).text.count("\n")


def test_a_range_without_characters_marks_no_row() -> None:
    assert shown_page(one("aaaaa\na", page_chars=4), 2, [(6, 6)]).read == ()


def test_what_the_model_has_read_is_marked_by_row() -> None:
    fd = one("".join(f"line {number}\n" for number in range(10)))
    assert shown_page(fd, 1, reads=((0, 3), (16, 30), (50, 52), (70, 70))).read == ((0, 1), (2, 5), (7, 8))


def test_the_bar_of_a_text_has_few_ranges_however_much_was_read() -> None:
    assert bar([(0, 10), (500, 1000)], 1000) == ((0, 10), (500, 1000))
    assert bar([(3, 4)], 10_000_000) == ((0, 1),)
    many = bar([(start, start + 1) for start in range(0, 1_000_000, 2000)], 1_000_000)
    assert len(many) <= 200
    assert bar([], 0) == ()


def test_ticks_say_where_matches_are_however_many_there_are() -> None:
    assert ticks([(0, 1), (500, 501), (501, 502), (999, 1000)], 1000) == (0, 500, 995)
    assert len(ticks([(start, start + 1) for start in range(10_000)], 10_000)) == 200
    assert ticks([(0, 0)], 0) == ()


def test_the_twin_says_what_it_is_where_the_model_has_read_and_shows_a_page() -> None:
    fds = table("alpha\nbeta <script>alert(1)</script>\n" + "gamma\n" * 20, page_chars=60)
    fds.mark_read(1, 0, 8)
    made = fd_bundle(fds.get(1), fds)
    assert made["text/plain"] == snapshot("""\
fd:1 source 1: 157 characters · 22 lines · 3 pages; the model has read 5 %
alpha
beta <script>alert(1)</script>
gamma
…\
""")
    assert Markup(made["text/html"]).outline == snapshot(
        [
            "div class=llmproc-twin",
            "div",
            "div",
            "strong",
            "'fd:1'",
            "' source 1 '",
            "span",
            "'157 characters · 22 lines · 3 pages · '",
            "span",
            "'the model has read 5 %'",
            "svg width=100% height=4 viewbox=0 0 1000 4 preserveaspectratio=none",
            "rect width=1000 height=4 fill=#888 fill-opacity=.25",
            "rect x=0 width=51 height=4 fill=#1976d2",
            "pre",
            "span",
            "'▎'",
            "span",
            "'1'",
            "'  alpha\\n'",
            "span",
            "'▎'",
            "span",
            "'2'",
            "'  beta <script>alert(1)</script>\\n '",
            "span",
            "'3'",
            "'  gamma\\n '",
            "span",
            "'4'",
            "'  gamma\\n '",
            "span",
            "'5'",
            "'  gamma\\n '",
            "span",
            "'6'",
            "'  gamma'",
            "div",
            "'page 1 of 3, lines 1 to 6'",
        ]
    )


def test_the_twin_is_the_same_each_time_and_nothing_in_it_runs_loads_or_hides() -> None:
    for hostile in (POEM, *ALL):
        fds = FdTable(lambda pieces: long_text("".join(pieces)), page_chars=2000)
        fd = fds.open(clean(hostile), clean(hostile))
        fds.mark_read(1, 0, 3)
        found = fd_bundle(fd, fds)
        assert found == fd_bundle(fd, fds)
        markup = Markup(found["text/html"])
        assert markup.faults == []
        assert visible(markup.text) == markup.text, hostile


def test_the_text_of_a_twin_is_short_however_long_the_text_is() -> None:
    plain = fd_bundle(one("x" * 1_000_000))["text/plain"]
    assert len(plain) < 300


def test_every_page_of_a_frame_shows_the_names_of_its_columns() -> None:
    fds = table()
    text = "name,<b>n</b>\n" + "".join(f"row {number},{number}\n" for number in range(6))
    fd = fds.open(text, "frame", page_lines=3)
    pages = [shown_page(fd, number) for number in (1, 2, 3)]
    assert [page.columns for page in pages] == ["", "name,<b>n</b>", "name,<b>n</b>"]
    assert "\n".join(page.text for page in pages) == text.rstrip("\n") == "".join(fd.page(number).text for number in (1, 2, 3)).rstrip("\n")
    second = fd_bundle(fd, fds, 2)
    assert second["text/plain"].split("\n")[1:3] == ["name,<b>n</b>", "row 2,2"]
    assert [line for line in Markup(second["text/html"]).outline if line.startswith("'")][-8:] == snapshot(
        ["'name,<b>n</b>'", "'4'", "'  row 2,2\\n '", "'5'", "'  row 3,3\\n '", "'6'", "'  row 4,4'", "'page 2 of 3, lines 4 to 6'"]
    )
    assert shown_page(one("a\n" * 9, page_chars=4), 2).columns == ""  # a text that is no table


def test_a_page_that_is_not_there_is_refused() -> None:
    with pytest.raises(ToolError, match="page 3 is past the end; fd:1 has 1 page, counted from 1"):
        fd_bundle(one("short"), None, 3)


def test_an_empty_text_has_one_empty_page() -> None:
    assert shown_page(one(""), 1) == ShownPage(number=1, pages=1, first_line=1, text="")
    assert "0 characters · 0 lines · 1 page" in fd_bundle(one(""))["text/plain"]


def test_the_fds_of_a_process_are_a_table() -> None:
    fds = table("a\n" * 3000, "short")
    fds.mark_read(1, 0, 4000)
    assert repr(fd_table(fds)) == snapshot("""\
fd    from      characters  lines  pages  read
fd:1  source 1  6,000       3,000  2      67 %
fd:2  source 2  5           1      1      nothing\
""")


def test_saving_writes_the_whole_text_and_never_over_another_file(tmp_path: Path) -> None:
    text = POEM * 1000
    assert save_text(one(text), "out.txt", tmp_path) == f"saved {len(text):,} characters as out.txt"
    assert (tmp_path / "out.txt").read_bytes() == text.encode()
    for name in ("out.txt", "../up.txt", "/etc/x", "", "..", "a/b", "a\x00b"):
        with pytest.raises(PersonError):
            save_text(one("other"), name, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.txt"]


def test_a_view_without_a_front_end_is_its_twin() -> None:
    fd = one("text")
    view = FdView(fd)
    assert repr(view) == fd_bundle(fd)["text/plain"]
    with pytest.raises(NotImplementedError):
        view._ipython_display_()


def test_a_view_loads_no_widget_and_no_pandas_until_it_is_live() -> None:
    source = (
        "import sys, llmproc_nb.notebook.fdview, llmproc_nb.notebook.fdwidget, llmproc_nb.notebook.treewidget, llmproc_nb.notebook.psview\n"
        "assert not {'anywidget', 'ipywidgets', 'traitlets', 'pandas', 'IPython'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


# over the wire

MAKE = """
from llmproc_nb.core.fdtable import FdTable
from llmproc_nb.core.message import clean
from llmproc_nb.core.visible import visible
from llmproc_nb.drivers.text import long_text
from llmproc_nb.notebook.fdview import FdView
def opened(lines):
    table = FdTable(lambda pieces: long_text("".join(pieces)))
    return FdView(table.open("".join(f"{n:07d} the quick brown fox jumps\\n" for n in range(lines)), "made"), table)
"""


BARE = 4000 + 111  # a page of such lines as JSON, where a line feed takes two bytes


class Front:
    """A front end's side of one widget: sends what its buttons send, and measures what comes back."""

    def __init__(self, kernel: Kernel, source: str) -> None:
        self.kernel = kernel
        ran = kernel.run(source)
        assert ran.status == "ok", ran.error
        opened = [content for kind, content in ran.outputs if kind == "comm_open"]
        self.comm: str = opened[-1]["comm_id"]
        self.state: dict[str, Any] = opened[-1]["data"]["state"]

    def ask(self, kind: str, value: Any = None, until: str = "page", matching: str = "") -> int:
        """Send, wait until that trait has come (and says so), and give the bytes of everything that came for it."""
        client = self.kernel.client
        content = {"comm_id": self.comm, "data": {"method": "custom", "content": {"kind": kind, "value": value}}}
        client.shell_channel.send(client.session.msg("comm_msg", content))
        size = 0
        while True:
            got = client.get_iopub_msg(timeout=10)
            if got["msg_type"] != "comm_msg" or got["content"]["comm_id"] != self.comm:
                continue
            size += len(json.dumps(got["content"], ensure_ascii=False).encode())
            self.state |= got["content"]["data"]["state"]
            if until in got["content"]["data"]["state"] and matching in json.dumps(self.state[until]):
                return size


def test_a_page_turn_sends_that_page_and_nothing_else() -> None:
    with kernel() as running:
        assert running.run(MAKE).status == "ok"
        sizes = []
        for lines in (1_000, 300_000):
            front = Front(running, f"widget = opened({lines}).widget()")
            turn = front.ask("page", 5)
            assert front.state["page"]["number"] == 5
            assert len(front.state["page"]["text"]) == pytest.approx(4000, abs=40)
            line = front.ask("line", lines // 2)
            assert front.state["page"]["line"] == lines // 2
            sizes.append((turn, line))
        assert all(size < BARE + 330 for pair in sizes for size in pair), sizes
        assert abs(sizes[1][0] - sizes[0][0]) < 20, sizes


def test_search_goes_from_match_to_match_and_says_how_many_there_are() -> None:
    with kernel() as running:
        assert running.run(MAKE).status == "ok"
        front = Front(running, "widget = opened(20_000).widget()")
        front.ask("find", "77 THE", until="note", matching="nothing matches")
        front.ask("find", "77 the", until="hits", matching='"busy": false')
        hits, page = front.state["hits"], front.state["page"]
        assert (hits["index"], hits["count"], hits["more"], page["number"]) == (1, 200, False, 1)
        front.ask("step", -1, until="hits")
        assert (front.state["hits"]["index"], front.state["page"]["pages"] - front.state["page"]["number"]) == (200, 0)
        front.ask("find", "(", until="note", matching="true")
        assert front.state["note"]["bad"]
        assert front.ask("page", 9_999, until="note", matching="past the end")
        assert front.ask("page", "x", until="note", matching="no number")


def test_a_late_search_does_not_disturb_a_newer_one() -> None:
    with kernel() as running:
        assert running.run(MAKE).status == "ok"
        front = Front(running, "widget = opened(400_000).widget()")
        client = running.client
        for pattern in ("f", "o", "0399999 the"):
            content = {"comm_id": front.comm, "data": {"method": "custom", "content": {"kind": "find", "value": pattern}}}
            client.shell_channel.send(client.session.msg("comm_msg", content))
        front.ask("page", 3, until="hits", matching='"busy": false')
        assert (front.state["hits"]["pattern"], front.state["hits"]["count"]) == ("0399999 the", 1)


def test_the_summary_of_a_fork_counts_the_reads_it_has_seen() -> None:
    fds = table("x" * 10_000)
    fds.mark_read(1, 0, 100)
    child = fds.fork()
    threads = [threading.Thread(target=child.mark_read, args=(1, 1000 * n, 1000 * n + 10)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [summary_of(one.get(1), one).read_chars for one in (fds, child)] == [100, 140]


SHOW = {
    "an fd": "opened(300)",
    "a tree": "__import__('llmproc_nb.notebook.treewidget').notebook.treewidget.TreeView(get_ipython().llmproc.machine)",
    "processes": "__import__('llmproc_nb.notebook.psview').notebook.psview.ps_view(get_ipython().llmproc.machine)",
}


def test_where_no_widget_can_be_shown_there_is_exactly_one_bundle_and_no_comm() -> None:
    with kernel(LLMPROC_NB_STREAM="") as running:
        assert running.run("%load_ext llmproc_nb").status == "ok"
        assert running.run(MAKE).status == "ok"
        for what, source in SHOW.items():
            for before in ("", "import os; os.environ['LLMPROC_NB_STREAM'] = '0'\n"):
                ran = running.run(before + source, cell="cell-1" if before else None)
                assert [kind for kind, _ in ran.outputs] == ["execute_result"], (what, ran.outputs)
        ran = running.run("del os.environ['LLMPROC_NB_STREAM']\nopened(300)", cell="cell-1")
        assert [sorted(content["data"]) for kind, content in ran.outputs if kind == "display_data"] == [
            ["text/html", "text/plain"],
            ["application/vnd.jupyter.widget-view+json"],
        ]
