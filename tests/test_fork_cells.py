"""What a person meets who forks by hand: names of children, limits, children that fail, wrong lines, the buttons of the tree."""

from __future__ import annotations

import re

import pytest
from kernels import Kernel, Ran, error, ok
from kernels import kernel as started_kernel

SETUP = """
%load_ext llmproc_nb
from llmproc_nb import Program
from llmproc_nb.core.usage import Limits

def script(request):
    words = request.path[-1].message.text
    if words == "fail":
        raise ValueError("on purpose")
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
    ok(kernel.run("for one in [*scout.machine.processes.values()]: one.kill()"))
    kernel.run("del scout")


def names(ran: Ran) -> list[str]:
    return [line.split()[0] for line in ok(ran).data()[0].splitlines()[2:]]


def test_a_fork_cell_that_is_run_again_gives_its_children_the_same_names(scout):
    assert names(scout.run("%%fork scout -n 2\none", cell="f")) == ["scout_1", "scout_2"]
    assert names(scout.run("%%fork scout\nother", cell="g")) == ["scout_3"]
    assert names(scout.run("%%fork scout -n 3\nchanged", cell="f")) == ["scout_1", "scout_2", "scout_4"]
    assert ok(scout.run("(scout_1.get_last_message(), scout_3.get_last_message())")).data() == ["('about changed', 'about other')"]


def test_the_text_of_a_fan_out_is_a_table_of_short_lines_however_long_answers_are(scout):
    long = "word " * 300
    name = "a" * 60
    data = ok(scout.run(f"%%fork scout {name} short\n{long}\n---\nbrief")).data()[0]
    lines = data.splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= 150
    assert lines[2].startswith("aaaaaaaaaaaaaaaaaaaaaaa…  about word") and "… (1," in lines[2]
    assert lines[3].split("  ")[0] == "short" and "about brief" in lines[3]
    assert ok(scout.run(f"len({name}.get_last_message()) > 1400")).data() == ["True"]


def test_forks_in_a_loop_have_names_of_their_own_also_when_the_cell_is_run_again(scout):
    loop = "made = [get_ipython().run_line_magic('fork', 'scout').name for _ in range(2)]; made"
    assert ok(scout.run(loop, cell="loop")).data() == ["['scout_1', 'scout_2']"]
    assert ok(scout.run(loop, cell="loop")).data() == ["['scout_1', 'scout_2']"]


def test_children_take_no_name_that_stands_for_something_else(scout):
    ok(scout.run("scout_1 = 'mine'; scout.fork('scout_2')"))
    assert "scout_3 (pid" in ok(scout.run("%fork scout")).data()[0]
    assert ok(scout.run("scout_1; del scout_1")).status == "ok"


@pytest.mark.parametrize("cell", ["%fork scout a a", "%%fork scout a a\nsame", "%%fork scout a a\none\n---\ntwo"])
def test_two_children_of_one_name_are_refused(scout, cell):
    assert error(scout.run(cell)) == f"PersonError: {cell.split()[0]}: 'a' is named twice; each child needs a name of its own."
    assert ok(scout.run("len(scout.machine.children(scout))")).data() == ["0"]


@pytest.mark.parametrize("cell", ["%fork other scout", "%%fork other new scout\nx", "%spawn scout from prog", "%spawn scout --by other"])
def test_the_name_of_a_living_process_is_refused_to_a_new_one(scout, cell):
    ok(scout.run("%spawn other from prog"))
    said = "'scout' is a living process of this notebook; a new one needs a name of its own. Choose another name, or `%kill scout` first."
    assert said in error(scout.run(cell))
    assert ok(scout.run("(scout.get_last_message(), 'new' in globals(), len(other.machine.children(other)))")).data() == [
        "('about hello', False, 0)"
    ]
    ok(scout.run("%kill scout\n%spawn scout from prog"))
    assert ok(scout.run("scout.get_last_message()")).data() == ["''"]


@pytest.mark.parametrize("cell", ["%fork scout mine", "%%fork scout mine\nx", "%spawn mine from prog", "%spawn mine --by scout"])
def test_a_cell_that_is_run_again_takes_the_name_it_gave(scout, cell):
    for _ in range(3):
        ok(scout.run(cell, cell="c"))
    ok(scout.run("%kill scout\nscout = prog.start('scout')"))
    ok(scout.run(cell, cell="c"))
    assert ok(scout.run("mine.parent in (None, scout)")).data() == ["True"]
    assert "is a living process" in error(scout.run(cell, cell="another"))


def test_a_cell_gives_no_name_twice_in_one_run(scout):
    for _ in range(2):
        assert "'mine' is a living process" in error(scout.run("%fork scout mine\n%fork scout mine", cell="c"))


def test_children_that_get_names_take_none_of_a_living_process(scout):
    ok(scout.run("%spawn scout_1 from prog"))
    assert names(scout.run("%%fork scout -n 2\none", cell="f")) == ["scout_2", "scout_3"]
    assert names(scout.run("%%fork scout -n 2\none", cell="f")) == ["scout_2", "scout_3"]
    ok(scout.run("%kill scout\nscout = prog.start('scout')"))
    assert names(scout.run("%%fork scout -n 2\none", cell="f")) == ["scout_2", "scout_3"]


def test_children_of_a_process_whose_name_is_no_python_name_can_be_typed(scout):
    ok(scout.run("inner = scout.fork()"))
    assert "scout_1_1 (pid" in ok(scout.run("%fork scout.1")).data()[0]
    assert ok(scout.run("scout_1_1.parent is inner")).data() == ["True"]


def test_a_limit_of_children_is_an_error_before_the_first_is_made(kernel):
    ok(kernel.run("few = prog.replace(limits=Limits(children=3)).start('few')"))
    assert "0 made so far, 4 more asked for" in error(kernel.run("%fork few -n 4"))
    assert names_of_children(kernel, "few") == "[]"
    ok(kernel.run("%fork few -n 3"))
    assert names_of_children(kernel, "few") == "['few_1', 'few_2', 'few_3']"


def names_of_children(kernel: Kernel, name: str) -> str:
    return ok(kernel.run(f"[one.name for one in {name}.machine.children({name})]")).data()[0]


def test_a_fork_cell_fails_where_all_children_failed_and_keeps_its_frame(scout):
    ran = scout.run("%%fork scout\nfail\n---\nfail")
    assert error(ran) == "ProgramError: script: the script raised ValueError: on purpose."
    assert ok(scout.run("list(_.stop_reason)")).data() == ["['ProgramError', 'ProgramError']"]
    assert scout.run("%%fork scout\nfail\n---\nwork").status == "ok"
    assert ok(scout.run("(_.error[0], _.error.isna().tolist(), str(_.error.dtype), list(_.columns))")).data() == [
        "('script: the script raised ValueError: on purpose.',\n [False, True],\n 'string',\n"
        " ['child',\n  'model',\n  'prompt',\n  'answer',\n  'stop_reason',\n  'error',\n  'tokens',\n  'cost_usd'])"
    ]


def test_a_child_that_runs_shows_its_last_words_so_far_and_no_tokens_before_they_are_counted():
    with started_kernel(LLMPROC_NB_STREAM="1") as kernel:
        ok(kernel.run(SETUP))
        ok(kernel.run("scout = prog.start('scout')"))
        ran = kernel.run("%%fork scout a b\nslow", interrupt_after_s=2)
    frames = [line for text in ran.data() for line in text.splitlines()[2:]]
    assert any(re.fullmatch(r"a +… ?[slowy ]{40,56} +running +– +–", line) for line in frames), frames[-8:]
    assert re.match(r"a +slowly slowly .*interrupted +\d+ ", frames[-2])


def test_an_interrupt_of_a_nested_fork_cell_keeps_its_frame(scout):
    ran = scout.run("get_ipython().run_cell_magic('fork', 'scout i1 i2', 'slow')", interrupt_after_s=1.5)
    assert ran.status == "error" and ran.error["ename"] == "KeyboardInterrupt"
    rows = ok(scout.run("[(row.stop_reason, row.answer.startswith('slowly')) for row in _.itertuples()]")).data()
    assert rows == ["[('interrupted', True), ('interrupted', True)]"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%fork scout a b c\nx\n---\ny", "%%fork: 2 prompts and 3 names; as many"),
        ("%%fork scout -n 2\nx\n---\ny\n---\nz", "%%fork: 3 prompts and -n 2; as many"),
        ("%%fork scout -n 3 --model scripted:a,scripted:b\nx", "%%fork: 1 prompt, -n 3 and 2 models; as many"),
        ("%%fork scout --max-steps 0\nx", "%%fork: --max-steps 0; at least one request is needed"),
        ("%%fork scout -n 0\nx", "%%fork: -n 0; at least one child is needed"),
        ("%%fork scout --last-n -1\nx", "%%fork: --last-n -1; a number of messages"),
        ("%%fork scout a -n 2\nx", "%%fork: 1 prompt, -n 2 and 1 names; as many"),
        ("%fork scout a -n 2", "%fork: 1 names and -n 2; names or a number"),
        ("%%fork scout --bg\nx", "%%fork: unrecognized arguments: --bg"),
        ("%fork scout --last-n -1", "%fork: --last-n -1; a number of messages"),
        ("%fork", "%fork: the following arguments are required: process. See"),
        ("%spawn", "%spawn: the following arguments are required: name. See"),
        ("%spawn x from", "%spawn: no program is named after `from`"),
        ("%spawn x --by scout from nowhere", "'nowhere' is neither a file (.toml, .yaml) nor a Program"),
        ("%spawn x --by scout from nowhere", "nor a link of scout, which has none"),
    ],
)
def test_a_wrong_line_says_what_was_given(scout, cell, said):
    assert said in error(scout.run(cell))


def test_a_branch_that_still_runs_is_not_merged(scout):
    ok(scout.run("%fork scout busy"))
    ok(scout.run("%%agent busy --bg\nslow"))
    assert "busy still runs" in error(scout.run("%merge busy into scout"))
    ok(scout.run("%kill busy"))


def test_a_button_of_the_tree_moves_the_process_that_was_told_a_message(scout):
    ok(scout.run("%%agent scout\nsecond"))
    ok(scout.run("%fork scout other"))
    ok(scout.run("second = scout.path[3]"))
    ok(scout.run("%goto scout ~1"))
    ok(scout.run("tree = %tree"))
    assert ok(scout.run("tree.on_goto(second.id)")).data() == ["'scout stands there now; `%goto scout --undo` takes it back'"]
    assert ok(scout.run("scout.head is second")).data() == ["True"]


def test_tab_offers_the_names_of_the_notebook_in_the_prompts_of_a_fork_cell(scout):
    ok(scout.run("proper = 1"))
    for body in ("look at {{prop", "look at @prop"):
        assert scout.complete(f"%%fork scout\n{body}") == ["proper"]  # and not `property`, as in code


def test_tab_offers_turns_and_cells_as_addresses(scout):
    number = int(ok(scout.run("len(In) - 1")).data()[0])
    ok(scout.run("%%agent scout\nsecond"))
    assert scout.complete("%goto scout ~") == ["~1", "~2"]
    assert {*scout.complete("%goto scout cell:")} == {f"cell:{number + 1}", f"cell:{number - 1}"}


def test_the_tree_of_a_terminal_keeps_an_address_and_a_role_apart(scout):
    ok(scout.run("%%agent scout\nsecond"))
    ok(scout.run("%fork scout --last-n 1"))
    assert re.search(r"[ ●][0-9a-f]{7} user      \[3 messages between", ok(scout.run("%tree scout")).data()[0])


def test_a_merge_that_is_run_again_takes_the_place_of_the_first(scout):
    ok(scout.run("%%fork scout idea\none", cell="f"))
    ok(scout.run("%merge idea into scout", cell="m"))
    ok(scout.run("%%agent scout\nthen", cell="t"))
    ok(scout.run("%%fork scout idea\nchanged", cell="f"))
    ok(scout.run("%merge idea into scout", cell="m"))
    ok(scout.run("%%agent scout\nthen", cell="t"))
    assert ok(scout.run("print(*(message.text for message in scout.messages[3:]), sep='|')")).printed == (
        '<merged from="idea" tokens="13">\nabout changed\n</merged>|then|about then\n'
    )


def test_two_merges_in_one_cell_follow_each_other(scout):
    ok(scout.run("%%fork scout a b\none\n---\ntwo"))
    for _ in range(2):
        ok(scout.run("%merge a into scout\n%merge b into scout", cell="m"))
    assert ok(
        scout.run("['about one' in scout.messages[-2].text, 'about two' in scout.messages[-1].text, len(scout.messages)]")
    ).data() == ["[True, True, 5]"]


def test_a_cell_after_a_goto_starts_from_where_the_goto_went_last(scout):
    ok(scout.run("%%agent scout\nsecond", cell="s"))
    ok(scout.run("%goto scout msg_1 this way", cell="g"))
    ok(scout.run("%%agent scout\nthen", cell="t"))
    ok(scout.run("%goto scout msg_1 that way", cell="g"))
    ok(scout.run("%%agent scout\nthen", cell="t"))
    assert ok(scout.run("[message.text for message in scout.messages[3:]]")).data() == ["['that way', 'then', 'about then']"]


def test_a_call_that_never_started_is_shown_with_what_it_was_called_with(kernel):
    ok(
        kernel.run(
            "import asyncio\n"
            "from llmproc_nb.core.approval import Approval\n"
            "class Nobody:\n    async def decide(self, ask):\n        await asyncio.sleep(30)\n"
            "def wipe(path: str): ...\n"
            "careful = prog.replace(approval=Approval(default='ask'),\n"
            "    script=[{'call': [{'name': 'wipe', 'arguments': {'path': 'a'}}]}])\n"
            "before = get_ipython().llmproc.machine.approver\n"
            "get_ipython().llmproc.machine.approver = Nobody()"
        )
    )
    ran = kernel.run("%%agent asker -p careful --tools wipe\ngo", interrupt_after_s=0.6)
    assert "was stopped" in error(ran)
    assert ran.data()[0].splitlines()[1] == '[wipe(path="a"): refused, 58 characters]'
    ok(kernel.run("get_ipython().llmproc.machine.approver = before"))
