"""The loop: ask, answer the tool calls, ask again, until the model stops by itself or a limit does.

Here: the order of things and what is true afterwards, however it ended: the path is legal, every tool call on it has its answer.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from llmproc_nb.core.ask import Attempts, ask, spent
from llmproc_nb.core.call import Call, inside
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import AnswerError, LlmprocError, LogError, ToolError
from llmproc_nb.core.event import Called, Event, ReaderFailed, Replied, Stopped
from llmproc_nb.core.log import EventReader
from llmproc_nb.core.message import Message, ToolCall, clean
from llmproc_nb.core.provider import Config, Delta, DeltaReader, Reply, Request
from llmproc_nb.core.result import ApiCall, RunResult, ToolRun
from llmproc_nb.core.toolrun import CUT_OFF, NOT_RUN, refuse_all, run_tools
from llmproc_nb.core.usage import Limits, Usage

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process

E = TypeVar("E", bound=Event)
OnMain = Callable[[Callable[[], Any]], Future[Any]]


class Run:
    """One call while it runs: what it may use, who reads along, and what happened so far."""

    def __init__(
        self,
        process: Process,
        number: int,
        message: Message,
        *,
        limits: Limits,
        config: Config,
        cell: str | None = None,
        callbacks: Mapping[str, Callable[..., Any]] | None = None,
        on_delta: DeltaReader | None = None,
        on_main: OnMain | None = None,
        on_begin: Callable[[], None] | None = None,
        on_event: EventReader | None = None,
        parse: Callable[[str], Any] | None = None,
    ) -> None:
        self.process, self.machine = process, process.machine
        self.number, self.message, self.limits, self.config, self.cell = number, message, limits, config, cell
        self.on_main, self._on_begin, self._parse = on_main, on_begin, parse
        self._callbacks, self._on_delta, self._on_event = dict(callbacks or {}), on_delta, on_event
        self.usage = Usage()
        self.api_calls: list[ApiCall] = []
        self.tool_runs: list[ToolRun] = []
        self.nodes: list[Node] = []
        self.detail: str | None = None
        self.notes: list[str] = []
        self.tools = process.tools
        self.waits_for: set[Call] = set()
        self.unkept: LogError | None = None

    def write(self, kind: type[E], **fields: Any) -> E:
        event = self.machine.log.write(kind, pid=self.process.pid, call=self.number, cell=self.cell, **fields)
        self.unkept = None  # the store writes what waited before anything else
        self._show(self._on_event, event)
        return event

    def keep(self, kind: type[E], **fields: Any) -> int:
        """Write what has happened already, and give its seq; 0 where the log cannot take it now, which ends the call at its next step."""
        try:
            return self.write(kind, **fields).seq
        except LogError as error:
            self.unkept = self.unkept or error
            return 0

    def check_log(self) -> None:
        """Raises LogError where something that happened is not on disk."""
        if self.unkept is not None:
            raise self.unkept

    def delta(self, delta: Delta) -> None:
        """Pass a piece of a reply on to the live view."""
        self._show(self._on_delta, delta)

    def _show(self, reader: Callable[[Any], None] | None, what: Any) -> None:
        if reader is None:
            return
        try:
            reader(what)
        except (
            Exception,
            SystemExit,
            KeyboardInterrupt,
        ) as error:  # the view is a reader like any other: foreign code that must not stop the call
            self._on_delta = self._on_event = None
            self.write(ReaderFailed, reader="live view", error=clean(f"{type(error).__name__}: {error}"))

    async def tell(self, what: str, *values: Any) -> None:
        """Tell the callback of that name, if there is one; one that raises is taken off and the call goes on."""
        for key in (f"on_{what}", what):
            callback = self._callbacks.get(key)
            if callback is None:
                continue
            try:
                told = callback(*values)
                if inspect.isawaitable(told):
                    await told
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # a callback reads events, it does not decide what happens
                del self._callbacks[key]
                words = clean(f"{type(error).__name__}: {error}")
                self.write(ReaderFailed, reader=key, error=words)
                self.notes.append(f"the callback {key} raised {words}; it was not called again")

    def priced(self, usage: Usage, model: str) -> Usage:
        """The usage with its price, as far as it is known."""
        cost = self.machine.price(model or self.config.model, self.process, usage)
        if cost is None:
            return msgspec.structs.replace(usage, unpriced_requests=usage.requests)
        return msgspec.structs.replace(usage, cost_usd=cost)

    def spend(self, usage: Usage) -> None:
        self.usage = self.usage + usage
        self.process.spend(usage)

    def append(self, message: Message, results: tuple[int, ...] = ()) -> Node:
        try:
            node = self.process.append(message, call=self.number, cell=self.cell, results=results)
        except LogError as error:  # the process stands on the node all the same, and the log has it for later
            node, self.unkept = self.process.head, self.unkept or error
        self.nodes.append(node)
        return node

    async def supervise(self) -> RunResult:
        """Run to the end and say how it ended. Raises what stopped it where that was an error; the path is legal in any case."""
        async with self.process.turn:
            self.process.check_alive()
            if self._on_begin is not None:
                self._on_begin()
            began = self.machine.clock.monotonic()
            before = self.process.head
            self.process.running = self
            inside.set((*inside.get(), self))
            reason, fault = "error", "the loop itself failed"
            try:
                node = self.append(self.message)
                self.write(Called, node=node.id, before=before.id)
                ended = await self._steps(began)
                self.check_log()
                reason, fault = ended, ""
            except asyncio.CancelledError:
                reason, fault = ("interrupted" if self.process.alive else "killed"), ""
            except LlmprocError as error:
                fault = error.for_cell()
                raise
            finally:
                self.process.running = None
                with suppress(LogError):
                    self._tidy(before, failed=reason == "error")
                duration_s = self.machine.clock.monotonic() - began
                self.write(
                    Stopped, reason=reason, node=self.process.head.id, usage=self.usage, duration_s=duration_s, error=clean(fault) or None
                )
            return self._result(reason, duration_s)

    def _tidy(self, before: Node, *, failed: bool) -> None:
        """Leave a legal path: answer calls that are open; take back a question that got no answer at all."""
        head = self.process.head
        if head.message.tool_calls:
            self._answer(*refuse_all(self, head, NOT_RUN))
        elif failed and self.nodes and not self.api_calls:
            self.process.move(before, "failed", call=self.number, cell=self.cell)

    async def _steps(self, began: float) -> str:
        for step in range(10**9):
            self.check_log()
            stop = self.process.limit_reached(self.limits, steps=step, seconds=self.machine.clock.monotonic() - began)
            if stop is not None:
                return stop
            try:
                async with asyncio.timeout(_left_s(self.limits, self.machine.clock.monotonic() - began)) as deadline:
                    reply = await self._reply()
            except TimeoutError:
                if not deadline.expired():
                    raise
                return "max_seconds"
            self.check_log()
            calls = reply.message.tool_calls
            if calls and reply.stop in ("max_tokens", "context_window", "refusal"):
                self._answer(*refuse_all(self, self.process.head, CUT_OFF))
                return reply.stop
            if calls:
                runs, seqs, whole = await run_tools(self, self.process.head)
                self._answer(runs, seqs)
                if not whole:
                    raise asyncio.CancelledError
            elif reply.stop != "pause_turn":
                return reply.stop
        raise AssertionError("a call has no end")

    async def _reply(self) -> Reply:
        """The next reply, appended. When cancelled, what was said so far is appended instead, marked as interrupted."""
        request = self.process.request(self.config)
        attempts = Attempts()
        try:
            reply = await ask(self, request, attempts)
        except asyncio.CancelledError:
            if attempts.draft:
                usage = spent(self, attempts.draft)
                self.spend(usage)
                self._append_reply(
                    request, Reply(message=attempts.draft.message(interrupted=True), stop="other", usage=usage), attempts, "interrupted"
                )
            raise
        reply = msgspec.structs.replace(reply, usage=self.priced(reply.usage, reply.model))
        self.spend(reply.usage)
        self.detail = reply.detail
        self._append_reply(request, reply, attempts, reply.stop)
        await self.tell("response", reply.message.text)
        return reply

    def _append_reply(self, request: Request, reply: Reply, attempts: Attempts, stop: str) -> None:
        message = _with_unique_ids(reply.message, request.path)
        node = self.append(message)
        duration_s = (attempts.ended or self.machine.clock.monotonic()) - attempts.began
        replayed = attempts.draft is not None and attempts.draft.replayed
        self.keep(
            Replied,
            node=node.id,
            digest=request.digest,
            lineage=request.lineage,
            sibling=request.sibling,
            stop=stop,
            raw_stop=reply.raw_stop,
            detail=reply.detail,
            model=reply.model,
            id=reply.id,
            usage=reply.usage,
            duration_s=duration_s,
            first_s=attempts.first - attempts.began if attempts.first else None,
            attempts=attempts.count,
            replayed=replayed,
        )
        self.api_calls.append(
            ApiCall(
                model=reply.model or self.config.model,
                stop=stop,
                raw_stop=reply.raw_stop,
                id=reply.id,
                usage=reply.usage,
                duration_s=duration_s,
                attempts=attempts.count,
                node=node.id,
                replayed=replayed,
            )
        )

    def _answer(self, runs: list[ToolRun], seqs: list[int]) -> None:
        self.tool_runs += runs
        self.append(Message(role="tool", parts=tuple(run.result for run in runs)), tuple(seqs) if all(seqs) else ())

    def _result(self, reason: str, duration_s: float) -> RunResult:
        text = next((node.message.text for node in reversed(self.nodes) if node.message.role == "assistant"), "")
        process = self.process
        return RunResult(
            text=text,
            stop_reason=reason,
            process=process.name,
            pid=process.pid,
            call=self.number,
            program=process.program.name,
            provider=process.provider.name,
            model=self.config.model,
            scripted=process.provider.scripted,
            nodes=tuple(self.nodes),
            api_calls=tuple(self.api_calls),
            tool_calls=tuple(self.tool_runs),
            usage=self.usage,
            duration_s=duration_s,
            detail=self.detail,
            parsed=self._parsed(text) if reason == "end_turn" else None,
            notes=tuple(self.notes),
        )

    def _parsed(self, text: str) -> Any:
        if self._parse is None:
            return None
        try:
            return self._parse(text)
        except ToolError as error:
            right = error.right or "an answer that follows the schema is needed"
            raise AnswerError(error.found, place=self.process.name, right=right, step="The answer itself is get_last_message().") from None


def _left_s(limits: Limits, used_s: float) -> float | None:
    return None if limits.seconds is None else max(0.0, limits.seconds - used_s)


def _with_unique_ids(message: Message, path: tuple[Node, ...]) -> Message:
    """The message with no tool call id that is on the path already: an API refuses a dialog in which two calls share one."""
    if not message.tool_calls:
        return message
    used = {call.id for node in path if node.message.role == "assistant" for call in node.message.tool_calls}
    parts = []
    for part in message.parts:
        if isinstance(part, ToolCall):
            unique, count = part.id or "call", 2
            while unique in used:
                unique, count = f"{part.id or 'call'}_{count}", count + 1
            used.add(unique)
            part = part if unique == part.id else msgspec.structs.replace(part, id=unique)
        parts.append(part)
    return msgspec.structs.replace(message, parts=tuple(parts))
