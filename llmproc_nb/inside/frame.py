"""A pandas frame as a model reads it: what is said of it, and its rows to page through, as a representation of its own."""

from __future__ import annotations

from typing import Any

from llmproc_nb.inside.sample import sample_text

MIME = "application/vnd.llmproc.frame+json"
PAGE_ROWS = 50
SAID_TOKENS = 800
WHOLE_TOKENS = 4000
MOST_CHARS = 20_000_000
ROWS_AT_ONCE = 10_000


def frame_view(frame: Any) -> dict[str, Any]:
    """`said`: shape, types and a sample; `rows`: all rows as CSV where there are more than a page of them, as many as fit."""
    if len(frame) <= PAGE_ROWS:
        return {"said": sample_text(frame, "", WHOLE_TOKENS), "rows": "", "page_lines": PAGE_ROWS}
    rows, whole = _rows(frame)
    return {"said": sample_text(frame, "", SAID_TOKENS), "rows": rows, "page_lines": PAGE_ROWS, "whole": whole}


def _rows(frame: Any) -> tuple[str, bool]:
    """Rows as CSV, and whether these are all."""
    parts, left = [], MOST_CHARS
    for at in range(0, len(frame), ROWS_AT_ONCE):
        part = frame.iloc[at : at + ROWS_AT_ONCE].to_csv(header=at == 0, lineterminator="\n")
        if len(part) > left:
            cut = part[:left].rpartition("\n")[0]
            parts.append(f"{cut}\n")
            return "".join(parts), False
        parts.append(part)
        left -= len(part)
    return "".join(parts), True
