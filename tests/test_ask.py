"""A person is asked before a tool runs: by buttons in a real browser, by input in real kernels and terminals, by nobody where nobody is."""

from __future__ import annotations

import json
import queue
import time
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel, Ran
from labs import cell, interrupt, lab, needs_lab, run_all, save, wait_idle, wait_output, write_notebook
from test_cli import Screen, jupyter_llmproc

SETUP = '''
%load_ext llmproc_nb
from llmproc_nb import Program
from llmproc_nb.core.approval import Approval

deleted = []

def delete_file(path: str, force: bool = False) -> str:
    """Delete a file, for good."""
    deleted.append((path, force))
    return f"deleted {path}"

def answer(request):
    last = request.path[-1].message
    if last.tool_results:
        return "; ".join(result.text for result in last.tool_results)
    paths = last.text.split()
    return {"say": "Let me see.", "call": [{"name": "delete_file", "arguments": {"path": path}} for path in paths]}

prog = Program(name="prog", provider="scripted", model="m", script=answer, tools=(delete_file,), approval=Approval(write="ask"))
'''
TURN = ["application/vnd.llmproc.turn+json", "text/html", "text/markdown", "text/plain"]
SIGN = "[y]es, [a]lways in this process, [n]o (and why), [e]dit the arguments> "


@pytest.fixture(scope="module")
def kernel():
    made = Kernel(LLMPROC_NB_STREAM="")
    assert made.run(SETUP).status == "ok"
    yield made
    made.close()


def run(kernel: Kernel, source: str, *typed: str, interrupt_s: float | None = None) -> tuple[Ran, list[str]]:
    """Run a cell as a front end with input and without widgets does; gives what came and the prompts of its questions."""
    client, lines, prompts, ran = kernel.client, list(typed), [], Ran("")
    own = client.execute(source, allow_stdin=True)
    began, asked_at = time.monotonic(), None
    while True:
        assert time.monotonic() - began < 30, (ran.outputs[-3:], prompts)
        try:
            asked = client.get_stdin_msg(timeout=0.02)
            prompts.append(asked["content"]["prompt"])
            if lines:
                client.input(lines.pop(0))
            else:
                asked_at = time.monotonic()
        except queue.Empty:
            pass
        if interrupt_s is not None and asked_at is not None and time.monotonic() - asked_at > interrupt_s:
            kernel.manager.interrupt_kernel()
            interrupt_s, interrupted = None, time.monotonic()
        try:
            got = client.get_iopub_msg(timeout=0.02)
        except queue.Empty:
            continue
        if got["parent_header"].get("msg_id") != own:
            continue
        if got["msg_type"] == "status" and got["content"]["execution_state"] == "idle":
            break
        if got["msg_type"] not in ("status", "execute_input"):
            ran.outputs.append((got["msg_type"], got["content"]))
    if asked_at is not None:
        ran.interrupt_s = time.monotonic() - interrupted
    while (reply := client.get_shell_msg(timeout=10))["parent_header"].get("msg_id") != own:
        pass
    ran.status = reply["content"]["status"]
    return ran, prompts


def displays(ran: Ran) -> dict[str, dict[str, Any]]:
    """What each display of a cell shows in the end."""
    ours = [content for _, content in ran.outputs if content.get("transient", {}).get("display_id")]
    return {content["transient"]["display_id"]: content["data"] for content in ours}


def shown(ran: Ran) -> list[str]:
    return [data["text/plain"] for data in displays(ran).values() if data]


def asks(ran: Ran) -> list[str]:
    """The asks that were on display, in order."""
    texts = [content["data"].get("text/plain", "") for kind, content in ran.outputs if "data" in content]
    return [text for text in texts if "wants to call" in text]


def test_a_front_end_without_widgets_is_asked_by_input(kernel):
    ran, prompts = run(kernel, "%%agent buttons -p prog\na", "y")
    assert (ran.status, prompts) == ("ok", [SIGN])
    lines = ["buttons (scripted: no model answered): Let me see.", '[delete_file(path="a"): ran, 9 characters]']
    assert shown(ran) == ["\n".join([*lines, "deleted a", "[delete_file allowed by you]"])]
    assert set(asks(ran)) == {"buttons wants to call delete_file (write access)\n  path: a"}
    again, _ = run(kernel, "%%agent buttons\nb", "n not this one")  # it has learned that there are no widgets: no wait this time
    assert "[delete_file refused by you: not this one]" in shown(again)[0]
    assert not any("widget" in mime for _, content in again.outputs for mime in content.get("data", {}))


@pytest.mark.parametrize(
    "source",
    [
        "%%time\n%%agent {name} -p prog\na",
        "for text in ['a']:\n    get_ipython().run_cell_magic('agent', '{name} -p prog', text)",
    ],
)
def test_a_cell_that_blocks_is_asked_by_input(kernel, source):
    name = f"nested{len(source)}"
    ran, prompts = run(kernel, source.replace("{name}", name), "perhaps", "n because")
    assert (ran.status, prompts) == ("ok", [SIGN, SIGN])
    assert "[delete_file refused by you: because]" in shown(ran)[0]
    assert "'perhaps' is not clear" in ran.printed


def test_arguments_are_edited_by_input_and_checked(kernel):
    ran, prompts = run(kernel, "%%time\n%%agent edits -p prog\na", "e", '{"path": 5}', '{"path": "z", "force": true}')
    assert ran.status == "ok" and prompts[0] == SIGN and len(prompts) == 3
    assert "argument 'path' is 5; it should be a valid string." in ran.printed
    assert '[delete_file allowed by you with {"path": "z", "force": true}]' in shown(ran)[0]
    assert kernel.run("deleted[-1]").data() == ["('z', True)"]


def test_calls_of_one_reply_are_asked_about_one_after_the_other(kernel):
    ran, prompts = run(kernel, "%%time\n%%agent several -p prog\na b c", "y", "n", "y")
    assert prompts == [SIGN] * 3
    assert [text.rpartition(" ")[2] for text in asks(ran)] == ["a", "b", "c"]
    said = "deleted a; not run: a person refused this call.; deleted c"
    assert shown(ran)[0].splitlines()[-3:] == [said, "[delete_file allowed by you]", "[delete_file refused by you]"]


def test_always_asks_no_more_for_this_tool_in_this_process(kernel):
    ran, prompts = run(kernel, "%%time\n%%agent trusted -p prog\na b", "a")
    assert prompts == [SIGN]
    assert "deleted a; deleted b" in shown(ran)[0]
    assert run(kernel, "%%time\n%%agent trusted\nc")[1] == []
    assert run(kernel, "%%time\n%%agent other -p prog\nd", "n")[1] == [SIGN]


@pytest.mark.parametrize("first", ["%%agent {name} -p prog\n", "%%time\n%%agent {name} -p prog\n"])
def test_an_interrupt_of_the_question_stops_the_call(kernel, first):
    run(kernel, "%%agent warm -p prog\nx", "n")
    name = f"stop{len(first)}"
    ran, prompts = run(kernel, first.replace("{name}", name) + "a b", interrupt_s=0.3)
    assert (ran.status, len(prompts), ran.error["ename"]) == ("error", 1, "KeyboardInterrupt")
    assert ran.interrupt_s is not None and ran.interrupt_s < 2
    assert not any("wants to call" in data.get("text/plain", "") for data in displays(ran).values())
    told = kernel.run(f"{{result.text for result in {name}.messages[-1].tool_results}}, len({name}.messages[-1].tool_results)").data()
    assert told == ["({'not run: the call was interrupted before this tool started'}, 2)"]
    assert run(kernel, f"%%agent {name}\nc", "y")[0].status == "ok"


def test_where_nobody_can_be_asked_the_call_is_refused_and_one_bundle_is_shown(kernel):
    ran = kernel.run("%%agent unattended -p prog\na", cell="unattended")
    assert ran.status == "ok" and len(displays(ran)) == 1
    said = "not run: a person must allow this call, and nobody can be asked here."
    assert shown(ran)[0].splitlines()[-2:] == [said, "[delete_file refused because nobody could be asked]"]
    assert kernel.run("%%agent strict -p prog\na").data() == [
        f'strict (scripted: no model answered): Let me see.\n[delete_file(path="a"): refused, {len(said)} characters]\n'
        f"{said}\n[delete_file refused because nobody could be asked]"
    ]


def test_calls_that_no_agent_cell_waits_for_ask_nobody(kernel):
    for source in ("%%agent back -p prog --bg\na", "plain = prog.start('plain'); plain.run('a').result().text"):
        assert run(kernel, source)[1] == []
    waited, _ = run(kernel, "%wait back")
    assert waited.status == "ok"
    for name in ("back", "plain"):
        (text,) = kernel.run(f"{name}.messages[-2].tool_results[0].text").data()
        assert "nobody can be asked here: an %%agent cell that waits for its answer can ask" in text


def test_a_policy_may_let_things_through_where_nobody_is(kernel):
    kernel.run("free = prog.replace(name='free', approval=Approval(write='ask', unattended='always'))")
    ran = kernel.run("%%agent free_one -p free\na")
    assert "deleted a" in ran.data()[0] and "[delete_file" in ran.data()[0]


LEAVES = """
def leave() -> str:
    'Start a child in the background.'
    global left
    left = prog.replace(script=({"say": "word word word", "delay_s": 0.3, "call": [{"name": "delete_file", "arguments": {"path": "a"}}]},
                                {"say": "end"})).start("left")
    left.run("go")
    return "it runs"
leaver = prog.replace(name="leaver", approval=None, tools=(leave,), script=({"call": [{"name": "leave"}]}, {"say": "done"}))
"""


@pytest.mark.parametrize("first", ["", "%%time\n"])
def test_a_child_left_in_the_background_asks_nobody_and_holds_nobody_up(kernel, first):
    kernel.run(LEAVES)
    assert run(kernel, f"{first}%%agent leaver{len(first)} -p leaver\ngo")[1] == []
    (text,) = kernel.run("left.calls[0].result(10).tool_calls[0].result.text").data()
    assert "nobody can be asked here" in text
    assert run(kernel, f"%%time\n%%agent after{len(first)} -p prog\nx", "y")[1] == [SIGN]


# in a browser


def buttons(page: Any, number: int) -> list[str]:
    return cell(page, number).locator("button.jupyter-button").all_inner_texts()


@pytest.mark.browser
@needs_lab
def test_buttons_work_while_the_cell_runs(tmp_path: Path):
    sources = [
        SETUP,
        "%%agent one -p prog\n<img/src=x/onerror=alert(1)>",
        "%%agent one\nb c",
        "%%agent one\nd e",
        "%%agent two -p prog\nf g",
        "deleted",
    ]
    write_notebook(tmp_path / "nb.ipynb", sources)
    with lab(tmp_path) as page_of:
        page = page_of("nb.ipynb")
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        run_all(page)

        refuse = cell(page, 1).get_by_role("button", name="Refuse")
        refuse.wait_for()
        assert buttons(page, 1) == ["Allow", "Allow always in this process", "Refuse", "Edit arguments"]
        assert cell(page, 1).locator("pre", has_text="path: <img/src=x/onerror=alert(1)>").count() == 1
        cell(page, 1).get_by_label("reason").fill("not <b>this</b> one")
        began = time.monotonic()
        refuse.click()
        wait_output(page, 1, "delete_file refused by you: not <b>this</b> one")
        assert time.monotonic() - began < 5
        assert buttons(page, 1) == [] and "wants to call" not in cell(page, 1).inner_text()

        at = cell(page, 2)  # two calls of one reply: one is edited, the other one allowed
        at.get_by_text("1 more call waits for an answer").wait_for()
        at.get_by_role("button", name="Edit arguments").click()
        edit = at.get_by_label("arguments as JSON")
        assert json.loads(edit.input_value()) == {"path": "b"}
        edit.fill('{"path": 5}')
        at.get_by_role("button", name="Allow with these").click()
        at.get_by_text("argument 'path' is 5; it should be a valid string.").wait_for()
        edit.fill('{"path": "z", "force": true}')
        at.get_by_role("button", name="Allow with these").click()
        at.locator("pre", has_text="path: c").wait_for()
        at.get_by_role("button", name="Allow", exact=True).click()
        wait_output(page, 2, 'delete_file allowed by you with {"path": "z", "force": true}')

        cell(page, 3).get_by_role("button", name="Allow always in this process").click()
        wait_output(page, 3, "deleted d; deleted e")

        cell(page, 4).get_by_role("button", name="Allow", exact=True).wait_for()  # another process: it is asked about again
        interrupt(page)
        wait_output(page, 4, "KeyboardInterrupt", timeout_s=10)
        wait_idle(page)
        assert buttons(page, 4) == []
        save(page)
    assert dialogs == []
    cells = json.loads((tmp_path / "nb.ipynb").read_text())["cells"]
    for number in (1, 2, 3, 4):
        kept = [output["data"] for output in cells[number]["outputs"] if output.get("data")]
        assert [sorted(data) for data in kept] in ([TURN], [TURN[1:]]), (number, kept)
        assert "<img" not in "".join(kept[0]["text/html"])


# in a terminal

CHAT = """
[model]
name = "s"
provider = "scripted"
[tools]
builtin = ["calculator"]
[approval]
default = "ask"
[[script.turns]]
call = [{ name = "calculator", arguments = { expression = "1 + 1" } }]
[[script.turns]]
say = "I heard: {{result}}"
[[script.turns]]
call = [{ name = "calculator", arguments = { expression = "2 + 2" } }, { name = "calculator", arguments = { expression = "3 + 3" } }]
[[script.turns]]
say = "I heard: {{result}}"
"""


def test_a_chat_asks_in_its_terminal(tmp_path: Path):
    (tmp_path / "asks.toml").write_text(CHAT)
    screen = Screen(tmp_path, "chat", "asks.toml", "--log", "0")
    screen.type("one\n")
    screen.until("asks wants to call calculator (read access)")
    screen.until("expression: 1 + 1")
    screen.type("n no sums today\n")
    screen.until("I heard: not run: a person refused this call: no sums today.")
    screen.type("two\n")
    screen.until("expression: 2 + 2")
    screen.type('e {"expression": "4 + 4"}\n')
    screen.until("expression: 3 + 3")
    screen.type("a\n")
    screen.until("it ran with")
    screen.type("exit\n")
    assert screen.end()[1] == 0


def test_an_interrupt_of_the_question_stops_the_answer_and_the_chat_goes_on(tmp_path: Path):
    (tmp_path / "asks.toml").write_text(CHAT)
    screen = Screen(tmp_path, "chat", "asks.toml", "--log", "0")
    screen.type("one\n")
    screen.until("expression: 1 + 1")
    screen.type("\x03")
    screen.until("interrupted")
    screen.type("exit\n")
    assert screen.end()[1] == 0


def test_lines_of_a_pipe_are_prompts_and_no_answers(tmp_path: Path):
    (tmp_path / "asks.toml").write_text(CHAT)
    done = jupyter_llmproc(tmp_path, "chat", "asks.toml", "--log", "0", given="y\ny\n")
    assert done.stdout.count("nobody can be asked here") == 3
