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
    merged = ok(kernel.run("%merge painter_1 into painter")).printed
    assert "stay in its own sandbox; `%sandbox painter_1 pull NAME`" in merged
    assert "stay in its own" not in ok(kernel.run("%merge painter_2 into painter")).printed
    ok(kernel.run("%kill painter painter_1 painter_2"))


def test_an_interrupt_while_the_sandbox_starts_stops_the_code_before_it_begins():
    made = Kernel(LLMPROC_NB_STREAM="1")
    try:
        ok(made.run(SETUP))
        ran = made.run("%%sandbox scout\nimport time\nfor i in range(50): print(i); time.sleep(1)", interrupt_after_s=0.3, timeout_s=20)
        assert ran.error is not None and ran.error["ename"] == "KeyboardInterrupt" and ran.duration_s < 5
        assert ok(made.run("%%sandbox scout\n'i' in globals()", timeout_s=60)).data()[-1] == "False"
    finally:
        made.close()


def test_an_interrupt_that_kills_the_session_is_said(kernel):
    code = "import ctypes, signal\nkeep = 42\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nctypes.CDLL(None).pause()"
    ran = kernel.run(f"%%sandbox scout\n{code}", interrupt_after_s=0.5, timeout_s=20)
    assert ran.error is not None and "was killed" in ran.error["evalue"] and "state before it" in ran.error["evalue"]


def test_an_interrupt_of_the_python_call_is_one_line(kernel):
    ran = kernel.run("scout.sandbox.run('import time; time.sleep(30)')", interrupt_after_s=0.5)
    assert ran.error is not None and ran.error["traceback"] == [
        "KeyboardInterrupt: the code in scout's sandbox was stopped; what it said so far is kept, and it can go on."
    ]


def test_a_state_that_is_made_again_says_what_is_other_than_it_was(kernel):
    ok(kernel.run("values = [1]\nfrom llmproc_nb.core.sandbox import SandboxRules"))
    rules = "SandboxRules(variables=('values',), checkpoints=0, timeout_s=1)"
    ok(kernel.run(f"again = Program(name='again', provider='scripted', model='m', script=({{'say': 'x'}},), sandbox={rules}).start()"))
    ok(kernel.run("%%sandbox again\nimport random, time\nrandom.random()"))
    ok(kernel.run("%%sandbox again --timeout 10\ntime.sleep(1.3); slow = 'there'"))
    ok(kernel.run("%fork again later"))
    ok(kernel.run("values = [99]"))
    ok(kernel.run("%%sandbox again\nbeyond = 1"))
    ran = ok(kernel.run("%%sandbox later\nvalues, slow", timeout_s=60))
    assert ran.data()[-1] == "([1], 'there')"  # what the family began with, and as long as it took then
    assert "2 earlier cells; `import random, time` gave something else than then" in ran.printed
    ok(kernel.run("%sandbox again restart"))
    assert ok(kernel.run("%%sandbox again\nvalues")).data() == ["[99]"]
    ok(kernel.run("del values"))
    assert "there is no variable 'values'" in str(kernel.run("%sandbox again restart").error)
    assert ok(kernel.run("%%sandbox again\nvalues")).data() == ["[99]"]
    ok(kernel.run("%kill again later"))


def test_a_restart_is_of_the_process_that_is_named(kernel):
    ok(kernel.run("%spawn ana from coder"))
    ok(kernel.run("%spawn bob from coder"))
    ok(kernel.run("%%sandbox ana\nprecious = 1"))
    assert "bob's sandbox begins again" in ok(kernel.run("%sandbox restart bob")).printed
    assert ok(kernel.run("%%sandbox ana\nprecious")).data() == ["1"]
    assert "ana's sandbox begins again" in ok(kernel.run("%sandbox ana restart")).printed
    assert "'nobody' is nothing %sandbox does" in str(kernel.run("%sandbox ana nobody").error)
    assert "ana bob after restart" in str(kernel.run("%sandbox restart ana bob").error)
    ok(kernel.run("%kill ana bob"))


def test_files_come_out_and_nothing_is_overwritten(kernel, tmp_path):
    ok(kernel.run("%%sandbox scout\nopen('out.csv', 'w').write('a\\n1\\n')"))
    ok(kernel.run(f"import os; os.makedirs({str(tmp_path / 'data')!r}); os.chdir({str(tmp_path)!r})"))
    ok(kernel.run("for n in 'ab': open(f'data/{n}.txt', 'w').write(n)"))
    assert "has data/a.txt, data/b.txt" in ok(kernel.run("%sandbox scout files data/*.txt")).printed
    assert ok(kernel.run("%%sandbox scout\nopen('data/b.txt').read()")).data() == ["'b'"]
    assert "data is a folder; `data/*` names" in str(kernel.run("%sandbox scout files data").error)
    assert "there is no file nothing.csv" in str(kernel.run("%sandbox scout files nothing.csv").error)
    ok(kernel.run("%sandbox scout pull out.csv"))
    assert (tmp_path / "out.csv").read_text() == "a\n1\n"
    assert "nothing is overwritten" in str(kernel.run("%sandbox scout pull out.csv").error)
    ok(kernel.run("%sandbox scout notebook run.ipynb"))
    ok(kernel.run("%sandbox scout notebook run.ipynb"))  # its own it may
    (tmp_path / "mine.ipynb").write_text("{}")
    assert "there is another file mine.ipynb" in str(kernel.run("%sandbox scout notebook mine.ipynb").error)
