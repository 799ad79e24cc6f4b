"""How a tree looks in a saved notebook: as drawn rows (SVG within HTML) and as text like `git log --graph`.

Equal trees give equal bytes: no times, costs, ids or scripts. Colours are those of the page (its text colour) and middle tones that stand
out on light and dark. Here: the static twin. Not here: which row a message stands in (treerow) and the live widget (treewidget).
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from llmproc_nb.core.visible import one_line, visible
from llmproc_nb.notebook.tree import Tree, TreeNode, build_tree
from llmproc_nb.notebook.treerow import Lane, Row, tree_rows
from llmproc_nb.notebook.twin import twin_html

if TYPE_CHECKING:
    from llmproc_nb.core.machine import Machine

TONES = ("#3b82c4", "#d2762a", "#2f9e72", "#8b6fc9", "#cf5468", "#1f97a8", "#b8862b", "#c0609f")
STATIC_ROWS = 300
MAX_NAME_CHARS = 28
TEXT_CHARS = 72
ROW, COL, LEFT, LABEL, ROLE, WIDTH = 24, 16, 12, 58, 70, 760
MAX_COLS = 24
MONO, SANS = "ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace", "system-ui,-apple-system,'Segoe UI',sans-serif"
PRE = "margin:0;white-space:pre;overflow-x:auto"
DRAWN = f"display:block;max-width:100%;height:auto;font-family:{SANS};font-size:13px"


def tree_bundle(machine: Machine, names: Iterable[str | int] = ()) -> dict[str, Any]:
    """The tree of a machine (of these processes and their children) as text and as a drawing. Raises PersonError for unknown names."""
    return bundle(build_tree(machine, names))


def bundle(tree: Tree) -> dict[str, Any]:
    """A tree as text and as a drawing within HTML. Where a viewer takes the drawing's marks away, its texts remain, a line for each row."""
    return {
        "text/plain": tree_text(tree),
        "text/html": twin_html(f'<pre style="{PRE}">{tree_svg(tree)}</pre>') if tree.nodes else _nothing(),
    }


def _nothing() -> str:
    return twin_html("<div>nothing was said yet</div>")


# as text


def tree_text(tree: Tree, limit: int = STATIC_ROWS) -> str:
    """The tree in lines, as `git log --graph --oneline` would write it."""
    rows = tree_rows(tree, limit=limit)
    if not rows:
        return "nothing was said yet"
    wide = max(row.col for row in rows) + 1
    lines = []
    for row in rows:
        words = _line(row, tree)
        lines.append(f"{_graph(row, wide)}{words}".rstrip())
    return "\n".join(lines)


def _graph(row: Row, wide: int) -> str:
    passing = {lane.col for lane in row.lanes}
    signs = []
    for col in range(wide):
        sign = "│" if col in passing else " "
        if col == row.col:
            sign = "⋮" if row.kind != "message" else "●" if row.living else "○"
        if row.elbow and col == row.col - 1:
            signs.append("├─" if col in passing else "╰─")
        else:
            signs.append(f"{sign} ")
    return "".join(signs) + " "


def _line(row: Row, tree: Tree) -> str:
    if row.kind != "message":
        return folded_words(row)
    node = tree.nodes[row.node]
    marks = "".join(f"  [{visible(mark)}]" for mark in shown_marks(node))
    heads = "".join(f"  ← {head}" for head, _ in head_names(node, tree))
    name = f"{node.label or node.id[:7] if node.depth else ''}".ljust(8)
    return f"{name}{node.role:<10}{node.words if len(node.words) <= TEXT_CHARS else node.words[:TEXT_CHARS].rstrip() + '…'}{marks}{heads}"


def folded_words(row: Row) -> str:
    """What a folded row stands for."""
    if row.kind == "branches":
        return f"… {row.branches:,} more branches, {row.messages:,} messages …"
    return f"… {row.messages:,} messages …" if row.kind == "messages" else f"… {row.messages:,} more messages: `%log messages` has them all"


def shown_marks(node: TreeNode) -> tuple[str, ...]:
    """The marks of a node, short and visible."""
    return tuple(one_line(mark, 60) for mark in node.marks)


def head_names(node: TreeNode, tree: Tree) -> list[tuple[str, int]]:
    """The processes that stand at a node, each with its tone; the middle of very many is counted."""
    heads = node.heads if len(node.heads) <= 4 else (node.heads[0], node.heads[1], node.heads[-1])
    named = [(one_line(head.name, MAX_NAME_CHARS) + (" (killed)" if head.state == "killed" else ""), tree.tone(head.pid)) for head in heads]
    if len(heads) < len(node.heads):
        named.insert(2, (f"{len(node.heads) - 3} more", named[1][1]))
    return named


# as a drawing


def tree_svg(tree: Tree, limit: int = STATIC_ROWS) -> str:
    """The tree as one `<svg>` without ids and scripts. Its texts alone are the tree in lines, for viewers that allow no drawing."""
    rows = tree_rows(tree, limit=limit)
    wide = max((row.col for row in rows), default=0) + 1
    start = LEFT + min(wide, MAX_COLS + 1) * COL + 4
    height = len(rows) * ROW + 8
    told = f"the tree of {', '.join(one_line(name, 40) for name in list(tree.processes.values())[:8]) or 'no process'}"
    drawn = "\n".join(_row_svg(number, row, tree, start, wide) for number, row in enumerate(rows))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' style="{DRAWN}"><title>{html.escape(told)}</title>\n{drawn}\n</svg>'
    )


def _row_svg(number: int, row: Row, tree: Tree, start: int, wide: int) -> str:
    top = 4 + number * ROW
    words = _node_svg(row, tree, top, start) if row.kind == "message" else _fold_svg(row, top, start)
    return "".join((f"<desc>{_graph(row, wide)}</desc>", *_lines_svg(row, top), *words))


def _x(col: int) -> int:
    return LEFT + min(col, MAX_COLS) * COL


def _lines_svg(row: Row, top: int) -> Iterator[str]:
    """The lines of branches through one row."""
    middle, end = top + ROW // 2, top + ROW
    for lane in row.lanes:
        yield _path(f"M{_x(lane.col)} {top}V{end}", lane.tone, lane.living)
    own = Lane(col=row.col, tone=row.tone, living=row.living)
    if row.above:
        yield _path(f"M{_x(row.col)} {top}V{middle - 6}", own.tone, own.living)
    if row.elbow:
        left, x = _x(row.col - 1), _x(row.col)
        yield _path(f"M{left} {top - 6}C{left} {middle} {left} {middle} {x - 6} {middle}", own.tone, own.living, loose=row.loose)
    if row.under:
        yield _path(f"M{_x(row.col)} {middle + 6}V{end}", row.under.tone, row.under.living)


def _path(line: str, tone: int, living: bool, *, loose: bool = False) -> str:
    dashes = ' stroke-dasharray="2 3"' if loose else ""
    return f'<path d="{line}" fill="none" stroke="{tone_of(tone)}" stroke-width="1.6"{_faded(living)}{dashes}/>'


def tone_of(tone: int) -> str:
    """The colour of a process."""
    return TONES[tone % len(TONES)]


def _faded(living: bool) -> str:
    return "" if living else ' opacity=".5"'


def _node_svg(row: Row, tree: Tree, top: int, start: int) -> Iterator[str]:
    node = tree.nodes[row.node]
    middle = top + ROW // 2
    yield _text(start, middle, node.label.ljust(7), mono=True, quiet=True)
    yield _text(start + LABEL, middle, node.role.ljust(9), quiet=True)
    x = start + LABEL + ROLE
    for head, tone in head_names(node, tree):
        wide = _mono_width(head) + 14
        yield _pill(x, middle, wide, head, tone_of(tone))
        x += wide + 6
    marks = " · ".join(shown_marks(node))
    end = WIDTH - 8 - (_width(marks, 12) + 20 if marks else 0)
    room = max(end - x - 4, 40)
    yield (
        f'<svg x="{x}" y="{top}" width="{room}" height="{ROW}"><text x="0" y="{ROW // 2 + 4}" fill="currentColor"'
        f"{_faded_text(row.living)}>{html.escape(_fitting(node.words, room))} </text></svg>"
    )
    yield _text(WIDTH - 8, middle, marks, quiet=True, slanted=True, to_the_left=True)
    used = _tokens(node)
    told = f"<title>{used}</title>" if used else ""
    yield f"<g>{told}{_dot(node.role, _x(row.col), middle, tone_of(row.tone), row.living)}</g>"


def _tokens(node: TreeNode) -> str:
    used = node.usage
    return f"{used.input_tokens:,} tokens read, {used.output_tokens:,} written" if used.requests or used.total_tokens else ""


def _dot(role: str, x: int, y: int, colour: str, living: bool) -> str:
    faded = _faded(living)
    if role == "user":
        return f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"{faded}/>'
    if role == "assistant":
        return f'<circle cx="{x}" cy="{y}" r="4.4" fill="none" stroke="{colour}" stroke-width="1.8"{faded}/>'
    if role == "tool":
        return f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"{faded}/>'
    return f'<rect x="{x - 4}" y="{y - 4}" width="8" height="8" rx="2" fill="{colour}"{faded}/>'


def _fold_svg(row: Row, top: int, start: int) -> Iterator[str]:
    middle, x = top + ROW // 2, _x(row.col)
    for step in (-4, 0, 4):
        yield f'<circle cx="{x}" cy="{middle + step}" r="1.2" fill="{tone_of(row.tone)}"{_faded(row.living)}/>'
    yield _text(start, middle, folded_words(row), quiet=True, slanted=True)


def _text(
    x: int, middle: int, text: str, *, mono: bool = False, quiet: bool = False, slanted: bool = False, to_the_left: bool = False
) -> str:
    if not text.strip():
        return f"<desc>{text} </desc>" if text else ""
    style = f' font-family="{MONO}" font-size="11"' if mono else ' font-size="12"'
    style += ' font-style="italic"' if slanted else ""
    style += ' text-anchor="end"' if to_the_left else ""
    style += ' opacity=".6"' if quiet else ""
    return f'<text x="{x}" y="{middle + 4}" fill="currentColor"{style}>{html.escape(text)} </text>'


def _faded_text(living: bool) -> str:
    return "" if living else ' opacity=".62"'


def _pill(x: int, middle: int, wide: int, text: str, colour: str) -> str:
    return (
        f'<rect x="{x}" y="{middle - 8}" width="{wide}" height="16" rx="8" fill="{colour}" fill-opacity=".16" stroke="{colour}"/>'
        f'<text x="{x + 7}" y="{middle + 4}" font-family="{MONO}" font-size="11" fill="currentColor">{html.escape(text)} </text>'
    )


def _mono_width(text: str) -> int:
    return round(_columns(text) * 6.65)


def _width(text: str, size: int) -> int:
    return round(_columns(text) * size * 0.53)


def _columns(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def _fitting(text: str, room: int) -> str:
    """As much of the words as surely shows, with a sign where they go on."""
    if _width(text, 13) <= room:
        return text
    kept, used = [], 0
    for char in text:
        used += 2 if east_asian_width(char) in "WF" else 1
        if used * 13 * 0.53 > room - 12:
            break
        kept.append(char)
    return "".join(kept).rstrip() + "…"
