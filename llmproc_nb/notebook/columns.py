"""Events as columns: plain lists, one per column, before pandas sees them.

Here: what stands in each column. Not here: the columns of calls (callcolumns), fds (fdcolumns) and code (codecolumns), what is
known of the tree (pasttree), dtypes (frames).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmproc_nb.core.event import AnyEvent, Called, Decided, ToolRan, ToolStarted
from llmproc_nb.core.record import Kinds, Past, processes, program_of
from llmproc_nb.notebook.callcolumns import call_columns
from llmproc_nb.notebook.codecolumns import code_columns
from llmproc_nb.notebook.fdcolumns import fd_columns
from llmproc_nb.notebook.pasttree import Table, Tree, columns_of, known_cost, message_text
from llmproc_nb.notebook.summary import summary


def tables(happened: Iterable[AnyEvent]) -> dict[str, Table]:
    """All tables by name."""
    events = Kinds(happened)
    past = processes(events)
    names = {pid: one.name for pid, one in past.items()}
    tree = Tree(events)
    return {
        "events": _events(events, names),
        "messages": _messages(tree, past, names),
        "calls": call_columns(events, past, tree),
        "tools": _tools(events, names, tree),
        "processes": _processes(events, past, tree),
        "fds": fd_columns(events, names, tree),
        "code": code_columns(events, names),
    }


def _events(events: Kinds, names: dict[int, str]) -> Table:
    kinds = {struct: str(struct.__struct_config__.tag) for struct in AnyEvent.__args__}
    at_node = {struct for struct in kinds if "node" in struct.__struct_fields__}
    return {
        "seq": [event.seq for event in events],
        "time": [event.time_ns for event in events],
        "kind": [kinds[type(event)] for event in events],
        "pid": [event.pid or None for event in events],
        "process": [names.get(event.pid) for event in events],
        "call": [event.call for event in events],
        "cell": [event.cell for event in events],
        "node": [event.node if type(event) in at_node else None for event in events],  # type: ignore[union-attr]
        "summary": [summary(event) for event in events],
    }


def _messages(tree: Tree, past: dict[int, Past], names: dict[int, str]) -> Table:
    on = tree.paths(past)
    joined: dict[frozenset[str] | None, str] = {group: ", ".join(sorted(group)) for group in set(on.values())}
    makers = _makers(tree, past) if any(not event.pid for event, _ in tree.found.values()) else {}
    found = tree.found
    events = [event for event, _ in found.values()]
    messages = [message for _, message in found.values()]
    pids = [event.pid or makers.get(event.node) for event in events]
    kinds: dict[tuple[type, ...], str] = {}
    for shape in {tuple(map(type, message.parts)) for message in messages}:
        kinds[shape] = ", ".join([str(part.__struct_config__.tag) for part in shape])  # type: ignore[attr-defined]
    return {
        "node": list(found),
        "parent": [event.parent for event in events],
        "depth": [tree.depth[node] for node in found],
        "role": [message.role for message in messages],
        "text": [message_text(message) for message in messages],
        "parts": [kinds[tuple(map(type, message.parts))] for message in messages],
        "interrupted": [message.interrupted for message in messages],
        "on_path": [joined.get(on.get(node)) for node in found],
        "seq": [event.seq for event in events],
        "time": [event.time_ns for event in events],
        "pid": pids,
        "process": [names.get(pid) if pid else None for pid in pids],
        "call": [event.call for event in events],
        "cell": [event.cell for event in events],
        "number": [event.number for event in events],
        "aside": [event.aside for event in events],
    }


def _makers(tree: Tree, past: dict[int, Past]) -> dict[str, int]:
    """Of nodes that came from an earlier log, the first process that began or stands on one of them."""
    makers: dict[str, int] = {}
    for one in past.values():
        node: str | None = one.head
        while node is not None and node in tree.found and node not in makers:
            event = tree.found[node][0]
            makers[node], node = one.pid, event.parent
    return makers


def _tools(events: Kinds, names: dict[int, str], tree: Tree) -> Table:
    begun = {(event.pid, event.call, event.node, event.position): event for event in events.of(ToolStarted)}
    decided = {(event.pid, event.call, event.node, event.position): event for event in events.of(Decided)}
    rows: list[tuple[Any, ...]] = []
    for ran in events.of(ToolRan):
        start = begun.pop((ran.pid, ran.call, ran.node, ran.position), None)
        words = ran.result.text
        rows.append(
            (
                *_where(ran, names),
                ran.result.call_id,
                ran.name,
                start.arguments if start else _arguments(tree, ran),
                words,
                ran.outcome,
                words if ran.result.is_error else None,
                ran.time_ns,
                ran.duration_s,
                ran.replayed,
                ran.trace,
                *_decision(decided.get((ran.pid, ran.call, ran.node, ran.position))),
            )
        )
    for place, event in begun.items():
        unknown = None, "unknown", None, event.time_ns, None, False, None
        rows.append((*_where(event, names), event.call_id, event.name, event.arguments, *unknown, *_decision(decided.get(place))))
    first: dict[tuple[Any, Any], int] = {}
    for row in rows:
        reply = row[1], row[5]
        first[reply] = min(row[0], first.get(reply, row[0]))
    rows.sort(key=lambda row: (first[row[1], row[5]], row[6]))  # as the reply has them: which one ended first is chance
    return columns_of(
        "seq call pid process cell node position call_id name arguments result outcome error time duration_s replayed trace"
        " allowed decided_by changed",
        rows,
    )


def _decision(event: Decided | None) -> tuple[Any, ...]:
    return (None, None, None) if event is None else (event.allowed, event.by or None, event.arguments is not None)


def _where(event: ToolStarted | ToolRan, names: dict[int, str]) -> tuple[Any, ...]:
    return event.seq, event.call, event.pid, names.get(event.pid), event.cell, event.node, event.position


def _arguments(tree: Tree, event: ToolRan) -> str | None:
    """The arguments as the reply has them, of a tool that was answered without being started."""
    message = tree.message(event.node)
    calls = message.tool_calls if message else ()
    return calls[event.position].arguments if event.position < len(calls) else None


def _processes(events: Kinds, past: dict[int, Past], tree: Tree) -> Table:
    calls: dict[int, int] = dict.fromkeys(past, 0)
    for event in events.of(Called):
        if event.pid in calls:
            calls[event.pid] += 1
    rows = [
        (
            pid,
            one.name,
            one.started.parent_pid,
            past[one.started.parent_pid].name if one.started.parent_pid in past else None,
            one.started.origin,
            one.access,
            one.started.lineage,
            program.get("name", "agent"),
            program.get("model") or None,
            one.started.provider,
            one.started.scripted,
            one.started.time_ns,
            one.started.cell,
            "killed" if one.killed else "running" if one.call else "idle",
            one.started.node,
            one.head,
            tree.depth.get(one.head),
            calls[pid],
            used.requests,
            used.input_tokens,
            used.output_tokens,
            known_cost(used),
        )
        for pid, one in past.items()
        for used, program in ((one.usage, program_of(one, past)),)
    ]
    return columns_of(
        "pid process parent_pid parent origin access lineage program model provider scripted started cell state node head depth calls"
        " requests input_tokens output_tokens cost_usd",
        rows,
    )
