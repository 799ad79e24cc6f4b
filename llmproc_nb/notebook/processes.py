"""The processes of a notebook by name: which one a cell goes on with, when a new one is made, which tools it offers.

Not here: what a cell asks of them (agentcell), which program a choice means (choose).
"""

from __future__ import annotations

import builtins
import keyword
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmproc_nb import api
from llmproc_nb.choose import Choice, program_of
from llmproc_nb.core.errors import PersonError, kind_of, meant
from llmproc_nb.core.syscall import fd_rules
from llmproc_nb.drivers import table

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process
    from llmproc_nb.notebook.flags import CellFlags
    from llmproc_nb.notebook.notebook import Notebook

RESERVED = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open"})


class Processes:
    """Those that cells of this notebook started, and what the cells chose for them."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self._births: dict[int, tuple[str | None, Choice]] = {}
        self._tools: dict[int, dict[str, Any]] = {}
        self._noted: dict[int, Choice] = {}

    def of_cell(self, flags: CellFlags) -> api.Process:
        """The process of a cell, started where there is none yet. A dry run starts it on a machine of its own, which leaves no trace."""
        known = self._known(flags)
        if flags.dry_run:
            return known or self._made(flags, api.new_machine())[0]
        if known is not None:
            self._renew_tools(known, flags.tools)
            return known
        return self._start(flags)

    def program(self, choice: Choice, name: str) -> api.Program:
        """The program that a choice means in this notebook; `.env` is read, whose keys may decide. Raises PersonError, ProgramError."""
        api.read_env(Path.cwd())
        return program_of(choice, name, os.environ, self._notebook.ip.user_ns)

    def paged_chars(self, flags: CellFlags) -> int | None:
        """The length from which the process of a cell pages what it is told; None where it reads everything at once."""
        known = self._notebook.ip.user_ns.get(flags.name)
        alive = isinstance(known, api.Process) and known.alive
        program = known.program if alive else self.program(flags.choice.over(self._notebook.choice), flags.name)
        rules = fd_rules(program)
        return rules.max_input_chars if rules is not None and rules.page_user_input else None

    def check_name(self, name: str) -> None:
        """Raises PersonError where a process of that name would be unreachable, or take the place of something else."""
        if not name.isidentifier() or keyword.iskeyword(name) or unicodedata.normalize("NFKC", name) != name:
            raise PersonError(f"{name!r} cannot be a name in this notebook", right="letters, digits and _ make a name")
        if hasattr(builtins, name) or name in RESERVED or name.startswith("_"):
            raise PersonError(f"{name!r} is a name of Python or IPython", right="a process needs a name of its own")
        value = self._notebook.ip.user_ns.get(name)
        if value is not None and not isinstance(value, api.Process):
            raise PersonError(f"{name!r} is {kind_of(value)} of this notebook already", right="a process needs a name of its own")

    def check_tools(self, names: Iterable[str]) -> None:
        """Raises PersonError for a tool that is neither a function of the notebook nor one that ships."""
        from llmproc_nb.notebook.offer import tool_names

        namespace, shipped = self._notebook.ip.user_ns, table.tool_names()
        for name in names:
            if name not in namespace and name not in shipped:
                own = tool_names(namespace)
                there = f"functions of this notebook: {', '.join(own) or 'none'}; tools that ship: {', '.join(shipped)}"
                raise PersonError(f"there is no tool {name!r}", place="%%agent --tools", right=meant(name, (*own, *shipped), there))

    def check_free(self, name: str, parent: Process | None) -> None:
        """As check_name, of a name for a new process. Raises PersonError also where a living process has it."""
        self.check_name(name)
        if not self.is_free(name, parent):
            right, step = "a new one needs a name of its own", f"Choose another name, or `%kill {name}` first."
            raise PersonError(f"{name!r} is a living process of this notebook", right=right, step=step)

    def is_free(self, name: str, parent: Process | None) -> bool:
        """Whether a new child of that parent may have a name: a cell that is run again gives again the names it gave."""
        value = self._notebook.ip.user_ns.get(name)
        if not isinstance(value, api.Process):
            return value is None
        above = value.parent
        same = (above.name if above is not None else None) == (parent.name if parent is not None else None)  # it may be a new one by now
        return not value.alive or (same and self._notebook.made_before(value))

    def functions(self, names: Iterable[str]) -> dict[str, Any]:
        """Tools by name: functions of the notebook where there is one of that name, else the name of a built-in tool."""
        return {name: self._notebook.ip.user_ns.get(name, name) for name in names}

    def notes(self, process: api.Process) -> tuple[str, ...]:
        """What a person should know of a process, once: what its program asked for in vain, and what was chosen since."""
        choice = self._notebook.choice
        notes = process.notes if process.pid not in self._noted else ()
        self._noted.setdefault(process.pid, choice)
        if choice != self._noted[process.pid]:
            self._noted[process.pid] = choice
            notes = (*notes, f"{process.name} goes on as it was started; `%agent` chooses for processes to come")
        return notes

    def _known(self, flags: CellFlags) -> api.Process | None:
        """The living process that a cell goes on with; None where it starts one. Raises PersonError for a name that cannot be one."""
        self.check_name(flags.name)
        value = self._notebook.ip.user_ns.get(flags.name)
        return value if value is not None and value.alive and not self._starts_anew(value, flags) else None

    def _renew_tools(self, process: api.Process, names: tuple[str, ...]) -> None:
        """Offer the tools a cell names, and those named before whose function was defined anew meanwhile."""
        self.check_tools(names)
        given = self._tools.setdefault(process.pid, {})
        wanted = self.functions((*given, *names))
        new = {
            name: function for name, function in wanted.items() if given.get(name) is not function and (callable(function) or name in names)
        }
        if new:
            process.add_tools(new.values())
            given |= new

    def _starts_anew(self, process: api.Process, flags: CellFlags) -> bool:
        """Whether the cell that made this process asks for another one now. Any other cell may not."""
        wanted = flags.choice.over(self._notebook.choice)
        cell, chosen = self._births.get(process.pid, (None, None))
        if cell is not None and cell == self._notebook.cell:
            return not wanted.empty and self.program(wanted, flags.name) != process.program
        if flags.choice.empty or (chosen is not None and flags.choice.over(chosen) == chosen):
            return False
        if chosen is None and self.program(wanted, flags.name).declaration() == process.program.declaration():
            return False  # it came back from a log, or was started in Python
        raise PersonError(
            f"process {process.name!r} runs program {process.program.name!r} ({process.program.model}) already",
            right="flags that choose a program count when a process starts",
            step=f"`%kill {process.name}` first, or choose another name.",
        )

    def _start(self, flags: CellFlags) -> api.Process:
        process, functions = self._made(flags, self._notebook.machine)
        self._notebook.ip.user_ns[flags.name] = process
        self._births[process.pid] = (self._notebook.cell, flags.choice.over(self._notebook.choice))
        self._tools[process.pid] = functions
        return process

    def _made(self, flags: CellFlags, machine: api.Machine) -> tuple[api.Process, dict[str, Any]]:
        """A new process, and the tools the cell names."""
        self.check_tools(flags.tools)
        functions = self.functions(flags.tools)
        program = self.program(flags.choice.over(self._notebook.choice), flags.name)
        return machine.start(program, name=flags.name, tools=functions.values()), functions  # type: ignore[return-value]
