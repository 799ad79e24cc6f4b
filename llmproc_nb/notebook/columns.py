"""Events as columns: plain lists, one per column, before pandas sees them. Here: what stands in each column. Not here: dtypes (frames)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from llmproc_nb.core.event import (
    AnyEvent,
    Appended,
    Asked,
    AttemptFailed,
    Called,
    Declared,
    Replied,
    Stopped,
    ToolRan,
    ToolStarted,
)
from llmproc_nb.core.message import Message
from llmproc_nb.core.record import Kinds, Past, processes, said, total
from llmproc_nb.core.usage import Usage
from llmproc_nb.notebook.summary import summary

Table: TypeAlias = dict[str, list[Any]]


def tables(happened: Iterable[AnyEvent]) -> dict[str, Table]:
    """All five tables by name."""
    events = Kinds(happened)
    past = processes(events)
    names = {pid: one.name for pid, one in past.items()}
    tree = _Tree(events)
    return {
        "events": _events(events, names),
        "messages": _messages(tree, past, names),
        "calls": _calls(events, past, tree),
        "tools": _tools(events, names, tree),
        "processes": _processes(events, past, tree),
    }


def _table(names: str, rows: list[tuple[Any, ...]]) -> Table:
    """Rows turned into columns."""
    columns = names.split()
    if not rows:
        return {name: [] for name in columns}
    return dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))


class _Tree:
    """Messages by node id, first come first: what frames need of the tree, without computing ids again."""

    def __init__(self, events: Kinds) -> None:
        self.found: dict[str, tuple[Appended, Message]] = {}
        self.depth: dict[str, int] = {}
        for event, message in said(events):
            if event.node not in self.found:
                self.found[event.node] = event, message
                self.depth[event.node] = 0 if event.parent is None else self.depth.get(event.parent, -1) + 1

    def message(self, node: str) -> Message | None:
        found = self.found.get(node)
        return found[1] if found else None

    def text(self, node: str) -> str | None:
        message = self.message(node)
        return None if message is None else _text(message)

    def paths(self, past: dict[int, Past]) -> dict[str, frozenset[str]]:
        """For each node the names of the processes on whose path it is."""
        on: dict[str, frozenset[str]] = {}
        for one in past.values():
            if not one.killed:
                on[one.head] = on.get(one.head, frozenset()) | {one.name}
        for node in sorted(self.found, key=self.depth.__getitem__, reverse=True):
            parent = self.found[node][0].parent
            if parent is not None and (names := on.get(node)):
                known = on.get(parent)
                on[parent] = names if known is None or known <= names else known | names
        return on


def _text(message: Message) -> str:
    return "\n".join(part.text for part in message.tool_results) if message.role == "tool" else message.text


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


def _messages(tree: _Tree, past: dict[int, Past], names: dict[int, str]) -> Table:
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
        "text": [_text(message) for message in messages],
        "parts": [kinds[tuple(map(type, message.parts))] for message in messages],
        "interrupted": [message.interrupted for message in messages],
        "on_path": [joined.get(on.get(node)) for node in found],
        "seq": [event.seq for event in events],
        "time": [event.time_ns for event in events],
        "pid": pids,
        "process": [names.get(pid) if pid else None for pid in pids],
        "call": [event.call for event in events],
        "cell": [event.cell for event in events],
    }


def _makers(tree: _Tree, past: dict[int, Past]) -> dict[str, int]:
    """Of nodes that came from an earlier log, the first process that began or stands on one of them."""
    makers: dict[str, int] = {}
    for one in past.values():
        node: str | None = one.head
        while node is not None and node in tree.found and node not in makers:
            event = tree.found[node][0]
            makers[node], node = one.pid, event.parent
    return makers


class _Sum:
    """What one call added up to."""

    __slots__ = ("error", "head", "model", "replayed", "replies", "retries", "stop", "tools", "usage")

    def __init__(self) -> None:
        self.usage: list[Usage] = []
        self.replies = self.retries = self.tools = 0
        self.replayed = True
        self.model: str | None = None
        self.head: str | None = None
        self.stop: Stopped | None = None


def _calls(events: Kinds, past: dict[int, Past], tree: _Tree) -> Table:
    begun: dict[int, Called] = {}
    sums: dict[int | None, _Sum] = {}
    models = {declared.config: declared.model for declared in events.of(Declared)}
    for called in events.of(Called):
        if called.call is not None:
            begun[called.call], sums[called.call] = called, _Sum()
    for asked in events.of(Asked):
        if (one := sums.get(asked.call)) is not None:
            one.model = models.get(asked.config)
    for replied in events.of(Replied):
        if (one := sums.get(replied.call)) is not None:
            one.usage.append(replied.usage)
            one.replies += 1
            one.replayed = one.replayed and replied.replayed
            one.model = replied.model or one.model
            one.head = replied.node
    for failed in events.of(AttemptFailed):
        if (one := sums.get(failed.call)) is not None:
            one.usage.append(failed.usage)
            one.retries += 1
    for ran in events.of(ToolRan):
        if (one := sums.get(ran.call)) is not None:
            one.tools += 1
    for stopped in events.of(Stopped):
        if (one := sums.get(stopped.call)) is not None:
            one.stop = stopped
    rows = [_call(number, event, sums[number], past.get(event.pid), tree) for number, event in begun.items()]
    return _table(
        "call pid process cell node head started duration_s model provider scripted replayed stop requests retries tools"
        " input_tokens output_tokens cache_read_tokens cache_write_tokens reasoning_tokens cost_usd prompt text error",
        rows,
    )


def _call(number: int, event: Called, one: _Sum, past: Past | None, tree: _Tree) -> tuple[Any, ...]:
    started, stop = past.started if past else None, one.stop
    used = stop.usage if stop else total(one.usage)
    return (
        number,
        event.pid,
        started.name if started else None,
        event.cell,
        event.node,
        stop.node if stop else one.head or event.node,
        event.time_ns,
        stop.duration_s if stop else None,
        one.model,
        started.provider if started else None,
        started.scripted if started else None,
        one.replayed and one.replies > 0,
        stop.reason if stop else None,
        one.replies,
        one.retries,
        one.tools,
        used.input_tokens,
        used.output_tokens,
        used.cache_read_tokens,
        used.cache_write_tokens,
        used.reasoning_tokens,
        _cost(used),
        tree.text(event.node),
        tree.text(one.head) if one.head else None,
        stop.error if stop else None,
    )


def _cost(used: Usage) -> float | None:
    """Dollars, or None where a request has no known price."""
    return None if used.unpriced_requests else used.cost_usd


def _tools(events: Kinds, names: dict[int, str], tree: _Tree) -> Table:
    begun = {(event.pid, event.call, event.node, event.position): event for event in events.of(ToolStarted)}
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
            )
        )
    rows += [
        (*_where(event, names), event.call_id, event.name, event.arguments, None, "unknown", None, event.time_ns, None, False, None)
        for event in begun.values()
    ]
    rows.sort(key=lambda row: row[0])
    return _table(
        "seq call pid process cell node position call_id name arguments result outcome error time duration_s replayed trace", rows
    )


def _where(event: ToolStarted | ToolRan, names: dict[int, str]) -> tuple[Any, ...]:
    return event.seq, event.call, event.pid, names.get(event.pid), event.cell, event.node, event.position


def _arguments(tree: _Tree, event: ToolRan) -> str | None:
    """The arguments as the reply has them, of a tool that was answered without being started."""
    message = tree.message(event.node)
    calls = message.tool_calls if message else ()
    return calls[event.position].arguments if event.position < len(calls) else None


def _processes(events: Kinds, past: dict[int, Past], tree: _Tree) -> Table:
    calls: dict[int, int] = dict.fromkeys(past, 0)
    for event in events.of(Called):
        if event.pid in calls:
            calls[event.pid] += 1
    rows = [
        (
            pid,
            one.name,
            one.started.parent_pid,
            one.started.lineage,
            one.started.program.get("name", "agent"),
            one.started.program.get("model") or None,
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
            _cost(used),
        )
        for pid, one in past.items()
        for used in (one.usage,)
    ]
    return _table(
        "pid process parent_pid lineage program model provider scripted started cell state node head depth calls requests"
        " input_tokens output_tokens cost_usd",
        rows,
    )
