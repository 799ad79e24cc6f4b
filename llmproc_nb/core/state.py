"""The state of sandboxes: which code cells stand behind the place of a process, and which checkpoints there are of it.

A sandbox's state is a function of the dialog: of the cells that ran on the path to where its process stands. So a fork finds the state
of its parent and a goto that of an earlier place without anything being moved when they happen. Not here: running cells (sandboxed).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core.event import Called, CodeRan, Moved, Replied
from llmproc_nb.core.sandbox import Checkpoint, SandboxDoor, SandboxRules

if TYPE_CHECKING:
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.machine import Machine
    from llmproc_nb.core.process import Process
    from llmproc_nb.core.waking import Waking


MOST_GIVEN = 1 << 28
"""Bytes of frames and files that came from outside and are kept in memory."""


class Reach(msgspec.Struct, frozen=True):
    """Which cells of a process count for one below it: those before event `before`, above the node where that one began, and on it.

    On that node only those that a person ran: a fork of the model's own stands on the very reply whose cells it was called beside.
    """

    before: float = float("inf")
    began: Node | None = None


class Family:
    """What a process and its forks share: the cells that ran, the door, and checkpoints of states by their cells."""

    def __init__(self, machine: Machine, root: Process) -> None:
        self.machine, self.root, self.rules = machine, root, root.program.sandbox or SandboxRules()
        self.cells: dict[int, CodeRan] = {}
        self.given: dict[int, Mapping[str, Any]] = {}
        self.began: dict[int, Mapping[str, Any]] = {}
        """The variables of the notebook that sessions began with, by the seq of the restart they follow, 0 before the first one."""
        self.checkpoints: dict[int, Checkpoint] = {}
        self.sandboxes: dict[int, Waking] = {}
        self._at: dict[str, list[CodeRan]] = {}
        self._said: dict[str, list[Called | Replied]] = {}
        self._stands_for: dict[tuple[int, str], list[str]] = {}
        self._seen = 0
        self._door: SandboxDoor | None = None

    @property
    def door(self) -> SandboxDoor:
        if self._door is None:
            self._door = self.machine.drivers.sandbox(self.root.program)
        return self._door

    def catch_up(self) -> None:
        """Take note of what the log says of cells since the last time."""
        events = self.machine.log.events
        for event in events[self._seen :]:
            if isinstance(event, CodeRan):
                self.cells[event.seq] = event
                self._at.setdefault(event.node, []).append(event)
            elif isinstance(event, Called | Replied):
                self._said.setdefault(event.node, []).append(event)
            elif isinstance(event, Moved) and event.reason == "compacted":
                self._stands_for.setdefault((event.pid, event.node), []).append(event.before)
            self._seen += 1

    def latest(self) -> CodeRan | None:
        """The cell whose state the one session has that all share."""
        self.catch_up()
        found = next((event for event in reversed(self.cells.values()) if self._is_own(event.pid)), None)
        return self._state_of(found) if found is not None else None

    def _is_own(self, pid: int) -> bool:
        """Whether a process is of this family."""
        process = self.machine.processes.get(pid)
        return process is not None and root_of(process) is self.root

    def _state_of(self, event: CodeRan) -> CodeRan | None:
        """The cell whose state there is after an event: the one before it where it died, or only looked."""
        return self.cells.get(event.after or 0) if event.status == "died" or event.took else event

    def cell_at(self, process: Process, head: Node, *, call: int | None = None) -> CodeRan | None:
        """The cell whose state belongs to a node, for a process. Of cells that ran at that very reply only those of `call` count."""
        self.catch_up()
        reach = dict(_reach(process, self.root)) if self.rules.on_fork != "fresh" else {process.pid: Reach()}
        nodes = tuple(self._up(head, tuple(reach)))
        above = {pid for pid, one in reach.items() if one.began not in nodes}
        for index, node in enumerate(nodes):
            for event in reversed(self._at.get(node.id, ())):
                known = reach.get(event.pid)
                same_turn = node is not head or event.position is None or event.call == call or call is None
                if known is None or event.seq > known.before or not same_turn:
                    continue
                counts = event.pid in above or (known.began is node and event.position is None)
                in_time = index == 0 or event.seq < self._last_said(nodes[index - 1 : index], reach, float("inf"))
                if counts and in_time and event.seq > self._last_said(nodes[index:], reach):
                    return self._state_of(event)
            above.update(pid for pid, one in reach.items() if one.began is node)
        return None

    def _last_said(self, nodes: tuple[Node, ...], reach: Mapping[int, Reach], never: float = 0) -> float:
        """When the latest of these nodes was said last: what ran before a question was asked again does not count after it.

        Nor does what ran at a place after the dialog had gone on from there count for what had followed.
        """
        said = (event for node in nodes for event in self._said.get(node.id, ()))
        return max((event.seq for event in said if event.pid in reach and event.seq < reach[event.pid].before), default=never)

    def _up(self, node: Node | None, pids: Sequence[int]) -> Iterator[Node]:
        """A node and those before it; before the end of a shorter branch comes what it is the short form of.

        Two long paths may have the same short form, one even be above the other: the latest one is taken first, none is taken twice.
        """
        left = dict[str, list[str]]()
        while node is not None:
            yield node
            if node.id not in left:
                left[node.id] = self._long_forms(node, pids)
            node = self.machine.dialog.find(left[node.id].pop()) if left[node.id] else node.parent

    def _long_forms(self, node: Node, pids: Sequence[int]) -> list[str]:
        """The nodes that it is short for, for a process and those above it: its own last, and of each the latest last."""
        tables, keys = (self.machine.shorter, self._stands_for), [(pid, node.id) for pid in reversed(pids)]
        return list(dict.fromkeys(other for key in keys for table in tables for other in table.get(key, ())))

    def chain(self, cell: CodeRan | None) -> Iterator[CodeRan]:
        """A cell and those before it, newest first."""
        while cell is not None:
            yield cell
            cell = self.cells.get(cell.after or 0)

    def keep_given(self, seq: int, given: Mapping[str, Any]) -> None:
        """Keep what came from outside with a cell, to give it again; of very much only the latest."""
        self.given[seq] = given
        sizes = {one: sum(len(value) if isinstance(value, bytes) else 0 for value in values.values()) for one, values in self.given.items()}
        for one in tuple(self.given)[:-1]:
            if sum(sizes[left] for left in self.given) > MOST_GIVEN:
                del self.given[one]

    def start_of(self, cell: CodeRan | None) -> int:
        """The seq of the restart that a cell's state goes back to; 0 where there was none."""
        *_, first = (None, *self.chain(cell))
        return first.seq if first is not None and not first.code and not first.put else 0

    async def add(self, cell: CodeRan, checkpoint: Checkpoint) -> None:
        """Have a checkpoint of the state after a cell; those that were not used for the longest time give way."""
        self.checkpoints[cell.seq] = checkpoint
        while len(self.checkpoints) > 1 and self._too_many():
            await self.checkpoints.pop(next(iter(self.checkpoints))).close()

    def used(self, cell: CodeRan) -> None:
        """A checkpoint was woken: it is the last to give way, for where many forks began another one may begin."""
        if cell.seq in self.checkpoints:
            self.checkpoints[cell.seq] = self.checkpoints.pop(cell.seq)

    def _too_many(self) -> bool:
        memory_mb = sum(one.memory_mb for one in self.checkpoints.values())
        return len(self.checkpoints) > self.rules.checkpoints or memory_mb > self.rules.checkpoints_mb

    async def close(self) -> None:
        """End all sessions of the family."""
        self.checkpoints.clear()
        self.given.clear()
        self.began.clear()
        if self._door is not None:
            await self._door.close()
            self._door = None


def _reach(process: Process, root: Process) -> Iterator[tuple[int, Reach]]:
    """Which cells of a process and of those it was forked from count for it."""
    yield process.pid, Reach()
    before = float("inf")
    while process is not root and process.parent is not None:
        before = min(before, process.born)
        began = process.first.parent if process.by_model else process.first  # what its model's fork was called beside is not its own
        process = process.parent
        yield process.pid, Reach(before, began)


def family_of(process: Process) -> Family:
    """The family of a process: it, what it was forked from, and all forks, as far as they have the same sandbox."""
    root, machine = root_of(process), process.machine
    with machine.lock:
        if root.pid not in machine.families:
            machine.families[root.pid] = Family(machine, root)
        return machine.families[root.pid]


def root_of(process: Process) -> Process:
    """The process that a family began with."""
    while process.origin == "fork" and process.parent is not None and process.parent.program.sandbox == process.program.sandbox:
        process = process.parent
    return process
