"""Cells and the dialog: which node a cell starts from, so that a cell that is run again branches instead of repeating itself.

A cell that runs for the first time goes on from the head. Run again, it starts where the cell before it ended the last time (where it
started itself the first time, unless that cell was run again meanwhile): the notebook stays the script, the tree keeps every run.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.process import Process


@dataclass
class CellRuns:
    """What a cell did with one process: where it first started, after which cell, where it last ended, in which execution.

    `moves`: it leaves the process somewhere else, as a cell that forks it does not.
    """

    start: Node
    after: str | None
    end: Node
    execution: int
    moves: bool = True


class Cells:
    """The cells of one process, by cell id."""

    def __init__(self) -> None:
        self._runs: dict[str, CellRuns] = {}
        self._sources: set[str] = set()

    def start_node(self, process: Process, cell: str | None, execution: int) -> Node:
        """Where a cell's next run has to start. A second call within one execution of a cell (a loop) goes on from the head."""
        known = self._runs.get(cell) if cell else None
        if known is None or known.execution == execution:
            return process.head
        before = self._runs.get(known.after) if known.after else None
        return before.end if before is not None else known.start

    def notes(self, process: Process, cell: str | None, execution: int, source: str) -> tuple[str, ...]:
        """What to say about where a cell starts: nothing where it simply goes on."""
        if cell is None and self._seen_before(source):
            return ("this front end does not say which cell ran, so the prompt was appended instead of branching",)
        start = self.start_node(process, cell, execution)
        if start is process.head:
            return ()
        if any(node is start for node in process.head.up()):
            return ("branched: the earlier answers from here on stay in the tree",)
        return ("branched from an earlier branch, because the cell before this one was not run again",)

    def began(self, process: Process, cell: str | None, execution: int) -> None:
        """Note that a cell starts at the process's head."""
        if cell is None:
            return
        known = self._runs.get(cell)
        if known is None:
            self._runs[cell] = CellRuns(process.head, self._ended_at(process.head, cell), process.head, execution)
        else:
            known.execution = execution

    def moved(self, process: Process, cell: str | None, execution: int, before: Node) -> None:
        """Note that a cell moved a process without a call, from a node to its head."""
        if cell is None:
            return
        known = self._runs.get(cell)
        if known is None:
            self._runs[cell] = CellRuns(before, self._ended_at(before, cell), process.head, execution)
        else:
            known.execution, known.end = execution, process.head

    def passed(self, process: Process, cell: str | None, execution: int) -> Node:
        """Where a cell forks from that leaves the process where it stands; run again, it forks from there again."""
        node = self.start_node(process, cell, execution)
        if cell is not None:
            known = self._runs.get(cell)
            after = known.after if known else self._ended_at(node, cell)
            self._runs[cell] = CellRuns(known.start if known else node, after, node, execution, moves=False)
        return node

    def _ended_at(self, node: Node, cell: str) -> str | None:
        """The other cell that left the process at a node: the last one, and one that moved it if there is one."""
        found = [(runs.moves, runs.execution, other) for other, runs in self._runs.items() if other != cell and runs.end is node]
        return max(found)[2] if found else None

    def ended(self, process: Process, cell: str | None) -> None:
        """Note where a cell ended: where the next one goes on from."""
        if cell in self._runs:
            self._runs[cell].end = process.head

    def _seen_before(self, source: str) -> bool:
        """Whether the same source ran before, for front ends that do not say which cell it is."""
        seen = source in self._sources
        self._sources.add(source)
        return seen
