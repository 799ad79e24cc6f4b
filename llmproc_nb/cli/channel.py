"""The log channel: reads along with a machine and says in lines what happens; on a terminal it shows the answer while it is written."""

from __future__ import annotations

import json
from functools import singledispatchmethod
from typing import Any

from llmproc_nb.cli.terminal import Terminal, shortened
from llmproc_nb.core.event import AttemptFailed, Event, Moved, ReaderFailed, Replied, Started, ToolRan, ToolStarted, Warned
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.provider import Delta

MAX_CHARS = 160


class Channel:
    """Add `event` to the machine's log and give `delta` to the call. `pid` is the process whose words are the answer.

    Without `results`, a tool call is one line, and what came of it is said only where it went wrong.
    """

    def __init__(self, terminal: Terminal, machine: Machine, *, results: bool = True) -> None:
        self.pid = 0
        self._terminal, self._machine, self._results = terminal, machine, results
        self._streamed = self._thinks = False

    def delta(self, delta: Delta) -> None:
        if delta.kind == "wait":
            self._terminal.note(f"waiting: {delta.text}")
        elif delta.kind == "reset":
            self._terminal.end()
            self._streamed = False
        elif delta.kind == "thinking" and not self._thinks and self._terminal.live:
            self._terminal.note("thinking …")
        elif delta.kind == "text" and self._terminal.live:
            self._terminal.piece(delta.text)
            self._streamed = self._streamed or bool(delta.text)
        self._thinks = delta.kind == "thinking"

    @singledispatchmethod
    def event(self, event: Event) -> None:
        """Say what an event means, if it means something to a person who waits."""

    @event.register
    def _(self, event: ToolStarted) -> None:
        self._note(event, f"tool {event.name}({arguments_line(event.arguments)})")

    @event.register
    def _(self, event: ToolRan) -> None:
        if event.outcome == "ran" and not self._results:
            return
        how = "" if event.outcome == "ran" else f" {event.outcome.replace('_', ' ')}"
        replayed = ", from the recording" if event.replayed else ""
        self._note(event, f"tool {event.name}{how}: {shortened(event.result.text, MAX_CHARS)} ({event.duration_s:.1f} s{replayed})")

    @event.register
    def _(self, event: AttemptFailed) -> None:
        if event.retry_in_s is None:
            return
        dropped = "; what came of the answer is dropped" if event.partial and event.partial.text else ""
        self._note(event, f"attempt {event.attempt} failed, again in {event.retry_in_s:.1f} s: {event.text}{dropped}")

    @event.register
    def _(self, event: Replied) -> None:
        """A provider that gives its reply in one piece is shown here; a reply that streamed has been seen."""
        if event.pid == self.pid and self._terminal.live:
            if not self._streamed:
                self._terminal.piece(self._machine.dialog.find(event.node).message.text)
            self._terminal.end()
        self._streamed = self._thinks = False

    @event.register
    def _(self, event: Warned) -> None:
        self._note(event, f"warning: {event.text}")

    @event.register
    def _(self, event: ReaderFailed) -> None:
        self._note(event, f"warning: {event.reader} failed and was taken off: {event.error}")

    @event.register
    def _(self, event: Moved) -> None:
        if event.pid != self.pid:
            self._note(event, f"moved ({event.reason})")

    @event.register
    def _(self, event: Started) -> None:
        if event.parent_pid is not None:
            self._note(event, f"started by pid {event.parent_pid}")

    def _note(self, event: Event, text: str) -> None:
        other = self._machine.processes.get(event.pid) if event.pid not in (0, self.pid) and self.pid else None
        self._terminal.note(f"{other.name}: {text}" if other else text)


def arguments_line(text: str) -> str:
    """The arguments of a tool call, as short as they can be read: `a=1, b="two"`, or the model's own text where it is no JSON object."""
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return shortened(text, MAX_CHARS)
    return shortened(", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items()), MAX_CHARS)
