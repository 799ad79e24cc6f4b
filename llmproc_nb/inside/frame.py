"""A pandas frame or series as a model reads it: what is said of it, and its rows to page through, as a representation of its own."""

from __future__ import annotations

from typing import Any

from llmproc_nb.inside.sample import sample, sample_text
from llmproc_nb.inside.whole import PAGE_ROWS, SAID_TOKENS, WHOLE_TOKENS, pieces

MIME = "application/vnd.llmproc.frame+json"
OWN_ROWS = 60
"""The rows that the text of a series shows."""
MOST_CHARS = 20_000_000
SAID_CHARS = 8000
"""What is said of a frame may be all there is, up to this length; a process pages a longer text, and a frame by its rows."""


def frame_view(frame: Any) -> dict[str, Any]:
    """`said`: shape, types and a sample; `rows`: all rows as CSV where they are more than a page or not said whole, as many as fit."""
    if len(frame) <= PAGE_ROWS or not hasattr(frame, "columns"):
        said, all_said = sample(frame, "", WHOLE_TOKENS)
        if all_said and len(said) <= SAID_CHARS:
            return {"said": said, "rows": "", "page_lines": PAGE_ROWS}
    rows, whole = _rows(frame)
    return {"said": sample_text(frame, "", SAID_TOKENS), "rows": rows, "page_lines": PAGE_ROWS, "whole": whole}


def series_view(series: Any) -> dict[str, Any] | None:
    """The same for a series whose own text shows only a part of it; None for any other."""
    return frame_view(series) if len(series) > OWN_ROWS or "..." in str(series) else None


def _rows(frame: Any) -> tuple[str, bool]:
    """Rows as CSV, and whether these are all."""
    parts, left = [], MOST_CHARS
    for part in pieces(frame):
        if len(part) > left:
            cut = part[:left].rpartition("\n")[0]
            parts.append(f"{cut}\n")
            return "".join(parts), False
        parts.append(part)
        left -= len(part)
    return "".join(parts), True
