"""The machine that processes run on: one dialog tree, one log, one owner loop, one process table. One per kernel or script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, Literal, Protocol, TypeAlias

from llmproc_nb.core import message as messages
from llmproc_nb.core.clock import Clock, SystemClock
from llmproc_nb.core.dialog import Dialog, Node
from llmproc_nb.core.errors import PersonError, ProgramError
from llmproc_nb.core.event import Appended, Opened, Replied, Started, ToolRan, Warned
from llmproc_nb.core.limiter import Limiter
from llmproc_nb.core.log import Log, Store
from llmproc_nb.core.owner import OwnerLoop
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import Config, Provider, Settings
from llmproc_nb.core.tool import Toolset
from llmproc_nb.core.usage import Usage

Mode: TypeAlias = Literal["live", "record", "replay", "auto"]


CLOSE_GRACE_S = 2.0


class Recorded(Protocol):
    """A recording that answers in place of the world."""

    def provider(self, real: Provider) -> Provider:
        """A provider that answers what the recording knows, and asks the real one for the rest where the mode allows it."""
        ...

    def tool(self, node_id: str, position: int, lineage: str) -> ToolRan | None:
        """The recorded answer to call number `position` of the reply at that node, as `lineage` got it; None to run the tool.

        Raises ReplayMiss.
        """
        ...


class Drivers(Protocol):
    """Everything behind the doors that a machine needs, by name."""

    def provider(self, program: Program) -> Provider: ...

    def tools(self, wishes: tuple[Any, ...], program: Program) -> Toolset:
        """Functions, tools and wishes by name, as a toolset. Raises ProgramError or ToolDeclarationError."""
        ...

    def linked(self, program: Program) -> dict[str, Program]:
        """All programs that can be reached by links, by path. Raises ProgramError."""
        ...

    def system(self, program: Program) -> tuple[str, tuple[str, ...]]:
        """The system prompt with all that a program adds to it, and what to warn about."""
        ...

    def settings(self, program: Program) -> Settings:
        """The program's settings, with what its provider needs for tools it runs itself."""
        ...

    def price(self, model: str, provider: str, usage: Usage, when_ns: int) -> float | None: ...

    def window(self, model: str, provider: str) -> int | None: ...

    def schema(self, kind: Any) -> tuple[dict[str, Any], Callable[[str], Any]]:
        """The JSON schema of a type, and what reads an answer that follows it."""
        ...


class Machine:
    """Starts processes and holds what they share. `current_cell` and `show` are set by a notebook."""

    process_type: type[Process] = Process

    def __init__(
        self,
        drivers: Drivers,
        *,
        clock: Clock | None = None,
        store: Store | None = None,
        recorded: Recorded | None = None,
        opened: dict[str, Any] | None = None,
    ) -> None:
        self.drivers = drivers
        self.clock: Clock = clock or SystemClock()
        self.owner = OwnerLoop()
        self.dialog = Dialog()
        self.log = Log(self.clock.now_ns, store)
        self.recorded = recorded
        self.processes: dict[int, Process] = {}
        self.current_cell: Callable[[], str | None] = lambda: None
        self.show: Callable[[Any], Any] = lambda value: value
        self._limiters: dict[str, Limiter] = {}
        self._providers: dict[Any, Provider] = {}
        self._declared: set[str] = set()
        self._lineages: dict[str, int] = {}
        self._siblings: dict[tuple[str, str], int] = {}
        self._calls, self._pids = count(1), count(1)
        self._lock = threading.RLock()
        self.log.write(Opened, **(opened or {}))

    def start(
        self,
        program: Program,
        *,
        name: str | None = None,
        tools: Iterable[Any] = (),
        parent: Process | None = None,
        head: Node | None = None,
    ) -> Process:
        """Make a process from a program: its tools and provider are resolved, its system prompt is made now. Raises ProgramError."""
        if not isinstance(name or program.name, str):
            raise ProgramError(f"{name or program.name!r} is no name", right="a process has a text as its name")
        wanted = self.drivers.tools((*program.tools, *tools), program)
        linked = self.drivers.linked(program) if program.linked else {}
        provider, limiter = self._provider(program)
        with self._lock:
            name = name or program.name
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
                tools=wanted,
                provider=provider,
                limiter=limiter,
                lineage=self._lineage(name, parent),
                linked=linked,
                parent=parent,
            )
            self.processes[pid] = process
        self.log.write(
            Started,
            pid=pid,
            cell=self.current_cell(),
            name=name,
            node=head.id,
            lineage=process.lineage,
            parent_pid=parent.pid if parent else None,
            provider=provider.name,
            scripted=provider.scripted,
            program=program.declaration(),
        )
        left_out = provider.left_out(Config(model=program.model, settings=self.drivers.settings(program)))
        if left_out:
            warnings = (*warnings, f"{provider.name} does not take {', '.join(left_out)} for {program.model}; left out")
        for text in warnings:
            self.log.write(Warned, pid=pid, text=text)
        process.notes = warnings
        return process

    def _root(self, text: str, pid: int) -> Node:
        node, new = self.dialog.append(messages.system(text), None)
        if new:
            self.log.write(Appended, pid=pid, node=node.id, message=node.message)
        return node

    def _lineage(self, name: str, parent: Process | None) -> str:
        """Who asks, in a recording: the name after those above it, and which of that name it is where there are several."""
        lineage = name if parent is None else f"{parent.lineage}/{name}"
        number = self._lineages[lineage] = self._lineages.get(lineage, 0) + 1
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
        with self._lock:
            if key not in self._providers:
                real = self.drivers.provider(program)
                self._providers[key] = self.recorded.provider(real) if self.recorded else real
            return self._providers[key], self._limiters.setdefault(endpoint, Limiter(self.clock.monotonic))

    def find(self, name: str | int) -> Process:
        """The newest process of that name, living ones first, or the one with that pid. Raises PersonError."""
        found = [process for process in tuple(self.processes.values()) if name in (process.name, process.pid, str(process.pid))]
        if not found:
            names = ", ".join(dict.fromkeys(process.name for process in self.processes.values() if process.alive)) or "none yet"
            raise PersonError(f"there is no process {name!r}", right=f"processes: {names}")
        return max(found, key=lambda process: (process.alive, process.pid))

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
        with self._lock:
            number = self._siblings.get((lineage, digest), 0)
            self._siblings[lineage, digest] = number + 1
            return number

    def declare(self, config_id: str) -> bool:
        """Whether this config is new to the log."""
        with self._lock:
            new = config_id not in self._declared
            self._declared.add(config_id)
            return new

    def recorded_tool(self, node_id: str, position: int, lineage: str) -> ToolRan | None:
        return self.recorded.tool(node_id, position, lineage) if self.recorded else None

    def price(self, model: str, process: Process, usage: Usage) -> float | None:
        return self.drivers.price(model, process.program.provider, usage, self.clock.now_ns())

    def close(self) -> None:
        """Stop what runs and give everything back."""
        calls = [call for process in tuple(self.processes.values()) for call in process.calls if not call.done()]
        for call in calls:
            call.cancel()
        for call in calls:  # they have things to write down
            call.settle(CLOSE_GRACE_S)
        for provider in self._providers.values():
            self.owner.wait(provider.close(), 5.0)
        self.owner.close()
        if self.log.store is not None:
            self.log.store.close()
