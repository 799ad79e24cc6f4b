"""What `import llmproc_nb` and `%load_ext llmproc_nb` cost in a kernel that has just started: CPU, and which heavy modules they bring."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from measure import ROOT, Ratio, Table, installed

sys.path.append(str(ROOT / "tests"))

HEAVY = (
    "anthropic",
    "openai",
    "mcp",
    "httpx2",
    "pandas",
    "pyarrow",
    "numpy",
    "ipywidgets",
    "anywidget",
    "jupyter_client",
    "pydantic",
    "nbformat",
)
PEERS = ("jupyter_ai_magics", "chatlas", "pydantic_ai")

# a kernel has jupyter_client from its own start: what counts is what the line adds
SOURCE = """
import sys, time, json
def cost(line):
    before = set(sys.modules)
    began = time.process_time()
    get_ipython().run_line_magic("load_ext", line.split()[1]) if line.startswith("%load_ext") else exec(line)
    spent = (time.process_time() - began) * 1000
    new = set(sys.modules) - before
    return spent, len(new), sorted(name for name in {heavy!r} if name in new)
print(json.dumps([cost(line) for line in {lines!r}]))
"""


@contextmanager
def fresh_kernel() -> Iterator[Any]:
    """A kernel of its own, without keys: with one, the SDK is imported in the background."""
    from kernels import kernel

    with kernel(ANTHROPIC_API_KEY="", OPENAI_API_KEY="", LLMPROC_NB_STREAM="") as made:
        made.run("1 + 1")
        yield made


def costs(lines: list[str]) -> list[tuple[float, int, list[str]]]:
    """CPU ms, number of new modules, and the heavy ones among them, for each line."""
    with fresh_kernel() as kernel:
        ran = kernel.run(SOURCE.format(heavy=HEAVY, lines=lines), timeout_s=120)
    assert ran.status == "ok", ran.error
    made: list[tuple[float, int, list[str]]] = json.loads(ran.printed)
    return made


def bench(*, quick: bool = False) -> Table:
    """The table of imports, and the marks."""
    lines = ["import llmproc_nb", "%load_ext llmproc_nb"]
    if not quick:
        costs(lines)  # the first run may compile
    runs = [costs(lines) for _ in range(1 if quick else 5)]
    ms = [statistics.median(run[at][0] for run in runs) for at in range(len(lines))]
    heavy = [runs[0][at][2] for at in range(len(lines))]
    rows: dict[str, list[float | str]] = {line: [ms[at], runs[0][at][1], ", ".join(heavy[at]) or "none"] for at, line in enumerate(lines)}
    for name in () if quick else (name for name in (*PEERS, "anthropic", "openai", "pandas") if installed(name)):
        spent, modules, brought = costs([f"import {name}"])[0]
        rows[f"import {name}"] = [spent, modules, str(len(brought))]
    return Table(
        title="import: in a warm kernel",
        columns=["CPU ms", "modules", "heavy"],
        rows=rows,
        ratios=[Ratio(name=f"{line}: CPU", value=ms[at], most=100, unit=" ms") for at, line in enumerate(lines)]
        + [Ratio(name="heavy modules that both bring", value=sum(map(len, heavy)), most=0, mark="none")],
        left_out=[name for name in PEERS if not installed(name)],
    )
