"""A recorded run made again: the real loop on a fresh machine, every door answered from the log, and the two runs compared node by node.

Nothing of the world is needed for it: no key, no tool's function, no SDK. Not here: the lookup of answers (recording).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from llmproc_nb.core.call import Call
from llmproc_nb.core.declaration import program_from
from llmproc_nb.core.dialog import Dialog, Node
from llmproc_nb.core.difference import message_difference
from llmproc_nb.core.errors import LlmprocError, LogError
from llmproc_nb.core.event import AnyEvent, Appended, Asked, Called, Killed, Moved, Replied, Started, Stopped
from llmproc_nb.core.label import Labels
from llmproc_nb.core.loop import Run
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.manual import PARAMETERS
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import Config
from llmproc_nb.core.record import Course, declared, last_run, note_trail, steps, trails
from llmproc_nb.core.syscall import syscall
from llmproc_nb.core.tool import Toolset
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.replay.comparison import Comparison, Difference
from llmproc_nb.drivers.replay.doors import LoggedDrivers
from llmproc_nb.drivers.replay.heard import Reader, heard
from llmproc_nb.drivers.replay.recording import HasEvents, Recording

MachineMaker: TypeAlias = Callable[[Recording], Machine]

NO_END = 10**9


def reexecute(log: HasEvents | Iterable[AnyEvent], make_machine: MachineMaker | None = None) -> Comparison:
    """Run the processes and calls of a log (of its last run) again and compare; waits for the end. Raises LogError for an unsound log.

    `make_machine(recording)` gives the machine to run on; without it, one whose every door is the log. Calls are made one after the
    other; what ran at once when it was recorded finds its answers by lineage.
    """
    events = tuple(last_run(log if isinstance(log, Iterable) else log.events))
    recording = Recording(events, place=str(getattr(getattr(log, "path", None), "name", "the recording")), again=True)
    machine = make_machine(recording) if make_machine is not None else Machine(LoggedDrivers(events), recorded=recording)
    try:
        return _Rerun(events, machine, recording).compare()
    finally:
        machine.close()


class _Rerun:
    """One pass over the events of a log, doing again what people did.

    A call is made again where it began, with every answer of its tools from the log; what its model forked or spawned starts where the
    log says so and makes its own calls. `labels` are the numbers as the log has them.
    """

    def __init__(self, events: tuple[AnyEvent, ...], machine: Machine, recording: Recording) -> None:
        self.events, self.machine, self.recording = events, machine, recording
        machine.process_type = type("Rerun", (Reader, machine.process_type), {})
        self.dialog = recording.dialog
        self.trails, self.heard, self.configs = trails(events), heard(events, recording.dialog), declared(events)
        self.asked: dict[int, Asked] = {}
        self.asks: dict[int, Asked] = {}
        self.replies: dict[int, int] = {}
        self.stops: dict[int, Stopped] = {}
        for event in events:
            if event.call is None:
                continue
            if isinstance(event, Asked) and not event.aside:
                self.asked.setdefault(event.call, event)
                self.asks.setdefault(event.pid, event)
            elif isinstance(event, Replied) and not event.aside:
                self.replies[event.call] = self.replies.get(event.call, 0) + 1
            elif isinstance(event, Stopped):
                self.stops[event.call] = event
        self.processes: dict[int, Process] = {}
        self.labels: dict[int, Labels] = {}
        self.calls = 0
        self.nodes: set[str] = set()
        self.notes: list[str] = []

    def compare(self) -> Comparison:
        difference = None
        for event, nodes in steps(self.events):
            process = self.processes.get(event.pid)
            if isinstance(event, Started):
                self._start(event)
            elif isinstance(event, Called):
                difference = self._call(event)
            elif process is None:
                continue
            elif isinstance(event, Moved) and event.call is None:
                process.move(self._node(event.node), event.reason)
            elif isinstance(event, Appended) and event.call is None and not event.aside:
                self._place(process, event)
            elif isinstance(event, Killed):
                process.kill()
            if difference is not None:
                break
            for node in nodes:
                self._number(self.labels[event.pid], node, event)
        return Comparison(
            processes=len(self.processes), calls=self.calls, nodes=len(self.nodes), difference=difference, notes=tuple(self.notes)
        )

    def _start(self, event: Started) -> None:
        parent = self.processes.get(event.parent_pid) if event.parent_pid is not None else None
        head = self._node(event.node)
        if event.origin == "fork" and not event.program and parent is not None and event.parent_pid is not None:
            process = self.machine.fork(parent, head, name=event.name)
            # the parent may have come further by now than when it was forked
            process.labels = self.labels[event.parent_pid].fork()
        else:
            program, _ = program_from(event.program, name=event.name)
            provider = program.provider or event.provider
            program = program.replace(limits=Limits(max_iterations=NO_END), provider=provider, tools=(), linked={}, mcp={})
            process = self.machine.start(program, name=event.name, parent=parent, head=head, origin=event.origin)  # type: ignore[arg-type]
            asked = self.asks.get(event.pid)
            process.tools = self._jumps(asked.config if asked is not None else None)
        self.processes[event.pid], self.labels[event.pid] = process, self._numbered(process, event)

    def _numbered(self, process: Process, event: Started) -> Labels:
        """The numbers a process has when it begins, for the log's own count."""
        if event.parent_pid in self.labels and event.origin == "fork" and not event.program:
            return self.labels[event.parent_pid].fork()  # type: ignore[index]
        labels = Labels()
        for node in process.head.path()[1:]:
            labels.add(node)
        return labels

    def _jumps(self, config: str | None) -> Toolset:
        """The goto of a process, if it has one: the one tool that is not answered but followed."""
        specs = self.configs[config].tools if config in self.configs else ()
        goto = syscall("goto", Program())
        same = (spec for spec in specs if spec.name == "goto" or spec.description == goto.spec.description)
        return Toolset(
            goto.renamed(spec.name) for spec in same if spec.parameters.get("properties", {}).keys() == PARAMETERS["goto"].keys()
        )

    def _place(self, process: Process, event: Appended) -> None:
        """Stand on a node that was said between calls."""
        if event.parent is not None and process.head.id != event.parent:
            process.move(self._node(event.parent), "recorded")
        process.head = self._node(event.node)
        self._number(process.labels, event.node, event)

    def _number(self, labels: Labels, node_id: str, event: AnyEvent) -> None:
        if isinstance(event, Appended) and event.node == node_id:
            labels.skip_to(event.number or 0)
        labels.add(self._node(node_id))

    def _above(self, node_id: str) -> str | None:
        """The node above another one, in the second run's tree."""
        parent = self.machine.dialog.find(node_id).parent
        return parent.id if parent is not None else None

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
        process, stop, texts = self.processes[event.pid], self.stops.get(event.call), self.heard.get(event.call)
        number = self.machine.next_call()
        replies = (
            self.replies.get(event.call, 0)
            if stop is not None and stop.reason.startswith("max_") and stop.reason != "max_tokens"
            else NO_END
        )
        before = texts.origin if texts is not None else event.before
        if before != process.head.id:
            process.move(self._node(before), "recorded")
        asked = self.asked.get(event.call)
        if asked is not None:
            process.tools = self._jumps(asked.config)
        missed = len(self.recording.misses)
        process.texts = texts.texts if texts is not None else {}  # type: ignore[attr-defined]  # it is a Reader
        message = self.dialog.find(event.node).message
        run = Run(
            process, number, message, limits=Limits(max_iterations=replies), config=self._config(event.call, process), cell=event.cell
        )
        began, course = len(self.machine.log.events), Course(self._above)
        course.stand(process.pid, process.head.id)
        fault = _wait(Call(process, number).start(run.supervise()))
        made: dict[int, list[str]] = {}
        for happened in self.machine.log.events[began:]:
            nodes = course.follow(happened)
            # where the recording ends inside this call, how ours ends does not count
            if stop is not None or not isinstance(happened, Moved | Stopped) or (isinstance(happened, Moved) and happened.reason == "goto"):
                note_trail(made, happened, nodes)
        self.calls += 1
        misses = self.recording.misses[missed:]
        return self._first_difference(event, made.get(number, []), stop, fault, str(misses[0]) if misses else "")

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
