"""Text of a model as Markdown that every viewer may render, raw HTML on or off: written anew from its parsed form.

Viewers disagree about where code, formulas and HTML begin, so nothing of the source is passed through: each piece of text is escaped,
each code block gets a fence longer than anything in it, images and unsafe links become words.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from llmproc_nb.core.visible import visible
from llmproc_nb.notebook.formula import safe_formula
from llmproc_nb.notebook.html import MAX_MARKDOWN_CHARS, link_target, parse, safe_href

if TYPE_CHECKING:
    from markdown_it.token import Token

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>&~$|]|!(?=\[|$)")
_ADDRESS = re.compile(r"(https?://[A-Za-z0-9\-._~:/?#@!&+,;=%()]*[A-Za-z0-9\-_~/#=%&+])")
_SIGNS = {"\\": "&#92;", "!": "&#33;", "<": "&lt;", ">": "&gt;", "&": "&amp;"}
_LINE_START = re.compile(r"^(\s*\d*)([#+\-=:%!.)])")
_DRAWN = {"mermaid", "math", "geojson", "topojson", "stl", "latex", "tex", "html", "svg"}
# what some viewer reads as a formula even inside code, and so loses its place
_CONFUSING = re.compile(r"\$\$|\\\\?[\[\]()]|\\(?:begin|end)\b")


def escape_markdown(text: str, *, in_link: bool = False, starts_line: bool = True) -> str:
    """The text for use in Markdown: it stands there as it is and begins nothing. A bare address becomes a link that ends where it does."""
    text = " ".join(visible(text).split("\n"))
    pieces = [text] if in_link else _ADDRESS.split(text)
    made = [_escaped(piece) if index % 2 == 0 else f"<{piece}>" for index, piece in enumerate(pieces)]
    return _LINE_START.sub(lambda found: f"{found[1]}\\{found[2]}", "".join(made)) if starts_line else "".join(made)


def _escaped(text: str) -> str:
    escaped = _SPECIAL.sub(lambda found: _sign(found, text), text)
    return escaped.replace("://", "&#58;//")  # some viewers make links of what follows, escapes and all


def _sign(found: re.Match[str], text: str) -> str:
    sign = found[0]
    if sign == "$":
        return "<span>&#36;</span>"  # a viewer's typesetter looks at the page, where an escape is no longer seen
    if sign == "\\" and re.match(r"[()\[\]$]|begin|end", text[found.end() : found.end() + 5]):
        return "<span>&#92;</span>"
    return _SIGNS.get(sign, f"\\{sign}")


def code_span(text: str) -> str:
    """The text as inline code."""
    text = " ".join(visible(text).split("\n")) or " "
    if _CONFUSING.search(text) or "|" in text or text != text.strip():
        return f"<code>{_encoded(text)}</code>"
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def code_block(text: str, language: str = "") -> str:
    """The text as a block of code; as encoded HTML where a viewer would see a formula in it."""
    text = visible(text)
    if _CONFUSING.search(text):
        return f"<pre><code>{_encoded(text)}</code></pre>"
    if not re.fullmatch(r"[A-Za-z0-9_+#.-]{1,20}", language) or language.lower() in _DRAWN:
        language = ""
    fence = "`" * max(3, max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    body = text if text.endswith("\n") or not text else text + "\n"
    return f"{fence}{language}\n{body}{fence}"


def _encoded(text: str) -> str:
    escaped = html.escape(text, quote=False)
    return re.sub(r"[\\$`*_\[\]\n~|{}]", lambda found: f"&#{ord(found[0])};", escaped)


def neutral(text: str) -> str:
    """A model's Markdown with the same meaning and no images, raw HTML, diagrams or links but http, https and mailto."""
    if len(text) > MAX_MARKDOWN_CHARS:
        return code_block(text)
    return tokens_markdown(parse(text))


def tokens_markdown(tokens: Sequence[Token]) -> str:
    """Parsed Markdown, written anew."""
    return _Writer(tokens).blocks("")


class _Writer:
    """Goes once through the tokens; `_at` is the next one."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens, self._at = tokens, 0

    def blocks(self, until: str, *, in_item: bool = False) -> str:
        """The blocks up to the token of that type, with empty lines between them; in a tight list only where they are needed."""
        made = ""
        tight = in_item and self._at < len(self._tokens) and self._tokens[self._at].hidden
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token.type == until:
                break
            block = self._block(token)
            between = "\n" if tight and token.type in ("bullet_list_open", "fence") else "\n\n"
            made += (between if made and block else "") + block
        return made

    def _block(self, token: Token) -> str:
        kind = token.type
        if kind in ("fence", "code_block"):
            return code_block(token.content, token.info.split()[0] if token.info.split() else "")
        if kind == "hr":
            return "* * *"
        if kind == "inline":
            return _inline(token.children or [])
        if kind == "heading_open":
            return f"{'#' * int(token.tag[1])} {self.blocks('heading_close')}"
        if kind == "blockquote_open":
            return _prefixed(self.blocks("blockquote_close"), "> ", "> ")
        if kind == "bullet_list_open":
            return self._items("bullet_list_close", None)
        if kind == "ordered_list_open":
            return self._items("ordered_list_close", int(token.attrs.get("start", 1) or 0))
        if kind == "table_open":
            return self._table()
        if kind.endswith("_open"):
            return self.blocks(kind.removesuffix("_open") + "_close")
        return escape_markdown(token.content)

    def _items(self, until: str, number: int | None) -> str:
        made: list[str] = []
        loose = False
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token.type == until:
                break
            first = self._tokens[self._at]
            loose = loose or (first.type == "paragraph_open" and not first.hidden)
            mark = "- " if number is None else f"{number + len(made)}. "
            made.append(_prefixed(self.blocks("list_item_close", in_item=True) or "&#8203;", mark, " " * len(mark)))
        return ("\n\n" if loose else "\n").join(made)

    def _table(self) -> str:
        rows: list[list[str]] = []
        marks: list[str] = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token.type == "table_close":
                break
            if token.type == "tr_open":
                rows.append([])
            elif token.type in ("th_open", "td_open"):
                rows[-1].append(self.blocks(token.type.replace("open", "close")))
                if token.type == "th_open":
                    marks.append(_alignment(str(token.attrs.get("style", ""))))
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], f"| {' | '.join(marks)} |", *lines[1:]]) if lines else ""


def _alignment(style: str) -> str:
    found = re.search(r"text-align:\s*(left|right|center)", style)
    return {"left": ":---", "right": "---:", "center": ":---:"}[found[1]] if found else "---"


def _prefixed(text: str, first: str, rest: str) -> str:
    lines = text.split("\n")
    return "\n".join([first + lines[0], *((rest + line).rstrip() if not line else rest + line for line in lines[1:])])


def _inline(tokens: Sequence[Token]) -> str:
    made: list[str] = []
    for index, token in enumerate(tokens):
        piece = _piece(tokens, index, token)
        if piece.startswith("$") and made and made[-1].endswith("$"):
            made.append(" ")
        made.append(piece)
    return "".join(made)


def _piece(tokens: Sequence[Token], index: int, token: Token) -> str:
    kind = token.type
    if kind in ("strong_open", "strong_close"):
        return "**"
    if kind in ("em_open", "em_close"):
        return "*"
    if kind in ("s_open", "s_close"):
        return "~~"
    if kind == "code_inline":
        return code_span(token.content)
    if kind == "softbreak":
        return "\n"
    if kind == "hardbreak":
        return "\\\n"
    if kind == "formula":
        return _formula(token)
    if kind == "image":
        return rf"\[image: {escape_markdown(token.content)} {code_span(str(token.attrs.get('src', '')))}\]"
    if kind == "link_open":
        return "[" if safe_href(str(token.attrs.get("href", ""))) else ""
    if kind == "link_close":
        return _link_end(link_target(tokens, index))
    depth = sum((before.type == "link_open") - (before.type == "link_close") for before in tokens[:index])
    starts_line = index == 0 or tokens[index - 1].type in ("softbreak", "hardbreak")
    return escape_markdown(token.content, in_link=depth > 0, starts_line=starts_line)


def _formula(token: Token) -> str:
    line = safe_formula(token.content)
    if line is None:
        return code_span(token.content)
    mark = "$$" if token.markup in ("$$", "\\[") else "$"
    return f"{mark}{line}{mark}"


def _link_end(url: str) -> str:
    href = safe_href(url)
    if href is None:
        return f" {code_span(url)}"
    return f"](<{html.escape(quote(href, safe=_URL_SAFE), quote=False)}>)"


_URL_SAFE = "-._~:/?#@!&'+,;=%[]"
