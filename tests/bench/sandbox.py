"""What a sandbox costs: its first result, an empty cell, much output, a state kept and woken, memory; beside a bare ipykernel.

Sandboxes are in the best tier that this machine has. The bare kernel is started and spoken to by jupyter_client in the same run.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from measure import ROOT, Ratio, Table

sys.path.append(str(ROOT / "tests"))

OWN_MEMORY = "sum(int(line.split()[1]) for line in open('/proc/self/smaps_rollup') if line.startswith('Private_')) / 1000"
LINES = "for _ in range(12_500): print('x' * 79)"


async def ms(work: Callable[[], Awaitable[Any]]) -> float:
    """How long one thing takes."""
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


async def median_ms(work: Callable[[], Awaitable[Any]], times: int) -> float:
    """How long a thing takes at the median."""
    return statistics.median([await ms(work) for _ in range(times)])


async def sandbox(*, quick: bool) -> dict[str, float]:
    """What ours takes."""
    from sandboxes import opened

    found: dict[str, float] = {}
    async with opened() as door:
        await warmed()

        async def first() -> None:
            nonlocal shell
            shell = await door.start()
            await cell(shell, "1 + 1")

        shell: Any = None
        found["first"] = await ms(first)
        found["empty"] = await median_ms(lambda: cell(shell, ""), 20 if quick else 300)
        found["line"] = await median_ms(lambda: cell(shell, "print('x' * 1_000_000)"), 3 if quick else 20)
        found["lines"] = await median_ms(lambda: cell(shell, LINES), 3 if quick else 20)
        found |= await states(shell, 5 if quick else 500)
        idle = [await door.start() for _ in range(3 if quick else 20)]
        found["private"] = max([float((await cell(one, OWN_MEMORY)).outputs[0].data["text/plain"]) for one in idle])
    return found


async def warmed() -> None:
    """Wait for the family that the door had made in the background."""
    from llmproc_nb.drivers.sandbox.pool import pool

    while not pool().waiting:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)


async def states(shell: Any, frame_mb: int) -> dict[str, float]:
    """Keeping and waking a session that holds a frame."""
    await cell(shell, f"import numpy as np, pandas as pd; df = pd.DataFrame(np.random.rand({frame_mb * 12_500}, 10))")
    kept: list[Any] = []

    async def keep() -> None:
        kept.append(await shell.keep())

    async def wake() -> None:
        woken.append(await kept[-1].wake())

    woken: list[Any] = []
    found = {"keep": await median_ms(keep, 5), "wake": await median_ms(wake, 5)}
    found["fork"] = max([float((await cell(one, OWN_MEMORY)).outputs[0].data["text/plain"]) for one in woken])
    await kept[-1].measure()
    for _ in range(100):
        if kept[-1].memory_mb:
            break
        await asyncio.sleep(0.02)
    found["frozen"] = kept[-1].memory_mb
    for one in (*woken, *kept):
        await one.close()
    return found


async def cell(shell: Any, code: str) -> Any:
    """A cell, which must be well."""
    done = await shell.run(code, timeout_s=60)
    assert done.status == "ok", done
    return done


async def kernel(*, quick: bool) -> dict[str, float]:
    """What a bare kernel takes."""
    from jupyter_client.manager import AsyncKernelManager

    manager: Any = AsyncKernelManager(kernel_name="python3")
    client: Any = None

    async def first() -> None:
        nonlocal client
        await manager.start_kernel(stderr=subprocess.DEVNULL)
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        await execute(client, "1 + 1")

    try:
        found = {"first": await ms(first)}
        found["empty"] = await median_ms(lambda: execute(client, ""), 20 if quick else 100)
        found["line"] = await median_ms(lambda: execute(client, "print('x' * 1_000_000)"), 3 if quick else 10)
        found["lines"] = await median_ms(lambda: execute(client, LINES), 3 if quick else 10)
        client.stop_channels()
    finally:
        await manager.shutdown_kernel(now=True)
    return found


async def execute(client: Any, code: str) -> None:
    """A cell of the bare kernel, to the end of its output."""
    request = client.execute(code)
    while True:
        message = await client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") == request and message["content"].get("execution_state") == "idle":
            break
    while (await client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != request:
        continue


def bench(*, quick: bool) -> Table:
    """Run it."""
    from sandboxes import tiers

    if not tiers():
        return Table(title="sandbox: not on this machine", columns=[], rows={})
    ours, bare = asyncio.run(sandbox(quick=quick)), asyncio.run(kernel(quick=quick))
    rows: dict[str, Any] = {
        "first result": [ours["first"], bare["first"]],
        "empty cell": [ours["empty"], bare["empty"]],
        "1 MB of output, one line": [ours["line"], bare["line"]],
        "1 MB of output, 12,500 lines": [ours["lines"], bare["lines"]],
        "keep a state of 500 MB": [ours["keep"], ""],
        "wake it": [ours["wake"], ""],
    }
    ratios = [
        Ratio(name="first result from the warm pool", value=ours["first"], most=100, unit=" ms"),
        Ratio(name="an empty cell", value=ours["empty"], most=3, unit=" ms"),
        Ratio(name="1 MB of output in one line", value=ours["line"], most=20, unit=" ms"),
        Ratio(name="1 MB of output in 12,500 lines, to a bare kernel's", value=ours["lines"] / bare["lines"], most=1),
        Ratio(name="keep a session that holds a frame of 500 MB", value=ours["keep"], most=50, unit=" ms"),
        Ratio(name="wake it", value=ours["wake"], most=50, unit=" ms"),
        Ratio(name="what the frozen copy has for itself", value=ours["frozen"], most=20, unit=" MB"),
        Ratio(name="what a woken session has for itself", value=ours["fork"], most=20, unit=" MB"),
        Ratio(name="an idle session of 20, for itself", value=ours["private"], most=40, unit=" MB"),
        Ratio(name="first result, to a bare kernel's", value=ours["first"] / bare["first"]),
        Ratio(name="an empty cell, to a bare kernel's", value=ours["empty"] / bare["empty"]),
    ]
    return Table(title=f"sandbox: tier {tiers()[0]}, ms", columns=["ours", "ipykernel"], rows=rows, ratios=ratios)
