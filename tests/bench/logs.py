"""What the log costs a message, beyond turning it into JSON and writing it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import msgspec
from answering import WORDS
from measure import Ratio, Table, best_us

from llmproc_nb.core.dialog import Dialog
from llmproc_nb.core.event import Appended, ToolRan, ToolStarted
from llmproc_nb.core.line import MAX_TEXT_BYTES
from llmproc_nb.core.log import Log
from llmproc_nb.core.message import Message, Text, ToolCall, ToolResult, user
from llmproc_nb.drivers.jsonl import JsonlStore

MESSAGES = 5_000
SIZES = (100, 1_000, 10_000, 100_000)
HUGE = 1_000_000
"""Such a message goes into a file of its own. It is hashed once more for the file's name, which alone costs more than the mark."""


def made(size: int, count: int) -> list[Message]:
    """Messages of about so many characters, no two of them the same."""
    return [user(f"{number} " + (WORDS * (size // len(WORDS) + 1))[:size]) for number in range(count)]


def floor_us(messages: list[Message]) -> float:
    """µs a message for `json` and one write."""
    plain = [msgspec.to_builtins(message) for message in messages]
    with tempfile.TemporaryDirectory() as folder:
        fd = os.open(Path(folder) / "floor.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        began = time.process_time()
        for message in plain:
            os.write(fd, json.dumps({"kind": "appended", "message": message}).encode() + b"\n")
        used = time.process_time() - began
        os.close(fd)
    return 1e6 * used / len(messages)


def logged_us(messages: list[Message]) -> float:
    """µs a message for its place in the tree, its event, and the line on disk."""
    with tempfile.TemporaryDirectory() as folder:
        dialog, log = Dialog(), Log(time.time_ns, JsonlStore(Path(folder) / "log.jsonl"))
        began, node = time.process_time(), None
        for message in messages:
            parent = node
            node, _ = dialog.append(message, parent)
            log.write(Appended, pid=1, call=1, node=node.id, parent=parent.id if parent else None, message=message)
        used = time.process_time() - began
        assert log.store is not None
        log.store.close()
    return 1e6 * used / len(messages)


def tool_round_us(count: int) -> float:
    """µs a message for rounds of a tool: the reply, the start and answer of the tool, and the message of that answer."""
    arguments, answer = '{"column": "age", "rows": 20}', WORDS * 9
    with tempfile.TemporaryDirectory() as folder:
        dialog, log = Dialog(), Log(time.time_ns, JsonlStore(Path(folder) / "log.jsonl"))
        began, node = time.process_time(), None
        for number in range(count // 2):
            call = ToolCall(id=f"t{number}", name="look", arguments=arguments)
            reply, _ = dialog.append(Message(role="assistant", api="anthropic", parts=(call,)), node)
            log.write(Appended, pid=1, call=1, node=reply.id, parent=node.id if node else None, message=reply.message)
            log.write(ToolStarted, pid=1, call=1, node=reply.id, position=0, call_id=call.id, name="look", arguments=arguments)
            result = ToolResult(call_id=call.id, name="look", content=(Text(text=answer),))
            ran = log.write(ToolRan, pid=1, call=1, node=reply.id, position=0, name="look", result=result)
            node, _ = dialog.append(Message(role="tool", parts=(result,)), reply)
            log.write(Appended, pid=1, call=1, node=node.id, parent=reply.id, results=(ran.seq,))
        used = time.process_time() - began
        assert log.store is not None
        log.store.close()
    return 1e6 * used / count


def bench(*, quick: bool = False) -> Table:
    """The table by length, and the mark."""
    rows: dict[str, list[float]] = {}
    ratios = []
    for size in SIZES[:2] if quick else (*SIZES, HUGE):
        count = 200 if quick else MESSAGES if size < 100_000 else MESSAGES // 10 if size < HUGE else MESSAGES // 100
        messages = made(size, count)
        best = best_us({"floor": lambda m=messages: floor_us(m), "ours": lambda m=messages: logged_us(m)}, 1 if quick else 5)
        more = best["ours"] - best["floor"]
        rows[f"{size:,} characters"] = [best["floor"], best["ours"], more]
        own = ", a file of its own" if size > MAX_TEXT_BYTES else ""
        most = None if own else 40
        ratios += [
            Ratio(name=f"log beyond json and a write, {size:,} characters{own}", value=more, most=most, unit=" µs"),
            Ratio(name=f"log / json and a write, {size:,} characters", value=best["ours"] / best["floor"]),
        ]
    rounds = best_us({"ours": lambda: tool_round_us(200 if quick else MESSAGES)}, 1 if quick else 5)["ours"]
    rows["a message of a round of tools"] = ["", rounds, ""]  # type: ignore[list-item]
    return Table(title="log: CPU µs a message", columns=["json + write", "log", "more"], rows=rows, ratios=ratios)
