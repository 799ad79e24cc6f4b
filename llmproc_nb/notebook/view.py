"""How a turn looks: the bundle of a finished call and of one under way.

Equal dialogs give equal bytes: no times, costs or random ids. Here: bundles. Not here: what may stand in HTML or Markdown (html,
markdown), what came in (turn), small tables and requests (table).
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
from llmproc_nb.notebook.html import markdown_html
from llmproc_nb.notebook.markdown import code_span, escape_markdown, neutral
from llmproc_nb.notebook.table import dry_run_bundle, error_html, table_html
from llmproc_nb.notebook.turn import Growing, Head, Said, Turn, Used, pieces

__all__ = ["TURN_TYPE", "Turn", "bundle", "dry_run_bundle", "error_html", "live_bundle", "table_html", "visible"]

TURN_TYPE = "application/vnd.llmproc.turn+json"
MAX_TEXT_CHARS = 1_000_000
MAX_RESULT_CHARS = 2000
MAX_CALLS = 100
LIVE_HTML_BYTES = 3000
LIVE_PIECES = 5

_STOPS = {
    "max_tokens": "cut off: the answer reached its token limit",
    "context_window": "cut off: the dialog fills the model's window",
    "refusal": "refused by the model",
    "interrupted": "interrupted",
    "killed": "killed",
    "max_steps": "stopped: as many requests as one call may make",
    "max_total_tokens": "stopped: the process's tokens are used up",
    "max_cost": "stopped: the process's budget is used up",
    "max_seconds": "stopped: the call's time is used up",
}


def bundle(result: RunResult, notes: Sequence[str] = ()) -> dict[str, Any]:
    """A finished call as text, Markdown, HTML and data. `notes` are shown with those of the result.

    A replayed call looks as it did when it was recorded, so that a notebook can be compared strictly; the frames say what was replayed.
    """
    head = Head(process=result.process, program=result.program, provider=result.provider, model=result.model, scripted=result.scripted)
    made = _bundle(head, pieces(result), badge(result.scripted), _stop_line(result), "", (*result.notes, *notes))
    return {**made, TURN_TYPE: _data(result)}


def live_bundle(turn: Turn) -> dict[str, Any]:
    """A call under way: its last few pieces, in at most a few thousand bytes however long it is. Whole when the turn has ended."""
    if turn.result is not None:
        return bundle(turn.result, turn.warnings)
    mark = badge(turn.head.scripted)
    if turn.error is not None:
        return _bundle(turn.head, list(turn.pieces()), mark, "", turn.error, turn.warnings)
    return {"text/plain": _live_plain(turn, mark), "text/html": _live_html(turn, mark)}


def _stop_line(result: RunResult) -> str:
    """Why the call ended, where it did not end by itself; empty otherwise."""
    reason = result.stop_reason
    if reason in ("end_turn", "stop_sequence"):
        return ""
    words = f"{_STOPS.get(reason, 'stopped')} ({reason})"
    return f"{words}: {visible(result.detail)}" if result.detail else words


def _bundle(head: Head, found: list[Said | Used], mark: str, stop: str, error: str, notes: Sequence[str]) -> dict[str, Any]:
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


def _title(head: Head, mark: str) -> str:
    return f"{one_line(head.process, 80)} ({mark})" if mark else one_line(head.process, 80)


def _plain(head: Head, shown: list[Said | Used], mark: str, lines: Sequence[str]) -> str:
    title = _title(head, mark)
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


# under way


def _live_plain(turn: Turn, mark: str) -> str:
    parts = turn.parts()
    last = parts[-1] if parts else None
    if isinstance(last, Used):
        words = f"[{call_line(last, 80)}]"
    elif last is not None:
        words = ("thinking: " if last.thinking else "") + ("… " if last.length > 200 else "") + " ".join(visible(last.tail(200)).split())
    else:
        words = "asked"
    note = f" [{one_line(turn.note, 150)}]" if turn.note else ""
    return f"{_title(turn.head, mark)}: {words}{note} …"


def _live_html(turn: Turn, mark: str) -> str:
    parts = turn.parts()
    made: list[str] = []
    room = LIVE_HTML_BYTES
    for part in reversed(parts[-LIVE_PIECES:]):
        shown = line_html(call_line(part, 80)) if isinstance(part, Used) else _tail_html(part, max(room, 300))
        room -= len(json.dumps(shown, ensure_ascii=False).encode())
        made.append(shown)
        if room <= 0:
            break
    earlier = len(parts) - len(made)
    start = [line_html(f"… {earlier} earlier part{'s' * (earlier > 1)}")] if earlier else []
    waiting = one_line(turn.note, 150) if turn.note else "" if parts else "asked …"
    notes = [line_html(one_line(text, 150)) for text in turn.warnings[-2:]]
    return frame_html(head_html(turn.head, mark), *start, *reversed(made), line_html(waiting), *notes)


def _tail_html(part: Growing, limit_bytes: int) -> str:
    """The end of a text that grows, as HTML of about that many bytes at most."""
    limit = min(limit_bytes, 400) if part.thinking else limit_bytes
    chars = max(60, int(limit * 0.8))
    while True:
        tail = part.tail(chars)
        note = line_html(f"… {part.length - len(tail):,} characters before") if len(tail) < part.length else ""
        made = note + (line_html(f"thinking: {' '.join(visible(tail).split())}") if part.thinking else _tail_body(part, tail))
        size = len(json.dumps(made, ensure_ascii=False).encode())
        if size <= limit or chars <= 60:
            return made
        chars = max(60, min(chars, len(tail)) * limit * 9 // (size * 10))


def _tail_body(part: Growing, tail: str) -> str:
    if len(tail) < part.length:
        inside_code = (part.fences - tail.count("```")) % 2 == 1
        if inside_code:
            tail = f"```\n{tail}"
    return markdown_html(tail)
