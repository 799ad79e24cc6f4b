"""The pieces of HTML a turn is made of. Every style is one of ours; every text is escaped or sanitised on its way in."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any

from llmproc_nb.core.message import Image
from llmproc_nb.core.visible import capped, one_line
from llmproc_nb.notebook.celloutput import rich
from llmproc_nb.notebook.html import escape, escape_code, markdown_html
from llmproc_nb.notebook.turn import Head, Said, Used

MAX_ARGUMENT_CHARS = 2000
MAX_RESULT_CHARS = 4000
MAX_THINKING_CHARS = 10_000
MAX_IMAGE_BYTES = 200_000
MAX_IMAGES = 8
SCRIPTED = "scripted: no model answered"

FRAME = "border-left:3px solid var(--jp-border-color1,#9e9e9e);padding:0 0 0 10px;margin:2px 0"
QUIET = "opacity:.75;font-size:.9em"
BADGE = "border:1px solid var(--jp-warn-color1,#c77700);color:var(--jp-warn-color1,#c77700);border-radius:3px;padding:0 5px;font-weight:600"
STRONG = "color:var(--jp-error-color1,#d03030);font-weight:600"
MONO = "font-family:var(--jp-code-font-family,ui-monospace,monospace)"
PRE = f"{MONO};white-space:pre-wrap;overflow-wrap:anywhere;max-height:24em;overflow:auto"
PICTURE = "max-width:100%"
BOX = "max-height:28em;overflow:auto"
CELL = "text-align:left"
STYLES = frozenset((FRAME, QUIET, BADGE, STRONG, PRE, PICTURE, BOX, CELL))
_MAGIC = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}


def badge(scripted: bool) -> str:
    """What must be said of every answer that no model gave; empty otherwise."""
    return SCRIPTED if scripted else ""


def frame_html(*inner: str) -> str:
    """One block of output."""
    return f'<div style="{FRAME}">\n' + "\n".join(part for part in inner if part) + "\n</div>"


def head_html(head: Head, mark: str) -> str:
    """Who answers, and what a person must know of it."""
    model = f"{head.provider}:{head.model}" if head.model else head.provider
    words = [escape(one_line(word, 80)) for word in (head.program, model) if word and word != head.process]
    source = "".join(f" · {word}" for word in words)
    label = f' <span style="{BADGE}">{escape(mark)}</span>' if mark else ""
    return f'<div style="{QUIET}"><strong>{escape(one_line(head.process, 80))}</strong>{source}{label}</div>'


def line_html(text: str, *, strong: bool = False) -> str:
    """One line of ours about the turn; nothing for an empty one."""
    return f'<div style="{STRONG if strong else QUIET}">{escape(text)}</div>' if text else ""


def body_html(found: Iterable[Said | Used]) -> Iterator[str]:
    """The pieces of a turn, in order; thinking and tool calls folded."""
    pictures = 0
    for piece in found:
        if isinstance(piece, Said):
            yield _thinking(piece.text) if piece.thinking else markdown_html(piece.text)
            continue
        yield _tool(piece)
        for kind, value in rich(piece.outputs) if piece.outputs else (("image", image) for image in piece.images):
            if kind == "html":
                yield f'<div style="{BOX}">{value}</div>'
                continue
            image: Image = value
            shown = image_html(image) if pictures < MAX_IMAGES else ""
            pictures += bool(shown)
            yield shown or line_html(
                f"image not shown here ({one_line(image.media_type, 40)}, {len(image.data or b''):,} bytes): in the log"
            )


def image_html(image: Image) -> str:
    """A picture that a tool made, within the page; empty where it is large, of another type, or elsewhere."""
    magic = _MAGIC.get(image.media_type)
    if not magic or not image.data or len(image.data) > MAX_IMAGE_BYTES or not image.data.startswith(magic):
        return ""
    data = base64.b64encode(image.data).decode()
    return f'<div><img alt="picture of a tool" style="{PICTURE}" src="data:{image.media_type};base64,{data}"></div>'


def folded_html(summary: str, *inner: str, opened: bool = False) -> str:
    """Something that opens on a click. `summary` and `inner` are HTML."""
    return (
        f'<details{" open" * opened} style="{QUIET}"><summary>{summary}</summary>\n'
        + "\n".join(part for part in inner if part)
        + "\n</details>"
    )


def code_html(text: str, limit_chars: int) -> str:
    """Text as it is, with a note where it is cut."""
    shown, note = capped(text, limit_chars)
    return f'<pre style="{PRE}">{escape_code(shown)}</pre>' + line_html(note)


def _thinking(text: str) -> str:
    return folded_html(f"thinking · {len(text):,} characters", code_html(text, MAX_THINKING_CHARS))


def _tool(piece: Used) -> str:
    size = f" · {len(piece.text):,} characters" if piece.text else ""
    state = "" if piece.outcome == "ran" else f' · <span style="{STRONG}">{escape(piece.outcome)}</span>'
    called = f"{one_line(piece.name, 80)}({arguments_line(piece.arguments, 60)})"
    summary = f"tool <code>{escape_code(called)}</code>{state}{size}"
    code = code_of(piece.arguments)
    whole = written(piece.arguments) if code is None else code.strip("\n")
    arguments = code_html(whole, MAX_ARGUMENT_CHARS) if piece.arguments else ""
    return folded_html(summary, arguments, code_html(piece.text, MAX_RESULT_CHARS) if piece.text else "")


def code_of(arguments: dict[str, Any] | str) -> str | None:
    """The code, where that is all there is of arguments."""
    code = arguments.get("code") if isinstance(arguments, dict) and len(arguments) == 1 else None
    return code if isinstance(code, str) else None


def arguments_line(arguments: dict[str, Any] | str, limit_chars: int) -> str:
    """The arguments of a tool call in one line, as they would be written in Python."""
    if isinstance(arguments, str):
        return one_line(arguments, limit_chars)
    each = max(limit_chars, 8)
    code = code_of(arguments)
    if code is not None:
        lines = code.strip().split("\n")
        more = f" … {len(lines)} lines" if len(lines) > 1 else ""
        return one_line(lines[0], limit_chars) + more
    written = ", ".join(f"{name}={one_line(json.dumps(value, ensure_ascii=False), each)}" for name, value in arguments.items())
    return one_line(written, limit_chars * 2)


def written(value: Any) -> str:
    """A value as indented JSON; a text as it is."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
