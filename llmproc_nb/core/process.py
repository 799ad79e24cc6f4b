"""A process: a running program that stands on a node of the dialog. What a person holds in the notebook."""

from __future__ import annotations

import asyncio
import difflib
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core import message as messages
from llmproc_nb.core.call import Call
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import CallStateError, PromptError
from llmproc_nb.core.event import Appended, Declared, Killed, Moved
from llmproc_nb.core.limiter import Limiter
from llmproc_nb.core.log import EventReader
from llmproc_nb.core.loop import OnMain, Run
from llmproc_nb.core.message import AnyPart, Document, Image, Message, Part, Text, cleaned
from llmproc_nb.core.provider import Config, DeltaReader, Provider, Request
from llmproc_nb.core.tool import Tool, Toolset
from llmproc_nb.core.usage import Limits, Usage

if TYPE_CHECKING:
    from llmproc_nb.core.machine import Machine
    from llmproc_nb.core.program import Program


class Process:
    """Made by `Machine.start` (or `Program.start`). `head` is the node it stands on; its dialog is the path from the root to there."""

    def __init__(
        self,
        machine: Machine,
        *,
        pid: int,
        name: str,
        program: Program,
        head: Node,
        tools: Toolset,
        provider: Provider,
        limiter: Limiter,
        lineage: str,
        linked: Mapping[str, Program] | None = None,
        parent: Process | None = None,
    ) -> None:
        self.machine, self.pid, self.name, self.program, self.lineage, self.parent = machine, pid, name, program, lineage, parent
        self.head, self.tools, self.provider, self.limiter = head, tools, provider, limiter
        self._path: tuple[Node, ...] = ()
        self.first, self.linked = head, dict(linked or {})
        self.usage = Usage()
        self.alive = True
        self.running: Run | None = None
        self.calls: list[Call] = []
        self.notes: tuple[str, ...] = ()
        self._config: Config | None = None
        self._lock = threading.Lock()
        self._settings = machine.drivers.settings(program)

    @cached_property
    def turn(self) -> asyncio.Lock:
        """Held by the call that runs; the next ones wait in order."""
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
    ) -> Call:
        """Run from a user message to a natural stop; gives a Call at once.

        `max_iterations`: how many requests this call may make (default: the program's). `callbacks`: functions by name,
        `on_tool_start(name, arguments)`, `on_tool_end(name, result)`, `on_response(text)`. `schema`: a pydantic model, a
        dataclass or a JSON schema that the answer must follow; the value is in `result.parsed`. The others are for views.
        """
        self.check_alive()
        said = _said(user_input, self.machine.show)
        _check_callbacks(callbacks or {})
        limits = self.program.limits
        if max_iterations is not None:
            limits = msgspec.structs.replace(limits, steps=max_iterations)
        config, parse = self.config, None
        if schema is not None:
            json_schema, parse = self.machine.drivers.schema(schema)
            config = self._declared(msgspec.structs.replace(self._settings, output_schema=json_schema))
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
        )
        with self._lock:
            self.calls = [call, *(other for other in self.calls if not other.done())]
        return call.start(run.supervise())

    def get_last_message(self) -> str:
        """The text the model said last on this process's path; empty when it has said nothing."""
        return next((node.message.text for node in self.head.up() if node.message.role == "assistant" and node.message.text), "")

    def reset_state(self) -> None:
        """Go back to where the process began. What was said stays in the tree and in the log."""
        self.move(self.first, "reset")

    def kill(self) -> None:
        """End the process: a call that runs is stopped, no further one is taken. Its dialog and log stay."""
        if not self.alive:
            return
        self.alive = False
        for call in self.calls:
            call.cancel()
        self.machine.log.write(Killed, pid=self.pid)

    def add_tools(self, tools: Iterable[Tool | Callable[..., Any]]) -> None:
        """Offer more tools from the next call on; one of the same name takes the place of the old one."""
        self.tools = self.tools.join(self.machine.drivers.tools(tuple(tools), self.program))
        self._config = None

    def count_tokens(self) -> dict[str, int | float | None]:
        """The length of the dialog in tokens, as the last reply counted it, and the model's window where it is known."""
        last = next((call for call in reversed(self.machine.replies(self))), None)
        used = (last.usage.total_tokens) if last else None
        window = self.machine.drivers.window(self.config.model, self.program.provider)
        left = window - used if window and used is not None else None
        share = 100 * used / window if window and used is not None else None
        return {"input_tokens": used, "context_window": window, "remaining_tokens": left, "percentage": share}

    @property
    def path(self) -> tuple[Node, ...]:
        """The nodes of this process's dialog, root first."""
        known, head, new = self._path or (self.first,), self.head, list[Node]()  # local: any thread may ask
        node = head
        while node.depth >= len(known) and node.parent is not None:
            new.append(node)
            node = node.parent
        self._path = path = (*known, *reversed(new)) if node is known[-1] else head.path()
        return path

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of this process's dialog, system prompt first."""
        return tuple(node.message for node in self.path)

    @property
    def model(self) -> str:
        return self.program.model

    @property
    def state(self) -> str:
        """`idle`, `running`, or `killed`."""
        return "killed" if not self.alive else "running" if self.running else "idle"

    # what the loop needs

    @property
    def config(self) -> Config:
        if self._config is None:
            self._config = self._declared(self._settings)
        return self._config

    def _declared(self, settings: Any) -> Config:
        """A config whose declaration is in the log."""
        config = Config(model=self.program.model, tools=self.tools.specs, settings=settings)
        if self.machine.declare(config.id):
            self.machine.log.write(
                Declared, pid=self.pid, config=config.id, model=config.model, tools=config.tools, settings=settings.public()
            )
        return config

    def request(self, config: Config) -> Request:
        """The next request from where the process stands."""
        draft = Request(path=self.path, config=config, lineage=self.lineage)
        return msgspec.structs.replace(draft, sibling=self.machine.next_sibling(self.lineage, draft.digest))

    def append(self, message: Message, *, call: int | None = None, cell: str | None = None, results: tuple[int, ...] = ()) -> Node:
        """Add a message after the head and stand on it."""
        parent, message = self.head, cleaned(message)
        node, new = self.machine.dialog.append(message, parent)
        self.head = node  # before the event: if the log cannot take it now, it keeps it for later, and the path must be whole
        if new:
            said = None if results else message
            self.machine.log.write(
                Appended, pid=self.pid, call=call, cell=cell, node=node.id, parent=parent.id, message=said, results=results
            )
        return node

    def move(self, node: Node, reason: str, *, call: int | None = None, cell: str | None = None) -> None:
        """Stand on another node; nothing is lost, the left branch stays in the tree."""
        if self.running is not None and call is None:
            found = f"process {self.name!r} is running"
            raise CallStateError(found, right="its head is moved between calls", step="Wait for it, or stop it.")
        if node is self.head:
            return
        before, self.head = self.head, node
        self.machine.log.write(Moved, pid=self.pid, call=call, cell=cell, node=node.id, before=before.id, reason=reason)

    def spend(self, usage: Usage) -> None:
        """Count usage for this process and everyone above it."""
        process: Process | None = self
        while process is not None:
            process.usage = process.usage + usage
            process = process.parent

    def limit_reached(self, limits: Limits, *, steps: int, seconds: float) -> str | None:
        """The stop reason of the first limit used up, here or above."""
        stop = limits.reached(steps=steps, seconds=seconds, usage=self.usage)
        process = self.parent
        while stop is None and process is not None:
            stop = process.program.limits.reached(steps=-1, seconds=-1.0, usage=process.usage)
            process = process.parent
        return stop

    def check_alive(self) -> None:
        if not self.alive:
            raise CallStateError(f"process {self.name!r} (pid {self.pid}) was killed", right="a new one is needed", step="Start it again.")

    def __repr__(self) -> str:
        return f"<Process {self.name} pid={self.pid} {self.state} {self.program.provider}:{self.program.model} depth={self.head.depth}>"


CALLBACKS = ("on_tool_start", "on_tool_end", "on_response")


def _check_callbacks(callbacks: Mapping[str, Any]) -> None:
    for name in callbacks:
        if name not in CALLBACKS and f"on_{name}" not in CALLBACKS:
            near = difflib.get_close_matches(name, CALLBACKS, 1)
            raise PromptError(
                f"there is no callback {name!r}", right=f"did you mean {near[0]!r}?" if near else f"there are {', '.join(CALLBACKS)}"
            )


def _said(user_input: Any, show: Callable[[Any], Any]) -> Message:
    """What is said to a process: text, parts or a message; in a notebook also its values, as in a prompt."""
    said = user_input
    if not isinstance(said, str | Message) and not _is_parts(said):
        said = show(said)
    if isinstance(said, Part):
        said = (said,)
    if not isinstance(said, str | Message) and not _is_parts(said):
        found = f"a prompt cannot be a {type(user_input).__name__}"
        raise PromptError(found, right="text, a Message or a list of parts is needed", step="In an agent cell, {{value}} shows a value.")
    message = said if isinstance(said, Message) else messages.user(said if isinstance(said, str) else tuple(said))
    if not message.parts or not any(not isinstance(part, Text) or part.text.strip() for part in message.parts):
        raise PromptError("the prompt is empty", right="a process needs something to answer")
    if message.role != "user" or not all(isinstance(part, Text | Image | Document) for part in message.parts):
        what = f"a message of role {message.role!r}" if message.role != "user" else "a tool call or an answer to one"
        raise PromptError(f"{what} is no prompt", right="a user says text, images and documents")
    return message


def _is_parts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(part, Part) for part in value)
