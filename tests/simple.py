"""Machines for tests of log, replay and resume: the shipped scripted driver, tools written here, a clock that does not run by itself."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from llmproc_nb.core.clock import FixedClock
from llmproc_nb.core.doors import Recorded
from llmproc_nb.core.errors import RequestRefused
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import Program
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.jsonl import JsonlStore
from llmproc_nb.drivers.table import LateDrivers

SCRIPT = (
    {"when": "^add", "say": "I add.", "call": [{"name": "add", "arguments": {"a": 2, "b": 3}}]},
    {
        "when": "^both",
        "think": "two at once",
        "call": [{"name": "add", "arguments": {"a": 1, "b": 1}}, {"name": "shout", "arguments": {"text": "hi"}}],
    },
    {"when": "^[0-9]+$", "say": "It is {{last}}."},
    {"when": "^2\nHI", "say": "Done."},
    {"when": "^fail", "error": "RequestRefused"},
    {"when": ".", "say": "You said: {{last}}"},
)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    RAN.append("add")
    return a + b


def shout(text: str) -> str:
    """Say it louder."""
    RAN.append("shout")
    return text.upper()


RAN: list[str] = []

SCOUT = Program(name="scout", model="script-1", provider="scripted", system="You scout.", script=SCRIPT, tools=(add, shout))


def machine(path: Path | None = None, *, recorded: Recorded | None = None, store: Any = None, **fields: Any) -> Machine:
    """A machine with the drivers that ship; its log goes to `path`."""
    store = JsonlStore(path) if path is not None else store
    return Machine(LateDrivers(dict), clock=FixedClock(), store=store, recorded=recorded, opened={"run": "test"}, **fields)


def is_legal(process: Process) -> bool:
    """Whether each tool call on the path is answered by the very next message, and nothing else is."""
    waiting: list[str] = []
    for message in process.messages:
        answers = [result.call_id for result in message.tool_results] if message.role == "tool" else []
        if answers != waiting or (message.role == "tool" and not waiting):
            return False
        waiting = [call.id for call in message.tool_calls]
    return not waiting


def recorded_run(path: Path) -> Process:
    """A log with plain answers, tools, a failure, a reset and a second process; gives the first one."""
    running = machine(path)
    scout = running.start(SCOUT)
    for words in ("hello", "add it", "both now"):
        scout.run(words, cell="cell-1").result()
    with suppress(RequestRefused):
        scout.run("fail now").result()
    scout.reset_state()
    scout.run("hello").result()
    scout.program = SCOUT.replace(limits=Limits(max_iterations=0))  # a call that may ask nothing
    scout.run("and on").result()
    scout.program = SCOUT
    helper = running.start(SCOUT, name="helper", parent=scout)
    helper.run("both now").result()
    helper.kill()
    running.close()
    return scout
