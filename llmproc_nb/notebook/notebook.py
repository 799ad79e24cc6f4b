"""The notebook's side of the machine: which cell runs, what is chosen, where the machine is.

Not here: its processes by name (processes), how an agent cell runs (agentcell), calls in the background (background), flags (magics).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell

from llmproc_nb import api
from llmproc_nb.choose import Choice
from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.event import Merged, Moved, Replied, Started, Stopped
from llmproc_nb.drivers.table import LateDrivers
from llmproc_nb.notebook import sdk
from llmproc_nb.notebook.agentcell import AgentCells
from llmproc_nb.notebook.background import Background
from llmproc_nb.notebook.forkcell import ForkCells
from llmproc_nb.notebook.processes import Processes

if TYPE_CHECKING:
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.process import Process
    from llmproc_nb.core.standing import Standing
    from llmproc_nb.drivers.rebuild.resumed import Resumed
    from llmproc_nb.notebook.fit import Fit
    from llmproc_nb.notebook.magics import AgentMagics


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
        self.opened_in: dict[str, str] = {}
        self.resumed: dict[Path, Sequence[Resumed]] = {}
        """What came back from logs of earlier runs, by their files."""
        self.processes, self.agent_cells, self.background = Processes(self), AgentCells(self), Background(self)
        self.fork_cells = ForkCells(self)
        self._begun: dict[int, int] = {}
        self._cell_ids: dict[int, str | None] = {}

    # cells

    def cell_begins(self, info: Any) -> None:
        """A cell begins, or one within it: `%%capture` and the like run their body as a cell of its own, without an id."""
        cell = getattr(info, "cell_id", None)
        self._depth = 1 if cell is not None else self._depth + 1
        if self._depth == 1:
            self.cell = cell
            self.execution += 1
            number = len(self.ip.user_ns.get("In", ()))  # this cell comes in next; the shell's own counter may be one ahead already
            self._cell_ids[number] = cell
            self._begun[number] = len(self._machine.log.events) if self._machine is not None else 0

    def cell_ends(self, result: Any = None) -> None:
        self._depth = max(0, self._depth - 1)

    def leave_cell(self) -> None:
        """No cell is known to run from now on: nothing tells of them any longer."""
        self._depth, self.cell = 0, None

    @property
    def in_cell(self) -> bool:
        return self._depth > 0

    def made_before(self, process: Process) -> bool:
        """Whether the cell that runs now made this process when it ran before."""
        if self.cell is None:
            return False
        events = process.machine.log.events[: next(reversed(self._begun.values()), 0)]
        return any(isinstance(event, Started) and event.pid == process.pid and event.cell == self.cell for event in events)

    # the machine

    @property
    def machine(self) -> api.Machine:
        """The kernel's machine, made with the first use."""
        if self._machine is None:
            from llmproc_nb.notebook.ask import NotebookApprover
            from llmproc_nb.notebook.recording import open_machine

            made = api.default_machine_if_made()
            if made is not None and self.settings.mode != "live":
                raise PersonError(
                    f"processes were started before the extension, and not in mode {self.settings.mode!r}",
                    right="`%load_ext llmproc_nb` comes before the first process",
                    step="Restart the kernel.",
                )
            self._machine = made or open_machine(self)
            self.opened_in = {"mode": self.settings.mode, "recording": self.settings.recording}
            self._machine.current_cell = lambda: self.cell
            self._machine.find_cell = self._cell_end
            self._machine.find_variables = self._variables
            self._machine.approver = self._machine.approver or NotebookApprover(self.ip)
            api.set_default_machine(self._machine)
        return self._machine

    @property
    def machine_if_made(self) -> api.Machine | None:
        return self._machine

    def cell_name(self, cell: str) -> str:
        """What to call a cell: by the number of its last run, as in cell:4; else by the beginning of its id."""
        count = next((number for number, known in reversed(self._cell_ids.items()) if known == cell), None)
        return f"cell:{count}" if count is not None else cell[:8]

    def _cell_end(self, process: Standing, cell: str) -> Node | None:
        """Where a process stood when the cell with that number, as in In [4], ended."""
        count = int(cell) if cell.isascii() and cell.isdigit() and len(cell) < 9 else -1
        if count not in self._begun or self._machine is None:
            return None
        later = [begun for other, begun in self._begun.items() if other > count]
        events = self._machine.log.events[self._begun[count] : min(later, default=None)]
        ends = [event.node for event in events if isinstance(event, Stopped | Moved | Merged) and event.pid == process.pid]
        return self._machine.dialog.find(ends[-1]) if ends else None

    def _variables(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The notebook's variables of these names. Raises PersonError."""
        missing = [name for name in names if name not in self.ip.user_ns]
        if missing:
            raise PersonError(f"there is no variable {missing[0]!r} in this notebook", place="[sandbox] variables")
        return {name: self.ip.user_ns[name] for name in names}

    def forget_machine(self) -> None:
        """Close the machine; the next use makes another one."""
        if self._machine is not None:
            self._machine.close()
            api.set_default_machine(None)
        self._machine = None
        self.resumed.clear()

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
        program = self.processes.program(wanted, "agent")
        LateDrivers(lambda: os.environ).provider(program)
        self.choice = wanted
        sdk.import_for(self, program.provider)
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

    def fit(self, paged_chars: int | None = None) -> Fit:
        """The room for the values of one prompt."""
        from llmproc_nb.notebook.fit import Fit

        return Fit(self.settings.value_tokens, paged_chars)

    def be_value(self, value: Any) -> None:
        """Make something the cell's value, `_` and `Out[n]`, without showing it."""
        if self.ip.displayhook is not None:
            self.ip.displayhook.update_user_ns(value)
