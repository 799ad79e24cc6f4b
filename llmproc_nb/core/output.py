"""What a model is shown of a code cell: its outputs as text, pictures and tables. Everything is in the log; here it is made short.

Not here: running cells (sandboxed), what a person sees (notebook).
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.message import Image, Text, clean
from llmproc_nb.core.sandbox import Output, Ran
from llmproc_nb.core.tool import EMPTY_RESULT, Paged, Shown, parts_text

FRAME = "application/vnd.llmproc.frame+json"
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
WORDS = ("text/markdown", "text/latex", "application/json", "image/svg+xml", "text/html")
MAX_PICTURE_CHARS = 7_000_000
MAX_PAGE_LINES = 1000
PIECE_CHARS = 1 << 18
LONG_CHARS = 1 << 20

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def shown(ran: Ran) -> tuple[Shown, ...]:
    """A cell's outputs in order, with what is to be said of it. Raises ToolError, with all of the text, where it was stopped or died."""
    parts = _joined(part for output in ran.outputs for part in _parts(output))
    if ran.status in ("timed_out", "died"):
        said = parts_text(Text(text=f"{part.said}\n{''.join(part.pieces())}") if isinstance(part, Paged) else part for part in parts)
        raise ToolError(f"{plain(ended(ran))}{f' Until then:{chr(10)}{said}' if said else ''}")
    return (*parts, *(Text(text=f"[{plain(note)}]") for note in ran.notes)) or (Text(text=EMPTY_RESULT),)


def is_long(ran: Ran) -> bool:
    """Whether it takes a while to make it short."""
    return sum(len(output.words) for output in ran.outputs) > LONG_CHARS


def ended(ran: Ran) -> str:
    """How a cell ended that did not end by itself, and all that is to be said of it."""
    words = {"timed_out": "The cell took too long and was stopped.", "died": "The session ended with this cell."}
    return " ".join(ran.notes) or words.get(ran.status, "The cell was interrupted.")


def plain(text: str) -> str:
    """The text as a terminal leaves it: no control sequences, of lines that were written over the last state."""
    text = "".join(_ANSI.sub("", piece) for piece in _pieces(text)) if "\x1b" in text else text
    text = text.replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return clean(text)


def _pieces(text: str) -> Iterator[str]:
    """The text in parts that do not tear a sequence: nobody else runs while one is looked through."""
    at = 0
    while len(text) - at > PIECE_CHARS:
        end = at + PIECE_CHARS
        cut = text.rfind("\n", at, end) + 1 or max(text.rfind("\x1b", at, end), 0)
        cut = cut if cut > at else end
        yield text[at:cut]
        at = cut
    yield text[at:]


def trace_text(output: Output) -> str:
    """The words of an error."""
    return plain("\n".join(output.trace)) or f"{output.name}: {output.text}"


def _parts(output: Output) -> Iterator[Shown]:
    if output.kind == "stream":
        yield Text(text=plain(output.text))
    elif output.kind == "error":
        yield Text(text=trace_text(output))
    else:
        yield _of_bundle(output.data)


def _of_bundle(data: Mapping[str, Any]) -> Shown:
    """The richest form of a value that a model can read."""
    table = data.get(FRAME)
    if isinstance(table, dict) and isinstance(table.get("said"), str) and isinstance(table.get("rows"), str):
        lines, rows, said = table.get("page_lines"), clean(table["rows"]), clean(table["said"])
        if not rows:  # all of it is said
            return Text(text=said)
        page = lines if type(lines) is int and 0 < lines <= MAX_PAGE_LINES else 50
        return Paged(said=said, pieces=lambda: (rows,), page_lines=page, whole=table.get("whole") is not False)
    for kind in PICTURES:
        picture = _picture(kind, data.get(kind))
        if picture is not None:
            return picture
    words = data.get("text/plain")
    said = plain(words) if isinstance(words, str) else ""
    if not said or said.startswith("<IPython.core.display."):  # what it stands for says more
        other = next((data[kind] for kind in WORDS if kind in data), said)
        said = plain(other if isinstance(other, str) else str(other))
    return Text(text=said)


def _picture(kind: str, data: Any) -> Image | None:
    if not isinstance(data, str) or len(data) > MAX_PICTURE_CHARS:
        return None
    try:
        return Image(media_type=kind, data=b64decode(data.replace("\n", ""), validate=True))
    except ValueError:
        return None


def _joined(parts: Iterable[Shown]) -> list[Shown]:
    """The parts with texts that follow each other as one."""
    made: list[Shown] = []
    for part in parts:
        last = made[-1] if made else None
        if isinstance(part, Text) and isinstance(last, Text):
            gap = "" if not last.text or last.text.endswith("\n") else "\n"
            made[-1] = Text(text=f"{last.text}{gap}{part.text}")
        elif not isinstance(part, Text) or part.text:
            made.append(part)
    return made
