"""The same turns as a process of this project, as a person runs them: `await process.run(text)`, with a log on disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from bare import look as plain_look

from llmproc_nb import Program, new_machine


def look(column: str, rows: int) -> str:
    """Look at a column."""
    return plain_look(column, rows)


async def look_async(column: str, rows: int) -> str:
    """Look at a column."""
    return plain_look(column, rows)


look_async.__name__ = "look"


class Ours:
    """A process. `tool` is None, `plain` (a function, which runs on a worker thread) or `async`; `log` says whether there is one."""

    def __init__(self, url: str, provider: str, *, tool: str | None = None, log: bool = True) -> None:
        for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
            os.environ.setdefault(name, "k")
        self._folder = tempfile.TemporaryDirectory()
        self._machine = new_machine(log=Path(self._folder.name) / "bench.jsonl" if log else None)
        tools: dict[str | None, Any] = {None: (), "plain": (look,), "async": (look_async,)}
        base = url if provider == "anthropic" else f"{url}/v1"
        self._process = Program(provider=provider, model="m", base_url=base, tools=tools[tool]).start(machine=self._machine)

    async def turn(self, text: str) -> None:
        await self._process.run(text)

    async def close(self) -> None:
        self._machine.close()
        self._folder.cleanup()
