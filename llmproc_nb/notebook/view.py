"""How a turn looks: the bundle of a finished call.

Equal dialogs give equal bytes: no times, costs or random ids. Here: bundles. Not here: what may stand in HTML or Markdown (html,
markdown), what came in (turn), a call under way (progress), small tables and requests (table).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any

from llmproc_nb.core.message import clean
from llmproc_nb.core.result import RunResult
from llmproc_nb.core.visible import capped, one_line, visible
from llmproc_nb.notebook.fragment import arguments_line, badge, body_html, frame_html, head_html, line_html
from llmproc_nb.notebook.markdown import code_span, escape_markdown, neutral
from llmproc_nb.notebook.turn import Head, Said, Used, pieces

TURN_TYPE = "application/vnd.llmproc.turn+json"
MAX_TEXT_CHARS = 1_000_000
MAX_RESULT_CHARS = 2000
MAX_CALLS = 100

_STOPS = {
    "max_tokens": "cut off: the answer reached its token limit",
    "context_window": "cut off: the dialog fills the model's window",
    "refusal": "refused by the model",
    "interrupted": "interrupted",
    "killed": "killed",
    "max_steps": "stopped: as many requests as one call may make",
    "max_total_steps": "stopped: the process's requests are used up",
    "max_total_tokens": "stopped: the process's tokens are used up",
    "max_cost": "stopped: the process's budget is used up",
    "max_seconds": "stopped: the call's time is used up",
}


def bundle(result: RunResult, notes: Sequence[str] = ()) -> dict[str, Any]:
    """A finished call as text, Markdown, HTML and data. `notes` are shown with those of the result.

    A replayed call looks as it did when it was recorded, so that a notebook can be compared strictly; the frames say what was replayed.
    """
    head = Head(process=result.process, program=result.program, provider=result.provider, model=result.model, scripted=result.scripted)
    made = whole_bundle(head, pieces(result), badge(result.scripted), _stop_line(result), "", (*result.notes, *notes))
    return {**made, TURN_TYPE: _data(result)}


def _stop_line(result: RunResult) -> str:
    """Why the call ended, where it did not end by itself; empty otherwise."""
    reason = result.stop_reason
    if reason in ("end_turn", "stop_sequence"):
        return ""
    words = f"{_STOPS.get(reason, 'stopped')} ({reason})"
    return f"{words}: {visible(result.detail)}" if result.detail else words


def whole_bundle(head: Head, found: list[Said | Used], mark: str, stop: str, error: str, notes: Sequence[str]) -> dict[str, Any]:
    """The pieces of a turn in every form, with what else there is to say about it."""
    shown, left_out = _bounded(found)
    lines = [*((stop,) if stop else ()), *((error,) if error else ()), *left_out, *notes]
    return {
        "text/plain": _plain(head, shown, mark, lines),
        "text/markdown": _markdown(head, shown, mark, lines),
        "text/html": frame_html(
            head_html(head, mark),
            *body_html(shown),
            line_html(stop, strong=True),
            line_html(error, strong=True),
            *(line_html(note) for note in (*left_out, *notes)),
        ),
    }


def _bounded(found: list[Said | Used]) -> tuple[list[Said | Used], list[str]]:
    """The pieces that are shown, and a line for each kind of thing that is not."""
    shown: list[Said | Used] = []
    calls, room, cut = 0, MAX_TEXT_CHARS, 0
    for piece in found:
        if isinstance(piece, Used):
            calls += 1
            if calls <= MAX_CALLS:
                shown.append(piece)
            continue
        if len(piece.text) > room:
            cut += len(piece.text) - room
        if room > 0:
            shown.append(Said(text=piece.text[:room], thinking=piece.thinking))
        room = max(0, room - len(piece.text))
    lines = []
    if calls > MAX_CALLS:
        lines.append(f"{calls - MAX_CALLS:,} more tool calls of {calls:,} are in the log")
    if cut:
        lines.append(f"{cut:,} more characters are in the log")
    return shown, lines


def call_line(piece: Used, limit_chars: int = 120) -> str:
    """A tool call in one line: `search(query="x"): ran, 120 characters`."""
    size = f", {len(piece.text):,} characters" if piece.text else ""
    images = f", {len(piece.images)} image{'s' * (len(piece.images) > 1)}" if piece.images else ""
    return f"{one_line(piece.name, 80)}({arguments_line(piece.arguments, limit_chars)}): {piece.outcome}{size}{images}"


def title_line(head: Head, mark: str) -> str:
    """Who answers, and whether that is a script."""
    return f"{one_line(head.process, 80)} ({mark})" if mark else one_line(head.process, 80)


def _plain(head: Head, shown: list[Said | Used], mark: str, lines: Sequence[str]) -> str:
    title = title_line(head, mark)
    made = [f"[{call_line(piece)}]" if isinstance(piece, Used) else visible(piece.text) for piece in shown if _is_said(piece)]
    made += [f"[{visible(line)}]" for line in lines]
    if not made:
        return f"{title}: (no text)"
    first = shown and not isinstance(next((piece for piece in shown if _is_said(piece)), None), Used)
    return f"{title}: {made[0]}" + "".join(f"\n{line}" for line in made[1:]) if first else "\n".join([f"{title}:", *made])


def _is_said(piece: Said | Used) -> bool:
    return isinstance(piece, Used) or not piece.thinking


def _markdown(head: Head, shown: list[Said | Used], mark: str, lines: Sequence[str]) -> str:
    source = " · ".join(
        escape_markdown(one_line(word, 80)) for word in (head.program, f"{head.provider}:{head.model}") if word != head.process and word
    )
    made = [f"**{escape_markdown(one_line(head.process, 80))}**" + (f" · {source}" if source else "") + (f" · **{mark}**" if mark else "")]
    for piece in shown:
        if isinstance(piece, Used):
            made.append(f"> tool {code_span(call_line(piece))}")
            if piece.text:
                made[-1] += f"\\\n> {code_span(one_line(piece.text, 200))}"
        elif piece.thinking:
            made.append(f"> *thinking, {len(piece.text):,} characters: in the log*")
        else:
            made.append(neutral(piece.text))
    made += [f"**{escape_markdown(line)}**" for line in lines]
    return "\n\n".join(part for part in made if part)


def _data(result: RunResult) -> dict[str, Any]:
    """The turn as data: what happened, nothing that changes from run to run."""
    calls = []
    for run in result.tool_calls[:MAX_CALLS]:
        text = clean(run.result.text)
        shown, note = capped(text, MAX_RESULT_CHARS)
        arguments = json.dumps(run.arguments, ensure_ascii=False, default=str)
        call: dict[str, Any] = {
            "name": run.name,
            "arguments": _finite(run.arguments) if len(arguments) <= MAX_RESULT_CHARS else clean(arguments[:MAX_RESULT_CHARS]),
            "outcome": run.outcome,
            "result": shown,
        }
        if len(arguments) > MAX_RESULT_CHARS:
            call["arguments_chars"] = len(arguments)
        if note:
            call["result_chars"] = len(text)
        calls.append(call)
    return {
        "version": 1,
        "process": clean(result.process),
        "program": clean(result.program),
        "provider": clean(result.provider),
        "model": clean(result.model),
        "scripted": result.scripted,
        "stop_reason": result.stop_reason,
        "detail": clean(result.detail) if result.detail else None,
        "nodes": [node.id for node in result.nodes],
        "text": clean(result.text[:MAX_TEXT_CHARS]),
        "tool_calls": calls,
        "tool_call_count": len(result.tool_calls),
        "input_tokens": result.usage.input_tokens,
        "output_tokens": result.usage.output_tokens,
    }


def _finite(value: Any) -> Any:
    """The value with what is no number in JSON as text."""
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
