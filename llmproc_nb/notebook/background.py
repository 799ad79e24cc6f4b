"""Calls that were started with `--bg`, until somebody waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmproc_nb.core.call import GRACE_S, Call
from llmproc_nb.core.result import RunResult

if TYPE_CHECKING:
    from llmproc_nb.notebook.notebook import Notebook


class Background:
    """The calls under way or not yet looked at, by process."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self._calls: dict[int, list[Call]] = {}

    def keep(self, call: Call) -> None:
        self._calls.setdefault(call.process.pid, []).append(call)

    def wait(self, names: list[str]) -> list[RunResult]:
        """Wait for the calls of these processes (all, where none is named). An interrupt stops them."""
        from llmproc_nb.notebook.maintools import WaitingTools

        for process in map(self._notebook.process, names):  # also what a model began, or Python
            known = self._calls.setdefault(process.pid, [])
            known += [call for call in reversed(process.calls) if not call.done() and call not in known]
        pids = [self._notebook.process(name).pid for name in names] or list(self._calls)
        calls = [call for pid in pids for call in self._calls.get(pid, ())]
        results = []
        try:
            for call in calls:
                self._calls[call.process.pid].remove(call)
                results.append(WaitingTools().wait(call))
        except KeyboardInterrupt:
            for call in calls:
                call.cancel()
            for call in calls:
                call.settle(GRACE_S)
            raise
        return results
