"""The notebook's side of the machine: its processes by name, its cells, and how an agent cell runs.

Here: what the magics do. Not here: their flags (magics), displays (live, view), branching rules (cells), choices (choose).
"""

from __future__ import annotations

import asyncio
import builtins
import keyword
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell

from llmproc_nb import api
from llmproc_nb.choose import Choice, program_of
from llmproc_nb.core.call import GRACE_S, Call
from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.event import Replied
from llmproc_nb.core.result import RunResult
from llmproc_nb.drivers.table import LateDrivers
from llmproc_nb.notebook.cellcall import CellCall
from llmproc_nb.notebook.cells import Cells

if TYPE_CHECKING:
    from llmproc_nb.core.message import AnyPart
    from llmproc_nb.notebook.magics import AgentMagics, CellFlags


RESERVED = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open"})


class Notebook:
    """One per shell. `in_cell` is true while a cell runs; `choice` is what `%agent` chose for processes to come."""

    settings: AgentMagics

    def __init__(self, ip: InteractiveShell) -> None:
        self.ip = ip
        self.undo: list[Callable[[], Any]] = []
        self._depth = 0
        self.cell: str | None = None
        self.execution = 0
        self.choice = Choice()
        self._machine: api.Machine | None = None
        self._cells: dict[int, Cells] = {}
        self._births: dict[int, tuple[str | None, Choice]] = {}
        self._tools: dict[int, dict[str, Any]] = {}
        self._noted: dict[int, Choice] = {}
        self._waiting: dict[int, list[Call]] = {}

    # cells

    def cell_begins(self, info: Any) -> None:
        """A cell begins, or one within it: `%%capture` and the like run their body as a cell of its own, without an id."""
        cell = getattr(info, "cell_id", None)
        self._depth = 1 if cell is not None else self._depth + 1
        if self._depth == 1:
            self.cell = cell
            self.execution += 1

    def cell_ends(self, result: Any = None) -> None:
        self._depth = max(0, self._depth - 1)

    @property
    def in_cell(self) -> bool:
        return self._depth > 0

    # the machine

    @property
    def machine(self) -> api.Machine:
        """The kernel's machine, made with the first use."""
        if self._machine is None:
            from llmproc_nb.notebook.recording import open_machine

            made = api.default_machine_if_made()
            if made is not None and self.settings.mode != "live":
                raise PersonError(
                    f"processes were started before the extension, and not in mode {self.settings.mode!r}",
                    right="`%load_ext llmproc_nb` comes before the first process",
                    step="Restart the kernel.",
                )
            self._machine = made or open_machine(self)
            self._machine.current_cell = lambda: self.cell
            self._machine.show = _show_value
            api.set_default_machine(self._machine)
        return self._machine

    @property
    def machine_if_made(self) -> api.Machine | None:
        return self._machine

    def forget_machine(self) -> None:
        """Close the machine; the next use makes another one."""
        if self._machine is not None:
            self._machine.close()
            api.set_default_machine(None)
        self._machine = None

    @property
    def path(self) -> Path | None:
        """The notebook's file, where the front end says it; None in a console."""
        named = self.ip.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
        return Path(named) if named and str(named).endswith(".ipynb") else None

    def process(self, name: str) -> api.Process:
        """The process of that name. Raises PersonError."""
        value = self.ip.user_ns.get(name)
        if isinstance(value, api.Process):
            return value
        return self.machine.find(name)  # type: ignore[return-value]

    def choose(self, choice: Choice) -> None:
        """Make a choice for processes to come. It is tried out first: a wrong file, name or provider is an error now."""
        if choice.empty:
            return
        wanted = choice.over(self.choice)
        api.read_env(Path.cwd())
        program = self._program(wanted, "agent")
        LateDrivers(lambda: os.environ).provider(program)
        self.choice = wanted
        for note in program.notes:
            print(f"{note.place}: {note.text}")

    def state(self) -> Any:
        """What is chosen and what runs, to look at."""
        from llmproc_nb.notebook.facts import Facts

        chosen = {name: getattr(self.choice, name) for name in self.choice.__struct_fields__ if getattr(self.choice, name) is not None}
        living = [process.name for process in self._machine.processes.values() if process.alive] if self._machine else []
        return Facts(
            {
                "processes to come": ", ".join(f"{name} {value}" for name, value in chosen.items()) or "not chosen yet",
                "mode": self.settings.mode + (f" ({self.settings.recording})" if self.settings.recording else ""),
                "processes": ", ".join(living) or "none yet",
                **({"answers so far": self._answers()} if self.settings.mode in ("replay", "auto") and self._machine else {}),
            }
        )

    def _answers(self) -> str:
        """How many answers came from the recording."""
        replies = [event for event in self.machine.log.events if isinstance(event, Replied)]
        replayed = sum(event.replayed for event in replies)
        return f"{replayed} replayed, {len(replies) - replayed} asked"

    # an agent cell

    def _prepare(self, line: str, body: str) -> tuple[api.Process, CellFlags, tuple[AnyPart, ...]]:
        """The process, flags and prompt of an agent cell. Nothing is sent and no head is moved before all of it is right."""
        from llmproc_nb.notebook.template import render_prompt

        flags = self.settings.read_cell_flags(line)
        if not body.strip():
            raise PersonError("the cell has no prompt", right="the prompt stands in the lines below `%%agent`", step="See `%%agent?`.")
        prompt = render_prompt(body.rstrip("\n"), self.ip.user_ns, lambda source: eval(source, self.ip.user_global_ns, self.ip.user_ns))
        return self._process_for(flags), flags, prompt

    def _process_for(self, flags: CellFlags) -> api.Process:
        """The process of a cell, started where there is none yet. A dry run starts it on a machine of its own, which leaves no trace."""
        known = self._known(flags)
        if flags.dry_run:
            return known or self._made(flags, api.new_machine())[0]
        if known is not None:
            self._renew_tools(known, flags.tools)
            return known
        return self._start(flags)

    def _known(self, flags: CellFlags) -> api.Process | None:
        """The living process that a cell goes on with; None where it starts one. Raises PersonError for a name that cannot be one."""
        name = flags.name
        if not name.isidentifier() or keyword.iskeyword(name) or unicodedata.normalize("NFKC", name) != name:
            raise PersonError(f"{name!r} cannot be a name in this notebook", right="letters, digits and _ make a name")
        if hasattr(builtins, name) or name in RESERVED or name.startswith("_"):
            raise PersonError(f"{flags.name!r} is a name of Python or IPython", right="a process needs a name of its own")
        value = self.ip.user_ns.get(flags.name)
        if value is not None and not isinstance(value, api.Process):
            raise PersonError(
                f"{flags.name!r} is a {type(value).__name__} of this notebook already", right="a process needs a name of its own"
            )
        return value if value is not None and value.alive and not self._starts_anew(value, flags) else None

    def _renew_tools(self, process: api.Process, names: tuple[str, ...]) -> None:
        """Offer the tools a cell names, and those named before whose function was defined anew meanwhile."""
        given = self._tools.setdefault(process.pid, {})
        wanted = {name: self.ip.user_ns.get(name, name) for name in (*given, *names)}
        new = {
            name: function for name, function in wanted.items() if given.get(name) is not function and (callable(function) or name in names)
        }
        if new:
            process.add_tools(new.values())
            given |= new

    def _starts_anew(self, process: api.Process, flags: CellFlags) -> bool:
        """Whether the cell that made this process asks for another one now. Any other cell may not."""
        wanted = flags.choice.over(self.choice)
        cell, chosen = self._births.get(process.pid, (None, None))
        if cell is not None and cell == self.cell:
            return not wanted.empty and self._program(wanted, flags.name) != process.program
        if flags.choice.empty or (chosen is not None and flags.choice.over(chosen) == chosen):
            return False
        if chosen is None and self._program(wanted, flags.name).declaration() == process.program.declaration():
            return False  # it came back from a log, or was started in Python
        raise PersonError(
            f"process {process.name!r} runs program {process.program.name!r} ({process.program.model}) already",
            right="flags that choose a program count when a process starts",
            step=f"`%kill {process.name}` first, or choose another name.",
        )

    def _program(self, choice: Choice, name: str) -> api.Program:
        return program_of(choice, name, os.environ, self.ip.user_ns)

    def _start(self, flags: CellFlags) -> api.Process:
        process, functions = self._made(flags, self.machine)
        self.ip.user_ns[flags.name] = process
        self._births[process.pid] = (self.cell, flags.choice.over(self.choice))
        self._tools[process.pid] = functions
        return process

    def _made(self, flags: CellFlags, machine: api.Machine) -> tuple[api.Process, dict[str, Any]]:
        """A new process, and the tools the cell names: functions of the notebook, or built-in tools by name."""
        functions = {name: self.ip.user_ns.get(name, name) for name in flags.tools}
        program = self._program(flags.choice.over(self.choice), flags.name)
        return machine.start(program, name=flags.name, tools=functions.values()), functions  # type: ignore[return-value]

    def _begin(self, process: api.Process, flags: CellFlags, body: str) -> tuple[Callable[[], None], tuple[str, ...]]:
        """What the call does first, when its turn has come: stand where this cell has to start."""
        cells = self._cells.setdefault(process.pid, Cells())
        cell, execution = self.cell, self.execution
        notes = self._notes(process)
        if cell is None and cells.seen_before(body):
            notes = (*notes, "this front end does not say which cell ran, so the prompt was appended instead of branching")
        notes = (*notes, *cells.notes(process, cell, execution))

        def begin() -> None:
            start = cells.start_node(process, cell, execution)
            process.move(start, "rerun", cell=cell)
            cells.began(process, cell, execution)

        return begin, notes

    def _notes(self, process: api.Process) -> tuple[str, ...]:
        """What a person should know of a process, once: what its program asked for in vain, and what was chosen since."""
        notes = process.notes if process.pid not in self._noted else ()
        self._noted.setdefault(process.pid, self.choice)
        if self.choice != self._noted[process.pid]:
            self._noted[process.pid] = self.choice
            notes = (*notes, f"{process.name} goes on as it was started; `%agent` chooses for processes to come")
        return notes

    def start_call(self, line: str, body: str, on_main: Any) -> CellCall:
        """Everything of an agent cell up to the waiting."""
        from llmproc_nb.notebook.live import LiveView
        from llmproc_nb.notebook.view import Turn

        process, flags, prompt = self._prepare(line, body)
        if flags.dry_run:
            return CellCall(self, process, None, None, (), dry=self._dry_run(process, prompt, body))
        begin, notes = self._begin(process, flags, body)
        program = process.program
        turn = Turn(
            process=process.name,
            program=program.name,
            provider=process.provider.name,
            model=program.model,
            scripted=process.provider.scripted,
        )
        view = LiveView(turn, stream=self.settings.streams)
        call = process.run(
            prompt,
            max_iterations=flags.max_steps,
            on_begin=begin,
            on_delta=view.delta,
            on_event=view.event,
            on_main=None if flags.bg else on_main,
            cell=self.cell,
        )
        cells, cell = self._cells[process.pid], self.cell
        call.when_done(lambda _: cells.ended(process, cell))
        return CellCall(self, process, call, view, notes, bg=flags.bg)

    def _dry_run(self, process: api.Process, prompt: tuple[AnyPart, ...], body: str) -> Any:
        from llmproc_nb.notebook.dryrun import DryRun

        cells = self._cells.get(process.pid, Cells()) if process.machine is self._machine else Cells()
        return DryRun.of(process, cells.start_node(process, self.cell, self.execution), prompt)

    async def run_agent_cell(self, line: str, body: str) -> Any:
        """An outermost `%%agent` cell: the kernel's loop stays free while it waits. Gives a dry run, or nothing: the turn is on display."""
        from llmproc_nb.notebook.live import MainLoopTools, interrupts_raise, wait_in_cell

        tools = MainLoopTools(asyncio.get_running_loop())
        with interrupts_raise():
            made = self.start_call(line, body, tools)
        if made.call is None or made.bg:
            return made.now()
        with made.shown():
            made.finish(await wait_in_cell(made.call, tools))
        return None

    def run_nested_cell(self, line: str, body: str) -> Any:
        """`%%agent` under another magic, in a loop or a function: the main thread waits."""
        from llmproc_nb.notebook.live import WaitingTools

        tools = WaitingTools()
        made = self.start_call(line, body, tools)
        if made.call is None or made.bg:
            return made.now()
        with made.shown():
            made.finish(tools.wait(made.call))
        return None

    def be_value(self, value: Any) -> None:
        """Make something the cell's value, `_` and `Out[n]`, without showing it."""
        if self.ip.displayhook is not None:
            self.ip.displayhook.update_user_ns(value)

    # background calls

    def keep(self, call: Call) -> None:
        self._waiting.setdefault(call.process.pid, []).append(call)

    def wait(self, names: list[str]) -> list[RunResult]:
        """Wait for the background calls of these processes (all, where none is named)."""
        from llmproc_nb.notebook.live import WaitingTools

        pids = [self.process(name).pid for name in names] or list(self._waiting)
        calls = [call for pid in pids for call in self._waiting.get(pid, ())]
        results = []
        try:
            for call in calls:
                self._waiting[call.process.pid].remove(call)
                results.append(WaitingTools().wait(call))
        except KeyboardInterrupt:
            for call in calls:
                call.cancel()
            for call in calls:
                call.settle(GRACE_S)
            raise
        return results


def _show_value(value: Any) -> Any:
    from llmproc_nb.notebook.values import tool_value

    return tool_value(value)
