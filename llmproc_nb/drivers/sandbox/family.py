"""A family of sandboxes: one keeper, its live shells and its frozen copies, and the line to the keeper.

Here: starting, keeping, waking, ending. Not here: one session's conversation (live), which families wait warm (pool).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import SandboxRules
from llmproc_nb.drivers.sandbox.answers import Answers, Given
from llmproc_nb.drivers.sandbox.frozen import Frozen
from llmproc_nb.drivers.sandbox.line import Line, read_header
from llmproc_nb.drivers.sandbox.live import LiveShell
from llmproc_nb.drivers.sandbox.process import Process
from llmproc_nb.drivers.sandbox.proxy import Proxy
from llmproc_nb.drivers.sandbox.reasons import Reasons
from llmproc_nb.drivers.sandbox.zygote import ZYGOTE
from llmproc_nb.inside.area import remove
from llmproc_nb.inside.channel import close_all
from llmproc_nb.inside.folder import make as make_folder
from llmproc_nb.inside.rules import Rules

START_S = 60.0
FIRST_S = 30.0
HELLO_S, HELLO_AGAIN_S = 5.0, 1.0
"""A copy that has not said hello by then never will: its code has seen to that. Others of the same session get less time."""
ANSWER_S = 5.0
END_S = 20.0
MOST_DENIED = 5
LOOPBACK = ("localhost", "127.", "::1", "[::1]")
MEASURED_S = 5.0
_Made = TypeVar("_Made")


class Family:
    """A keeper and what it keeps. `root` is the first process of the family, from which all others descend."""

    def __init__(self, rules: SandboxRules) -> None:
        self.rules = rules
        self.root = 0
        self._folder = ""
        self.shells: set[LiveShell] = set()
        self.frozen: dict[Frozen, None] = {}
        """From the oldest to the newest."""
        self._free: set[str] = set()
        self.why = ""
        self.lost = False
        """Whether the keeper went by itself."""
        self._names = itertools.count(1)
        self._answers: Answers[tuple[dict[str, Any], list[int]]] = Answers()
        self._ready = asyncio.Event()
        self.reasons = Reasons()
        self._watched: set[LiveShell] = set()
        self._lock = asyncio.Lock()
        self._line = Line(self._frame, self._cut, most_body=0, takes_fds=True)
        self._process: Process | None = None
        self._proxy: Proxy | None = None
        self.denied: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def begin(self) -> None:
        """Have the family made. Raises ToolError where the confinement that is asked for cannot be had."""
        await self._whole(self._begin(), lambda _: self._aside(self.close()))

    async def _begin(self) -> None:
        folder = self._folder = await asyncio.to_thread(make_folder)
        try:
            if self.rules.hosts:
                self._proxy = Proxy(self.rules.hosts, f"{folder}/out", on_denied=self._denied)
                await self._proxy.start()
            rules = self._confinement(folder)
            await asyncio.to_thread(ZYGOTE.family, rules.dump(), self._line.other.fileno())
            self._line.other.close()
            await asyncio.wait_for(self._ready.wait(), START_S)
        except (OSError, TimeoutError) as error:
            self.why = self.why or str(error) or f"no sign of it in {START_S:g} s"
        if self.why:
            self._line.close()
            await self._close_proxy()
            await asyncio.to_thread(remove, folder)
            raise ToolError(
                f"no sandbox of the tier {self.rules.tier!r} could be started: {self.why}",
                place="sandbox",
                step="%sandbox status says what can be had here. Set tier in [sandbox] to one of that.",
            )

    def _confinement(self, folder: str) -> Rules:
        rules = self.rules
        return Rules(
            tier=rules.tier,
            folder=folder,
            readable=rules.readable,
            last=folder,
            memory_mb=rules.memory_mb,
            checkpoints_mb=rules.checkpoints_mb,
            disk_mb=rules.disk_mb,
            cpu_s=rules.cpu_s,
            processes=rules.processes,
            env=dict(rules.env),
            relay=self._proxy.path if self._proxy is not None else "",
            loopback=any(host.lower().startswith(LOOPBACK) for host in rules.hosts),
        )

    # shells and copies

    async def first(self) -> LiveShell:
        """A fresh shell."""
        return await self._whole(self._first(), lambda shell: self._aside(shell.close()))

    async def keep(self, shell: LiveShell) -> Frozen:
        """A frozen copy of a shell that runs no cell."""
        return await self._whole(self._keep(shell), lambda frozen: frozen.end())

    async def wake(self, frozen: Frozen, owner: str) -> LiveShell:
        """A live shell that goes on from a copy."""
        shell = await self._whole(self._wake(frozen, owner), lambda shell: self._aside(shell.close()))
        for one in tuple(self.shells):
            if one.area == frozen.origin.area and len(self.shells) > 1:  # whether it is the origin, or has come into its place
                await one.part()
        return shell

    async def _whole(self, work: Coroutine[Any, Any, _Made], undo: Callable[[_Made], Any]) -> _Made:
        """Do something to its end, also where whoever waits for it is cancelled; then what it made is undone."""
        task = self._aside(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: None if done.cancelled() or done.exception() else undo(done.result()))
            raise

    async def to_the_end(self, work: Coroutine[Any, Any, _Made]) -> _Made:
        """Do something to its end, also where whoever waits for it is cancelled."""
        return await self._whole(work, lambda _: None)

    async def _first(self) -> LiveShell:
        async with self._lock:
            shell = LiveShell(self, self._name("area"))
            try:
                answer, _ = await self.ask({"op": "shell", "area": shell.area}, shell.fds)
                if "error" in answer:
                    raise ToolError(f"a sandbox did not start: {_said(answer['error'], self.rules)}", place="sandbox")
                shell.given()
                await shell.greeted(FIRST_S, "a sandbox did not start")
            except OSError as error:
                raise ToolError(f"the family of sandboxes is over: {self.why or error}", place="sandbox") from error
            finally:
                shell.settled()
            self.shells.add(shell)
            self._tell()
            return shell

    async def _keep(self, shell: LiveShell) -> Frozen:
        """What the session is asked holds nobody else up."""
        frozen = Frozen(self, self._name("snapshot"), shell)
        snapshot = self._aside(self.ask({"op": "snapshot", "area": shell.area, "name": frozen.snapshot, "before": shell.snapshot}))
        try:
            await shell.request({"op": "keep"}, fds=frozen.fds)
            frozen.given()
            await frozen.greeted(HELLO_S)
            answer, _ = await snapshot
            if "error" in answer:
                raise ToolError(f"the state cannot be kept: {_said(answer['error'], self.rules)}", place="sandbox")
        except (ToolError, OSError) as error:
            frozen.end()
            await asyncio.gather(snapshot, return_exceptions=True)
            self._aside(self._quiet({"op": "drop", "name": frozen.snapshot}))
            if isinstance(error, ToolError):
                raise
            raise ToolError(f"the state cannot be kept: {self.why or error}", place="sandbox") from error
        shell.snapshot = frozen.snapshot
        self.frozen[frozen] = None
        self._tell()
        self._aside(self.measure(frozen))
        return frozen

    async def _wake(self, frozen: Frozen, owner: str) -> LiveShell:
        """In the area of the session that it was kept of, where that is over: only so many can be taken one out of the other."""
        async with self._lock:
            again = frozen.origin.area in self._free
            shell = LiveShell(self, frozen.origin.area if again else self._name("area"))
            self._free.discard(shell.area)
            mounts: list[int] = []
            try:
                answer, mounts = await self.ask({"op": "area", "name": shell.area, "source": frozen.snapshot, "again": again})
                if "error" in answer:
                    raise ToolError(f"the copy cannot be woken: {_said(answer['error'], self.rules)}", place="sandbox")
                await frozen.wake_as({"op": "wake", "area": answer["path"], "again": again, "owner": owner}, (*shell.fds, *mounts))
                shell.given()
                await self._greeted(shell, frozen)
            except OSError as error:
                raise ToolError(f"the copy cannot be woken: {frozen.why or self.why or error}", place="sandbox") from error
            finally:
                close_all(mounts)
                shell.settled()
                if shell.process is None:
                    self._aside(self._quiet({"op": "drop", "name": shell.area}))
            shell.snapshot = frozen.snapshot
            self.shells.add(shell)
            self._tell()
            return shell

    async def _greeted(self, shell: LiveShell, frozen: Frozen) -> None:
        """A copy that says nothing is dead, and others of the same session likely are."""
        try:
            await shell.greeted(HELLO_AGAIN_S if frozen.origin.woke_badly else HELLO_S, "the copy cannot be woken")
        except ToolError:
            frozen.origin.woke_badly = True
            frozen.end()
            raise

    async def ended(self, shell: LiveShell) -> None:
        """End what a shell started, and take its area away."""
        async with self._lock:
            if shell.process is None or self.why:
                return
            with contextlib.suppress(OSError):
                await self.end_started(shell)
                await self.ask({"op": "drop", "name": shell.area})
                self._free.add(shell.area)

    async def end_started(self, shell: LiveShell) -> None:
        """End a shell's process, and what it started. Raises OSError where the keeper is gone."""
        if shell.process is not None:
            others: list[LiveShell | Frozen] = [*(one for one in self.shells if one is not shell), *self.frozen]
            spared = [one.process.inner_pid for one in others if one.process is not None]
            await self.ask({"op": "end", "pid": shell.process.inner_pid, "spared": spared})

    def left(self, shell: LiveShell) -> None:
        """A shell is over."""
        self.shells.discard(shell)
        self.unwatch(shell)

    def thawed(self, frozen: Frozen) -> None:
        """A frozen copy is over; its files go where no live shell is linked to them."""
        if frozen in self.frozen:
            del self.frozen[frozen]
            for shell in self.shells:
                if shell.snapshot == frozen.snapshot:
                    shell.snapshot = ""
            if not self.why:
                self._aside(self._quiet({"op": "drop", "name": frozen.snapshot}))

    # the keeper

    async def ask(self, header: dict[str, Any], fds: tuple[int, ...] = ()) -> tuple[dict[str, Any], list[int]]:
        """Ask the keeper. Raises OSError where it is gone."""
        with self._answers.question() as (n, answer):
            await self._line.send({**header, "n": n}, fds=fds)
            return await answer

    async def answers(self) -> bool:
        """Whether the keeper is still there."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.ask(self._who())
        except (OSError, TimeoutError):
            return False
        return True

    async def measure(self, latest: Frozen) -> None:
        """Have the copies say what memory they have for themselves: the latest one, and others now and then."""
        now = asyncio.get_running_loop().time()
        for frozen in tuple(self.frozen):
            if frozen is latest or now - frozen.measured_at > MEASURED_S:
                frozen.measured_at = now
                with contextlib.suppress(OSError):
                    await frozen.measure()

    def watch(self, shell: LiveShell) -> None:
        """A cell has been running for a while: the keeper shall look at what the family has."""
        self._watched.add(shell)
        self._tell()

    def unwatch(self, shell: LiveShell) -> None:
        """A cell is over."""
        if shell in self._watched:
            self._watched.discard(shell)
            self._tell()

    def _tell(self) -> None:
        """Tell the keeper who is who; nobody waits for it."""
        if not self.why:
            self._aside(self._quiet(self._who()))

    def _who(self) -> dict[str, Any]:
        sessions = {shell.process.inner_pid: shell in self._watched for shell in self.shells if shell.process is not None}
        copies = [frozen.process.inner_pid for frozen in self.frozen if frozen.process is not None]
        return {"op": "watch", "sessions": list(sessions), "running": [pid for pid, runs in sessions.items() if runs], "copies": copies}

    async def close(self) -> None:
        """End the keeper, and with it everything."""
        self._over("it was closed")
        self._line.close()
        await self._close_proxy()
        for shell in tuple(self.shells):
            await shell.close()
        for frozen in tuple(self.frozen):
            frozen.end()
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.dead.wait(), END_S)
            self._process.kill()
            self._process.forget()
        if self._folder:
            await asyncio.to_thread(remove, self._folder)  # the zygote does it, if it is still there
        await asyncio.gather(*(self._tasks - {asyncio.current_task()}), return_exceptions=True)

    def _denied(self, why: str) -> None:
        if len(self.denied) < MOST_DENIED:
            self.denied.append(f"No connection: {why[:300]}.")

    async def _close_proxy(self) -> None:
        if self._proxy is not None:
            await self._proxy.close()

    def _name(self, kind: str) -> str:
        return f"{kind}-{next(self._names)}"

    def _frame(self, header: bytes, body: bytes) -> None:
        message = read_header(header)
        op, fds = message.pop("op"), self._line.take_fds(message.pop("fds", 0))
        if op == "answer" and self._answers.give(message["n"], (message, fds)) is Given.TAKEN:
            return
        close_all(fds)
        if op == "root":
            self.root = self._line.pid
            with contextlib.suppress(OSError):
                self._process = Process(self.root, self.root, lambda: None)
        elif op == "ready":
            self._ready.set()
        elif op == "refused":
            self._over(message["why"])
        elif op == "ended":
            self.reasons.tell(message["pid"], message["how"])
        elif op == "greedy":
            self._greedy(message["pid"], message["itself"], message["why"])

    def _greedy(self, pid: int, itself: bool, why: str) -> None:
        """The keeper ends a process that has too much, or what it started."""
        if itself:
            self.reasons.tell(pid, why)
        for shell in self.shells:
            if shell.process is not None and shell.process.inner_pid == pid and not itself:
                shell.noted(f"What the code had started was ended: {why}.")

    def _cut(self, why: str) -> None:
        words = "" if self.root else ZYGOTE.last_words()[-500:]
        self.lost = True
        self._over(words or f"the keeper of the family is gone: {why}")
        if self._process is not None:
            self._aside(self._leave(self._process))

    async def _leave(self, process: Process) -> None:
        """Remove what is left where nobody else may be there to do it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.dead.wait(), END_S)
        await asyncio.to_thread(remove, self._folder)

    def _over(self, why: str) -> None:
        self.why = self.why or why
        self._ready.set()
        self.reasons.end(self.why)
        self._answers.fail(self.why)
        for shell in tuple(self.shells):
            shell.why = shell.why or self.why
            if shell.process is not None:
                shell.process.kill()

    async def _quiet(self, header: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            await self.ask(header)

    def _aside(self, work: Coroutine[Any, Any, _Made]) -> asyncio.Task[_Made]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _said(error: str, rules: SandboxRules) -> str:
    return f"the working folders and their copies have no room in {rules.disk_mb} MB" if error == "no room" else error
