"""What the log costs a message, beyond turning it into JSON and writing it. Run with `python tests/bench/bench_log.py`."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llmproc_nb.core.dialog import Dialog
from llmproc_nb.core.event import Appended
from llmproc_nb.core.log import Log
from llmproc_nb.core.message import Message, user
from llmproc_nb.drivers.jsonl import JsonlStore

MESSAGES = 5_000
WORDS = "The third column has eleven missing values and two outliers, which come from the merge. "


def made(size: int) -> list[Message]:
    """Messages of about so many characters, no two of them the same."""
    return [user(f"{number} " + WORDS * (size // len(WORDS) + 1)) for number in range(MESSAGES)]


def floor(messages: list[Message], path: Path) -> float:
    """Seconds for `json` and one write a message."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    plain = [msgspec.to_builtins(message) for message in messages]
    began = time.process_time()
    for message in plain:
        os.write(fd, json.dumps({"kind": "appended", "message": message}).encode() + b"\n")
    used = time.process_time() - began
    os.close(fd)
    return used


def logged(messages: list[Message], path: Path) -> float:
    """Seconds for the tree, the event, and the line on disk."""
    dialog, log = Dialog(), Log(time.time_ns, JsonlStore(path))
    began = time.process_time()
    node = None
    for message in messages:
        parent = node
        node, _ = dialog.append(message, parent)
        log.write(Appended, pid=1, call=1, node=node.id, parent=parent.id if parent else None, message=message)
    return time.process_time() - began


def main() -> None:
    print(f"{'characters':>10} {'json + write':>13} {'log':>10} {'more':>10} {'ratio':>6}   (µs of CPU a message, best of 3)")
    for size in (100, 1_000, 10_000):
        messages = made(size)
        base, ours = (_best(way, messages) for way in (floor, logged))
        print(f"{size:>10,} {base:>13.1f} {ours:>10.1f} {ours - base:>10.1f} {ours / base:>6.2f}")


def _best(way: Callable[[list[Message], Path], float], messages: list[Message]) -> float:
    """Microseconds a message."""
    times = []
    for number in range(3):
        with tempfile.TemporaryDirectory() as folder:
            times.append(way(messages, Path(folder) / f"{number}.jsonl"))
    return 1e6 * min(times) / len(messages)


if __name__ == "__main__":
    main()
