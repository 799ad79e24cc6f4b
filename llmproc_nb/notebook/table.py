"""Small things shown beside turns: tables, an error's line, the exact request of a dry run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from llmproc_nb.core.errors import LlmprocError
from llmproc_nb.core.message import clean
from llmproc_nb.core.visible import visible
from llmproc_nb.notebook.fragment import CELL, PRE, folded_html, frame_html, line_html
from llmproc_nb.notebook.html import escape, escape_code
from llmproc_nb.notebook.markdown import code_block, escape_markdown

MAX_STRING_CHARS = 4000


def table_html(rows: Iterable[Sequence[Any]], columns: Sequence[Any] = ()) -> str:
    """A table, everything in it escaped; None is an empty cell."""
    head = f"<thead><tr>{_cells('th', columns)}</tr></thead>" if columns else ""
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _cells(tag: str, values: Sequence[Any]) -> str:
    return "".join(f'<{tag} style="{CELL}">{"" if value is None else escape(str(value))}</{tag}>' for value in values)


def error_html(error: BaseException | str) -> str:
    """An error in one line."""
    words = error.for_cell() if isinstance(error, LlmprocError) else error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return frame_html(line_html(words, strong=True))


def dry_run_bundle(
    body: dict[str, Any], tokens: int | None = None, cost_usd: float | None = None, *, target: str = "", notes: Sequence[str] = ()
) -> dict[str, Any]:
    """A request as it would be sent. Strings of more than 4,000 characters (pictures) are shortened, which is said."""
    cost = "cost unknown" if cost_usd is None else f"about ${cost_usd:.4f} to read"
    size = "tokens unknown" if tokens is None else f"about {tokens:,} input tokens"
    title = f"dry run, nothing was sent: {', '.join((*((target,) if target else ()), size, cost))}"
    shown = _shortened(body)
    text = json.dumps(shown, indent=2, ensure_ascii=False, default=str)
    if text != json.dumps(body, indent=2, ensure_ascii=False, default=str):
        notes = (*notes, f"texts of more than {MAX_STRING_CHARS:,} characters are shortened here; `_.body` is the whole request")
    lines = [title, *notes]
    return {
        "text/plain": "\n".join([*map(visible, lines), visible(text)]),
        "text/markdown": "\n\n".join([f"**{escape_markdown(title)}**", *map(escape_markdown, notes), code_block(text, "json")]),
        "text/html": frame_html(
            *map(line_html, lines),
            folded_html(f"the request, {len(text):,} characters", f'<pre style="{PRE}">{escape_code(text)}</pre>', opened=True),
        ),
    }


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value) if len(value) <= MAX_STRING_CHARS else f"{clean(value[:80])}… ({len(value):,} characters)"
    if isinstance(value, bytes | bytearray):
        return f"({len(value):,} bytes)"
    if isinstance(value, dict):
        return {clean(str(key)): _shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(item) for item in value]
    return value
