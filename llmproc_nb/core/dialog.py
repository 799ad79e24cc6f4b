"""The dialog: an append-only tree of messages. Nothing in it is ever changed or removed.

A node's id is the hash of its message and its parent's id, so equal dialogs share nodes and a replay can compare ids. A fork is a
second reference to a node; going back is choosing another node.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.message import Message

_encode = msgspec.json.Encoder().encode


class Node:
    """A message at its place in the tree. `id` is 32 hex digits; `depth` counts from 0 at the root."""

    __slots__ = ("__weakref__", "depth", "id", "message", "parent")

    def __init__(self, message: Message, parent: Node | None) -> None:
        self.message = message
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.id: str = node_id(message, parent.id if parent else "")

    def path(self) -> tuple[Node, ...]:
        """The nodes from the root to this one."""
        nodes = list(self.up())
        nodes.reverse()
        return tuple(nodes)

    def up(self) -> Iterator[Node]:
        """This node, its parent, and so on to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def __reduce__(self) -> tuple[Any, ...]:
        return _node_of, (tuple(node.message for node in self.path()),)  # flat: a chain of parents would be too deep

    def __repr__(self) -> str:
        return f"<Node {self.id[:8]} {self.message.role} {self.message.text[:40]!r}>"


def _node_of(messages: tuple[Message, ...]) -> Node:
    """The last node of a path of these messages."""
    node = None
    for message in messages:
        node = Node(message, node)
    assert node is not None
    return node


def node_id(message: Message, parent_id: str) -> str:
    """The id of a message under a parent: blake2b, 16 bytes, over the parent's id and the message as JSON."""
    return blake2b(_encode(message), digest_size=16, key=parent_id.encode()).hexdigest()


class Dialog:
    """All nodes of one machine, by id. Equal messages under one parent are one node."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._children: dict[str, list[Node]] = {}

    def append(self, message: Message, parent: Node | None) -> tuple[Node, bool]:
        """The node of this message under that parent, and whether it is new."""
        made = Node(message, parent)
        node = self._nodes.setdefault(made.id, made)
        if node is made:
            self._children.setdefault(parent.id if parent else "", []).append(node)
        return node, node is made

    def children(self, node: Node | None) -> tuple[Node, ...]:
        """What follows a node, oldest first; of None: the roots."""
        return tuple(self._children.get(node.id if node else "", ()))

    def find(self, prefix: str) -> Node:
        """The node whose id starts so. Raises PersonError when there is none, or more than one."""
        if prefix in self._nodes:
            return self._nodes[prefix]
        found = [node for key, node in self._nodes.items() if key.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} nodes start with {prefix!r}" if found else f"no node starts with {prefix!r}"
        raise PersonError(what, right="a node's id or enough of its first characters is needed")

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(tuple(self._nodes.values()))
