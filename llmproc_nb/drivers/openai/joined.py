"""The dialog's part of a body, grown from the one sent before: a turn costs what is new in it, not what the dialog is long."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.wire import Fragments, grown


class Joined:
    """`joined(path)` gives the elements of all nodes of a path, joined by commas, in pieces. The last few paths are kept."""

    def __init__(self, render: Callable[[Node], bytes], *, keep: int = 4) -> None:
        self._fragments = Fragments(render)
        self._keep = keep
        # by node id: equal ids are equal paths
        self._made: OrderedDict[str, tuple[bytes, ...]] = OrderedDict()

    def __call__(self, path: Sequence[Node]) -> tuple[bytes, ...]:
        made: tuple[bytes, ...] = ()
        new = 0
        for at in range(len(path) - 1, -1, -1):
            if (known := self._made.get(path[at].id)) is not None:
                made, new = known, at + 1
                break
        whole = grown(made, self._fragments.join(path[new:]))
        self._made[path[-1].id] = whole
        self._made.move_to_end(path[-1].id)
        while len(self._made) > self._keep:
            self._made.popitem(last=False)
        return whole
