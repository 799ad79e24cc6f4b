"""The magics of system calls in a real kernel: fork, goto, spawn, send, merge, diff, fd, tree."""

from __future__ import annotations

import pytest
from kernels import Kernel, error, ok

SETUP = """
%load_ext llmproc_nb
import time
from llmproc_nb import Program

def script(request):
    words = request.path[-1].message.text
    if words == "slow":
        return {"say": "slowly " * 200, "delay_s": 0.02}
    return f"about {words}"

prog = Program(name="prog", provider="scripted", model="m", script=script, system="Be brief.")
"""


@pytest.fixture(scope="module")
def kernel():
    made = Kernel(LLMPROC_NB_STREAM="0")
    assert made.run(SETUP).status == "ok"
    yield made
    made.close()


@pytest.fixture
def scout(kernel):
    """A kernel in which `scout` has answered once."""
    ok(kernel.run("%%agent scout -p prog\nhello"))
    yield kernel
    ok(kernel.run("%kill scout"))
    kernel.run("del scout")


def test_children_stand_where_their_parent_stands_and_can_be_asked(scout):
    assert ok(scout.run("%fork scout one two")).data()[0].count("<Process") == 2
    assert ok(scout.run("%%agent one\nmore")).data() == ["one (scripted: no model answered): about more"]
    assert ok(scout.run("(one.path[:3] == scout.path, two.head is scout.head, len(scout.path))")).data() == ["(True, True, 3)"]


def test_a_fork_cell_asks_each_child_its_own_and_gives_a_frame(scout):
    ran = ok(scout.run("%%fork scout a b\nfirst {{1 + 1}}\n---\nsecond"))
    table = """\
child  answer         stop_reason  tokens  cost_usd
a      about first 2  end_turn     13      0.0000
b      about second   end_turn     12      0.0000"""
    assert ran.data() == [f"scout: 2 children (scripted: no model answers)\n{table}"]
    frame = ok(scout.run("_.drop(columns=['cost_usd', 'tokens']).to_dict('list')")).data()[0]
    assert frame == (
        "{'child': ['a', 'b'],\n 'model': ['m', 'm'],\n 'prompt': ['first 2', 'second'],\n"
        " 'answer': ['about first 2', 'about second'],\n 'stop_reason': ['end_turn', 'end_turn'],\n 'error': [None, None]}"
    )


def test_one_prompt_for_several_children_that_get_names(scout):
    assert "scout_1" in ok(scout.run("%%fork scout -n 3\nsame")).data()[0]
    assert ok(scout.run("[scout_1.get_last_message(), scout_3.get_last_message()]")).data() == ["['about same', 'about same']"]


def test_a_fork_cell_that_is_run_again_starts_from_the_same_place(scout):
    ok(scout.run("%%fork scout again\nx", cell="f"))
    ok(scout.run("%%agent scout\nlater", cell="l"))
    ok(scout.run("%%fork scout again\nx", cell="f"))
    assert ok(scout.run("[message.text for message in again.messages[1:]]")).data() == ["['hello', 'about hello', 'x', 'about x']"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%fork scout\n", "the cell has no prompt"),
        ("%%fork scout\na\n---\n\n---\nb", "a block between two `---` lines is empty"),
        ("%%fork scout a b c\nx\n---\ny", "2 prompts and 3 names"),
        ("%%fork nobody\nx", "there is no process 'nobody'"),
        ("%fork scout -n 0", "at least one child is needed"),
        ("%fork scout print", "'print' is a name of Python or IPython"),
        ("%fork scout --at msg_99", "there is no msg_99; the newest on its path are msg_1 (assistant: about hello), msg_0 (user: hello)"),
        ("%goto scout", "an address is msg_7, ~2 (two turns back), cell:4"),
        ("%goto scout ~7", "~7 is before the beginning; it has 1 turns so far"),
        ("%goto --undo", "no process is named"),
        ("%goto scout msg_0 --undo", "%goto: msg_0 and --undo are two places"),
        ("%merge scout", "scout has no parent"),
        ("%merge scout into", "%merge: no process is named after `into`"),
        ("%send scout", "%send: the following arguments are required: text"),
        ("%fd", "there are no fds yet"),
        ("%fd scout 3", "PersonError: %fd: there is no fd '3'; nothing is open as an fd"),
        ("%spawn x from nowhere", "nowhere"),
        ("%fork scout --models a", "did you mean --model?"),
        ("%kill scot", "there is no process 'scot'; did you mean 'scout'?"),
        ("%log cals", "there is no frame 'cals'; did you mean 'calls'?"),
        ("%log bogus", "there are calls, messages, tools, processes, fds, code, events, seen."),
        ("%log -n scot", "there is no process 'scot' in the log; did you mean 'scout'?"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_with_what_would_be_right(scout, cell, said):
    before = ok(scout.run("len(scout.machine.processes)")).data()
    assert said in error(scout.run(cell))
    assert ok(scout.run("len(scout.machine.processes)")).data() == before


def test_going_back_and_returning(scout):
    ok(scout.run("%%agent scout\nmore"))
    assert ok(scout.run("%goto scout ~1")).printed == "scout stands on msg_1 (assistant: about hello)\n"
    assert ok(scout.run("%goto scout msg_0 look again")).printed == "scout stands on msg_4 (user: look again)\n"
    assert ok(scout.run("%goto scout --undo")).printed == "scout stands on msg_1 (assistant: about hello)\n"
    assert ok(scout.run("%goto scout --undo")).printed == "scout stands on msg_3 (assistant: about more)\n"
    assert "has not gone anywhere" in error(scout.run("%goto scout --undo"))


@pytest.mark.parametrize("words", ["Don't use jargon", 'Say "no" twice', r"a \\ b  and   # c", "use --undo, not -u", "'quoted'"])
def test_a_note_reaches_the_model_as_it_was_typed(scout, words):
    last = "scout.head.message.text"
    ok(scout.run(f"%goto scout msg_0 {words}"))
    assert ok(scout.run(f"print({last})")).printed == f"{words}\n"
    ok(scout.run("%fork scout typed"))
    ok(scout.run("%%agent typed\nthink"))
    ok(scout.run(f"%merge typed into scout {words}"))
    assert ok(scout.run(f"print({last})")).printed.startswith(f"{words}\n<merged from=")
    ok(scout.run(f"%send scout {words}"))
    ok(scout.run("%%agent scout\nnext"))
    assert ok(scout.run("print(scout.messages[-3].text)")).printed == f"{words}\n"
    ok(scout.run("%kill typed"))


def test_flags_and_comments_are_read_before_a_note_begins(scout):
    ok(scout.run("%%agent scout\nmore"))
    assert "stands on msg_1 " in ok(scout.run("%goto scout msg_1  # the first answer")).printed
    assert "stands on msg_3 " in ok(scout.run("%goto --undo scout  # back")).printed
    assert error(scout.run("%goto scout msg_1 --undo")).startswith("PersonError: %goto: msg_1 and --undo are two places; ")
    assert "unrecognized arguments: --again" in error(scout.run("%goto scout msg_1 --again"))
    assert "scout stands on msg_3" in ok(scout.run("%goto 'scout' ~0")).printed


def test_a_cell_is_an_address(scout):
    number = int(ok(scout.run("len(In) - 1")).data()[0])
    ok(scout.run("%%agent scout\nmore"))
    ok(scout.run("%%agent scout\nand more"))
    assert ok(scout.run(f"%goto scout cell:{number + 1}")).printed == "scout stands on msg_3 (assistant: about more)\n"
    assert f"cell '{number}' did not end on a message of scout" in error(scout.run(f"%goto scout cell:{number}"))


def test_merge_says_what_the_parent_knows_now(scout):
    ok(scout.run("%%fork scout idea\nthink"))
    assert ok(scout.run("%merge idea into scout")).printed == "scout knows what idea found (about think)\n"
    assert ok(scout.run("scout.head.message.text")).data() == ['\'<merged from="idea" tokens="11">\\nabout think\\n</merged>\'']
    diff = ok(scout.run("%diff scout idea")).data()[0]
    assert diff.splitlines()[0] == "scout and idea share 2 messages" and "--- idea\nuser: think\nassistant: about think" in diff


def test_a_text_for_an_idle_process_is_read_with_its_next_call(scout):
    assert ok(scout.run("%send scout by the way")).printed == "scout reads it with its next call\n"
    ok(scout.run("%%agent scout\nhow are you"))
    assert ok(scout.run("[message.text for message in scout.messages[3:]]")).data() == [
        "['by the way', 'how are you', 'about how are you']"
    ]


def test_spawn_starts_a_process_that_knows_nothing(scout):
    ok(scout.run("%spawn other from prog"))
    assert ok(scout.run("(len(other.path), other.parent)")).data() == ["(1, None)"]
    ok(scout.run("%spawn reader --by scout --access read"))
    assert ok(scout.run("(reader.parent is scout, reader.access)")).data() == ["(True, 'read')"]


def test_fds_are_listed_and_one_is_shown(scout):
    ok(scout.run("fd = scout.open_fd('word ' * 3000, 'file notes.txt')"))
    assert ok(scout.run("%fd scout")).data() == [
        "fd    from            characters  lines  pages  read\nfd:1  file notes.txt  15,000      1      4      nothing"
    ]
    shown = ok(scout.run("%fd scout 1"))
    assert shown.data()[0].startswith("fd:1 file notes.txt: 15,000 characters") and "word word" in shown.data("text/html")[0]


def test_the_tree_shows_every_branch(scout):
    ok(scout.run("%%fork scout left right\none\n---\ntwo"))
    text = ok(scout.run("%tree scout")).data()[0]
    assert "← scout" in text and "← left" in text and "← right" in text and "[fork: left, right]" in text


def test_an_interrupt_in_the_middle_of_a_fan_out_stops_all_and_keeps_what_they_said(scout):
    ran = scout.run("%%fork scout s1 s2 s3\nslow", interrupt_after_s=1.5)
    assert ran.status == "error" and ran.error["ename"] == "KeyboardInterrupt"
    frame = "(list(_.stop_reason), bool(_.answer.str.startswith('slowly').all()), bool((_.tokens > 0).all()))"
    assert ok(scout.run(frame)).data() == ["(['interrupted', 'interrupted', 'interrupted'], True, True)"]
    states = ok(scout.run("[(p.state, p.head.message.interrupted, 'slowly' in p.get_last_message()) for p in (s1, s2, s3)]")).data()[0]
    assert states == "[('idle', True, True), ('idle', True, True), ('idle', True, True)]"
    assert ok(scout.run("%%agent s1\ngo on")).data() == ["s1 (scripted: no model answered): about go on"]


def test_a_fork_cell_works_nested_as_well(scout):
    assert "about x" in ok(scout.run("get_ipython().run_cell_magic('fork', 'scout n1', 'x')")).data()[0]


def test_a_long_value_is_paged_apart_from_the_words_around_it(kernel):
    ok(kernel.run("from llmproc_nb.core.program import FdRules\npager = prog.replace(tools=('calculator',), fd=FdRules())"))
    ok(kernel.run("doc = 'x' * 50000"))
    ok(kernel.run("%%agent paged -p pager\nWhat is in this?\n\n{{doc}}\n\nSay it in one word."))
    said = ok(kernel.run("print(paged.messages[1].text)")).printed
    assert said.startswith("What is in this?\n\n<fd_input fd=") and said.endswith("</fd_input>\n\nSay it in one word.\n")
    assert ok(kernel.run("paged.fds.get(1).text.chars")).data() == ["50000"]


def test_what_a_tool_of_the_notebook_returns_and_what_is_sent_can_be_read_to_the_end(kernel):
    ok(
        kernel.run(
            "import pandas as pd\nfrom llmproc_nb.core.program import FdRules\n"
            "def look() -> dict:\n    '''Look.'''\n    return {'rows': pd.DataFrame({'n': range(5000)})}\n"
            "turns = ({'call': [{'name': 'look', 'arguments': {}}]}, {'say': 'ok'}, {'say': 'ok'})\n"
            "paging = Program(name='paging', provider='scripted', model='m', script=turns, tools=(look,), fd=FdRules())"
        )
    )
    ok(kernel.run("%%agent finder -p paging\ngo"))
    ok(kernel.run("%send finder " + "word " * 10_000))
    ok(kernel.run("%%agent finder\non"))
    assert ok(kernel.run("[(fd.label, fd.text.chars, fd.pages) for fd in finder.fds]")).data() == [
        "[('tool_result look', 47783, 101), ('message', 49999, 13)]"
    ]
    assert ok(kernel.run("finder.fds.get(1).page(101).text.endswith('4999,4999\\n'), len(finder.messages[-3].text) < 1200")).data() == [
        "(True, True)"
    ]
