"""The columns of fds: each long text that was opened, where it came from, and how much of it its process has read."""

from __future__ import annotations

from typing import Any

from llmproc_nb.core.event import FdOpened
from llmproc_nb.core.program import FdRules
from llmproc_nb.core.record import Kinds
from llmproc_nb.drivers.rebuild.shown import shown
from llmproc_nb.notebook.pasttree import Table, Tree, columns_of

INPUT_CHARS = FdRules().max_input_chars


def fd_columns(events: Kinds, names: dict[int, str], tree: Tree) -> Table:
    """One row per fd, in the order in which they were opened."""
    opened = events.of(FdOpened)
    read = _read(opened, tree) if opened else {}
    rows: list[tuple[Any, ...]] = [
        (
            event.pid,
            names.get(event.pid),
            event.number,
            event.label,
            event.chars,
            event.lines,
            max(1, -(-event.chars // event.page_chars) if event.page_lines is None else -(-event.lines // event.page_lines)),
            event.page_chars if event.page_lines is None else None,
            event.page_lines,
            read.get((event.pid, event.number), 0),
            event.digest,
            event.source,
            event.position,
            event.time_ns,
            event.seq,
        )
        for event in opened
    ]
    return columns_of("pid process number label chars lines pages page_chars page_lines read_chars digest node position time seq", rows)


def _read(opened: list[FdOpened], tree: Tree) -> dict[tuple[int, int], int]:
    """How many characters of each fd the messages of its own process show, by pid and number."""
    fds = {(event.pid, event.number): event for event in opened}
    ranges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for appended, message in tree.found.values():
        for number, start, stop in shown(message, INPUT_CHARS):
            fd = fds.get((appended.pid, number))
            if fd is not None:
                end = fd.page_chars if stop is None else stop
                ranges.setdefault((appended.pid, number), []).append((start, min(end, fd.chars)))
    return {key: _covered(found) for key, found in ranges.items()}


def _covered(ranges: list[tuple[int, int]]) -> int:
    """How many characters lie in at least one of the ranges."""
    covered = reached = 0
    for start, stop in sorted(ranges):
        covered += max(0, stop - max(start, reached))
        reached = max(reached, stop)
    return covered
