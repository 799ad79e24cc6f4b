"""What cells of a sandbox give: text, values, pictures, tables, errors, in the order in which they came."""

from __future__ import annotations

import asyncio
import base64
import io

import pandas as pd
import pyarrow as pa
import pytest
from sandboxes import in_shell, linux_only, opened, ran, said, text_of, tiers

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import Output

pytestmark = linux_only


@in_shell()
async def test_a_cell_gives_its_text_and_its_value(shell):
    done = await ran(shell, "print('hello')\nimport sys\nprint('careful', file=sys.stderr)\n6 * 7")
    assert done.status == "ok"
    assert done.outputs == (
        Output(kind="stream", name="stdout", text="hello\n"),
        Output(kind="stream", name="stderr", text="careful\n"),
        Output(kind="execute_result", data={"text/plain": "42"}),
    )
    assert done.notes == ()
    assert done.duration_s > 0 and done.memory_mb > 1


@in_shell()
async def test_variables_stay_from_cell_to_cell(shell):
    await ran(shell, "x = 5\nimport json\ndef twice(n): return 2 * n")
    assert await said(shell, "twice(x), json.dumps(x)") == "(10, '5')"


@in_shell()
async def test_outputs_keep_their_order_whoever_writes_them(shell):
    code = """
import os, sys, subprocess
for round in range(20):
    print('print', round)
    display(f'display {round}')
    os.write(1, b'raw\\n')
    print('error', file=sys.stderr)
    subprocess.run(['echo', 'subprocess'])
    !echo shell {round}
"""
    done = await ran(shell, code)
    expected = "".join(f"print {n}\n'display {n}'raw\nerror\nsubprocess\nshell {n}\n" for n in range(20))
    assert text_of(done.outputs) == expected


@in_shell()
async def test_text_is_joined_and_told_while_the_cell_runs(shell):
    told = []
    done = await shell.run(
        "for n in range(3): print(n); time.sleep(0.1)".replace("for", "import time\nfor"), timeout_s=10, on_output=told.append
    )
    assert [output.text for output in done.outputs] == ["0\n1\n2\n"]
    assert "".join(output.text for output in told) == "0\n1\n2\n" and len(told) == 3


@in_shell()
async def test_letters_that_are_torn_apart_by_the_pipe_come_whole(shell):
    assert await said(shell, "print('é€😀' * 100_000)") == "é€😀" * 100_000 + "\n"
    assert await said(shell, "import os; _ = os.write(1, b'\\xff\\xfe a')") == "\ufffd\ufffd a"


@in_shell()
async def test_an_error_names_its_cell_and_line(shell):
    await ran(shell, "def half(x):\n    return 1 / x")
    done = await ran(shell, "half(0)")
    error = done.outputs[-1]
    assert (done.status, error.kind, error.name, error.text) == ("error", "error", "ZeroDivisionError", "division by zero")
    trace = "\n".join(error.trace)
    assert "Cell In[2], line 1" in trace and "Cell In[1], line 2, in half(x)" in trace and "----> 2     return 1 / x" in trace
    assert "\x1b" not in trace


@in_shell()
async def test_an_error_deep_in_a_library_has_a_short_trace_without_our_own_frames(shell):
    done = await ran(shell, "import pandas as pd\npd.DataFrame({'a': [1]})['b']")
    trace = "\n".join(done.outputs[-1].trace)
    assert done.outputs[-1].name == "KeyError" and "Cell In[1], line 2" in trace
    assert trace.count("File ") <= 4
    done = await ran(shell, "input()")
    assert "inside" not in "\n".join(done.outputs[-1].trace)


@in_shell()
async def test_a_syntax_error_shows_the_place(shell):
    done = await ran(shell, "x = 1\ny = = 2")
    assert done.status == "error" and done.outputs[-1].name == "SyntaxError"
    assert "Cell In[1]" in "\n".join(done.outputs[-1].trace)


@in_shell()
async def test_an_error_whose_text_cannot_be_had_is_still_an_error(shell):
    done = await ran(shell, "class Bad(Exception):\n    def __str__(self): raise ValueError('no')\nraise Bad()")
    assert (done.status, done.outputs[-1].kind) == ("error", "error")
    assert await said(shell, "1") == "1"


@in_shell()
async def test_a_cell_can_await(shell):
    assert await said(shell, "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    return 7\nawait f()") == "7"
    assert await said(shell, "sum(await asyncio.gather(f(), f()))") == "14"


@in_shell()
async def test_a_figure_is_a_picture_at_the_end_of_its_cell(shell):
    pytest.importorskip("matplotlib")
    done = await ran(shell, "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);\nprint('drawn')")
    assert [output.kind for output in done.outputs] == ["stream", "display_data"]
    assert base64.b64decode(done.outputs[1].data["image/png"]).startswith(b"\x89PNG")
    done = await ran(shell, "fig, ax = plt.subplots()\nfig")
    assert sum("image/png" in output.data for output in done.outputs) == 2
    assert (await ran(shell, "1")).outputs == (Output(kind="execute_result", data={"text/plain": "1"}),)


@in_shell()
async def test_a_frame_carries_what_a_model_reads(shell):
    done = await ran(shell, "import pandas as pd\npd.DataFrame({'a': range(100), 'b': 'x'})")
    data = done.outputs[0].data
    assert data["text/html"].startswith("<div>") and "text/plain" in data
    frame = data["application/vnd.llmproc.frame+json"]
    assert frame["said"].startswith("pandas DataFrame, 100 rows × 2 columns\ncolumn,dtype,missing\na,int64,0\nb,str,0\n")
    assert frame["page_lines"] == 50
    assert pd.read_csv(io.StringIO(frame["rows"]), index_col=0).shape == (100, 2)
    small = (await ran(shell, "pd.DataFrame({'a': [1, None]})")).outputs[0].data["application/vnd.llmproc.frame+json"]
    assert small["rows"] == "" and "all rows as CSV" in small["said"]


@in_shell()
async def test_a_series_carries_what_its_own_text_leaves_out(shell):
    kind = "application/vnd.llmproc.frame+json"
    data = (await ran(shell, "import pandas as pd\npd.Series(range(5000), name='n')")).outputs[0].data
    assert "Length: 5000" in data["text/plain"] and data[kind]["said"].startswith("pandas Series 'n', 5,000 values")
    assert data[kind]["rows"] == pd.Series(range(5000), name="n").to_csv()
    cut = (await ran(shell, "pd.Series(['x' * 99 + 'end'])")).outputs[0].data
    assert cut[kind]["rows"] == "" and "xend\n" in cut[kind]["said"]
    assert kind not in (await ran(shell, "pd.Series(range(9))")).outputs[0].data


@in_shell()
async def test_the_rows_of_a_large_frame_are_cut_with_a_word(shell):
    done = await ran(shell, "import pandas as pd\npd.DataFrame({'text': ['x' * 1000] * 30_000})")
    made = done.outputs[0].data["application/vnd.llmproc.frame+json"]
    assert len(made["rows"]) < 20_001_000 and made["rows"].endswith("x\n") and made["whole"] is False


@in_shell()
async def test_an_update_takes_the_place_of_what_it_updates(shell):
    code = "h = display('first', display_id='it')\nprint('between')\nh.update('second')"
    done = await ran(shell, code)
    assert [output.data.get("text/plain", output.text) for output in done.outputs] == ["'second'", "between\n"]
    later = await ran(shell, "h.update('third')")
    assert [output.data["text/plain"] for output in later.outputs] == ["'third'"]


@in_shell()
async def test_what_is_cleared_is_gone(shell):
    code = "from IPython.display import clear_output\nfor n in range(5):\n    clear_output(wait=True)\n    display(n)"
    done = await ran(shell, code)
    assert text_of(done.outputs) == "4"
    assert done.notes == ()


@in_shell()
async def test_nobody_can_be_asked(shell):
    for code in ("input('name? ')", "import getpass; getpass.getpass()"):
        done = await ran(shell, code)
        assert (done.status, done.outputs[-1].name) == ("error", "StdinNotImplementedError")
        assert "Set the value in the code instead" in done.outputs[-1].text


@in_shell()
async def test_leaving_does_not_end_the_session(shell):
    await ran(shell, "x = 1")
    assert "goes on" in text_of((await ran(shell, "exit()")).outputs)
    assert "goes on" in text_of((await ran(shell, "quit")).outputs)
    done = await ran(shell, "import sys; sys.exit(3)")
    assert done.status == "error" and "goes on" in done.outputs[-1].trace[-1]
    assert (await ran(shell, "sys.exit()")).status == "ok"
    assert await said(shell, "x") == "1"


@in_shell()
async def test_programs_run_as_in_a_notebook(shell):
    assert await said(shell, "!echo one {1 + 1}") == "one 2\n"
    assert (await ran(shell, "!echo two >&2")).outputs == (Output(kind="stream", name="stderr", text="two\n"),)
    assert await said(shell, "files = !ls /usr | head -1\nlen(files)") == "1"
    assert await said(shell, "%%bash\nx=5\necho $((x + 1))") == "6\n"
    assert await said(shell, "%%bash --out text\necho kept") == ""
    assert await said(shell, "text") == "'kept\\n'"
    done = await ran(shell, "%%bash\nexit 3")
    assert done.status == "error" and done.outputs[-1].name == "CalledProcessError"
    assert await said(shell, "%%script cat -\nas it is") == "as it is\n"
    assert await said(shell, "import threading; threading.active_count()") == "1"


@in_shell()
async def test_what_would_run_in_the_notebook_is_left_out(shell):
    code = """
class Hostile:
    def _repr_mimebundle_(self, **_):
        return {'application/javascript': 'alert(1)', 'application/vnd.jupyter.widget-view+json': {'model_id': 'x'},
                'text/plain': 'plain', 7: 'seven', 'application/json': {1: float('nan'), 'deep': {2: b'x'}}, 'image/png': b'abc'}
    def __repr__(self): return 'plain'
Hostile()
"""
    done = await ran(shell, code)
    data = done.outputs[0].data
    assert set(data) == {"text/plain", "7", "application/json", "image/png"}
    assert data["application/json"] == {"1": None, "deep": {"2": "eA=="}}
    assert data["image/png"] == "YWJj"
    only = await ran(shell, "from IPython.display import Javascript\ndisplay(Javascript('alert(1)'), exclude=['text/plain'])")
    assert "application/javascript" not in only.outputs[0].data and only.outputs[0].data["text/plain"]


@in_shell()
async def test_halves_of_letters_and_huge_numbers_are_still_data(shell):
    done = await ran(shell, "display({'application/json': [10**100, 2**70, '\\ud800'], 'text/plain': '\\ud800x'}, raw=True)")
    assert done.status == "ok" and done.outputs[0].data["text/plain"] == "?x"
    assert (await ran(shell, "print('\\ud800')")).outputs[0].text == "\\ud800\n"


@in_shell()
async def test_a_frame_goes_in_and_out_as_it_is(shell):
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=pd.Index([5, 6], name="i"))
    table = pa.Table.from_pandas(frame)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    await shell.put({"df": sink.getvalue().to_pybytes(), "settings": {"deep": [1, None, "é"]}})
    assert await said(shell, "df.shape, settings") == "((2, 2), {'deep': [1, None, 'é']})"
    with pa.ipc.open_stream(await shell.get("df")) as stream:
        pd.testing.assert_frame_equal(stream.read_all().to_pandas(), frame)
    await ran(shell, "import numpy as np\nvalues = {'mean': np.float64(1.5), 'all': [np.int64(2)]}")
    assert await shell.get("values") == {"mean": 1.5, "all": [2]}


@in_shell()
async def test_what_cannot_come_out_is_said(shell):
    await ran(shell, "thing = object()")
    with pytest.raises(ToolError, match="thing is an object, which would not arrive as it is"):
        await shell.get("thing")
    with pytest.raises(ToolError, match="there is no variable 'nothing'"):
        await shell.get("nothing")
    with pytest.raises(ToolError, match="is no name"):
        await shell.put({"a b": 1})
    with pytest.raises(ToolError, match="no plain JSON"):
        await shell.put({"a": {1, 2}})
    assert await said(shell, "1") == "1"


@in_shell()
async def test_files_go_in_and_out_and_stay_in_the_folder(shell):
    await shell.write_file("data/a.bin", bytes(range(256)) * 1000)
    assert await said(shell, "len(open('data/a.bin', 'rb').read())") == "256000"
    await ran(shell, "open('out.txt', 'w').write('hello'); import os; os.symlink('/etc/passwd', 'link')")
    assert await shell.read_file("out.txt") == b"hello"
    for path in ("../x", "/etc/passwd", "link", "", "data", "nothing"):
        with pytest.raises(ToolError):
            await shell.read_file(path)
    with pytest.raises(ToolError):
        await shell.write_file("a/../../x", b"")


@in_shell()
async def test_a_look_says_what_there_is_and_leaves_no_trace(shell):
    code = "import numpy as np, pandas as pd, time\n"
    code += "n = 1; text = 'a' * 500; items = [1]\na = np.ones((2, 3)); df = pd.DataFrame({'x': [1]})\n_hidden = 1\n"
    code += (
        "class Slow:\n    def __repr__(self): time.sleep(60)\n    __len__ = __repr__\nslow = Slow()\nopen('file.txt', 'w').write('abc');"
    )
    await ran(shell, code)
    look = await asyncio.wait_for(shell.look(), 2)
    said_of = {one.name: (one.kind, one.said) for one in look.variables}
    assert {name: said_of[name] for name in ("n", "items", "a", "df", "slow", "np")} == {
        "n": ("int", "1"),
        "items": ("list", "1 item"),
        "a": ("ndarray", "2 × 3"),
        "df": ("DataFrame", "1 × 1"),
        "slow": ("Slow", ""),
        "np": ("module", "numpy"),
    }
    assert "_hidden" not in said_of and "In" not in said_of and len(said_of["text"][1]) == 200
    assert look.files == (("file.txt", 3),)
    assert await said(shell, "len(In)") == "3"


def test_the_files_of_a_program_are_there(tmp_path):
    (tmp_path / "data/deep").mkdir(parents=True)
    (tmp_path / "data/a.csv").write_text("a\n1\n")
    (tmp_path / "data/deep/b.csv").write_text("b\n")
    (tmp_path / "one.txt").write_text("one")

    async def look():
        async with opened(tmp_path, files=("data", "*.txt")) as door:
            shell = await door.start()
            names = await said(shell, "import glob; sorted(glob.glob('**/*', recursive=True))")
            assert names == "['data', 'data/a.csv', 'data/deep', 'data/deep/b.csv', 'one.txt']"
        async with opened(tmp_path, files=("nothing.csv",)) as door:
            with pytest.raises(ToolError, match=r"there is no file nothing\.csv"):
                await door.start()
        async with opened(tmp_path / "data", files=("../one.txt",)) as door:
            with pytest.raises(ToolError, match="leads out of the program's folder"):
                await door.start()

    asyncio.run(look())


@pytest.mark.parametrize("tier", ["namespaces", "landlock", "process"])
def test_every_tier_runs_cells_in_a_folder_of_its_own(tier):
    if tier not in tiers():
        pytest.skip(f"the tier {tier} cannot be had on this machine")

    async def look():
        async with opened(tier=tier) as door:
            one, two = await door.start(), await door.start()
            await ran(one, "x = 1; open('mine', 'w').write('1')")
            assert await said(two, "import os; 'x' in globals(), os.listdir(), os.getcwd() == os.path.realpath('.')") == "(False, [], True)"
            assert await said(two, "os.environ['HOME'] == os.path.dirname(os.getcwd()) + '/home'") == "True"

    asyncio.run(look())


@in_shell(env={"GREETING": "hello"})
async def test_the_environment_is_what_the_program_says(shell):
    assert await said(shell, "import os; os.environ['GREETING']") == "'hello'"
    assert await said(shell, "!echo $GREETING") == "hello\n"


@in_shell()
async def test_modules_of_the_working_folder_can_be_imported(shell):
    await shell.write_file("helper.py", b"value = 8")
    assert await said(shell, "import helper; helper.value") == "8"


@in_shell()
async def test_display_in_a_process_that_the_code_forked_disturbs_nothing(shell):
    code = "import os\nif (pid := os.fork()) == 0:\n    display('child')\n    os._exit(0)\nos.waitpid(pid, 0)\n'parent'"
    done = await ran(shell, code)
    assert done.outputs[-1].data["text/plain"] == "'parent'"
    fallen = await ran(shell, "pid = os.fork()")  # the child comes out of the cell
    assert fallen.status == "ok" and await said(shell, "1 + 1") == "2"


@in_shell()
async def test_workers_of_multiprocessing_work(shell):
    code = "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as pool:\n    print(pool.map(abs, [-1, -2]))"
    assert await said(shell, code) == "[1, 2]\n"
