"""How a `%%fork` cell runs: its prompts, its children, the table that fills while they answer, the frame it gives."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb import api
from llmproc_nb.choose import with_model
from llmproc_nb.core.branch import Branches, Prompt
from llmproc_nb.core.call import Call
from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.fan import Fan
from llmproc_nb.core.process import Process

if TYPE_CHECKING:
    from llmproc_nb.notebook.fanview import FanView
    from llmproc_nb.notebook.notebook import Notebook

_RULE = re.compile(r"^-{3,}[ \t]*$", re.MULTILINE)


class ForkFlags(msgspec.Struct, frozen=True, kw_only=True):
    """The line of `%fork` or `%%fork`, read."""

    process: str
    names: tuple[str, ...] = ()
    count: int | None = None
    at: str | None = None
    first_k: int | None = None
    last_n: int | None = None
    models: tuple[str, ...] = ()
    max_steps: int | None = None


class ForkCells:
    """The fan-outs of a notebook."""

    read_flags: Callable[[str], ForkFlags]
    """Reads the line of a `%%fork` cell; set by the magics."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self._made: dict[int, int] = {}

    def fork(self, flags: ForkFlags) -> list[Process]:
        """Children that stand where their parent does, and run nothing. They are in the notebook under their names."""
        parent = self._notebook.process(flags.process)
        programs = self._programs(parent, flags)
        names = self._names(parent, flags, flags.count or len(flags.names) or len(programs) or 1)
        chosen: list[Any] = [*programs] or [None] * len(names)
        if len(chosen) != len(names):
            raise PersonError(f"{len(names)} children and {len(chosen)} models", place="%fork", right="each child has one model")
        children = [
            parent.fork(name, at=flags.at, first_k=flags.first_k, last_n=flags.last_n, program=program)
            for name, program in zip(names, chosen, strict=True)
        ]
        self._keep(children)
        return children

    async def run(self, line: str, body: str) -> None:
        """A `%%fork` cell at the top: the kernel's loop stays free while the children answer."""
        from llmproc_nb.notebook.live import MainLoopTools, interrupts_raise, wait_in_cell

        tools = MainLoopTools(asyncio.get_running_loop())
        with interrupts_raise():
            branches, view = self._start(self.read_flags(line), body, tools)
        try:
            await wait_in_cell(branches, tools)  # type: ignore[arg-type]
        finally:
            view.finish()
        self._notebook.be_value(view.frame())

    def run_nested(self, line: str, body: str) -> None:
        """`%%fork` under another magic, in a loop or a function: the main thread waits."""
        from llmproc_nb.notebook.live import WaitingTools

        tools = WaitingTools()
        branches, view = self._start(self.read_flags(line), body, tools)
        try:
            tools.wait(branches)  # type: ignore[arg-type]
        finally:
            view.finish()
        self._notebook.be_value(view.frame())

    def _start(self, flags: ForkFlags, body: str, on_main: Any) -> tuple[Branches, FanView]:
        from llmproc_nb.notebook.ask import asks_here
        from llmproc_nb.notebook.fanview import FanView

        notebook = self._notebook
        parent = notebook.process(flags.process)
        programs = self._programs(parent, flags)
        prompts = self._prompts(flags, body, len(programs))
        names = self._names(parent, flags, len(prompts))
        start = flags.at if flags.at is not None else notebook.agent_cells.forked_from(parent)

        def run(child: Process, prompt: Prompt, fan: Fan) -> Call:
            return child.run(prompt, max_iterations=flags.max_steps, on_main=on_main, cell=notebook.cell, fan=fan)

        with asks_here(on_main):
            branches = parent.fork_map(
                prompts, names=names, at=start, first_k=flags.first_k, last_n=flags.last_n, programs=programs or None, run=run
            )
        self._keep(branches.processes)
        return branches, FanView(parent, branches, streams=notebook.settings.streams)

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
            found = f"{len(blocks)} prompts, {len(flags.names) or wanted} names and {models or wanted} models"
            raise PersonError(found, place="%%fork", right="as many of each as there are children, or one prompt for all")
        return prompts

    def _programs(self, parent: Process, flags: ForkFlags) -> list[api.Program]:
        return [with_model(parent.program, model) for model in flags.models]  # type: ignore[arg-type]

    def _names(self, parent: Process, flags: ForkFlags, count: int) -> list[str]:
        """Names that can be typed in the notebook: those given, or scout_1, scout_2 …"""
        if flags.names and flags.count not in (None, len(flags.names)):
            raise PersonError(f"{len(flags.names)} names and -n {flags.count}", place="%fork", right="names or a number are enough")
        for name in flags.names:
            self._notebook.processes.check_name(name)
        if flags.names:
            return list(flags.names)
        first = self._made.get(parent.pid, 0)
        self._made[parent.pid] = first + count
        return [f"{parent.name}_{number}" for number in range(first + 1, first + count + 1)]

    def _keep(self, children: Any) -> None:
        for child in children:
            if child.name.isidentifier():
                self._notebook.ip.user_ns[child.name] = child
