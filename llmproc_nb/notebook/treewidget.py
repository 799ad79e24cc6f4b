"""The live tree: a click on a row shows its message, and the buttons there fork or go there by functions that are given.

Here: what a person may ask for and what goes to the front end. Not here: rows (treerow), the static twin (treeview), treewidget.js.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import LlmprocError
from llmproc_nb.core.message import Document, Image, Message, Opaque, Text, Thinking, ToolCall, ToolResult
from llmproc_nb.core.visible import capped, one_line, visible
from llmproc_nb.notebook.fragment import written
from llmproc_nb.notebook.tree import Tree, TreeNode, build_tree
from llmproc_nb.notebook.treerow import Row, tree_rows
from llmproc_nb.notebook.treeview import TONES, bundle, folded_words, head_names, shown_marks
from llmproc_nb.notebook.twin import TwinView, is_running, pulse, source, widget_type

if TYPE_CHECKING:
    from llmproc_nb.core.machine import Machine

Act: TypeAlias = Callable[[str], Any]
LIVE_ROWS = 3000
MAX_SECTION_CHARS = 20_000


class TreeView(TwinView):
    """The tree of a machine, or of these processes and their children: a widget in a live notebook, a drawing in a saved one.

    `on_fork` and `on_goto` get a node's id when a person presses the button; what they return is said below the tree, and so is the
    error of ours that they raise. `cell_name` says what to call a cell, by its id. Raises PersonError for a name that no process has.
    """

    def __init__(
        self,
        machine: Machine,
        names: Iterable[str | int] = (),
        *,
        on_fork: Act | None = None,
        on_goto: Act | None = None,
        cell_name: Callable[[str], str] | None = None,
    ) -> None:
        self.machine, self.names = machine, tuple(names)
        self.on_fork, self.on_goto, self.cell_name = on_fork, on_goto, cell_name or (lambda cell: cell[:8])
        self.tree()  # so that a wrong name is an error now

    def tree(self) -> Tree:
        """The tree as it is now."""
        return build_tree(self.machine, self.names)

    def __repr__(self) -> str:
        return str(self._repr_mimebundle_()["text/plain"])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.tree())

    def widget(self) -> Any:
        made = _type()(self)
        if is_running(self.machine):
            pulse(self.machine, made.renew)
        return made


def sections(message: Message) -> list[tuple[str, str]]:
    """A message in readable pieces, each with a heading: its words, thinking, tool calls, answers; all of it visible text."""
    found = [_section(part) for part in message.parts]
    return [(one_line(heading, 120), _bounded(text)) for heading, text in found]


def _section(part: Any) -> tuple[str, str]:
    if isinstance(part, Text):
        return "", part.text
    if isinstance(part, Thinking):
        return "thinking", part.text or "(hidden by the provider)"
    if isinstance(part, ToolCall):
        return f"calls {part.name}", _pretty(part.arguments)
    if isinstance(part, ToolResult):
        pieces = [item.text if isinstance(item, Text) else _thing(item) for item in part.content]
        return f"{part.name} {'failed' if part.is_error else 'answered'}", "\n".join(pieces)
    if isinstance(part, Opaque):
        return "a part of the provider", written(part.body)
    return _thing(part), ""


def _thing(part: Image | Document) -> str:
    kind = "image" if isinstance(part, Image) else "document"
    size = f"{len(part.data):,} bytes" if part.data is not None else part.url or ""
    return f"{kind} ({part.media_type}{', ' if size else ''}{size})"


def _pretty(arguments: str) -> str:
    try:
        return written(msgspec.json.decode(arguments))
    except (msgspec.DecodeError, RecursionError):
        return arguments


def _bounded(text: str) -> str:
    shown, note = capped(text, MAX_SECTION_CHARS)
    return visible(shown) + (f"\n… {note}" if note else "")


@cache
def _type() -> type[Any]:
    import traitlets

    class TreeWidget(widget_type()):  # type: ignore[misc]
        """`rows` are what is seen of the tree, `detail` is the message of the row a person chose."""

        _esm = source("widget.js") + source("treewidget.js")
        rows = traitlets.List().tag(sync=True)
        facts = traitlets.Dict().tag(sync=True)
        detail = traitlets.Dict().tag(sync=True)

        def __init__(self, view: TreeView) -> None:
            self._view = view
            self._opened: frozenset[str] = frozenset()
            self._whole = False
            self._lock = threading.RLock()
            self._tree = view.tree()
            super().__init__(rows=self._rows(), facts=self._facts())

        def take(self, kind: str, message: dict[str, Any]) -> None:
            """Do what a person asks for; what cannot be done is said below the tree."""
            asked: dict[str, Callable[[Any], None]] = {
                "show": self._show,
                "open": self._open,
                "all": self._all,
                "fork": self._fork,
                "goto": self._goto,
                "renew": self.renew,
            }
            try:
                self.tell()
                if kind in asked:
                    asked[kind](message.get("value"))
            except LlmprocError as error:
                self.tell(error.for_cell(), bad=True)

        def renew(self, _: Any = None) -> None:
            """Bring the rows up to date."""
            with self._lock:
                self._tree = self._view.tree()
                self.rows, self.facts = self._rows(), self._facts()

        def _rows(self) -> list[dict[str, Any]]:
            found = tree_rows(self._tree, self._opened, limit=LIVE_ROWS, whole=self._whole)
            return [_row(row, self._tree) for row in found]

        def _facts(self) -> dict[str, Any]:
            left = sum(not node.living for node in self._tree.nodes.values())
            words = f"{len(self._tree.nodes):,} messages, {len(self._tree.processes):,} processes" + (
                f", {left:,} messages left behind" if left else ""
            )
            return {
                "size": words,
                "tones": TONES,
                "whole": self._whole,
                "can": [self._view.on_fork is not None, self._view.on_goto is not None],
            }

        def _open(self, value: Any) -> None:
            with self._lock:
                self._opened |= {str(value)}
                self.rows = self._rows()

        def _all(self, value: Any) -> None:
            with self._lock:
                self._whole, self._opened = bool(value), frozenset()
                self.rows, self.facts = self._rows(), self._facts()

        def _show(self, value: Any) -> None:
            node = self._view.machine.dialog.find(str(value))
            known = self._tree.nodes.get(node.id)
            if known is None:
                self.renew()
                known = self._tree.nodes[node.id]
            self.detail = _detail(node, known, self._tree, self._view.cell_name)

        def _fork(self, value: Any) -> None:
            self._act(self._view.on_fork, value)

        def _goto(self, value: Any) -> None:
            self._act(self._view.on_goto, value)

        def _act(self, function: Act | None, value: Any) -> None:
            if function is None:
                return
            node = self._view.machine.dialog.find(str(value))
            said = function(node.id)
            self.renew()
            self._show(node.id)
            self.tell(one_line(str(said), 300) if said is not None else "done")

    return TreeWidget


def _row(row: Row, tree: Tree) -> dict[str, Any]:
    """A row as the front end draws it; every text in it visible."""
    told: dict[str, Any] = {
        "col": row.col,
        "tone": row.tone,
        "living": row.living,
        "lanes": [(lane.col, lane.tone, lane.living) for lane in row.lanes],
        "above": row.above,
        "elbow": row.elbow,
        "loose": row.loose,
        "under": (row.under.tone, row.under.living) if row.under else None,
    }
    if row.kind != "message":
        return {**told, "key": row.key, "words": folded_words(row)}
    node = tree.nodes[row.node]
    return {
        **told,
        "id": node.id,
        "label": node.label,
        "role": node.role,
        "words": node.words,
        "heads": head_names(node, tree),
        "marks": shown_marks(node),
    }


def _detail(node: Node, known: TreeNode, tree: Tree, cell_name: Callable[[str], str]) -> dict[str, Any]:
    """All that a click shows of a message."""
    used = known.usage
    cost = "unknown" if used.unpriced_requests else f"${used.cost_usd:.4f}" if used.cost_usd else ""
    facts = [
        ("said by" if known.role == "assistant" else "told to", tree.processes.get(known.pid, "")),
        ("stands here", ", ".join(name for name, _ in head_names(known, tree))),
        ("cell", cell_name(known.cell) if known.cell else ""),
        ("tokens", f"{used.input_tokens:,} read, {used.output_tokens:,} written" if used.requests else ""),
        ("cost", cost),
        ("node", node.id[:12]),
    ]
    return {
        "id": node.id,
        "title": known.label or ("the start" if known.depth == 0 else node.id[:8]),
        "role": known.role + (", interrupted" if node.message.interrupted else ""),
        "facts": [(name, one_line(value, 200)) for name, value in facts if value],
        "sections": sections(node.message),
    }
