"""The loop: ask, answer the tool calls, ask again, until the model stops by itself or a limit does.

Here: the order of things and what is true afterwards, however it ended: the path is legal, every tool call on it has its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core.approval import Decision
from llmproc_nb.core.ask import Attempts, ask, spent
from llmproc_nb.core.budget import Share
from llmproc_nb.core.call import Call, inside
from llmproc_nb.core.compaction import fitting
from llmproc_nb.core.decision import PersonTime, decide
from llmproc_nb.core.decision import lines as decision_lines
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import AnswerError, LlmprocError, LogError, ToolError
from llmproc_nb.core.event import Called, CodeRan, Replied, Stopped
from llmproc_nb.core.fan import Fan
from llmproc_nb.core.gate import take_step
from llmproc_nb.core.log import EventReader
from llmproc_nb.core.message import Message, ToolCall, calls_tools, clean, user
from llmproc_nb.core.paging import log_fds, open_references, paged_input
from llmproc_nb.core.provider import Config, DeltaReader, Reply, Request
from llmproc_nb.core.reading import PERSON
from llmproc_nb.core.result import ApiCall, RunResult, ToolRun
from llmproc_nb.core.sandboxed import warm
from llmproc_nb.core.syscall import run_python, target, went_back
from llmproc_nb.core.told import Told
from llmproc_nb.core.tool import read_arguments
from llmproc_nb.core.toolrun import CUT_OFF, NOT_RUN, refuse_all, run_tools
from llmproc_nb.core.usage import Limits, Usage

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process

OnMain = Callable[[Callable[[], Any]], Future[Any]]


class Run(Told):
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
        fan: Fan | None = None,
    ) -> None:
        self.message, self.limits, self.config = message, limits, config
        self.on_main, self._on_begin, self._parse = on_main, on_begin, parse
        super().__init__(process, number, cell, callbacks=callbacks, on_delta=on_delta, on_event=on_event)
        self.fan = fan
        self.usage = self.below = Usage()
        self.person = PersonTime(self.machine.clock.monotonic)
        self.decisions: dict[tuple[str, int], Decision] = {}
        self.api_calls: list[ApiCall] = []
        self.tool_runs: list[ToolRun] = []
        self.nodes: list[Node] = []
        self.code: list[CodeRan] = []
        self.earlier: tuple[Node, ...] = ()
        self.before: Node = process.head
        self.detail: str | None = None
        self.tools = process.tools
        self.waits_for: set[Call] = set()
        self.began = 0.0
        self.above: tuple[Run, ...] = ()

    def priced(self, usage: Usage, model: str) -> Usage:
        """The usage with its price, as far as it is known; one that comes from a recording has the price it had."""
        if usage.cost_usd or usage.unpriced_requests:
            return usage
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

    def ran_code(self, **fields: Any) -> CodeRan:
        """Write down a code cell of this call."""
        self.code.append(self.write(CodeRan, **fields))
        return self.code[-1]

    async def supervise(self) -> RunResult:
        """Run to the end and say how it ended. Raises what stopped it where that was an error; the path is legal in any case."""
        async with self.process.turn:
            self.process.check_alive()
            if self._on_begin is not None:
                self._on_begin()
            if any(tool.function is run_python for tool in self.tools):
                warm(self.process)
            began = self.began = self.machine.clock.monotonic()
            with self.machine.log.alone():  # whoever moves the head now does it before this call or not at all
                self.process.running = self
            self.above = tuple(run for run in inside.get() if run.process in self.process.ancestors)
            inside.set((*inside.get(), self))
            self._read_inbox()
            self.before = self.process.head
            reason, fault = "error", "the loop itself failed"
            try:
                node = self.append(self._paged(self.message))
                self.write(Called, node=node.id, before=self.before.id)
                ended = await self._steps()
                self.check_log()
                reason, fault = ended, ""
            except asyncio.CancelledError:
                timed_out = self.machine.recorded.end(self.process.lineage, self.process.head.id) == "max_seconds"
                reason, fault = "killed" if not self.process.alive else "max_seconds" if timed_out else "interrupted", ""
            except LlmprocError as error:
                fault = error.for_cell()
                raise
            finally:
                self.process.running = None
                with suppress(LogError):
                    self._tidy(failed=reason == "error")
                duration_s = self.machine.clock.monotonic() - began
                self.write(
                    Stopped, reason=reason, node=self.process.head.id, usage=self.usage, duration_s=duration_s, error=clean(fault) or None
                )
            return self._result(reason, duration_s)

    def _tidy(self, *, failed: bool) -> None:
        """Leave a legal path: answer calls that are open; take back a question that got no answer at all."""
        head = self.process.head
        if calls_tools(head.message):
            self._answer(*refuse_all(self, head, NOT_RUN))
        elif failed and all(node.message.role == "user" for node in (*self.earlier, *self.nodes)):
            self.process.move(self.before, "failed", call=self.number, cell=self.cell)

    async def _steps(self) -> str:
        for step in range(10**9):
            self.check_log()
            self._read_inbox()
            if self.left_s() == 0:
                return "max_seconds"
            recorded = self.machine.recorded
            replays = recorded.mode == "replay"
            stop = recorded.stop(self.process.lineage, self.process.head.id) if replays else None
            share = Share(self)
            try:
                if stop is None and not replays:
                    await share.take()
                stop = stop or take_step(self.process, self.limits, iteration=step, seconds=self._used_s(), shared=not replays)
                if stop is not None:
                    return stop
                async with self.person.timeout(self.left_s()) as deadline:
                    reply = await fitting(self, self._reply)
                    share.give_back(reply.usage)
                    self.check_log()
                    calls = reply.message.tool_calls
                    if calls and reply.stop not in ("max_tokens", "context_window", "refusal") and not await self._jump():
                        await self._run_tools()
            except TimeoutError:
                if not deadline.expired():
                    raise
                return "max_seconds"
            finally:
                share.give_back()
            if deadline.expired():  # the tools took the time: each has its answer
                return "max_seconds"
            if calls and calls_tools(self.process.head.message):
                self._answer(*refuse_all(self, self.process.head, CUT_OFF))
                return reply.stop
            if not calls and reply.stop != "pause_turn" and not self.process.inbox:
                return reply.stop
        raise AssertionError("a call has no end")

    def _used_s(self) -> float:
        """The time the call has used: waiting for a person does not count."""
        return self.machine.clock.monotonic() - self.began - self.person.spent_s

    def left_s(self) -> float | None:
        """The time that is left for this call, and for those above in which it was begun: also where none of them waits for it."""
        left = [run.limits.seconds - run._used_s() for run in (self, *self.above) if run.limits.seconds is not None]
        return max(0.0, min(left)) if left else None

    async def _run_tools(self) -> None:
        node = self.process.head
        runs, seqs, whole = await run_tools(self, node)
        self.notes += decision_lines(self, node)
        self._answer(runs, seqs)
        if not whole:
            raise asyncio.CancelledError

    async def _jump(self) -> bool:
        """Follow the reply's first goto that leads somewhere: leave the reply, its calls answered, and go on from there with the note."""
        process, reply = self.process, self.process.head
        for position, call in enumerate(reply.message.tool_calls):
            tool = self.tools.get(call.name)
            if tool is None or tool.kind != "jump" or tool.check is None:
                continue
            try:
                given = read_arguments(call.arguments)
                arguments = tool.check(given)
                node = target(process, arguments["position"])
                made = await decide(self, reply, position, tool, given)
                if made is not None and not made.allowed:
                    continue
                if made is not None and made.arguments is not None:
                    arguments = tool.check(made.arguments)
                    node = target(process, arguments["position"])
            except ToolError:
                continue  # it is answered like any call that fails
            left, words = reply.depth - node.depth, f"went back to {arguments['position']}"
            self._answer(*refuse_all(self, reply, f"not run: the process {words}", (position, words)))
            process.jump(node, reply, call=self.number, cell=self.cell)
            note = self._paged(user(arguments["message"]), "note").text
            self.append(went_back(arguments["position"], note, left))
            return True
        return False

    def _read_inbox(self) -> None:
        for text in self.process.take_inbox():
            self.append(self._paged(user(text), "message"))

    def _paged(self, message: Message, label: str = PERSON) -> Message:
        """What is said to the process, as its model is told it."""
        paged = paged_input(self.process, message, label)
        try:
            log_fds(self.process)
        except LogError as error:  # the log has it for later
            self.unkept = self.unkept or error
        return paged

    async def _reply(self) -> Reply:
        """The next reply, appended. When cancelled, what was said so far is appended instead, marked as interrupted."""
        request = self.process.request(self.config, self.fan.shared if self.fan is not None else None)
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
        open_references(self.process, reply.message.text)
        if reply.message.text.strip():
            await self.tell("response", reply.message.text)
        return reply

    def _append_reply(self, request: Request, reply: Reply, attempts: Attempts, stop: str) -> None:
        self.note_reply(self.append(_with_unique_ids(reply.message, self.process.call_ids(request.path))), request, reply, attempts, stop)

    def note_reply(self, node: Node, request: Request, reply: Reply, attempts: Attempts, stop: str, **marks: Any) -> None:
        """Write down what a reply that stands at `node` took."""
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
            cache_miss=reply.cache_miss,
            usage=reply.usage,
            duration_s=duration_s,
            first_s=attempts.first - attempts.began if attempts.first else None,
            attempts=attempts.count,
            replayed=replayed,
            **marks,
        )
        self.process.counted, self.process.reply_id = (node.id, reply.usage), reply.id
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
                cache_miss=reply.cache_miss,
            )
        )

    def _answer(self, runs: list[ToolRun], seqs: list[int]) -> None:
        self.tool_runs += runs
        self.append(Message(role="tool", parts=tuple(run.result for run in runs)), tuple(seqs) if all(seqs) else ())

    def _result(self, reason: str, duration_s: float) -> RunResult:
        nodes = (*self.earlier, *self._on_path())
        text = next((node.message.text for node in reversed((*self.earlier, *self.nodes)) if node.message.role == "assistant"), "")
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
            nodes=nodes,
            left=tuple(node for node in self.nodes if node not in nodes),
            api_calls=tuple(self.api_calls),
            tool_calls=tuple(self.tool_runs),
            usage=self.usage + self.below,
            below=self.below,
            duration_s=duration_s,
            detail=self.detail,
            parsed=self._parsed(text) if reason == "end_turn" else None,
            notes=tuple(self.notes),
            code=tuple(self.code),
        )

    def _on_path(self) -> tuple[Node, ...]:
        path = self.process.path
        return tuple(node for node in self.nodes if node.depth < len(path) and path[node.depth] is node)

    def shortened(self, node: Node, copies: Mapping[Node, Node]) -> None:
        """Go on from a shorter branch that ends at `node`; `copies` are the messages that were kept, by those they are copies of."""
        mine, question = self._on_path(), next((copy for one, copy in copies.items() if one.parent is self.before), None)
        self.process.move(node, "compacted", call=self.number, cell=self.cell)
        self.earlier, self.nodes = (*self.earlier, *mine), []
        if question is not None and question.parent is not None:
            self.before = question.parent  # where the process stands if the question gets no answer
        self.fan = None  # what it shares is not on the path any more

    def _parsed(self, text: str) -> Any:
        if self._parse is None:
            return None
        try:
            return self._parse(text)
        except ToolError as error:
            right = error.right or "an answer that follows the schema is needed"
            raise AnswerError(error.found, place=self.process.name, right=right, step="The answer itself is get_last_message().") from None


def _with_unique_ids(message: Message, used: Set[str]) -> Message:
    """The message with no tool call id that is used already: an API refuses a dialog in which two calls share one."""
    if not calls_tools(message):
        return message
    parts, new = [], set[str]()
    for part in message.parts:
        if isinstance(part, ToolCall):
            unique, count = part.id or "call", 2
            while unique in used or unique in new:
                unique, count = f"{part.id or 'call'}_{count}", count + 1
            new.add(unique)
            part = part if unique == part.id else msgspec.structs.replace(part, id=unique)
        parts.append(part)
    return msgspec.structs.replace(message, parts=tuple(parts))
