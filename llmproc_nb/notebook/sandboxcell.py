"""Cells that a person runs in the sandbox of a process: outputs as they come, interrupts, errors that make the cell fail.

Not here: the magics and their flags (sandboxmagics), what an output looks like (celloutput).
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from llmproc_nb.core.call import stopped_line
from llmproc_nb.core.process import Process
from llmproc_nb.core.sandbox import Output, Ran
from llmproc_nb.notebook.celloutput import bundle, error_text, text

WAIT_S = 0.1


class CodeError(Exception):
    """The code of a cell raised; a notebook shows its own traceback, from inside the sandbox."""

    def __init__(self, trace: str) -> None:
        self.trace = trace
        super().__init__(trace.rpartition("\n")[2])

    def _render_traceback_(self) -> list[str]:
        return self.trace.split("\n")


class SandboxInterrupted(KeyboardInterrupt):
    """A KeyboardInterrupt that stopped a cell in a sandbox; a notebook shows it in one line."""

    def _render_traceback_(self) -> list[str]:
        return stopped_line("KeyboardInterrupt", self.args[0])


SandboxInterrupted.__name__ = "KeyboardInterrupt"


def run_cell(process: Process, code: str, timeout_s: float | None = None) -> Ran:
    """Run a cell and show what comes. Raises CodeError where it raised, was stopped or died."""
    came: SimpleQueue[Output] = SimpleQueue()
    running = asyncio.run_coroutine_threadsafe(
        process.sandbox.execute(code, timeout_s=timeout_s, on_output=came.put), process.machine.owner.loop
    )
    shown, interrupted = 0, False
    while not running.done() or not came.empty():
        try:
            with suppress(Empty):
                _show(came.get(timeout=0.0 if running.done() else WAIT_S))
                shown += 1
        except KeyboardInterrupt:
            if interrupted:  # a second time: nobody waits for what it still has to say
                running.cancel()
                break
            interrupted = True
            asyncio.run_coroutine_threadsafe(process.sandbox.stop(), process.machine.owner.loop)
    if interrupted:
        raise SandboxInterrupted(f"the code in {process.name}'s sandbox") from None
    ran = running.result()
    for output in ran.outputs[shown:]:  # an answer of a recording, or what came with the end
        _show(output)
    for note in ran.notes:
        print(f"[{text(note)}]", file=sys.stderr)
    failed = next((output for output in reversed(ran.outputs) if output.kind == "error"), None)
    if ran.status == "error" and failed is not None:
        raise CodeError(error_text(failed))
    if ran.status in ("timed_out", "died", "interrupted"):
        words = {"timed_out": f"stopped after {max(1, round(ran.duration_s))} s", "died": "ended by the death of its process"}
        raise CodeError(f"the code was {words.get(ran.status, 'interrupted')}")
    return ran


def _show(output: Output) -> None:
    if output.kind == "stream":
        said = "\r".join(
            text(piece) for piece in output.text.replace("\r\n", "\n").split("\r")
        )  # a progress bar goes back to its beginning
        print(said, end="", file=sys.stderr if output.name == "stderr" else sys.stdout, flush=True)
    elif output.kind != "error":
        _publish(bundle(output))


def _publish(made: dict[str, Any]) -> None:
    from IPython.display import display

    display(made, raw=True)
