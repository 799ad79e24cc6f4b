"""`%sandbox` and `%%sandbox` in a real kernel, on real sandboxes: outputs, errors, interrupts, variables in and out, forks and gotos."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import Kernel, Ran, ok

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")

SETUP = """
%load_ext llmproc_nb
import pandas as pd
from llmproc_nb import Program

def script(request):
    last = request.path[-1].message
    if last.role == "tool":
        return "It says: " + " / ".join(result.text for result in last.tool_results)
    return {"call": [{"name": "run_python", "arguments": {"code": code.strip()}} for code in last.text.split(";;")]}

coder = Program(name="coder", provider="scripted", model="m", script=script, tools=("run_python",))
df = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "<script>z</script>"]})
"""


@pytest.fixture(scope="module")
def kernel():
    made = Kernel(LLMPROC_NB_STREAM="0")
    assert made.run(SETUP).status == "ok"
    ok(made.run("%%agent scout -p coder\nx = 41", timeout_s=60))
    yield made
    made.close()


def failed(ran: Ran) -> dict[str, Any]:
    """The error of a run, which must have failed."""
    assert ran.status == "error" and ran.error is not None
    return ran.error


def test_a_person_works_in_the_namespace_of_the_model(kernel):
    assert ok(kernel.run("%%sandbox scout\nx += 1\nprint('x is', x)")).printed == "x is 42\n"
    assert "It says: 42" in ok(kernel.run("%%agent scout\nx")).data()[0]
    assert ok(kernel.run("'x' in globals()")).data() == ["False"]


def test_outputs_are_shown_as_they_are_and_made_safe(kernel):
    ok(kernel.run("%sandbox push df"))
    ran = ok(kernel.run("%%sandbox\nimport sys\nprint('out'); print('err', file=sys.stderr)\ndf"))
    assert ran.printed.count("out\n") == 1 and "err\n" in ran.printed
    html = ran.data("text/html")[0]
    assert "<td>x</td>" in html and "<script" not in html and "style" not in html
    figure = ok(kernel.run("%%sandbox\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()"))
    assert figure.data("image/png")


def test_scripts_of_code_never_reach_the_page(kernel):
    code = "from IPython.display import HTML, Javascript\ndisplay(HTML('<img src=x onerror=alert(1)><b>bold</b>'), Javascript('alert(2)'))"
    ran = ok(kernel.run(f"%%sandbox\n{code}"))
    assert ran.data("text/html") == ["<b>bold</b>"]
    assert not ran.data("application/javascript")


def test_a_figure_and_a_table_stand_open_in_the_cell_of_the_agent(kernel):
    code = "df ;; import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()"
    html = ok(kernel.run(f"%%agent scout\n{code}")).data("text/html")[0]
    assert html.count("data:image/png;base64,") == 1 and html.index("</details>") < html.index("<table>")


def test_code_that_raises_makes_the_cell_fail_with_its_own_traceback(kernel):
    raised = failed(kernel.run("%%sandbox\nx = 1\nx / 0"))
    assert raised["ename"] == "CodeError" and raised["evalue"] == "ZeroDivisionError: division by zero"
    assert "----> 2 x / 0" in "\n".join(raised["traceback"])
    assert ok(kernel.run("%%sandbox\nx")).data() == ["1"]


def test_an_interrupt_reaches_the_code_and_the_variables_stay(kernel):
    ran = kernel.run("%%sandbox\ny = 5\nwhile True: pass", interrupt_after_s=0.5)
    assert ran.error is not None and ran.error["ename"] == "KeyboardInterrupt" and ran.interrupt_s < 3
    assert ok(kernel.run("%%sandbox\ny")).data() == ["5"]
    assert ok(kernel.run("%log code")).data("text/plain")


def test_what_an_interrupted_agent_had_printed_is_in_its_answer(kernel):
    ran = kernel.run("%%agent scout\nprint('so far', 6 * 7)\nwhile True: pass", interrupt_after_s=1.0)
    assert ran.error is not None
    assert "so far 42" in ok(kernel.run("scout.messages[-1].tool_results[0].text")).data()[0]


def test_a_timeout_stops_the_code(kernel):
    raised = failed(kernel.run("%%sandbox --timeout 0.5\nwhile True: pass"))
    assert raised["evalue"] == "The cell was stopped after 0.5 s."


def test_a_death_takes_back_its_own_cell_only(kernel):
    ok(kernel.run("%%sandbox\nz = 7"))
    raised = failed(kernel.run("%%sandbox\nz = 8\nimport os; os.kill(os.getpid(), 9)"))
    assert raised["evalue"] == "The session ended with this cell: it was ended by SIGKILL. The next cell goes on with the state before it."
    assert ok(kernel.run("%%sandbox\nz")).data() == ["7"]


def test_an_answer_that_is_made_again_begins_with_the_state_it_had_the_first_time(kernel):
    ok(kernel.run("%%agent bob -p coder\nv = 1", cell="again"))
    ok(kernel.run("%%sandbox bob\nv = 99"))
    ok(kernel.run("%%agent bob -p coder\nv = 1", cell="again"))
    assert ok(kernel.run("%%sandbox bob\nv")).data() == ["1"]
    ok(kernel.run("%kill bob"))


def test_children_do_not_draw_alike_and_a_place_gone_back_to_does(kernel):
    ok(kernel.run("%%agent dice -p coder\nimport random, numpy as np"))
    draw = "random.random(), np.random.rand()"
    ok(kernel.run("%fork dice d1 d2"))
    drawn = [ok(kernel.run(f"%%sandbox {name}\n{draw}")).data()[0] for name in ("dice", "d1", "d2")]
    assert len(set(drawn)) == 3
    ok(kernel.run("%kill dice d1 d2"))


def test_seeded_children_draw_otherwise_but_the_same_each_time(kernel):
    drawn = []
    for _ in range(2):
        ok(kernel.run("%%agent seeded -p coder\nimport random, numpy as np; random.seed(1); np.random.seed(1)"))
        ok(kernel.run("%fork seeded s1 s2"))
        drawn.append([ok(kernel.run(f"%%sandbox {name}\nrandom.random(), np.random.rand()")).data()[0] for name in ("s1", "s2")])
        ok(kernel.run("%kill seeded s1 s2"))
        ok(kernel.run("names = scout.machine._lineages"))  # as in a kernel that begins anew
        ok(kernel.run("for name in [name for name in names if 'seeded' in name]: del names[name]"))
    assert drawn[0] == drawn[1] and drawn[0][0] != drawn[0][1]


def test_a_progress_bar_stays_one_line_and_folders_can_be_changed(kernel):
    bar = ok(kernel.run("%%sandbox scout\nimport sys\nfor n in range(3): sys.stdout.write(f'\\r{n}%'); sys.stdout.flush()"))
    assert bar.printed == "\r0%\r1%\r2%"
    assert "tmp" in ok(kernel.run("%%sandbox scout\n%cd ../tmp\n%cd -")).printed


def test_frames_and_plain_data_come_out(kernel):
    ok(kernel.run("%%sandbox\nresult = df.assign(c=df.a * 2)\nfacts = {'n': 3, 'names': ['x']}"))
    ok(kernel.run("%sandbox pull result facts"))
    assert ok(kernel.run("(result.c.tolist(), facts)")).data() == ["([2, 4, 6], {'n': 3, 'names': ['x']})"]
    assert "script is a function, which would not arrive as it is" in failed(kernel.run("%sandbox push script"))["evalue"]
    ok(kernel.run("%%sandbox\nmonths = df.a.rename('months')"))
    ok(kernel.run("%sandbox pull months"))
    assert ok(kernel.run("type(months).__name__, months.name")).data() == ["('Series', 'months')"]
    assert "there is no variable 'nothing'" in failed(kernel.run("%sandbox pull nothing"))["evalue"]


def test_what_there_is_can_be_looked_at(kernel):
    ok(kernel.run("%%sandbox\nopen('notes.txt', 'w').write('hello')"))
    shown = ok(kernel.run("%sandbox")).data()[0]
    assert "notes.txt" in shown and "df" in shown and "DataFrame" in shown and "namespaces" in shown


def test_forks_and_gotos_take_variables_and_files_along(kernel):
    ok(kernel.run("%%agent deep -p coder\nn = 1; open('f.txt', 'w').write('one')"))
    ok(kernel.run("%fork deep twin"))
    ok(kernel.run("%%sandbox twin\nn += 10; open('f.txt', 'w').write('two'); n"))
    look = "n, open('f.txt').read()"
    assert ok(kernel.run(f"%%sandbox twin\n{look}")).data() == ["(11, 'two')"]
    assert ok(kernel.run(f"%%sandbox deep\n{look}")).data() == ["(1, 'one')"]
    ok(kernel.run("%%agent deep\nn = 99; open('f.txt', 'w').write('three')"))
    ok(kernel.run("%goto deep ~1"))
    assert ok(kernel.run(f"%%sandbox deep\n{look}")).data() == ["(1, 'one')"]
    ok(kernel.run("%goto deep --undo"))
    assert ok(kernel.run(f"%%sandbox deep\n{look}")).data() == ["(99, 'three')"]
    ok(kernel.run("%kill twin"))
    ok(kernel.run("%kill deep"))


def test_what_ran_can_be_had_as_a_notebook_that_runs(kernel, tmp_path: Path):
    from nbclient import NotebookClient

    ok(kernel.run("%%agent author -p coder\na = 2 ;; a * 21"))
    file = tmp_path / "run.ipynb"
    ok(kernel.run(f"%sandbox notebook {file} -p author"))
    book = nbformat.read(file, 4)
    nbformat.validate(book)
    assert [cell.source for cell in book.cells] == ["a = 2", "a * 21"]
    assert book.cells[1].outputs[0].data["text/plain"] == "42"
    NotebookClient(book, kernel_name="python3").execute()
    assert book.cells[1].outputs[0].data["text/plain"] == "42"
    ok(kernel.run("%kill author"))


def test_a_cell_that_raised_does_not_stop_the_notebook_that_ran(kernel, tmp_path: Path):
    from nbclient import NotebookClient

    ok(kernel.run("%%agent careless -p coder\nx = 1 ;; 1 / 0 ;; import sys; sys.exit(3) ;; print(x + 1)"))
    file = tmp_path / "raised.ipynb"
    ok(kernel.run(f"%sandbox notebook {file} -p careless"))
    book = nbformat.read(file, 4)
    assert [cell.metadata.get("tags") for cell in book.cells] == [None, ["raises-exception"], ["raises-exception"], None]
    NotebookClient(book, kernel_name="python3").execute()
    assert [cell.outputs[0].get("ename", "") for cell in book.cells[1:3]] == ["ZeroDivisionError", "SystemExit"]
    assert book.cells[3].outputs[0].text == "2\n"
    ok(kernel.run("%kill careless"))


def test_what_came_from_outside_is_in_the_notebook_too(kernel, tmp_path: Path):
    from nbclient import NotebookClient

    ok(kernel.run("import numpy as np\narr = np.eye(2)\nfacts = {'n': [1, None]}\nbig = np.zeros(1_000_000)"))
    ok(kernel.run("row = pd.Series([1, 2], name=2023, index=pd.date_range('2020', periods=2, freq='MS'))\nmean = np.float64(0.5)"))
    ok(kernel.run("from llmproc_nb.core.sandbox import SandboxRules"))
    fields = "provider='scripted', model='m', script=script, sandbox=SandboxRules(variables=('df',))"
    ok(kernel.run(f"given = Program(name='given', {fields})"))
    ok(kernel.run("%spawn whole from given"))
    ok(kernel.run("%%sandbox whole\nn = len(df)"))
    ok(kernel.run("%sandbox whole push arr facts row mean"))
    (tmp_path / "some-file.csv").write_text("a,b\n1,2\n")
    ok(kernel.run(f"%sandbox whole files {tmp_path / 'some-file.csv'}"))
    ok(kernel.run("%%sandbox whole\nn, arr.sum(), facts, df.b.tolist(), row.name, row.index.freqstr, mean, open('some-file.csv').read()"))
    ok(kernel.run("%sandbox whole push big"))
    file = tmp_path / "whole.ipynb"
    ok(kernel.run(f"%sandbox whole notebook {file}"))
    book = nbformat.read(file, 4)
    assert "came from outside" in book.cells[-1].source and "big" in book.cells[-1].source
    answer = book.cells[-2].outputs[0].data["text/plain"]
    book.cells[-2].outputs = []
    NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert book.cells[-2].outputs[0].data["text/plain"] == answer and "<script>z" in answer
    ok(kernel.run("%kill whole"))


def test_a_process_may_be_named_before_or_after(kernel):
    ok(kernel.run("%%agent other -p coder\nn = 3"))
    for line in ("%sandbox other", "%sandbox other show", "%sandbox show -p other", "%sandbox -p other"):
        assert "sandbox of" in ok(kernel.run(line)).data()[0] and "other" in ok(kernel.run(line)).data()[0]
    ok(kernel.run("%sandbox other push df"))
    assert ok(kernel.run("%%sandbox -p other\nlen(df)")).data() == ["3"]
    ok(kernel.run("%kill other"))


def test_wrong_words_are_told_in_one_line(kernel):
    assert "'nonsense' is no process, and nothing %sandbox does" in failed(kernel.run("%sandbox nonsense"))["evalue"]
    for words in ("df as x", "df.a", "df[1]"):
        assert "is no variable's name" in failed(kernel.run(f"%sandbox push {words}"))["evalue"]
    assert "has df, x1" in ok(kernel.run("x1 = 1\n%sandbox push df,x1")).printed
    assert "x1 had another value before" in ok(kernel.run("%sandbox pull x1")).printed
    assert "no variable is named" in failed(kernel.run("%sandbox push"))["evalue"]
    assert "no notebook's file" in failed(kernel.run("%sandbox notebook x.txt"))["evalue"]
    assert "there is no process 'nobody'" in failed(kernel.run("%%sandbox nobody\n1"))["evalue"]
