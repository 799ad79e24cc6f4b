"""Tools on the notebook's main thread that take too long: they are stopped there, and what waited for them is told so."""

from __future__ import annotations

import pytest
from kernels import Kernel, ok

SETUP = """
%load_ext llmproc_nb
import time
from llmproc_nb import Program, tool

marks = []

@tool(timeout_s=0.5)
def sleeps(): time.sleep(8); marks.append("woke"); return "slept"

@tool(timeout_s=0.5)
def spins():
    while True: pass

@tool(timeout_s=0.5)
def stubborn():
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        try: time.sleep(0.1)
        except KeyboardInterrupt: marks.append("heard")
    return "done"

@tool(timeout_s=0.5)
def mark(): marks.append("marked"); return "marked"

def script(request):
    last = request.path[-1].message
    if last.role == "tool":
        return " / ".join(result.text for result in last.tool_results)
    return {"call": [{"name": name, "arguments": {}} for name in last.text.split()]}

prog = Program(name="prog", provider="scripted", model="m", script=script, tools=(sleeps, spins, stubborn, mark))
"""


@pytest.fixture(scope="module", params=["top", "nested"])
def ask(request):
    """Asks in a cell at the top, or in one within another magic."""
    made = Kernel(LLMPROC_NB_STREAM="0")
    ok(made.run(SETUP))

    def run(words: str, **how):
        made.run("marks.clear()")
        cell = f"%%agent h -p prog\n{words}"
        return made.run(cell if request.param == "top" else f"%%capture --no-stdout --no-stderr --no-display\n{cell}", **how)

    run.kernel = made
    yield run
    made.close()


@pytest.mark.parametrize("name", ["sleeps", "spins"])
def test_a_tool_that_takes_too_long_is_stopped_and_the_cell_ends(ask, name):
    ran = ok(ask(name))
    assert ran.duration_s < 3 and "no result within 0.5 s; whether it took effect is unknown" in ran.data()[-1]
    assert ask.kernel.run("marks").data() == ["[]"]
    assert "marked" in ok(ask("mark")).data()[-1]


def test_what_never_got_to_the_main_thread_was_not_run(ask):
    ran = ok(ask("stubborn mark"))
    assert "not run: another tool held the notebook's main thread" in ran.data()[-1]
    assert "marked" not in ask.kernel.run("marks").data()[0] and "heard" in ask.kernel.run("marks").data()[0]


def test_an_interrupt_still_stops_the_call(ask):
    ran = ask("stubborn", interrupt_after_s=0.3)
    assert ran.error is not None and ran.error["ename"] == "KeyboardInterrupt"
