"""The sandbox of one process: cells run in it, in the state that belongs to the place where the process stands.

Whoever runs a cell gets a live shell with that state: the one that has it, one woken from a checkpoint, or a new one in which the cells
are run again. Not here: which state belongs to a place (state), how shells are made, kept and woken (door: sandbox).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core.errors import CallStateError, LlmprocError, LogError, ToolError
from llmproc_nb.core.event import CodeRan
from llmproc_nb.core.sandbox import Checkpoint, Look, OutputReader, Ran, SandboxRules, Shell
from llmproc_nb.core.state import family_of, root_of

if TYPE_CHECKING:
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.loop import Run
    from llmproc_nb.core.process import Process
    from llmproc_nb.core.tool import Place

FILE = "./"
STOPPED = ("timed_out", "interrupted")
ABSENT = "the cell is not in the recording, and no code runs while one answers"
DIED = "the sandbox died with this cell; the next one goes on with the state before it"


class Sandbox:
    """The sandbox of one process, as people and tools use it. A session is started, woken or rebuilt when a cell is run."""

    def __init__(self, process: Process) -> None:
        self.process, self.family = process, family_of(process)
        self.family.sandboxes[process.pid] = self
        self._shell: Shell | None = None
        self._state: int | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()

    @property
    def rules(self) -> SandboxRules:
        return self.family.rules

    # what a person does, on any thread but the owner loop's

    def run(self, code: str, *, timeout_s: float | None = None, on_output: OutputReader | None = None) -> Ran:
        """Run a cell where the process stands, in the namespace its model works in. Never raises for what the code does."""
        return self._wait(self.execute(code, timeout_s=timeout_s, on_output=on_output))  # type: ignore[no-any-return]

    def put(self, **variables: Any) -> None:
        """Set variables: frames go through Arrow, everything else must be plain data. Raises ToolError."""
        packed = {name: self.process.machine.drivers.packed(value, name) for name, value in variables.items()}
        self._wait(self._give(packed))

    def get(self, name: str) -> Any:
        """The value of a variable: a frame, or plain data. Raises ToolError."""
        return self.process.machine.drivers.unpacked(self._wait(self._read("get", name)))

    def write_file(self, path: str, data: bytes | str) -> None:
        """Write a file of the working folder, by its path in there. Raises ToolError."""
        self._wait(self._give({FILE + path: data.encode() if isinstance(data, str) else data}))

    def read_file(self, path: str) -> bytes:
        """A file of the working folder, by its path in there. Raises ToolError."""
        return self._wait(self._read("read_file", path))  # type: ignore[no-any-return]

    def look(self) -> Look:
        """What there is where the process stands: variables and files. It starts nothing: without a session there is nothing to see."""
        return self._wait(self._look())  # type: ignore[no-any-return]

    def restart(self) -> None:
        """Begin again with nothing; earlier places of the dialog keep their states."""
        self._wait(self._restart())

    @property
    def cells(self) -> tuple[CodeRan, ...]:
        """The cells whose effects the sandbox has where the process stands, oldest first."""
        return tuple(self.family.chain(self._here()))[::-1]

    @property
    def live(self) -> bool:
        """Whether there is a session now; else the next cell brings one."""
        return self._shell is not None and self._shell.alive

    def to_notebook(self, path: str) -> None:
        """Write the cells with their outputs as a notebook that runs on its own."""
        self.process.machine.drivers.notebook(self.cells, path)

    # on the owner loop

    async def execute(
        self,
        code: str,
        *,
        timeout_s: float | None = None,
        on_output: OutputReader | None = None,
        place: Place | None = None,
    ) -> Ran:
        """Run a cell, at a tool call's place or where the process stands; the event is written before it counts."""
        timeout_s = self.rules.timeout_s if timeout_s is None else timeout_s
        recorded = self._recorded(code) if place is None else None
        if recorded is not None:
            self._write(recorded, code, recorded.after, place, replayed=True)
            return recorded_ran(recorded)
        async with self._turn():
            shell, cell, notes = await self._ready(place)
            running, stopped = asyncio.create_task(shell.run(code, timeout_s=timeout_s, on_output=on_output)), False
            while not running.done():
                try:
                    await asyncio.shield(running)
                except asyncio.CancelledError:  # what the code did until then counts, so it is waited for and written down
                    stopped = True
                    await shell.interrupt()
            ran = running.result()
            ran = msgspec.structs.replace(ran, notes=(*notes, *ran.notes, *((DIED,) if ran.status == "died" else ())))
            await self._ran(self._write(ran, code, cell.seq if cell else None, place), shell)
        if stopped:
            raise asyncio.CancelledError
        return ran

    async def close(self) -> None:
        """End the session of this process; its states stay as far as there are checkpoints or cells to run again."""
        async with self._one:
            await self._drop()

    def _turn(self) -> asyncio.Lock:
        """Held while a cell runs: one at a time in each session."""
        return self._owner()._one

    def _owner(self) -> Sandbox:
        """The sandbox that has the session: where forks share one, that of the first process."""
        return self.family.root.sandbox if self.rules.on_fork == "share" else self

    def _here(self, place: Place | None = None) -> CodeRan | None:
        if self.rules.on_fork == "share":  # there is one session, whoever goes wherever
            self.family.catch_up()
            owner = self._owner()
            return self.family.cells.get(owner._state or 0)
        node = place.node if place is not None else self.process.head
        running = self.process.running
        return self.family.cell_at(self.process, node, call=running.number if place is not None and running is not None else None)

    async def _ready(self, place: Place | None = None) -> tuple[Shell, CodeRan | None, tuple[str, ...]]:
        """The live session with the state that belongs here, the cell that names the state, and what to say of how it was had."""
        if self.process.machine.recorded is not None and self.process.machine.recorded.mode == "replay":
            raise ToolError(ABSENT, place=self.process.name, right="in mode auto, record or live it does")
        owner, cell = self._owner(), self._here(place)
        if owner._keeping is not None:
            await owner._keeping
        notes: tuple[str, ...] = ()
        wanted = cell.seq if cell is not None else None
        if owner._shell is None or not owner._shell.alive or owner._state != wanted:
            shell, notes = await owner._bring(cell)
            await owner._drop()
            owner._shell, owner._state = shell, wanted
        assert owner._shell is not None
        return owner._shell, cell, notes

    async def _bring(self, cell: CodeRan | None) -> tuple[Shell, tuple[str, ...]]:
        """A session with the state after a cell: woken from a checkpoint, or the nearest earlier one with the cells after it run again."""
        todo = list[CodeRan]()
        shell: Shell | None = None
        for one in self.family.chain(cell):
            checkpoint = await self._checkpoint(one)
            if checkpoint is not None:
                with suppress(ToolError):  # a copy may be gone: killed by its own code, or for want of memory
                    shell = await checkpoint.wake()
                    break
                self.family.checkpoints.pop(one.seq, None)
            todo.insert(0, one)
        if shell is None:
            shell = await self._fresh()
        skipped = 0
        for one in todo:
            skipped += not await self._again(shell, one)
        left_out = f", {skipped} of them not: stopped half way then, or given values that are gone" if skipped else ""
        return shell, (f"the state was made again by running {len(todo)} earlier cells{left_out}",) if todo else ()

    async def _checkpoint(self, cell: CodeRan) -> Checkpoint | None:
        """A checkpoint of the state after a cell, made from a session that has just this state where there is none."""
        if self.rules.on_fork == "replay" and cell.pid != self.process.pid:
            return None
        found = self.family.checkpoints.get(cell.seq)
        if found is not None:
            return found
        for other in tuple(self.family.sandboxes.values()):
            if other is self or other._state != cell.seq:
                continue
            if other._keeping is not None:  # it may be making just this one
                await other._keeping
            if cell.seq not in self.family.checkpoints and other._shell is not None and other._shell.alive and not other._one.locked():
                async with other._one:
                    await other._keep(cell, other._shell)
        return self.family.checkpoints.get(cell.seq)

    async def _fresh(self) -> Shell:
        shell = await self.family.door.start()
        if self.rules.variables:
            given = self.process.machine.find_variables(self.rules.variables)
            await shell.put({name: self.process.machine.drivers.packed(value, name) for name, value in given.items()})
        return shell

    async def _again(self, shell: Shell, cell: CodeRan) -> bool:
        """Have the effect of an earlier cell once more; whether it could be had."""
        if cell.put:
            given = self.family.given.get(cell.seq)
            if given is not None:
                await _put(shell, given)
            return given is not None
        if cell.code and cell.status not in STOPPED:
            await shell.run(cell.code, timeout_s=self.rules.timeout_s)
        return cell.status not in STOPPED

    def _write(self, ran: Ran | CodeRan, code: str, after: int | None, place: Place | None, **fields: Any) -> CodeRan:
        told = {name: getattr(ran, name) for name in Ran.__struct_fields__} | {"code": code, "after": after} | fields
        if place is not None and self.process.running is not None:
            return self.process.running.ran_code(node=place.node.id, position=place.position, **told)
        process = self.process
        return process.machine.log.write(CodeRan, pid=process.pid, cell=process.machine.current_cell(), node=process.head.id, **told)

    async def _ran(self, cell: CodeRan, shell: Shell) -> None:
        """Take note of a cell that ran, and have a checkpoint made of what it left, while nobody waits for it."""
        owner = self._owner()
        if cell.status == "died" or not shell.alive:
            await owner._drop()
            return
        owner._state = cell.seq
        if self.rules.checkpoints > 0 and self.rules.on_fork != "share":
            owner._keeping = asyncio.create_task(owner._keep(cell, shell))

    async def _keep(self, cell: CodeRan, shell: Shell) -> None:
        with suppress(LlmprocError):  # without a checkpoint the cells are run again
            checkpoint = await shell.keep()
            if checkpoint is not None:
                await self.family.add(cell, checkpoint)

    async def _give(self, given: Mapping[str, Any]) -> None:
        async with self._turn():
            shell, cell, notes = await self._ready()
            await _put(shell, given)
            names = ", ".join(given)
            event = self._write(
                Ran(status="ok", notes=notes), f"# set from the notebook: {names}", cell.seq if cell else None, None, put=tuple(given)
            )
            self.family.given[event.seq] = given
            await self._ran(event, shell)

    async def _read(self, what: str, name: str) -> Any:
        async with self._turn():
            shell, _, _ = await self._ready()
            return await getattr(shell, what)(name)

    async def _look(self) -> Look:
        if self._here() is None and not self.live:
            return Look()
        async with self._turn():
            shell, _, _ = await self._ready()
            return await shell.look()

    async def _restart(self) -> None:
        async with self._turn():
            await self._owner()._drop()
            event = self._write(Ran(status="ok", notes=("started again with nothing",)), "", None, None)
            self.family.catch_up()
            self._owner()._state = event.seq
            self._owner()._shell = await self._owner()._fresh()

    async def _drop(self) -> None:
        """End the session, if there is one."""
        if self._keeping is not None:
            await self._keeping
        shell, self._shell, self._state, self._keeping = self._shell, None, None, None
        if shell is not None:
            await shell.close()

    def _recorded(self, code: str) -> CodeRan | None:
        """What a recording says of a person's cell. Raises ToolError where it knows nothing of it and must not run it."""
        recorded = self.process.machine.recorded
        return None if recorded is None or recorded.mode == "record" else recorded.code(self.process.lineage, self.process.head.id, code)

    def _wait(self, coroutine: Any) -> Any:
        owner = self.process.machine.owner
        if owner.is_here():
            coroutine.close()
            found = "waiting for a sandbox here would never end"
            raise CallStateError(found, place=self.process.name, right="async code has `await process.sandbox.execute(code)`")
        return owner.wait(coroutine)

    def __repr__(self) -> str:
        cells = len(self.cells)
        return f"<Sandbox of {self.process.name}: {cells} cell{'' if cells == 1 else 's'}, {'live' if self.live else 'no session now'}>"


async def _put(shell: Shell, given: Mapping[str, Any]) -> None:
    variables = {name: value for name, value in given.items() if not name.startswith(FILE)}
    if variables:
        await shell.put(variables)
    for name, data in given.items():
        if name.startswith(FILE):
            await shell.write_file(name.removeprefix(FILE), data)


def recorded_ran(event: CodeRan) -> Ran:
    """What a cell gave, as its event tells it."""
    return Ran(**{name: getattr(event, name) for name in Ran.__struct_fields__})


def warm(process: Process) -> None:
    """Have sandboxes got ready while the model still thinks, unless a recording answers."""
    recorded = process.machine.recorded
    if recorded is None or recorded.mode == "record":
        with suppress(LlmprocError):  # the first cell says what is wrong, to whom it concerns
            process.sandbox.family.door.warm()


def end_sandbox(process: Process) -> None:
    """End the shell of a process that was killed; with the last of its family everything of it."""
    machine = process.machine
    family = machine.families.get(root_of(process).pid)
    if family is None:
        return
    sandbox = family.sandboxes.pop(process.pid, None)
    alive = any(one.alive and root_of(one) is family.root for one in tuple(machine.processes.values()))
    closing = sandbox.close() if alive and sandbox is not None else None if alive else family.close()
    if closing is not None:
        asyncio.run_coroutine_threadsafe(closing, machine.owner.loop)


def note_recorded(run: Run, node: Node, position: int, code: str) -> None:
    """Write down a cell whose answer came from a recording: the state of what follows stands on it."""
    process, recorded = run.process, run.machine.recorded
    before = process.sandbox.family.cell_at(process, node, call=run.number)
    event = recorded.code_at(process.lineage, node.id, position) if recorded is not None else None
    told = {name: getattr(event, name) for name in Ran.__struct_fields__} if event is not None else {}
    with suppress(LogError):  # it is kept for later, and the call ends at its next step
        run.ran_code(node=node.id, position=position, code=code, after=before.seq if before is not None else None, replayed=True, **told)
