"""Formulas in an answer: `$…$`, `$$…$$`, `\\(…\\)` and `\\[…\\]` are kept where every command in them only draws.

Front ends typeset such text wherever it stands, and some commands link, load or redefine. So a formula passes by an allow-list; any
other is shown as code, and every other dollar sign or backslash that could begin one is broken up (html, markdown).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline

MAX_CHARS = 2000
_COMMAND_WORDS = """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi varpi rho varrho sigma varsigma
    tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega aleph beth hbar ell imath jmath
    Re Im wp partial nabla infty forall exists nexists emptyset varnothing in notin ni subset subseteq supset supseteq cup cap
    setminus land lor lnot neg wedge vee oplus otimes odot cdot times div pm mp ast star circ bullet le leq ge geq ne neq lt gt ll
    gg approx sim simeq cong equiv propto mid nmid parallel perp models vdash to gets mapsto leftarrow rightarrow leftrightarrow
    Leftarrow Rightarrow Leftrightarrow longrightarrow Longrightarrow uparrow downarrow implies iff therefore because frac dfrac
    tfrac cfrac binom dbinom sqrt sum prod coprod int iint iiint oint lim limsup liminf sup inf max min arg argmax argmin det dim
    ker deg exp log ln lg sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh gcd Pr mod bmod pmod left right big Big bigg
    Bigg bigl bigr Bigl Bigr middle langle rangle lfloor rfloor lceil rceil vert Vert lvert rvert lVert rVert hat widehat bar
    overline underline tilde widetilde vec dot ddot overrightarrow overbrace underbrace overset underset stackrel mathbf mathbb
    mathcal mathfrak mathrm mathsf mathit mathtt boldsymbol bm text textbf textit textrm operatorname displaystyle textstyle limits
    nolimits quad qquad ldots cdots dots vdots ddots prime dagger top bot begin end nonumber boxed cancel substack not
"""
_ENVIRONMENT_WORDS = (
    "matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix array cases aligned align align* alignedat "
    "gathered gather gather* split equation equation*"
)
_COMMANDS, _ENVIRONMENTS = frozenset(_COMMAND_WORDS.split()), frozenset(_ENVIRONMENT_WORDS.split())
_OPENING = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_HARMFUL = re.compile(r"\]\s*[\[(]|`|://|\$|\\[()\[\]]|[^\S ]")


def safe_formula(content: str) -> str | None:
    """The formula in one line, fit to be handed to a typesetter and to a Markdown reader; None where it is not of the harmless kind."""
    line = " ".join(content.split())
    if not line or len(line) > MAX_CHARS or _HARMFUL.search(line):
        return None
    names = re.findall(r"\\([A-Za-z]+)", line)
    if any(name not in _COMMANDS for name in names):
        return None
    if any(found not in _ENVIRONMENTS for found in re.findall(r"\\(?:begin|end)\s*\{([^}]*)\}", line)):
        return None
    if len(re.findall(r"\\begin\s*\{", line)) != names.count("begin") or len(re.findall(r"\\end\s*\{", line)) != names.count("end"):
        return None
    return line.replace("<", r"\lt ").replace(">", r"\gt ")


def add_formulas(markdown: MarkdownIt) -> None:
    """Teach a Markdown parser the token `formula`: `content` is what stands between the marks, `markup` the opening mark."""
    markdown.inline.ruler.before("escape", "formula", _rule)


def _rule(state: StateInline, silent: bool) -> bool:
    for opening, closing in _OPENING:
        if not state.src.startswith(opening, state.pos):
            continue
        start = state.pos + len(opening)
        end = _end(state.src, start, closing, state.posMax)
        if end < 0:
            continue
        if not silent:
            token = state.push("formula", "", 0)
            token.content, token.markup = state.src[start:end], opening
        state.pos = end + len(closing)
        return True
    return False


def _end(text: str, start: int, closing: str, limit: int) -> int:
    """Where the formula ends; -1 where none begins. A single dollar sign needs ink on its inner sides, so that prices stay text."""
    stop = min(limit, start + 2 * MAX_CHARS)
    end = text.find(closing, start, stop)
    while end > 0 and closing.startswith("$") and text[end - 1] == "\\":
        end = text.find(closing, end + 1, stop)
    if end <= start:
        return -1
    if closing == "$" and (
        text[start].isspace() or text[end - 1].isspace() or text[end + 1 : end + 2].isdigit() or "\n\n" in text[start:end]
    ):
        return -1
    return end
