"""The sandbox of one process: cells run in it, in the state that belongs to the place where the process stands.

Here: what people and tools do with it, and what the log is told. Not here: which state belongs to a place (state), how a shell that has
it is had (waking), how shells are made (door: sandbox).
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core.call import Interrupted
from llmproc_nb.core.errors import CallStateError, LlmprocError, LogError, ToolError
from llmproc_nb.core.event import CodeRan
from llmproc_nb.core.field import check_text
from llmproc_nb.core.sandbox import Look, Output, OutputReader, Ran
from llmproc_nb.core.state import root_of
from llmproc_nb.core.waking import BYTES, FILE, Waking, put, value_of

if TYPE_CHECKING:
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.loop import Run
    from llmproc_nb.core.process import Process
    from llmproc_nb.core.tool import Place

MOST_LOGGED, MOST_TAKEN = 1 << 20, 1 << 24
"""Bytes of what came from outside, and of one thing that was taken out, that go into the log."""
DIED = "The next cell goes on with the state before it."


class Sandbox(Waking):
    """The sandbox of one process, as people and tools use it. A session is started, woken or rebuilt when a cell is run."""

    # what a person does, on any thread but the owner loop's

    def run(self, code: str, *, timeout_s: float | None = None, on_output: OutputReader | None = None) -> Ran:
        """Run a cell where the process stands, in the namespace its model works in. Never raises for what the code does."""
        check_text("sandbox.run", "code", code)
        return self._wait(self.execute(code, timeout_s=timeout_s, on_output=on_output))  # type: ignore[no-any-return]

    async def run_async(self, code: str, *, timeout_s: float | None = None, on_output: OutputReader | None = None) -> Ran:
        """The same for async code, in any event loop."""
        check_text("sandbox.run_async", "code", code)
        work = self.execute(code, timeout_s=timeout_s, on_output=on_output)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.process.machine.owner.loop))

    def put(self, **variables: Any) -> None:
        """Set variables: frames go through Arrow, everything else must be plain data. Raises ToolError."""
        packed = {name: self.process.machine.drivers.packed(value, name) for name, value in variables.items()}
        self._wait(self._give(packed, _digest(packed)))

    def get(self, name: str) -> Any:
        """The value of a variable: a frame, or plain data. Raises ToolError."""
        check_text("sandbox.get", "name", name)
        return self.process.machine.drivers.unpacked(self._wait(self._take(name)))

    def write_file(self, path: str, data: bytes | str) -> None:
        """Write a file of the working folder, by its path in there. Raises ToolError."""
        check_text("sandbox.write_file", "path", path)
        if not isinstance(data, bytes):
            check_text("sandbox.write_file", "data", data, "bytes or a text are needed")
        given = {FILE + path: data.encode() if isinstance(data, str) else data}
        self._wait(self._give(given, _digest(given)))

    def read_file(self, path: str) -> bytes:
        """A file of the working folder, by its path in there. Raises ToolError."""
        check_text("sandbox.read_file", "path", path)
        return self._wait(self._take(FILE + path))  # type: ignore[no-any-return]

    def look(self) -> Look:
        """What there is where the process stands: variables and files. It starts nothing: without a session there is nothing to see."""
        return self._wait(self._look())  # type: ignore[no-any-return]

    def names(self, within_s: float) -> tuple[str, ...]:
        """The variables where the process stands, if they can be had so soon from a session that is there and free; else none."""
        asked = asyncio.run_coroutine_threadsafe(self._names(), self.process.machine.owner.loop)
        try:
            return asked.result(within_s)
        except (TimeoutError, LlmprocError):  # who asked goes on; the answer is thrown away when it comes
            return ()

    def restart(self) -> None:
        """Begin again with nothing; earlier places of the dialog keep their states."""
        self._wait(self._restart())

    @property
    def cells(self) -> tuple[CodeRan, ...]:
        """The cells whose effects the sandbox has where the process stands, oldest first."""
        return tuple(cell for cell in self.family.chain(self._here()) if cell.code or cell.put)[::-1]

    def to_notebook(self, path: str) -> None:
        """Write the cells with their outputs as a notebook that runs on its own. What came from outside is in it, where it is not much."""
        began = self.family.began.get(self.family.start_of(self._here()), {})
        if not began:
            with suppress(LlmprocError):  # there may be no notebook, or no such variable in it
                began = self._variables_now()
        first = CodeRan(seq=0, time_ns=0, pid=self.process.pid, node="", put=tuple(began), outputs=_logged(began))
        names = (*(() if began else self.rules.variables), *self.rules.files)
        self.process.machine.drivers.notebook((first, *self.cells) if began else self.cells, path, names)

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
            before = self._here()
            self._write(recorded, code, before.seq if before is not None else None, None, replayed=True)
            return recorded_ran(recorded)
        async with self._turn():
            owner = self._owner()
            owner._bringing = ready = asyncio.ensure_future(self._ready(place))
            try:
                shell, cell = await ready
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                return Ran(status="interrupted", notes=("The code was stopped before it began.",))
            finally:
                owner._bringing = None
            running: asyncio.Task[Ran]
            running, stopped = asyncio.create_task(shell.run(code, timeout_s=timeout_s, on_output=on_output)), False
            while not running.done():
                try:
                    await asyncio.shield(running)
                except asyncio.CancelledError:  # what the code did until then counts, so it is waited for and written down
                    stopped = True
                    await shell.interrupt()
            ran = running.result()
            status = ran.status if shell.alive else "died"
            notes, owner._unsaid = (*owner._unsaid, *ran.notes, *((DIED,) if status == "died" else ())), ()
            ran = msgspec.structs.replace(ran, status=status, notes=notes)
            await self._ran(self._write(ran, code, cell.seq if cell else None, place), shell)
        if stopped:
            raise asyncio.CancelledError
        return ran

    def _turn(self) -> asyncio.Lock:
        """Held while a cell runs: one at a time in each session."""
        return self._owner()._one

    def _write(self, ran: Ran | CodeRan, code: str, after: int | None, place: Place | None, **fields: Any) -> CodeRan:
        told = {name: getattr(ran, name) for name in Ran.__struct_fields__} | {"code": code, "after": after} | fields
        if place is not None and self.process.running is not None:
            return self.process.running.ran_code(node=place.node.id, position=place.position, **told)
        process = self.process
        return process.machine.log.write(CodeRan, pid=process.pid, cell=process.machine.current_cell(), node=process.head.id, **told)

    async def _give(self, given: Mapping[str, Any], digest: str) -> None:
        code = f"# set from the notebook: {', '.join(given)} ({digest})"  # another value is no answer of a recording
        if self._recorded(code) is not None:
            cell = self._here()
            event = self._write(Ran(status="ok"), code, cell.seq if cell else None, None, put=tuple(given), replayed=True)
            self.family.keep_given(event.seq, given)
            return
        async with self._turn():
            shell, cell = await self._ready()
            whole = False
            try:
                await put(shell, given)
                whole = True
            finally:
                if not whole:  # some of it may be there, of which the log knows nothing
                    await self._owner()._drop()
            event = self._write(Ran(status="ok", outputs=_logged(given)), code, cell.seq if cell else None, None, put=tuple(given))
            self.family.keep_given(event.seq, given)
            await self._ran(event, shell)

    async def _take(self, name: str) -> Any:
        """A variable or file; what it was is written down, so that a replay can give it."""
        code = f"# taken to the notebook: {name}"
        recorded = self._recorded(code)
        if recorded is not None:
            cell = self._here()
            self._write(recorded, code, cell.seq if cell else None, None, took=name, replayed=True)
            if not recorded.outputs:
                raise ToolError(
                    f"{name} was too much for the recording", place=self.process.name, right="in mode auto, record or live it is there"
                )
            return value_of(recorded.outputs[0])
        async with self._turn():
            shell, cell = await self._ready()
            file = name.startswith(FILE)
            value = await (shell.read_file(name.removeprefix(FILE)) if file else shell.get(name))
            small = len(value) <= MOST_TAKEN if isinstance(value, bytes) else True
            outputs = (Output(kind="execute_result", data=_data(value)),) if small else ()
            self._write(Ran(status="ok", outputs=outputs), code, cell.seq if cell else None, None, took=name)
            return value

    async def _look(self) -> Look:
        """What there is; it is written down as something that was taken out, so that a replay can show it."""
        cell, code = self._here(), "# looked at from the notebook"
        after = cell.seq if cell is not None else None
        if cell is None and not self.live:
            return Look()
        recorded = self._recorded(code)
        if recorded is not None:
            self._write(recorded, code, after, None, took=recorded.took, replayed=True)
            return msgspec.convert(value_of(recorded.outputs[0]), Look)
        async with self._turn():
            shell, _ = await self._ready()
            found = await shell.look()
            outputs = (Output(kind="execute_result", data=_data(msgspec.to_builtins(found))),)
            self._write(Ran(status="ok", outputs=outputs), code, after, None, took="what there is")
            return found

    async def _names(self) -> tuple[str, ...]:
        owner, cell = self._owner(), self._here()
        shell = owner._shell
        if shell is None or not self.live or self.busy or owner._state != (cell.seq if cell is not None else None):
            return ()
        async with self._turn():
            return tuple(one.name for one in (await shell.look()).variables)

    async def _restart(self) -> None:
        async with self._turn():
            self._variables_now()  # before anything is given up: one may be gone
            await self._owner()._drop()
            event = self._write(Ran(status="ok", notes=("started again with nothing",)), "", None, None)
            self.family.catch_up()
            self._owner()._state = event.seq
            self._owner()._shell = await self._owner()._fresh(event.seq)

    def _recorded(self, code: str) -> CodeRan | None:
        """What a recording says of a person's cell. Raises ReplayMiss where it knows nothing of it and must not run it.

        After a cell that it did not know, which ran, the state is another one: then it has no answers any more.
        """
        recorded, here = self.process.machine.recorded, self._here()
        if recorded.mode == "record" or (recorded.mode == "auto" and here is not None and not here.replayed):
            return None
        return recorded.code(self.process.lineage, self.process.head.id, code)

    def _wait(self, coroutine: Any) -> Any:
        """What a coroutine on the owner loop gives. An interrupt stops it, and is told in one line."""
        owner = self.process.machine.owner
        if owner.is_here():
            coroutine.close()
            found = "waiting for a sandbox here would never end"
            raise CallStateError(found, place=self.process.name, right="async code has `await process.sandbox.run_async(code)`")
        try:
            return owner.wait(coroutine)
        except KeyboardInterrupt:
            raise Interrupted(f"the code in {self.process.name}'s sandbox") from None

    def __repr__(self) -> str:
        cells = len(self.cells)
        return f"<Sandbox of {self.process.name}: {cells} cell{'' if cells == 1 else 's'}, {'live' if self.live else 'no session now'}>"


def _data(value: Any) -> dict[str, Any]:
    """A value that was taken out, as the bundle of an output: bytes (a frame, a file) as base64 text."""
    return {BYTES: b64encode(value).decode()} if isinstance(value, bytes) else {"application/json": value}


def _logged(given: Mapping[str, Any]) -> tuple[Output, ...]:
    """What came from outside as outputs by name, so that it is there when the cells are run again; nothing where it is much."""
    made = tuple(Output(kind="display_data", name=name, data=_data(value)) for name, value in given.items())
    return made if len(msgspec.json.encode(made)) <= MOST_LOGGED else ()


def _digest(given: Mapping[str, Any]) -> str:
    """A few characters that tell values apart."""
    made = blake2b(digest_size=4)
    for name, value in given.items():
        made.update(name.encode())
        made.update(value if isinstance(value, bytes) else msgspec.json.encode(value))
    return made.hexdigest()


def recorded_ran(event: CodeRan) -> Ran:
    """What a cell gave, as its event tells it."""
    return Ran(**{name: getattr(event, name) for name in Ran.__struct_fields__})


def warm(process: Process) -> None:
    """Have sandboxes got ready while the model still thinks, unless a recording answers."""
    recorded = process.machine.recorded
    if recorded.mode == "record":
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
    if alive and family.rules.on_fork == "share":  # the session is not its alone
        return
    closing = sandbox.close() if alive and sandbox is not None else None if alive else family.close()
    if closing is not None:
        asyncio.run_coroutine_threadsafe(closing, machine.owner.loop)


def note_recorded(run: Run, node: Node, position: int, code: str) -> None:
    """Write down a cell whose answer came from a recording: the state of what follows stands on it."""
    process, recorded = run.process, run.machine.recorded
    before = process.sandbox.family.cell_at(process, node, call=run.number)
    event = recorded.code_at(process.lineage, node.id, position)
    told = {name: getattr(event, name) for name in Ran.__struct_fields__} if event is not None else {}
    with suppress(LogError):  # it is kept for later, and the call ends at its next step
        run.ran_code(node=node.id, position=position, code=code, after=before.seq if before is not None else None, replayed=True, **told)
