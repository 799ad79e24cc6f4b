"""The tree of a machine: what it holds, which row each message stands in, how it looks in a saved notebook, what the live one answers."""

from __future__ import annotations

import time
from typing import Any

import pytest
from inline_snapshot import snapshot
from kernels import kernel
from machines import machine, scripted
from markup import Markup
from test_fdview import Front
from test_hostile_views import ALL

from llmproc_nb.api import Process, Program
from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.message import Message, Text, Thinking, ToolCall, ToolResult, clean, user
from llmproc_nb.core.usage import Usage
from llmproc_nb.core.visible import visible
from llmproc_nb.notebook.tree import Standing, Tree, TreeNode, build_tree, first_words
from llmproc_nb.notebook.treerow import tree_rows
from llmproc_nb.notebook.treeview import bundle, tree_bundle, tree_svg, tree_text
from llmproc_nb.notebook.treewidget import TreeView, sections


def said(count: int) -> list[dict[str, Any]]:
    return [{"say": f"Answer {number}."} for number in range(1, count + 1)]


def asked(process: Process, *prompts: str) -> Process:
    for prompt in prompts:
        process.run(prompt).result()
    return process


def chain(length: int, *, start: int = 0, under: str | None = None, pid: int = 1, living: bool = True) -> list[TreeNode]:
    """A straight line of nodes, made by hand."""
    nodes: list[TreeNode] = []
    for number in range(start, start + length):
        parent = nodes[-1].id if nodes else under
        nodes.append(
            TreeNode(
                id=f"{pid}-{number}",
                parent=parent,
                depth=number,
                role="assistant" if number % 2 else "user",
                words=f"words {number}",
                label=f"msg_{number}",
                pid=pid,
                living=living,
                seq=pid * 10_000 + number,
            )
        )
    return nodes


def tree_of(*lines: list[TreeNode]) -> Tree:
    nodes = {node.id: node for line in lines for node in line}
    return Tree(nodes=nodes, processes={pid: f"p{pid}" for pid in sorted({node.pid for node in nodes.values()})})


# what it holds


def test_a_tree_holds_each_message_who_said_it_and_what_it_cost() -> None:
    process = scripted(*said(2), system="You scout.")
    asked(process, "one")
    process.machine.current_cell = lambda: "cell-b"
    asked(process, "two")
    tree = build_tree(process.machine)
    assert tree.processes == {1: "scout"}
    assert [(node.label, node.role, node.words, node.pid, node.cell, node.living) for node in tree.nodes.values()] == [
        ("", "system", "You scout.", 1, None, True),
        ("msg_0", "user", "one", 1, None, True),
        ("msg_1", "assistant", "Answer 1.", 1, None, True),
        ("msg_2", "user", "two", 1, "cell-b", True),
        ("msg_3", "assistant", "Answer 2.", 1, "cell-b", True),
    ]
    last = list(tree.nodes.values())[-1]
    assert last.heads == (Standing(pid=1, name="scout", state="idle"),)
    assert last.usage.requests == 1 and last.usage.output_tokens > 0
    assert list(tree.nodes.values())[1].usage == Usage()


def test_goto_undo_and_rerun_are_marked_where_the_process_left() -> None:
    process = asked(scripted(*said(5)), "one", "two")
    process.goto("msg_1")
    asked(process, "other")
    process.undo()
    process.move(process.at("msg_1"), "rerun")
    asked(process, "again")
    assert tree_text(build_tree(process.machine)) == snapshot("""\
●            system    (no system prompt)
●    msg_0   user      one
●    msg_1   assistant Answer 1.
├─○  msg_2   user      two
│ ○  msg_3   assistant Answer 2.  [goto msg_1]  [re-run from msg_1]
├─○  msg_4   user      other
│ ○  msg_5   assistant Answer 2.  [undo, back to msg_3]
●    msg_6   user      again
●    msg_7   assistant Answer 2.  ← scout\
""")


def test_forks_stand_beside_their_parent_and_killed_ones_are_hollow() -> None:
    scout = asked(scripted(*said(9)), "one")
    first, second = scout.fork("left"), scout.fork()
    asked(first, "to the left")
    asked(second, "to the right")
    asked(scout, "straight on")
    scout.fork("waits")
    second.kill()
    assert tree_text(build_tree(scout.machine)) == snapshot("""\
●            system    (no system prompt)
●    msg_0   user      one
●    msg_1   assistant Answer 1.  [fork: left, scout.1]
├─●  msg_2   user      to the left
│ ●  msg_3   assistant Answer 2.  ← left
├─○  msg_2   user      to the right
│ ○  msg_3   assistant Answer 2.  ← scout.1 (killed)
●    msg_2   user      straight on
●    msg_3   assistant Answer 2.  [fork: waits]  ← scout  ← waits\
""")


def test_what_was_spawned_hangs_where_it_was_spawned() -> None:
    on = machine()
    helper = Program(name="helper", provider="scripted", model="script", script=said(3), system="You help.")
    scout = asked(scripted(*said(3), on=on), "one")
    child = on.start(helper, parent=scout, origin="spawn")
    asked(child, "look")
    asked(scout, "two")
    twin = on.start(helper, name="helper.2", parent=scout, origin="spawn")
    asked(twin, "look again")
    assert tree_text(build_tree(on)) == snapshot("""\
●              system    (no system prompt)
●      msg_0   user      one
●      msg_1   assistant Answer 1.  [spawn: helper]
├─●            system    You help.
│ ├─●  msg_0   user      look again
│ │ ●  msg_1   assistant Answer 1.  ← helper.2
│ ●    msg_0   user      look
│ ●    msg_1   assistant Answer 1.  ← helper
●      msg_2   user      two
●      msg_3   assistant Answer 2.  [spawn: helper.2]  ← scout\
""")


def test_named_processes_bring_their_children_and_nothing_else() -> None:
    on = machine()
    scout = asked(scripted(*said(3), on=on), "one")
    asked(scripted(*said(3), on=on, name="other", system="Another."), "elsewhere")
    asked(scout.fork(), "deeper")
    tree = build_tree(on, ["scout"])
    assert tree.processes == {1: "scout", 3: "scout.1"}
    assert [node.words for node in tree.nodes.values()] == ["(no system prompt)", "one", "Answer 1.", "deeper", "Answer 2."]
    with pytest.raises(PersonError, match=r"there is no process 'nobody'; processes: scout, other, scout.1"):
        build_tree(on, ["nobody"])


def test_a_branch_that_came_home_says_so() -> None:
    scout = asked(scripted(*said(4)), "one")
    child = asked(scout.fork("child"), "find out")
    node = scout.merge(child)
    assert build_tree(scout.machine).nodes[node.id].marks == ("merged: child",)


def test_a_machine_without_processes_has_an_empty_tree() -> None:
    assert tree_bundle(machine())["text/plain"] == "nothing was said yet"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (user("  a\n\nb\tc "), "a b c"),
        (user("x" * 500), "x" * 160 + "…"),
        (Message(role="assistant", parts=(ToolCall(id="1", name="add", arguments='{"a": 1}'),)), "add(a=1)"),
        (Message(role="assistant", parts=(Text(text="So."), ToolCall(id="1", name="add", arguments="{oops"))), "So. → add({oops)"),
        (Message(role="tool", parts=(ToolResult(call_id="1", name="add", content=(Text(text="3"),)),)), "add → 3"),
        (Message(role="assistant", parts=(Thinking(text="hm"),)), "thinking: hm"),
        (Message(role="assistant"), "(empty)"),
        (user("\u202eevil\x1b[2J"), "⟨U+202E⟩evil␛[2J"),
    ],
)
def test_first_words_say_how_a_message_begins(message: Message, words: str) -> None:
    assert first_words(message) == words


# rows


def test_long_runs_are_folded_and_open_by_their_key() -> None:
    line = chain(30)
    tree = tree_of(line)
    rows = tree_rows(tree)
    assert [(row.kind, row.node, row.messages) for row in rows] == [
        ("message", "1-0", 0),
        ("message", "1-1", 0),
        ("message", "1-2", 0),
        ("messages", "", 24),
        ("message", "1-27", 0),
        ("message", "1-28", 0),
        ("message", "1-29", 0),
    ]
    assert len(tree_rows(tree, {rows[3].key})) == len(tree_rows(tree, whole=True)) == 30


def test_very_many_branches_are_folded_but_for_the_first_and_last() -> None:
    trunk = chain(2)
    branches = [chain(3, start=2, under="1-1", pid=pid) for pid in range(2, 52)]
    tree = tree_of(trunk, *branches)
    rows = tree_rows(tree)
    (fold,) = [row for row in rows if row.kind == "branches"]
    assert (fold.branches, fold.messages) == (39, 117)
    assert len(tree_rows(tree, {fold.key})) == 152
    assert max(row.col for row in rows) == 1


def test_every_message_has_one_row_and_every_line_somewhere_to_come_from() -> None:
    scout = asked(scripted(*said(40)), "one", "two")
    for number in range(6):
        asked(scout.fork(at=f"msg_{1 + 2 * (number % 2)}"), f"branch {number}", "deeper")
    scout.goto("msg_1")
    asked(scout, "other")
    tree = build_tree(scout.machine)
    rows = tree_rows(tree, whole=True)
    assert sorted(row.node for row in rows) == sorted(tree.nodes)
    below: set[int] = set()
    for row in rows:
        came = {lane.col for lane in row.lanes} | ({row.col} if row.above else set()) | ({row.col - 1} if row.elbow else set())
        assert came == below or (came <= below and row.elbow), row
        below = {lane.col for lane in row.lanes} | ({row.col} if row.under else set())
    assert not below


def test_a_deep_dialog_is_no_deep_recursion() -> None:
    tree = tree_of(chain(20_000))
    assert len(tree_rows(tree, whole=True)) == 20_000
    assert tree_rows(tree, whole=True, limit=10)[-1].messages == 19_990


# how it looks


def test_the_drawing_of_a_small_tree() -> None:
    scout = asked(scripted(*said(3)), "one <b>")
    asked(scout.fork("left"), "aside")
    assert Markup(tree_svg(build_tree(scout.machine))).outline == snapshot(
        [
            "svg width=760 height=128 viewbox=0 0 760 128 role=img",
            "title",
            "'the tree of scout, left'",
            "desc",
            "'●  '",
            "path d=M12 22V28 fill=none stroke=#3b82c4",
            "desc",
            "text x=90 y=20 fill=currentColor opacity=.6",
            "'system    '",
            "svg x=160 y=4 width=588 height=24",
            "text x=0 y=16 fill=currentColor",
            "'(no system prompt) '",
            "g",
            "rect x=8 y=12 width=8 height=8 rx=2 fill=#3b82c4",
            "desc",
            "'●  '",
            "path d=M12 28V34 fill=none stroke=#3b82c4",
            "path d=M12 46V52 fill=none stroke=#3b82c4",
            "text x=32 y=44 fill=currentColor opacity=.6",
            "'msg_0   '",
            "text x=90 y=44 fill=currentColor opacity=.6",
            "'user      '",
            "svg x=160 y=28 width=588 height=24",
            "text x=0 y=16 fill=currentColor",
            "'one <b> '",
            "g",
            "circle cx=12 cy=40 r=5 fill=#3b82c4",
            "desc",
            "'●  '",
            "path d=M12 52V58 fill=none stroke=#3b82c4",
            "path d=M12 70V76 fill=none stroke=#d2762a",
            "text x=32 y=68 fill=currentColor opacity=.6",
            "'msg_1   '",
            "text x=90 y=68 fill=currentColor opacity=.6",
            "'assistant '",
            "rect x=160 y=56 width=47 height=16 rx=8 fill=#3b82c4 fill-opacity=.16 stroke=#3b82c4",
            "text x=167 y=68 fill=currentColor",
            "'scout '",
            "svg x=213 y=52 width=451 height=24",
            "text x=0 y=16 fill=currentColor",
            "'Answer 1. '",
            "text x=752 y=68 fill=currentColor font-style=italic text-anchor=end opacity=.6",
            "'fork: left '",
            "g",
            "title",
            "'2 tokens read, 3 written'",
            "circle cx=12 cy=64 r=4.4 fill=none stroke=#3b82c4",
            "desc",
            "'●  '",
            "path d=M12 76V82 fill=none stroke=#d2762a",
            "path d=M12 94V100 fill=none stroke=#d2762a",
            "text x=32 y=92 fill=currentColor opacity=.6",
            "'msg_2   '",
            "text x=90 y=92 fill=currentColor opacity=.6",
            "'user      '",
            "svg x=160 y=76 width=588 height=24",
            "text x=0 y=16 fill=currentColor",
            "'aside '",
            "g",
            "circle cx=12 cy=88 r=5 fill=#d2762a",
            "desc",
            "'●  '",
            "path d=M12 100V106 fill=none stroke=#d2762a",
            "text x=32 y=116 fill=currentColor opacity=.6",
            "'msg_3   '",
            "text x=90 y=116 fill=currentColor opacity=.6",
            "'assistant '",
            "rect x=160 y=104 width=41 height=16 rx=8 fill=#d2762a fill-opacity=.16 stroke=#d2762a",
            "text x=167 y=116 fill=currentColor",
            "'left '",
            "svg x=207 y=100 width=541 height=24",
            "text x=0 y=16 fill=currentColor",
            "'Answer 2. '",
            "g",
            "title",
            "'6 tokens read, 3 written'",
            "circle cx=12 cy=112 r=4.4 fill=none stroke=#d2762a",
        ]
    )


def test_the_texts_of_the_drawing_alone_are_the_tree_in_lines() -> None:
    scout = asked(scripted(*said(6)), "one", "two")
    asked(scout.fork(at="msg_1"), "aside")
    tree = build_tree(scout.machine)
    lines = Markup(bundle(tree)["text/html"]).text.strip().splitlines()
    assert lines[0] == "the tree of scout, scout.1"
    for line, plain in zip(lines[1:], tree_text(tree).splitlines(), strict=True):
        assert line[:20] == plain[:20]


def test_equal_runs_give_equal_bytes_and_nothing_runs_loads_or_hides() -> None:
    def made() -> dict[str, Any]:
        on = machine()
        scout = scripted(lambda said: {"say": "<img src=x onerror=alert(1)>"}, on=on, system="<script>alert(1)</script>")
        for text in ALL[:150]:
            if clean(text).strip():
                asked(scout.fork(f"p{len(on.processes)} \u202e<b>"), clean(text))
        return tree_bundle(on)

    first = made()
    assert first == made()
    markup = Markup(first["text/html"])
    assert markup.faults == []
    assert visible(markup.text) == markup.text


def test_a_tree_of_a_thousand_messages_is_built_and_drawn_in_less_than_a_second() -> None:
    scout = asked(scripted(lambda said: {"say": "An answer of some words."}), "one")
    for number in range(100):
        asked(scout.fork(), *(f"question {number}.{turn}" for turn in range(5)))
    on = scout.machine
    began = time.process_time()
    made = TreeView(on)._repr_mimebundle_()
    rows = tree_rows(build_tree(on), whole=True)
    took_s = time.process_time() - began
    assert len(rows) == 1003
    assert took_s < 1, took_s
    assert len(made["text/html"]) < 400_000


def test_a_message_opens_into_readable_pieces() -> None:
    message = Message(
        role="assistant",
        parts=(Thinking(text="hm"), Text(text="Well,\x1b[2J"), ToolCall(id="1", name="add", arguments='{"a":1}'), Text(text="y" * 30_000)),
    )
    found = sections(message)
    assert found[:3] == [("thinking", "hm"), ("", "Well,␛[2J"), ("calls add", '{\n  "a": 1\n}')]
    assert found[3][1].endswith("… the first 20,000 of 30,000 characters; the whole is in the log")


# live, over the wire


def test_the_live_tree_opens_shows_forks_and_goes_as_it_is_told() -> None:
    source = """
from llmproc_nb.api import Program
from llmproc_nb.core.errors import PersonError
from llmproc_nb.notebook.treewidget import TreeView
scout = Program(name="scout", provider="scripted", model="script", script=[{"say": f"Answer {n}."} for n in range(30)]).start()
for n in range(15):
    scout.run(f"question {n}").result()
def fork(node):
    return f"{scout.fork(at=node).name} stands there"
def goto(node):
    raise PersonError("it cannot go there")
widget = TreeView(scout.machine, on_fork=fork, on_goto=goto).widget()
"""
    with kernel() as running:
        front = Front(running, source)
        rows = front.state["rows"]
        assert [row["words"] for row in rows][3] == "… 25 messages …"
        front.ask("open", rows[3]["key"], until="rows")
        assert len(front.state["rows"]) == 31
        chosen = front.state["rows"][6]
        front.ask("show", chosen["id"], until="detail")
        detail = front.state["detail"]
        assert (detail["title"], detail["role"], detail["sections"]) == ("msg_5", "assistant", [["", "Answer 2."]])
        front.ask("fork", chosen["id"], until="note", matching="stands there")
        assert front.state["note"] == {"text": "scout.1 stands there", "bad": False}
        assert next(row for row in front.state["rows"] if row.get("id") == chosen["id"])["heads"] == [["scout.1", 1]]
        front.ask("goto", chosen["id"], until="note", matching="cannot")
        assert front.state["note"] == {"text": "PersonError: it cannot go there.", "bad": True}
        front.ask("show", "nonsense", until="note", matching="no node")
