"""`%%sandbox` while it runs, as a front end sees it that takes updates; what it says once, and what it hints at."""

from __future__ import annotations

import sys

import pytest
from kernels import Kernel, Ran, ok

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")

SETUP = """
%load_ext llmproc_nb
from llmproc_nb import Program
coder = Program(name="coder", provider="scripted", model="m", script=({"say": "yes"},) * 9, tools=("run_python",))
%spawn scout from coder
"""


@pytest.fixture(scope="module")
def kernel():
    made = Kernel(LLMPROC_NB_STREAM="1")
    ok(made.run(SETUP))
    ok(made.run("%%sandbox scout\n1", timeout_s=60))
    yield made
    made.close()


def kinds(ran: Ran) -> list[str]:
    return [kind for kind, _ in ran.outputs]


def test_an_update_goes_where_the_display_was(kernel):
    ran = ok(kernel.run("%%sandbox\nh = display('one', display_id='bar'); h.update('two'); h.update('three')"))
    assert kinds(ran) == ["display_data", "update_display_data", "update_display_data"]
    ids = {content["transient"]["display_id"] for _, content in ran.outputs}
    assert len(ids) == 1 and "bar" not in ids  # a name of the sandbox's is no name of the notebook's
    assert ran.data()[-1] == "'three'"
    later = ok(kernel.run("%%sandbox\nh.update('four')"))
    assert kinds(later) == ["update_display_data"] and later.outputs[0][1]["transient"]["display_id"] in ids


def test_what_the_code_clears_is_cleared(kernel):
    code = "from IPython.display import clear_output\nfor n in range(3):\n    clear_output(wait=True)\n    print('step', n)"
    ran = ok(kernel.run(f"%%sandbox\n{code}"))
    assert kinds(ran).count("clear_output") == 3 and ran.printed.endswith("step 2\n")
    assert "cleared" not in ran.printed


def test_without_updates_the_end_is_shown_once():
    made = Kernel(LLMPROC_NB_STREAM="0")
    try:
        ok(made.run(SETUP))
        ran = ok(made.run("%%sandbox scout\nh = display('one', display_id=True); h.update('two')", timeout_s=60))
        assert kinds(ran) == ["display_data"] and ran.data() == ["'two'"]
        ran = made.run("%%sandbox\nprint('so far')\nwhile True: pass", interrupt_after_s=1.0)
        assert ran.printed == "so far\n" and ran.error is not None and ran.error["ename"] == "KeyboardInterrupt"
    finally:
        made.close()


def test_a_slow_start_is_told_and_the_words_go_away():
    made = Kernel(LLMPROC_NB_STREAM="1")
    try:
        ok(made.run(SETUP))
        ran = ok(made.run("%%sandbox scout\nprint('here')", timeout_s=60))
        if kinds(ran) != ["stream"]:  # it took more than a second
            assert "starting a sandbox" in ran.data()[0]
            assert kinds(ran) == ["display_data", "clear_output", "stream"]
        assert ran.printed == "here\n"
    finally:
        made.close()


def test_what_no_copy_has_is_said_once(kernel):
    ran = ok(kernel.run("%%sandbox\nimport threading, time\nt = threading.Thread(target=time.sleep, args=(20,), name='worker'); t.start()"))
    assert ran.printed.count("worker") == 1 and "fork" in ran.printed
    assert "worker" not in ok(kernel.run("%%sandbox\n1")).printed
    ok(kernel.run("%sandbox restart"))


def test_a_timeout_and_a_death_are_told_once(kernel):
    ran = kernel.run("%%sandbox --timeout 0.5\nwhile True: pass")
    assert ran.error is not None and "stopped after 0.5 s" in ran.error["evalue"] and ran.printed == ""
    ran = kernel.run("%%sandbox\nimport os; os.kill(os.getpid(), 9)")
    assert ran.error is not None and "SIGKILL" in ran.error["evalue"] and "before it" in ran.error["evalue"] and ran.printed == ""


@pytest.mark.parametrize(
    "code, hint",
    [
        ("import asyncio\nasyncio.create_task(asyncio.sleep(0))", "await"),
        ("import nothing_of_this_name", "%pip works outside"),
        ("%load_ext llmproc_nb", "outside"),
        ("open('data.csv')", "working folder"),
    ],
)
def test_errors_of_the_place_say_what_to_do(kernel, code, hint):
    ran = kernel.run(f"%%sandbox\n{code}")
    assert ran.error is not None and hint in ran.error["traceback"][-1], ran.error


def test_packages_are_not_installed_here(kernel):
    ran = kernel.run("%%sandbox\n%pip install six", timeout_s=20)
    assert ran.error is not None and "outside" in ran.error["evalue"]
    assert "outside" in kernel.run("%%sandbox\n!pip install --retries 0 six", timeout_s=20).printed


def test_the_figures_of_children_stand_in_the_table(kernel):
    code = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print('drawn')"
    script = ({"when": "draw one", "call": [{"name": "run_python", "arguments": {"code": code}}]}, {"say": "{{result}}"})
    ok(kernel.run(f"Program(name='painter', provider='scripted', model='m', script={script!r}, tools=('run_python',)).start()"))
    ran = ok(kernel.run("%%fork painter\ndraw one\n---\nsay nothing", timeout_s=60))
    html = ran.data("text/html")[-1]
    assert html.count("data:image/png;base64,") == 1 and "drawn" in html and "[image]" not in html
    ok(kernel.run("%kill painter painter_1 painter_2"))
