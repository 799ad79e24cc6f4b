"""A sandbox door for tests of what lies above it: shells are dicts in this process, checkpoints copies of them. It confines nothing."""

from __future__ import annotations

import asyncio
import copy
import traceback
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.program import Program
from llmproc_nb.core.sandbox import Look, Output, OutputReader, Ran, SandboxDoor, Variable
from llmproc_nb.drivers.table import LateDrivers


class PlainShell:
    """Runs cells by exec. `die` in a cell ends it, `hang` waits to be interrupted."""

    def __init__(self, door: PlainDoor, space: dict[str, Any] | None = None, files: dict[str, bytes] | None = None) -> None:
        self.door, self.space, self.files = door, dict(space or {}), dict(files or {})
        self.alive, self._stop = True, asyncio.Event()
        door.shells.append(self)

    async def run(self, code: str, *, timeout_s: float, on_output: OutputReader | None = None) -> Ran:
        self.door.ran.append(code)
        await asyncio.sleep(0)
        if code == "die":
            self.alive = False
            return Ran(status="died", notes=("The session ended with this cell.",))
        if code == "hang":
            self._stop.clear()
            await self._stop.wait()
            return Ran(status="interrupted")
        said, outputs = StringIO(), list[Output]()
        try:
            with redirect_stdout(said):
                exec(code, self.space)
        except Exception as error:
            trace = tuple(traceback.format_exception_only(error))
            outputs.append(Output(kind="error", name=type(error).__name__, text=str(error), trace=trace))
        if said.getvalue():
            outputs.insert(0, Output(kind="stream", name="stdout", text=said.getvalue()))
        for output in outputs:
            if on_output is not None:
                on_output(output)
        return Ran(status="error" if outputs and outputs[-1].kind == "error" else "ok", outputs=tuple(outputs))

    async def interrupt(self) -> None:
        self._stop.set()

    async def keep(self) -> PlainCheckpoint | None:
        await asyncio.sleep(0)
        return PlainCheckpoint(self) if self.door.keeps else None

    async def put(self, variables: Mapping[str, Any]) -> None:
        self.space.update(variables)

    async def get(self, name: str) -> Any:
        if name not in self.space:
            raise ToolError(f"there is no variable {name!r}")
        return self.space[name]

    async def look(self) -> Look:
        names = [name for name in self.space if not name.startswith("_")]
        return Look(variables=tuple(Variable(name=name, kind=type(self.space[name]).__name__) for name in names))

    async def write_file(self, path: str, data: bytes) -> None:
        self.files[path] = data

    async def read_file(self, path: str) -> bytes:
        return self.files[path]

    async def close(self) -> None:
        self.alive = False


class PlainCheckpoint:
    memory_mb = 1.0

    def __init__(self, shell: PlainShell) -> None:
        self.door, self.files = shell.door, dict(shell.files)
        self.space = copy.deepcopy({name: value for name, value in shell.space.items() if name != "__builtins__"})
        self.closed = False
        shell.door.kept.append(self)

    async def wake(self, *, owner: str = "") -> PlainShell:
        if self.closed:
            raise ToolError("the copy is gone")
        self.door.woken += 1
        return PlainShell(self.door, copy.deepcopy(self.space), self.files)

    async def close(self) -> None:
        self.closed = True


class PlainDoor:
    """`keeps`: whether there are checkpoints. `ran` is every cell that ran, `woken` how often one was woken."""

    def __init__(self, *, keeps: bool = True) -> None:
        self.keeps, self.woken, self.starts, self.closed = keeps, 0, 0, False
        self.shells: list[PlainShell] = []
        self.kept: list[PlainCheckpoint] = []
        self.ran: list[str] = []

    def warm(self) -> None:
        pass

    async def start(self) -> PlainShell:
        self.starts += 1
        return PlainShell(self)

    async def close(self) -> None:
        self.closed = True


class PlainDrivers(LateDrivers):
    """The drivers that ship, but for sandboxes: each family gets a plain door; `doors` are those that were made."""

    def __init__(self, *, keeps: bool = True) -> None:
        super().__init__(dict)
        self.keeps, self.doors = keeps, list[PlainDoor]()

    def sandbox(self, program: Program) -> SandboxDoor:
        self.doors.append(PlainDoor(keeps=self.keeps))
        return self.doors[-1]
