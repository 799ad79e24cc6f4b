"""`%ps` that follows what runs: the table of processes, brought up to date in its cell until all of them are idle.

Not here: what stands in the table (facts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.process import Process
from llmproc_nb.notebook.facts import Table, process_table
from llmproc_nb.notebook.twin import is_live_here, is_running, pulse

if TYPE_CHECKING:
    from llmproc_nb.core.machine import Machine


class PsView(Table):
    """The processes as they are now; shown in a cell of a live notebook while one of them runs, it stays up to date until none does."""

    def __init__(self, machine: Machine | None, processes: Callable[[], Iterable[Process]]) -> None:
        now = process_table(processes())
        super().__init__(now.columns, now.rows, now.empty)
        self._machine, self._processes = machine, processes

    def _ipython_display_(self) -> None:
        if self._machine is None or not is_live_here() or not is_running(self._machine):
            raise NotImplementedError  # IPython then shows the table once
        from IPython.display import DisplayHandle

        handle = DisplayHandle()  # type: ignore[no-untyped-call]
        shown = _bundle(self)
        handle.display(shown, raw=True)  # type: ignore[no-untyped-call]

        def show() -> None:
            nonlocal shown
            now = _bundle(process_table(self._processes()))
            if now != shown:
                shown = now
                handle.update(now, raw=True)  # type: ignore[no-untyped-call]

        pulse(self._machine, show)


def ps_view(machine: Machine | None, names: Iterable[str | int] = ()) -> PsView:
    """The processes of a machine, or these of them, for `%ps`. Raises PersonError for a name that no process has."""
    chosen = [machine.find(name) for name in names] if machine is not None else []
    return PsView(machine, lambda: chosen or (list(machine.processes.values()) if machine is not None else []))


def _bundle(table: Table) -> dict[str, Any]:
    html = table._repr_html_()
    return {"text/plain": repr(table)} | ({"text/html": html} if html else {})
