"""`%sandbox` and `%%sandbox`: look into the sandbox of a process, and work in the namespace its model works in."""

from __future__ import annotations

from collections.abc import Callable
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from llmproc_nb.core.errors import PersonError, ToolError
from llmproc_nb.notebook.flags import parse
from llmproc_nb.notebook.notebook import Notebook
from llmproc_nb.notebook.offer import SANDBOX
from llmproc_nb.notebook.sandboxcell import SandboxCells
from llmproc_nb.notebook.sandboxfiles import pull_files, push_files

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process

OF_ONE = ("show", "status", "restart")
"""What is done to a sandbox as a whole: a word after it is the process."""


@magics_class
class SandboxMagics(Magics):
    """Sandboxes by hand: `%sandbox`, `%%sandbox`."""

    def __init__(self, shell: InteractiveShell, notebook: Notebook) -> None:
        super().__init__(shell, config=shell.config)
        self.notebook = notebook
        self._cells = SandboxCells(notebook)
        self._do: dict[str, Callable[[Process, list[str]], Any]] = {
            "show": self._show,
            "status": self._status,
            "push": self._push,
            "pull": self._pull,
            "files": self._files,
            "restart": self._restart,
            "notebook": self._notebook,
        }

    @no_var_expand
    @cell_magic("sandbox")
    @magic_arguments("%sandbox")
    @argument("process", nargs="?", help="the process (default: the only one that has a sandbox)")
    @argument("-p", "--process", dest="named", metavar="NAME", help="the same")
    @argument("--timeout", type=float, metavar="S", help="seconds after which the code is stopped (default: as the program says)")
    def sandbox_cell(self, line: str, cell: str) -> None:
        """Run the cell's code in the sandbox of a process: confined, in the state its model has there, and finds afterwards."""
        args = parse(self.sandbox_cell, line)
        if args.timeout is not None and args.timeout <= 0:
            raise PersonError(f"--timeout {args.timeout:g}", place="%%sandbox", right="a number of seconds above 0 is needed")
        process = self._process(args.process or args.named)
        _check_free(process)
        self._cells.run(process, cell, args.timeout)

    @no_var_expand
    @line_magic("sandbox")
    @magic_arguments("sandbox")
    @argument(
        "what",
        nargs="?",
        default="show",
        help="show (default), status, push NAMES, pull NAMES, files PATHS, restart, notebook FILE; a process may be named before it",
    )
    @argument("names", nargs="*", help="the variables to push or pull, files to copy into it, or the notebook to write")
    @argument("-p", "--process", metavar="NAME", help="whose sandbox (default: of the only process that has one)")
    def sandbox_line(self, line: str) -> Any:
        """Look at a sandbox, or bring something in or out.

        `%sandbox` shows its variables, files and cells; `status` tries, here and now, to break every promise of its confinement and
        shows what happened; `push df` and `pull result` copy variables (frames through Arrow, else plain data) between this notebook and
        it; `files data.csv` copies files in, `pull out.csv` one out; `restart` begins again with nothing; `notebook run.ipynb` writes
        what ran as a notebook.
        """
        args = parse(self.sandbox_line, line)
        name, what, names = self._asked(args.process, args.what, args.names)
        try:
            process = self._process(name)
            _check_free(process)
            return self._do[what](process, names)
        except ToolError as error:  # the words are the same for a person
            raise PersonError(error.found, place=error.place or "%sandbox", right=error.right, step=error.step) from None

    def _asked(self, name: str | None, what: str, names: list[str]) -> tuple[str | None, str, list[str]]:
        """Whose sandbox, what is to be done, and with what: a process may stand before what is done, or after what is done as a whole."""
        if what not in SANDBOX:
            if self._named(what) is None:
                right = f"it does {', '.join(SANDBOX)}"
                raise PersonError(
                    f"{what!r} is no process, and nothing %sandbox does", place="%sandbox", right=right, step="See `%sandbox?`."
                )
            name, what, names = what, *(names[:1] or ["show"]), names[1:]
        if what not in SANDBOX:
            right = f"`%sandbox {name} status` names a process and what is done"
            raise PersonError(f"{what!r} is nothing %sandbox does", place="%sandbox", right=right, step="See `%sandbox?`.")
        if what in OF_ONE and names:
            if len(names) > 1 or name is not None:
                raise PersonError(f"{' '.join(names)} after {what}", place="%sandbox", right=f"`%sandbox NAME {what}` is all there is")
            name, names = names[0], []
        return name, what, names

    def _named(self, name: str) -> Process | None:
        try:
            return self.notebook.process(name)
        except PersonError:
            return None

    def _process(self, name: str | None) -> Process:
        """The process that is meant: the one of that name, or the only one that has a sandbox, or could have."""
        if name is not None:
            return self.notebook.process(name)
        machine = self.notebook.machine_if_made
        living = [process for process in machine.processes.values() if process.alive] if machine is not None else []
        for found in (
            [process for process in living if any(process.pid in family.sandboxes for family in machine.families.values())]
            if machine is not None
            else [],
            [process for process in living if any(tool.name == "run_python" for tool in process.tools)],
            living,
        ):
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(process.name for process in found)
                raise PersonError("several processes could be meant", place="%sandbox", right=f"name one of {names}")
        raise PersonError(
            "there is no process yet", place="%sandbox", right="a process has a sandbox", step="`%spawn NAME from PROGRAM` makes one."
        )

    def _show(self, process: Process, names: list[str]) -> Any:
        from llmproc_nb.notebook.sandboxview import SandboxView

        return SandboxView(process)

    def _status(self, process: Process, names: list[str]) -> Any:
        from llmproc_nb.notebook.sandboxview import status_table

        print("a fresh sandbox is being attacked; this takes some seconds")
        table = status_table(process)
        kept = sum(row[1] == "yes" for row in table.rows)
        made = sum(row[1] != "not promised" for row in table.rows)
        print(f"{kept} of {made} promises kept")
        if readable := process.sandbox.rules.readable:
            print(f"it is shown, read-only: {', '.join(readable)}")
        return table

    def _push(self, process: Process, names: list[str]) -> None:
        space, names = self.notebook.ip.user_ns, _some(names, "push")
        missing = [name for name in names if name not in space]
        if missing:
            raise PersonError(f"there is no variable {missing[0]!r} in this notebook", place="%sandbox push")
        process.sandbox.put(**{name: space[name] for name in names})
        print(f"{process.name}'s sandbox has {', '.join(names)}")

    def _pull(self, process: Process, names: list[str]) -> None:
        if any("." in name or "/" in name for name in names):
            print(f"the notebook's folder has {', '.join(pull_files(process, names))}")
            return
        space, names = self.notebook.ip.user_ns, _some(names, "pull")
        came = {name: process.sandbox.get(name) for name in names}  # all or none
        had = ", ".join(name for name in names if name in space)
        space.update(came)
        print(f"this notebook has {', '.join(names)}" + f"; {had} had another value before" * bool(had))

    def _files(self, process: Process, names: list[str]) -> None:
        print(f"{process.name}'s sandbox has {', '.join(push_files(process, names))}")

    def _restart(self, process: Process, names: list[str]) -> None:
        process.sandbox.restart()
        print(f"{process.name}'s sandbox begins again with nothing; earlier places of its dialog keep their states")

    def _notebook(self, process: Process, names: list[str]) -> None:
        if len(names) != 1 or not names[0].endswith(".ipynb"):
            raise PersonError(f"{' '.join(names) or 'nothing'} is no notebook's file", place="%sandbox notebook", right="as in run.ipynb")
        process.sandbox.to_notebook(names[0])
        print(f"{names[0]} has the {len(process.sandbox.cells)} cells of {process.name}'s sandbox")


def _check_free(process: Process) -> None:
    """Raises PersonError where the wait for its sandbox would have no end in sight."""
    if process.sandbox.busy:
        found = f"code of {process.name}'s model runs in it now"
        raise PersonError(found, place="%sandbox", right=f"`%wait {process.name}` waits for it, `%kill {process.name}` ends it")


def _some(given: list[str], what: str) -> list[str]:
    """The names of variables, written with commas or without. Raises PersonError."""
    names = [name for word in given for name in word.split(",") if name]
    if not names:
        raise PersonError("no variable is named", place=f"%sandbox {what}", right=f"`%sandbox {what} df` names one")
    wrong = next((name for name in names if not name.isidentifier() or iskeyword(name)), None)
    if wrong is not None:
        right = f"variables go by their own names, as in `%sandbox {what} df`"
        found, step = f"{wrong!r} is no variable's name", "process.sandbox.put(name=value) sets any value under any name."
        raise PersonError(found, place=f"%sandbox {what}", right=right, step=step)
    return names
