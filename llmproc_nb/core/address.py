"""Addresses of places in a dialog: `msg_7`, `~2`, a node id's first characters, `cell:4`, and which of them a process can go on from."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.label import label
from llmproc_nb.core.message import calls_tools
from llmproc_nb.core.visible import one_line

if TYPE_CHECKING:
    from llmproc_nb.core.standing import Standing

Address: TypeAlias = "str | int | Node"
KINDS = "an address is msg_7, ~2 (two turns back), cell:4, or the first characters of a node's id"
_NUMBER = re.compile(r"msg_(\d{1,9})")
_BACK = re.compile(r"~(\d{0,9})")
_ID = re.compile(r"[0-9a-f]{4,32}")
_SHOWN, _ID_SHOWN = 6, 12


def node_at(process: Standing, address: Address) -> Node:
    """The node that an address of a process means, one that its next request can stand on. Raises PersonError."""
    if isinstance(address, Node):
        return whole(process, address)
    if not isinstance(address, str | int) or isinstance(address, bool):
        raise PersonError(f"{address!r:.60} is no address", place=process.name, right=KINDS)
    text = f"msg_{address}" if isinstance(address, int) else address.strip()
    if found := _NUMBER.fullmatch(text):
        return whole(process, _numbered(process, int(found[1])))
    if found := _BACK.fullmatch(text):
        return _back(process, int(found[1] or 1))
    if text.startswith("cell:"):
        return whole(process, _of_cell(process, text.removeprefix("cell:")))
    if text in ("first", "last"):
        return process.first if text == "first" else whole(process, process.head)
    if _ID.fullmatch(text):
        return whole(process, _of_id(process, text))
    raise PersonError(f"{text!r} is no address", place=process.name, right=KINDS)


def whole(process: Standing, node: Node) -> Node:
    """The node itself, or, of a reply with tool calls, the answers to them: where they are missing no request could go out."""
    if not calls_tools(node.message):
        return node
    answers = [child for child in process.machine.dialog.children(node) if child.message.role == "tool"]
    on_path = [child for child in answers if child.depth < len(process.path) and process.path[child.depth] is child]
    assert node.parent is not None  # a reply is never the first
    return (on_path or answers or [node.parent])[0]


def turns(process: Standing) -> list[Node]:
    """The first node of each turn on the path, oldest first: what a user said after the model, or at the beginning."""
    path = process.path
    return [node for before, node in pairwise(path) if node.message.role == "user" and before.message.role != "user"]


def known(process: Standing, most: int = _SHOWN) -> str:
    """The newest numbered messages on the path, with their first words, for an error or a list of choices."""
    on_path = set(map(id, process.path))
    found = [(number, node) for number, node in process.labels.newest_first() if id(node) in on_path][:most]
    return ", ".join(f"{label(number)} ({node.message.role}: {one_line(node.message.text, 24)})" for number, node in found) or "none yet"


def _numbered(process: Standing, number: int) -> Node:
    node = process.labels.get(number)
    if node is None:
        raise PersonError(f"there is no {label(number)}", place=process.name, right=f"the newest on its path are {known(process)}")
    return node


def _back(process: Standing, count: int) -> Node:
    if count == 0:
        return whole(process, process.head)
    starts = turns(process)
    if count > len(starts):
        raise PersonError(f"~{count} is before the beginning", place=process.name, right=f"it has {len(starts)} turns so far")
    before = starts[-count].parent
    assert before is not None  # a turn has something before it
    return before


def _of_id(process: Standing, text: str) -> Node:
    """The node whose id starts so."""
    dialog = process.machine.dialog
    if text in dialog:
        return dialog.find(text)
    found = [node for node in dialog if node.id.startswith(text)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise PersonError(f"no node starts with {text!r}", place=process.name, right=f"the newest on its path are {known(process)}")
    alike = ", ".join(f"{node.id[:_ID_SHOWN]} ({node.message.role}: {one_line(node.message.text, 24)})" for node in found[:_SHOWN])
    raise PersonError(f"{len(found)} nodes start with {text!r}", place=process.name, right=f"one of them is meant: {alike}")


def _of_cell(process: Standing, cell: str) -> Node:
    node = process.machine.find_cell(process, cell)
    if node is None:
        raise PersonError(
            f"cell {cell!r} did not end on a message of {process.name}",
            right="cell:4 is where the process stood when the cell with In [4] ended",
            step="`%log calls` shows which cells called.",
        )
    return node
