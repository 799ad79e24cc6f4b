"""The end of a log in a process: the question that had no answer, tool calls that were open, a goto half made, what it had not read."""

from __future__ import annotations

from typing import Any

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.event import ToolRan
from llmproc_nb.core.message import Message, Text, ToolResult, user
from llmproc_nb.core.process import Process
from llmproc_nb.core.record import OpenCall, Past, open_calls
from llmproc_nb.core.syscall import went_back
from llmproc_nb.core.tool import read_arguments
from llmproc_nb.drivers.rebuild.family import Family
from llmproc_nb.drivers.rebuild.resumed import Resumed
from llmproc_nb.drivers.rebuild.shown import mark_shown, unlabelled

UNKNOWN = "the kernel died while the tool ran: whether it took effect is unknown"
NEVER = "not run: the kernel died before this tool started"


def resumed(family: Family, past: Past) -> Resumed:
    """What a process of the log became, with an answer to whatever was open in it."""
    process = family.made.get(past.pid)
    if process is None:
        return Resumed(name=past.name, old_pid=past.pid, fault=family.faults.get(past.pid, "it has no beginning in the log"))
    _finish_goto(family, past, process)
    unanswered = _take_back(family, past, process)
    answered = open_calls(family.events, past, process.head)
    if answered:
        _answer(family, process, process.head, answered)
    for sent in family.waiting.get(past.pid, ()):
        sender = family.made.get(sent.sender or 0)
        process.send(sent.text if sender is not None else family.words(sent), sender=sender)
    missing, links = family.missing[past.pid]
    return Resumed(
        name=past.name,
        old_pid=past.pid,
        process=process,
        finished=_names(answered, "finished"),
        unknown=_names(answered, "unknown"),
        never_started=_names(answered, "never started"),
        unanswered=unanswered,
        missing_tools=missing,
        missing_links=links,
    )


def _finish_goto(family: Family, past: Past, process: Process) -> None:
    """Say the note of a goto of the model that was followed, but whose note the kernel did not live to say."""
    moved = family.moved.get(past.pid)
    if moved is None or moved.call is None or moved.reason != "goto":
        return
    reply = family.node(moved.before).parent
    ran = (event for event in family.events if isinstance(event, ToolRan) and event.pid == past.pid and event.outcome == "ran")
    done = [event for event in ran if reply is not None and event.node == reply.id]
    if reply is not None and done:  # of all calls of that reply only the goto was followed
        arguments = read_arguments(reply.message.tool_calls[done[-1].position].arguments)
        note = process.page(user(arguments["message"]), "note").text
        process.append(went_back(arguments["position"], note, reply.depth - process.head.depth))


def _take_back(family: Family, past: Past, process: Process) -> str | None:
    """Take the question of a call that had got no answer at all off the path; gives its words. What came in after it is to be read."""
    asking = family.asking.get(past.pid)
    if asking is None:
        return None
    question, later = process.head, list[str]()
    while question is not asking and question.parent is not None:
        later.append(unlabelled(question.message.text))
        question = question.parent
    if question.parent is None:
        return None
    process.move(question.parent, "resumed")
    for text in reversed(later):
        process.send(text)
    return unlabelled(question.message.text)


def _answer(family: Family, process: Process, head: Node, answered: list[OpenCall]) -> None:
    results: list[ToolResult] = []
    seqs: list[int] = []
    for one in answered:
        result, outcome, duration_s = _outcome(one)
        fields: dict[str, Any] = {"position": one.position, "name": one.call.name, "result": result, "outcome": outcome}
        fields |= {"duration_s": duration_s, "replayed": one.ran is not None}
        event = family.machine.log.write(ToolRan, pid=process.pid, node=head.id, **fields)
        results.append(result)
        seqs.append(event.seq)
    node = process.append(Message(role="tool", parts=tuple(results)), results=tuple(seqs))
    mark_shown(process, node.message)
    if process.first is head:
        process.first = node


def _outcome(one: OpenCall) -> tuple[ToolResult, str, float]:
    if one.ran is not None:
        return one.ran.result, one.ran.outcome, one.ran.duration_s
    text, outcome = (UNKNOWN, "interrupted") if one.state == "unknown" else (NEVER, "refused")
    return ToolResult(call_id=one.call.id, name=one.call.name, content=(Text(text=text),), is_error=True), outcome, 0.0


def _names(answered: list[OpenCall], state: str) -> tuple[str, ...]:
    return tuple(one.call.name for one in answered if one.state == state)
