"""What a log tells of the nodes of a tree: who brought them in, what they cost, what began and ended at them.

Not here: the tree itself (tree).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from llmproc_nb.core.event import AnyEvent, Appended, Called, Compacted, Merged, Moved, Replied, Started, Stopped
from llmproc_nb.core.usage import Usage

if TYPE_CHECKING:
    from llmproc_nb.core.machine import Machine

_STANDS = (Appended, Called, Moved, Replied, Stopped)
_LEFT = {
    "rerun": "re-run from {}",
    "goto": "goto {}",
    "undo": "undo, back to {}",
    "reset": "reset to {}",
    "failed": "no answer, taken back",
    "compacted": "shortened: goes on as {}",
}


class Told:
    """What the events tell of nodes, as far as these processes are concerned."""

    def __init__(self, events: Iterable[AnyEvent], pids: Collection[int]) -> None:
        self.seqs: dict[str, int] = {}
        self.cells: dict[str, str] = {}
        self.usages: defaultdict[str, list[Usage]] = defaultdict(list)
        self.seen: set[str] = set()
        self.moved: list[Moved] = []
        self.begun: list[tuple[Started, str]] = []
        self.merged: list[Merged] = []
        self.compacted: list[Compacted] = []
        self.spawned_roots: dict[str, str] = {}
        self._makers: dict[str, int] = {}
        self._stood: set[str] = set()
        at: dict[int, str] = {}
        for event in tuple(events):
            if isinstance(event, Started):
                self._start(event, at, pids)
            elif isinstance(event, Appended):
                self._append(event)
            elif isinstance(event, Replied):
                self.usages[event.node].append(event.usage)
            if event.pid in pids:
                self._note(event)
            if _arrives(event):
                at[event.pid] = event.node  # type: ignore[union-attr]

    def maker(self, node: str) -> int:
        return self._makers.get(node, 0)

    def _start(self, event: Started, at: dict[int, str], pids: Collection[int]) -> None:
        from_node = at.get(event.parent_pid) if event.parent_pid is not None else None
        first = event.node not in self._stood
        self._stood.add(event.node)
        if event.origin == "spawn" and from_node is not None and first:  # a second process on the same first node hangs there already
            self.spawned_roots[event.node] = from_node
        if event.pid in pids and from_node is not None:
            self.begun.append((event, from_node))
        at[event.pid] = event.node
        if event.pid in pids:
            self.seen.add(event.node)

    def _append(self, event: Appended) -> None:
        if event.node in self.seqs:
            return
        self.seqs[event.node] = event.seq
        self._makers[event.node] = event.pid
        if event.cell is not None:
            self.cells[event.node] = event.cell

    def _note(self, event: AnyEvent) -> None:
        if isinstance(event, _STANDS):
            self.seen.add(event.node)
        if isinstance(event, Moved):
            self.seen.add(event.before)
            self.moved.append(event)
        elif isinstance(event, Merged):
            self.merged.append(event)
        elif isinstance(event, Compacted):
            self.compacted.append(event)


def _arrives(event: AnyEvent) -> bool:
    """Whether a process stands at the event's node from then on; what was brought in from an earlier log or put aside moves nobody."""
    if isinstance(event, Replied) and event.call is None:
        return False
    return isinstance(event, _STANDS) and not (isinstance(event, Appended | Replied) and event.aside)


def marks_of(told: Told, machine: Machine, labels: dict[str, str]) -> dict[str, list[str]]:
    """What began or ended at a node, in a few words."""
    marks: defaultdict[str, list[str]] = defaultdict(list)

    def called(node: str) -> str:
        return labels.get(node) or ("the start" if node in machine.dialog and machine.dialog.find(node).parent is None else node[:8])

    for event, node in told.begun:
        marks[event.node if event.origin == "fork" else node].append(f"{event.origin}: {event.name}")
    for moved in told.moved:
        if moved.reason in _LEFT:
            marks[moved.before].append(_LEFT[moved.reason].format(called(moved.node)))
    for merged in told.merged:
        child = machine.processes.get(merged.child)
        marks[merged.node].append(f"merged: {child.name if child else merged.child}")
    for shorter in told.compacted:
        marks[shorter.node].append(f"tells {shorter.left_out} messages in short")
    return {node: _gathered(words) for node, words in marks.items()}


def _gathered(words: list[str]) -> list[str]:
    """The marks with several forks or spawns said in one, equal ones once: `fork: scout.1 … scout.8 (8)`."""
    groups: dict[str, list[str]] = {}
    for word in dict.fromkeys(words):
        kind, colon, name = word.partition(": ")
        groups.setdefault(kind if colon and kind in ("fork", "spawn") else word, []).append(name)
    return [_group(kind, names) for kind, names in groups.items()]


def _group(kind: str, names: list[str]) -> str:
    if kind not in ("fork", "spawn"):
        return kind
    return f"{kind}: {', '.join(names)}" if len(names) <= 3 else f"{kind}: {names[0]} … {names[-1]} ({len(names)})"
