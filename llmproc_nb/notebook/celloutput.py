"""Outputs of code cells as people see them: tables, figures and text. What came out of a sandbox is hostile until it is made safe here."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Any

from llmproc_nb.core.message import Image
from llmproc_nb.core.output import FRAME, plain, trace_text
from llmproc_nb.core.sandbox import Output
from llmproc_nb.core.visible import capped, visible
from llmproc_nb.notebook.html import CELL_STYLES

MAX_HTML_CHARS = 200_000
MAX_DEPTH = 200
"""Of elements in elements: the time to make them safe grows with its square."""
MAX_SHOWN_CHARS = 1_000_000
PICTURES = ("image/png", "image/jpeg")
_TAG_WORDS = "a b blockquote br caption code col colgroup dd div dl dt em h1 h2 h3 h4 h5 h6 hr i li ol p pre s small span strong"
_TAG_WORDS += " sub sup table tbody td tfoot th thead tr tt u ul"
_TAGS = frozenset(_TAG_WORDS.split())
_OPENED = re.compile(r"<(/?)([a-z][^\s/>]*)", re.IGNORECASE)
_CLOSED_BY_NEXT = "p li td th tr dt dd thead tbody tfoot caption colgroup col option br hr img input meta link wbr"
_NOT_NESTED = frozenset(_CLOSED_BY_NEXT.split())
_ATTRIBUTES = {"a": {"href"}, "td": {"colspan", "rowspan", "style"}, "th": {"colspan", "rowspan", "style"}, "ol": {"start"}}


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
        made = table(output.data) if output.data else None
        picture = image(output.data) if output.data else None
        if picture is not None:
            yield "image", picture
        elif made is not None:
            yield "html", made


def table(data: dict[str, Any]) -> str | None:
    """The HTML of a bundle, made safe; None where it has none, or one that is too long, or too deep, to be shown."""
    found = data.get("text/html")
    return safe_html(found) if isinstance(found, str) and len(found) <= MAX_HTML_CHARS and _depth(found) <= MAX_DEPTH else None


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
    """The bundle of a display or a value for a notebook: text, safe HTML, pictures."""
    words = output.data.get("text/plain")
    made: dict[str, Any] = {"text/plain": text(words if isinstance(words, str) else "")}
    html = table(output.data)
    if html is not None:
        made["text/html"] = html
    found = image(output.data)
    if found is not None and found.data is not None:
        made[found.media_type] = base64.b64encode(found.data).decode()
    markdown = output.data.get("text/markdown")
    if html is None and isinstance(markdown, str) and FRAME not in output.data:
        from llmproc_nb.notebook.html import markdown_html

        made["text/html"] = markdown_html(markdown)
    return made


def text(words: str) -> str:
    """What code wrote, for a cell's output: no control sequences but line ends, bounded, with a note where it is cut."""
    shown, note = capped(visible(plain(words[: 2 * MAX_SHOWN_CHARS])), MAX_SHOWN_CHARS)
    if len(words) > 2 * MAX_SHOWN_CHARS:
        note = f"of {len(words):,} characters only the first {len(shown):,}; the whole is in the log"
    return shown + (f"\n[{note}]\n" if note else "")


def error_text(output: Output) -> str:
    """The traceback of an error."""
    return text(trace_text(output))
