"""What a list of events tells: the tree of messages, the processes and where they stood, which tool calls were open.

Pure reading of events, for whoever rebuilds, replays or tabulates a log. Not here: files (drivers), running anything.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llmproc_nb.core.dialog import Dialog, Node
from llmproc_nb.core.errors import LogError
from llmproc_nb.core.event import (
    AnyEvent,
    Appended,
    Asked,
    AttemptFailed,
    Called,
    Declared,
    Event,
    Killed,
    Moved,
    Opened,
    Replied,
    Started,
    Stopped,
    ToolRan,
    ToolStarted,
)
from llmproc_nb.core.label import labelled
from llmproc_nb.core.message import Message, ToolCall
from llmproc_nb.core.usage import Usage

E = TypeVar("E", bound=Event)


class Kinds:
    """Events by kind, each kind in order. Very many events are told apart once instead of in every place."""

    def __init__(self, events: Iterable[AnyEvent]) -> None:
        self.all = list(events)
        self._found: defaultdict[type, list[Any]] = defaultdict(list)
        for event in self.all:
            self._found[type(event)].append(event)

    def of(self, kind: type[E]) -> list[E]:
        return self._found.get(kind, [])

    def __iter__(self) -> Iterator[AnyEvent]:
        return iter(self.all)


def said(events: Iterable[AnyEvent]) -> Iterator[tuple[Appended, Message]]:
    """Each node's event with its message; one of tool results is put together from the events of its tools. Raises LogError."""
    kinds = events if isinstance(events, Kinds) else Kinds(events)
    answers = {event.seq: event for event in kinds.of(ToolRan)}
    for event in kinds.of(Appended):
        yield event, event.message or _of_results(answers, event)


def _of_results(answers: Mapping[int, ToolRan], event: Appended) -> Message:
    message = Message(role="tool", parts=tuple(_answer(answers, seq, event).result for seq in event.results))
    return labelled(message, event.number) if event.label and event.number is not None else message


def _answer(answers: Mapping[int, ToolRan], seq: int, event: Appended) -> ToolRan:
    if seq not in answers:
        raise LogError(f"event {seq}, an answer of node {event.node[:8]}, is missing", place=f"event {event.seq}")
    return answers[seq]


def tree(events: Iterable[AnyEvent], *, place: str = "") -> Dialog:
    """The dialog of a log, each node's id computed again. Raises LogError at the first one that differs or hangs in the air."""
    dialog = Dialog()
    for event, message in said(events):
        if event.parent is not None and event.parent not in dialog:
            raise LogError(f"node {event.node[:8]} follows node {event.parent[:8]}, which is missing", place=_place(place, event))
        node, _ = dialog.append(message, None if event.parent is None else dialog.find(event.parent))
        if node.id != event.node:
            raise LogError(
                f"the {message.role} message at depth {node.depth} gives the id {node.id[:8]}, the log says {event.node[:8]}",
                place=_place(place, event),
                right="an id is the hash of the message and what came before it",
                step="The log was changed, or was written by another version.",
            )
    return dialog


def _place(place: str, event: AnyEvent) -> str:
    return f"{place}, event {event.seq}" if place else f"event {event.seq}"


@contextmanager
def without_collection() -> Iterator[None]:
    """Let the garbage collector rest while very many values are made that all stay: it would look through them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def last_run(events: Iterable[AnyEvent]) -> list[AnyEvent]:
    """The events from the last Opened on."""
    found = list(events)
    starts = [index for index, event in enumerate(found) if isinstance(event, Opened)]
    return found[starts[-1] :] if starts else found


@dataclass
class Past:
    """One process as a log knows it: how it began, where it stood at the end, what it had used by itself.

    `call` is the call that was under way, `arrived` the seq of the event with which it reached its head, `config` how it asked last.
    """

    started: Started
    head: str
    config: str | None = None
    killed: bool = False
    call: Called | None = None
    replies: list[Replied | AttemptFailed] = field(default_factory=list)
    arrived: int = 0

    @property
    def pid(self) -> int:
        return self.started.pid

    @property
    def name(self) -> str:
        return self.started.name

    @property
    def access(self) -> str | None:
        """What it was allowed to do: read, write or admin; None where its log does not say."""
        return self.started.access

    @property
    def twin(self) -> bool:
        """Whether it is a second head of its parent: the same program, tools and fds, and its numbers go on."""
        return self.started.origin == "fork" and not self.started.program

    @property
    def usage(self) -> Usage:
        """What its own replies and failed attempts add up to."""
        return total(reply.usage for reply in self.replies)


def total(usages: Iterable[Usage]) -> Usage:
    """Many usages as one."""
    found = list(usages)
    return Usage(**{name: sum([getattr(usage, name) for usage in found]) for name in Usage.__struct_fields__})


def used(events: Iterable[AnyEvent], pid: int) -> Usage:
    """What the replies to a process and to everyone below it took. Attempts that failed are not in it: a replay makes them not again."""
    family, usages = {pid}, list[Usage]()
    for event in events:
        if isinstance(event, Started) and event.parent_pid in family:
            family.add(event.pid)
        elif isinstance(event, Replied) and event.pid in family:
            usages.append(event.usage)
    return total(usages)


def processes(events: Iterable[AnyEvent]) -> dict[int, Past]:
    """The processes of a log by pid, as they were when it ended."""
    found: dict[int, Past] = {}
    for event in events:
        if type(event) in _OF_TOOLS:
            continue
        if isinstance(event, Started):
            found[event.pid] = Past(event, event.node, arrived=event.seq)
        elif (past := found.get(event.pid)) is not None:
            _go_on(past, event)
    return found


_OF_TOOLS = frozenset((ToolStarted, ToolRan))


_STANDS = (Appended, Called, Asked, Replied, Moved, Stopped)
_ARRIVES = (Appended, Replied, Moved)
_USES = (Replied, AttemptFailed)
_ASKS = (Asked, Declared)


def _go_on(past: Past, event: AnyEvent) -> None:
    if isinstance(event, Appended):  # the most frequent kind first
        if not event.aside:
            past.head, past.arrived = event.node, event.seq
        return
    if isinstance(event, Asked | Replied) and event.aside:
        past.replies += [event] if isinstance(event, Replied) else []
        return
    if isinstance(event, _USES):
        past.replies.append(event)
        if event.call is None:  # brought in from an earlier log: says what was used, not where the process stands
            return
    elif isinstance(event, Called):
        past.call = event
    elif isinstance(event, Stopped):
        past.call = None
    elif isinstance(event, Killed):
        past.killed = True
    elif isinstance(event, _ASKS):
        past.config = event.config
    if isinstance(event, _STANDS):
        if isinstance(event, _ARRIVES) or event.node != past.head:
            past.arrived = event.seq
        past.head = event.node


def program_of(past: Past, found: Mapping[int, Past]) -> dict[str, Any]:
    """The declaration of a process's program; of a twin, that of the process it is a twin of."""
    while past.twin and (parent := found.get(past.started.parent_pid or 0)) is not None:
        past = parent
    return past.started.program


@dataclass(frozen=True, kw_only=True)
class OpenCall:
    """A tool call without an answer on the path. `state`: finished (`ran` is what came of it), unknown (it had begun), never started."""

    position: int
    call: ToolCall
    state: str
    ran: ToolRan | None = None


def open_calls(events: Iterable[AnyEvent], past: Past, head: Node) -> list[OpenCall]:
    """The tool calls that a process was waiting for when the log ended."""
    calls = head.message.tool_calls if head.message.role == "assistant" else ()
    if not calls:
        return []
    began: set[int] = set()
    ran: dict[int, ToolRan] = {}
    for event in events:
        if event.pid == past.pid and event.seq > past.arrived and isinstance(event, ToolStarted | ToolRan) and event.node == head.id:
            if isinstance(event, ToolRan):
                ran[event.position] = event
            else:
                began.add(event.position)
    return [
        OpenCall(
            position=position,
            call=call,
            state="finished" if position in ran else "unknown" if position in began else "never started",
            ran=ran.get(position),
        )
        for position, call in enumerate(calls)
    ]


def trails(events: Iterable[AnyEvent]) -> dict[int, list[str]]:
    """The nodes each call went through, in order, whether or not they were new to the tree."""
    found: dict[int, list[str]] = {}
    for event, nodes in steps(events):
        note_trail(found, event, nodes)
    return found


def note_trail(trails: dict[int, list[str]], event: AnyEvent, nodes: tuple[str, ...]) -> None:
    """Add to the trail of a call what an event tells of it; `nodes` are those its process went on to."""
    if event.call is None or not isinstance(event, _STANDS):
        return
    trail = trails.setdefault(event.call, [])
    trail += nodes
    if isinstance(event, Moved):
        trail.append(event.node)


def _moved_by_person(event: AnyEvent) -> bool:
    """Whether a head was moved from outside; the loop itself moves one to take a question back, and where its model goes back."""
    return isinstance(event, Moved) and event.call is None


def moves(events: Iterable[AnyEvent]) -> Iterator[Moved]:
    """The moves that people made."""
    return (event for event in events if isinstance(event, Moved) and _moved_by_person(event))


class Course:
    """Follows processes through their events. `parent_of` gives the node above another one, if it is known."""

    def __init__(self, parent_of: Callable[[str], str | None]) -> None:
        self._parent_of = parent_of
        self._heads: dict[int, str] = {}

    def stand(self, pid: int, node: str) -> None:
        """Know where a process stands whose beginning is not among the events."""
        self._heads[pid] = node

    def follow(self, event: AnyEvent) -> tuple[str, ...]:
        """The nodes that a process went on to by then, in order; also those that were in the tree before, which have no event."""
        pid = event.pid
        if isinstance(event, Started):
            self._heads[pid] = event.node
        if not isinstance(event, _STANDS) or pid not in self._heads or _stays(event):
            return ()
        gone, head, node = list[str](), self._heads[pid], event.before if isinstance(event, Moved) else event.node
        at: str | None = node
        while at is not None and at != head:
            gone.append(at)
            at = self._parent_of(at)
        self._heads[pid] = event.node
        if at is None:  # it was moved without an event
            return (node,) if isinstance(event, Appended) else ()
        return tuple(reversed(gone))


def _stays(event: AnyEvent) -> bool:
    """Whether a process stands where it stood: it was put or asked aside, or the reply came in from an earlier log."""
    return (isinstance(event, Appended | Asked | Replied) and event.aside) or (isinstance(event, Replied) and event.call is None)


def steps(events: Iterable[AnyEvent]) -> Iterator[tuple[AnyEvent, tuple[str, ...]]]:
    """Each event with the nodes that its process went on to by then, in order. As many are the messages it has said or heard."""
    parents: dict[str, str | None] = {}
    course = Course(parents.get)
    for event in events:
        if isinstance(event, Appended):
            parents.setdefault(event.node, event.parent)
        yield event, course.follow(event)


def declared(events: Iterable[AnyEvent]) -> dict[str, Declared]:
    """The ways to ask, by their hash."""
    return {event.config: event for event in events if isinstance(event, Declared)}
