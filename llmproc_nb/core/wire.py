"""What every driver of a model API needs on its way to the wire: the form of each message made once, and bodies that grow with a dialog.

Pure. Here too: what APIs ask of names and ids. Not here: what forms look like (drivers), what comes back (sse), what goes wrong (fault).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from weakref import WeakKeyDictionary

from llmproc_nb.core.dialog import Node


class Fragments:
    """The wire form of each node as JSON bytes, made once and kept as long as the node lives.

    `render` gives the elements a message becomes (none, one or more), already encoded and joined by commas, or b"" for none.
    """

    def __init__(self, render: Callable[[Node], bytes]) -> None:
        self._render = render
        self._made: WeakKeyDictionary[Node, bytes] = WeakKeyDictionary()

    def __getitem__(self, node: Node) -> bytes:
        made = self._made.get(node)
        if made is None:
            made = self._made[node] = self._render(node)
        return made


WHOLE_BYTES = 512 * 1024
"""Longer bodies go out in pieces: joined anew for every turn, they would be copied several times on their way."""

OPEN_BYTES = 128 * 1024
PIECE_BYTES = 4 * 1024 * 1024
"""The last piece grows to `OPEN_BYTES` and is then joined to the one before, which grows to `PIECE_BYTES`: each piece is one more write."""


def requests_left(headers: Mapping[str, str]) -> int | None:
    """How many requests an API still takes, as its headers say."""
    said = headers.get("anthropic-ratelimit-requests-remaining") or headers.get("x-ratelimit-remaining-requests") or ""
    return int(said) if said.isdigit() else None


class Joined:
    """The forms of a path's nodes, joined by commas, in pieces: grown from those of an earlier request, so a turn costs what is new in it.

    Those of the last few paths are kept. Nodes at the places in `marks` have their form from `marked`.
    """

    def __init__(self, plain: Fragments, marked: Fragments | None = None, *, keep: int = 16) -> None:
        self._plain, self._marked, self._keep = plain, marked or plain, keep
        self._made: dict[tuple[str, ...], tuple[bytes, ...]] = {}

    def __call__(self, path: Sequence[Node], start: int, end: int, marks: Collection[int] = ()) -> tuple[bytes, ...]:
        """The forms of path[start:end]."""
        pieces: tuple[bytes, ...] = ()
        for new in range(end, start, -1):
            key = _key(path, new, marks)
            if (known := self._made.pop(key, None)) is not None:
                pieces = self._made[key] = known  # the latest is the last one to go
                break
        else:
            new = start
        if new < end:
            forms = ((self._marked if at in marks else self._plain)[path[at]] for at in range(new, end))
            pieces = self._made[_key(path, end, marks)] = grown(pieces, b",".join(filter(None, forms)))
            if len(self._made) > self._keep:
                del self._made[next(iter(self._made))]
        return pieces


def _key(path: Sequence[Node], end: int, marks: Collection[int]) -> tuple[str, ...]:
    """What the forms of path[:end] depend on. Equal ids are equal paths."""
    return path[end - 1].id, *(path[at].id for at in marks if at < end)


def grown(pieces: tuple[bytes, ...], more: bytes) -> tuple[bytes, ...]:
    """Elements in pieces, and more of them after a comma. Few of the bytes there were are copied."""
    if not more or not pieces:
        return (more,) if more else pieces
    *settled, last = pieces
    if len(last) < OPEN_BYTES:
        return (*settled, b",".join((last, more)))
    if settled and len(settled[-1]) + len(last) <= PIECE_BYTES:
        last = settled.pop() + last
    return (*settled, last, b"," + more)


def ended(pieces: tuple[bytes, ...], end: bytes) -> tuple[bytes, ...]:
    """Pieces and what comes after them, without a piece more where the last one is short."""
    if pieces and len(pieces[-1]) <= OPEN_BYTES:
        return (*pieces[:-1], pieces[-1] + end)
    return (*pieces, end)


class Pieces:
    """A body in pieces that are sent one after the other. It can be sent again, after a redirect."""

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def sendable(pieces: tuple[bytes, ...]) -> tuple[bytes | Pieces, dict[str, str]]:
    """What an HTTP client is given as content, and the headers that go with it: short bodies in one piece, long ones as they are."""
    length = sum(map(len, pieces))
    if length <= WHOLE_BYTES:
        return b"".join(pieces), {}
    return Pieces(pieces), {"Content-Length": str(length)}


_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
MAX_NAME_CHARS = 64


def plain_name(text: str) -> str:
    """The name of a tool in a dialog as every API takes it: models make up names that an API then refuses to read."""
    return _NOT_IN_NAMES.sub("_", text)[:MAX_NAME_CHARS] or "_"


def short_id(text: str, most: int) -> str:
    """The id of a tool call where an API takes so many characters at most; one that is too long becomes its hash."""
    return text if len(text) <= most else blake2b(text.encode(), digest_size=16).hexdigest()


def is_prompt(node: Node) -> bool:
    """Whether a node is one of the system messages that its path begins with."""
    return all(above.message.role == "system" for above in node.up())
