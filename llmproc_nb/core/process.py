"""A process: a running program that stands on a node of the dialog. What a person holds in the notebook."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from llmproc_nb.core.address import Address, node_at, whole
from llmproc_nb.core.approval import Approval
from llmproc_nb.core.branch import Branches, Prompt, RunChild, fan_out, merge, shortened
from llmproc_nb.core.budget import UnderWay
from llmproc_nb.core.call import Call
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import CallStateError, PromptError
from llmproc_nb.core.event import Declared, Killed, Sent, Started
from llmproc_nb.core.fan import Fan
from llmproc_nb.core.field import check_text, several
from llmproc_nb.core.gate import allowed
from llmproc_nb.core.limiter import Limiter
from llmproc_nb.core.link import linked_program, spawned
from llmproc_nb.core.log import EventReader
from llmproc_nb.core.loop import OnMain, Run
from llmproc_nb.core.message import AnyPart, Message, calls_tools, clean
from llmproc_nb.core.provider import Config, DeltaReader, Provider, Request, Settings
from llmproc_nb.core.said import check_callbacks, count_of, message_of
from llmproc_nb.core.sandboxed import Sandbox, end_sandbox
from llmproc_nb.core.server import Connection, Servers, end_servers, renew_tools
from llmproc_nb.core.standing import Standing
from llmproc_nb.core.syscall import with_fds
from llmproc_nb.core.tool import Access, Tool, Toolset
from llmproc_nb.core.usage import Usage

if TYPE_CHECKING:
    from llmproc_nb.core.machine import Machine
    from llmproc_nb.core.program import Program


NOTHING, NO_TOOLS = Usage(), Toolset()
Origin: TypeAlias = Literal["start", "fork", "spawn"]


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a program was made into when it started; shared by a process and its forks."""

    provider: Provider
    limiter: Limiter
    settings: Settings
    linked: Mapping[str, Program]
    servers: Connection | None = None


class Process(Standing):
    """Made by `Machine.start` (or `Program.start`). `head` is the node it stands on; its dialog is the path from the root to there."""

    alive = True
    usage = NOTHING
    children = 0
    steps = 0
    """The requests that it and everyone below it have made."""
    by_model = False
    calls: tuple[Call, ...] = ()
    notes: tuple[str, ...] = ()
    inbox: tuple[str, ...] = ()
    counted: tuple[str, Usage] | None = None
    """The node of its last reply, and what the API counted for it."""
    reply_id = ""
    """The API's id of its last reply."""

    offered = NO_TOOLS
    _config: Config | None = None

    def __init__(
        self,
        machine: Machine,
        *,
        pid: int,
        name: str,
        program: Program,
        head: Node,
        tools: Toolset,
        lineage: str,
        loaded: Loaded,
        access: Access = "admin",
        parent: Process | None = None,
        origin: Origin = "start",
    ) -> None:
        forked = parent if origin == "fork" else None
        super().__init__(machine, pid=pid, name=name, program=program, head=head, lineage=lineage, tools=tools, twin=forked)
        self.parent, self.origin, self.access = parent, origin, access
        self.loaded: Loaded = loaded
        if forked is not None and forked.loaded is loaded:
            self.offered = forked.offered
            self._config = forked._config if forked.tools is tools else None

    @property
    def provider(self) -> Provider:
        return self.loaded.provider

    @property
    def limiter(self) -> Limiter:
        return self.loaded.limiter

    @property
    def linked(self) -> Mapping[str, Program]:
        """The programs that can be reached by links, as they were when the first of the family started."""
        return self.loaded.linked

    @cached_property
    def servers(self) -> Servers | None:
        """The MCP servers of the program; a process and its forks share the connection."""
        return Servers(self, self.loaded.servers) if self.loaded.servers is not None else None

    @cached_property
    def born(self) -> int:
        """The seq of the event with which it began; looked up, because few are ever asked and a fork must cost nothing."""
        events = self.machine.log.events
        return next((event.seq for event in events if isinstance(event, Started) and event.pid == self.pid), 0)

    @cached_property
    def sandbox(self) -> Sandbox:
        """Where its code runs. It costs nothing before the first cell."""
        return Sandbox(self)

    @cached_property
    def under_way(self) -> UnderWay:
        """The requests under way of it and everyone below it, where it has a limit of tokens or dollars."""
        return UnderWay()

    @cached_property
    def turn(self) -> asyncio.Lock:
        """Held by the call that runs; the next ones wait in order."""
        return asyncio.Lock()

    @cached_property
    def starting(self) -> asyncio.Lock:
        """Held while its model starts a child."""
        return asyncio.Lock()

    @cached_property
    def pasting(self) -> asyncio.Lock:
        """Held while its model copies or pastes."""
        return asyncio.Lock()

    # what a person does

    def run(
        self,
        user_input: str | Iterable[AnyPart] | Message,
        *,
        max_iterations: int | None = None,
        callbacks: Mapping[str, Callable[..., Any]] | None = None,
        schema: Any = None,
        on_delta: DeltaReader | None = None,
        on_main: OnMain | None = None,
        on_begin: Callable[[], None] | None = None,
        on_event: EventReader | None = None,
        cell: str | None = None,
        fan: Fan | None = None,
    ) -> Call:
        """Run from a user message to a natural stop; gives a Call at once.

        `max_iterations`: how many requests this call may make (default: the program's). `callbacks`: functions by name,
        `on_tool_start(name, arguments)`, `on_tool_end(name, result)`, `on_response(text)` of replies with a text. `schema`: a pydantic
        model, a dataclass or a JSON schema that the answer must follow; the value is in `result.parsed`. The others are for views.
        """
        self.check_alive()
        limits = self.program.limits
        if max_iterations is not None:
            limits = msgspec.structs.replace(limits, max_iterations=count_of(max_iterations))
        renew_tools(self)
        said = message_of(user_input, self.machine.drivers.prompt_value)
        check_callbacks(callbacks or {})
        config, parse = self.config, None
        if schema is not None:
            json_schema, parse = self.machine.drivers.schema(schema)
            config = self.declared(msgspec.structs.replace(self.loaded.settings, output_schema=json_schema))
        call = Call(self, self.machine.next_call())
        run = Run(
            self,
            call.number,
            said,
            limits=limits,
            config=config,
            cell=cell if cell is not None else self.machine.current_cell(),
            callbacks=callbacks,
            on_delta=on_delta,
            on_main=on_main,
            on_begin=on_begin,
            on_event=on_event,
            parse=parse,
            fan=fan,
        )
        with self.machine.lock:
            self.calls = (call, *(other for other in self.calls if not other.done()))
        return call.start(run.supervise())

    def fork(
        self,
        name: str | None = None,
        *,
        at: Address | None = None,
        first_k: int | None = None,
        last_n: int | None = None,
        program: Program | None = None,
    ) -> Process:
        """A child that stands where this process stands, or at an address of its dialog; nothing is copied and nothing runs.

        `first_k` and `last_n` make the branch shorter: only the first k and the last n messages, and a note of how many are left out.
        `program` is another program for the child. Its usage counts for the limits of this one. Raises LimitReached.
        """
        if not (name is None or isinstance(name, str)):  # as fast as it can be: a fork takes 5 µs
            check_text("fork", "name", name)
        node = self._branch_at(at, first_k, last_n)
        return self.machine.fork(self, node, name=name, program=program)

    def fork_map(
        self,
        prompts: Iterable[Prompt],
        *,
        names: Sequence[str] | None = None,
        at: Address | None = None,
        first_k: int | None = None,
        last_n: int | None = None,
        programs: Sequence[Program] | None = None,
        run: RunChild | None = None,
    ) -> Branches:
        """One child for each prompt, all answering at once. Await it, or call `wait()`. Raises LimitReached before anything runs.

        One request writes the common path to the provider's cache, the others read it. `programs` are those of the children, `run`
        starts the call of one (for views).
        """
        node = self._branch_at(at, first_k, last_n)
        return fan_out(self, node, prompts, names=names, programs=programs, run=run)

    def _branch_at(self, at: Address | None, first_k: int | None, last_n: int | None) -> Node:
        """The node that a child stands on: a legal place, and the end of a shorter branch where one is asked for."""
        node = self.head if at is None else node_at(self, at)
        if calls_tools(node.message):
            node = whole(self, node)
        return node if first_k is None and last_n is None else shortened(self, node, first_k, last_n)

    def spawn(
        self,
        program: Program | str = "",
        name: str | None = None,
        *,
        preload: Sequence[str] = (),
        fds: Sequence[str] = (),
        access: Access | None = None,
        by_model: bool = False,
    ) -> Process:
        """A child with another program, or that of a link's name; empty: this one's. It knows nothing of this dialog.

        `preload` are files added to its system prompt, relative to this program's folder; `fds` are fds of this process it may read.
        Raises LimitReached, or ProgramError.
        """
        linked = linked_program(self, program)
        name = name or (program if isinstance(program, str) and program else linked.name)
        return spawned(self, linked, name, preload=preload, fds=fds, access=access, by_model=by_model)

    def merge(self, child: Process | str, note: str | None = None) -> Node:
        """Bring a branch home as one message: its conclusion, its newest pictures, its fds under numbers of this process, what it took.

        `child` may be a name, as in `%merge`. The branch stays as it is.
        """
        if not isinstance(child, Process):
            check_text("merge", "child", child, "a process or its name is needed")
            child = self.machine.find(child)
        self._between_calls()  # before any of its fds is taken
        return merge(self, child, note)

    def send(self, text: str, sender: Process | None = None) -> None:
        """Put a text before the process: it reads it with its next request, also while a call runs."""
        self.check_alive()
        check_text("send", "text", text)
        if not text.strip():
            raise PromptError("the message is empty", place=self.name, right="a process needs something to read")
        # first into the log: the call that runs may read it at once
        self.machine.log.write(Sent, pid=self.pid, text=clean(text), sender=sender.pid if sender is not None else None)
        with self.machine.log.alone():
            self.inbox = (*self.inbox, clean(f"[message from {sender.name}] {text}" if sender is not None else text))

    def kill(self) -> None:
        """End the process: a call that runs is stopped, no further one is taken. Its dialog and log stay."""
        if not self.alive:
            return
        self.alive = False
        for call in self.calls:
            call.cancel()
        try:
            self.machine.log.write(Killed, pid=self.pid)
        finally:  # a log that cannot take it now keeps it for later, and must not keep anything running
            end_servers(self)
            end_sandbox(self)
            self._end_children()

    def _end_children(self) -> None:
        """End what was started for it, also by forks that its model made; these stay, as branches that may be gone on with."""
        for child in self.machine.children(self):
            if child.origin == "spawn":
                child.kill()
            elif child.by_model:
                child._end_children()

    def add_tools(self, tools: Iterable[Tool | Callable[..., Any]]) -> None:
        """Offer more tools from the next call on; one of the same name takes the place of the old one."""
        more = self.machine.drivers.tools(several("add_tools", "tools", tools), self.program)
        self.put_tools(self.tools.join(more))

    def put_tools(self, tools: Toolset) -> None:
        """Have these tools from the next call on, as far as its access allows them."""
        self.tools = with_fds(allowed(tools, self.access), self.program)
        self._config = None

    def count_tokens(self) -> dict[str, int | float | None]:
        """The length of the dialog in tokens, as the last reply counted it, and the model's window where it is known."""
        replies = self.machine.replies(self)
        used = replies[-1].usage.total_tokens if replies else None
        window = self.machine.drivers.window(self.config.model, self.program.provider)
        known = window is not None and used is not None
        left, share = (window - used, 100 * used / window) if known else (None, None)  # type: ignore[operator]
        return {"input_tokens": used, "context_window": window, "remaining_tokens": left, "percentage": share}

    @property
    def model(self) -> str:
        return self.program.model

    @property
    def state(self) -> str:
        """`idle`, `running`, or `killed`."""
        return "killed" if not self.alive else "running" if self.running else "idle"

    @property
    def busy(self) -> bool:
        """Whether a call runs or waits for its turn."""
        return any(not call.done() for call in self.calls)

    @property
    def ancestors(self) -> tuple[Process, ...]:
        """Its parent, its parent's parent, and so on."""
        found, process = list[Process](), self.parent
        while process is not None:
            found.append(process)
            process = process.parent
        return tuple(found)

    @property
    def policies(self) -> dict[Process, Approval]:
        """The rules that hold for its tool calls, by whose they are: its own, and those of all above it."""
        return {one: one.program.approval for one in (self, *self.ancestors) if one.program.approval is not None}

    @property
    def root(self) -> Process:
        """The process its family began with."""
        return (self, *self.ancestors)[-1]

    # what the loop needs

    @property
    def config(self) -> Config:
        if self._config is None:
            self._config = self.declared(self.loaded.settings)
        return self._config

    def declared(self, settings: Any) -> Config:
        """A config whose declaration is in the log."""
        config = Config(model=self.program.model, tools=self.tools.specs, settings=settings)
        if self.machine.declare(config.id):
            self.machine.log.write(
                Declared, pid=self.pid, config=config.id, model=config.model, tools=config.tools, settings=settings.public()
            )
        return config

    def request(self, config: Config, shared: Node | None = None) -> Request:
        """The next request from where the process stands."""
        after = next((one.reply_id for one in (self, *self.ancestors) if one.reply_id), "") if shared is not None else ""
        draft = Request(path=self.path, config=config, lineage=self.lineage, shared=shared, after=after)
        return msgspec.structs.replace(draft, sibling=self.machine.next_sibling(self.lineage, draft.digest))

    def take_inbox(self) -> tuple[str, ...]:
        """What was sent since the last time."""
        if not self.inbox:
            return ()
        with self.machine.log.alone():
            texts, self.inbox = self.inbox, ()
        return texts

    def spend(self, usage: Usage) -> None:
        """Count usage for this process and everyone above it, and for the calls in which those above wait for it."""
        process: Process | None = self
        while process is not None:
            process.usage = process.usage + usage
            if process is not self and process.running is not None:
                process.running.below = process.running.below + usage
            process = process.parent

    def check_alive(self) -> None:
        if not self.alive:
            raise CallStateError(f"process {self.name!r} (pid {self.pid}) was killed", right="a new one is needed", step="Start it again.")

    def __repr__(self) -> str:
        return f"<Process {self.name} pid={self.pid} {self.state} {self.program.provider}:{self.program.model} depth={self.head.depth}>"
