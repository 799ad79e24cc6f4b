"""Small tables and facts about processes: `%ps`, what a process shows of itself, what `%agent` shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmproc_nb.core.process import Process
from llmproc_nb.core.visible import visible
from llmproc_nb.notebook.table import table_html


class Table:
    """Rows with the same columns, shown as text, Markdown-free HTML, or turned into a frame by `.frame()`."""

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "nothing yet") -> None:
        self.columns, self.rows, self.empty = tuple(columns), [tuple(row) for row in rows], empty

    def __repr__(self) -> str:
        if not self.rows:
            return self.empty
        cells = [self.columns, *([visible(shown(value)) for value in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.columns))]
        return "\n".join("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in cells)

    def _repr_html_(self) -> str | None:
        return table_html([[shown(value) for value in row] for row in self.rows], self.columns) if self.rows else None

    def frame(self) -> Any:
        """The rows as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self.columns))


def shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def process_table(processes: Iterable[Process]) -> Table:
    """One row per process: what `%ps` shows."""
    columns = ("pid", "name", "state", "program", "model", "messages", "requests", "tokens", "cost_usd", "parent")
    return Table(columns, (_row(process) for process in processes), empty="no processes yet: start one with %%agent NAME")


def _row(process: Process) -> tuple[Any, ...]:
    usage = process.usage
    cost = None if usage.unpriced_requests else usage.cost_usd
    return (
        process.pid,
        process.name,
        process.state,
        process.program.name,
        f"{process.provider.name}:{process.program.model}",
        process.head.depth,
        usage.requests,
        usage.total_tokens,
        cost,
        process.parent.name if process.parent else None,
    )


def process_bundle(process: Process) -> dict[str, Any]:
    """A process as a cell's value: its facts, nothing that changes from run to run."""
    facts = {
        "process": f"{process.name} (pid {process.pid}, {process.state})",
        "program": process.program.name,
        "model": f"{process.provider.name}:{process.program.model}"
        + (" — scripted: no model answers" if process.provider.scripted else ""),
        "messages": process.head.depth,
        "tools": ", ".join(tool.name for tool in process.tools) or None,
    }
    return Facts(facts)._repr_mimebundle_()


class Facts:
    """Names and values, shown as text and as a small table."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = {name: shown(value) for name, value in facts.items()}

    def __repr__(self) -> str:
        width = max(len(name) for name in self.facts)
        return "\n".join(f"{name.ljust(width)}  {visible(value)}" for name, value in self.facts.items())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": table_html(list(self.facts.items()), ())}
