"""The servers of a process (MCP): which tools they offer now, what can be read from them, what they may ask of the process.

Here: the door, and the one place where other threads meet it. Not here: the protocol (the mcp driver).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from llmproc_nb.core.errors import CallStateError, PromptError, ToolError
from llmproc_nb.core.event import Offered, ServerRead
from llmproc_nb.core.message import Message, cleaned, user
from llmproc_nb.core.tool import ResultParts, Tool, Toolset

if TYPE_CHECKING:
    from llmproc_nb.core.machine import Machine
    from llmproc_nb.core.process import Process
    from llmproc_nb.core.program import Program

T = TypeVar("T")
KNOWN_S = 0.5
ABSENT = "the servers are not there while a recording is replayed"


class ServerDoor(Protocol):
    """Connected servers. They live on the owner loop of the machine they were connected for."""

    @property
    def toolset(self) -> Toolset:
        """Their tools as they are now; after a change it is another value."""
        ...

    @property
    def names(self) -> tuple[str, ...]: ...

    async def resources(self, server: str) -> tuple[Any, ...]: ...

    async def read(self, server: str, resource: str) -> ResultParts:
        """What is in a resource, or what a prompt of that name says without arguments."""
        ...

    async def prompts(self, server: str) -> tuple[Any, ...]: ...

    async def prompt(self, server: str, name: str, arguments: Mapping[str, str] | None = None) -> tuple[Message, ...]: ...

    async def known(self, server: str) -> tuple[Any, ...]:
        """The resources and prompts of a server, as far as they are known without starting it."""
        ...

    def rest(self) -> None:
        """End them until something is asked of them again. Called on the owner loop, for a process that is done for now."""
        ...

    async def close(self) -> None: ...


Connect: TypeAlias = Callable[[], Coroutine[Any, Any, ServerDoor]]


class Connection:
    """What a process and its forks share: their servers, and whether they are connected.

    Where a recording answers they are connected by the first thing that is not in it; in mode replay (`connect` None) never.
    """

    def __init__(self, machine: Machine, names: tuple[str, ...], connect: Connect | None) -> None:
        self.machine, self.names, self._connect = machine, names, connect
        self.door: ServerDoor | None = None
        self.begun: dict[int, int] = {}
        self._one, self._closed = asyncio.Lock(), False

    async def connected(self) -> ServerDoor:
        """The servers, connected. Raises ProgramError, and PromptError where they must not be."""
        if self._connect is None:
            raise PromptError(ABSENT, right="in mode auto, record or live they are")
        async with self._one:
            if self.door is None:
                if self._closed:
                    raise PromptError("the servers were closed", right="they end with the last process that uses them")
                self.door = await self._connect()
        return self.door

    async def close(self) -> None:
        """End them. Also those that are just being connected."""
        self._closed = True
        async with self._one:
            if self.door is not None:
                await self.door.close()

    def wait(self, ask: Callable[[], Coroutine[Any, Any, T]], instead: str) -> T:
        """The answer of a coroutine of the owner loop, for other threads."""
        if self.machine.owner.is_here():
            raise CallStateError("waiting for a server here would never end", place="servers", right=f"async code has {instead}")
        return self.machine.owner.wait(ask())


class Servers:
    """The servers of a process, for callers on any thread but the owner loop's. What is read is written down for whoever replays it."""

    def __init__(self, process: Process, connection: Connection) -> None:
        self._process, self._connection = process, connection
        self.names = connection.names

    @property
    def door(self) -> ServerDoor | None:
        """The servers themselves, once they are connected."""
        return self._connection.door

    async def connected(self) -> ServerDoor:
        """The servers, connected. Raises ProgramError, and PromptError where they must not be."""
        return await self._connection.connected()

    def resources(self, server: str) -> tuple[Any, ...]:
        """What a server has to read. Raises PromptError."""
        return self._ask("resources", server)  # type: ignore[no-any-return]

    def read(self, server: str, resource: str, *, dry: bool = False) -> ResultParts:
        """What is in a resource, by its uri or its name, or what a prompt of that name says. Raises PromptError.

        `dry`: for a look, which is not written down.
        """
        (message,) = self._read(server, resource, None, lambda: (user(self._ask("read", server, resource)),), dry=dry)
        return message.parts  # type: ignore[return-value]  # they were put there as these parts

    def prompts(self, server: str) -> tuple[Any, ...]:
        """The prompts of a server."""
        return self._ask("prompts", server)  # type: ignore[no-any-return]

    def known(self, server: str) -> tuple[Any, ...]:
        """The resources and prompts of a server, as far as they are known now: nothing is started to tell, nor waited for long."""
        door = self.door
        if door is None:
            return ()
        with suppress(PromptError, TimeoutError):
            return self._connection.machine.owner.wait(door.known(server), KNOWN_S)
        return ()

    def prompt(self, server: str, name: str, /, **arguments: Any) -> tuple[Message, ...]:
        """The messages of a prompt. Raises PromptError where there is none, or an argument is missing."""
        given = {key: value if isinstance(value, str) else str(value) for key, value in arguments.items()}
        return self._read(server, name, given, lambda: self._ask("prompt", server, name, given))

    def _read(
        self, server: str, name: str, arguments: dict[str, str] | None, ask: Callable[[], tuple[Message, ...]], *, dry: bool = False
    ) -> tuple[Message, ...]:
        """What is read from a server, or was read when this was recorded; written down either way."""
        process, machine, node = self._process, self._connection.machine, self._process.head.id
        known = machine.recorded.read(process.lineage, process.head.id, server, name, arguments, dry=dry)
        said: tuple[Message, ...] = cleaned(ask()) if known is None else known.said
        if dry:
            return said
        fields = {"node": node, "server": server, "name": name, "arguments": arguments, "said": said, "replayed": known is not None}
        machine.log.write(ServerRead, pid=process.pid, cell=machine.current_cell(), **fields)
        return said

    def _ask(self, what: str, *words: Any) -> Any:
        async def asked() -> Any:
            return await getattr(await self.connected(), what)(*words)

        return self._connection.wait(asked, f"(await process.servers.connected()).{what}(…)")

    def __repr__(self) -> str:
        return f"<Servers {', '.join(self.names)}>"


def servers_for(machine: Machine, program: Program, name: str, parent: Process | None, origin: str) -> Connection | None:
    """The servers of a new process, connected unless a recording answers in their place. A fork has those of its parent."""
    if not program.mcp:
        return None
    if parent is not None and origin == "fork" and program.mcp == parent.program.mcp:
        return parent.loaded.servers
    replays = machine.recorded.mode == "replay"
    servers = Connection(machine, tuple(program.mcp), None if replays else partial(machine.drivers.connect, program, machine, name))
    machine.servers.append(servers)
    if not replays and machine.recorded.offered(machine.lineage(name, parent, peek=True), 0) is None:
        if machine.owner.is_here():
            found = "a process with servers cannot be started on the owner loop"
            raise CallStateError(found, place=name, right="plain functions, and tools that are plain functions, can start it")
        servers.wait(servers.connected, ".connected()")
    return servers


def end_servers(process: Process) -> None:
    """End the servers of a process that was killed, unless a living fork uses them."""
    servers, machine = process.loaded.servers, process.machine
    if servers is None or any(one.alive and one.loaded.servers is servers for one in tuple(machine.processes.values())):
        return
    asyncio.run_coroutine_threadsafe(servers.close(), machine.owner.loop)


def rest_servers(process: Process) -> None:
    """Let the servers of a process that is done rest, unless a fork of it still works with them. Called on the owner loop."""
    servers = process.loaded.servers
    if servers is None or servers.door is None:
        return
    if not any(one.busy and one.loaded.servers is servers for one in tuple(process.machine.processes.values())):
        servers.door.rest()


def renew_tools(process: Process) -> None:
    """Give a process the tools that its servers offer now, and write down which they are. Called where a call begins."""
    servers = process.loaded.servers
    if servers is None:
        return
    number = servers.begun[process.pid] = servers.begun.get(process.pid, -1) + 1
    if servers.door is not None:
        if servers.door.toolset is not process.offered:
            _take(process, servers.door.toolset)
        return
    event = process.machine.recorded.offered(process.lineage, number)
    if event is not None and event.tools != process.offered.specs:
        _take(process, _recorded(servers, event))


def first_tools(process: Process) -> None:
    """Give a new process the tools of its servers."""
    servers = process.loaded.servers
    if servers is None:
        return
    event = process.machine.recorded.offered(process.lineage, 0)
    if servers.door is not None:
        _take(process, servers.door.toolset)
    elif event is not None:
        _take(process, _recorded(servers, event))


def _take(process: Process, offered: Toolset) -> None:
    before, process.offered = process.offered, offered
    own = process.tools.filter(lambda tool: tool.name not in before)
    process.put_tools(own.join(offered))
    access = {tool.name: tool.access for tool in offered}
    bases = {tool.name: tool.base for tool in offered if tool.base}
    process.machine.log.write(Offered, pid=process.pid, lineage=process.lineage, tools=offered.specs, access=access, bases=bases)


def _recorded(servers: Connection, event: Offered) -> Toolset:
    """The tools that were offered when it was recorded. One that must run all the same has the servers connected."""
    tools = []
    for spec in event.tools:
        caller = "_process"
        while caller in spec.parameters.get("properties", {}):
            caller += "_"
        function = partial(_late, servers, spec.name, caller)
        known: dict[str, Any] = {"access": event.access.get(spec.name, "write"), "base": event.bases.get(spec.name, "")}
        tools.append(Tool(spec=spec, function=function, inject={caller: "process"}, timeout_s=None, **known))
    return Toolset(tools)


async def _late(servers: Connection, name: str, caller: str, /, **arguments: Any) -> Any:
    process = arguments.pop(caller, None)
    tool = (await servers.connected()).toolset.get(name)
    if tool is None:
        raise ToolError(f"the servers have no tool {name!r} any more", right="the recording is of an earlier time")
    return await tool.function(**arguments, **{key: process for key, kind in tool.inject.items() if kind == "process"})
