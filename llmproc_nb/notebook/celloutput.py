"""Outputs of code cells as people see them: tables, figures, formulas and text; what is left out of them is said in a line.

What came out of a sandbox is hostile until it is made safe here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from llmproc_nb.core.message import Image
from llmproc_nb.core.output import FRAME, plain, trace_text
from llmproc_nb.core.sandbox import Output
from llmproc_nb.core.visible import capped, visible
from llmproc_nb.inside.bundle import NO_SCRIPTS
from llmproc_nb.notebook.formula import safe_formula
from llmproc_nb.notebook.html import CELL_STYLES

MAX_HTML_CHARS = 200_000
MAX_DEPTH = 200
"""Of elements in elements: the time to make them safe grows with its square."""
MAX_SHOWN_CHARS = 1_000_000
MAX_FORMULA_CHARS = 3000
PICTURES = ("image/png", "image/jpeg")
_TAG_WORDS = "a b blockquote br caption code col colgroup dd div dl dt em h1 h2 h3 h4 h5 h6 hr i li ol p pre s small span strong"
_TAG_WORDS += " sub sup table tbody td tfoot th thead tr tt u ul"
_TAGS = frozenset(_TAG_WORDS.split())
_OPENED = re.compile(r"<(/?)([a-z][^\s/>]*)", re.IGNORECASE)
_CLOSED_BY_NEXT = "p li td th tr dt dd thead tbody tfoot caption colgroup col option br hr img input meta link wbr"
_NOT_NESTED = frozenset(_CLOSED_BY_NEXT.split())
_ATTRIBUTES = {"a": {"href"}, "td": {"colspan", "rowspan", "style"}, "th": {"colspan", "rowspan", "style"}, "ol": {"start"}}

_LIVE = {
    "application/vnd.plotly": "a plotly figure",
    "application/vnd.vega": "a Vega chart",
    "application/vnd.bokeh": "a Bokeh plot",
    "application/vnd.holoviews": "a HoloViews plot",
}
"""What scripts draw, by how its type begins. Its text says nothing, or too much."""
_PICTURES = {"image/svg+xml": "an SVG picture", "image/gif": "a GIF", "image/webp": "a WebP picture", "application/pdf": "a PDF"}
_STAND_IN = "<IPython.core.display."
_STYLED = "#T_"
"""With what the rules of a Styler of pandas begin."""
_SCRIPT = re.compile(r"<(?:script|iframe)\b", re.IGNORECASE)
_FORMULA = re.compile(r"\s*(\$\$?|\\\[|\\\()(.*?)(\$\$?|\\\]|\\\))\s*", re.DOTALL)
_NOTE_STYLE = "opacity:.7;font-size:.9em"


def safe_html(text: str) -> str:
    """HTML that code made, reduced to text, tables and lists: no script, style, id, form, picture or frame."""
    import nh3

    return nh3.clean(
        visible(text),
        tags=set(_TAGS),
        clean_content_tags={"script", "style", "title", "textarea", "noscript", "template"},
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
        strip_comments=True,
    )


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "style":
        return value if value in CELL_STYLES else None
    return value if name in ("href", "rel") or value.isdigit() else None


def rich(outputs: Iterable[Output]) -> Iterator[tuple[str, Any]]:
    """The outputs that are more than text, as ("html", safe HTML) or ("image", an Image)."""
    for output in outputs:
        made = _with_note(output.data) if output.data else None
        picture = image(output.data) if output.data else None
        if picture is not None:
            yield "image", picture
        elif made is not None:
            yield "html", made


def table(data: dict[str, Any]) -> str | None:
    """The HTML of a bundle, made safe; None where it has none, none that says anything, or one too long, or too deep, to be shown."""
    found = data.get("text/html")
    if not isinstance(found, str) or len(found) > MAX_HTML_CHARS or _depth(found) > MAX_DEPTH:
        return None
    made = safe_html(found)
    return made if re.sub(r"<[^>]*>", "", made).strip() else None


def left_out(data: dict[str, Any], html: str | None) -> str:
    """What of a bundle is not shown, and why; empty where all is. `html` is what is shown of its HTML."""
    live = next((what for kind in data for start, what in _LIVE.items() if kind.lower().startswith(start)), "")
    if live:
        return f"[{live} is not shown: {NO_SCRIPTS}]"
    found = data.get("text/html")
    if isinstance(found, str) and len(found) > MAX_HTML_CHARS:
        return f"[HTML of {len(found):,} characters is not shown: at most {MAX_HTML_CHARS:,} can be]"
    if isinstance(found, str) and _SCRIPT.search(found):
        return f"[{'a part of this' if html else 'this HTML'} is not shown: {NO_SCRIPTS}]"
    if isinstance(found, str) and html and _STYLED in found:
        return "[the styles of this table are not shown: only its text can be taken out of a sandbox]"
    if html is None and isinstance(found, str) and found.strip():
        return "[HTML is not shown: nothing of it is text, or it is nested too deep]"
    picture = next((what for kind, what in _PICTURES.items() if kind in data and html is None), "")
    return f"[{picture} is not shown: a PNG or a JPEG can be]" if picture else ""


def _with_note(data: dict[str, Any]) -> str | None:
    """The HTML of a bundle with a line that says what is left out of it."""
    html = table(data)
    note = left_out(data, html)
    return f'{html or ""}<div style="{_NOTE_STYLE}">{note}</div>' if note else html


def formula(data: dict[str, Any]) -> str | None:
    """The formula of a bundle, between its marks; None where it has none, or one that does more than draw."""
    found = data.get("text/latex")
    parts = _FORMULA.fullmatch(found) if isinstance(found, str) and len(found) <= MAX_FORMULA_CHARS else None
    made = safe_formula(parts[2]) if parts is not None else None
    return f"$${made}$$" if parts is not None and made and parts[1] in ("$$", "\\[") else f"${made}$" if made else None


def _depth(html: str) -> int:
    """How deep the elements are nested that are not closed by the next one of their kind."""
    depth = deepest = 0
    for closes, name in _OPENED.findall(html):
        if name.lower() not in _NOT_NESTED:
            depth = max(0, depth - 1) if closes else depth + 1
            deepest = max(deepest, depth)
    return deepest


def image(data: dict[str, Any]) -> Image | None:
    """The picture of a bundle."""
    for kind in PICTURES:
        found = data.get(kind)
        if isinstance(found, str):
            try:
                return Image(media_type=kind, data=base64.b64decode(found.replace("\n", ""), validate=True))
            except ValueError:
                return None
    return None


def bundle(output: Output) -> dict[str, Any]:
    """The bundle of a display or a value for a notebook: text, safe HTML, formulas, pictures."""
    html, found, drawn = table(output.data), image(output.data), formula(output.data)
    markdown = output.data.get("text/markdown")
    said = isinstance(markdown, str) and FRAME not in output.data
    note = left_out(output.data, html) if found is None and not said and drawn is None else ""
    made: dict[str, Any] = {"text/plain": text("\n".join(part for part in (_words(output.data, note), note) if part))}
    if html is not None:
        made["text/html"] = _with_note(output.data) if note else html
    if found is not None and found.data is not None:
        made[found.media_type] = base64.b64encode(found.data).decode()
    elif html is None and drawn is not None:
        made["text/latex"] = drawn
    if html is None and isinstance(markdown, str) and said:
        from llmproc_nb.notebook.html import markdown_html

        made["text/html"] = markdown_html(markdown)
    return made


def _words(data: dict[str, Any], note: str) -> str:
    """The text of a bundle, or the source of what it only names."""
    words = data.get("text/plain")
    words = words if isinstance(words, str) else ""
    if words and not words.startswith(_STAND_IN):
        return "" if note.startswith(tuple(f"[{what} " for what in _LIVE.values())) else words
    if "application/json" in data:
        return json.dumps(data["application/json"], indent=2, ensure_ascii=False)
    source = data.get("text/latex")
    return source if isinstance(source, str) else "" if note else words


def text(words: str) -> str:
    """What code wrote, for a cell's output: no control sequences but line ends, bounded, with a note where it is cut."""
    shown, note = capped(visible(plain(words[: 2 * MAX_SHOWN_CHARS])), MAX_SHOWN_CHARS)
    if len(words) > 2 * MAX_SHOWN_CHARS:
        note = f"of {len(words):,} characters only the first {len(shown):,}; the whole is in the log"
    return shown + (f"\n[{note}]\n" if note else "")


def error_text(output: Output) -> str:
    """The traceback of an error."""
    return text(trace_text(output))
