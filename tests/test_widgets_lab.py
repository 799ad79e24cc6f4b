"""The widgets in JupyterLab in a real browser: pages, search, the tree and its buttons, the table that follows, and what the file keeps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from labs import cell, cell_output, lab, needs_lab, run_all, run_cell, save, wait_idle, wait_output, write_notebook
from paths import ROOT

pytestmark = [pytest.mark.browser, needs_lab]

FD = """
from llmproc_nb.core.fdtable import FdTable
from llmproc_nb.drivers.text import long_text
from llmproc_nb.notebook.fdview import FdView
bad = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script> \\x1b[31mred\\x1b[0m \\u202eevil"
table = FdTable(lambda pieces: long_text("".join(pieces)))
table.open("".join(f"{n:05d} the fox ({n * 7 % 13}) jumps {bad if n % 50 == 3 else ''}\\n" for n in range(20000)), f"search({bad})")
table.mark_read(1, 0, 1500)
table.mark_read(1, 200_000, 300_000)
FdView(table.get(1), table)
"""
ROWS = """
from llmproc_nb.core.fdtable import FdTable
from llmproc_nb.drivers.text import long_text
from llmproc_nb.notebook.fdview import FdView
table = FdTable(lambda pieces: long_text("".join(pieces)))
FdView(table.open("name,n\\n" + "".join(f"r{n},{n}\\n" for n in range(9)), "frame", page_lines=3), table)
"""
TREE = """
from llmproc_nb import Program
from llmproc_nb.notebook.treewidget import TreeView
bad = "<img src=x onerror=window.hacked=1> \\u202eevil"
scout = Program(name="scout", provider="scripted", model="script", script=[{"say": f"Answer {n} {bad}"} for n in range(400)]).start()
scout.run("first question").result()
scout.run("second question").result()
other = scout.fork("other", at="msg_1")
other.run("another way").result()
for n in range(300):
    other.run(f"question {n}").result()
def fork(node):
    return f"{scout.fork(at=node).name} stands there"
def goto(node):
    return f"scout stands on {scout.goto(node).message.role}"
TreeView(scout.machine, on_fork=fork, on_goto=goto)
"""
COUNT = """
from ipywidgets.widgets.widget import _instances
print(sum(type(one).__name__ == "TreeWidget" for one in _instances.values()), "live widgets")
"""
PS = """
from llmproc_nb import Program
from llmproc_nb.notebook.psview import ps_view
slow = Program(name="slow", provider="scripted", model="script", script=[{"say": "a word " * 40, "delay_s": 0.04}]).start()
call = slow.run("go")
ps_view(slow.machine)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def page_of(folder: Path) -> Iterator[Callable[[str], Any]]:
    with lab(folder) as opened:
        yield opened


def shown(page_of: Callable[[str], Any], folder: Path, name: str, source: str, *more: str) -> Any:
    """A page with a notebook of this name whose second cell has run."""
    write_notebook(folder / name, ["%load_ext llmproc_nb", source, *more])
    page = page_of(name)
    run_all(page, wait=True)
    wait_idle(page)
    return page


def outputs(path: Path) -> list[dict[str, Any]]:
    """The outputs of the second cell of a saved notebook."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"][1]["outputs"]
    return found


def reopened(page: Any, page_of: Callable[[str], Any], name: str) -> Any:
    """The saved notebook in a new page, after its kernel has gone."""
    page.evaluate("async () => { await window.jupyterapp.serviceManager.sessions.shutdownAll(); }")
    page.close()
    return page_of(name)


def until(page: Any, condition: str) -> None:
    page.wait_for_function(f"() => {condition}", timeout=10_000)


def test_an_fd_is_paged_searched_copied_and_saved(page_of: Callable[[str], Any], folder: Path) -> None:
    page = shown(page_of, folder, "fd.ipynb", FD)
    widget = page.locator(".llmproc-fd")
    rows = widget.locator(".llmproc-row")
    assert cell(page, 1).locator(".llmproc-twin").is_hidden()
    assert rows.first.inner_text().split() == ["1", "00000", "the", "fox", "(0)", "jumps"]
    assert "<img src=x onerror=window.hacked=1>" in rows.nth(3).inner_text()
    assert "⟨U+202E⟩evil" in rows.nth(3).inner_text()
    assert rows.first.evaluate("row => row.classList.contains('llmproc-read')")
    assert not rows.last.evaluate("row => row.classList.contains('llmproc-read')")
    widget.get_by_role("button", name="Next page").click()
    until(page, "document.querySelector('.llmproc-fd .llmproc-number').value === '2'")
    widget.locator(".llmproc-text").press("ArrowRight")
    until(page, "document.querySelector('.llmproc-fd .llmproc-number').value === '3'")
    find = widget.get_by_label("Search")
    find.fill(r"\(1[01]\) jumps <")
    find.press("Enter")
    until(page, "document.querySelector('.llmproc-hits').textContent === '1 of 60'")
    find.press("Enter")
    until(page, "document.querySelector('.llmproc-hits').textContent === '2 of 60'")
    assert widget.locator(".llmproc-current").inner_text() == "(10) jumps <"
    line = widget.get_by_label("Go to line")
    line.fill("19,999")
    line.press("Enter")
    until(page, "document.querySelector('.llmproc-target .llmproc-count')?.textContent === '19999'")
    line.fill("20001")
    line.press("Enter")
    until(page, "document.querySelector('.llmproc-fd .llmproc-note').textContent.startsWith('there is no line 20,001')")
    widget.get_by_role("button", name="Copy this page").click()
    until(page, "document.querySelector('.llmproc-fd .llmproc-note').textContent.startsWith('copied page')")
    widget.get_by_role("button", name="Save the whole text").click()
    widget.get_by_label("File name").fill("whole.txt")
    widget.get_by_role("button", name="Write the whole").click()
    until(page, "document.querySelector('.llmproc-fd .llmproc-note').textContent.includes('as whole.txt')")
    text = (folder / "whole.txt").read_text()
    assert text.count("\n") == 20000 and "\u202e" in text
    widget.locator(".llmproc-bar").click(position={"x": 300, "y": 3})
    until(page, "!['1', '20'].includes(document.querySelector('.llmproc-fd .llmproc-number').value)")
    assert page.evaluate("() => window.hacked") is None

    _the_file_keeps_the_twin(page, page_of, folder)


def _the_file_keeps_the_twin(page: Any, page_of: Callable[[str], Any], folder: Path) -> None:
    """The same notebook saved: no widget in it, it passes nbval, and it shows the twin where there is no kernel."""
    save(page)
    kept = outputs(folder / "fd.ipynb")
    assert [sorted(output["data"]) for output in kept] == [["text/html", "text/plain"], ["application/vnd.jupyter.widget-view+json"]]
    assert kept[1]["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == ""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "LLMPROC_NB_LOG": "0"}
    environ.pop("LLMPROC_NB_STREAM", None)
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "fd.ipynb"]
    ran = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout
    page = reopened(page, page_of, "fd.ipynb")
    twin = cell(page, 1).locator(".llmproc-twin")
    twin.wait_for(state="visible")
    assert "00000 the fox (0) jumps" in twin.inner_text()
    assert "not found" not in cell(page, 1).inner_text()
    assert page.evaluate("() => window.hacked") is None


def test_the_quick_start_runs_in_the_lab_and_a_cell_run_again_branches(page_of: Callable[[str], Any], folder: Path) -> None:
    (folder / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "01-quickstart.ipynb", folder / "notebooks")
    shutil.copytree(ROOT / "programs", folder / "programs")
    page = page_of("notebooks/01-quickstart.ipynb")
    run_all(page, wait=True)
    wait_idle(page)
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
    sources = [cell["source"] for cell in json.loads((folder / "notebooks" / "01-quickstart.ipynb").read_text())["cells"]]
    first = next(number for number, source in enumerate(sources) if "".join(source).startswith("%%agent"))
    assert "scripted: no model answered" in cell_output(page, first)
    run_cell(page, first, wait=True)
    wait_output(page, first, "branched")


def test_every_page_of_a_frame_has_the_names_of_its_columns_above_it(page_of: Callable[[str], Any], folder: Path) -> None:
    page = shown(page_of, folder, "rows.ipynb", ROWS)
    widget = page.locator(".llmproc-fd")
    rows = widget.locator(".llmproc-row")
    assert rows.first.inner_text().split() == ["1", "name,n"] and widget.locator(".llmproc-columns").count() == 0
    widget.get_by_role("button", name="Next page").click()
    until(page, "document.querySelector('.llmproc-fd .llmproc-columns')")
    assert [row.split() for row in rows.all_inner_texts()] == [["1", "name,n"], ["4", "r2,2"], ["5", "r3,3"], ["6", "r4,4"]]


def test_the_tree_opens_forks_and_goes(page_of: Callable[[str], Any], folder: Path) -> None:
    page = shown(page_of, folder, "tree.ipynb", TREE, COUNT)
    widget = page.locator(".llmproc-tree")
    assert "607 messages, 2 processes" in widget.locator(".llmproc-head").first.inner_text()
    assert widget.locator(".llmproc-fold").inner_text() == "… 597 messages …"
    widget.get_by_text("second question").click()
    detail = widget.locator(".llmproc-detail")
    detail.wait_for(state="visible")
    assert "told to scout" in detail.inner_text()
    assert "second question" in detail.locator(".llmproc-parts").inner_text()
    widget.get_by_role("treeitem").filter(has_text="Answer 0").click()
    until(page, "document.querySelector('.llmproc-detail .llmproc-parts').textContent.startsWith('Answer 0 <img')")
    widget.get_by_role("button", name="A new process").click()
    until(page, "document.querySelector('.llmproc-tree .llmproc-note').textContent === 'scout.1 stands there'")
    assert widget.locator(".llmproc-chosen .llmproc-pill").inner_text() == "scout.1"
    widget.get_by_role("button", name="Let the process").click()
    until(page, "document.querySelector('.llmproc-tree .llmproc-note').textContent === 'scout stands on assistant'")
    assert widget.locator(".llmproc-chosen .llmproc-pill").all_inner_texts() == ["scout", "scout.1"]
    began = time.monotonic()
    widget.get_by_role("button", name="Show every message").click()
    until(page, "document.querySelectorAll('.llmproc-tree .llmproc-node').length === 607")
    assert time.monotonic() - began < 3
    run_cell(page, 1, wait=True)
    wait_idle(page)
    run_cell(page, 2, wait=True)
    assert wait_output(page, 2, "live widgets").strip() == "1 live widgets"
    save(page)
    assert sorted(outputs(folder / "tree.ipynb")[0]["data"]) == ["text/html", "text/plain"]
    assert page.evaluate("() => window.hacked") is None


def test_the_table_of_processes_follows_a_call_and_stays_when_it_has_ended(page_of: Callable[[str], Any], folder: Path) -> None:
    page = shown(page_of, folder, "ps.ipynb", PS)
    until(page, "document.querySelectorAll('.jp-Cell')[1].querySelector('table').textContent.includes('running')")
    until(page, "document.querySelectorAll('.jp-Cell')[1].querySelector('table').textContent.includes('idle')")
    save(page)
    (kept,) = outputs(folder / "ps.ipynb")
    assert "idle" in "".join(kept["data"]["text/plain"])
