"""What a session is asked about its variables and files, between its cells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import Look
from llmproc_nb.drivers.sandbox import said
from llmproc_nb.drivers.sandbox.files import relative

MOST_FILE = 1 << 28
MOST_DATA, MOST_PARTS = 1 << 27, 5_000_000
"""Bytes, and lists and dicts, of a variable that is no frame."""


class Questions:
    """The part of the door's Shell that asks; whoever has a line to a session says how."""

    async def _ask(self, header: dict[str, Any], body: bytes = b"") -> tuple[said.Answer, bytes]:
        """The answer to a request, and its data. Raises ToolError."""
        raise NotImplementedError

    async def put(self, variables: Mapping[str, bytes | Any]) -> None:
        """Set variables."""
        for name, value in variables.items():
            if not name.isidentifier():
                raise ToolError(f"{name!r} is no name for a variable", place="sandbox")
            if isinstance(value, bytes):
                await self._ask({"op": "put", "name": name, "kind": "frame"}, value)
            else:
                await self._ask({"op": "put", "name": name, "kind": "json"}, _json(name, value))

    async def get(self, name: str) -> bytes | Any:
        """A variable."""
        answer, body = await self._ask({"op": "get", "name": name})
        if answer.kind == "frame":
            return body
        try:
            return said.read_data(body, MOST_DATA, MOST_PARTS)
        except ValueError as error:  # also what msgspec raises
            raise ToolError(f"the session gave for {name} what cannot be taken: {error}", place="sandbox") from error

    async def look(self) -> Look:
        """What there is."""
        _, body = await self._ask({"op": "look"})
        try:
            return said.read_look(body)
        except (ValueError, RecursionError) as error:
            raise ToolError("the session gave something that is no list of what it has", place="sandbox") from error

    async def write_file(self, path: str, data: bytes) -> None:
        """Write a file."""
        await self._ask({"op": "write_file", "path": relative(path)}, data)

    async def read_file(self, path: str) -> bytes:
        """Read a file."""
        return (await self._ask({"op": "read_file", "path": relative(path), "most": MOST_FILE}))[1]


def _json(name: str, value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolError(f"{name} is no plain JSON data: {error}", place="sandbox") from error
