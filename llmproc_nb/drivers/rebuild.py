"""Processes of an earlier kernel run, living again: their trees, heads, names and usage, and an answer to every open tool call.

A tool that may have taken effect is never run again: its call is answered with what is known about it. Not here: reading logs (logfile).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from llmproc_nb.core.declaration import program_from, stand_in
from llmproc_nb.core.dialog import Dialog, Node
from llmproc_nb.core.errors import LlmprocError
from llmproc_nb.core.event import AnyEvent, Appended, AttemptFailed, Declared, Replied, ToolRan
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.message import Message, Text, ToolResult
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import ToolSpec
from llmproc_nb.core.record import OpenCall, Past, declared, last_run, open_calls, processes, said, tree

UNKNOWN = "the kernel died while the tool ran: whether it took effect is unknown"
NEVER = "not run: the kernel died before this tool started"


_ANEW = ("seq", "time_ns", "pid", "call", "replayed")


class Resumed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one process of the earlier run.

    `process` is None where it could not be started; `fault` says why. `finished`, `unknown` and `never_started` are the tools that were
    open, by name. `unanswered` is a question that had got no answer when the kernel died: it is off the path, to be asked again.
    `missing_tools` need their functions: supply them with `process.add_tools`, under the same names.
    """

    name: str
    old_pid: int
    process: Process | None = None
    finished: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    never_started: tuple[str, ...] = ()
    unanswered: str | None = None
    missing_tools: tuple[str, ...] = ()
    fault: str | None = None

    def __str__(self) -> str:
        if self.process is None:
            return f"{self.name}: not resumed. {self.fault}"
        facts = [
            f"{len(self.process.path) - 1} messages",
            *(f"{what}: {', '.join(names)}" for what, names in self._open() if names),
            *([f"not answered, ask again: “{self.unanswered[:60]}”"] if self.unanswered is not None else []),
            *([f"functions to be supplied: {', '.join(self.missing_tools)}"] if self.missing_tools else []),
        ]
        return f"{self.name} (pid {self.process.pid}): {'; '.join(facts)}"

    def _open(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (
            ("finished", self.finished),
            ("begun, whether it took effect is unknown", self.unknown),
            ("never started", self.never_started),
        )


def rebuild(
    log: Any,
    machine: Machine,
    *,
    tools: Iterable[Any] = (),
    programs: Mapping[str, Program] | None = None,
    only: Iterable[str] | None = None,
) -> list[Resumed]:
    """The processes that lived when the log (its last run) ended, on a machine, in the order in which they had been started.

    `tools` are functions that programs had and data cannot say; `programs` takes the place of a process's recorded program, by name;
    `only` are the names to bring back. The machine's own log gets all that is needed to do this once more from it alone. Raises LogError
    where the log's nodes are not what their ids say.
    """
    events = last_run(log.events if hasattr(log, "events") else log)
    dialog = tree(events)
    past = processes(events)
    wanted = set(only) if only is not None else None
    alive = [one for one in past.values() if not one.killed and (wanted is None or one.name in wanted)]
    if not alive:
        return []
    _bring_nodes(events, machine)
    rebuilder = _Rebuilder(events, dialog, past, machine, tuple(tools), dict(programs or {}))
    return [rebuilder.resume(one) for one in alive]


def _bring_nodes(events: Iterable[AnyEvent], machine: Machine) -> None:
    """Put all nodes of the log into the machine's tree and log."""
    for event, message in said(events):
        parent = machine.dialog.find(event.parent) if event.parent is not None else None
        node, new = machine.dialog.append(message, parent)
        if new:
            machine.log.write(Appended, cell=event.cell, node=node.id, parent=event.parent, message=message)


class _Rebuilder:
    """Brings one process after the other back; parents come before their children."""

    def __init__(
        self,
        events: list[AnyEvent],
        dialog: Dialog,
        past: dict[int, Past],
        machine: Machine,
        tools: tuple[Any, ...],
        programs: dict[str, Program],
    ) -> None:
        self.events, self.dialog, self.past, self.machine, self.tools, self.programs = events, dialog, past, machine, tools, programs
        self.configs = declared(events)
        self.made: dict[int, Process] = {}
        self.siblings: dict[tuple[str, str], int] = {}

    def resume(self, past: Past) -> Resumed:
        try:
            process, missing = self._start(past)
        except LlmprocError as error:
            return Resumed(name=past.name, old_pid=past.pid, fault=str(error))
        self.made[past.pid] = process
        self._bring_config(past, process)
        process.usage = self._usage(past.pid)
        self._bring_replies(past, process)
        head = self.dialog.find(past.head)
        unanswered = None
        if past.call is not None and head.message.role == "user" and head.parent is not None:
            unanswered, head = head.message.text, head.parent
        process.move(self.machine.dialog.find(head.id), "resumed")
        answered = open_calls(self.events, past, head)
        if answered:
            self._answer(process, head, answered)
        return Resumed(
            name=past.name,
            old_pid=past.pid,
            process=process,
            finished=_names(answered, "finished"),
            unknown=_names(answered, "unknown"),
            never_started=_names(answered, "never started"),
            unanswered=unanswered,
            missing_tools=missing,
        )

    def _start(self, past: Past) -> tuple[Process, tuple[str, ...]]:
        """Start the program again where the process began, with a stand-in for each tool whose function is not there."""
        specs = self._specs(past)
        supplied = self._supplied(past.name)
        stand_ins = {name: stand_in(spec) for name, spec in specs.items()}
        program = self.programs.get(past.name)
        missing: tuple[str, ...] = ()
        if program is None:
            functions = {**stand_ins, **supplied}
            program, missing = program_from(past.started.program, functions, name=past.name)
            program = program.replace(provider=program.provider or past.started.provider)
        first = self.machine.dialog.find(past.started.node)
        process = self.machine.start(program, name=past.name, parent=self._parent(past), head=first)
        late = [supplied.get(name, tool) for name, tool in stand_ins.items() if name not in process.tools]
        if late:
            process.add_tools(late)
        absent = [name for name, tool in stand_ins.items() if process.tools.get(name) is tool]
        return process, tuple(dict.fromkeys((*missing, *absent)))

    def _supplied(self, place: str) -> dict[str, Any]:
        """The functions that were supplied, by the names under which they are tools; a script's function by its own."""
        named: dict[str, Any] = {tool.name: tool for tool in self.machine.drivers.tools(self.tools, Program(name=place))}
        return named

    def _specs(self, past: Past) -> dict[str, ToolSpec]:
        """The tools the process had when it last asked."""
        config = self.configs.get(past.config or "")
        return {spec.name: spec for spec in config.tools} if config else {}

    def _parent(self, past: Past) -> Process | None:
        pid = past.started.parent_pid
        return self.made.get(pid) if pid is not None else None

    def _usage(self, pid: int) -> Any:
        """What a process and everyone below it had used."""
        usage = self.past[pid].usage
        for child in self.past.values():
            if child.started.parent_pid == pid:
                usage = usage + self._usage(child.pid)
        return usage

    def _bring_config(self, past: Past, process: Process) -> None:
        config = self.configs.get(past.config or "")
        if config is not None:
            self.machine.declare(config.config)
            self.machine.log.write(
                Declared, pid=process.pid, config=config.config, model=config.model, tools=config.tools, settings=config.settings
            )

    def _bring_replies(self, past: Past, process: Process) -> None:
        """Write down the replies of the earlier run, so that usage and recorded answers are in the new log too."""
        for reply in past.replies:
            fields = {name: getattr(reply, name) for name in reply.__struct_fields__ if name not in _ANEW}
            if isinstance(reply, Replied):
                self.machine.log.write(Replied, pid=process.pid, replayed=True, **fields)
                self._count(reply)
            elif reply.usage.requests:
                self.machine.log.write(AttemptFailed, pid=process.pid, **fields)
        for child in self.past.values():
            if child.killed and child.started.parent_pid == past.pid:
                self._bring_replies(child, process)

    def _count(self, reply: Replied) -> None:
        """Let the next equal request of the same asker be the next sibling."""
        key = (reply.lineage, reply.digest)
        while self.siblings.get(key, -1) < reply.sibling:
            self.siblings[key] = self.machine.next_sibling(*key)

    def _answer(self, process: Process, head: Node, answered: list[OpenCall]) -> None:
        results: list[ToolResult] = []
        seqs: list[int] = []
        for one in answered:
            result, outcome, duration_s = _outcome(one)
            event = self.machine.log.write(
                ToolRan,
                pid=process.pid,
                node=head.id,
                position=one.position,
                name=one.call.name,
                result=result,
                outcome=outcome,
                duration_s=duration_s,
                replayed=one.ran is not None,
            )
            results.append(result)
            seqs.append(event.seq)
        process.append(Message(role="tool", parts=tuple(results)), results=tuple(seqs))


def _outcome(one: OpenCall) -> tuple[ToolResult, str, float]:
    if one.ran is not None:
        return one.ran.result, one.ran.outcome, one.ran.duration_s
    text, outcome = (UNKNOWN, "interrupted") if one.state == "unknown" else (NEVER, "refused")
    return ToolResult(call_id=one.call.id, name=one.call.name, content=(Text(text=text),), is_error=True), outcome, 0.0


def _names(answered: list[OpenCall], state: str) -> tuple[str, ...]:
    return tuple(one.call.name for one in answered if one.state == state)
