"""The door to the sandboxes of one family: rules in, sessions out."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import SandboxDoor, SandboxRules, Shell
from llmproc_nb.drivers.sandbox.family import Family
from llmproc_nb.drivers.sandbox.zygote import ZYGOTE


def make(rules: SandboxRules, *, base_dir: Path, environ: Mapping[str, str]) -> SandboxDoor:
    """The door for these rules. `base_dir` is what `files` are relative to; of `environ` only what is harmless gets into a sandbox."""
    threading.Thread(target=ZYGOTE.begin, name="sandbox zygote", daemon=True).start()
    return Door(rules, base_dir, environ)


class Door:
    """The native sandboxes of one family."""

    def __init__(self, rules: SandboxRules, base_dir: Path, environ: Mapping[str, str]) -> None:
        self._rules, self._base_dir, self._environ = rules, base_dir, environ
        self._family: Family | None = None
        self._lock = asyncio.Lock()

    def warm(self) -> None:
        pass

    async def start(self) -> Shell:
        """A fresh session in a working folder that has the program's files only."""
        if sys.platform != "linux":
            raise ToolError("sandboxes need Linux", place="sandbox", step="Run the notebook in a Linux machine or container.")
        async with self._lock:
            if self._family is None or self._family.why:
                family = Family(self._rules)
                await family.begin()
                self._family = family
        shell = await self._family.first()
        for name in self._rules.files:
            await shell.write_file(Path(name).name, await asyncio.to_thread(self._file, name))
        return shell

    def _file(self, name: str) -> bytes:
        try:
            return (self._base_dir / name).read_bytes()
        except OSError as error:
            raise ToolError(f"{name} cannot be read: {error.strerror}", place="[sandbox] files") from error

    async def close(self) -> None:
        """End the family."""
        if self._family is not None:
            await self._family.close()
