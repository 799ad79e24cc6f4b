"""How a `%%fork` cell runs: its prompts, its children, the table that fills while they answer, the frame it gives."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from itertools import count as count_from
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb import api
from llmproc_nb.choose import with_model
from llmproc_nb.core.branch import Branches, Prompt
from llmproc_nb.core.call import Call
from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.fan import Fan
from llmproc_nb.core.gate import check
from llmproc_nb.core.process import Process

if TYPE_CHECKING:
    from llmproc_nb.notebook.fanview import FanView
    from llmproc_nb.notebook.notebook import Notebook

_RULE = re.compile(r"^-{3,}[ \t]*$", re.MULTILINE)


class ForkFlags(msgspec.Struct, frozen=True, kw_only=True):
    """The line of `%fork` or `%%fork`, read."""

    magic: str = "%fork"
    process: str
    names: tuple[str, ...] = ()
    count: int | None = None
    at: str | None = None
    first_k: int | None = None
    last_n: int | None = None
    models: tuple[str, ...] = ()
    max_steps: int | None = None


class NamesOfCell(msgspec.Struct, kw_only=True):
    """The names that a cell gave to children of one process, and how many of them it has used in this execution."""

    execution: int
    names: list[str] = []
    used: int = 0


class ForkCells:
    """The fan-outs of a notebook."""

    read_flags: Callable[[str], ForkFlags]
    """Reads the line of a `%%fork` cell; set by the magics."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self._named: dict[tuple[int, str | None], NamesOfCell] = {}

    def fork(self, flags: ForkFlags) -> list[Process]:
        """Children that stand where their parent does, and run nothing. They are in the notebook under their names."""
        parent = self._notebook.process(flags.process)
        programs = self._programs(parent, flags)
        names = self._names(parent, flags, flags.count or len(flags.names) or len(programs) or 1)
        chosen: list[Any] = [*programs] or [None] * len(names)
        if len(chosen) != len(names):
            raise PersonError(f"{len(names)} children and {len(chosen)} models", place=flags.magic, right="each child has one model")
        check(parent, len(names))  # all or none
        children = [
            parent.fork(name, at=flags.at, first_k=flags.first_k, last_n=flags.last_n, program=program)
            for name, program in zip(names, chosen, strict=True)
        ]
        self._keep(parent, flags, children)
        return children

    async def run(self, line: str, body: str) -> None:
        """A `%%fork` cell at the top: the kernel's loop stays free while the children answer."""
        from llmproc_nb.notebook.live import interrupts_raise, wait_in_cell
        from llmproc_nb.notebook.maintools import MainLoopTools

        tools = MainLoopTools(asyncio.get_running_loop())
        with interrupts_raise():
            branches, view = self._start(self.read_flags(line), body, tools)
        try:
            await wait_in_cell(branches, tools)  # type: ignore[arg-type]
        finally:
            self._show(view)
        _raise_where_none_answered(branches)

    def run_nested(self, line: str, body: str) -> None:
        """`%%fork` under another magic, in a loop or a function: the main thread waits."""
        from llmproc_nb.notebook.maintools import WaitingTools

        tools = WaitingTools()
        branches, view = self._start(self.read_flags(line), body, tools)
        try:
            tools.wait(branches)  # type: ignore[arg-type]
        finally:
            self._show(view)
        _raise_where_none_answered(branches)

    def _show(self, view: FanView) -> None:
        """Show what came of the children, also of those that were stopped; its frame is the cell's value."""
        view.finish()
        self._notebook.be_value(view.frame())

    def _start(self, flags: ForkFlags, body: str, on_main: Any) -> tuple[Branches, FanView]:
        from llmproc_nb.notebook.ask import asks_here
        from llmproc_nb.notebook.fanview import FanView, Heard

        notebook, heard = self._notebook, Heard()
        streams = notebook.settings.streams
        parent = notebook.process(flags.process)
        programs = self._programs(parent, flags)
        prompts = self._prompts(flags, body, len(programs))
        names = self._names(parent, flags, len(prompts))
        start = flags.at if flags.at is not None else notebook.agent_cells.forked_from(parent)

        def run(child: Process, prompt: Prompt, fan: Fan) -> Call:
            on_delta = heard.reader(child.pid) if streams else None
            return child.run(prompt, max_iterations=flags.max_steps, on_main=on_main, on_delta=on_delta, cell=notebook.cell, fan=fan)

        with asks_here(on_main):
            branches = parent.fork_map(
                prompts, names=names, at=start, first_k=flags.first_k, last_n=flags.last_n, programs=programs or None, run=run
            )
        self._keep(parent, flags, branches.processes)
        return branches, FanView(parent, branches, heard, streams=streams)

    def _prompts(self, flags: ForkFlags, body: str, models: int) -> list[Prompt]:
        """A prompt for each child: the blocks of the body, or its one block for all of them."""
        blocks = [block.strip("\n") for block in _RULE.split(body)]
        if not all(block.strip() for block in blocks):
            what = "the cell has no prompt" if len(blocks) == 1 else "a block between two `---` lines is empty"
            raise PersonError(what, place="%%fork", right="the prompts stand in the lines below, with `---` between them")
        fit = self._notebook.fit()
        prompts: list[Prompt] = [
            self._notebook.agent_cells.prompt(block, fit, lambda: self._notebook.process(flags.process)) for block in blocks
        ]
        wanted = flags.count or max(len(flags.names), models) or len(prompts)
        if len(prompts) == 1:
            prompts *= wanted
        if len(prompts) != wanted or (models and models != wanted) or (flags.names and len(flags.names) != wanted):
            given = [f"{len(blocks)} prompt{'s' * (len(blocks) > 1)}", f"-n {flags.count}" if flags.count else ""]
            given += [f"{count} {what}" for count, what in ((len(flags.names), "names"), (models, "models")) if count]
            found = " and ".join(", ".join(filter(None, given)).rsplit(", ", 1))
            raise PersonError(found, place="%%fork", right="as many of each as there are children, or one prompt for all")
        return prompts

    def _programs(self, parent: Process, flags: ForkFlags) -> list[api.Program]:
        return [with_model(parent.program, model) for model in flags.models]  # type: ignore[arg-type]

    def _names(self, parent: Process, flags: ForkFlags, count: int) -> list[str]:
        """Names that can be typed in the notebook: those given, or scout_1, scout_2 …"""
        if flags.names and flags.count not in (None, len(flags.names)):
            raise PersonError(f"{len(flags.names)} names and -n {flags.count}", place=flags.magic, right="names or a number are enough")
        for name in flags.names:
            self._notebook.processes.check_free(name, parent)
            if flags.names.count(name) > 1:
                raise PersonError(f"{name!r} is named twice", place=flags.magic, right="each child needs a name of its own")
        if flags.names:
            return list(flags.names)
        known = self._names_of_cell(parent)
        names = known.names[known.used : known.used + count]
        return [*names, *self._free_names(parent, count - len(names), known.names)]

    def _names_of_cell(self, parent: Process) -> NamesOfCell:
        """What this cell called children of a process: run again, it calls them the same."""
        cell, execution = self._notebook.cell, self._notebook.execution
        known = self._named.get((parent.pid, cell))
        if known is None or cell is None:
            known = self._named[parent.pid, cell] = NamesOfCell(execution=execution)
        if known.execution != execution:
            known.execution, known.used = execution, 0
        return known

    def _free_names(self, parent: Process, count: int, taken: list[str]) -> list[str]:
        """The next names that no child has and that stand for nothing else in the notebook."""
        base, others = re.sub(r"\W", "_", parent.name), {child.name for child in parent.machine.children(parent)} | {*taken}

        numbered = (f"{base}_{number}" for number in count_from(1))
        return list(islice((name for name in numbered if name not in others and self._notebook.processes.is_free(name, parent)), count))

    def _keep(self, parent: Process, flags: ForkFlags, children: Sequence[Process]) -> None:
        for child in children:
            self._notebook.ip.user_ns[child.name] = child
        if not flags.names:
            known = self._names_of_cell(parent)
            known.names[known.used : known.used + len(children)] = [child.name for child in children]
            known.used += len(children)


def _raise_where_none_answered(branches: Branches) -> None:
    """Raises the first error where no child has an answer: then the cell has failed."""
    errors = [branch.error for branch in branches if branch.error is not None]
    if len(errors) == len(branches):
        raise errors[0]
