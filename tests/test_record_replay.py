"""Record a notebook against an API, then run it again without key, server or tools: the same outputs, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from kernels import Kernel, error, kernel, ok
from servers import Answer, LoopbackServer, anthropic_text, anthropic_tools, sse

import llmproc_nb as lp

TOOL = '''
count = 0

def measure(town: str) -> str:
    """Measure the temperature."""
    global count
    count += 1
    return f"{town}: 21 degrees"
'''
CELLS = [
    "%load_ext llmproc_nb",
    "%agent --model anthropic:claude-sonnet-5-5 --base-url {url} --mode {mode} --recording demo",
    TOOL,
    "%%agent scout --tools measure\nHow warm is it in Oslo and Bergen?",
    "%%agent scout\nThank you. And why?",
    "scout.get_last_message()",
    "frame = %log messages\nframe[['role', 'depth', 'node']]",
]


def answer(request, n):
    last = request.body["messages"][-1]["content"]
    if last[-1]["type"] == "tool_result":
        events = anthropic_text("Both have **21 degrees**.")
    elif "why" in str(last):
        events = anthropic_text("The sun. " * 50)
    else:
        events = anthropic_tools([("toolu_1", "measure", {"town": "Oslo"}), ("toolu_2", "measure", {"town": "Bergen"})])
    return Answer(headers={"content-type": "text/event-stream"}, chunks=sse(events))


def run_all(folder: Path, url: str, mode: str, **environ: str) -> tuple[list, str]:
    """What each cell shows, and how often the tool ran."""
    kernel = Kernel(LLMPROC_NB_STREAM="", LLMPROC_NB_LOG=str(folder), **environ)
    try:
        kernel.run(f"import os; os.chdir({str(folder)!r})")
        shown = []
        for source in CELLS:
            ran = kernel.run(source.replace("{url}", url).replace("{mode}", mode))
            assert ran.status == "ok", (source, ran.outputs)
            shown.append([(kind, content.get("data", content.get("text"))) for kind, content in ran.outputs])
        return shown[3:], kernel.run("count").data()[0]
    finally:
        kernel.close()


def test_a_recorded_notebook_replays_to_the_same_bytes_without_key_server_or_tools(tmp_path):
    with LoopbackServer(answer) as server:
        live, ran = run_all(tmp_path, server.url, "record", ANTHROPIC_API_KEY="sk-secret-of-this-test")
        assert (len(server.seen), ran) == (3, "2")
        recorded = (tmp_path / "recordings/demo.jsonl").read_bytes()
    for mode in ("replay", "auto"):
        replayed, ran = run_all(tmp_path, "http://127.0.0.1:9", mode)
        assert json.dumps(replayed) == json.dumps(live)
        assert ran == "0"
        assert (tmp_path / "recordings/demo.jsonl").read_bytes() == recorded
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"sk-secret" not in everything and b"Both have" in everything
    log = lp.read_log(tmp_path / "recordings/demo.jsonl")
    assert len(log.dialog()) == len(log.frames().messages) == 7


def test_a_changed_prompt_is_a_miss_in_replay_and_asked_in_auto(tmp_path):
    with LoopbackServer(answer) as server:
        run_all(tmp_path, server.url, "record", ANTHROPIC_API_KEY="k")
        for mode, asked in (("replay", 0), ("auto", 1)):
            before = len(server.seen)
            kernel = Kernel(LLMPROC_NB_STREAM="", ANTHROPIC_API_KEY="k")
            try:
                kernel.run(f"import os; os.chdir({str(tmp_path)!r})")
                for source in [*CELLS[:4], "%%agent scout\nThank you. And why so?"]:
                    ran = kernel.run(source.replace("{url}", server.url).replace("{mode}", mode))
            finally:
                kernel.close()
            assert len(server.seen) - before == asked
            if mode == "replay":
                assert ran.error["ename"] == "ReplayMiss"
                assert "“Thank you. And why?” is now “Thank you. And why so?”" in ran.error["evalue"]
            else:
                assert ran.status == "ok"


def test_a_line_that_fails_chooses_nothing(tmp_path):
    program = "from llmproc_nb import Program\np = Program(provider='scripted', model='m', script=({'say': 'a'},))"
    with kernel() as front:
        ok(front.run(f"%load_ext llmproc_nb\nimport os; os.chdir({str(tmp_path)!r})\n{program}"))
        assert "there is no recording" in error(front.run("%agent -p p --mode replay --recording nosuch --stream off"))
        (tmp_path / "bad.jsonl").write_text("garbage\n")
        assert "this is no event" in error(front.run("%agent -p p --mode replay --recording bad.jsonl"))
        (tmp_path / "good.jsonl").write_text("")
        missing = f"{tmp_path}/.llmproc: there is no log of an earlier run"
        assert missing in error(front.run("%agent -p p --mode replay --recording good.jsonl --resume"))  # no log is kept here
        shown = ok(front.run("%agent")).data()[0]
        assert "not chosen yet" in shown and "live" in shown
        assert "'auto'" in ok(front.run("get_ipython().llmproc.settings.stream")).data()[0]
        assert "a" in ok(front.run("%%agent q -p p\nhi")).data()[0]


def test_recording_again_says_where_the_old_recording_stays(tmp_path):
    program = "from llmproc_nb import Program\np = Program(provider='scripted', model='m', script=lambda request: 'a')"
    begin = f"%load_ext llmproc_nb\nimport os; os.chdir({str(tmp_path)!r})\n{program}"
    said = []
    for cells in ("one", "two"), ("one",):
        with kernel() as front:
            ok(front.run(begin))
            said.append(ok(front.run("%agent -p p --mode record --recording keep")).printed)
            for cell in cells:
                ok(front.run(f"%%agent {cell}\nhi {cell}"))
    assert said == ["", "keep.jsonl is there already and is kept as keep.1.jsonl (--recording keep.1) once there is a new answer\n"]
    with kernel() as front:
        ok(front.run(begin))
        ok(front.run("%agent -p p --mode replay --recording keep.1"))
        ok(front.run("%%agent one\nhi one"))
        ok(front.run("%%agent two\nhi two"))


BUSY = "another kernel is writing it"


@pytest.mark.parametrize(("mode", "status"), [("record", "error"), ("auto", "ok")])
def test_a_second_kernel_hears_at_once_that_the_recording_is_taken(mode, status, tmp_path):
    program = "from llmproc_nb import Program\np = Program(provider='scripted', model='m', script=({'say': 'a'},))"
    kernels = [Kernel(LLMPROC_NB_STREAM="", LLMPROC_NB_LOG=str(tmp_path)) for _ in range(2)]
    try:
        for kernel in kernels:
            kernel.run(f"%load_ext llmproc_nb\nimport os; os.chdir({str(tmp_path)!r})\n{program}")
        assert kernels[0].run("%agent -p p --mode record --recording demo").status == "ok"
        assert kernels[0].run("%%agent first\nhi").status == "ok"
        second = kernels[1].run(f"%agent -p p --mode {mode} --recording demo")
        assert second.status == status
        assert BUSY in (second.error["evalue"] if second.error else second.printed)
        assert kernels[1].run("%agent --mode record --recording other").status == "ok"
    finally:
        for kernel in kernels:
            kernel.close()


@pytest.mark.parametrize("name", ["01-quickstart.ipynb", "02-replay-and-frames.ipynb"])
def test_notebooks_make_sense_without_a_kernel(name, tmp_path):
    from nbconvert import HTMLExporter, MarkdownExporter
    from paths import ROOT

    notebook = nbformat.read(ROOT / "notebooks" / name, 4)
    html, _ = HTMLExporter().from_notebook_node(notebook)
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    assert "scripted: no model answered" in html and "scripted: no model answered" in text
    nbformat.validate(notebook)
    assert not notebook.metadata.get("widgets")
