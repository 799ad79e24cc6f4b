"""A recorded run made again: the real loop on a fresh machine, every door answered from the log, and the two runs compared node by node.

Nothing of the world is needed for it: no key, no tool's function, no SDK. Not here: the lookup of answers (recording).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec

from llmproc_nb.core.call import Call
from llmproc_nb.core.declaration import program_from
from llmproc_nb.core.dialog import Dialog, Node
from llmproc_nb.core.difference import message_difference
from llmproc_nb.core.errors import LlmprocError, LogError
from llmproc_nb.core.event import AnyEvent, Asked, Called, Killed, Moved, Replied, Started, Stopped
from llmproc_nb.core.loop import Run
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.process import Process
from llmproc_nb.core.provider import Config
from llmproc_nb.core.record import declared, last_run, moves, trails
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.replay.doors import LoggedDrivers
from llmproc_nb.drivers.replay.recording import HasEvents, Recording

MachineMaker: TypeAlias = Callable[[Recording], Machine]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first place where the second run went another way. `step` counts the call's messages from 1; a node may be missing."""

    process: str
    call: int
    step: int
    recorded: str | None
    now: str | None
    text: str

    def __str__(self) -> str:
        ids = f"node {self.recorded[:8] if self.recorded else 'none'} recorded, {self.now[:8] if self.now else 'none'} now"
        return f"call {self.call} of {self.process}, message {self.step}: {self.text} ({ids})"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What came of re-executing a log: how much was compared, and the first difference if there is one. True where all is equal."""

    processes: int
    calls: int
    nodes: int
    difference: Difference | None = None
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return self.difference is None

    def __bool__(self) -> bool:
        return self.equal

    def __str__(self) -> str:
        counts = f"{_count(self.processes, 'process')}, {_count(self.calls, 'call')}, {_count(self.nodes, 'node')}"
        said = f"{counts}: all equal" if self.equal else f"{counts} equal, then a difference. {self.difference}"
        return ". ".join([said, *self.notes])

    def __repr__(self) -> str:
        return f"<Comparison {self}>"

    def _repr_markdown_(self) -> str:
        rows = ["| processes | calls | nodes | result |", "|---|---|---|---|"]
        result = "all equal" if self.equal else "differs"
        rows.append(f"| {self.processes} | {self.calls} | {self.nodes} | {result} |")
        text = str(self.difference).replace("`", "ʼ") if self.difference else ""
        return "\n".join([*rows, "", *([f"First difference: `{text}`"] if text else []), *self.notes])


def reexecute(log: HasEvents | Iterable[AnyEvent], make_machine: MachineMaker | None = None) -> Comparison:
    """Run the processes and calls of a log (of its last run) again and compare; waits for the end. Raises LogError for an unsound log.

    `make_machine(recording)` gives the machine to run on; without it, one whose every door is the log. Calls are made one after the
    other; what ran at once when it was recorded finds its answers by lineage.
    """
    events = tuple(last_run(log if isinstance(log, Iterable) else log.events))
    recording = Recording(events, place=str(getattr(getattr(log, "path", None), "name", "the recording")))
    machine = make_machine(recording) if make_machine is not None else Machine(LoggedDrivers(events), recorded=recording)
    try:
        return _Rerun(events, machine, recording).compare()
    finally:
        machine.close()


class _Rerun:
    """One pass over the events of a log, doing again what people did."""

    def __init__(self, events: tuple[AnyEvent, ...], machine: Machine, recording: Recording) -> None:
        self.events, self.machine, self.recording = events, machine, recording
        self.dialog = recording.dialog
        self.trails, self.configs = trails(events), declared(events)
        self.moves = {event.seq for event in moves(events)}
        self.asked: dict[int, Asked] = {}
        self.replies: dict[int, int] = {}
        self.stops: dict[int, Stopped] = {}
        for event in events:
            if event.call is None:
                continue
            if isinstance(event, Asked):
                self.asked.setdefault(event.call, event)
            elif isinstance(event, Replied):
                self.replies[event.call] = self.replies.get(event.call, 0) + 1
            elif isinstance(event, Stopped):
                self.stops[event.call] = event
        self.processes: dict[int, Process] = {}
        self.calls = 0
        self.nodes: set[str] = set()
        self.notes: list[str] = []

    def compare(self) -> Comparison:
        difference = None
        for event in self.events:
            if isinstance(event, Started):
                self._start(event)
            elif isinstance(event, Moved) and event.seq in self.moves:
                self.processes[event.pid].move(self._node(event.node), event.reason)
            elif isinstance(event, Called):
                difference = self._call(event)
            elif isinstance(event, Killed) and event.pid in self.processes:
                self.processes[event.pid].kill()
            if difference is not None:
                break
        return Comparison(
            processes=len(self.processes), calls=self.calls, nodes=len(self.nodes), difference=difference, notes=tuple(self.notes)
        )

    def _start(self, event: Started) -> None:
        program, _ = program_from(event.program, name=event.name)
        program = program.replace(limits=Limits(steps=None), provider=program.provider or event.provider, tools=())
        parent = self.processes.get(event.parent_pid) if event.parent_pid is not None else None
        self.processes[event.pid] = self.machine.start(program, name=event.name, parent=parent, head=self._node(event.node))

    def _node(self, node_id: str) -> Node:
        """The node of the new machine's tree with that id, brought over from the log if it is not there yet."""
        if node_id in self.machine.dialog:
            return self.machine.dialog.find(node_id)
        if node_id not in self.dialog:
            raise LogError(f"node {node_id[:8]} is missing in the log")
        head: Node | None = None
        for node in self.dialog.find(node_id).path():
            head, _ = self.machine.dialog.append(node.message, head)
        assert head is not None
        return head

    def _call(self, event: Called) -> Difference | None:
        assert event.call is not None
        process, stop = self.processes[event.pid], self.stops.get(event.call)
        number = self.machine.next_call()
        steps = (
            self.replies.get(event.call, 0) if stop is not None and stop.reason.startswith("max_") and stop.reason != "max_tokens" else None
        )
        message = self.dialog.find(event.node).message
        if event.before != process.head.id:
            process.move(self._node(event.before), "recorded")
        began, missed = len(self.machine.log.events), len(self.recording.misses)
        run = Run(process, number, message, limits=Limits(steps=steps), config=self._config(event.call, process), cell=event.cell)
        fault = _wait(Call(process, number).start(run.supervise()))
        happened = self.machine.log.events[began:]
        self.calls += 1
        misses = self.recording.misses[missed:]
        if stop is None:  # the recording ends inside this call: how ours ends does not count
            happened = [one for one in happened if not isinstance(one, Moved | Stopped)]
        return self._first_difference(event, trails(happened).get(number, []), stop, fault, str(misses[0]) if misses else "")

    def _config(self, call: int, process: Process) -> Config:
        asked = self.asked.get(call)
        found = self.configs.get(asked.config) if asked is not None else None
        if found is None:
            return process.config
        return Config(model=found.model, tools=found.tools, settings=found.settings, id=found.config)

    def _first_difference(self, event: Called, now: list[str], stop: Stopped | None, fault: str, miss: str) -> Difference | None:
        assert event.call is not None
        recorded = self.trails.get(event.call, [])
        if stop is None:
            self.notes.append(f"The recording ends inside call {event.call} of {self.processes[event.pid].name}")
            if len(recorded) == len(now) + 1:  # the last message was in the log, what makes it an answer was not
                recorded = recorded[:-1]
            now = now[: len(recorded)]
        same = next((i for i, (one, other) in enumerate(zip(recorded, now, strict=False)) if one != other), min(len(recorded), len(now)))
        self.nodes.update(now[:same])
        if same == len(recorded) == len(now):
            return None if stop is None else self._stop_difference(event, stop, fault, same)
        one, other = (ids[same] if same < len(ids) else None for ids in (recorded, now))
        return Difference(
            process=self.processes[event.pid].name,
            call=event.call,
            step=same + 1,
            recorded=one,
            now=other,
            text=miss or self._words(one, other, fault),
        )

    def _stop_difference(self, event: Called, stop: Stopped, fault: str, step: int) -> Difference | None:
        last = next(done for done in reversed(self.machine.log.events) if isinstance(done, Stopped))
        if last.reason == stop.reason or (last.reason, stop.reason) == ("interrupted", "killed"):
            return None
        if last.reason == "max_steps" and stop.reason.startswith("max_"):
            return None
        text = f"the call stopped with {stop.reason}, now with {last.reason}" + (f" ({fault})" if fault else "")
        name = self.processes[event.pid].name
        return Difference(process=name, call=event.call or 0, step=step, recorded=stop.node, now=last.node, text=text)

    def _words(self, one: str | None, other: str | None, fault: str) -> str:
        if one is None:
            return f"the recorded call ended here; now it says “{self._text(self.machine.dialog, other)}”"
        if other is None:
            return f"now the call ends here, the recorded one says “{self._text(self.dialog, one)}”" + (f" ({fault})" if fault else "")
        return message_difference(self.dialog.find(one).message, self.machine.dialog.find(other).message)

    def _text(self, dialog: Dialog, node_id: str | None) -> str:
        return dialog.find(node_id).message.text[:60] if node_id else ""


def _wait(call: Call) -> str:
    """Wait for a call; gives what went wrong, or nothing."""
    try:
        call.result()
    except LlmprocError as error:
        return str(error)
    return ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"
