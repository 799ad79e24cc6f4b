"""`jupyter llmproc log`: what a log holds, as lines to read, as events, or as frames.

Here: the lines. Not here: reading a log (drivers.logfile) and its frames (notebook).
"""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import singledispatchmethod
from shutil import get_terminal_size
from typing import Any

from llmproc_nb.cli.channel import arguments_line
from llmproc_nb.cli.terminal import Terminal, UsageError, shortened
from llmproc_nb.core.errors import LogError
from llmproc_nb.core.event import (
    AnyEvent,
    Appended,
    AttemptFailed,
    Called,
    Event,
    Killed,
    Moved,
    Opened,
    ReaderFailed,
    Replied,
    Started,
    Stopped,
    ToolRan,
    Warned,
)
from llmproc_nb.core.message import Document, Image, Message, Text
from llmproc_nb.core.tool import parts_text
from llmproc_nb.drivers.logfile import LogFile

WIDTH = 150


def command(flags: Namespace) -> int:
    """Show the log and give the exit code. Raises LogError."""
    terminal = Terminal()
    if flags.csv and not flags.frame:
        raise UsageError("--csv needs a frame", right="such as --frame calls --csv")
    file = LogFile(flags.file)
    if file.torn and not file.events and not file.unknown:
        raise LogError("there is no event in it", place=str(file.path), right="a log has one JSON event in each line")
    if flags.verify:
        terminal.text(f"{file.path}: {len(file.dialog()):,} messages, each with the id that it should have")
    elif flags.frame:
        _print_frame(flags)
    elif flags.json:
        terminal.json(*file.events[-(flags.tail or 0) :])
    else:
        lines = list(Lines(file.events))
        terminal.text("\n".join(lines[-(flags.tail or 0) :]))
    for note in file.notes:
        terminal.line(f"{file.path.name}: {note}")
    return 0


def _print_frame(flags: Namespace) -> None:
    """The frame, as a table, as CSV or as JSON. pandas is loaded here and nowhere else."""
    read_log: Any = importlib.import_module("llmproc_nb").read_log
    frame = getattr(read_log(flags.file).frames(), flags.frame)
    frame = frame.tail(flags.tail) if flags.tail else frame
    if flags.json:
        frame.to_json(sys.stdout, orient="records", lines=True, date_format="iso")
    elif flags.csv:
        frame.to_csv(sys.stdout, index=False)
    else:
        Terminal().text(frame.to_string(index=False))


class Lines:
    """A line for each event that a reader of the log wants to know of: when, who, what."""

    def __init__(self, events: tuple[AnyEvent, ...]) -> None:
        self._events = events
        self._names = {event.pid: event.name for event in events if isinstance(event, Started)}
        self._messages = {event.node: event.message for event in events if isinstance(event, Appended) and event.message is not None}
        self._width = max((len(shortened(name, 20)) for name in self._names.values()), default=0)
        self._limit = max(60, get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH)

    def __iter__(self) -> Iterator[str]:
        for event in self._events:
            said = self.said(event)
            if said is not None:
                what, text, more = said
                yield self._line(event, what, text, more)

    def _line(self, event: AnyEvent, what: str, text: str, more: str) -> str:
        when = datetime.fromtimestamp(event.time_ns / 1e9, UTC)
        who = shortened(self._names.get(event.pid, ""), 20)
        head, tail = f"{when:%H:%M:%S}  {who:<{self._width}}  {what:<9}", f"({more})" if more else ""
        words = shortened(text, max(20, self._limit - len(head) - len(tail) - 4))
        return "  ".join(piece for piece in (head, words, tail) if piece).rstrip()

    @singledispatchmethod
    def said(self, event: Event) -> tuple[str, str, str] | None:
        """What happened, its words, and what stands behind them; None for what a reader can do without."""
        return None

    @said.register
    def _(self, event: Opened) -> tuple[str, str, str]:
        when = datetime.fromtimestamp(event.time_ns / 1e9, UTC)
        return "log", f"{when:%Y-%m-%d} UTC, run {event.run or '(no name)'}", event.notebook or ""

    @said.register
    def _(self, event: Started) -> tuple[str, str, str]:
        system = self._messages.get(event.node)
        scripted = ", scripted: no model answers" if event.scripted else ""
        return "started", system.text if system else "", f"pid {event.pid}, {event.provider}:{event.program.get('model', '')}{scripted}"

    @said.register
    def _(self, event: Called) -> tuple[str, str, str]:
        return "user", _words(self._messages.get(event.node)), f"call {event.call}"

    @said.register
    def _(self, event: Replied) -> tuple[str, str, str]:
        message = self._messages.get(event.node)
        calls = ", ".join(f"{call.name}({arguments_line(call.arguments)})" for call in message.tool_calls) if message else ""
        words = " → ".join(piece for piece in (_words(message), calls) if piece)
        replayed = ", replayed" if event.replayed else ""
        return "answer", words, f"{event.usage.input_tokens:,} in, {event.usage.output_tokens:,} out, {event.stop}{replayed}"

    @said.register
    def _(self, event: ToolRan) -> tuple[str, str, str]:
        return "tool", f"{event.name}: {parts_text(event.result.content)}", f"{event.outcome}, {event.duration_s:.1f} s"

    @said.register
    def _(self, event: AttemptFailed) -> tuple[str, str, str]:
        again = f"again in {event.retry_in_s:.1f} s" if event.retry_in_s is not None else "given up"
        return "failed", event.text, f"attempt {event.attempt}, {again}"

    @said.register
    def _(self, event: Moved) -> tuple[str, str, str]:
        return "moved", f"from {event.before[:8]} to {event.node[:8]}", event.reason

    @said.register
    def _(self, event: Stopped) -> tuple[str, str, str]:
        cost = "cost unknown" if event.usage.unpriced_requests else f"${event.usage.cost_usd:.4f}"
        words = f"{event.reason}: {event.error}" if event.error else event.reason
        return "stopped", words, f"{event.usage.total_tokens:,} tokens, {cost}, {event.duration_s:.1f} s"

    @said.register
    def _(self, event: Killed) -> tuple[str, str, str]:
        return "killed", "", ""

    @said.register
    def _(self, event: Warned) -> tuple[str, str, str]:
        return "warning", event.text, ""

    @said.register
    def _(self, event: ReaderFailed) -> tuple[str, str, str]:
        return "warning", f"{event.reader} failed: {event.error}", ""


def _words(message: Message | None) -> str:
    """What a message says aloud: no thoughts, pictures by a short note."""
    said = [part for part in message.parts if isinstance(part, Text | Image | Document)] if message is not None else []
    return parts_text(said)
