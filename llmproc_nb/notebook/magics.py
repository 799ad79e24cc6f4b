"""The magics: what they are called, their help, and the options that `%config AgentMagics` shows.

Not here: how a line is read (flags), what the magics do (agentcell, background, recording, facts).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments
from traitlets import Enum, Integer, TraitError, Unicode, observe, validate

from llmproc_nb.choose import Choice
from llmproc_nb.core.errors import LlmprocError, PersonError
from llmproc_nb.notebook.flags import CellFlags, cell_flags, choice_of, choices, parse
from llmproc_nb.notebook.notebook import Notebook

MODES = ["live", "record", "replay", "auto"]


def _told() -> tuple[str | None, str | None]:
    """The mode and the recording that the environment says. Raises PersonError."""
    mode = os.environ.get("LLMPROC_NB_MODE")
    if mode is not None and mode not in MODES:
        raise PersonError(f"LLMPROC_NB_MODE is {mode!r}", right=f"a mode is one of {', '.join(MODES)}")
    return mode, os.environ.get("LLMPROC_NB_RECORDING")


@magics_class
class AgentMagics(Magics):
    """Agents as processes: `%%agent`, `%agent`, `%ps`, `%log`, `%replay`, `%wait`, `%kill`."""

    program = Unicode("", help="the program of processes to come: a file, or the name of a Program").tag(config=True)
    model = Unicode("", help="the model of processes to come, as in anthropic:claude-sonnet-5-5").tag(config=True)
    max_steps = Integer(0, help="how many requests a call may make; 0: the program's limit").tag(config=True)
    stream = Enum(
        ["auto", "on", "off"],
        "auto",
        help="show answers while they grow; auto: where the front end says which cell runs, and not while replaying",
    ).tag(config=True)
    value_tokens = Integer(10_000, min=1, help="how much of one value a prompt takes, in tokens; of a frame 2,000 at most").tag(config=True)
    log_dir = Unicode("", help="the folder of the logs; empty: .llmproc beside the notebook; 0: no log on disk").tag(config=True)
    mode = Enum(MODES, "live", help="where answers come from").tag(config=True)
    recording = Unicode("", help="the recording that record, replay and auto use, as in recordings/demo.jsonl").tag(config=True)

    def __init__(self, shell: InteractiveShell, notebook: Notebook) -> None:
        self._told = _told()
        super().__init__(shell, config=shell.config)
        self.notebook = notebook
        self.mode, self.recording = self._told[0] or self.mode, self.recording if self._told[1] is None else self._told[1]
        notebook.choice = Choice(program=self.program or None, model=self.model or None, max_steps=self.max_steps or None)

    def read_environment(self) -> None:
        """Take the mode of the environment where it says another one by now; while processes run, theirs stays. Raises PersonError."""
        told, machine = _told(), self.notebook.machine_if_made
        if told == self._told:
            return
        self._told = told
        if machine is not None and machine.processes:
            print(f"processes run in mode {self.mode!r} already, which stays; the environment's counts after a restart of the kernel")
            return
        self.notebook.forget_machine()
        self.mode, self.recording = told[0] or self.mode, self.recording if told[1] is None else told[1]

    @property
    def streams(self) -> bool:
        """Whether a call shows its answer while it grows, or exactly one bundle at the end."""
        told = os.environ.get("LLMPROC_NB_STREAM")
        if told is not None:
            return told not in ("0", "off", "no", "")
        if self.stream != "auto":
            return bool(self.stream == "on")
        return hasattr(self.shell, "kernel") and self.mode != "replay" and self.notebook.cell is not None

    def read_cell_flags(self, line: str) -> CellFlags:
        """The line of a `%%agent` cell. Raises PersonError."""
        return cell_flags(parse(self.agent_cell, line))

    @no_var_expand
    @cell_magic("agent")
    @magic_arguments("%agent")
    @argument("name", nargs="?", default="agent", help="the process; it is started with its first cell (default: agent)")
    @choices
    @argument("-t", "--tools", metavar="A,B", help="functions of this notebook, or built-in tools, that the model may call")
    @argument("--bg", action="store_true", help="go on at once; `%%wait NAME` shows the answer")
    @argument("--dry-run", action="store_true", help="show the exact request, its tokens and its estimated cost; send nothing")
    def agent_cell(self, line: str, cell: str) -> Any:
        """Run a process with the cell's text as its prompt, until it stops by itself.

        The process stays in the notebook under its name; a further cell of that name goes on with it. A cell that is run again branches:
        it starts where it started the first time, the earlier answer stays in the tree. In the prompt, {{expression}} and @name stand
        for values of the notebook: a frame goes as its schema and a sample, a figure as an image, everything else as text, of each value
        at most as many tokens as `%config AgentMagics.value_tokens` says. Nothing else is replaced.
        """
        return self.notebook.agent_cells.run_nested(line, cell)

    @no_var_expand
    @line_magic("agent")
    @magic_arguments("agent")
    @choices
    @argument("--mode", choices=MODES, help="where answers come from: the world, a recording, or both")
    @argument("--recording", metavar="FILE", help="the recording for these modes, as in recordings/demo.jsonl")
    @argument("--stream", choices=["auto", "on", "off"], help="show answers while they grow")
    @argument(
        "--resume", nargs="?", const="", metavar="LOG", help="bring back the processes of an earlier run from its log (default: the newest)"
    )
    @argument("--reset", action="store_true", help="forget what was chosen")
    def agent_line(self, line: str) -> Any:
        """Choose what processes to come are made of, or (without flags) show what is chosen and what runs."""
        from llmproc_nb.notebook import recording

        args = self._chosen_by(line)
        before, modes = self.notebook.choice, (self.mode, self.recording)
        try:
            if args.reset:
                self.notebook.choice = Choice()
            self.notebook.choose(choice_of(args))
            if args.mode or args.recording:
                recording.set_mode(self.notebook, args.mode or self.mode, args.recording or self.recording)
            resumed = recording.resume(self.notebook, args.resume) if args.resume is not None else None
        except LlmprocError:  # all of the line, or nothing
            self.notebook.choice = before
            with suppress(LlmprocError):
                recording.set_mode(self.notebook, *modes)
            raise
        self.stream = args.stream or self.stream
        return self.notebook.state() if args.resume is None else resumed

    def _chosen_by(self, line: str) -> Any:
        """The line of `%agent`, read. Raises PersonError, which says where a name belongs."""
        try:
            return parse(self.agent_line, line)
        except PersonError as error:
            _, unknown, words = error.found.partition("unrecognized arguments: ")
            if not unknown or words.startswith("-"):
                raise
            right = f"`%agent` chooses for processes to come; a cell that begins with `%%agent {words.split()[0]}` runs a process"
            raise PersonError(error.found, place=error.place, right=right, step=error.step) from None

    @observe("program", "model", "max_steps")
    def _chosen(self, change: Any) -> None:
        """`%config AgentMagics.model = …` chooses as `%agent --model` does."""
        if "notebook" in self.__dict__:
            self.notebook.choose(Choice(**{change["name"]: change["new"]}) if change["new"] else Choice())

    @validate("mode", "recording")
    def _mode_holds(self, proposal: Any) -> Any:
        """A mode holds for a whole run: it cannot change once a process has started."""
        machine = self.notebook.machine_if_made if "notebook" in self.__dict__ else None
        from llmproc_nb.notebook import recording

        name, opened = proposal["trait"].name, self.notebook.opened_in if machine is not None else {}
        if machine is not None and machine.processes and proposal["value"] != opened.get(name):
            raise TraitError(recording.mode_is_taken(opened.get("mode", ""), name, proposal["value"]))
        return proposal["value"]

    @line_magic("ps")
    @magic_arguments("ps")
    @argument("names", nargs="*", help="only these processes")
    def ps_line(self, line: str) -> Any:
        """The processes of this notebook: state, program, model, length, tokens, cost; kept up to date while one runs.

        `.frame()` gives a DataFrame.
        """
        from llmproc_nb.notebook.psview import ps_view

        args = parse(self.ps_line, line)
        return ps_view(self.notebook.machine_if_made, [self.notebook.process(name).pid for name in args.names])

    @line_magic("log")
    @magic_arguments("log")
    @argument("frame", nargs="?", default="calls", help="events, messages, calls, tools, processes, fds, code or seen (default: calls)")
    @argument("step", nargs="?", help="with seen: the request whose messages to show, -1 is the last (default: list them)")
    @argument("-n", "--name", metavar="NAME", help="only this process")
    @argument("-f", "--file", metavar="LOG", help="another log than this kernel's: a file, or a .llmproc folder")
    def log_line(self, line: str) -> Any:
        """What happened, as a DataFrame: events, messages, calls, tools or processes, joinable by pid, call, node and cell.

        `%log seen 7` shows the exact messages that went out with the seventh request.
        """
        from llmproc_nb.notebook import recording

        args = parse(self.log_line, line)
        step = recording.step_of(args.frame, args.step)
        return recording.log_frame(self.notebook, args.frame, args.name, args.file, step)

    @line_magic("replay")
    @magic_arguments("replay")
    @argument("log", nargs="?", help="a log or a recording (default: this kernel's log so far)")
    def replay_line(self, line: str) -> Any:
        """Run everything in a log again with every answer taken from the log, and compare node by node. Asks no model, runs no tool."""
        from llmproc_nb.notebook import recording

        args = parse(self.replay_line, line)
        return recording.replay(self.notebook, args.log)

    @line_magic("wait")
    @magic_arguments("wait")
    @argument("names", nargs="*", help="whose background calls to wait for (default: all)")
    def wait_line(self, line: str) -> None:
        """Wait for calls that were started with --bg, and show their answers. An interrupt stops them."""
        from IPython.display import display

        results = self.notebook.background.wait(parse(self.wait_line, line).names)
        for result in results:
            if self.streams:  # its own cell shows it already
                print(f"{result.process} is done ({result.stop_reason}); its answer is in its cell")
            else:
                display(result)
        if results:
            self.notebook.be_value(results[0] if len(results) == 1 else results)
        else:
            print("nothing to wait for")

    @line_magic("kill")
    @magic_arguments("kill")
    @argument("names", nargs="+", help="the processes, by name or pid")
    def kill_line(self, line: str) -> None:
        """End processes: a running call is stopped, no further one is taken. Their dialogs stay in the tree and in the log."""
        for process in [self.notebook.process(name) for name in parse(self.kill_line, line).names]:
            process.kill()
            print(f"{process.name} (pid {process.pid}) ended")
