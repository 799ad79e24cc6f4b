"""The Python API of a script or kernel: programs and processes that know where they run.

Here: the default machine, made with the first process, and the constructors people know from LLMProc. The classes themselves are core's.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Self

import msgspec

from llmproc_nb.core import machine as core_machine
from llmproc_nb.core import process as core_process
from llmproc_nb.core import program as core_program
from llmproc_nb.core.doors import Recorded
from llmproc_nb.drivers.table import LateDrivers, load

_lock = threading.RLock()
_default: list[Machine] = []
_makers: list[Callable[[], Machine]] = []


class Program(core_program.Program, frozen=True, kw_only=True, omit_defaults=True):
    """What a process is made from. See `core.program.Program` for the fields."""

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """The program in a TOML or YAML file of any LLMProc generation; `notes` says what was unknown. Raises ProgramError."""
        return cls._of(load("llmproc_nb.drivers.files:load")(path))

    from_toml = from_file
    from_yaml = from_file

    @classmethod
    def from_dict(cls, data: dict[str, Any], base_dir: str | os.PathLike[str] | None = None) -> Self:
        """The program in a mapping with the keys of a file; paths are relative to `base_dir` (default: the working folder)."""
        return cls._of(load("llmproc_nb.drivers.files:from_mapping")(data, base_dir=Path(base_dir or Path.cwd())))

    @classmethod
    def _of(cls, program: core_program.Program) -> Self:
        return cls(**msgspec.structs.asdict(program))

    def start(self, name: str | None = None, *, tools: Any = (), machine: core_machine.Machine | None = None) -> Process:
        """A process of this program. `await program.start()` gives the same process, as LLMProc's documents write it."""
        return (machine or default_machine()).start(self, name=name, tools=tools)  # type: ignore[return-value]

    start_sync = start


class Process(core_process.Process):
    """A running program. Made by `Program.start`, `Process.from_toml` or an agent cell."""

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, name: str | None = None, tools: Any = ()) -> Process:
        """A process of the program in a TOML or YAML file."""
        return Program.from_file(path).start(name, tools=tools)

    from_toml = from_file
    from_yaml = from_file

    def __await__(self) -> Generator[Any, None, Process]:
        """Gives the process itself, so that `await program.start()` reads as in LLMProc's documents."""
        return self
        yield  # makes it a generator, which `await` needs


class Machine(core_machine.Machine):
    process_type = Process


def new_machine(*, log: str | os.PathLike[str] | None = None, recorded: Recorded | None = None, **fields: Any) -> Machine:
    """A machine of its own. `log` is the file its events go to (default: none)."""
    store = load("llmproc_nb.drivers.jsonl:JsonlStore")(Path(log)) if log is not None else None
    return Machine(drivers_for(store), store=store, recorded=recorded, **fields)


def drivers_for(store: Any) -> LateDrivers:
    """The drivers that ship; long texts lie beside the log, where there is one."""
    return LateDrivers(lambda: os.environ, spool=getattr(store, "blobs", None))


def default_machine() -> Machine:
    """The machine of this script or kernel, made with the first use: `.env` is read, the log is opened in `.llmproc/`.

    `LLMPROC_NB_LOG` names the folder in which `.llmproc` is made (default: the working folder), or is `0` for no log.
    """
    with _lock:
        if not _default:
            made = _makers[-1]() if _makers else _make_default()
            if not _default:
                _default.append(made)
        return _default[0]


def default_machine_if_made() -> Machine | None:
    return _default[0] if _default else None


def make_default_with(maker: Callable[[], Machine]) -> Callable[[], None]:
    """Have the default machine made by a notebook, so that its processes and Python's are the same ones; gives what takes it back."""
    _makers.append(maker)
    return lambda: _makers.remove(maker)


def set_default_machine(machine: Machine | None) -> None:
    """Use this machine for processes that name none; None: make a new one with the next use."""
    with _lock:
        _default[:] = [machine] if machine is not None else []


def _make_default() -> Machine:
    read_env(Path.cwd())
    where = os.environ.get("LLMPROC_NB_LOG", ".")
    if where == "0":
        return new_machine()
    script = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] else None
    store, opened = load("llmproc_nb.drivers.jsonl:open_store")(Path(where), script, time.time_ns())
    return Machine(drivers_for(store), store=store, opened=opened)


def read_env(folder: Path) -> None:
    """Take the variables of the nearest `.env` file that are not set yet."""
    for name, value in load("llmproc_nb.drivers.enrich:load_env")(folder, os.environ).items():
        os.environ.setdefault(name, value)
