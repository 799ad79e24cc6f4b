"""Cells that a person runs in the sandbox of a process: outputs as they come, interrupts, errors that make the cell fail.

Not here: the magics and their flags (sandboxmagics), what an output looks like (celloutput).
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llmproc_nb.core.call import Interrupted
from llmproc_nb.core.output import ended
from llmproc_nb.core.process import Process
from llmproc_nb.core.sandbox import Output, Ran
from llmproc_nb.notebook.celloutput import bundle, error_text, text

if TYPE_CHECKING:
    from llmproc_nb.notebook.notebook import Notebook

WAIT_S, SLOW_S = 0.1, 1.0


class CodeError(Exception):
    """The code of a cell raised; a notebook shows its own traceback, from inside the sandbox."""

    def __init__(self, trace: str) -> None:
        self.trace = trace
        super().__init__(trace.rpartition("\n")[2])

    def _render_traceback_(self) -> list[str]:
        return self.trace.split("\n")


class SandboxCells:
    """The `%%sandbox` cells of a notebook. `live`: outputs are shown as they come, with their updates; else what there is at the end."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self._prefix = uuid4().hex
        self._displays: set[str] = set()

    @property
    def live(self) -> bool:
        """Whether the front end takes what comes later; a terminal does."""
        return self._notebook.settings.streams or not hasattr(self._notebook.ip, "kernel")

    def run(self, process: Process, code: str, timeout_s: float | None = None) -> Ran:
        """Run a cell and show what comes. Raises CodeError where it raised, was stopped or died."""
        came: SimpleQueue[Output] = SimpleQueue()
        running = asyncio.run_coroutine_threadsafe(
            process.sandbox.execute(code, timeout_s=timeout_s, on_output=came.put if self.live else None), process.machine.owner.loop
        )
        shown, interrupted = 0, False
        start = _Start(self.live and not process.sandbox.live and self._alone())
        while not running.done() or not came.empty():
            try:
                with suppress(Empty):
                    output = came.get(timeout=0.0 if running.done() else WAIT_S)
                    start.over()
                    self._show(process, output)
                    shown += 1
                start.told(process)
            except KeyboardInterrupt:
                if interrupted:  # a second time: nobody waits for what it still has to say
                    running.cancel()
                    break
                interrupted = True
                asyncio.run_coroutine_threadsafe(process.sandbox.stop(), process.machine.owner.loop)
        start.over()
        ran = running.result() if running.done() and not running.cancelled() else Ran(status="interrupted")
        for output in () if shown else ran.outputs:  # the end of it, or an answer of a recording
            self._show(process, output)
        if interrupted and ran.status != "died":
            raise Interrupted(f"the code in {process.name}'s sandbox") from None
        return _judged(ran)

    def _alone(self) -> bool:
        """Whether the running cell is a `%%sandbox` cell and nothing else: what it shows may be cleared."""
        parent: dict[str, Any] = getattr(self._notebook.ip, "get_parent", dict)()
        return str(parent.get("content", {}).get("code", "")).lstrip().startswith("%%sandbox")

    def _show(self, process: Process, output: Output) -> None:
        from IPython.display import clear_output, display, update_display

        if output.kind == "stream":
            said = "\r".join(
                text(piece) for piece in output.text.replace("\r\n", "\n").split("\r")
            )  # a progress bar goes back to its beginning
            print(said, end="", file=sys.stderr if output.name == "stderr" else sys.stdout, flush=True)
        elif output.kind == "clear":
            clear_output(wait=output.update)
        elif output.kind != "error":
            name = f"{self._prefix}-{process.pid}-{output.display_id}"  # what a sandbox calls its displays is no name of this notebook's
            if output.update and name in self._displays:
                update_display(bundle(output), display_id=name, raw=True)
            elif output.display_id and self.live:
                self._displays.add(name)
                display(bundle(output), display_id=name, raw=True)
            else:
                display(bundle(output), raw=True)


class _Start:
    """The words that stand in a cell while its sandbox starts, where that takes more than a moment."""

    def __init__(self, wanted: bool) -> None:
        self._from = time.monotonic() if wanted else None
        self._said = False

    def told(self, process: Process) -> None:
        """Say it when it is time to."""
        if self._from is None or self._said or time.monotonic() - self._from < SLOW_S:
            return
        from IPython.display import display

        self._said = True
        words = "starting a sandbox: the first one of a notebook loads Python and its libraries once"
        display({"text/plain": words if not process.sandbox.cells else "making the state of this place again"}, raw=True)

    def over(self) -> None:
        """Take the words away."""
        if self._said:
            from IPython.display import clear_output

            clear_output()
        self._from, self._said = None, False


def _judged(ran: Ran) -> Ran:
    """What the cell gave, with its notes. Raises CodeError where it raised, was stopped or died."""
    if ran.status in ("timed_out", "died", "interrupted"):
        raise CodeError(text(ended(ran)))
    for note in ran.notes:
        print(f"[{text(note)}]", file=sys.stderr)
    failed = next((output for output in reversed(ran.outputs) if output.kind == "error"), None)
    if ran.status == "error":
        raise CodeError(error_text(failed) if failed is not None else "the code failed")
    return ran
