"""A turn: what was said and done in one call, finished or under way, as plain pieces in order.

Here: collecting. Not here: how it looks (view).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from llmproc_nb.core.approval import PERSON, Decision
from llmproc_nb.core.errors import LlmprocError
from llmproc_nb.core.event import AnyEvent, AttemptFailed, CodeRan, Decided, Replied, ToolRan, ToolStarted, Warned
from llmproc_nb.core.message import Image, Message, Opaque, Text, Thinking, ToolCall, ToolResult
from llmproc_nb.core.provider import Delta
from llmproc_nb.core.result import RunResult, ToolRun
from llmproc_nb.core.sandbox import Output


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers."""

    process: str
    program: str = ""
    provider: str = ""
    model: str = ""
    scripted: bool = False


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """Words of the model: its answer, or its thinking."""

    text: str
    thinking: bool = False


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call. `outcome` as in ToolRun; `writing`, `waiting`, `running` while it is under way; `hosted` where the provider ran it.

    `outputs` are those of a code cell, as its sandbox gave them.
    """

    name: str
    arguments: dict[str, Any] | str
    outcome: str
    text: str = ""
    images: tuple[Image, ...] = ()
    outputs: tuple[Output, ...] = ()


def pieces(result: RunResult) -> list[Said | Used]:
    """The pieces of a finished call, in order; what the model itself left behind by a goto comes first, for it happened first."""
    runs: defaultdict[str, deque[ToolRun]] = defaultdict(deque)
    for run in result.tool_calls:
        runs[run.result.call_id].append(run)  # a branch may use an id again that another one has
    outputs = {(cell.node, cell.position): cell.outputs for cell in result.code}
    found: list[Said | Used] = []
    for node in (*result.left, *result.nodes):
        if node.message.role != "assistant":
            continue
        position = 0
        for part in node.message.parts:
            if isinstance(part, Text) and part.text:
                found.append(Said(text=part.text))
            elif isinstance(part, Thinking) and (part.text or part.redacted):
                found.append(Said(text=part.text or "(hidden by the provider)", thinking=True))
            elif isinstance(part, ToolCall):
                ran = runs[part.id].popleft() if runs[part.id] else None
                found.append(_used(part, ran, outputs.get((node.id, position), ())))
                position += 1
            elif isinstance(part, Opaque):
                found.append(_hosted(part))
    return _joined(found)


def _joined(found: Iterable[Said | Used]) -> list[Said | Used]:
    """Neighbouring text parts are one text: citations and the like cut an answer into many."""
    made: list[Said | Used] = []
    for piece in found:
        last = made[-1] if made else None
        if isinstance(piece, Said) and isinstance(last, Said) and not piece.thinking and not last.thinking:
            made[-1] = Said(text=last.text + piece.text)
        else:
            made.append(piece)
    return made


def _used(call: ToolCall, run: ToolRun | None, outputs: tuple[Output, ...]) -> Used:
    if run is None:
        return Used(name=call.name, arguments=call.arguments, outcome="not answered")
    text, images = _result(run.result)
    return Used(name=call.name, arguments=run.arguments, outcome=run.outcome, text=text, images=images, outputs=outputs)


def _result(result: ToolResult) -> tuple[str, tuple[Image, ...]]:
    return result.text, tuple(part for part in result.content if isinstance(part, Image))


def _hosted(part: Opaque) -> Used:
    body = part.body
    name = str(body.get("name") or body.get("type") or "part")
    kept = {key: value for key, value in body.items() if key not in ("id", "type", "name", "encrypted_content", "signature")}
    return Used(name=name, arguments={}, outcome="hosted", text=msgspec.json.encode(kept, enc_hook=str).decode())


class Growing:
    """Words that still come in. Adding costs the length of what is added; `tail` the length of what is asked for."""

    __slots__ = ("_carry", "chunks", "fences", "length", "thinking")

    def __init__(self, *, thinking: bool) -> None:
        self.thinking = thinking
        self.chunks: list[str] = []
        self.length = self.fences = 0
        self._carry = ""

    def add(self, text: str) -> None:
        self.chunks.append(text)
        self.length += len(text)
        joined = self._carry + text
        self.fences += joined.count("```")
        self._carry = joined[-2:].strip("\n") if not joined.endswith("```") else ""

    @property
    def text(self) -> str:
        return "".join(self.chunks)

    def tail(self, limit_chars: int) -> str:
        """The last characters, at most that many."""
        taken: list[str] = []
        room = limit_chars
        for index in range(len(self.chunks) - 1, -1, -1):
            chunk = self.chunks[index]
            taken.append(chunk[-room:])
            room -= len(chunk)
            if room <= 0:
                break
        return "".join(reversed(taken))


class _Running:
    """A tool call under way."""

    __slots__ = ("used",)

    def __init__(self, used: Used) -> None:
        self.used = used

    def now(self, **fields: Any) -> None:
        self.used = msgspec.structs.replace(self.used, **fields)


class Turn:
    """A turn under way, fed with the deltas and events of one call. `result` or `error` is set when it has ended.

    `message_at` gives the message of a node: what a whole reply calls, before the first tool has started.
    """

    def __init__(
        self,
        *,
        process: str,
        program: str = "",
        provider: str = "",
        model: str = "",
        scripted: bool = False,
        message_at: Callable[[str], Message] | None = None,
    ) -> None:
        self.head = Head(process=process, program=program, provider=provider, model=model, scripted=scripted)
        self._message_at = message_at
        self.note = self.hint = ""
        self.warnings: list[str] = []
        self.result: RunResult | None = None
        self.error: str | None = None
        self._whole: list[Growing | _Running] = []
        self._open: list[Growing | _Running] = []
        self._calls: list[_Running] = []

    @property
    def said(self) -> bool:
        """Whether anything came yet."""
        return bool(self._whole or self._open)

    def delta(self, delta: Delta) -> None:
        """Take a piece of a reply."""
        if delta.kind in ("text", "thinking"):
            self.note = ""
            self._growing(delta.kind == "thinking").add(delta.text)
        elif delta.kind == "tool":
            self.note = ""
            self._open.append(_Running(Used(name=delta.text, arguments={}, outcome="writing")))
        elif delta.kind == "reset":
            self._open = []
            self.note = delta.text
        else:
            self.note = delta.text

    def _growing(self, thinking: bool) -> Growing:
        last = self._open[-1] if self._open else None
        if isinstance(last, Growing) and last.thinking == thinking:
            return last
        made = Growing(thinking=thinking)
        self._open.append(made)
        return made

    def event(self, event: AnyEvent) -> None:
        """Take an event of this call."""
        if isinstance(event, Replied):
            self._calls = [piece for piece in self._open if isinstance(piece, _Running)]
            self._whole, self._open, self.note = [*self._whole, *self._open], [], ""
            called = self._message_at(event.node).tool_calls if self._message_at is not None and self._calls else ()
            for running, call in zip(self._calls, called, strict=False):
                running.now(name=call.name, arguments=_read(call.arguments), outcome="waiting")
        elif isinstance(event, ToolStarted):
            self._call(event.position, event.name).now(name=event.name, arguments=_read(event.arguments), outcome="running")
        elif isinstance(event, ToolRan):
            text, images = _result(event.result)
            self._call(event.position, event.name).now(name=event.name, outcome=event.outcome, text=text, images=images)
            self.note = ""
        elif isinstance(event, CodeRan) and event.position is not None:
            self._call(event.position, "run_python").now(outputs=event.outputs)
        elif isinstance(event, AttemptFailed):
            wait = "given up" if event.retry_in_s is None else f"again in {event.retry_in_s:.1f} s"
            self.note = f"attempt {event.attempt}: {event.text} {wait}"
        elif isinstance(event, Decided) and (not event.allowed or event.by == PERSON):
            self.warnings.append(Decision(allowed=event.allowed, by=event.by, reason=event.reason).line(event.name))
        elif isinstance(event, Warned):
            self.warnings.append(event.text)

    def _call(self, position: int, name: str) -> _Running:
        while len(self._calls) <= position:
            made = _Running(Used(name=name, arguments={}, outcome="writing"))
            self._calls.append(made)
            self._whole.append(made)
        return self._calls[position]

    def finish(self, result: RunResult) -> None:
        """The call has ended; the turn is what its result says."""
        self.result, self.note = result, ""

    def failed(self, error: BaseException | str | None) -> None:
        """The call has ended in an error; what came before it stays."""
        self.note = ""
        self.error = error.for_cell() if isinstance(error, LlmprocError) else str(error) if error else "stopped"

    def parts(self) -> list[Growing | Used]:
        """Everything so far, in order; texts that still grow as they are."""
        return [piece.used if isinstance(piece, _Running) else piece for piece in (*self._whole, *self._open)]

    def pieces(self) -> Iterator[Said | Used]:
        """Everything so far, in order, as values."""
        for part in self.parts():
            yield Said(text=part.text, thinking=part.thinking) if isinstance(part, Growing) else part


def _read(arguments: str) -> dict[str, Any] | str:
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments
