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
from llmproc_nb.core.event import Replied
from llmproc_nb.core.program import ToolWish
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
        self._begun: dict[int, api.Program] = {}
        """The programs that processes began with, and (below) those that were told to be others by now."""
        self._told: dict[int, api.Program] = {}

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
            if name in shipped or _is_tool(namespace.get(name)):
                continue
            own = tool_names(namespace)
            there = f"functions of this notebook: {', '.join(own) or 'none'}; tools that ship: {', '.join(shipped)}"
            if name in namespace:
                found, right = f"{name!r} is {kind_of(namespace[name])} of this notebook, which is no tool", there
            else:
                found, right = f"there is no tool {name!r}", meant(name, (*own, *shipped), there)
            raise PersonError(found, place="%%agent --tools", right=right)

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
        namespace = self._notebook.ip.user_ns
        return {name: namespace[name] if _is_tool(namespace.get(name)) else name for name in names}

    def notes(self, process: api.Process, flags: CellFlags) -> tuple[str, ...]:
        """What a person should know of a process, once: what its program asked for in vain, and what was chosen or changed since."""
        choice = self._notebook.choice
        notes = process.notes if process.pid not in self._noted else ()
        self._noted.setdefault(process.pid, choice)
        if choice != self._noted[process.pid]:
            self._noted[process.pid] = choice
            notes = (*notes, f"{process.name} goes on as it was started; `%agent` chooses for processes to come")
        return (*notes, *self._changed(process, flags))

    def _changed(self, process: api.Process, flags: CellFlags) -> tuple[str, ...]:
        """A note where the file or the variable of a process's program says something else by now; in each cell that names it."""
        _, chosen = self._births.get(process.pid, (None, None))
        if chosen is None or chosen.program is None:
            return ()
        try:
            program = self.program(chosen, process.name)
        except PersonError:  # it is gone, or cannot be read just now: the process does not need it
            return ()
        named, told = flags.choice.program is not None, self._told.get(process.pid)
        if _is_same(program, self._begun[process.pid]) or (not named and told is not None and _is_same(program, told)):
            return ()
        self._told[process.pid] = program
        return (
            f"{process.name} goes on with the program it began with, which was changed since; after `%kill {process.name}` "
            "a cell starts it from the new one",
        )

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
        if _is_blank(process):
            return True
        raise PersonError(
            f"process {process.name!r} runs program {process.program.name!r} ({process.program.model}) already",
            right="flags that choose a program count when a process starts",
            step=f"`%kill {process.name}` first, or choose another name.",
        )

    def _start(self, flags: CellFlags) -> api.Process:
        process, functions = self._made(flags, self._notebook.machine)
        before = self._notebook.ip.user_ns.get(flags.name)
        if before is not None and before.alive and _is_blank(before):
            before.kill()  # nobody could reach it by its name, and nothing came of it
        self._notebook.ip.user_ns[flags.name] = process
        self._births[process.pid] = (self._notebook.cell, flags.choice.over(self._notebook.choice))
        self._tools[process.pid], self._begun[process.pid] = functions, process.program  # type: ignore[assignment]
        return process

    def _made(self, flags: CellFlags, machine: api.Machine) -> tuple[api.Process, dict[str, Any]]:
        """A new process, and the tools the cell names."""
        self.check_tools(flags.tools)
        functions = self.functions(flags.tools)
        program = self.program(flags.choice.over(self._notebook.choice), flags.name)
        return machine.start(program, name=flags.name, tools=functions.values()), functions  # type: ignore[return-value]


def _is_tool(value: Any) -> bool:
    """Whether a value of the notebook can be offered as a tool; a module or a frame has a name only by chance."""
    return callable(value) or isinstance(value, ToolWish)


def _is_blank(process: Process) -> bool:
    """Whether nothing came of a process yet: no reply, also not of the one it was forked from, no child, and no call is under way."""
    if process.children or any(not call.done() for call in process.calls) or any(one.role != "system" for one in process.messages):
        return False
    return not any(isinstance(event, Replied) and event.pid == process.pid for event in process.machine.log.events)


def _is_same(one: api.Program, other: api.Program) -> bool:
    """Whether two programs say the same. A function that was defined anew as it was is the same one."""
    return one == other or (one.declaration() == other.declaration() and _codes(one) == _codes(other))


def _codes(program: api.Program) -> list[Any]:
    """The code of the program's functions."""
    return [getattr(getattr(one, "function", one), "__code__", None) for one in (program.script, *program.tools)]
