"""An agent cell's call and what shows it: at once, at the end, in the background, after an error."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmproc_nb import api
from llmproc_nb.core.call import Call
from llmproc_nb.core.errors import LlmprocError
from llmproc_nb.core.result import RunResult

if TYPE_CHECKING:
    from llmproc_nb.notebook.notebook import Notebook


class CellCall:
    """An agent cell's call and what shows it."""

    def __init__(
        self, notebook: Notebook, process: api.Process, call: Call | None, view: Any, notes: Any, *, bg: bool = False, dry: Any = None
    ):
        self.notebook, self.process, self.call, self.view, self.notes, self.bg, self.dry = notebook, process, call, view, notes, bg, dry

    def announce(self) -> None:
        """Say that a call goes to the background: in its display, before anything else, or in a line where there is no display yet."""
        if not self.bg:
            return
        name = self.process.name
        if self.view.streams:
            self.view.begin(f"in the background: `%wait {name}` waits for the answer, `%kill {name}` stops it")
        else:
            print(f"{name} runs in the background: `%wait {name}` shows its answer, `%kill {name}` stops it")

    def now(self) -> Any:
        """What a cell gives that does not wait: a dry run, or nothing of a call in the background."""
        if self.call is None:
            return self.dry
        self.notebook.background.keep(self.call)
        if self.view.streams:
            self.call.when_done(self._ended)
        return None

    def _ended(self, call: Call) -> None:
        """A background call ended: show for good what its cell shows."""
        error = call.exception()
        if error is None:
            self.view.finish(call.result(), notes=self.notes)
        else:
            self.view.failed(error if isinstance(error, LlmprocError) else None)

    def finish(self, result: RunResult) -> None:
        """Show the result for good and make it the cell's value, `_`, without showing it twice."""
        self.view.finish(result, notes=self.notes)
        self.notebook.be_value(result)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Where the body ends by an error or an interrupt, leave on display what there was."""
        try:
            yield
        except (LlmprocError, KeyboardInterrupt, asyncio.CancelledError) as error:
            self.view.failed("it failed, as said below" if isinstance(error, LlmprocError) else None)
            raise
