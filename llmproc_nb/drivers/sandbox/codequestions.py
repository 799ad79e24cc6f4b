"""What another kernel is asked about its variables and files: by code, for it knows nothing of this project. Kernels of Python only."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import Look, Ran
from llmproc_nb.drivers.sandbox import bycode
from llmproc_nb.drivers.sandbox.files import relative
from llmproc_nb.drivers.sandbox.outputs import Outputs
from llmproc_nb.drivers.sandbox.questions import MOST_DATA, MOST_PARTS
from llmproc_nb.drivers.sandbox.said import read_data, read_look

ASK_S = 60.0
MOST_ANSWER = 1 << 30


class CodeQuestions:
    """The part of the door's Shell that asks; whoever has a kernel says how code is run in it."""

    def __init__(self) -> None:
        self._language = ""
        self._lock = asyncio.Lock()

    async def _run(self, code: str, timeout_s: float, outputs: Outputs, *, silent: bool) -> Ran:
        """Run code, while the lock is held."""
        raise NotImplementedError

    async def put(self, variables: Mapping[str, bytes | Any]) -> None:
        """Set variables."""
        for name, value in variables.items():
            if not name.isidentifier():
                raise ToolError(f"{name!r} is no name for a variable", place="sandbox")
            if isinstance(value, bytes):
                await self._ask(bycode.PUT_FRAME, name=name, data=base64.b64encode(value).decode())
            else:
                await self._ask(bycode.PUT, name=name, data=bycode.json_text(name, value))

    async def get(self, name: str) -> bytes | Any:
        """A variable."""
        kind, data = await self._ask(bycode.GET, name=name)
        if kind == "unfit":
            raise ToolError(data[:2000], place="sandbox")
        return bycode.bytes_of(data) if kind == "frame" else _plain(name, data)

    async def look(self) -> Look:
        """What there is."""
        try:
            return read_look((await self._ask(bycode.LOOK))[1].encode())
        except (ValueError, RecursionError) as error:
            raise ToolError("the kernel gave something that is no list of what it has", place="sandbox") from error

    async def write_file(self, path: str, data: bytes) -> None:
        """Write a file."""
        await self._ask(bycode.WRITE, name=relative(path), data=base64.b64encode(data).decode())

    async def read_file(self, path: str) -> bytes:
        """Read a file."""
        return bycode.bytes_of((await self._ask(bycode.READ, name=relative(path)))[1])

    async def _ask(self, source: str, **given: str) -> tuple[str, str]:
        """Have some code run that shows an answer, in pieces: its kind and its data. Raises ToolError."""
        if self._language != "python":
            found = f"variables and files cannot go in or out of a kernel of {self._language or 'this language'}"
            raise ToolError(found, place="sandbox", right="a kernel of Python can do it")
        async with self._lock:
            ran = await self._run(bycode.call(source, given), ASK_S, Outputs(MOST_ANSWER, None), silent=True)
        errors = [output for output in ran.outputs if output.kind == "error"]
        if ran.status != "ok" or errors:
            found = f"{errors[0].name}: {errors[0].text}" if errors else " ".join(ran.notes) or ran.status
            raise ToolError(found, place="sandbox")
        pieces = [output.data[bycode.MIME] for output in ran.outputs if bycode.MIME in output.data]
        try:
            return str(pieces[0]["kind"]) if pieces else "", "".join(piece["data"] for piece in pieces)
        except (TypeError, KeyError) as error:
            raise ToolError("the kernel gave something that is no answer", place="sandbox") from error


def _plain(name: str, data: str) -> Any:
    try:
        return read_data(data.encode(), MOST_DATA, MOST_PARTS)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"the kernel gave for {name} what cannot be taken: {error}", place="sandbox") from error
