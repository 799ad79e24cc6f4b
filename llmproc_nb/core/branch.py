"""Branches of a process: several children that answer at once, what came of them, and how what they found comes home.

Here: fan-out, merge and shortening, as values and functions over processes. Not here: making a child (machine), the model's own
fork (syscall).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from html import escape
from itertools import islice, takewhile
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import msgspec

from llmproc_nb.core import message as messages
from llmproc_nb.core.call import GRACE_S, WAIT_S, Call, Interrupted, until
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import CallStateError, PersonError, PromptError
from llmproc_nb.core.event import Merged, Stopped
from llmproc_nb.core.fan import Fan
from llmproc_nb.core.field import check_text
from llmproc_nb.core.message import AnyPart, Message, Opaque, Thinking, clean
from llmproc_nb.core.record import used
from llmproc_nb.core.result import RunResult
from llmproc_nb.core.usage import Usage

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process
    from llmproc_nb.core.program import Program


Prompt: TypeAlias = "str | tuple[AnyPart, ...]"
MERGED_PICTURES = 4
RunChild: TypeAlias = "Callable[[Process, Prompt, Fan], Call]"


class Branch:
    """One child of a fan-out and its call. `result` and `error` wait for nothing: both are None while it runs."""

    def __init__(self, process: Process, prompt: Prompt, call: Call) -> None:
        self.process, self.prompt, self.call = process, prompt, call

    @property
    def result(self) -> RunResult | None:
        return self.call.result() if self.call.done() and self.error is None else None

    @property
    def error(self) -> BaseException | None:
        return self.call.exception()

    @property
    def text(self) -> str:
        """The answer; of a child that failed what it had said until then."""
        return self.result.text if self.result is not None else said_since(self.process) if self.call.done() else ""

    @property
    def stop_reason(self) -> str:
        if not self.call.done():
            return "running"
        return self.result.stop_reason if self.result is not None else type(self.error).__name__

    @property
    def usage(self) -> Usage:
        return self.process.usage

    def __repr__(self) -> str:
        return f"<Branch {self.process.name} {self.stop_reason}: {self.text[:60]!r}>"


class Branches(Sequence[Branch]):
    """The children of a fan-out, in the order of their prompts. `await branches` and `branches.wait()` come back when all have ended.

    `shared` is the node they all begin with. A child that failed keeps its error in `branch.error`; none is raised, so that no answer
    that was paid for is lost.
    """

    def __init__(self, process: Process, made: Iterable[Branch], shared: Node | None = None) -> None:
        self.process, self.shared, self._made = process, shared, tuple(made)
        self.future: Future[Branches] = Future()
        """Resolves when all have ended, for those who wait for several things at once."""
        self._open = len(self._made)
        self._lock = Lock()
        for branch in self._made:
            branch.call.when_done(self._one_ended)
        if not self._made:
            self.future.set_result(self)

    def _one_ended(self, call: Call) -> None:
        with self._lock:
            self._open -= 1
            last = self._open == 0
        if last:
            self.future.set_result(self)

    @overload
    def __getitem__(self, index: int) -> Branch: ...
    @overload
    def __getitem__(self, index: slice) -> Branches: ...
    def __getitem__(self, index: int | slice) -> Branch | Branches:
        return Branches(self.process, self._made[index], self.shared) if isinstance(index, slice) else self._made[index]

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[Branch]:
        return iter(self._made)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(branch.text for branch in self)

    @property
    def processes(self) -> tuple[Process, ...]:
        return tuple(branch.process for branch in self)

    def done(self) -> bool:
        return self.future.done()

    def cancel(self) -> None:
        """Stop all that still run; what they said so far is kept."""
        for branch in self:
            if not branch.call.done():
                branch.call.cancel()

    def settle(self, grace_s: float) -> None:
        """Give stopped children time to write down what they have; raises nothing."""
        with suppress(TimeoutError):
            self.future.result(grace_s)

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """While somebody waits; see Call.waited_for."""
        with ExitStack() as waits:
            for branch in self:
                waits.enter_context(branch.call.waited_for())
            yield

    def wait(self) -> Branches:
        """Wait for all. An interrupt stops them all first."""
        try:
            with self.waited_for():
                while not self.future.done():  # short waits: on some systems a long one cannot be interrupted
                    with suppress(TimeoutError):
                        self.future.result(WAIT_S)
        except KeyboardInterrupt:
            self.cancel()
            self.settle(GRACE_S)
            raise Interrupted(self.process.name) from None
        return self

    result = wait

    async def _all(self) -> Branches:
        with self.waited_for():
            await until(self.future, self.cancel, self.process.name)  # one wake-up of this loop, not one for each child
        return self

    def __await__(self) -> Generator[Any, None, Branches]:
        return self._all().__await__()

    def __repr__(self) -> str:
        return f"<Branches {', '.join(f'{branch.process.name} {branch.stop_reason}' for branch in self)}>"


def fan_out(
    process: Process,
    node: Node,
    prompts: Iterable[Prompt],
    *,
    names: Sequence[str] | None = None,
    programs: Sequence[Program] | None = None,
    run: RunChild | None = None,
) -> Branches:
    """A child on a node for each prompt, all answering at once. Raises PromptError, and LimitReached before anything runs."""
    if isinstance(prompts, str):
        raise PromptError("fork_map got one text", right="a list of prompts is needed", step="fork_map([text]) makes one child.")
    asked = list(prompts)
    for given, what in ((names, "names"), (programs, "programs")):
        if given is not None and len(given) != len(asked):
            raise PromptError(f"{len(asked)} prompts and {len(given)} {what}", right="each prompt needs its own")
    for name in names or ():
        if name is not None:
            check_text("fork_map", "names", name, "a list of texts is needed")
    made = process.machine.fork_many(process, node, names=names or [None] * len(asked), programs=programs)
    return run_all(process, made, asked, node, run)


def run_all(
    process: Process, children: Sequence[Process], prompts: Sequence[Prompt], shared: Node, run: RunChild | None = None
) -> Branches:
    """Have each child answer its prompt, all at once, as forks that share the path to a node."""
    fans: dict[tuple[int, str], Fan] = {}
    made = []
    for child, prompt in zip(children, prompts, strict=True):
        fan = fans.setdefault((id(child.provider), child.config.id), Fan(shared))  # what differs in tools or model shares no cache
        call = run(child, prompt, fan) if run is not None else child.run(prompt, fan=fan)
        made.append(Branch(child, prompt, call))
    return Branches(process, made, shared)


def said_since(process: Process) -> str:
    """What a process said last since it began; empty where that was said before it was forked."""
    for node in process.head.up():
        if node is process.first:
            return ""
        if node.message.role == "assistant" and node.message.text:
            return node.message.text
    return ""


def merge(process: Process, child: Process, note: str | None = None) -> Node:
    """Bring a branch home as one message: what it concluded, how it was stopped, what it took, its fds under numbers of this process,
    and the newest pictures that its tools made.

    The branch itself stays as it is. Raises PersonError where there is nothing to bring.
    """
    if child is process:
        raise PersonError("a process cannot be merged into itself", place=process.name)
    if child.machine is not process.machine:
        raise PersonError(f"{child.name} lives on another machine", place=process.name, right="both need one tree")
    if child.busy:
        raise CallStateError(f"{child.name} still runs", place=process.name, right="a branch is merged when it has ended")
    conclusion = said_since(child) if child.origin == "fork" else child.get_last_message()
    if not conclusion:
        raise PersonError(f"{child.name} has not said anything yet", place=process.name, right="a branch has a conclusion to bring")
    taken = {fd.name: process.take_fd(child, fd).name for fd in child.own_fds()}
    said = process.page(messages.user(conclusion), f"conclusion of {child.name}").text
    note = process.page(messages.user(note)).text if note else note
    text = merged_text(child.name, said, taken, note, _ended_and_took(child))
    node = process.say(messages.user((messages.Text(text=clean(text)), *_pictures(child))), paged=True)
    process.machine.log.write(
        Merged,
        pid=process.pid,
        cell=process.machine.current_cell(),
        child=child.pid,
        node=node.id,
        head=child.head.id,
        fds=taken,
        usage=child.usage,
    )
    return node


def merged_text(name: str, conclusion: str, taken: dict[str, str], note: str | None = None, marks: str = "") -> str:
    """What is said of a branch that comes home; `marks` are further attributes of its tag."""
    fds = "".join(f'\n<fd here="{new}" there="{old}"/>' for old, new in taken.items())
    before = f"{note}\n" if note else ""
    return f'{before}<merged from="{escape(name)}"{marks}>\n{conclusion}{fds}\n</merged>'


def _ended_and_took(child: Process) -> str:
    """How a branch was stopped, where it did not end by itself, and what it took, as far as it is known: the same in every replay."""
    events, on_path = child.machine.log.events, {node.id for node in child.path}
    ends = (event.reason for event in reversed(events) if isinstance(event, Stopped) and event.pid == child.pid and event.node in on_path)
    reason, usage = next(ends, ""), used(events, child.pid)
    stopped = f' stopped="{escape(reason)}"' if reason not in ("", "end_turn", "stop_sequence") else ""
    tokens = f' tokens="{usage.total_tokens}"' if usage.total_tokens else ""
    cost = f"{usage.cost_usd:.4f}" if not usage.unpriced_requests else ""
    return stopped + tokens + (f' cost_usd="{cost}"' if cost.strip("0.") else "")


def _pictures(child: Process) -> list[messages.Image]:
    """The newest pictures that the tools of a branch made since it began, in their order."""
    own = takewhile(lambda node: node is not child.first, child.head.up())
    parts = (part for node in own for result in reversed(node.message.tool_results) for part in reversed(result.content))
    return list(islice((part for part in parts if isinstance(part, messages.Image)), MERGED_PICTURES))[::-1]


def shortened(process: Process, head: Node, first_k: int | None, last_n: int | None) -> Node:
    """The end of a shorter branch with the same system prompt: the first k and last n messages up to `head`, and what was left out between.

    A call and its answers stay together, so up to one message more may be kept at either end. What models thought is bound to all that
    was before it, so thinking and what only the provider understands are left out of the copies.
    """
    path = head.path()
    root = next((index for index, node in enumerate(path) if node.message.role != "system"), len(path))
    said = path[root:]
    begin, end = _whole_cut(said, max(0, first_k or 0)), len(said) - max(0, last_n or 0)
    while 0 < end < len(said) and said[end].message.role == "tool":
        end -= 1
    if end <= begin:
        return head
    gap = messages.user(f"[{end - begin} messages between here are left out of this branch]")
    node = path[root - 1] if root else None
    for message in (*(one.message for one in said[:begin]), gap, *(bare(one.message) for one in said[end:])):
        node = process.graft(message, node)
    assert node is not None
    process.machine.shorter.setdefault((process.pid, node.id), []).append(head.id)
    return node


def _whole_cut(said: Sequence[Node], count: int) -> int:
    """The count, and one more where it would part a call from its answers."""
    return count + 1 if 0 < count < len(said) and said[count].message.role == "tool" else min(count, len(said))


def bare(message: Message) -> Message:
    """The message without what only holds after exactly what was before it."""
    parts = tuple(
        msgspec.structs.replace(part, extra=None) if part.extra else part
        for part in message.parts
        if not isinstance(part, Thinking | Opaque)
    )
    return msgspec.structs.replace(message, parts=parts or (messages.Text(text="…"),), api=None)
