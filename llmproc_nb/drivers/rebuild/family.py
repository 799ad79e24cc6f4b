"""The processes of a log made again, in one pass over its events: each starts, forks, moves and opens fds where it did.

The machine's own log so gets the same story without its calls. Not here: what is behind a program's names (declared).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmproc_nb.core.dialog import Dialog, Node
from llmproc_nb.core.errors import LlmprocError, PersonError
from llmproc_nb.core.event import (
    AnyEvent,
    Appended,
    AttemptFailed,
    CodeRan,
    Declared,
    FdOpened,
    Killed,
    Moved,
    Replied,
    Sent,
    Started,
    Stopped,
)
from llmproc_nb.core.longtext import LongText
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.message import Message, calls_tools
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import Program
from llmproc_nb.core.record import Past, program_of, said, steps
from llmproc_nb.core.usage import Usage
from llmproc_nb.drivers.rebuild.declared import Declarations, is_stand_in
from llmproc_nb.drivers.rebuild.shown import mark_shown, says

GONE = "(this text was too long for the log, and the file that kept it is gone)"
PIECE_CHARS = 1 << 20

_ANEW = ("seq", "time_ns", "pid", "call", "replayed")


def above(one: Past, past: Mapping[int, Past]) -> Iterator[int]:
    """The pids of those above a process."""
    pid = one.started.parent_pid
    while pid is not None and pid in past:
        yield pid
        pid = past[pid].started.parent_pid


class Family:
    """One pass over the events of a log. `made` are the processes by the pids they had; the other fields are about these pids, too.

    `faults`: why one could not be started; `missing`: its functions and links that are not there; `waiting`: what was sent to it and not
    read; `moved`: the goto it made last, `asking`: the question that has no answer yet.
    """

    def __init__(
        self, events: list[AnyEvent], dialog: Dialog, past: dict[int, Past], machine: Machine, declarations: Declarations, path: Path | None
    ) -> None:
        self.events, self.dialog, self.past, self.machine, self.declarations, self.path = events, dialog, past, machine, declarations, path
        self.made: dict[int, Process] = {}
        self.faults: dict[int, str] = {}
        self.missing: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self.waiting: dict[int, list[Sent]] = {}
        self.texts: dict[str, LongText] = {}
        self.siblings: dict[tuple[str, str], int] = {}
        self.below: dict[int, list[Past]] = {}
        for one in past.values():
            self.below.setdefault(one.started.parent_pid or 0, []).append(one)
        self.moved: dict[int, Moved | None] = {}
        self.asking: dict[int, Node | None] = {}
        self.calls: set[int] = set()
        self.code: dict[int, int] = {}

    def start(self, wanted: set[int]) -> None:
        """Make these processes, as they were when the log ended."""
        messages = {event.seq: message for event, message in said(self.events)}
        for event, nodes in steps(self.events):
            if isinstance(event, Appended):
                self._bring(event, messages[event.seq])
            if isinstance(event, Started) and event.pid in wanted:
                self._start(self.past[event.pid])
            elif isinstance(event, Replied | AttemptFailed):
                self._bring_reply(event)
            elif isinstance(event, FdOpened):
                self._open_fd(event)
            elif isinstance(event, CodeRan):
                self._bring_cell(event)
            process = self.made.get(event.pid)
            if process is not None:
                self._go_on(process, event, nodes)
        for pid, process in self.made.items():
            process.usage, process.children = self._usage(pid), self._children(pid)
            process.steps = process.usage.requests
            self._number_children(self.past[pid], process)

    def _bring(self, event: Appended, message: Message) -> None:
        """Put a node into the machine's tree; whose it is is written where its process goes on to it."""
        parent = self.node(event.parent) if event.parent is not None else None
        node, new = self.machine.dialog.append(message, parent)
        process, number = self.made.get(event.pid), event.number if event.aside else None
        if process is not None and number is not None:  # a message of a branch that a path was shortened to
            process.labels.skip_to(number)
            number = process.labels.add(node)
        if new and (event.aside or process is None):
            self.machine.log.write(
                Appended,
                pid=process.pid if process is not None else 0,
                cell=event.cell,
                node=node.id,
                parent=event.parent,
                message=node.message,
                number=number,
                aside=event.aside,
            )

    def node(self, node_id: str) -> Node:
        return self.machine.dialog.find(node_id)

    def _go_on(self, process: Process, event: AnyEvent, nodes: tuple[str, ...]) -> None:
        """What an event says of where a process stands and what it was told."""
        number = event.number if isinstance(event, Appended) else None
        for node_id in nodes:
            self._stand(process, self.node(node_id), number if node_id == nodes[-1] else None, event)
        if nodes or isinstance(event, Moved):
            self.moved[event.pid] = event if isinstance(event, Moved) else None
        if isinstance(event, Moved | Stopped):
            still = isinstance(event, Moved) and event.reason == "compacted" and self.asking.get(event.pid) is not None
            self.asking[event.pid] = self.node(event.node) if still else None  # type: ignore[union-attr]
        if isinstance(event, Moved):
            self._move(process, event)
        elif isinstance(event, Sent):
            self.waiting.setdefault(event.pid, []).append(event)
        elif isinstance(event, Killed):
            process.kill()

    def _stand(self, process: Process, node: Node, number: int | None, event: AnyEvent) -> None:
        """Let a process stand on a node it had gone on to, under the number it had."""
        began = process.first
        if calls_tools(began.message) and process.head is began and node.parent is began:
            process.first, process.by_model = node, True  # a fork that its model made begins with the answers to the reply it was made in
        process.labels.skip_to(number or 0)
        process.head, number = node, process.labels.add(node)
        parent = node.parent.id if node.parent is not None else None
        self.machine.log.write(Appended, pid=process.pid, cell=event.cell, node=node.id, parent=parent, message=node.message, number=number)
        waiting = self.waiting.get(event.pid)
        if waiting and node.message.role == "user" and says(process, node.message, self.words(waiting[0])):
            del waiting[0]
        elif event.call is not None and node.message.role == "user" and event.call not in self.calls:
            self.calls.add(event.call)
            self.asking[event.pid] = node  # the first thing said in a call that was not sent before is its question
        elif node.message.role == "assistant":
            self.asking[event.pid] = None
        mark_shown(process, node.message)

    def _move(self, process: Process, event: Moved) -> None:
        node = self.node(event.node)
        if event.reason == "goto":
            process.jump(node, self.node(event.before), call=None, cell=event.cell)
        elif event.reason == "undo":
            with suppress(PersonError):
                process.undo()
        process.move(node, event.reason, cell=event.cell)

    def words(self, sent: Sent) -> str:
        """A message as its receiver reads it."""
        sender = self.past.get(sent.sender) if sent.sender is not None else None
        return f"[message from {sender.name}] {sent.text}" if sender is not None else sent.text

    # starting

    def _start(self, past: Past) -> None:
        try:
            self.made[past.pid] = self._process(past)
        except LlmprocError as error:
            self.faults[past.pid] = str(error)

    def _process(self, past: Past) -> Process:
        """Start the program again where the process began, or fork its parent there, with a stand-in for each tool that is not there."""
        head = self.node(past.started.node)
        parent = self.made.get(past.started.parent_pid or 0)
        if past.twin and parent is not None and past.name not in self.declarations.programs:
            process = self.machine.fork(parent, head, name=past.name)
            missing, links = tuple[str, ...](), tuple[str, ...]()
        else:
            program, missing, links = self.declarations.program(past)
            linked = self.declarations.linked(program)
            fields: dict[str, Any] = {"name": past.name, "parent": parent, "head": head, "access": past.access, "linked": linked}
            process = self._started(program, origin=past.started.origin if parent is not None else "start", **fields)
        tools = self.declarations.tools(past, program_of(past, self.past))
        late = [tool for name, tool in tools.items() if name not in process.tools and name in self.declarations.specs(past)]
        if late:
            process.add_tools(late)  # type: ignore[arg-type]  # a wish by name is resolved like any other
        absent = [tool.name for tool in process.tools if is_stand_in(tool)]
        self.missing[past.pid] = tuple(dict.fromkeys((*missing, *absent))), links
        self._bring_config(past, process)
        return process

    def _started(self, program: Program, **fields: Any) -> Process:
        """A process of the program; where its servers cannot be reached any more, without them."""
        try:
            return self.machine.start(program, **fields)
        except LlmprocError:
            if not program.mcp:
                raise
            return self.machine.start(program.replace(mcp={}), **fields)

    def _bring_config(self, past: Past, process: Process) -> None:
        config = self.declarations.config(past)
        if config is not None and self.machine.declare(config.config):
            fields = {"config": config.config, "model": config.model, "tools": config.tools, "settings": config.settings}
            self.machine.log.write(Declared, pid=process.pid, **fields)

    # what it had used, opened, and not read yet

    def _bring_reply(self, event: Replied | AttemptFailed) -> None:
        """Write down a reply of the earlier run, so that usage and recorded answers are in the new log too.

        What a process that is gone had used counts for the next one above it.
        """
        if event.pid not in self.past:
            return
        owner = next((self.made[pid] for pid in (event.pid, *above(self.past[event.pid], self.past)) if pid in self.made), None)
        if owner is None:
            return
        fields = {name: getattr(event, name) for name in event.__struct_fields__ if name not in _ANEW}
        if isinstance(event, Replied):
            self.machine.log.write(Replied, pid=owner.pid, replayed=True, **fields)
            self._count(event)
        elif event.usage.requests:
            self.machine.log.write(AttemptFailed, pid=owner.pid, **fields)

    def _bring_cell(self, event: CodeRan) -> None:
        """Write down a code cell: the state of a sandbox is what ran on its path, and comes back when it is needed."""
        process = self.made.get(event.pid)
        if process is not None:
            fields = {name: getattr(event, name) for name in event.__struct_fields__ if name not in (*_ANEW, "after")}
            made = self.machine.log.write(CodeRan, pid=process.pid, replayed=True, after=self.code.get(event.after or 0), **fields)
            self.code[event.seq] = made.seq

    def _count(self, reply: Replied) -> None:
        """Let the next equal request of the same asker be the next sibling."""
        key = (reply.lineage, reply.digest)
        while self.siblings.get(key, -1) < reply.sibling:
            self.siblings[key] = self.machine.next_sibling(*key)

    def _usage(self, pid: int) -> Usage:
        """What a process and everyone below it had used."""
        usage = self.past[pid].usage
        for child in self.below.get(pid, ()):
            usage = usage + self._usage(child.pid)
        return usage

    def _children(self, pid: int) -> int:
        """How many children a process had, and they."""
        return sum(1 + self._children(child.pid) for child in self.below.get(pid, ()))

    def _number_children(self, past: Past, process: Process) -> None:
        """Let the next child without a name not get one that was used."""
        pattern = re.compile(re.escape(process.name) + r"\.(\d{1,9})")
        used = [found for child in self.below.get(past.pid, ()) if (found := pattern.fullmatch(child.name))]
        number = max((int(found[1]) for found in used), default=0)
        self.machine.skip_child_names(process, number)

    def _open_fd(self, event: FdOpened) -> None:
        """Open an fd again under its number."""
        if event.text is not None and event.digest not in self.texts:
            self.texts[event.digest] = self.machine.drivers.keep((event.text,))
        process = self.made.get(event.pid)
        if process is None or len(process.fds) >= event.number:
            return
        while len(process.fds) < event.number - 1:
            process.fds.open("", "not in the log")
        text = self.texts.get(event.digest) or self._kept(event.digest)
        key = event.label.removeprefix("reference ") if event.label.startswith("reference ") and event.source is None else ""
        process.fds.open(text, event.label, event.page_chars, reference=key, page_lines=event.page_lines)
        process.log_fds(self.node(event.source) if event.source is not None else None, event.position)

    def _kept(self, digest: str) -> LongText:
        """A text that is not in the log itself: the file beside it, or in the folder where the machine keeps such texts."""
        folders = [self.path.with_name(f"{self.path.stem}.blobs")] if self.path is not None else []
        spool = getattr(self.machine.drivers, "spool", None)
        file = next((folder / digest for folder in (*folders, *([spool] if spool else [])) if (folder / digest).is_file()), None)
        self.texts[digest] = text = self.machine.drivers.keep(_pieces(file) if file is not None else (GONE,))
        return text


def _pieces(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="replace", newline="") as opened:
        while piece := opened.read(PIECE_CHARS):
            yield piece
