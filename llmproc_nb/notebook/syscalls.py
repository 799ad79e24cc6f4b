"""The magics of system calls: fork, goto, spawn, send, merge, diff, fd, tree. What they do is in forkcell and core."""

from __future__ import annotations

from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments

from llmproc_nb.choose import Choice
from llmproc_nb.core.address import KINDS
from llmproc_nb.core.errors import PersonError, ToolError
from llmproc_nb.notebook.flags import parse, parse_with_text
from llmproc_nb.notebook.forkcell import ForkFlags
from llmproc_nb.notebook.notebook import Notebook
from llmproc_nb.notebook.tree import begun, first_words


def _branching(function: Any) -> Any:
    for decorate in (
        argument("-m", "--model", metavar="A,B", help="a model for each child"),
        argument("--last-n", type=int, metavar="N", help="keep only the last N messages (and the first K), and say how many are left out"),
        argument("--first-k", type=int, metavar="K", help="keep only the first K messages (and the last N)"),
        argument("--at", metavar="ADDRESS", help="from where: msg_7, ~2 (two turns back), cell:4, a node id's first characters"),
        argument("-n", "--number", type=int, metavar="N", help="how many children"),
        argument("names", nargs="*", help="names for the children (default: scout_1, scout_2 …)"),
        argument("process", help="the process to fork"),
    ):
        function = decorate(function)
    return function


@magics_class
class SyscallMagics(Magics):
    """System calls by hand: `%fork`, `%%fork`, `%goto`, `%spawn`, `%send`, `%merge`, `%diff`, `%fd`, `%tree`."""

    def __init__(self, shell: InteractiveShell, notebook: Notebook) -> None:
        super().__init__(shell, config=shell.config)
        self.notebook = notebook
        notebook.fork_cells.read_flags = self.read_fork_flags

    @no_var_expand
    @line_magic("fork")
    @magic_arguments("fork")
    @_branching
    def fork_line(self, line: str) -> Any:
        """Make children that stand where a process stands; nothing is copied and nothing runs."""
        children = self.notebook.fork_cells.fork(_flags("%fork", parse(self.fork_line, line)))
        return children[0] if len(children) == 1 else children

    @no_var_expand
    @cell_magic("fork")
    @magic_arguments("%fork")
    @_branching
    @argument("--max-steps", type=int, metavar="N", help="how many requests each child may make")
    def fork_cell(self, line: str, cell: str) -> None:
        """Have several children of a process answer at once, and get a frame with a row for each.

        One prompt per child with `---` between them, or one prompt for all with -n or --model. The process itself stays where it is. One
        request writes the common path to the provider's cache, the others read it.
        """
        self.notebook.fork_cells.run_nested(line, cell)

    def read_fork_flags(self, line: str) -> ForkFlags:
        """The line of a `%%fork` cell. Raises PersonError."""
        return _flags("%%fork", parse(self.fork_cell, line))

    @no_var_expand
    @line_magic("goto")
    @magic_arguments("goto")
    @argument("process", nargs="?", help="the process")
    @argument("address", nargs="?", help="msg_7, ~2 (two turns back), cell:4, or a node id's first characters")
    @argument("note", nargs="*", help="what the process is told there: the rest of the line, as it stands")
    @argument("--undo", action="store_true", help="stand again where it stood before its last goto")
    def goto_line(self, line: str) -> None:
        """Go back (or anywhere) in a process's dialog. What is left stays in the tree; `%goto NAME --undo` returns."""
        args = parse_with_text(self.goto_line, line, 2)
        if args.process is None:
            raise PersonError("no process is named", place="%goto", right="`%goto scout msg_3` or `%goto scout --undo`")
        process = self.notebook.process(args.process)
        if args.address is None and not args.undo:
            raise PersonError("no address is given", place="%goto", right=KINDS, step=f"`%tree {process.name}` shows them.")
        if args.address is not None and args.undo:
            right = "`--undo` goes back to where it stood before its last goto"
            raise PersonError(f"{args.address} and --undo are two places", place="%goto", right=right, step="Give one of them.")
        with self.notebook.agent_cells.moving(process):
            node = process.undo() if args.undo else process.goto(args.address, " ".join(args.note) or None)
        number = process.labels.of(node)
        where = f"msg_{number}" if number is not None else "its beginning"
        print(f"{process.name} stands on {where} ({node.message.role}: {first_words(node.message, 60)})")

    @no_var_expand
    @line_magic("spawn")
    @magic_arguments("spawn")
    @argument("name", help="the name of the new process")
    @argument("words", nargs="*", metavar="from PROGRAM", help="a program file, a Program of the notebook, or with --by one of its links")
    @argument("--by", metavar="PROCESS", help="the parent, whose limits and access hold for the new process too")
    @argument("--access", choices=["read", "write", "admin"], help="what its tools may do (default: as its parent's)")
    def spawn_line(self, line: str) -> Any:
        """Start a process of a program, which knows nothing of any dialog: `%spawn expert from programs/expert.toml`."""
        args = parse(self.spawn_line, line)
        words = args.words[1:] if args.words[:1] == ["from"] else args.words
        if len(words) > 1:
            raise PersonError(f"{' '.join(words)!r} is more than one program", place="%spawn", right="`%spawn NAME from PROGRAM`")
        if args.words and not words:
            raise PersonError("no program is named after `from`", place="%spawn", right="`%spawn NAME from PROGRAM`")
        parent = self.notebook.process(args.by) if args.by else None
        self.notebook.processes.check_free(args.name, parent)
        named = words[0] if words else None
        if parent is not None:
            process = parent.spawn(self._program_below(parent, named, args.name), args.name, access=args.access)
        else:
            program = self.notebook.processes.program(Choice(program=named).over(self.notebook.choice), args.name)
            process = self.notebook.machine.start(program, name=args.name, access=args.access)
        self.notebook.ip.user_ns[args.name] = process
        return process

    def _program_below(self, parent: Any, named: str | None, name: str) -> Any:
        """A link of the parent by its name, else a Program or a file; the parent's own program where none is named."""
        links = parent.program.linked
        if named is None or named in links:
            return named or ""
        try:
            return self.notebook.processes.program(Choice(program=named), name)
        except PersonError as error:
            has = f"which has {', '.join(links)}" if links else "which has none"
            raise PersonError(f"{error.found}, nor a link of {parent.name}, {has}", place="%spawn", right=error.right) from None

    @no_var_expand
    @line_magic("send")
    @magic_arguments("send")
    @argument("process", help="the process")
    @argument("text", nargs="+", help="what it reads with its next request, also while it runs")
    def send_line(self, line: str) -> None:
        """Tell a process something: while it runs it reads it with its next request, else with its next call."""
        args = parse_with_text(self.send_line, line, 1)
        process = self.notebook.process(args.process)
        process.send(" ".join(args.text))
        print(f"{process.name} reads it with its next {'request' if process.busy else 'call'}")

    @no_var_expand
    @line_magic("merge")
    @magic_arguments("merge")
    @argument("child", help="the branch")
    @argument("words", nargs="*", metavar="into PROCESS [NOTE]", help="where to (default: its parent), and a note that is said with it")
    def merge_line(self, line: str) -> None:
        """Bring a branch home as one message: its conclusion, its newest pictures and its fds. The branch stays as it is.

        A cell that is run again merges in the same place again: the message it added before stays on a branch.
        """
        args = parse_with_text(self.merge_line, line, 3 if line.split()[1:2] == ["into"] else 2)
        child = self.notebook.process(args.child)
        words = args.words[1:] if args.words[:1] == ["into"] else args.words
        if args.words and not words:
            raise PersonError("no process is named after `into`", place="%merge", right="`%merge child into process`")
        target = self.notebook.process(words[0]) if words else child.parent
        if target is None:
            raise PersonError(f"{child.name} has no parent", place="%merge", right="`%merge child into process`")
        if child.busy:
            raise PersonError(f"{child.name} still runs", place="%merge", right=f"`%wait {child.name}` first, or `%kill {child.name}`")
        with self.notebook.agent_cells.moving(target, again=True):
            target.merge(child, " ".join(words[1:]) or None)
        print(f"{target.name} knows what {child.name} found ({begun(child.get_last_message(), 60)})")
        if any(cell.pid == child.pid for cell in child.sandbox.cells):
            print(f"its variables and files stay in its own sandbox; `%sandbox {child.name} pull NAME` copies one here")

    @no_var_expand
    @line_magic("diff")
    @magic_arguments("diff")
    @argument("left", help="a process")
    @argument("right", help="another one")
    def diff_line(self, line: str) -> Any:
        """Two branches side by side from where they part."""
        from llmproc_nb.notebook.branchview import Difference

        args = parse(self.diff_line, line)
        return Difference(self.notebook.process(args.left), self.notebook.process(args.right))

    @no_var_expand
    @line_magic("fd")
    @magic_arguments("fd")
    @argument("process", nargs="?", help="the process (default: all)")
    @argument("fd", nargs="?", help="one of its fds, as in 3, fd:3 or ref:name")
    @argument("--page", type=int, default=1, metavar="N", help="the page to show first")
    def fd_line(self, line: str) -> Any:
        """The long texts of a process, or one of them to page through. Marks show what the model has read of it."""
        from llmproc_nb.notebook.fdview import FdView, fd_table

        args = parse(self.fd_line, line)
        if args.process is None:
            machine = self.notebook.machine_if_made
            known = [process for process in machine.processes.values() if len(process.fds)] if machine else []
            if len(known) != 1:
                raise PersonError(
                    "several processes have fds" if known else "there are no fds yet",
                    place="%fd",
                    right=f"`%fd NAME` shows those of one: {', '.join(process.name for process in known)}" if known else "",
                )
            return fd_table(known[0].fds)
        process = self.notebook.process(args.process)
        if args.fd is None:
            return fd_table(process.fds)
        try:
            fd = process.fds.get(args.fd)
            fd.page(args.page)  # so that a page that is not there is an error now
        except ToolError as error:  # the words are the same for a person
            raise PersonError(error.found, place="%fd", right=error.right) from None
        return FdView(fd, process.fds, args.page)

    @no_var_expand
    @line_magic("tree")
    @magic_arguments("tree")
    @argument("names", nargs="*", help="only these processes and their families (default: all)")
    def tree_line(self, line: str) -> Any:
        """The dialogs of this notebook as one tree: forks, gotos, re-runs and spawns. Click on a node to read it, fork or go there."""
        from llmproc_nb.notebook.treewidget import TreeView

        pids = [self.notebook.process(name).pid for name in parse(self.tree_line, line).names]
        return TreeView(self.notebook.machine, pids, on_fork=self._fork_at, on_goto=self._go_to, cell_name=self.notebook.cell_name)

    def _fork_at(self, node_id: str) -> str:
        """Fork the process that a button means; what is said of it below the tree."""
        process = self._meant(node_id)
        child = self.notebook.fork_cells.fork(ForkFlags(process=str(process.pid), at=node_id))[0]
        return f"{child.name} stands there now; `%%agent {child.name}` goes on from it"

    def _go_to(self, node_id: str) -> str:
        process = self._meant(node_id)
        process.goto(node_id)
        return f"{process.name} stands there now; `%goto {process.name} --undo` takes it back"

    def _meant(self, node_id: str) -> Any:
        """The process that was told a message or said it, where it lives; else one that stands below it."""
        machine = self.notebook.machine
        node = machine.dialog.find(node_id)
        living = [process for process in machine.processes.values() if process.alive]
        was_there = [process for process in living if process.labels.of(node) is not None]  # the oldest first: forks come after it
        on_path = [process for process in living if node.depth < len(process.path) and process.path[node.depth] is node]
        found = was_there or on_path or living
        if not found:
            raise PersonError("no process is alive", place="%tree", right="a living process can go there or be forked")
        return found[0]


def _flags(magic: str, args: Any) -> ForkFlags:
    if args.number is not None and args.number < 1:
        raise PersonError(f"-n {args.number}", place=magic, right="at least one child is needed")
    for flag, kept in (("--first-k", args.first_k), ("--last-n", args.last_n)):
        if kept is not None and kept < 0:
            raise PersonError(f"{flag} {kept}", place=magic, right="a number of messages to keep is needed")
    steps = getattr(args, "max_steps", None)
    if steps is not None and steps < 1:
        raise PersonError(f"--max-steps {steps}", place=magic, right="at least one request is needed")
    return ForkFlags(
        magic=magic,
        process=args.process,
        names=tuple(args.names),
        count=args.number,
        at=args.at,
        first_k=args.first_k,
        last_n=args.last_n,
        models=tuple(name for word in (args.model or "").split(",") if (name := word.strip())),
        max_steps=steps,
    )
