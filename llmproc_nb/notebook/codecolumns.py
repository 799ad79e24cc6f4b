"""The columns of code: each cell that ran in a sandbox, what came of it, and which cell's state it went on from."""

from __future__ import annotations

from typing import Any

from llmproc_nb.core.event import CodeRan
from llmproc_nb.core.output import plain
from llmproc_nb.core.record import Kinds
from llmproc_nb.notebook.pasttree import Table, columns_of


def code_columns(events: Kinds, names: dict[int, str]) -> Table:
    """One row per cell, in the order in which they ran."""
    rows: list[tuple[Any, ...]] = [
        (
            event.seq,
            event.call,
            event.pid,
            names.get(event.pid),
            event.cell,
            event.node,
            event.position,
            event.code,
            ", ".join(event.put) or None,
            event.status,
            plain("".join(output.words for output in event.outputs)),
            len(event.outputs),
            event.after,
            "; ".join(event.notes) or None,
            event.time_ns,
            event.duration_s,
            event.cpu_s if event.memory_mb else None,  # no process has no memory: it was not measured
            event.memory_mb or None,
            event.replayed,
        )
        for event in events.of(CodeRan)
    ]
    return columns_of(
        "seq call pid process cell node position code put status text outputs after notes time duration_s cpu_s memory_mb replayed", rows
    )
