"""From the flags that run and chat share to a process with a log. Not here: what is asked (run, chat)."""

from __future__ import annotations

import os
import signal
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from llmproc_nb.api import Machine, Process, Program, default_machine, new_machine, read_env
from llmproc_nb.choose import Choice, program_of
from llmproc_nb.cli import version
from llmproc_nb.cli.asked import TypedApprover
from llmproc_nb.cli.channel import Channel
from llmproc_nb.cli.terminal import Terminal
from llmproc_nb.cli.typed import Typed
from llmproc_nb.core.call import Call
from llmproc_nb.core.result import RunResult
from llmproc_nb.core.usage import Usage

LIMIT_STOPS = frozenset({"max_steps", "max_total_steps", "max_total_tokens", "max_cost", "max_seconds", "max_tokens", "context_window"})


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process and what belongs to it. `log` is the file of its log, None where none is kept."""

    terminal: Terminal
    channel: Channel
    machine: Machine
    process: Process
    log: Path | None
    approver: TypedApprover | None = None

    def ask(self, prompt: str) -> RunResult:
        """The result of one prompt. An interrupt stops the call, which then ends as `interrupted`; a second one is raised."""
        call = self.process.run(prompt, on_delta=self.channel.delta)
        try:
            with _interrupt_stops(call):
                return self.approver.wait(call) if self.approver is not None else call.result()
        finally:
            self.terminal.end()


@contextmanager
def started(
    flags: Namespace, program: Program, terminal: Terminal, *, results: bool = True, typed: Typed | None = None
) -> Iterator[Started]:
    """A process of the program, as the flags want it; all is given back at the end. Raises ProgramError, LogError."""
    machine = _machine(flags.log)
    try:
        channel = Channel(terminal, machine, results=results)
        machine.log.add(channel.event)
        approver = machine.approver = TypedApprover(typed, terminal) if typed is not None else None
        process = changed(program, flags).start(machine=machine)
        channel.pid = process.pid
        yield Started(
            terminal=terminal,
            channel=channel,
            machine=machine,
            process=process,
            log=getattr(machine.log.store, "path", None),
            approver=approver,
        )
    finally:
        with suppress(TimeoutError):  # a connection that does not close ends with this process
            machine.close()


def changed(program: Program, flags: Namespace) -> Program:
    """The program with the model, the address and the limits that the flags name."""
    limits = {"max_iterations": flags.max_steps, "cost_usd": flags.cost_limit}
    made = msgspec.structs.replace(program.limits, **{name: value for name, value in limits.items() if value is not None})
    choice = Choice(program="program", model=flags.model, base_url=flags.base_url)
    return program_of(choice, program.name, os.environ, {"program": program.replace(limits=made)})


def _machine(log: str | None) -> Machine:
    if log is None:
        return default_machine()
    read_env(Path.cwd())
    if log == "0":
        return new_machine()
    opened = {"run": f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}", "software": version()}
    return new_machine(log=log, opened=opened)


@contextmanager
def _interrupt_stops(call: Call) -> Iterator[None]:
    """Have the first interrupt stop the call, and the next one act as ever."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        call.cancel()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def who(process: Process) -> str:
    """A process in a few words."""
    count = len(process.tools)
    tools = f", {count} {'tool' if count == 1 else 'tools'}" if count else ""
    return f"{process.program.display_name or process.name} ({process.provider.name}:{process.model}{tools})"


def spent(usage: Usage) -> str:
    """What was used, in a few words."""
    cost = "cost unknown" if usage.unpriced_requests else f"${usage.cost_usd:.4f}"
    return f"{usage.requests} {'request' if usage.requests == 1 else 'requests'}, {usage.total_tokens:,} tokens, {cost}"


def how_it_ended(result: RunResult) -> str:
    """Why a call stopped, where that was not simply the end of the answer; else empty."""
    if result.stop_reason in LIMIT_STOPS:
        return f"stopped by a limit: {result.stop_reason}"
    if result.stop_reason == "interrupted":
        return "interrupted; what it said so far is kept"
    if result.stop_reason not in ("end_turn", "stop_sequence"):
        return f"stopped: {result.stop_reason}" + (f" ({result.detail})" if result.detail else "")
    return ""
