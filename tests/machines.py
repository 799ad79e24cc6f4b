"""Machines for tests: the shipped drivers, a fixed clock where waits would be long, scripts instead of models."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from llmproc_nb.api import Machine, Process, Program
from llmproc_nb.core.clock import Clock, FixedClock
from llmproc_nb.core.event import Event
from llmproc_nb.drivers.table import LateDrivers


def machine(clock: Clock | None = None, **fields: Any) -> Machine:
    return Machine(LateDrivers(lambda: os.environ), clock=clock or FixedClock(), **fields)


def scripted(
    *turns: dict[str, Any] | Any, tools: Iterable[Any] = (), name: str = "scout", on: Machine | None = None, **fields: Any
) -> Process:
    """A process on a machine of its own that says these turns (or what a function says)."""
    script = turns[0] if len(turns) == 1 and callable(turns[0]) else turns
    program = Program(name=name, provider="scripted", model="script", script=script, tools=tuple(tools), **fields)
    return program.start(machine=on or machine())


def roles(process: Process) -> list[str]:
    return [message.role for message in process.messages]


def kinds(process: Process) -> list[str]:
    """The kinds of the events of a process, in order."""
    return [event.__struct_config__.tag for event in process.machine.log.events if event.pid == process.pid]


def events(process: Process, kind: type[Event]) -> list[Any]:
    return [event for event in process.machine.log.events if isinstance(event, kind) and event.pid == process.pid]
