"""Agent cells in a real kernel: streaming, interrupts in every style of use, tools on the main thread, cells that branch."""

from __future__ import annotations

import time

import pytest
from kernels import Kernel

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
        ("%%agent e -p prog\nhi {{nothing_here}}", "nothing_here"),
        ("%%agent e -p prog\nhi {{1/0}}", "ZeroDivisionError"),
        ("%%agent time -p prog\nhi", "'time' is a module of this notebook already"),
        ("%%agent 2x -p prog\nhi", "'2x' cannot be a name"),
        ("%%agent e -p prog\n\n", "the cell has no prompt"),
        ("%%agent e -p 'prog\nhi", "quotes come in pairs"),
        ("%kill nobody", "there is no process 'nobody'"),
        ("%log nothing", "there is no frame 'nothing'; there are calls, messages, tools, processes, fds, code, events, seen."),
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
