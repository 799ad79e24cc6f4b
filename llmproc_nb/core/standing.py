"""Where a process stands in the tree: its head and path, the numbers of its messages, how the head moves; and its fds.

Here: the base of Process. Not here: calls, children and limits (process).
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

from llmproc_nb.core import message as messages
from llmproc_nb.core.address import Address, node_at, whole
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import CallStateError, PersonError
from llmproc_nb.core.event import Appended, Moved
from llmproc_nb.core.fd import PAGE_CHARS, Fd
from llmproc_nb.core.fdtable import FdTable
from llmproc_nb.core.label import Labels, labelled
from llmproc_nb.core.longtext import LongText
from llmproc_nb.core.message import Message, cleaned
from llmproc_nb.core.paging import log_fds, paged_input
from llmproc_nb.core.reading import PERSON
from llmproc_nb.core.syscall import fd_rules, read_fd
from llmproc_nb.core.tool import Toolset

if TYPE_CHECKING:
    from llmproc_nb.core.loop import Run
    from llmproc_nb.core.machine import Machine
    from llmproc_nb.core.program import Program


class Standing:
    """`head` is the node a process stands on, `first` the one it began on; its dialog is the path from the root to the head.

    `twin` is the process this one is a fork of, if it is one.
    """

    # what all begin with stands here: a thousand forks at once must stay cheap
    clipboard = ""
    """What its model copied last; a fork begins with that of its parent."""
    running: Run | None = None
    _left: tuple[Node, ...] = ()
    _ids: tuple[Node, set[str]] | None = None
    _fds: FdTable | None = None

    def __init__(
        self,
        machine: Machine,
        *,
        pid: int,
        name: str,
        program: Program,
        head: Node,
        lineage: str,
        tools: Toolset,
        twin: Standing | None,
    ) -> None:
        self.machine, self.pid, self.name, self.program, self.tools = machine, pid, name, program, tools
        self.head = self.first = head
        self.lineage = lineage
        self._path: tuple[Node, ...] = twin._path if twin is not None and twin.head is head else ()
        self.labels: Labels = twin.labels.fork() if twin is not None else _labels(head)
        if twin is not None and twin.clipboard:
            self.clipboard = twin.clipboard
        if twin is not None and twin._fds is not None:
            self._fds = twin._fds.fork()
            self._fds.numbers = machine.recorded.fd_numbers(lineage)

    @property
    def fds(self) -> FdTable:
        """The fds of this process; the table is made when it is first asked for."""
        if self._fds is None:
            with self.machine.lock:  # any thread may ask
                if self._fds is None:
                    self._fds = _fds(self.machine, self.program)
                    self._fds.numbers = self.machine.recorded.fd_numbers(self.lineage)
        return self._fds

    @property
    def path(self) -> tuple[Node, ...]:
        """The nodes of this process's dialog, root first."""
        known, head, new = self._path or (self.first,), self.head, list[Node]()  # local: any thread may ask
        node = head
        while node.depth >= len(known) and node.parent is not None:
            new.append(node)
            node = node.parent
        self._path = path = known + tuple(reversed(new)) if node is known[-1] else head.path()
        return path

    def call_ids(self, path: tuple[Node, ...]) -> Set[str]:
        """The ids of the tool calls on a path of this process; of one that has grown only what is new is looked at."""
        last, ids = self._ids or (None, set[str]())
        if last is None or last.depth >= len(path) or path[last.depth] is not last:
            last, ids = None, set()
        for node in path[last.depth + 1 if last is not None else 0 :]:
            if node.message.role == "assistant":
                ids.update(call.id for call in node.message.tool_calls)
        self._ids = path[-1], ids
        return ids

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of this process's dialog, system prompt first."""
        return tuple(node.message for node in self.path)

    def get_last_message(self) -> str:
        """The text the model said last on this process's path; empty when it has said nothing."""
        return next((node.message.text for node in self.head.up() if node.message.role == "assistant" and node.message.text), "")

    def reset_state(self) -> None:
        """Go back to where the process began. What was said stays in the tree and in the log."""
        self.move(self.first, "reset")

    def goto(self, address: Address, note: str | None = None) -> Node:
        """Stand on another place of the dialog, and say why if there is a note; gives the node. What is left stays in the tree.

        `undo` takes it back. Raises PersonError where there is no such place.
        """
        with self.machine.log.alone():
            before, node = self.head, node_at(self, address)
            self.move(node, "goto")
            if self.head is not before:
                self._left = (*self._left, before)
            return self.say(messages.user(note)) if note else node

    def undo(self) -> Node:
        """Stand again where the process stood before its last goto."""
        with self.machine.log.alone():
            if not self._left:
                raise PersonError(f"{self.name} has not gone anywhere", right="`undo` takes back a goto")
            node = self._left[-1]
            self.move(whole(self, node), "undo")
            self._left = self._left[:-1]
            return self.head

    def at(self, address: Address) -> Node:
        """The node that an address means: `msg_7`, `~2` (two turns back), `cell:4`, or the first characters of a node's id."""
        return node_at(self, address)

    def open_fd(self, text: str | LongText | Path, label: str, *, reference: str = "") -> Fd:
        """A new fd over a text, or over that of a file."""
        if isinstance(text, Path):
            text = self.machine.drivers.keep_file(text)
        fd = self.fds.open(text, label, reference=reference)
        self.log_fds()
        return fd

    def own_fds(self) -> tuple[Fd, ...]:
        """The fds that this process opened itself, not those it has as a fork."""
        return tuple(fd for fd in self.fds if fd.number > self.fds.inherited)

    def log_fds(self, node: Node | None = None, position: int | None = None) -> None:
        """Write down the fds that were opened since the last time, by a tool call if one is named."""
        log_fds(self, node, position)

    def take_fd(self, other: Standing, fd: Fd) -> Fd:
        """An fd of another process under a number of this one, by reference."""
        return self.open_fd(fd.text, f"{fd.label} ({other.name} {fd.name})")

    def append(self, message: Message, *, call: int | None = None, cell: str | None = None, results: tuple[int, ...] = ()) -> Node:
        """Add a message after the head and stand on it."""
        parent, message = self.head, cleaned(message)
        seen = self.sees_labels and message.role != "assistant"
        if seen:
            message = labelled(message, self.labels.next)
        node, new = self.machine.dialog.append(message, parent)
        self.head = node  # before the event: if the log cannot take it now, it keeps it for later, and the path must be whole
        number = self.labels.add(node)
        if new or call is None:  # a call says itself where it stands; between calls nothing else tells who went on to a known node
            said = {"results": results, "label": seen} if results else {"message": message}
            self.machine.log.write(Appended, pid=self.pid, call=call, cell=cell, node=node.id, parent=parent.id, number=number, **said)
        return node

    def say(self, message: Message, *, paged: bool = False) -> Node:
        """Add a message between calls, without asking anybody; a long one is paged like a prompt, if it is not yet `paged`.

        Raises CallStateError while a call runs.
        """
        cell = self.machine.current_cell()
        with self.machine.log.alone():  # of several threads, and of a call that begins, each finds the head where the one before left it
            self._between_calls()
            return self.append(message if paged else self.page(message), cell=cell)

    def page(self, message: Message, label: str = PERSON) -> Message:
        """The message as its model is told it: long texts as fds, where its program pages input. `label` says what it is."""
        paged = paged_input(self, message, label)
        self.log_fds()
        return paged

    def as_sent(self, message: Message) -> Message:
        """What would become of a message of the person: paged and labelled as in a call, with nothing opened and nothing appended."""
        paged = cleaned(paged_input(self, message, dry=True))
        return labelled(paged, self.labels.next) if self.sees_labels else paged

    def graft(self, message: Message, parent: Node | None) -> Node:
        """The node of a message anywhere in the tree; the process stays where it is."""
        node, new = self.machine.dialog.append(cleaned(message), parent)
        if new:
            above = parent.id if parent is not None else None
            self.machine.log.write(Appended, pid=self.pid, node=node.id, parent=above, message=node.message, aside=True)
        return node

    @property
    def reads_fds(self) -> bool:
        """Whether its model can read on in an fd."""
        return any(tool.function is read_fd for tool in self.tools)

    @property
    def sees_labels(self) -> bool:
        """Whether messages carry their numbers, because the model may go back to them."""
        return any(tool.kind == "jump" for tool in self.tools)

    def jump(self, node: Node, before: Node, *, call: int | None, cell: str | None) -> None:
        """Follow a goto of the model itself, from within its call. `undo` takes it back."""
        self.move(node, "goto", call=call, cell=cell)
        self._left = (*self._left, before)

    def _between_calls(self) -> None:
        if self.running is not None:
            found = f"process {self.name!r} is running"
            raise CallStateError(found, right="its head is moved between calls", step="Wait for it, or stop it.")

    def move(self, node: Node, reason: str, *, call: int | None = None, cell: str | None = None) -> None:
        """Stand on another node; nothing is lost, the left branch stays in the tree."""
        with self.machine.log.alone():
            if call is None:
                self._between_calls()
            if node is self.head:
                return
            before, self.head = self.head, node
            self.machine.log.write(Moved, pid=self.pid, call=call, cell=cell, node=node.id, before=before.id, reason=reason)


def _labels(head: Node) -> Labels:
    """Numbers for a path that is there already."""
    labels = Labels()
    for node in head.path()[1:]:
        labels.add(node)
    return labels


def _fds(machine: Machine, program: Program) -> FdTable:
    rules = fd_rules(program)
    return FdTable(machine.drivers.keep, page_chars=rules.default_page_size if rules else PAGE_CHARS)
