"""Where a notebook's answers come from and where its log goes: modes, recordings, resuming, running again.

Here: what `%agent --mode`, `--resume`, `%log` and `%replay` do. Not here: the format (drivers.jsonl) and how a recording answers
(drivers.replay).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmproc_nb import api
from llmproc_nb.core.doors import Recorded
from llmproc_nb.core.errors import LlmprocError, LogError, PersonError, ProgramError, ToolDeclarationError, meant
from llmproc_nb.core.event import Called
from llmproc_nb.core.log import Store
from llmproc_nb.core.visible import one_line, visible
from llmproc_nb.drivers import jsonl
from llmproc_nb.drivers.table import load

if TYPE_CHECKING:
    from llmproc_nb.notebook.notebook import Notebook

LAST_WORDS_CHARS = 80
FRAMES = ("calls", "messages", "tools", "processes", "fds", "code", "events")


def open_machine(notebook: Notebook) -> api.Machine:
    """The machine of a notebook in its mode: `.env` read, log and recording opened."""
    api.read_env(Path.cwd())
    store, opened = _log(notebook)
    mode, path = notebook.settings.mode, _recording(notebook)
    recorded: Recorded | None = None
    if mode in ("replay", "auto") and path is not None:
        if path.exists():
            recorded = load("llmproc_nb.drivers.replay:Recording")(load("llmproc_nb.drivers.logfile:LogFile")(path), mode, place=path.name)
        elif mode == "replay":
            raise PersonError(f"there is no recording {path}", right="`%agent --mode record` makes one, `auto` makes what is missing")
    stores = [store] if store is not None else []
    if mode in ("record", "auto") and path is not None:
        _check_free(path, mode)
        if mode == "record" and path.exists() and path.stat().st_size:
            _say_what_stays(path, notebook.settings.recording)
        stores.append(jsonl.RecordingStore(path, mode))
    kept: Store | None = jsonl.Tee(*stores) if len(stores) > 1 else stores[0] if stores else None
    return api.Machine(api.drivers_for(store), store=kept, recorded=recorded, opened=opened)


def _check_free(path: Path, mode: str) -> None:
    """Say at once that nothing can be written here, most of all because another kernel does; in mode `auto` it may never be needed."""
    if not path.exists():
        return
    store = jsonl.JsonlStore(path)
    try:
        store.flush()
    except LogError as error:
        found = f"{error.found}".replace("the log", "the recording")
        if mode == "record":
            step = "Choose another name with --recording, or shut that kernel down."
            raise PersonError(found, place=str(path), right="one kernel at a time records into a file", step=step) from None
        print(f"{path}: {found}; what it has is replayed, an answer that is not in it cannot be added")
    finally:
        store.close()


def _say_what_stays(path: Path, name: str) -> None:
    """Say that nothing is lost by recording again, and how the old recording is found."""
    place = jsonl.place_beside(path)
    found_by = f"--recording {jsonl.name_beside(name, place)}"
    print(f"{path.name} is there already and is kept as {place.name} ({found_by}) once there is a new answer")


def _log(notebook: Notebook) -> tuple[Store | None, dict[str, Any]]:
    if _log_place(notebook) == "0":
        return None, {}
    path = notebook.path
    return jsonl.open_store(_log_folder(notebook), path.stem if path is not None else None, time.time_ns())


def _log_place(notebook: Notebook) -> str:
    """What was chosen: a folder, `0` for no log, or nothing."""
    return os.environ.get("LLMPROC_NB_LOG") or str(notebook.settings.log_dir)


def _log_folder(notebook: Notebook) -> Path:
    """The folder in which `.llmproc` lies: the one that was chosen, or the notebook's own; there it was too where no log is kept now."""
    where, path = _log_place(notebook), notebook.path
    return Path(where) if where not in ("", "0") else path.parent if path is not None and path.parent.is_dir() else Path.cwd()


def _recording(notebook: Notebook) -> Path | None:
    mode, name = notebook.settings.mode, notebook.settings.recording
    if mode == "live":
        return None
    if not name:
        raise PersonError(
            f"mode {mode!r} needs a recording", right="`--recording NAME` names one: recordings/NAME.jsonl beside the notebook"
        )
    return jsonl.recording_path(Path.cwd(), name)


def set_mode(notebook: Notebook, mode: str, recording: str) -> None:
    """Choose the mode. It holds for a whole run, so it is chosen before the first process starts."""
    settings, machine = notebook.settings, notebook.machine_if_made
    if (settings.mode, settings.recording) == (mode, recording):
        return
    if machine is not None and machine.processes:
        flags = f"--mode {mode}" + (f" --recording {recording}" if recording else "")
        raise PersonError(
            f"processes run in mode {settings.mode!r} already",
            right="a mode is chosen before the first one starts",
            step=f"Restart the kernel and run `%agent {flags}` before the first %%agent cell.",
        )
    before = settings.mode, settings.recording
    settings.mode, settings.recording = mode, recording
    notebook.forget_machine()
    try:
        notebook.machine  # noqa: B018 - a recording that is not there is an error now
    except LlmprocError:
        settings.mode, settings.recording = before
        raise


def mode_is_taken(mode: str, name: str, value: str) -> str:
    """What to say to somebody who sets an option of the mode while processes run."""
    return (
        f"processes run in mode {mode!r} already; {name} is chosen before the first one starts. "
        f"Restart the kernel and run `%agent --{name} {value}` before the first %%agent cell."
    )


def resume(notebook: Notebook, log: str) -> Any:
    """Bring back the processes of an earlier run; gives a table of what was open in each. Those that are back already stay as they are."""
    from llmproc_nb.notebook.completion import shown_names
    from llmproc_nb.notebook.offer import tool_names

    logfile = load("llmproc_nb.drivers.logfile:LogFile")(log) if log else _newest_log(notebook)
    before = notebook.resumed.get(logfile.path, ())
    if any(one.process is not None and one.process.alive for one in before):
        print(f"{logfile.path.name} was resumed here already: its processes go on as they are; `%kill` ends them, then it can be again")
        return _resumed_table(before, empty="")
    namespace = shown_names(notebook.ip)
    scripts = {name: namespace[name] for name in tool_names(namespace)}
    functions = [tool for one in scripts.values() if (tool := _as_tool(one)) is not None]
    found = load("llmproc_nb.drivers.rebuild:rebuild")(logfile, notebook.machine, tools=functions, scripts=scripts)
    notebook.resumed[logfile.path] = found
    for one in found:
        if one.process is not None:
            notebook.ip.user_ns[one.name] = one.process
    if found:
        print(f"from {visible(logfile.path.name)}")
    for one in found:
        if one.missing_tools and all(name.isidentifier() for name in (one.name, *one.missing_tools)):
            names = ", ".join(one.missing_tools)
            print(f"{one.name}: define {names} in the notebook, then run `{one.name}.add_tools([{names}])`")
    return _resumed_table(found, empty=f"no process was alive when {logfile.path.name} ended")


def _resumed_table(found: Iterable[Any], empty: str) -> Any:
    """Where each process stands, and what was open in it; nothing is said of what was open in none."""
    from llmproc_nb.notebook.facts import Table

    facts = [
        {
            "process": one.name,
            "messages": one.process.head.depth if one.process is not None else None,
            "last words": one_line(one.process.get_last_message(), LAST_WORDS_CHARS) if one.process is not None else None,
            "tools that had finished": ", ".join(one.finished),
            "tools of unknown effect": ", ".join(one.unknown),
            "tools that never started": ", ".join(one.never_started),
            "functions to supply": ", ".join(one.missing_tools),
            "linked programs not found": ", ".join(one.missing_links),
            "not answered, ask again": one.unanswered,
            "fault": one.fault,
        }
        for one in found
    ]
    always = ("process", "messages", "last words")
    columns = [name for name in facts[0] if name in always or any(row[name] for row in facts)] if facts else []
    return Table(columns, ([None if row[name] == "" else row[name] for name in columns] for row in facts), empty=empty)


def _as_tool(function: Any) -> Any:
    """A function of the notebook as a tool; None where it cannot be one."""
    try:
        return load("llmproc_nb.drivers.schema:tool")(function)
    except ToolDeclarationError:
        return None


def _newest_log(notebook: Notebook) -> Any:
    """The newest log of this notebook that is not the one being written."""
    store = notebook.machine.log.store
    own = {getattr(one, "path", None) for one in (store, *getattr(store, "stores", ()))}
    path, folder = notebook.path, _log_folder(notebook) / jsonl.FOLDER
    for file in load("llmproc_nb.drivers.logfile:list_logs")(folder, path.name if path is not None else None):
        logfile = load("llmproc_nb.drivers.logfile:LogFile")(file)
        if file not in own and any(isinstance(event, Called) for event in logfile.events):  # one in which something was said
            return logfile
    raise PersonError("there is no log of an earlier run", place=str(folder), right="`%agent --resume FILE` takes any log")


def step_of(frame: str, word: str | None) -> int | None:
    """The request that is meant by the word after a frame's name. Raises PersonError."""
    try:
        return int(word) if word is not None else None
    except ValueError:
        found = f"{word!r} is not the number of a request"
        raise PersonError(found, place="%log", right=f"`%log {frame} -n {word}` is only of process {word}", step="See `%log?`.") from None


def log_frame(notebook: Notebook, frame: str, name: str | None, file: str | None, step: int | None = None) -> Any:
    """One of the frames of this kernel's log, or of another one."""
    from llmproc_nb.notebook.frames import frames, read_log

    if frame == "seen":
        from llmproc_nb.notebook.seen import seen

        return seen(file or notebook.machine, step, process=name)
    if step is not None:
        raise PersonError(f"{frame} has no steps", place="%log", right="`%log seen 7` shows what went out with request 7")
    if frame not in FRAMES:
        there = (*FRAMES, "seen")
        raise PersonError(f"there is no frame {frame!r}", place="%log", right=meant(frame, there, f"there are {', '.join(there)}"))
    made = read_log(file).frames() if file else frames(notebook.machine.log.events)
    found = getattr(made, frame)
    if not name:
        return found
    names = tuple(dict.fromkeys(made.processes["process"]))
    if name not in names:
        right = meant(name, names, f"there are {', '.join(names)}")
        raise PersonError(f"there is no process {name!r} in the log", place="%log", right=right)
    return found[found["process"] == name].reset_index(drop=True)


def replay(notebook: Notebook, file: str | None) -> Any:
    """Run a log again from its own answers and compare; the log of this kernel where none is named."""
    reexecute = load("llmproc_nb.drivers.replay:reexecute")
    if file:
        return reexecute(load("llmproc_nb.drivers.logfile:LogFile")(file))
    machine = notebook.machine_if_made
    if machine is None:
        raise ProgramError("nothing has happened yet", place="%replay", right="run an agent cell, or name a log")
    return reexecute(list(machine.log.events))
