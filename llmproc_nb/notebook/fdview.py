"""How an fd looks: what it is, where the model has read, and its first page; a widget turns the pages while the kernel lives.

Here: the static twin and the view that lists an fd table. Not here: what stands on a page (fdpage) and the widget (fdwidget).
"""

from __future__ import annotations

import html
from typing import Any

from llmproc_nb.core.fd import Fd
from llmproc_nb.core.fdtable import FdTable
from llmproc_nb.notebook.facts import Table
from llmproc_nb.notebook.fdpage import BAR, ShownPage, Summary, shown_page, summary_of
from llmproc_nb.notebook.fragment import FRAME, PRE, QUIET
from llmproc_nb.notebook.html import escape
from llmproc_nb.notebook.twin import TwinView, twin_html

NUMBER = "opacity:.45;user-select:none"
READ = "color:var(--jp-brand-color1,#1976d2)"
PLAIN_LINES, PLAIN_CHARS = 3, 100


class FdView(TwinView):
    """An fd to look at: a widget with pages, search and copies in a live notebook, its summary and first page in a saved one."""

    def __init__(self, fd: Fd, table: FdTable | None = None, page: int = 1) -> None:
        self.fd, self.table, self.page = fd, table, page

    def __repr__(self) -> str:
        return str(self._repr_mimebundle_()["text/plain"])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return fd_bundle(self.fd, self.table, self.page)

    def widget(self) -> Any:
        from llmproc_nb.notebook.fdwidget import fd_widget

        return fd_widget(self.fd, self.table, self.page)


def fd_table(table: FdTable) -> Table:
    """One row per fd of a process: what `%fd scout` shows."""
    columns = ("fd", "from", "characters", "lines", "pages", "read")
    rows = []
    for fd in table:
        told = summary_of(fd, table)
        rows.append((told.name, told.label, f"{told.chars:,}", f"{told.lines:,}", told.pages, read_words(told) or "nothing"))
    return Table(columns, rows, empty="nothing is open as an fd")


def fd_bundle(fd: Fd, table: FdTable | None = None, page: int = 1) -> dict[str, Any]:
    """An fd as text and HTML: what it is, and one page. Equal texts give equal bytes. Raises ToolError where there is no such page."""
    told = summary_of(fd, table)
    shown = shown_page(fd, page, table.reads(fd.number) if table is not None else ())
    return {"text/plain": _plain(told, shown), "text/html": _html(told, shown)}


def size_words(told: Summary) -> str:
    """How long it is."""
    return f"{_count(told.chars, 'character')} · {_count(told.lines, 'line')} · {_count(told.pages, 'page')}"


def read_words(told: Summary) -> str:
    """How much of it the model has read; empty where it has read nothing."""
    if not told.read_chars:
        return ""
    return "all of it" if told.read_chars == told.chars else f"{max(1, min(99, round(100 * told.read_chars / told.chars)))} %"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _where(shown: ShownPage) -> str:
    last = shown.first_line + shown.text.count("\n")
    lines = f"line {shown.first_line:,}" if last == shown.first_line else f"lines {shown.first_line:,} to {last:,}"
    return f"page {shown.number:,} of {shown.pages:,}, {lines}"


def _plain(told: Summary, shown: ShownPage) -> str:
    read = read_words(told)
    rows = [*([shown.columns] if shown.columns else []), *shown.text.split("\n", PLAIN_LINES)[:PLAIN_LINES]]
    first = [line[:PLAIN_CHARS] + ("…" if len(line) > PLAIN_CHARS else "") for line in rows]
    more = "…" if told.pages > 1 or shown.text.count("\n") >= PLAIN_LINES else ""
    lines = [
        f"{told.name} {told.label}: {size_words(told)}" + (f"; the model has read {read}" if read else ""),
        *first,
        *([more] if more else []),
    ]
    return "\n".join(lines)


def _html(told: Summary, shown: ShownPage) -> str:
    read = read_words(told)
    known = f' · <span style="{READ}">the model has read {html.escape(read)}</span>' if read else ""
    head = f'<div><strong>{told.name}</strong> {escape(told.label)} <span style="{QUIET}">{size_words(told)}{known}</span></div>'
    rows = _numbered(shown)
    foot = f'<div style="{QUIET}">{_where(shown)}</div>' if told.pages > 1 else ""
    return twin_html(f'<div style="{FRAME}">\n{head}\n{_bar_svg(told)}<pre style="{PRE}">{rows}</pre>{foot}\n</div>')


def _bar_svg(told: Summary) -> str:
    """What the model has read, along the whole text; nothing where it has read nothing."""
    if not told.bar or told.pages == 1:
        return ""
    read = "".join(f'<rect x="{start}" width="{stop - start}" height="4" fill="#1976d2"/>' for start, stop in told.bar)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="100%" height="4" viewBox="0 0 {BAR} 4" preserveAspectRatio="none"'
        f' style="display:block;margin:4px 0"><rect width="{BAR}" height="4" fill="#888" fill-opacity=".25"/>{read}</svg>\n'
    )


def _numbered(shown: ShownPage) -> str:
    """The rows of a page with their line numbers; those of which the model has read something have a mark."""
    lines = shown.text.split("\n")
    wide = len(str(shown.first_line + len(lines) - 1))
    read = {row for start, stop in shown.read for row in range(start, stop)}
    rows = [f' <span style="{NUMBER}">{1:>{wide}}</span>  <strong>{html.escape(shown.columns)}</strong>'] if shown.columns else []
    for row, line in enumerate(lines):
        number = f"{shown.first_line + row:>{wide}}" if row or not shown.continued else "…".rjust(wide)
        mark = f'<span style="{READ}">▎</span>' if row in read else " "
        rows.append(f'{mark}<span style="{NUMBER}">{number}</span>  {html.escape(line)}')
    return "\n".join(rows)
