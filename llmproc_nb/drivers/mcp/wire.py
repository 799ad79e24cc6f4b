"""JSON-RPC as bytes: lines of a bounded length, messages out of them, and answers we give in a server's stead.

Whatever arrives becomes a message, an error for the one request it answers, or nothing: garbage that only the tail keeps.
"""

from __future__ import annotations

import json
import re
from asyncio import StreamReader
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from llmproc_nb.core.message import cleaned

CHUNK_BYTES = 1 << 20
HEAD_BYTES, TAIL_BYTES = 4096, 4096

# codes of our own: what became of a request that has no answer of its server. JSON-RPC reserves only negative ones.
CODES = {"unsent": 730_001, "lost": 730_002, "unreadable": 730_003, "too long": 730_004, "http": 730_005}

_ID = re.compile(rb'"id"\s*:\s*(-?\d+|"(?:[^"\\]|\\.)*")')


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line: whole in `data`, or only its beginning and its end where it was too long or is no JSON."""

    data: bytes | None
    head: bytes
    end: bytes = b""
    size: int = 0


async def lines(stream: StreamReader, most_bytes: int) -> AsyncIterator[Line]:
    """The lines of a stream, in time that grows with their length only."""
    held = _Held(most_bytes)
    while chunk := await stream.read(CHUNK_BYTES):
        start = 0
        while (stop := chunk.find(b"\n", start)) >= 0:
            held.add(chunk[start:stop])
            if held.size and (line := held.take()) is not None:
                yield line
            start = stop + 1
        held.add(chunk[start:] if start else chunk)
    if held.size and (line := held.take()) is not None:
        yield line


class _Held:
    """The pieces of a line that has not ended."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._pieces = most_bytes, list[bytes]()
        self.size, self._end, self._whole = 0, b"", True

    def add(self, piece: bytes) -> None:
        if not piece:
            return
        if not self.size:
            self._whole = piece.lstrip()[:1] in (b"{", b"[", b"")
        self.size += len(piece)
        if self._whole or not self._pieces:
            self._pieces.append(piece)
        if not self._whole:
            self._end = (self._end + piece[-TAIL_BYTES:])[-TAIL_BYTES:]
        elif self.size > self._most:
            self._whole = False
            self._end = piece[-TAIL_BYTES:]
            self._pieces = [b"".join(self._pieces[:2])[:HEAD_BYTES]]

    def take(self) -> Line | None:
        data = b"".join(self._pieces)
        line = Line(data=data if self._whole else None, head=data[:HEAD_BYTES], end=self._end, size=self.size)
        self._pieces, self.size, self._end, self._whole = [], 0, b"", True
        return line if line.data is None or line.data.strip() else None


def read_message(line: Line) -> Any:
    """The SDK's message in a line; an error for the request it answers where it is too long or broken; None where it is no message."""
    if line.data is not None:
        message = parse(line.data)
        if message is not None:
            return message
    if not line.head.lstrip().startswith(b"{"):
        return None
    request = _request_id(line)
    if request is None:
        return None
    if line.data is None:
        return answer(request, "too long", f"the answer is longer than may be read at once ({line.size:,} bytes)")
    return answer(request, "unreadable", "the answer is no valid message")


def parse(data: bytes) -> Any:
    """The SDK's message in these bytes, or None. What pydantic refuses for a byte or a surrogate is mended and read once more."""
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(data, by_name=False))
    except ValueError:
        pass
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_python(cleaned(json.loads(data.decode(errors="replace"))), by_name=False))
    except (ValueError, RecursionError):
        return None


def answer(request: Any, kind: str, text: str) -> Any:
    """An error in a server's stead, for the SDK."""
    from mcp.shared.message import SessionMessage
    from mcp_types import ErrorData, JSONRPCError

    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=request, error=ErrorData(code=CODES[kind], message=text)))


def _request_id(line: Line) -> int | str | None:
    """The id of the request a line answers, from its beginning or its end. A line that asks or tells has a method, and no answer."""
    if b'"method"' in line.head[:200]:
        return None
    ends = line.end if line.data is None else line.data[-TAIL_BYTES:]
    found = _ID.search(line.head[:200]) or next(iter(reversed(list(_ID.finditer(ends[-200:])))), None)
    if found is None:
        return None
    value = json.loads(found[1])
    return value if isinstance(value, int | str) else None
