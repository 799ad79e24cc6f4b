"""How a call under way looks: its last few pieces, small however long it is. Not here: how a finished one looks (view)."""

from __future__ import annotations

import json
from typing import Any

from llmproc_nb.core.visible import one_line, visible
from llmproc_nb.notebook.fragment import badge, frame_html, head_html, line_html
from llmproc_nb.notebook.html import markdown_html
from llmproc_nb.notebook.turn import Growing, Turn, Used
from llmproc_nb.notebook.view import bundle, call_line, title_line, whole_bundle

LIVE_HTML_BYTES = 3000
LIVE_PIECES = 5


def live_bundle(turn: Turn) -> dict[str, Any]:
    """A call under way: its last few pieces, in at most a few thousand bytes however long it is. Whole when the turn has ended."""
    if turn.result is not None:
        return bundle(turn.result, turn.warnings)
    mark = badge(turn.head.scripted)
    if turn.error is not None:
        return whole_bundle(turn.head, list(turn.pieces()), mark, "", turn.error, turn.warnings)
    return {"text/plain": _live_plain(turn, mark), "text/html": _live_html(turn, mark)}


def _live_plain(turn: Turn, mark: str) -> str:
    parts = turn.parts()
    last = parts[-1] if parts else None
    if isinstance(last, Used):
        words = f"[{call_line(last, 80)}]"
    elif last is not None:
        words = ("thinking: " if last.thinking else "") + ("… " if last.length > 200 else "") + " ".join(visible(last.tail(200)).split())
    else:
        words = "asked"
    note = "".join(f" [{one_line(text, 150)}]" for text in (turn.note, turn.hint) if text)
    return f"{title_line(turn.head, mark)}: {words}{note} …"


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
    notes = [line_html(one_line(text, 150)) for text in (*turn.warnings[-2:], turn.hint) if text]
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
