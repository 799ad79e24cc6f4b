"""The table of a fan-out in its cell, while the children answer and at the end."""

from __future__ import annotations

import threading
import time
from typing import Any

from llmproc_nb.core.branch import Branches
from llmproc_nb.core.process import Process
from llmproc_nb.core.provider import Delta, DeltaReader
from llmproc_nb.notebook.branchview import branch_frame, branch_html, branch_table, summary_line

UPDATES_PER_S = 4
HEARD_CHARS = 400


class Heard(dict[int, str]):
    """The last words of each child while it speaks, by its pid."""

    def reader(self, pid: int) -> DeltaReader:
        """Reads along with one child. Called on the owner loop."""

        def read(delta: Delta) -> None:
            if delta.kind in ("text", "tool", "reset"):
                before = "" if delta.kind == "reset" else self.get(pid, "")
                self[pid] = f"{before}{delta.text if delta.kind == 'text' else ' '}"[-HEARD_CHARS:]

        return read


class FanView:
    """The table of a fan-out in its cell: live where the front end takes updates, else shown once at the end."""

    def __init__(self, parent: Process, branches: Branches, heard: Heard, *, streams: bool) -> None:
        from IPython.display import DisplayHandle

        self._parent, self._branches, self._heard = parent, branches, heard
        self._handle: Any = None
        self._closed = threading.Event()
        if streams:
            self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
            self._handle.display(self._bundle(whole=False), raw=True)
            self._pulse()

    def _pulse(self) -> None:
        from llmproc_nb.notebook.twin import pulse

        shown = time.monotonic()

        def show() -> None:
            nonlocal shown
            if not self._closed.is_set() and time.monotonic() - shown >= 1 / UPDATES_PER_S:
                shown = time.monotonic()
                self._handle.update(self._bundle(whole=False), raw=True)

        pulse(self._parent.machine, show, 1 / UPDATES_PER_S)

    def frame(self) -> Any:
        """The children as a DataFrame."""
        return branch_frame(self._branches)

    def finish(self) -> None:
        """Show what came of all, for good."""
        from IPython.display import DisplayHandle

        self._closed.set()
        data = self._bundle(whole=True)
        if self._handle is not None:
            self._handle.update(data, raw=True)
        else:
            DisplayHandle().display(data, raw=True)  # type: ignore[no-untyped-call]

    def _bundle(self, *, whole: bool) -> dict[str, Any]:
        table = branch_table(self._branches, whole=False, heard=self._heard)
        line = summary_line(self._parent, self._branches)
        if self._parent.provider.scripted:
            line = f"{line} (scripted: no model answers)"
        return {"text/plain": f"{line}\n{table!r}", "text/html": branch_html(self._parent, self._branches, whole=whole, heard=self._heard)}
