"""Agent cells in a real kernel: streaming, interrupts in every style of use, tools on the main thread, cells that branch."""

from __future__ import annotations

import time

import pytest
from kernels import Kernel, error, ok
from kernels import kernel as reloaded

SETUP = '''
%load_ext llmproc_nb
import threading, time
from llmproc_nb import Program

def where() -> str:
    """Say which thread this is."""
    print("in the tool")
    return threading.current_thread().name

def block() -> str:
    """Take long."""
    time.sleep(30)

slow = {"when": "slow", "say": "word " * 400, "delay_s": 0.02}
prog = Program(name="prog", provider="scripted", model="m", script=(
    slow,
    {"when": "where", "say": "let me see", "call": [{"name": "where"}]},
    {"when": "block", "say": "let me see", "call": [{"name": "block"}]},
    {"when": "Thread|llmproc-", "say": "{{result}}"},
    {"say": "one"}, {"say": "two"}, {"say": "three"}, {"say": "four"},
))
'''


@pytest.fixture(scope="module")
def kernel():
    made = Kernel(LLMPROC_NB_STREAM="")
    assert made.run(SETUP).status == "ok"
    yield made
    made.close()


def test_an_answer_grows_in_one_display(kernel):
    kernel.run("%config AgentMagics.stream = 'auto'")
    ran = kernel.run("%%agent grow -p prog\nslow please", cell="grow", interrupt_after_s=1.0)
    kinds = [kind for kind, content in ran.outputs if "data" in content]
    assert kinds[0] == "display_data" and set(kinds[1:]) == {"update_display_data"}
    ids = {content["transient"]["display_id"] for kind, content in ran.outputs if "data" in content}
    assert len(ids) == 1
    assert 4 <= len(kinds) <= 14  # about eight updates a second


def test_a_front_end_without_cell_ids_gets_exactly_one_bundle(kernel):
    ran = kernel.run("%%agent single -p prog\nhello")
    assert [kind for kind, _ in ran.outputs] == ["display_data"]
    assert sorted(ran.outputs[0][1]["data"]) == ["application/vnd.llmproc.turn+json", "text/html", "text/markdown", "text/plain"]
    assert ran.data() == ["single (scripted: no model answered): one"]


def test_the_cells_value_is_the_result(kernel):
    kernel.run("%%agent value -p prog\nhello")
    assert kernel.run("type(_).__name__, _.text, value.head is _.nodes[-1]").data() == ["('RunResult', 'one', True)"]


@pytest.mark.parametrize(
    ("style", "name"),
    [
        ("%%agent {name} -p prog\nslow please", "KeyboardInterrupt"),
        ("%%time\n%%agent {name} -p prog\nslow please", "KeyboardInterrupt"),
        ("for i in range(2):\n    get_ipython().run_cell_magic('agent', '{name} -p prog', 'slow please')", "KeyboardInterrupt"),
        ("{name} = prog.start(); {name}.run('slow please').result()", "KeyboardInterrupt"),
        ("{name} = prog.start(); {name}.run('slow please')", "KeyboardInterrupt"),
        ("{name} = prog.start(); print({name}.run('slow please'))", "KeyboardInterrupt"),
        ("{name} = prog.start(); await {name}.run('slow please')", "CancelledError"),
        ("%%agent {name} -p prog --tools block\nblock please", "KeyboardInterrupt"),
    ],
)
def test_an_interrupt_acts_at_once_and_the_process_goes_on(kernel, request, style, name):
    process = f"p{abs(hash(request.node.name)) % 10**8}"
    ran = kernel.run(style.replace("{name}", process), cell=process, interrupt_after_s=0.7)
    assert ran.status == "error" and ran.error["ename"] == name
    assert len(ran.error["traceback"]) == 1
    assert ran.interrupt_s < 3
    said = kernel.run(f"{process}.messages[-1].interrupted or {process}.messages[-1].tool_results[0].is_error").data()
    assert said == ["True"]
    assert "one" in kernel.run(f"print({process}.run('go on'))").printed


def test_tools_of_the_notebook_run_on_its_main_thread(kernel):
    ran = kernel.run("%%agent main -p prog --tools where\nwhere are you")
    assert ran.printed == "in the tool\n"
    assert ran.data()[-1].endswith("MainThread")


def test_tools_run_on_the_main_thread_in_nested_cells_too(kernel):
    ran = kernel.run("%%time\n%%agent nested -p prog --tools where\nwhere are you")
    assert "in the tool" in ran.printed
    assert ran.data()[-1].endswith("MainThread")


def test_a_background_call_goes_on_while_other_cells_run(kernel):
    first = kernel.run("%%agent back -p prog --bg\nhello", cell="back")
    assert first.printed == ""
    assert "in the background: `%wait back` waits for the answer" in first.data()[0]
    assert kernel.run("1 + 1").data() == ["2"]
    assert kernel.run("%wait back").data() == ["back (scripted: no model answered): one"]


def test_tools_of_a_background_call_leave_the_main_thread_alone(kernel):
    kernel.run("%%agent back2 -p prog --bg --tools where\nwhere are you")
    assert "llmproc-tool" in kernel.run("%wait back2").data()[-1]


def roles(kernel, name):
    return kernel.run(f"[(m.role[0] + ':' + m.text) for m in {name}.messages[1:]]").data()[0]


def test_a_cell_that_is_run_again_branches(kernel):
    kernel.run("%%agent b -p prog\nfirst", cell="b1")
    kernel.run("%%agent b\nsecond", cell="b2")
    assert roles(kernel, "b") == "['u:first', 'a:one', 'u:second', 'a:two']"
    kernel.run("%%agent b\nsecond, other words", cell="b2")
    assert roles(kernel, "b") == "['u:first', 'a:one', 'u:second, other words', 'a:two']"
    left = kernel.run("len(b.machine.dialog.children(b.head.parent.parent))").data()
    assert left == ["2"]


def test_a_cell_below_one_that_was_run_again_follows_it(kernel):
    kernel.run("%%agent f -p prog\nfirst", cell="f1")
    kernel.run("%%agent f\nsecond", cell="f2")
    kernel.run("%%agent f\nfirst, changed", cell="f1")
    assert roles(kernel, "f") == "['u:first, changed', 'a:one']"
    kernel.run("%%agent f\nsecond", cell="f2")
    assert roles(kernel, "f") == "['u:first, changed', 'a:one', 'u:second', 'a:two']"


def test_a_loop_in_one_cell_goes_on_instead_of_branching(kernel):
    kernel.run("for word in 'ab':\n    get_ipython().run_cell_magic('agent', 'loop -p prog', word)", cell="loop")
    assert roles(kernel, "loop") == "['u:a', 'a:one', 'u:b', 'a:two']"


def test_without_cell_ids_a_repeated_prompt_is_appended_and_that_is_said(kernel):
    kernel.run("%%agent r -p prog\nsame")
    ran = kernel.run("%%agent r\nsame")
    assert roles(kernel, "r") == "['u:same', 'a:one', 'u:same', 'a:two']"
    assert "does not say which cell" in ran.data()[-1]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%agent e -p prog --toools x\nhi", "did you mean --tools?"),
        ("%%agent e -p nowhere.toml\nhi", "nowhere.toml"),
        ("%%agent e -p pro\nhi", "did you mean 'prog'?"),
        ("%%agent e -m nonsense:x\nhi", "unknown provider 'nonsense'"),
        ("%%agent e -m claude_code:x\nhi", "claude_code"),
        ("%%agent e -p prog --tools wher\nhi", "PersonError: %%agent --tools: there is no tool 'wher'; did you mean 'where'?"),
        (
            "%%agent e -p prog --tools x_y\nhi",
            "functions of this notebook: block, where; tools that ship: calculator, read_file, list_dir, ",
        ),
        ("%%agent e -p prog --tools threading\nhi", "'threading' is a module of this notebook, which is no tool; functions of this"),
        ("%%agent e -p prog --tools slow\nhi", "'slow' is a dict of this notebook, which is no tool"),
        ("%%agent e -p prog\nhi {{nothing_here}}", "nothing_here"),
        ("%%agent e -p prog\nhi {{1/0}}", "ZeroDivisionError"),
        ("%%agent time -p prog\nhi", "'time' is a module of this notebook already"),
        ("%%agent 2x -p prog\nhi", "'2x' cannot be a name"),
        ("%%agent e -p prog\n\n", "the cell has no prompt"),
        ("%%agent e -p 'prog\nhi", "quotes come in pairs"),
        ("%kill nobody", "there is no process 'nobody'"),
        ("%log nothing", "there is no frame 'nothing'; there are calls, messages, tools, processes, fds, code, events, seen."),
        ("%log messages scout", "'scout' is not the number of a request; `%log messages -n scout` is only of process scout. See `%log?`."),
        ("%log seen scout", "`%log seen -n scout` is only of process scout"),
        ("%agent scout", "a cell that begins with `%%agent scout` runs a process. See `%agent?`."),
        ("%agent scout --model x", "a cell that begins with `%%agent scout` runs a process"),
        ("%agent --toools x", "%agent: unrecognized arguments: --toools x"),
        ("%agent --mode replay --recording missing-one", "mode is chosen before the first one starts"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_right(kernel, cell, said):
    ran = kernel.run(cell)
    assert ran.status == "error"
    assert len(ran.error["traceback"]) == 1 and "\n" not in ran.error["traceback"][0]
    assert said in ran.error["traceback"][0]
    assert kernel.run("'e' in dir()").data() == ["False"]


def test_tools_may_be_listed_with_spaces(kernel):
    kernel.run("%%agent spaced -p prog --tools where, block --max-steps 3\nhi")
    kernel.run("%%agent spaced --tools=where , block  # and a comment\nhi")
    assert kernel.run("[tool.name for tool in spaced.tools][:2]").data() == ["['where', 'block']"]


def test_a_name_that_is_no_function_hides_no_tool_that_ships(kernel):
    try:
        ok(kernel.run("import copy\npaste = slow\ncalculator = 'read_file'"))
        ok(kernel.run("%%agent copies -p prog --tools copy,paste\nhi"))
        ok(kernel.run("%%agent copies --tools calculator\nhi"))
        names = kernel.run("sorted({tool.name for tool in copies.tools} & {'copy', 'paste', 'calculator', 'read_file'})")
        assert names.data() == ["['calculator', 'copy', 'paste']"]
    finally:
        kernel.run("del copy, paste, calculator")


def test_a_mode_that_comes_too_late_says_what_to_do(kernel):
    kernel.run("%%agent early -p prog\nhi")
    step = "Restart the kernel and run `%agent --mode record --recording r` before the first %%agent cell."
    assert kernel.run("%agent --mode record --recording r").error["evalue"].endswith(step)
    assert "run `%agent --mode record` before" in kernel.run("%config AgentMagics.mode = 'record'").printed


def test_a_value_that_is_cut_is_said_in_the_cell_and_in_a_dry_run(kernel):
    kernel.run("%config AgentMagics.value_tokens = 10\nlong = 'x' * 5000")
    try:
        note = "long: the first 40 of 5,000 characters; a value takes at most 10 tokens"
        assert note in kernel.run("%%agent cut -p prog\n@long").data()[-1]
        assert note in kernel.run("%%agent cut --dry-run\n@long").data()[-1]
    finally:
        kernel.run("%config AgentMagics.value_tokens = 10_000")
    dry = kernel.run("%%agent cut --dry-run\n@long")
    assert "… (5,000 characters)" in dry.data()[0] and "`_.body` is the whole request" in dry.data("text/html")[0]
    assert kernel.run("'x' * 5000 in str(_.body)").data() == ["True"]


def test_a_program_cannot_change_under_a_running_process(kernel):
    kernel.run("%%agent fixed -p prog\nhi", cell="x1")
    ran = kernel.run("%%agent fixed --system other\nhi", cell="x2")
    assert "runs program 'prog' (m) already" in ran.error["evalue"]


def test_max_steps_counts_for_the_call_of_its_cell(kernel):
    kernel.run("from llmproc_nb import Program")
    kernel.run("L = Program(name='L', provider='scripted', model='m', script=({'call': [{'name': 'where'}]},) * 4 + ({'say': 'at last'},))")
    steps = "_.stop_reason, len(_.api_calls), looper.pid"
    kernel.run("%%agent looper --program L --tools where --max-steps 2\ngo", cell="l1")
    assert kernel.run(steps).data()[0].startswith("('max_steps', 2")
    pid = kernel.run("looper.pid").data()
    assert ok(kernel.run("%%agent looper --max-steps 1\ngo on", cell="l2")).status == "ok"
    assert kernel.run(steps).data() == [f"('max_steps', 1, {pid[0]})"]
    ok(kernel.run("%%agent looper --program L --max-steps 5\ngo on", cell="l3"))
    assert kernel.run(steps).data() == [f"('end_turn', 2, {pid[0]})"]
    ok(kernel.run("%%agent looper --program L --tools where --max-steps 4\ngo", cell="l1"))
    assert kernel.run(steps).data() == [f"('max_steps', 4, {pid[0]})"]


def test_a_process_without_any_reply_may_be_started_anew(kernel):
    assert "AuthError" in error(kernel.run("%%agent other --model gpt-9\nhi", cell="o1"))
    before = kernel.run("first = other; len([one for one in first.machine.processes.values() if one.alive])").data()
    assert kernel.run("%%agent other -p prog\nhi", cell="o2").data()[-1] == "other (scripted: no model answered): one"
    alive = "len([one for one in first.machine.processes.values() if one.alive])"
    assert kernel.run(f"{alive}, first.alive, other.alive").data() == [f"({before[0]}, False, True)"]
    assert kernel.run("list(get_ipython().run_line_magic('log', 'calls -n other').error.notna())").data() == ["[True, False]"]
    assert "runs program 'prog' (m) already" in error(kernel.run("%%agent other --model gpt-9\nhi", cell="o3"))


def test_a_process_that_has_not_replied_yet_is_not_started_anew(kernel):
    kernel.run("%%agent busy -p prog --bg\nslow please", cell="u1")
    said = error(kernel.run("%%agent busy --system other\nhi", cell="u2"))
    kernel.run("%kill busy")
    assert "runs program 'prog' (m) already" in said


EDITED = """
from llmproc_nb import Program
def add_up(a: int) -> int:
    return a + SUM
P = Program(name="P", system="SYSTEM", provider="scripted", model="m", tools=(add_up,), script=lambda request: "answer" + "SAID")
"""


def edited(kernel, system="one", total="1", said=""):
    ok(kernel.run(EDITED.replace("SYSTEM", system).replace("SUM", total).replace("SAID", said)))


def test_a_program_that_was_edited_is_noted_in_the_cell(kernel, tmp_path):
    note = "{0} goes on with the program it began with, which was changed since; after `%kill {0}` a cell starts it from the new one"
    edited(kernel)
    kernel.run("%%agent s --program P\nhi", cell="s1")
    for changed in ({}, {"system": "two"}, {"total": "2"}, {"said": "!"}, {}):
        edited(kernel, **changed)
        said = kernel.run("%%agent s --program P\nagain", cell="s2").data()[-1]
        assert (note.format("s") in said) == bool(changed), changed
    edited(kernel, system="three")
    unnamed = [note.format("s") in kernel.run("%%agent s\nmore", cell="s3").data()[-1] for _ in range(2)]
    assert unnamed == [True, False]
    kernel.run("%kill s")
    assert "goes on" not in kernel.run("%%agent s --program P\nanew", cell="s4").data()[-1]
    assert kernel.run("s.program.system").data() == ["'three'"]
    file, text = tmp_path / "prg.toml", '[model]\nname = "m"\nprovider = "scripted"\n[prompt]\nsystem = "one"\n'
    text += '[[script.turns]]\nwhen = "hi"\nsay = "yes"\n'
    for number, written in enumerate((text, text, text.replace("one", "two"), text.replace("yes", "no"), "[")):
        file.write_text(written)
        ran = ok(kernel.run(f"%%agent t --program {file}\nhi {number}", cell=f"t{number}"))
        assert (note.format("t") in ran.data()[-1]) == (number in (2, 3)), number


def test_the_cell_that_made_a_process_may_make_it_anew(kernel):
    kernel.run("%%agent anew -p prog\nhi", cell="y1")
    first = kernel.run("anew.pid").data()
    kernel.run("%%agent anew -p prog --system other\nhi", cell="y1")
    assert kernel.run("anew.pid").data() != first
    assert kernel.run("anew.messages[0].text").data() == ["'other'"]


def test_a_dry_run_sends_nothing(kernel):
    kernel.run("%%agent dry -p prog\nhi", cell="d1")
    before = kernel.run("len(dry.machine.log.events)").data()
    ran = kernel.run("%%agent dry --dry-run\nhello {{1 + 1}}", cell="d2")
    assert "nothing was sent" in ran.data()[0] and '"hello 2"' in ran.data()[0]
    assert kernel.run("len(dry.machine.log.events)").data() == before


def test_tab_offers_flags_names_and_variables(kernel):
    kernel.run("weather_frame = 1")
    assert "--tools" in kernel.complete("%%agent scout --to")
    assert "where" in kernel.complete("%%agent scout --tools whe")
    assert any(
        "@weather_frame" in match or match.endswith("weather_frame") for match in kernel.complete("%%agent scout\nlook at @weather_f")
    )
    assert any(match.endswith("weather_frame") for match in kernel.complete("%%agent scout\nlook at {{weather_f"))


def test_help_explains_the_flags(kernel):
    kernel.client.execute("%agent?")
    reply = kernel.client.get_shell_msg(timeout=10)
    text = reply["content"]["payload"][0]["data"]["text/plain"]
    assert "--model" in text and "--resume" in text


def test_a_call_as_a_cells_value_shows_the_answer(kernel):
    assert kernel.run("shown = prog.start('shown'); shown.run('hi')").data() == ["shown (scripted: no model answered): one"]


def test_unloading_takes_everything_back():
    with_ext = Kernel()
    try:
        with_ext.run("%load_ext llmproc_nb")
        assert with_ext.run("%unload_ext llmproc_nb").status == "ok"
        assert "UsageError" in str(with_ext.run("%%agent x\nhi").outputs)
        assert with_ext.run("%reload_ext llmproc_nb\n%agent").status == "ok"
    finally:
        with_ext.close()


def test_a_reload_keeps_the_processes_the_log_and_the_settings():
    with reloaded() as again:
        again.run(SETUP)
        again.run("%agent -p prog --system short\n%config AgentMagics.value_tokens = 77")
        again.run("%%agent k -p prog\nhello", cell="a")
        for reload in ("%reload_ext llmproc_nb", "%unload_ext llmproc_nb\n%load_ext llmproc_nb"):
            assert ok(again.run(reload)).printed == ""
            assert "k" in again.run("%ps").data()[0].split()
        assert again.run("%%agent k\nmore", cell="b").data() == ["k (scripted: no model answered): two"]
        assert "[2 rows" in again.run("%log calls").data()[0]
        assert "hello" in again.run("%tree k").data()[0]
        assert "system short" in again.run("%agent").data()[0]
        assert again.run("get_ipython().llmproc.settings.value_tokens").data() == ["77"]
        assert again.run("from llmproc_nb import default_machine; default_machine() is k.machine").data() == ["True"]
        changed = again.run("import os; os.environ['LLMPROC_NB_MODE'] = 'replay'\n%reload_ext llmproc_nb")
        assert "processes run in mode 'live' already" in changed.printed
        again.run("%unload_ext llmproc_nb")
        assert again.run("print(k.run('and in Python').result())").printed == "three\n"


def test_resuming_says_how_a_function_that_is_missing_is_supplied(tmp_path):
    setup = f"%load_ext llmproc_nb\n%config AgentMagics.log_dir = {str(tmp_path)!r}\n"
    turns = "from llmproc_nb import Program\np = Program(provider='scripted', model='m', script=({'say': 'a'},), tools=(big, small))"
    kernels = [Kernel(LLMPROC_NB_LOG="") for _ in range(2)]
    try:
        first, second = kernels
        first.run(f"{setup}def big(n: int) -> str:\n    'Big.'\ndef small(n: int) -> str:\n    'Small.'\n{turns}")
        assert first.run("%%agent one -p p\nhi").status == "ok"
        second.run(setup)
        ran = second.run("%agent --resume")
        assert ran.printed.splitlines()[1:] == ["one: define big, small in the notebook, then run `one.add_tools([big, small])`"]
        assert (
            second.run("def big(n: int) -> str:\n    'Big.'\ndef small(n: int) -> str:\n    'Small.'\none.add_tools([big, small])").status
            == "ok"
        )
    finally:
        for kernel in kernels:
            kernel.close()


def test_a_killed_kernel_is_resumed_from_its_log(tmp_path):
    setup = SETUP + f"\n%config AgentMagics.log_dir = {str(tmp_path)!r}"
    first = Kernel(LLMPROC_NB_LOG="")
    try:
        first.run(setup)
        first.run("%%agent keeps -p prog --tools where,block\nhello")
        first.client.execute("%%agent keeps\nblock please")
        deadline = time.monotonic() + 10
        while not any("tool_started" in path.read_text() for path in tmp_path.glob(".llmproc/*.jsonl")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.manager.provisioner.process.kill()
    finally:
        first.close()
    second = Kernel(LLMPROC_NB_LOG="")
    try:
        second.run(setup)
        ran = second.run("%agent --resume")
        assert ran.status == "ok", ran.outputs
        assert [line.split() for line in ran.data()[0].splitlines()] == [
            ["process", "messages", "last", "words", "tools", "of", "unknown", "effect"],
            ["keeps", "5", "let", "me", "see", "block"],
        ]
        (log,) = [path.name for path in tmp_path.glob(".llmproc/*.jsonl") if "tool_started" in path.read_text()]
        assert ran.printed == f"from {log}\n"
        again = second.run("%agent --resume")
        assert "was resumed here already" in again.printed and again.data()[0].splitlines()[1].split()[:2] == ["keeps", "5"]
        assert second.run("len([p for p in keeps.machine.processes.values()])").data() == ["1"]
        said = second.run("[message.role for message in keeps.messages], keeps.messages[-1].tool_results[0].text").data()[0]
        assert "whether it took effect is unknown" in said and said.count("assistant") == 2
        assert second.run("%%agent keeps\ngo on").data() == ["keeps (scripted: no model answered): two"]
    finally:
        second.close()
