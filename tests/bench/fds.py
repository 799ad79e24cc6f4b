"""What a long text costs: opening it beside reading it once, memory, any place in it, a search; and what a fork of many fds costs."""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import Ratio, Table, alone, best_us

READ_CHARS = 64 * 1024
PATTERNS = {
    "a word": "unobtainium",
    "case ignored": "(?i)unobtainium",
    "classes": r"\b\d{5}\b",
    "anchors, a gap": r"^\S+ WARN .*unobtain.*$",
    "alternatives": "(?:osmium|iridium|rhodium)-[0-9a-f]+",
    "lookaround": r"unobtain(?!ed)\w+",
}
"""None of them is in the text: all of it is searched."""


def made(path: Path, size: int, words: tuple[str, ...]) -> None:
    """A text file of lines like those of a log, about so many bytes."""
    dice = random.Random(7)
    lines = (
        f"2026-01-{dice.randint(1, 31):02} {dice.choice(('INFO', 'DEBUG'))} {' '.join(dice.choices(words, k=12))}\n" for _ in range(60_000)
    )
    block = "".join(lines).encode()
    with open(path, "wb") as file:
        while file.tell() < size:
            file.write(block[: size - file.tell()] if size - file.tell() < len(block) else block)


def one_line(path: Path, size: int) -> None:
    """A JSON list in one line."""
    with open(path, "wb") as file:
        file.write(b"[0")
        while file.tell() < size:
            file.write(b', {"name": "value of it", "number": 1234}' * 10_000)
        file.write(b"]")


def read_once_s(path: str) -> float:
    """CPU seconds to read the file as text, in blocks, and let go of them."""
    began = time.process_time()
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        while file.read(READ_CHARS):
            pass
    return time.process_time() - began


def open_s(path: str) -> float:
    """CPU seconds to open the file as a long text."""
    from llmproc_nb.drivers.text import long_text

    began = time.process_time()
    long_text(Path(path))
    return time.process_time() - began


def resident_mb(path: str) -> tuple[float, float, float]:
    """Of a fresh interpreter: seconds to open the file for the first time, and how far resident memory grew at most, then and after use."""
    import llmproc_nb.drivers.text as texts

    before, began = _peak_mb(), time.process_time()
    text = texts.long_text(Path(path))
    first_s, opened = time.process_time() - began, _peak_mb() - before
    for part in range(50):
        text.slice(text.chars * part // 50, text.chars * part // 50 + 4000)
        text.line_start(text.lines * part // 50)
    for pattern in PATTERNS.values():
        text.search(pattern, timeout_s=60)
    return first_s, opened, _peak_mb() - before


def _peak_mb() -> float:
    status = Path("/proc/self/status")  # what resource tells is that of the parent too
    if status.is_file():
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def slowest_ms(work: Callable[[int], Any], places: list[int]) -> float:
    """The slowest of many, leaving aside the one in a hundred that met something else on the machine."""
    times = []
    for place in places:
        began = time.process_time()
        work(place)
        times.append((time.process_time() - began) * 1000)
    return statistics.quantiles(times, n=100)[98]


def latencies_ms(text: Any) -> dict[str, float]:
    """The slowest read of each kind, anywhere in the text."""
    from llmproc_nb.core.fd import Fd

    fd, dice = Fd(number=1, label="bench", text=text), random.Random(1)
    chars = [dice.randrange(text.chars) for _ in range(200)]
    lines = [dice.randint(1, text.lines) for _ in range(200)]
    return {
        "a page": slowest_ms(lambda at: fd.page(at // fd.page_chars + 1), chars),
        "a line": slowest_ms(
            lambda line: text.slice(text.line_start(line), min(text.line_start(line) + 4000, text.line_start(line + 1))), lines
        ),
        "50,000 characters": slowest_ms(lambda at: fd.read("char", at + 1, 50_000), chars),
    }


def forked(count: int) -> tuple[float, float]:
    """µs and bytes for the fork of a table with so many fds, each of them read in part."""
    from llmproc_nb.core.fdtable import FdTable
    from llmproc_nb.drivers.text import long_text

    table, text = FdTable(), long_text("x" * 10_000)
    for number in range(1, count + 1):
        table.open(text, "bench")
        table.mark_read(number, 0, 4000)
    kept = []

    def fork_all() -> float:
        began = time.process_time()
        kept[:] = [table.fork() for _ in range(1000)]
        return (time.process_time() - began) * 1000  # seconds for 1,000 are ms for one, so µs come from a thousand of those

    best = best_us({"fork": fork_all}, 5)["fork"]
    tracemalloc.start()
    kept[:] = [table.fork() for _ in range(1000)]
    size = tracemalloc.get_traced_memory()[0] / 1000
    tracemalloc.stop()
    return best, size


def bench(*, quick: bool = False) -> Table:
    """The table of a large file in ASCII, one in other letters and one in a single line, and the marks."""
    from llmproc_nb.drivers.text import long_text

    size = 100_000_000 if quick else 1_000_000_000
    rows: dict[str, list[float | str]] = {}
    ratios: list[Ratio] = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "ASCII lines": lambda path: made(path, size, ("column", "value", "rows", "of", "the", "frame", "were", "read", "12", "3.5")),
            "other letters": lambda path: made(path, size, ("Spalte", "Größe", "日本語", "значение", "of", "😀", "été", "12")),
            "JSON in one line": lambda path: one_line(path, size),
        }
        for kind, make in kinds.items():
            path = Path(folder) / "text"
            make(path)
            ways = {"read": lambda: read_once_s(str(path)), "open": lambda: open_s(str(path))}  # noqa: B023
            best = best_us(ways, 2 if quick else 4)
            first_s, grown, used = alone(resident_mb, str(path), quick=quick)
            text = long_text(path)
            slow = latencies_ms(text)
            speed = {name: _speed(text, pattern) for name, pattern in PATTERNS.items()}
            rows[kind] = [best["read"], best["open"], first_s, grown, used, max(slow.values()), min(speed.values()), max(speed.values())]
            ratios += [
                Ratio(name=f"{kind}: open / read once", value=best["open"] / best["read"], most=2),
                Ratio(name=f"{kind}: resident memory, opened", value=grown, most=64, unit=" MB"),
                *(Ratio(name=f"{kind}: {name}, slowest", value=ms, most=5, unit=" ms") for name, ms in slow.items()),
                *(Ratio(name=f"{kind}: 200 MB/s / search, {name}", value=200 / mb_s, most=1) for name, mb_s in speed.items()),
            ]
            path.unlink()
    for count in (10, 1000):
        us, size_bytes = forked(count)
        ratios.append(Ratio(name=f"fork of a table of {count:,} fds", value=us, most=5, unit=" µs"))
        ratios.append(Ratio(name=f"fork of a table of {count:,} fds, memory", value=size_bytes, most=2000, unit=" B"))
    return Table(
        title=f"fds: a text of {size / 1e9:g} GB",
        columns=["read s", "open s", "first s", "MB opened", "MB used", "read ms", "MB/s least", "MB/s most"],
        rows=rows,
        ratios=ratios,
    )


def _speed(text: Any, pattern: str) -> float:
    """MB/s of a search through the whole text."""
    began = time.process_time()
    found = text.search(pattern, timeout_s=120)
    assert found.next_char is None, found
    return text.size_bytes / 1e6 / (time.process_time() - began)
