"""How an agent cell runs: its prompt, where it starts, its call and what shows it.

Not here: its flags (magics), which process it is (processes), where a cell that is run again starts (cells), the display (live, cellcall).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from llmproc_nb import api
from llmproc_nb.core.errors import PersonError
from llmproc_nb.notebook.cellcall import CellCall
from llmproc_nb.notebook.cells import Cells
from llmproc_nb.notebook.fit import Fit

if TYPE_CHECKING:
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.message import AnyPart
    from llmproc_nb.core.process import Process
    from llmproc_nb.notebook.notebook import Notebook


class Resources:
    """The servers of a cell's process, which is started by the first reference that may mean one of them."""

    def __init__(self, process: Callable[[], api.Process], *, dry: bool) -> None:
        self._process, self._dry = process, dry

    @property
    def names(self) -> tuple[str, ...]:
        servers = self._process().servers
        return servers.names if servers is not None else ()

    def read(self, server: str, resource: str) -> tuple[AnyPart, ...]:
        servers = self._process().servers
        return servers.read(server, resource, dry=self._dry) if servers is not None else ()


class AgentCells:
    """The agent cells of a notebook: which nodes they started from, and the calls they make."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self._cells: dict[int, Cells] = {}

    async def run(self, line: str, body: str) -> Any:
        """An outermost `%%agent` cell: the kernel's loop stays free while it waits. Gives a dry run, or nothing: the turn is on display."""
        from llmproc_nb.notebook.live import interrupts_raise, wait_in_cell
        from llmproc_nb.notebook.maintools import MainLoopTools

        tools = MainLoopTools(asyncio.get_running_loop())
        with interrupts_raise():
            made = self.start(line, body, tools)
        if made.call is None or made.bg:
            return made.now()
        with made.shown():
            made.finish(await wait_in_cell(made.call, tools))
        return None

    def run_nested(self, line: str, body: str) -> Any:
        """`%%agent` under another magic, in a loop or a function: the main thread waits."""
        from llmproc_nb.notebook.maintools import WaitingTools

        tools = WaitingTools()
        made = self.start(line, body, tools)
        if made.call is None or made.bg:
            return made.now()
        with made.shown():
            made.finish(tools.wait(made.call))
        return None

    def start(self, line: str, body: str, on_main: Any) -> CellCall:
        """Everything of an agent cell up to the waiting. Nothing is sent and no head is moved before all of it is right."""
        notebook = self._notebook
        flags = notebook.settings.read_cell_flags(line)
        if not body.strip():
            raise PersonError("the cell has no prompt", right="the prompt stands in the lines below `%%agent`", step="See `%%agent?`.")
        fit = notebook.fit(notebook.processes.paged_chars(flags))
        started = cache(lambda: notebook.processes.of_cell(flags))
        prompt = self.prompt(
            body, fit, started, dry=flags.dry_run
        )  # a mistake in it is found before a process is started, if no server is asked for it
        process = started()
        if flags.dry_run:
            return CellCall(notebook, process, None, None, (), dry=self._dry_run(process, prompt, fit))
        cells, cell, execution = self._cells.setdefault(process.pid, Cells()), notebook.cell, notebook.execution
        notes = (*notebook.processes.notes(process, flags), *cells.notes(process, cell, execution, body), *fit.notes)

        def begin() -> None:
            """Stand where this cell has to start, when its turn has come."""
            start = cells.start_node(process, cell, execution)
            process.move(start, "rerun", cell=cell)
            cells.began(process, cell, execution)

        made = self.call(process, prompt, begin=begin, notes=notes, on_main=on_main, bg=flags.bg, max_steps=flags.max_steps)
        assert made.call is not None
        made.call.when_done(lambda _: cells.ended(process, cell))
        return made

    def prompt(self, body: str, fit: Fit, process: Callable[[], api.Process], *, dry: bool = False) -> tuple[AnyPart, ...]:
        """The text of a cell with the values of the notebook in it, and what the servers of its process have. Raises PromptError."""
        from llmproc_nb.notebook.template import render_prompt

        ip = self._notebook.ip
        resources = Resources(process, dry=dry)
        return render_prompt(body.rstrip("\n"), ip.user_ns, lambda source: eval(source, ip.user_global_ns, ip.user_ns), fit, resources)

    def call(
        self,
        process: api.Process,
        prompt: tuple[AnyPart, ...],
        *,
        begin: Any = None,
        notes: tuple[str, ...] = (),
        on_main: Any = None,
        bg: bool = False,
        max_steps: int | None = None,
    ) -> CellCall:
        """A call of a process with a display of its own in this cell."""
        from llmproc_nb.notebook.ask import asks_here
        from llmproc_nb.notebook.live import LiveView
        from llmproc_nb.notebook.turn import Turn

        turn = Turn(
            process=process.name,
            program=process.program.name,
            provider=process.provider.name,
            model=process.program.model,
            scripted=process.provider.scripted,
            message_at=lambda node: process.machine.dialog.find(node).message,
        )
        view = LiveView(turn, stream=self._notebook.settings.streams)
        made = CellCall(self._notebook, process, None, view, notes, bg=bg)
        made.announce()
        with asks_here(None if bg else on_main):
            made.call = process.run(
                prompt,
                max_iterations=max_steps,
                on_begin=begin,
                on_delta=view.delta,
                on_event=view.event,
                on_main=None if bg else on_main,
                cell=self._notebook.cell,
            )
        return made

    @contextmanager
    def moving(self, process: Process, *, again: bool = False) -> Iterator[None]:
        """While a cell moves a process without a call: cells after it start where it ends.

        With `again`, the cell itself starts where it started the first time, so that what it adds takes the place of what it had added.
        """
        cells, cell, execution = self._cells.setdefault(process.pid, Cells()), self._notebook.cell, self._notebook.execution
        before = process.head
        if again:
            process.move(cells.start_node(process, cell, execution), "rerun", cell=cell)
        try:
            yield
        except PersonError:
            process.move(before, "rerun", cell=cell)
            raise
        cells.moved(process, cell, execution, before)

    def forked_from(self, process: api.Process) -> Node:
        """Where a cell that forks a process starts: at its head, or where it started the first time."""
        cells = self._cells.setdefault(process.pid, Cells())
        return cells.passed(process, self._notebook.cell, self._notebook.execution)

    def _dry_run(self, process: api.Process, prompt: tuple[AnyPart, ...], fit: Fit) -> Any:
        from llmproc_nb.notebook.dryrun import DryRun

        try:
            return DryRun.of(process, self._start_node(process), prompt, tuple(fit.notes))
        finally:
            if process.machine is not self._notebook.machine_if_made:
                process.machine.close()  # it was made for this look only, and its servers with it

    def _start_node(self, process: api.Process) -> Node:
        notebook = self._notebook
        cells = self._cells.get(process.pid, Cells()) if process.machine is notebook.machine_if_made else Cells()
        return cells.start_node(process, notebook.cell, notebook.execution)
