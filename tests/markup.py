"""HTML read strictly, for tests of views that draw: which tags and attributes there are, and what text remains without them."""

from __future__ import annotations

from html.parser import HTMLParser

_TAGS = "div span strong pre code svg title desc g path circle rect text details summary table thead tbody tr th td"
_NAMES = "class style xmlns width height viewbox role preserveaspectratio x y rx cx cy r d fill stroke fill-opacity stroke-width"
DRAWN = frozenset(_TAGS.split(" "))
_LOOKS = frozenset(("style", "xmlns", "font-family", "font-size", "stroke-width"))
PLAIN = frozenset(f"{_NAMES} stroke-dasharray opacity font-family font-size font-style text-anchor open".split(" "))


class Markup(HTMLParser):
    """`faults` are tags and attributes that a static drawing may not have; `text` is what stands between the tags.

    `outline` is what is drawn, a tag per line with what places and colours it, a text per line in quotes; styles and fonts are left out.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[str] = []
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.outline: list[str] = []
        self.feed(source)
        self.close()
        self.faults += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self._check(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._check(tag, attrs)

    def _check(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outline.append(" ".join((tag, *(f"{name}={value}" for name, value in attrs if name not in _LOOKS))))
        if tag not in DRAWN:
            self.faults.append(f"<{tag}>")
        for name, value in attrs:
            words = value or ""
            foreign = ("//" in words or "url(" in words or "javascript" in words.lower()) and name != "xmlns"
            if name not in PLAIN or foreign:
                self.faults.append(f"<{tag} {name}={value!r}>")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)
        if data.strip():
            self.outline.append(repr(data))

    def handle_comment(self, data: str) -> None:
        self.faults.append(f"<!--{data}-->")

    @property
    def text(self) -> str:
        return "".join(self.pieces)
