"""Sandboxes for tests: real processes, in the best tier that this machine has."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llmproc_nb.core.sandbox import Output, Ran, SandboxDoor, SandboxRules, Shell
from llmproc_nb.inside import confine

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")


@functools.cache
def tiers() -> tuple[str, ...]:
    """The tiers that can be had here, best first."""
    return tuple(tier for tier, why in confine.found().items() if not why) if sys.platform == "linux" else ()


def rules(**fields: Any) -> SandboxRules:
    """Rules in the best tier, unless another is asked for."""
    return SandboxRules(**{"tier": tiers()[0], **fields})


@asynccontextmanager
async def opened(base: Path | None = None, **fields: Any) -> AsyncIterator[SandboxDoor]:
    """A door, closed at the end; the families that wait warm end as well."""
    from llmproc_nb.drivers.sandbox import make
    from llmproc_nb.drivers.sandbox.pool import pool

    door = make(rules(**fields), base_dir=base or Path("."), environ=os.environ)
    door.warm()
    try:
        yield door
    finally:
        await door.close()
        await pool().close()


def in_shell(**fields: Any) -> Callable[[Callable[[Shell], Awaitable[None]]], Callable[[], None]]:
    """A test that has a fresh session."""

    def wrap(test: Callable[[Shell], Awaitable[None]]) -> Callable[[], None]:
        def run() -> None:
            async def inside() -> None:
                async with opened(**fields) as door:
                    await test(await door.start())

            asyncio.run(inside())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return wrap


async def ran(shell: Shell, code: str, timeout_s: float = 20.0) -> Ran:
    """What a cell gave."""
    return await shell.run(code, timeout_s=timeout_s)


async def said(shell: Shell, code: str) -> str:
    """The text that a cell wrote or gave; it must not fail."""
    done = await ran(shell, code)
    assert done.status == "ok", done
    return text_of(done.outputs)


def text_of(outputs: tuple[Output, ...]) -> str:
    """The outputs' text, one after the other."""
    return "".join(output.text if output.kind == "stream" else str(output.data.get("text/plain", output.text)) for output in outputs)
