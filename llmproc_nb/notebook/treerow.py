"""A tree as rows: one message per row, top to bottom, each in the column of its branch, long runs and wide fans folded.

The dialog of the first living process reads straight down on the left; what branched off stands beside it, one column to the right, before
it goes on. Here: which row and column. Not here: how a row looks (treeview).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

import msgspec

from llmproc_nb.notebook.tree import Tree, TreeNode

RUN = 8
RUN_ENDS = 2
FAN_FIRST, FAN_LAST = 6, 4


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """A line in a column: whose it is (`tone`, a number for a process) and whether a living process is on it."""

    col: int
    tone: int
    living: bool


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `kind` is message, messages (a folded run), branches (folded branches) or rest (all that is left out).

    `lanes` pass by; `above`: the line goes on from the row before; `elbow`: it leaves the column to the left, `loose` where a process was
    spawned there; `under` is the line that goes on below, in the row's own column. `key` opens what is folded.
    """

    kind: str
    col: int
    tone: int
    living: bool
    node: str = ""
    lanes: tuple[Lane, ...] = ()
    above: bool = False
    elbow: bool = False
    loose: bool = False
    under: Lane | None = None
    key: str = ""
    messages: int = 0
    branches: int = 0


class _Step(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be laid out next. `fan` is a fold of branches that begin at its nodes."""

    node: str
    col: int
    lanes: tuple[Lane, ...] = ()
    above: bool = False
    elbow: bool = False
    fan: tuple[str, ...] = ()
    key: str = ""


def tree_rows(tree: Tree, opened: Collection[str] = (), *, limit: int | None = None, whole: bool = False) -> list[Row]:
    """The rows of a tree. `opened` names folds that are open, `whole` opens all; beyond `limit` a last row says how much is left out."""
    rows: list[Row] = []
    shown = 0
    for row in _Layout(tree, None if whole else frozenset(opened)).rows():
        if limit is not None and len(rows) >= limit:
            left = len(tree.nodes) - shown
            rows.append(Row(kind="rest", col=0, tone=0, living=False, messages=left))
            break
        rows.append(row)
        shown += row.messages or 1
    return rows


class _Layout:
    """What of a tree decides where its nodes stand."""

    def __init__(self, tree: Tree, opened: frozenset[str] | None) -> None:
        self.nodes, self.opened = tree.nodes, opened
        self.tones = {pid: number for number, pid in enumerate(tree.processes)}
        self.below: defaultdict[str, list[str]] = defaultdict(list)
        self.roots: list[str] = []
        for node in tree.nodes.values():
            above = _above(node, tree)
            (self.roots if above is None else self.below[above]).append(node.id)
        for children in (self.roots, *self.below.values()):
            children.sort(key=lambda id: self.nodes[id].seq)
        self.claims = _claims(tree)
        self.mains = {id: self._main(id) for id in self.below}
        self.sizes = self._sizes()
        self.folds = self._folds()

    def rows(self) -> Iterator[Row]:
        stack = [_Step(node=root, col=0) for root in reversed(self.roots)]
        while stack:
            step = stack.pop()
            if step.fan:
                yield self._fan(step)
                continue
            hidden = self.folds.get(step.node)
            last = hidden[-1] if hidden else step.node
            main, sides = self.mains.get(last), self._sides(last)
            under = self._lane(main or sides[-1].node, step.col) if main or sides else None
            node = self.nodes[step.node]
            yield Row(
                kind="messages" if hidden else "message",
                node="" if hidden else node.id,
                col=step.col,
                tone=self.tones.get(node.pid, 0),
                living=node.living,
                lanes=step.lanes,
                above=step.above,
                elbow=step.elbow,
                loose=step.elbow and node.parent is None,
                under=under,
                key=step.node if hidden else "",
                messages=len(hidden) if hidden else 0,
            )
            if main:
                stack.append(_Step(node=main, col=step.col, lanes=step.lanes, above=True))
            for number, side in reversed(list(enumerate(sides))):
                passing = (*step.lanes, under) if under and (main or number < len(sides) - 1) else step.lanes
                stack.append(msgspec.structs.replace(side, col=step.col + 1, lanes=passing, elbow=True))

    def _fan(self, step: _Step) -> Row:
        node = self.nodes[step.node]
        return Row(
            kind="branches",
            col=step.col,
            tone=self.tones.get(node.pid, 0),
            living=any(self.nodes[id].living for id in step.fan),
            lanes=step.lanes,
            elbow=True,
            key=step.key,
            messages=sum(self.sizes[id] for id in step.fan),
            branches=len(step.fan),
        )

    def _sides(self, node: str) -> list[_Step]:
        """What branches off at a node, oldest first; the middle of very many folded."""
        main = self.mains.get(node)
        ids = [id for id in self.below.get(node, ()) if id != main]
        key = f"{node}+"
        if len(ids) <= FAN_FIRST + FAN_LAST + 1 or self._is_open(key):
            return [_Step(node=id, col=0) for id in ids]
        middle = tuple(ids[FAN_FIRST:-FAN_LAST])
        steps = [_Step(node=id, col=0) for id in (*ids[:FAN_FIRST], *ids[-FAN_LAST:])]
        return [*steps[:FAN_FIRST], _Step(node=middle[0], col=0, fan=middle, key=key), *steps[FAN_FIRST:]]

    def _lane(self, node: str, col: int) -> Lane:
        return Lane(col=col, tone=self.tones.get(self.nodes[node].pid, 0), living=self.nodes[node].living)

    def _main(self, node: str) -> str | None:
        """The child that goes straight on: of the living process with the smallest pid, else the newest; what was spawned never does."""
        own = [id for id in self.below[node] if self.nodes[id].parent == node]
        if not own:
            return None
        claimed = [id for id in own if id in self.claims]
        return min(claimed, key=lambda id: self.claims[id]) if claimed else own[-1]

    def _sizes(self) -> dict[str, int]:
        """How many messages hang on each node, itself included."""
        sizes: dict[str, int] = {}
        for id in reversed(self._downward()):
            sizes[id] = 1 + sum(sizes[child] for child in self.below.get(id, ()))
        return sizes

    def _downward(self) -> list[str]:
        """All nodes, each before what hangs on it."""
        found = list(self.roots)
        for id in found:  # grows while it is gone through
            found.extend(self.below.get(id, ()))
        return found

    def _folds(self) -> dict[str, list[str]]:
        """The folded runs by their first node."""
        folds: dict[str, list[str]] = {}
        taken: set[str] = set()
        for id in self._downward():
            if id in taken or not self._is_plain(id):
                continue
            run = [id]
            while self._is_plain(following := self.below[run[-1]][0]):
                run.append(following)
            taken.update(run)
            hidden = run[RUN_ENDS:-RUN_ENDS]
            if len(run) > RUN and not self._is_open(hidden[0]):
                folds[hidden[0]] = hidden
        return folds

    def _is_plain(self, id: str) -> bool:
        """Whether a node only stands between two others."""
        node, below = self.nodes[id], self.below.get(id, ())
        return not node.heads and not node.marks and len(below) == 1 and self.nodes[below[0]].parent == id and node.parent is not None

    def _is_open(self, key: str) -> bool:
        return self.opened is None or key in self.opened


def _above(node: TreeNode, tree: Tree) -> str | None:
    """The node that this one hangs on: its parent, or where its process was spawned."""
    above = node.spawned_from if node.parent is None else node.parent
    return above if above in tree.nodes and above != node.id else None


def _claims(tree: Tree) -> dict[str, int]:
    """For each node below which a living process stands, the smallest pid of those."""
    claims: dict[str, int] = {}
    heads = [(head.pid, node.id) for node in tree.nodes.values() for head in node.heads if head.state != "killed"]
    for pid, at in sorted(heads):
        id: str | None = at
        while id is not None and id in tree.nodes and id not in claims:
            claims[id] = pid
            id = tree.nodes[id].parent
    return claims
