"""What the processes of a kernel have used, as /proc says it: they cannot be asked, for they are hostile and of any language."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MOST = 200
"""Processes that are looked at."""
CPU = slice(11, 15)
"""Where /proc/PID/stat has the time of a process and of its children that have ended, after its name."""


def used(pid: int) -> dict[int, tuple[float, float]]:
    """A process and all below it: seconds of computing, those of its ended children with it, and the MB it had at most."""
    found: dict[int, tuple[float, float]] = {}
    waiting = [pid]
    while waiting and len(found) < MOST:
        one = waiting.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            place = Path(f"/proc/{one}")
            ticks = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()[CPU]
            found[one] = sum(map(int, ticks)) / TICKS, _most_mb(place)
            for task in (place / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found


def _most_mb(place: Path) -> float:
    """The most memory that a process had; 0 for one that is just ending."""
    for line in (place / "status").read_text(errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def spent(before: dict[int, tuple[float, float]], after: dict[int, tuple[float, float]]) -> dict[str, float]:
    """What was used in between, and the most that the largest process had; nothing where they are gone."""
    if not after:
        return {}
    cpu_s = sum(cpu for cpu, _ in after.values()) - sum(cpu for cpu, _ in before.values())
    return {"cpu_s": round(max(0.0, cpu_s), 6), "memory_mb": round(max(mb for _, mb in after.values()), 1)}
