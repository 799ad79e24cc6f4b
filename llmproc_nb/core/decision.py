"""What is decided on one tool call of a run: by the rules, by a person, or as it was recorded; written down, and put into words.

Here also: the time a call waits for a person, which counts for none of its limits. Not here: the rules (approval), what follows from
a decision (toolrun, loop).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.approval import PERSON, Ask, Decision, decided
from llmproc_nb.core.call import inside
from llmproc_nb.core.event import Decided
from llmproc_nb.core.message import clean
from llmproc_nb.core.tool import Tool

if TYPE_CHECKING:
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.loop import Run


class PersonTime:
    """The time a call waits for a person. Several waits at once count once."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._open, self._began, self._spent_s = 0, 0.0, 0.0
        self._deadline: asyncio.Timeout | None = None

    @property
    def spent_s(self) -> float:
        """How long a person was waited for so far."""
        return self._spent_s + (self._monotonic() - self._began if self._open else 0.0)

    @asynccontextmanager
    async def timeout(self, left_s: float | None) -> AsyncIterator[asyncio.Timeout]:
        """As asyncio.timeout, but it stands still while a person is waited for."""
        async with asyncio.timeout(left_s) as deadline:
            self._deadline = deadline
            try:
                yield deadline
            finally:
                self._deadline = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a person is waited for."""
        self._open += 1
        if self._open > 1:
            try:
                yield
            finally:
                self._close()
            return
        self._began, deadline, loop = self._monotonic(), self._deadline, asyncio.get_running_loop()
        ends = deadline.when() if deadline is not None and not deadline.expired() else None
        left_s = None if ends is None else ends - loop.time()
        if deadline is not None and ends is not None:
            deadline.reschedule(None)
        self._paused = deadline, left_s
        try:
            yield
        finally:
            self._close()

    def _close(self) -> None:
        self._open -= 1
        if self._open:
            return
        self._spent_s += self._monotonic() - self._began
        deadline, left_s = self._paused
        if deadline is not None and left_s is not None and deadline is self._deadline:
            deadline.reschedule(asyncio.get_running_loop().time() + left_s)


async def decide(run: Run, node: Node, position: int, tool: Tool, arguments: dict[str, Any]) -> Decision | None:
    """The decision on call number `position` of the reply at `node`, written down; None where no program has rules.

    A jump that was refused before any call of its reply ran is not asked about again.
    """
    policies = run.process.policies
    if not policies:
        return None
    known = run.decisions.get((node.id, position))
    if tool.kind == "jump" and known is not None and not known.allowed:
        return known
    # a syscall is made again in a replay, and nobody is asked again
    made: Decision | None = recorded(run, node, position) if tool.kind != "tool" else None
    if made is None:
        ask = Ask(
            process=run.process.name,
            pid=run.process.pid,
            call=run.number,
            tool=tool.name,
            description=tool.spec.description,
            arguments=arguments,
            access=tool.access,
            check=tool.check,
        )
        with ExitStack() as waits:
            for one in inside.get():
                waits.enter_context(one.person.waiting())
            names = [whose.tools.names_of(tool) for whose in policies]
            made = await decided(tuple(policies.values()), ask, run.machine.approver, names)
    write(run, node, position, tool.name, made)
    return made


def recorded(run: Run, node: Node, position: int) -> Decision | None:
    """What was decided when this call was recorded."""
    event = run.machine.recorded.decision(node.id, position, run.process.lineage)
    if event is None:
        return None
    arguments = None if event.arguments is None else json.loads(event.arguments)
    return Decision(allowed=event.allowed, by=event.by, reason=event.reason, arguments=arguments)


def write(run: Run, node: Node, position: int, name: str, made: Decision) -> None:
    """Write a decision down."""
    run.decisions[node.id, position] = made
    fields: dict[str, Any] = {"allowed": made.allowed, "by": made.by, "reason": clean(made.reason), "arguments": said(made)}
    run.write(Decided, node=node.id, position=position, name=name, **fields)


def said(made: Decision) -> str | None:
    """The changed arguments as JSON text; None where they were not changed."""
    return None if made.arguments is None else json.dumps(made.arguments, ensure_ascii=False)


def lines(run: Run, node: Node) -> list[str]:
    """What a person should read of the decisions on a reply, in order: what was refused, and what was asked."""
    found = []
    for position, call in enumerate(node.message.tool_calls):
        made = run.decisions.pop((node.id, position), None)
        if made is not None and (not made.allowed or made.by == PERSON):
            found.append(made.line(call.name))
    return [line for line in dict.fromkeys(found) if line not in run.notes]
