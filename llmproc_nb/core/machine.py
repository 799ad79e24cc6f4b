"""The machine that processes run on: one dialog tree, one log, one owner loop, one process table. One per kernel or script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Literal, TypeAlias

from llmproc_nb.core import message as messages
from llmproc_nb.core.approval import Approver
from llmproc_nb.core.clock import Clock, SystemClock
from llmproc_nb.core.dialog import Dialog, Node
from llmproc_nb.core.doors import Drivers, Recorded
from llmproc_nb.core.errors import LlmprocError, LogError, PersonError, ProgramError, meant
from llmproc_nb.core.event import Appended, Opened, Replied, Started, Stopped, Warned
from llmproc_nb.core.field import several
from llmproc_nb.core.gate import admit, allowed, check, release
from llmproc_nb.core.limiter import Limiter
from llmproc_nb.core.log import Log, Store
from llmproc_nb.core.owner import OwnerLoop
from llmproc_nb.core.process import Loaded, Origin, Process
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import Config, Provider
from llmproc_nb.core.server import Connection, first_tools, servers_for
from llmproc_nb.core.standing import Standing
from llmproc_nb.core.state import Family
from llmproc_nb.core.syscall import with_fds
from llmproc_nb.core.tool import Access
from llmproc_nb.core.unrecorded import Unrecorded
from llmproc_nb.core.usage import Usage

Mode: TypeAlias = Literal["live", "record", "replay", "auto"]

CLOSE_GRACE_S, CLOSE_S = 2.0, 10.0
ONE_REQUEST = Usage(requests=1, input_tokens=1, output_tokens=1)
AS_ITS_PARENT: dict[str, Any] = {}


class Machine:
    """Starts processes and holds what they share. `current_cell` is set by a notebook."""

    process_type: type[Process] = Process

    def __init__(
        self,
        drivers: Drivers,
        *,
        clock: Clock | None = None,
        store: Store | None = None,
        recorded: Recorded | None = None,
        approver: Approver | None = None,
        opened: dict[str, Any] | None = None,
    ) -> None:
        self.drivers = drivers
        self.clock: Clock = clock or SystemClock()
        self.owner = OwnerLoop()
        self.dialog = Dialog()
        self.log = Log(self.clock.now_ns, store)
        self.recorded: Recorded = recorded if recorded is not None else Unrecorded()
        self.approver = approver
        self.processes: dict[int, Process] = {}
        self.current_cell: Callable[[], str | None] = lambda: None
        self.find_variables: Callable[[tuple[str, ...]], dict[str, Any]] = _no_variables
        self.find_cell: Callable[[Standing, str], Node | None] = self._cell_end
        self.families: dict[int, Family] = {}
        self.shorter: dict[tuple[int, str], list[str]] = {}
        """The nodes whose paths a shorter branch stands for, by the process that it was made from and its end."""
        self._limiters: dict[str, Limiter] = {}
        self._providers: dict[Any, Provider] = {}
        self.servers: list[Connection] = []
        self._declared: set[str] = set()
        self._lineages: dict[str, int] = {}
        self._named: dict[int, int] = {}
        self._siblings: dict[tuple[str, str], int] = {}
        self._calls, self._pids = count(1), count(1)
        self.lock = threading.RLock()
        self.log.write(Opened, **(opened or {}))

    def start(
        self,
        program: Program,
        *,
        name: str | None = None,
        tools: Iterable[Any] = (),
        parent: Process | None = None,
        head: Node | None = None,
        access: Access | None = None,
        origin: Origin = "start",
        by_model: bool = False,
        linked: Mapping[str, Program] | None = None,
    ) -> Process:
        """Make a process from a program: its tools and provider are resolved, its system prompt is made now.

        A child comes through the gate: raises LimitReached where its parent may not have it; ProgramError for the program.
        """
        if not isinstance(name or program.name, str):
            raise ProgramError(f"{name or program.name!r} is no name", right="a process has a text as its name")
        wanted = self.drivers.tools((*program.tools, *several("start", "tools", tools)), program)
        if linked is None:  # a child's links are those that were read when the first of its family started
            linked = self.drivers.linked(program) if program.linked else {}
        settings = self.drivers.settings(program)
        provider, limiter = self._provider(program)
        granted = admit(parent, access=access, by_model=by_model) if parent is not None else access or "admin"
        name = name or program.name
        try:
            servers = servers_for(self, program, name, parent, origin)
        except BaseException:
            release(parent)
            raise
        with self.lock:
            pid = next(self._pids)
            if head is None:
                text, warnings = self.drivers.system(program)
                head = self._root(text, pid)
            else:
                warnings = ()
            process = self.process_type(
                self,
                pid=pid,
                name=name,
                program=program,
                head=head,
                tools=with_fds(allowed(wanted, granted), program),
                lineage=self.lineage(name, parent),
                loaded=Loaded(provider=provider, limiter=limiter, settings=settings, linked=linked, servers=servers),
                access=granted,
                parent=parent,
                origin=origin,
            )
            self.processes[pid] = process
        self._write_started(process, program.declaration())
        first_tools(process)
        if program.limits.cost_usd is not None and self.price(program.model, process, ONE_REQUEST) is None:
            text = f"no price of {program.model} is known: its limit of dollars never stops it; a limit of tokens does"
            warnings = (*warnings, text)
        left_out = provider.left_out(Config(model=program.model, settings=settings))
        if left_out:
            warnings = (*warnings, f"{provider.name} does not take {', '.join(left_out)} for {program.model}; left out")
        for text in warnings:
            self.log.write(Warned, pid=pid, text=text)
        process.notes = warnings
        return process

    def fork(
        self, parent: Process, head: Node, *, name: str | None = None, program: Program | None = None, by_model: bool = False
    ) -> Process:
        """A child on a node of its parent's dialog. Raises LimitReached."""
        if program is not None and program is not parent.program:
            with self.lock:
                name = name or self._child_name(parent)
            child = self.start(program, name=name, parent=parent, head=head, origin="fork", by_model=by_model, linked=parent.linked)
            child.put_tools(parent.tools.join(child.tools))
            return child
        admit(parent, by_model=by_model)
        return self._fork(parent, head, name)

    def fork_many(
        self,
        parent: Process,
        head: Node,
        *,
        names: Sequence[str | None],
        programs: Sequence[Program] | None = None,
        by_model: bool = False,
    ) -> list[Process]:
        """Several children at once, or none: a limit that does not allow all of them is an error before the first is made."""
        if programs is None:
            admit(parent, len(names), by_model=by_model)
            make, left = (partial(self._fork, parent, head, name) for name in names), len(names)
        else:
            check(parent, len(names), by_model=by_model)
            make = (partial(self.fork, parent, head, name=name, program=one) for name, one in zip(names, programs, strict=True))
            left = 0  # each comes through the gate by itself
        made: list[Process] = []
        try:
            for one in make:
                left -= 1
                made.append(one())
        except LlmprocError:
            release(parent, max(0, left))
            for child in made:
                self._take_back(child)
            raise
        return made

    def _fork(self, parent: Process, head: Node, name: str | None) -> Process:
        with self.lock:
            pid, name = next(self._pids), name or self._child_name(parent)
            child = self.processes[pid] = self.process_type(
                self,
                pid=pid,
                name=name,
                program=parent.program,
                head=head,
                tools=parent.tools,
                lineage=self.lineage(name, parent),
                loaded=parent.loaded,
                access=parent.access,
                parent=parent,
                origin="fork",
            )
        try:
            self._write_started(child, AS_ITS_PARENT)
        except LogError:
            self._take_back(child)
            raise
        return child

    def _take_back(self, child: Process) -> None:
        """End a child that nobody has been told of."""
        with suppress(LogError):
            child.kill()
        del self.processes[child.pid]
        release(child.parent)

    def _child_name(self, parent: Process) -> str:
        """The name of a child that was given none: `scout.1`, `scout.2` … Whoever asks holds the lock."""
        number = self._named[parent.pid] = self._named.get(parent.pid, 0) + 1
        return f"{parent.name}.{number}"

    def skip_child_names(self, parent: Process, number: int) -> None:
        """Let the next child without a name come after this number, where an earlier run had come so far."""
        with self.lock:
            self._named[parent.pid] = max(number, self._named.get(parent.pid, 0))

    def _write_started(self, process: Process, declaration: dict[str, Any]) -> None:
        parent, provider = process.parent, process.loaded.provider
        cell, log = self.current_cell(), self.log
        with log.alone():
            log.put(
                Started(
                    seq=log.next_seq,
                    time_ns=log.now_ns(),
                    pid=process.pid,
                    cell=cell,
                    name=process.name,
                    node=process.head.id,
                    lineage=process.lineage,
                    parent_pid=parent.pid if parent is not None else None,
                    provider=provider.name,
                    scripted=provider.scripted,
                    program=declaration,
                    origin=process.origin,
                    access=process.access,
                )
            )

    def children(self, process: Process) -> tuple[Process, ...]:
        """The children of a process, oldest first."""
        return tuple(one for one in tuple(self.processes.values()) if one.parent is process)

    def _root(self, text: str, pid: int) -> Node:
        node, new = self.dialog.append(messages.system(text), None)
        if new:
            self.log.write(Appended, pid=pid, node=node.id, message=node.message)
        return node

    def lineage(self, name: str, parent: Process | None, *, peek: bool = False) -> str:
        """Who asks, in a recording: the name after those above it, and which of that name it is where there are several."""
        name = name.replace("/", "∕") if "/" in name else name  # one that is called a/b is no child of a
        lineage = name if parent is None else f"{parent.lineage}/{name}"
        number = self._lineages.get(lineage, 0) + 1
        if not peek:
            self._lineages[lineage] = number
        return lineage if number == 1 else f"{lineage}#{number}"

    def _provider(self, program: Program) -> tuple[Provider, Limiter]:
        """The provider and limiter of a program's endpoint, shared by all processes that use it."""
        key: tuple[Any, ...] = (
            program.provider,
            program.base_url,
            program.api_key_env,
            program.project_id,
            program.region,
            program.prompt_caching,
        )
        if program.provider == "scripted":
            key = (*key, id(program.script) if callable(program.script) else repr(program.script))
        endpoint = f"{program.provider} {program.base_url or ''}"
        with self.lock:
            if key not in self._providers:
                real = self.drivers.provider(program)
                self._providers[key] = self.recorded.provider(real)
            return self._providers[key], self._limiters.setdefault(endpoint, Limiter(self.clock.monotonic))

    def find(self, name: str | int) -> Process:
        """The newest process of that name, living ones first, or the one with that pid. Raises PersonError."""
        found = [process for process in tuple(self.processes.values()) if name in (process.name, process.pid, str(process.pid))]
        if not found:
            names = tuple(dict.fromkeys(process.name for process in self.processes.values() if process.alive))
            right = meant(str(name), names, f"processes: {', '.join(names) or 'none yet'}")
            raise PersonError(f"there is no process {name!r}", right=right)
        return max(found, key=lambda process: (process.alive, process.pid))

    def _cell_end(self, process: Standing, cell: str) -> Node | None:
        """Where a process stood when the last call of that cell ended."""
        ends = [event for event in self.log.events if isinstance(event, Stopped) and event.pid == process.pid and event.cell == cell]
        return self.dialog.find(ends[-1].node) if ends else None

    def warn(self, text: str, pid: int = 0) -> None:
        self.log.write(Warned, pid=pid, text=text)

    def replies(self, process: Process) -> list[Replied]:
        """The replies on a process's path, in order."""
        nodes = {node.id for node in process.path}
        return [event for event in self.log.events if isinstance(event, Replied) and event.node in nodes]

    # numbers that are the same on every run

    def next_call(self) -> int:
        return next(self._calls)

    def next_sibling(self, lineage: str, digest: str) -> int:
        with self.lock:
            number = self._siblings.get((lineage, digest), 0)
            self._siblings[lineage, digest] = number + 1
            return number

    def declare(self, config_id: str) -> bool:
        """Whether this config is new to the log."""
        with self.lock:
            new = config_id not in self._declared
            self._declared.add(config_id)
            return new

    def price(self, model: str, process: Process, usage: Usage) -> float | None:
        return self.drivers.price(model, process.program.provider, usage, self.clock.now_ns())

    def window(self, model: str, process: Process) -> int | None:
        """How much a model can read, in tokens: as it was when this was recorded, else as it is known now."""
        return self.recorded.window(model) or self.drivers.window(model, process.program.provider)

    def close(self) -> None:
        """Stop what runs and give everything back."""
        calls = [call for process in tuple(self.processes.values()) for call in process.calls if not call.done()]
        for call in calls:
            call.cancel()
        for call in calls:  # they have things to write down
            call.settle(CLOSE_GRACE_S)
        faults = []
        sandboxes = (family.close() for family in tuple(self.families.values()))
        others = (*(servers.close() for servers in self.servers), *(provider.close() for provider in self._providers.values()))
        for close in (*sandboxes, *others, self.drivers.close()):
            try:
                self.owner.wait(close, CLOSE_S)
            except Exception as error:  # foreign code: the others and the store must be given back all the same
                faults.append(error)
        self.owner.close()
        if self.log.store is not None:
            self.log.store.close()
        if faults:
            raise faults[0]


def _no_variables(names: tuple[str, ...]) -> dict[str, Any]:
    found = f"there is no notebook to take {', '.join(names)} from"
    raise PersonError(found, place="[sandbox] variables", right="a script gives them with process.sandbox.put(name=value)")
