"""Going back, by a person and by a model: the head moves, the left branch stays, the next request is legal."""

from __future__ import annotations

import threading
from itertools import count

import pytest
from machines import events, roles, scripted

from llmproc_nb.core.errors import CallStateError, PersonError
from llmproc_nb.core.event import Moved, ToolRan
from llmproc_nb.core.message import user
from llmproc_nb.core.provider import Request


def words(request: Request) -> str:
    message = request.head.message
    return message.text or "\n".join(result.text for result in message.tool_results)


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


def three_turns(**fields):
    scout = scripted({"say": "one"}, {"say": "two"}, {"say": "three"}, **fields)
    for text in ("a", "b", "c"):
        scout.run(text).result()
    return scout


def test_goto_moves_the_head_and_keeps_the_left_branch():
    scout = three_turns()
    left = scout.head
    assert scout.goto("~1").message.text == "two"
    assert str(scout.run("again")) == "three"
    assert [message.text for message in scout.messages[1:]] == ["a", "one", "b", "two", "again", "three"]
    assert left.id in scout.machine.dialog and left.path()[-2].message.text == "c"
    assert [event.reason for event in events(scout, Moved)] == ["goto"]


def test_a_note_is_said_at_the_place_gone_to():
    scout = three_turns()
    node = scout.goto("msg_1", "try it shorter")
    assert (node.message.role, node.message.text, node.parent.message.text) == ("user", "try it shorter", "one")


def test_undo_takes_a_goto_back_as_often_as_there_was_one():
    scout = three_turns()
    there = scout.head
    scout.goto("~1")
    middle = scout.head
    scout.goto("~1")
    assert scout.undo() is middle and scout.undo() is there
    with pytest.raises(PersonError, match="has not gone anywhere"):
        scout.undo()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("msg_77", r"there is no msg_77; the newest on its path are msg_5 \(assistant: three\), msg_4 \(user: c\)"),
        ("~9", "~9 is before the beginning; it has 3 turns so far"),
        ("seven", "'seven' is no address; an address is msg_7, ~2"),
        ("cell:4", "cell '4' did not end on a message of scout"),
        ("abcdef12", r"scout: no node starts with 'abcdef12'; the newest on its path are msg_5 \(assistant: three\), msg_4"),
    ],
)
def test_an_address_that_leads_nowhere_says_what_there_is(address, said):
    scout = three_turns()
    before = scout.head
    with pytest.raises(PersonError, match=said):
        scout.goto(address)
    assert scout.head is before


def test_an_id_of_too_few_characters_names_those_it_may_be():
    scout = three_turns()
    begins = scout.head.id[:4]
    next(number for number in count() if scout.graft(user(f"other {number}"), scout.head).id.startswith(begins))
    with pytest.raises(PersonError, match=f"2 nodes start with '{begins}'; one of them is meant: {scout.head.id[:12]} .assistant: three"):
        scout.goto(begins)
    assert scout.at(scout.head.id[:12]) is scout.head


def test_a_head_is_not_moved_while_a_call_runs():
    gate = threading.Event()

    def wait():
        gate.wait(5)
        return "done"

    scout = scripted({"call": [call("wait")]}, {"say": "end"}, tools=[wait])
    running = scout.run("a")
    while scout.running is None or not scout.head.message.tool_calls:
        pass
    with pytest.raises(CallStateError, match="its head is moved between calls"):
        scout.goto("first")
    gate.set()
    assert running.result().text == "end"


def test_going_to_a_reply_with_calls_stands_on_their_answers():
    scout = scripted({"call": [call("calculator", expression="1+1")]}, {"say": "two"}, tools=["calculator"])
    scout.run("a").result()
    reply = scout.path[2]
    assert reply.message.tool_calls and scout.goto(reply).message.role == "tool"


# ---- the model


def going_back(*first, position="msg_0", message="shorter this time", after="finished", tools=("goto", "calculator")):
    """A process that reads a lot, goes back to a label, and says what it sees then."""

    def script(request: Request):
        seen = words(request)
        if seen.startswith("<goto") or "<goto" in seen:
            return after
        if seen.startswith("[msg_0]") and len(request.path) == 2:
            return first[0] if first else {"call": [call("calculator", expression="1+1")]}
        return {"call": [call("goto", position=position, message=message), call("calculator", expression="2+2")]}

    return scripted(script, tools=list(tools))


def test_a_models_goto_leaves_no_trace_on_the_path_and_siblings_are_not_run():
    scout = going_back()
    result = scout.run("look").result()
    assert result.text == "finished" and result.stop_reason == "end_turn"
    assert roles(scout) == ["system", "user", "user", "assistant"]
    assert scout.messages[1].text == "[msg_0] look"
    assert scout.messages[2].text == (
        '[msg_5] <goto to="msg_0">You went back to here. The 3 messages that followed are left behind and not in your context any more; '
        "this is your own note about them:\nshorter this time\n</goto>"
    )
    ran = {(event.name, event.outcome) for event in events(scout, ToolRan)}
    assert ("calculator", "refused") in ran and ("goto", "ran") in ran
    assert [run.outcome for run in result.tool_calls if run.name == "calculator"] == ["ran", "refused"]
    left = events(scout, Moved)[0]
    assert scout.machine.dialog.find(left.before).parent.message.tool_calls[0].name == "goto"
    assert scout.undo().message.role == "tool"  # the left branch can be gone on from: its calls have their answers


def test_labels_are_visible_only_where_goto_is_enabled():
    plain = scripted({"say": "x"}, tools=["calculator"])
    plain.run("look").result()
    assert plain.messages[1].text == "look"
    labelled = scripted({"call": [call("calculator", expression="1+1")]}, {"say": "x"}, tools=["goto", "calculator"])
    labelled.run("look").result()
    assert labelled.messages[3].tool_results[0].text == "2\n[msg_2]"


@pytest.mark.parametrize(
    ("position", "said"),
    [
        ("msg_44", "there is no msg_44"),
        ("7", "position '7' is no label; labels look like msg_3; on the path are"),
        ("msg_2", "msg_2 is where you are; a goto leads further back"),
        ("", "is no label"),
    ],
)
def test_a_goto_that_leads_nowhere_is_answered_and_the_others_run(position, said):
    done = []

    def script(request: Request):
        seen = words(request)
        if len(request.path) == 2:
            return {"call": [call("calculator", expression="1+1")]}
        if len(request.path) == 4:
            return {"call": [call("goto", position=position, message="x"), call("calculator", expression="2+2")]}
        done.append(seen)
        return "ok"

    scout = scripted(script, tools=["goto", "calculator"])
    result = scout.run("look").result()
    assert result.text == "ok" and said in result.tool_calls[1].error
    assert result.tool_calls[2].result.text == "4"


def test_of_two_gotos_in_one_reply_the_first_that_leads_somewhere_counts():
    def script(request: Request):
        if "<goto" in words(request):
            return "ok"
        if len(request.path) < 6:
            return {"call": [call("calculator", expression="1+1")]}
        gotos = [("msg_99", "nowhere"), ("msg_2", "here"), ("msg_0", "there")]
        return {"call": [call("goto", position=position, message=message) for position, message in gotos]}

    scout = scripted(script, tools=["goto", "calculator"])
    assert scout.run("look").result().text == "ok"
    assert roles(scout) == ["system", "user", "assistant", "tool", "user", "assistant"]
    assert "here" in scout.messages[4].text and len(events(scout, Moved)) == 1


def test_a_model_cannot_go_to_a_branch_it_has_left():
    def script(request: Request):
        seen = words(request)
        if "<goto" in seen and "again" not in seen:
            return {"call": [call("goto", position="msg_2", message="again")]}
        if "is on a branch that was left" in seen:
            return "stuck"
        if len(request.path) == 2:
            return {"call": [call("calculator", expression="1+1")]}
        return {"call": [call("goto", position="msg_0", message="first")]}

    scout = scripted(script, tools=["goto", "calculator"])
    assert scout.run("look").result().text == "stuck"


def test_a_goto_without_an_end_stops_at_the_steps():
    scout = scripted(
        lambda request: (
            {"call": [call("goto", position="msg_0", message="round")]}
            if len(request.path) > 2
            else {"call": [call("calculator", expression="1")]}
        ),
        tools=["goto", "calculator"],
    )
    result = scout.run("look", max_iterations=6).result()
    assert result.stop_reason == "max_steps" and len(result.api_calls) == 6
