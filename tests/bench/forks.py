"""What a fork costs, in time and memory, of a short and a long dialog, with and without a log on disk; beside a copy of a Python list."""

from __future__ import annotations

import gc
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from answering import WORDS
from measure import Ratio, Table, alone, least

from llmproc_nb import Program, new_machine
from llmproc_nb.core.message import Message, Text, user

SIZES = (10, 1_000)
MESSAGE_CHARS = 3_500
FORKS = 1_000
REPEATS = 7
RUNS = 5
"""Fresh interpreters that take turns: rounds that follow each other within 50 ms may all meet the same busy moment."""


def said(number: int) -> Message:
    """One message of about 3,500 characters; every second one is the model's."""
    text = f"{number}. " + (WORDS * (MESSAGE_CHARS // len(WORDS) + 1))[:MESSAGE_CHARS]
    return user(text) if number % 2 == 0 else Message(role="assistant", parts=(Text(text=text),), api="scripted")


@contextmanager
def grown(messages: int, *, log: bool) -> Iterator[Any]:
    """A process with a dialog of so many messages, on a machine of its own."""
    with tempfile.TemporaryDirectory() as folder:
        machine = new_machine(log=Path(folder) / "bench.jsonl" if log else None)
        process = Program(name="scout", provider="scripted", model="m", script=({"say": "yes"},)).start(machine=machine)
        for number in range(messages):
            process.append(said(number))
        assert len(process.path) == messages + 1
        try:
            yield process
        finally:
            machine.close()


def forked(messages: int, count: int, log: bool) -> list[float]:
    """µs and bytes of one fork, in the mean of so many: the lowest time of several rounds."""
    with grown(messages, log=log) as process:
        return _each(process.fork, count)


def copied(messages: int, count: int) -> list[float]:
    """µs and bytes of one copy of a list of so many messages."""
    kept = [said(number) for number in range(messages)]
    return _each(lambda: list(kept), count)


def _each(make: Callable[[], Any], count: int) -> list[float]:
    times = []
    for _ in range(REPEATS):
        gc.collect()
        began = time.process_time()
        made = [make() for _ in range(count)]
        times.append(time.process_time() - began)
        del made
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = [make() for _ in range(count)]
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(made) == count
    return [1e6 * min(times) / count, used / count]


def bench(*, quick: bool = False) -> Table:
    """The table of forks, and the marks."""
    count = 50 if quick else FORKS
    runs: dict[tuple[str, int], list[list[float]]] = {}
    for _ in range(1 if quick else RUNS):
        for size in SIZES:
            runs.setdefault(("copy of a list", size), []).append(alone(copied, size, count, quick=quick))
            runs.setdefault(("fork", size), []).append(alone(forked, size, count, False, quick=quick))
            runs.setdefault(("fork, log on disk", size), []).append(alone(forked, size, count, True, quick=quick))
    found = {what: least(each) for what, each in runs.items()}
    rows = {f"{what}, {size:,} messages": values for (what, size), values in found.items()}
    ratios = []
    for size in SIZES:
        us, bytes_each = found["fork", size]
        copy_us, copy_bytes = found["copy of a list", size]
        ratios += [
            Ratio(name=f"a fork of {size:,} messages", value=us, most=5, unit=" µs"),
            Ratio(name=f"a fork of {size:,} messages, memory", value=bytes_each / 1000, most=2, unit=" KB"),
            Ratio(name=f"a fork of {size:,} messages, log on disk", value=found["fork, log on disk", size][0] / 1000, most=1, unit=" ms"),
            Ratio(name=f"fork / copy of a list of {size:,} messages, time", value=us / copy_us),
            Ratio(name=f"fork / copy of a list of {size:,} messages, memory", value=bytes_each / copy_bytes),
        ]
    long, short = found["fork", SIZES[1]], found["fork", SIZES[0]]
    ratios.append(Ratio(name=f"fork: {SIZES[1]:,} messages / {SIZES[0]} messages, time", value=long[0] / short[0], most=1.5))
    return Table(title=f"forks: each of {count:,}", columns=["µs", "bytes"], rows=rows, ratios=ratios)
