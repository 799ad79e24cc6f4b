"""The live shell of one process: the one that has the state wanted, one woken from a checkpoint, or a new one with the cells run again.

Here: the base of Sandbox. Not here: which state belongs to a place (state), what is done in the shell (sandboxed).
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.errors import LlmprocError, ToolError
from llmproc_nb.core.event import CodeRan
from llmproc_nb.core.sandbox import Checkpoint, Output, SandboxRules, Shell
from llmproc_nb.core.state import family_of

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process
    from llmproc_nb.core.tool import Place

FILE, BYTES = "./", "application/octet-stream"
STOPPED = ("timed_out", "interrupted")
LINE_CHARS = 60
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
ABSENT = "the cell is not in the recording, and no code runs while one answers"


class Waking:
    """`_state` is the seq of the cell whose state the shell has; `_one` is held while it is used."""

    def __init__(self, process: Process) -> None:
        self.process, self.family = process, family_of(process)
        self.family.sandboxes[process.pid] = self
        self._shell: Shell | None = None
        self._state: int | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._bringing: asyncio.Future[tuple[Shell, CodeRan | None]] | None = None
        self._one = asyncio.Lock()
        self._unsaid: tuple[str, ...] = ()
        """What is to be said of how the state was had, with the next cell."""

    @property
    def rules(self) -> SandboxRules:
        return self.family.rules

    @property
    def live(self) -> bool:
        """Whether there is a session now; else the next cell brings one."""
        return self._shell is not None and self._shell.alive

    @property
    def busy(self) -> bool:
        """Whether code runs in it."""
        return self._owner()._one.locked()

    async def stop(self) -> None:
        """Interrupt the code that runs; whoever runs it gets what it gave until then. Where its session is still made, it will not run."""
        owner = self._owner()
        if owner._bringing is not None:
            owner._bringing.cancel()
        elif owner._shell is not None and self.busy:
            await owner._shell.interrupt()

    async def close(self) -> None:
        """End the session of this process; its states stay as far as there are checkpoints or cells to run again."""
        async with self._one:
            await self._drop()

    async def _kept(self) -> None:
        """Wait for the copy that is being made, if one is. Who is stopped while waiting stops only to wait."""
        if self._keeping is not None:
            await asyncio.wait({self._keeping})

    def _owner(self) -> Waking:
        """The sandbox that has the session: where forks share one, that of the first process."""
        return self.family.root.sandbox if self.rules.on_fork == "share" else self

    def _here(self, place: Place | None = None) -> CodeRan | None:
        if self.rules.on_fork == "share":  # there is one session, whoever goes wherever
            return self.family.latest()
        node = place.node if place is not None else self.process.head
        running = self.process.running
        return self.family.cell_at(self.process, node, call=running.number if place is not None and running is not None else None)

    async def _ready(self, place: Place | None = None) -> tuple[Shell, CodeRan | None]:
        """The live session with the state that belongs here, and the cell that names the state."""
        if self.process.machine.recorded.mode == "replay":
            raise ToolError(ABSENT, place=self.process.name, right="in mode auto, record or live it does")
        self.process.check_alive()
        owner, cell = self._owner(), self._here(place)
        await owner._kept()
        wanted = cell.seq if cell is not None else None
        if owner._shell is None or not owner._shell.alive or owner._state != wanted:
            await owner._drop()  # first, so that what is woken can have its place
            shell, owner._unsaid = await owner._bring(cell)
            owner._shell, owner._state = shell, wanted
        assert owner._shell is not None
        return owner._shell, cell

    async def _bring(self, cell: CodeRan | None) -> tuple[Shell, tuple[str, ...]]:
        """A session with the state after a cell: woken from a checkpoint, or the nearest earlier one with the cells after it run again."""
        todo = list[CodeRan]()
        shell: Shell | None = None
        for one in self.family.chain(cell):
            checkpoint = await self._checkpoint(one)
            if checkpoint is not None:
                with suppress(ToolError):  # a copy may be gone: killed by its own code, or for want of memory
                    shell = await checkpoint.wake(owner=self.process.lineage if one.pid != self.process.pid else "")
                    self.family.used(one)
                    break
                if self.family.checkpoints.get(one.seq) is checkpoint:
                    del self.family.checkpoints[one.seq]
                await checkpoint.close()
            todo.insert(0, one)
        shell, whole, found = shell or await self._fresh(self.family.start_of(cell)), False, dict[int, str]()
        try:
            for one in todo:
                found[one.seq] = await self._again(shell, one)
            whole = shell.alive
        finally:
            if not whole:
                await shell.close()
        if not whole:
            step = "%sandbox restart begins again with nothing; a goto leads to an earlier state."
            raise ToolError("the session ended when its earlier cells were run again", place=self.process.name, step=step)
        return shell, (_told_again(todo, found),) if todo else ()

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
            await other._kept()  # it may be making just this one
            if cell.seq not in self.family.checkpoints and other._shell is not None and other._shell.alive and not other._one.locked():
                async with other._one:
                    await other._keep(cell, other._shell)
        return self.family.checkpoints.get(cell.seq)

    async def _fresh(self, start: int) -> Shell:
        """A session with nothing but the program's files, and the variables that the first one had which began at that restart."""
        if self.rules.variables and start not in self.family.began:
            self.family.began[start] = self._variables_now()
        shell = await self.family.door.start()
        if self.rules.variables:
            await shell.put(self.family.began[start])
        return shell

    def _variables_now(self) -> dict[str, Any]:
        """The program's variables as they are in the notebook now. Raises PersonError where one is not there."""
        found = self.process.machine.find_variables(self.rules.variables) if self.rules.variables else {}
        return {name: self.process.machine.drivers.packed(value, name) for name, value in found.items()}

    async def _again(self, shell: Shell, cell: CodeRan) -> str:
        """Have the effect of an earlier cell once more; gives what is other than it was the first time, if anything."""
        if cell.put:
            given = self.family.given.get(cell.seq) or {output.name: value_of(output) for output in cell.outputs}
            await put(shell, given)
            return "" if given else MISSING
        if cell.status in STOPPED:
            return LEFT_OUT
        if not cell.code:
            return ""
        ran = await shell.run(cell.code, timeout_s=max(self.rules.timeout_s, 3 * cell.duration_s))
        return "" if ran.status == cell.status and _said(ran.outputs) == _said(cell.outputs) else OTHER

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

    async def _drop(self) -> None:
        """End the session, if there is one."""
        await self._kept()
        shell, self._shell, self._state, self._keeping = self._shell, None, None, None
        if shell is not None:
            await shell.close()


def value_of(output: Output) -> Any:
    """A value that came from outside, or was taken out, from the output that kept it."""
    return b64decode(output.data[BYTES]) if BYTES in output.data else output.data.get("application/json")


LEFT_OUT, MISSING, OTHER = "left out: it was stopped half way then", "missing: it came from outside", "gave something else than then"


def _told_again(cells: list[CodeRan], found: Mapping[int, str]) -> str:
    """What is to be said where cells were run again: how many, and what is other than it was."""
    count = sum(bool(cell.code or cell.put) and found[cell.seq] not in (LEFT_OUT, MISSING) for cell in cells)
    made = f"the state was made again by running {count} earlier cell{'' if count == 1 else 's'}"
    for what in (OTHER, LEFT_OUT, MISSING):
        names = [_line(cell) for cell in cells if found[cell.seq] == what]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            made += f"; {names[0]}{more} {what}"
    return made


def _line(cell: CodeRan) -> str:
    """A cell by what was set, or its first line."""
    if cell.put:
        return ", ".join(name.removeprefix(FILE) for name in cell.put)
    line = next((line for line in cell.code.strip().splitlines() if line.strip()), "")
    return f"`{line if len(line) <= LINE_CHARS else line[: LINE_CHARS - 1] + '…'}`"


def _said(outputs: Sequence[Output]) -> list[str]:
    """What a cell told, for comparison: addresses differ each time."""
    words = (f"{one.name}: {one.text}" if one.kind == "error" else one.words for one in outputs)
    return [_ADDRESS.sub("0x", text) for text in words]


async def put(shell: Shell, given: Mapping[str, Any]) -> None:
    variables = {name: value for name, value in given.items() if not name.startswith(FILE)}
    if variables:
        await shell.put(variables)
    for name, data in given.items():
        if name.startswith(FILE):
            await shell.write_file(name.removeprefix(FILE), data)
