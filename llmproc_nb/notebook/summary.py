"""An event in one line of words, for the events frame and for whoever lists a log. Not here: how an answer is shown (html, markdown)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmproc_nb.core.event import (
    AnyEvent,
    Appended,
    Asked,
    AttemptFailed,
    Called,
    CodeRan,
    Compacted,
    Decided,
    Declared,
    FdOpened,
    Killed,
    Merged,
    Moved,
    Offered,
    Opened,
    ReaderFailed,
    Replied,
    Sent,
    ServerRead,
    Started,
    Stopped,
    ToolRan,
    ToolStarted,
    Warned,
)

MAX_SUMMARY = 100


def _short(text: str) -> str:
    if len(text) > MAX_SUMMARY:
        text = text[: MAX_SUMMARY - 1] + "…"
    return " ".join(text.split()) if "\n" in text else text


def _appended(event: Appended) -> str:
    if event.message is None:
        return f"tool: {len(event.results)} answers"
    message = event.message
    words = message.text[: 2 * MAX_SUMMARY] or ", ".join(f"calls {call.name}" for call in message.tool_calls)
    return _short(f"{message.role}: {words}")


def _replied(event: Replied) -> str:
    usage = event.usage
    again = " (replayed)" if event.replayed else ""
    return f"{event.stop}, {usage.input_tokens} + {usage.output_tokens} tokens{again}"


def _failed(event: AttemptFailed) -> str:
    then = "given up" if event.retry_in_s is None else f"again in {event.retry_in_s:.1f} s"
    return _short(f"attempt {event.attempt}, {then}: {event.text}")


def _started(event: Started) -> str:
    return _short(f"{event.name} on {event.provider}" + (f" ({event.origin})" if event.origin != "start" else ""))


def _decided(event: Decided) -> str:
    changed = ", with other arguments" if event.arguments is not None else ""
    said = f": {event.reason}" if event.reason else ""
    return _short(f"{event.name} {'allowed' if event.allowed else 'refused'} by {event.by or 'nobody'}{changed}{said}")


WORDS: dict[type, Callable[[Any], str]] = {
    Opened: lambda event: _short(f"run {event.run} {event.notebook or ''}".strip()),
    Declared: lambda event: _short(f"{event.model}, {len(event.tools)} tools"),
    Offered: lambda event: _short(f"servers offer {len(event.tools)} tools"),
    ServerRead: lambda event: _short(f"read {event.server}:{event.name}{' (replayed)' if event.replayed else ''}"),
    Started: _started,
    Appended: _appended,
    Called: lambda event: "a call began",
    Asked: lambda event: f"attempt {event.attempt}" if event.attempt > 1 else "asked",
    AttemptFailed: _failed,
    Replied: _replied,
    ToolStarted: lambda event: _short(f"{event.name} {event.arguments[:MAX_SUMMARY]}"),
    ToolRan: lambda event: _short(f"{event.name} {event.outcome}: {event.result.text[:MAX_SUMMARY]}"),
    FdOpened: lambda event: _short(f"fd:{event.number} {event.label}, {event.chars} characters"),
    CodeRan: lambda event: _short(f"{event.status}: {event.code[:MAX_SUMMARY]}"),
    Decided: _decided,
    Sent: lambda event: _short(event.text[: 2 * MAX_SUMMARY]),
    Merged: lambda event: f"process {event.child} came home",
    Compacted: lambda event: _short(f"{event.left_out} messages told in short ({event.policy})"),
    Moved: lambda event: event.reason,
    Stopped: lambda event: _short(f"{event.reason}: {event.error}" if event.error else event.reason),
    Killed: lambda event: "killed",
    Warned: lambda event: _short(event.text),
    ReaderFailed: lambda event: _short(f"{event.reader}: {event.error}"),
}


def summary(event: AnyEvent) -> str:
    """The event in at most about 100 characters."""
    return WORDS[type(event)](event)
