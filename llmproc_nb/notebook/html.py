"""Text of a model as safe HTML: Markdown rendered and sanitised; everything else escaped.

Here: what may stand in HTML at all. Not here: what a turn looks like (view), nor Markdown for viewers without HTML (markdown).
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.visible import visible
from llmproc_nb.notebook.formula import add_formulas, safe_formula

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

MAX_MARKDOWN_CHARS = 200_000
_TAG_WORDS = "p br hr h1 h2 h3 h4 h5 h6 strong em s code pre blockquote ul ol li table thead tbody tr th td a span"
_TAGS = frozenset(_TAG_WORDS.split())
_ATTRIBUTES = {"a": {"href"}, "ol": {"start"}, "th": {"style"}, "td": {"style"}}
CELL_STYLES = frozenset(("text-align:left", "text-align:right", "text-align:center"))
_SCHEMES = {"http", "https", "mailto"}
_HREF = re.compile(r"(?:https?://|mailto:)[^\s\\<>\"'`]+", re.IGNORECASE)
_FORMULA_BEGINS = re.compile(r"\$|\\(?=[()\[\]$]|begin|end)")


def escape(text: str) -> str:
    """The text for use in HTML, outside of code: escaped, visible, and with nothing a typesetter would take for a formula."""
    escaped = html.escape(visible(text))
    return _FORMULA_BEGINS.sub(lambda found: f"<span>{found[0]}</span>", escaped)


def escape_code(text: str) -> str:
    """The text for use inside `<pre>` and `<code>`, where no typesetter looks."""
    return html.escape(visible(text))


@lru_cache(maxsize=2)  # a finished turn is written twice, as HTML and as Markdown
def parse(text: str) -> Sequence[Token]:
    """The Markdown tokens of a model's text; raw HTML in it is text."""
    return _parser().parse(visible(text))


def markdown_html(text: str) -> str:
    """A model's Markdown as sanitised HTML: no images, scripts, styles, ids or forms, and only http, https and mailto links."""
    if len(text) > MAX_MARKDOWN_CHARS:
        return f'<pre style="white-space:pre-wrap">{escape_code(text)}</pre>'
    return tokens_html(parse(text))


def tokens_html(tokens: Sequence[Token]) -> str:
    """Parsed Markdown as sanitised HTML."""
    import nh3

    parser = _parser()
    made = parser.renderer.render(tokens, parser.options, {})
    return nh3.clean(
        made,
        tags=set(_TAGS),
        clean_content_tags={"script", "style"},
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        attribute_filter=_filter,
        url_schemes=_SCHEMES,
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
        strip_comments=True,
    )


def safe_href(url: str) -> str | None:
    """The address where a link may lead there; None otherwise."""
    return url if _HREF.fullmatch(url) else None


def _filter(tag: str, name: str, value: str) -> str | None:
    if name == "href":
        return safe_href(value)
    if name == "style":
        return value if value in CELL_STYLES else None
    return value if name == "rel" or value.isdigit() else None


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True}).enable(["table", "strikethrough"])
    parser.validateLink = lambda url: True  # type: ignore[method-assign] # a link that leads nowhere good is shown with its address
    add_formulas(parser)
    for name, rule in _RULES.items():
        parser.add_render_rule(name, rule)
    return parser


def _text(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    return escape(tokens[index].content)


def _image(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    token = tokens[index]
    return f"[image: {escape(token.content)} <code>{escape_code(str(token.attrs.get('src', '')))}</code>]"


def _formula(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    token = tokens[index]
    line = safe_formula(token.content)
    if line is None:
        return f"<code>{escape_code(token.content)}</code>"
    opening, closing = ("\\[", "\\]") if token.markup in ("$$", "\\[") else ("\\(", "\\)")
    return f"{opening}{html.escape(line, quote=False)}{closing}"


def _code(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    return f"<code>{html.escape(tokens[index].content)}</code>"


def _block(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    return f"<pre><code>{html.escape(tokens[index].content)}</code></pre>\n"


def _link_open(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    href = safe_href(str(tokens[index].attrs.get("href", "")))
    return f'<a href="{html.escape(href)}">' if href else "<span>"


def _link_close(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    url = link_target(tokens, index)
    return "</a>" if safe_href(url) else f"</span> <code>{escape_code(url)}</code>"


def link_target(tokens: Sequence[Token], closing: int) -> str:
    """The address of the link that ends at this token. Links do not nest."""
    opening = next(token for token in reversed(tokens[:closing]) if token.type == "link_open")
    return str(opening.attrs.get("href", ""))


def _cell_open(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    token = tokens[index]
    found = re.search(r"text-align:\s*(left|right|center)", str(token.attrs.get("style", "")))
    return f'<{token.tag} style="text-align:{found[1] if found else "left"}">'  # a style: front ends' own sheets say otherwise


_RULES = {
    "text": _text,
    "text_special": _text,
    "image": _image,
    "formula": _formula,
    "code_inline": _code,
    "code_block": _block,
    "fence": _block,
    "link_open": _link_open,
    "link_close": _link_close,
    "th_open": _cell_open,
    "td_open": _cell_open,
}
