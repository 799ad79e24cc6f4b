"""The door to the sandboxes of one family: rules in, sessions out."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import SandboxDoor, SandboxRules, Shell
from llmproc_nb.drivers.sandbox.family import Family
from llmproc_nb.drivers.sandbox.files import program_files, with_readable
from llmproc_nb.drivers.sandbox.kernel import KernelDoor
from llmproc_nb.drivers.sandbox.live import LiveShell
from llmproc_nb.drivers.sandbox.pool import pool
from llmproc_nb.drivers.sandbox.zygote import ZYGOTE


def make(rules: SandboxRules, *, base_dir: Path, environ: Mapping[str, str]) -> SandboxDoor:
    """The door for these rules. `base_dir` is what `files` are relative to; of `environ` only what is harmless gets into a sandbox.

    The first one has the zygote started, in the background.
    """
    if rules.kernel:
        return KernelDoor(rules, base_dir)
    if sys.platform == "linux":
        ZYGOTE.environ = environ
        threading.Thread(target=ZYGOTE.begin, name="sandbox zygote", daemon=True).start()
    return Door(rules, base_dir)


class Door:
    """The native sandboxes of one family."""

    def __init__(self, rules: SandboxRules, base_dir: Path) -> None:
        self._rules, self._base_dir = rules, base_dir
        self._family: Family | None = None
        self._lock = asyncio.Lock()

    def warm(self) -> None:
        """Have a family made in the background, if none waits and this door has none yet."""
        if sys.platform == "linux" and self._family is None:
            with contextlib.suppress(ToolError):  # `start` says it
                pool().warm(with_readable(self._rules, self._base_dir))

    async def start(self) -> Shell:
        """A fresh session that has the program's files."""
        if sys.platform != "linux":
            raise ToolError("sandboxes need Linux", place="sandbox", step="Run the notebook in a Linux machine or container.")
        rules = await asyncio.to_thread(with_readable, self._rules, self._base_dir)
        files = await asyncio.to_thread(lambda: list(program_files(self._base_dir, rules.files)))
        async with self._lock:
            shell = await self._first(rules)
        whole = False
        try:
            for name, path in files:
                await shell.write_file(name, await asyncio.to_thread(path.read_bytes))
            whole = True
        finally:
            if not whole:
                await shell.close()
        return shell

    async def _first(self, rules: SandboxRules) -> LiveShell:
        """A shell of the family, or of another one where its keeper is gone, or is just found to be."""
        if self._family is not None and not self._family.why:
            try:
                return await self._family.first()
            except ToolError:
                if not self._family.lost and await self._family.answers():
                    raise
        if self._family is not None:
            await self._family.close()
            self._family = None
        self._family, shell = await pool().take(rules)
        return shell

    async def close(self) -> None:
        """End the family."""
        async with self._lock:
            if self._family is not None:
                await self._family.close()
