"""What frames need of a log's tree, and small things all their columns share."""

from __future__ import annotations

from typing import Any, TypeAlias

from llmproc_nb.core.event import Appended
from llmproc_nb.core.message import Message
from llmproc_nb.core.record import Kinds, Past, said
from llmproc_nb.core.usage import Usage

Table: TypeAlias = dict[str, list[Any]]


def columns_of(names: str, rows: list[tuple[Any, ...]]) -> Table:
    """Rows turned into columns."""
    columns = names.split()
    if not rows:
        return {name: [] for name in columns}
    return dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))


class Tree:
    """Messages by node id, first come first: what frames need of the tree, without computing ids again."""

    def __init__(self, events: Kinds) -> None:
        self.found: dict[str, tuple[Appended, Message]] = {}
        self.depth: dict[str, int] = {}
        for event, message in said(events):
            if event.node not in self.found:
                self.found[event.node] = event, message
                self.depth[event.node] = 0 if event.parent is None else self.depth.get(event.parent, -1) + 1

    def message(self, node: str) -> Message | None:
        found = self.found.get(node)
        return found[1] if found else None

    def text(self, node: str) -> str | None:
        message = self.message(node)
        return None if message is None else message_text(message)

    def paths(self, past: dict[int, Past]) -> dict[str, frozenset[str]]:
        """For each node the names of the processes on whose path it is."""
        on: dict[str, frozenset[str]] = {}
        for one in past.values():
            if not one.killed:
                on[one.head] = on.get(one.head, frozenset()) | {one.name}
        for node in sorted(self.found, key=self.depth.__getitem__, reverse=True):
            parent = self.found[node][0].parent
            if parent is not None and (names := on.get(node)):
                known = on.get(parent)
                on[parent] = names if known is None or known <= names else known | names
        return on


def message_text(message: Message) -> str:
    return "\n".join(part.text for part in message.tool_results) if message.role == "tool" else message.text


def known_cost(used: Usage) -> float | None:
    """Dollars, or None where a request has no known price."""
    return None if used.unpriced_requests else used.cost_usd
