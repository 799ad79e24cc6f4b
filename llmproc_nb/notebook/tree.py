"""The tree of a machine as one value: its messages, who stands where, and what made each branch.

Here: what a tree is, read from events, dialog and processes. Not here: which row it stands in (treerow) and how it looks (treeview).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.label import without_label
from llmproc_nb.core.message import Message, Opaque, Text, Thinking
from llmproc_nb.core.process import Process
from llmproc_nb.core.record import total
from llmproc_nb.core.usage import Usage
from llmproc_nb.core.visible import visible
from llmproc_nb.notebook.fragment import arguments_line
from llmproc_nb.notebook.treelog import Told, marks_of

if TYPE_CHECKING:
    from llmproc_nb.core.machine import Machine

WORDS_CHARS = 160


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A process and the node it stands on. `state` as in Process: idle, running or killed."""

    pid: int
    name: str
    state: str


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """A message at its place.

    `pid` is the process that said it or was told it first; `heads` are the processes that stand here; `marks` say in a few words what
    began or ended here; `living`: on the path of a process that lives. `spawned_from` is, of a first node, the node whose process
    began it. `seq` is that of the event that brought the node in.
    """

    id: str
    parent: str | None
    depth: int
    role: str
    words: str
    label: str = ""
    pid: int = 0
    cell: str | None = None
    heads: tuple[Standing, ...] = ()
    marks: tuple[str, ...] = ()
    usage: Usage = Usage()
    living: bool = False
    spawned_from: str | None = None
    seq: int = 0


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes by id, parents before children; the processes it shows, by pid."""

    nodes: dict[str, TreeNode]
    processes: dict[int, str]

    def tone(self, pid: int) -> int:
        """Which of the shown processes it is, from 0: what colours are chosen by."""
        return next((number for number, other in enumerate(self.processes) if other == pid), 0)


def build_tree(machine: Machine, names: Iterable[str | int] = ()) -> Tree:
    """The tree of a machine, or what these processes and their children said and saw of it. Raises PersonError for unknown names."""
    shown = _shown(machine, tuple(names))
    told = Told(machine.log.events, frozenset(shown))
    wanted = _wanted(machine, shown.values(), told) if tuple(names) else {node.id: node for node in machine.dialog}
    nodes = sorted(wanted.values(), key=lambda node: node.depth)
    labels = _labels(shown.values())
    heads: defaultdict[str, list[Standing]] = defaultdict(list)
    living: dict[str, int] = {}
    for process in shown.values():
        heads[process.head.id].append(Standing(pid=process.pid, name=process.name, state=process.state))
        if process.alive:
            _claim(living, process)
    makers: dict[str, int] = {}
    for process in shown.values():
        _claim(makers, process)
    marks = marks_of(told, machine, labels)
    return Tree(
        nodes={
            node.id: TreeNode(
                id=node.id,
                parent=node.parent.id if node.parent is not None else None,
                depth=node.depth,
                role=node.message.role,
                words=first_words(node.message),
                label=labels.get(node.id, ""),
                pid=told.maker(node.id) or makers.get(node.id, 0),
                cell=told.cells.get(node.id),
                heads=tuple(heads.get(node.id, ())),
                marks=tuple(marks.get(node.id, ())),
                usage=total(told.usages[node.id]) if node.id in told.usages else Usage(),
                living=node.id in living,
                spawned_from=told.spawned_roots.get(node.id) if node.parent is None else None,
                seq=told.seqs.get(node.id, 0),
            )
            for node in nodes
        },
        processes={pid: process.name for pid, process in shown.items()},
    )


def _shown(machine: Machine, names: tuple[str | int, ...]) -> dict[int, Process]:
    """The processes of these names and all below them, by pid; all processes where none is named."""
    everyone = dict(sorted(machine.processes.items()))
    if not names:
        return everyone
    known = {word for process in everyone.values() for word in (process.name, process.pid, str(process.pid))}
    for name in names:
        if name not in known:
            there = ", ".join(dict.fromkeys(process.name for process in everyone.values())) or "none yet"
            raise PersonError(f"there is no process {name!r}", right=f"processes: {there}")
    found: dict[int, Process] = {}
    for pid, process in everyone.items():  # a parent has a smaller pid than its children
        named = any(name in (process.name, pid, str(pid)) for name in names)
        if named or (process.parent is not None and process.parent.pid in found):
            found[pid] = process
    return found


def _wanted(machine: Machine, processes: Iterable[Process], told: Told) -> dict[str, Node]:
    """The nodes these processes were on, with all above them."""
    found: dict[str, Node] = {}
    starts = [process.head for process in processes]
    starts += [machine.dialog.find(node) for node in told.seen if node in machine.dialog]
    for start in starts:
        for node in start.up():
            if node.id in found:
                break
            found[node.id] = node
    return found


def _claim(claimed: dict[str, int], process: Process) -> None:
    """Note the process on its path, from the head up to where another one was noted before."""
    for node in process.head.up():
        if node.id in claimed:
            return
        claimed[node.id] = process.pid


def _labels(processes: Iterable[Process]) -> dict[str, str]:
    """Each node's number as its own process counts, `msg_4`. Parents come before their forks, which know the numbers above them too."""
    found: dict[str, str] = {}
    for process in processes:
        own: dict[str, str] = {}
        for number, node in process.labels.newest_first():
            if node.id in found:
                break
            own.setdefault(node.id, f"msg_{number}")
        found |= own
    return found


def first_words(message: Message, limit_chars: int = WORDS_CHARS) -> str:
    """How a message begins, in one visible line: its text, else the tools it calls, else what its tools answered."""
    text = without_label(message.text).strip()
    if message.role == "tool":
        return begun(
            " · ".join(f"{result.name} → {without_label(result.text[:limit_chars])}" for result in message.tool_results), limit_chars
        )
    calls = ", ".join(f"{call.name}({_arguments(call.arguments)})" for call in message.tool_calls)
    if text and calls:
        return f"{begun(text, limit_chars // 2)} → {begun(calls, limit_chars // 2)}"
    if text or calls:
        return begun(text or calls, limit_chars)
    return _other(message)


def begun(text: str, limit_chars: int) -> str:
    """The beginning of a text in one visible line, with a sign where it goes on."""
    line = " ".join(visible(text[: limit_chars * 4]).split())
    return line if len(line) <= limit_chars and len(text) <= limit_chars * 4 else f"{line[:limit_chars].rstrip()}…"


def _arguments(text: str) -> str:
    try:
        value: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return begun(text, 60)
    return begun(arguments_line(value, 60), 60) if isinstance(value, dict) else begun(text, 60)


_KINDS: dict[type, Callable[[Any], str]] = {
    Thinking: lambda part: f"thinking: {part.text}" if part.text else "thinking, hidden by the provider",
    Opaque: lambda part: str(part.body.get("type", "a part of the provider")),
}


def _other(message: Message) -> str:
    """A message without words: what its parts are."""
    kinds = [
        _KINDS.get(type(part), lambda part: str(part.__struct_config__.tag))(part) for part in message.parts if not isinstance(part, Text)
    ]
    return begun(", ".join(kinds), WORDS_CHARS) if kinds else "(no system prompt)" if message.role == "system" else "(empty)"
