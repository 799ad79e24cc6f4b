"""How the benches measure and what they give: CPU time, medians, tables with ratios and the marks they are held against.

Not here: what is measured (the other files) and the command line (run).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A measured value beside what the project promises. `most` None: there is no mark, the value is for comparison."""

    name: str
    value: float
    most: float | None = None
    mark: str = ""
    unit: str = ""

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or nothing where there is no mark."""
        return "" if self.most is None else "met" if self.value <= self.most else "missed"

    def line(self, *, judged: bool) -> str:
        """The ratio as a line of text, with its mark; without a verdict where the numbers mean nothing."""
        shown = f"{self.value:,.3g}" if self.value < 100 else f"{self.value:,.0f}"
        mark = f"mark {self.mark or f'≤ {self.most:g}{self.unit}'}" if self.most is not None else ""
        verdict = f": {self.verdict}" if mark and judged else ""
        return f"  {self.name:<72} {shown + self.unit:>9}   {mark}{verdict}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Table:
    """What one bench found: rows of numbers, and the ratios that matter. `left_out` says which peers are not there."""

    title: str
    columns: Sequence[str]
    rows: dict[str, Sequence[float | str]]
    ratios: list[Ratio] = field(default_factory=list)
    left_out: Sequence[str] = ()

    def text(self, *, judged: bool = True) -> str:
        """The table as text, its ratios below it."""
        lines = [self.title, "  " + " " * 40 + "".join(f"{column:>12}" for column in self.columns)]
        lines += [f"  {name:<40}" + "".join(f"{_shown(value):>12}" for value in values) for name, values in self.rows.items()]
        if self.left_out:
            lines.append(f"  not installed: {', '.join(self.left_out)}")
        return "\n".join([*lines, *(ratio.line(judged=judged) for ratio in self.ratios)])


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:,.2f}" if value < 100 else f"{value:,.1f}"


def installed(*names: str) -> bool:
    """Whether all these modules can be imported; imports none."""
    return all(importlib.util.find_spec(name) is not None for name in names)


def cpu_ms(work: Callable[[], Any]) -> float:
    """The CPU time of this process, all its threads included, for one run of the work."""
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def best_us(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """For each way its lowest time of several: taken by turns, so that whatever else the machine does meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(way())
    return {name: min(times) for name, times in found.items()}


async def per_turn_ms(turn: Callable[[], Awaitable[Any]], turns: int) -> float:
    """CPU ms per turn: the median of so many."""
    spent = []
    for _ in range(turns):
        began = time.process_time()
        await turn()
        spent.append((time.process_time() - began) * 1000)
    return statistics.median(spent)


def alone(function: Callable[..., Any], *arguments: Any, quick: bool = False) -> Any:
    """What a function of a bench gives in a fresh interpreter, as JSON; in this one where it need not be exact."""
    if quick:
        return function(*arguments)
    source = "import sys, json; sys.path.insert(0, sys.argv[1]); from measure import called; called(*sys.argv[2:])"
    command = [sys.executable, "-c", source, str(HERE), function.__module__, function.__name__, json.dumps(arguments)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ)
    return json.loads(done.stdout.splitlines()[-1])


def called(module: str, function: str, arguments: str) -> None:
    """The other end of `alone`."""
    print("\n" + json.dumps(getattr(importlib.import_module(module), function)(*json.loads(arguments))))


def least(runs: Iterable[Sequence[float]]) -> list[float]:
    """The least of each place over several runs: whatever else the machine does can only add to what a thing costs."""
    return [min(place) for place in zip(*runs, strict=True)]
