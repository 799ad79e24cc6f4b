"""The IPython shell that runs a model's cells: its outputs go to an outlet, nothing of the host's configuration comes in.

Here: how IPython is set up. Not here: what a cell gives in the end (shell), copies of the whole process (frozen).
"""

from __future__ import annotations

import builtins
import contextlib
import os
import subprocess
import sys
import warnings
from typing import Any, NoReturn

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError, UsageError
from IPython.core.formatters import BaseFormatter
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, magics_class
from traitlets import Any as AnyTrait
from traitlets import Bool, Type, Unicode
from traitlets.config import Config

from llmproc_nb.inside import frame, hints, outlet
from llmproc_nb.inside.bundle import clean_bundle, clean_text

HERE = os.path.dirname(os.path.abspath(__file__))
LAST_FRAMES = 3
INSTALLERS = ("pip", "pip3", "uv", "conda", "mamba", "micromamba")
PROGRAMS = ("bash", "sh", "perl", "ruby", "python3", "python")
NO_INPUT = "input() cannot ask anybody here: no person is at this session. Set the value in the code instead."
NO_EXIT = "This session goes on: exit, quit and sys.exit do not end it."


class Values(DisplayHook):
    """The value of a cell, as an output."""

    def write_output_prompt(self) -> None:
        """No prompt."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        """Show the value's representations."""
        self.shell.show("execute_result", format_dict)

    def _over(self) -> None:
        self._is_active = False

    finish_displayhook = _over


class Publisher(DisplayPublisher):
    """What is displayed, as outputs."""

    def publish(
        self, data: Any, metadata: Any = None, source: Any = None, *, transient: Any = None, update: bool = False, **_: Any
    ) -> None:
        """Show a bundle, or put it in the place of the one with its display id."""
        if not isinstance(data, dict):
            raise TypeError(f"data must be a dict, got: {data!r}")
        name = transient.get("display_id") if isinstance(transient, dict) else None
        self.shell.show("display_data", data, display_id=str(name) if name else "", update=update)

    def clear_output(self, wait: bool = False) -> None:
        """Clear what the cell has shown so far; with `wait` when the next output comes."""
        self.shell.show_clear(bool(wait))


class FrameFormatter(BaseFormatter):
    """Adds to a pandas frame or series the representation for models."""

    format_type = Unicode(frame.MIME)
    print_method = AnyTrait("_no_object_has_this_")
    _return_type = dict


class Interpreter(InteractiveShell):
    """An IPython shell whose outputs are frames of an outlet."""

    displayhook_class = Type(Values)
    display_pub_class = Type(Publisher)
    outlet: AnyTrait = AnyTrait(None, allow_none=True)
    network = Bool(False)
    """Whether there are hosts that may be connected to."""

    def init_ipython_dir(self, ipython_dir: Any) -> None:
        """None: nothing of the host's is read."""

    def init_profile_dir(self, profile_dir: Any) -> None:
        """None: nothing of the host's is read."""

    def init_virtualenv(self) -> None:
        """The interpreter's own packages are all there is."""

    def show(self, kind: str, data: Any, *, display_id: str = "", update: bool = False) -> None:
        """Send a bundle as an output."""
        if self.outlet is not None:
            import json

            body = json.dumps(clean_bundle(data)).encode()
            self.outlet.show({"op": "output", "kind": kind, "display_id": clean_text(display_id)[:200], "update": update}, body)

    def show_clear(self, wait: bool) -> None:
        """Send that what was shown is cleared."""
        if self.outlet is not None:
            self.outlet.show({"op": "clear", "wait": wait})

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        if self.outlet is None:
            return
        import json

        trace = short([clean_text(str(line)) for line in stb])
        if isinstance(evalue, SystemExit):
            trace = [f"SystemExit: {clean_text(str(evalue))}", NO_EXIT]
        with contextlib.suppress(Exception):  # code of the cell makes the error
            if words := hints.hint(evalue, network=self.network):
                trace.append(words)
        try:
            text = clean_text(str(evalue))
        except Exception:  # code of the cell makes this text
            text = "[an exception whose text cannot be had]"
        name = clean_text(str(getattr(etype, "__name__", etype)))
        self.outlet.show({"op": "output", "kind": "error"}, json.dumps({"name": name, "text": text, "trace": trace}).encode())

    def show_usage_error(self, exc: Any) -> None:
        """Show the words of a magic that was used wrongly."""
        self._showtraceback(type(exc), exc, [f"UsageError: {exc}"])

    @contextlib.contextmanager
    def _tee(self, channel: Any) -> Any:  # IPython would keep all text of all cells
        yield

    def ask_exit(self) -> None:
        """`exit` and `quit` are answered, not done."""
        print(NO_EXIT)

    def system(self, cmd: str) -> None:
        """Run a shell command; its output goes where all text goes."""
        outlet.flush()
        command = self.var_expand(cmd, depth=1)
        code = subprocess.call(command, shell=True, stdin=subprocess.DEVNULL, executable="/bin/sh")
        self.user_ns["_exit_code"] = code
        if code and command.split()[0] in INSTALLERS:
            print(hints.PACKAGES, file=sys.stderr)

    def enable_gui(self, gui: Any = None) -> None:
        """There is no screen."""


def _program(name: str) -> Any:
    def run(self: Any, line: str, cell: str) -> None:
        self.script(f"{name} {line}" if not line.lstrip().startswith("--") else _after_options(line, name), cell)

    run.__name__ = name
    run.__doc__ = f"Run the cell by {name}."
    return cell_magic(run)


def _after_options(line: str, name: str) -> str:
    words = line.split()
    at = 0
    while at < len(words) and words[at].startswith("--"):
        at += 2 if words[at] in ("--out", "--err") else 1
    return " ".join([*words[:at], name, *words[at:]])


@magics_class
class Programs(Magics):
    """%%bash and its like without the thread that IPython's own would start: a thread would be in no copy of the session."""

    @cell_magic
    def script(self, line: str, cell: str) -> None:
        """Run the cell by a program, given with its arguments."""
        import shlex

        words = shlex.split(line)
        options = {"--out": "", "--err": "", "--no-raise-error": "", "--proc": "", "--bg": ""}
        keep = True
        while words and words[0] in options:
            name = words.pop(0)
            if name in ("--bg", "--proc"):
                raise UsageError(f"{name} is not there in this session; use subprocess.Popen")
            if name == "--no-raise-error":
                keep = False
            elif words:
                options[name] = words.pop(0)
        if not words:
            raise UsageError("%%script needs the program that shall run the cell")
        outlet.flush()
        pipes = {way: subprocess.PIPE for way, name in (("stdout", options["--out"]), ("stderr", options["--err"])) if name}
        done = subprocess.run(words, input=cell.encode(), check=False, **pipes)  # type: ignore[call-overload]
        for name, data in ((options["--out"], done.stdout), (options["--err"], done.stderr)):
            if name:
                self.shell.user_ns[name] = data.decode("utf-8", "replace")
        if done.returncode and keep:
            raise subprocess.CalledProcessError(done.returncode, words)

    bash, sh, perl, ruby, python3, python = (_program(name) for name in PROGRAMS)


def no_install(line: str) -> NoReturn:
    """What stands in for %pip and its like: what is imported here is shown read-only."""
    raise UsageError(hints.PACKAGES)


def short(trace: list[str]) -> list[str]:
    """The frames of the cells, and the last few of what they called; nothing of our own."""
    trace = [part for part in trace if not part.startswith(f"File {HERE}")]
    others = [at for at, part in enumerate(trace) if part.startswith("File ")]
    gone = set(others[1:-LAST_FRAMES])
    kept = [part for at, part in enumerate(trace) if at not in gone]
    if gone:
        kept.insert(others[0] + 1, f"[{len(gone)} frames of libraries left out]")
    return kept


def no_input(*_: Any, **__: Any) -> NoReturn:
    """What stands in for input() and getpass()."""
    raise StdinNotImplementedError(NO_INPUT)


def make() -> Interpreter:
    """The one interpreter of this process."""
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.xmode = "Context"
    config.InteractiveShell.enable_html_pager = False
    made: Interpreter = Interpreter.instance(config=config)
    formatter = FrameFormatter(parent=made.display_formatter)
    formatter.for_type_by_name("pandas.core.frame", "DataFrame", frame.frame_view)
    formatter.for_type_by_name("pandas", "DataFrame", frame.frame_view)
    formatter.for_type_by_name("pandas.core.series", "Series", frame.series_view)
    formatter.for_type_by_name("pandas", "Series", frame.series_view)
    made.display_formatter.formatters[frame.MIME] = formatter
    made.display_formatter.active_types = [*made.display_formatter.active_types, frame.MIME]
    if hasattr(made.magics_manager, "load_all_lazy_magics"):  # one that is loaded later would replace ours
        made.magics_manager.load_all_lazy_magics()
    for name in [name for name, magic in made.magics_manager.magics["cell"].items() if "script" in str(getattr(magic, "__module__", ""))]:
        del made.magics_manager.magics["cell"][name]
    made.register_magics(Programs)
    for name in INSTALLERS:
        made.register_magic_function(no_install, "line", name)
    made.db = {}  # %cd and the like keep notes there, and there is no profile to keep them in
    builtins.input = no_input
    sys.modules["getpass"] = __import__("getpass")
    sys.modules["getpass"].getpass = no_input  # type: ignore[attr-defined]
    warnings.filterwarnings("ignore", message="To exit: use")
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", module="llmproc_nb.inside")  # threads of libraries end first
    if "matplotlib" in sys.modules:
        with contextlib.suppress(ImportError):
            made.enable_matplotlib("inline")
    return made
