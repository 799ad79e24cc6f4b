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

EVERY, CLOSED = ("namespaces", "landlock", "process"), ("namespaces", "landlock")
"""What the host keeps to itself holds in every tier; limits of a family, and what is apart in it, only in those that are closed."""
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


def only_with(tier: str) -> None:
    """Skip the test where this machine has no such tier."""
    if tier not in tiers():
        pytest.skip(f"the tier {tier} cannot be had on this machine")


def in_shell(on: tuple[str, ...] = (), **fields: Any) -> Callable[[Callable[[Shell], Awaitable[None]]], Callable[..., None]]:
    """A test that has a fresh session: in the best tier, or once in each of those that make a promise."""

    def wrap(test: Callable[[Shell], Awaitable[None]]) -> Callable[..., None]:
        def run(**tier: str) -> None:
            async def inside() -> None:
                async with opened(**fields, **tier) as door:
                    await test(await door.start())

            asyncio.run(inside())

        def in_tier(tier: str) -> None:
            only_with(tier)
            run(tier=tier)

        named: Any = in_tier if on else lambda: run()
        named.__name__, named.__doc__ = test.__name__, test.__doc__
        return pytest.mark.parametrize("tier", on)(named) if on else named  # type: ignore[no-any-return]

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
