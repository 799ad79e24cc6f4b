"""What a process does when its path nears the model's window: a warning, or a summary and a shorter branch to go on from.

What was sent is never edited: the summary is asked for aside, and whatever shortens is a new branch. Not here: how long a path is
(window), the rules (program), a provider's own compaction (drivers), forks that leave messages out (branch).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import msgspec

from llmproc_nb.core import message as messages
from llmproc_nb.core.ask import Attempts, ask, spent
from llmproc_nb.core.branch import bare
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import ContextTooLong, ProviderError
from llmproc_nb.core.event import Appended, Asked, Compacted, Event, Warned
from llmproc_nb.core.label import labelled
from llmproc_nb.core.message import Message, Opaque, Text, ToolResult, cleaned, parts_of
from llmproc_nb.core.program import Compaction
from llmproc_nb.core.provider import Config, Delta, Reply, Request
from llmproc_nb.core.window import config_tokens, last_reply, message_tokens, path_tokens

if TYPE_CHECKING:
    from llmproc_nb.core.loop import Run

E = TypeVar("E", bound=Event)

UNLIKELY_TOKENS = 4000
"""Shorter paths fill no model's window; its size, which takes a moment to look up, is not asked for."""

PROMPT = (
    "This dialog is getting too long for your window and will go on without its older messages. Write down what whoever goes on needs of "
    "them: the task and its conditions, what was found out and decided, what is done, what is open and what comes next; names, numbers, "
    "paths and fds (fd:1 …) exactly as they are. Call no tool and do not go on with the task: answer with this summary only."
)
_LABEL = re.compile(r"\[(msg_\d+)\]")
_FD = re.compile(r"\bfd:\d+\b")
_EARLIER = re.compile(
    r"\A(?:\[msg_\d+\] )?\[The first (?P<count>\d+) messages of this dialog(?: \((?P<first>msg_\d+) to msg_\d+\))? are left out here:"
    r"[^\n]*(?:\n<summary>\n(?P<summary>.*?)\n</summary>)?",
    re.DOTALL,
)


class Fill(NamedTuple):
    """How full a window is, in tokens and in words."""

    tokens: int
    window: int
    words: str


async def fitting(run: Run, reply: Callable[[], Awaitable[Reply]]) -> Reply:
    """The next reply, asked for from a path that fits the model's window as far as the program's rules see to it.

    Where the API finds it too long all the same, it is asked once more from a shorter branch, if the policy is `summarise`.
    """
    rules = run.process.program.compaction or Compaction()
    if rules.policy in ("warn", "summarise"):
        await _before(run, rules)
    try:
        made = await reply()
    except ContextTooLong:
        if rules.policy != "summarise" or not _rescued(run, rules):
            raise
        made = await reply()
    if rules.policy == "provider":
        _note_own(run)
    return made


async def _before(run: Run, rules: Compaction) -> None:
    """What the rules say, before the next request goes out."""
    if run.process.provider.scripted and rules.window is None:
        return
    tokens = path_tokens(run, run.process.head, thorough=rules.policy == "summarise")
    if rules.policy == "warn" and rules.window is None and tokens < UNLIKELY_TOKENS:
        return
    window = rules.window or run.machine.window(run.config.model, run.process)
    if window is None:
        if rules.policy == "summarise" and last_reply(run.process.head) is None:
            found = f"how much {run.config.model} can read is not known, so nothing is summarised before a request is refused"
            _warn(run, f"{found}; window = … under [compaction] says it")
    elif tokens >= rules.at * window:
        words = f"the dialog fills {tokens / window:.0%} of the window of {run.config.model} ({tokens:,} of {window:,} tokens)"
        await _act(run, rules, Fill(tokens, window, words))


async def _act(run: Run, rules: Compaction, fill: Fill) -> None:
    """The window is filled up to the mark: summarise where that helps, else say so."""
    step = 'go on from an earlier message, from a shorter fork, or with [compaction] policy = "summarise"'
    if rules.policy == "summarise":
        mark = rules.at * fill.window
        cut = _cut(run, rules, mark / 2)
        if cut is not None and cut.tokens < mark:
            await _summarise(run, rules, cut, fill)
            return
        step = "its last messages alone are so long that a summary would not help"
    if _crossed(run, rules, fill):
        _warn(run, f"{fill.words}; {step}")


def _warn(run: Run, text: str) -> None:
    run.write(Warned, text=text)
    run.notes.append(text)


def _crossed(run: Run, rules: Compaction, fill: Fill) -> bool:
    """Whether this request is the first one beyond `at`, or beyond the middle between that and the end: each is told once."""
    last = last_reply(run.process.head)
    before = path_tokens(run, last.parent, thorough=False) if last is not None and last.parent is not None else 0
    return any(before < share * fill.window <= fill.tokens for share in (rules.at, (1 + rules.at) / 2))


# what is left out


class Cut(NamedTuple):
    """Where a path is cut: its system messages, what is left out and what is kept after them; `tokens` is what remains, estimated."""

    system: tuple[Node, ...]
    left: tuple[Node, ...]
    kept: tuple[Node, ...]
    tokens: int


def _cut(run: Run, rules: Compaction, room: float) -> Cut | None:
    """How to shorten the path: the last messages are kept, fewer of them where they are longer than the room, but always all that waits
    for an answer, and calls with their answers. None where nothing can be left out.
    """
    path = run.process.head.path()
    system = tuple(takewhile(lambda node: node.message.role == "system", path))
    said = path[len(system) :]
    waiting = _waiting(said)
    if not waiting:  # the server paused in the middle of its own work
        return None
    last = len(said) - waiting
    lengths = [message_tokens(node.message) for node in said]
    start = _whole(said, min(last, max(0, len(said) - rules.keep_last)))
    fixed = sum(message_tokens(node.message) for node in system) + config_tokens(run.config)
    while start < last and fixed + sum(lengths[start:]) > room:
        start += 1
        while start < last and said[start].message.role == "tool":
            start += 1
    if not start:
        return None
    return Cut(system, said[:start], said[start:], fixed + sum(lengths[start:]))


def _waiting(said: Sequence[Node]) -> int:
    """How many messages at the end wait for an answer: what users said, and the answers of tools with their calls."""
    count = len(list(takewhile(lambda node: node.message.role != "assistant", reversed(said))))
    return count + 1 if count and said[-count].message.role == "tool" else count


def _whole(said: Sequence[Node], start: int) -> int:
    """The place itself, or an earlier one where it would part a call from its answers."""
    while start > 0 and said[start].message.role == "tool":
        start -= 1
    return start


# the summary, and the branch that goes on


async def _summarise(run: Run, rules: Compaction, cut: Cut, fill: Fill) -> None:
    """Ask for a summary aside, and go on from a branch that has it in place of what is left out; without one where none came."""
    summary, fault = await _summary(run, rules)
    told = f"its {len(cut.left)} older messages are told in a summary"
    if not summary:
        told = f"the summary failed ({fault}), so its {len(cut.left)} older messages are left out without one"
        run.write(Warned, text=f"{fill.words}; {told}")
    _go_on(run, cut, summary, tokens=fill.tokens, window=fill.window)
    run.notes.append(f"{fill.words}; {told}, it goes on from a shorter branch")


def _rescued(run: Run, rules: Compaction) -> bool:
    """Go on from a shorter branch without a summary, because the API found the path too long; whether there was one."""
    cut = _cut(run, rules, sum(message_tokens(node.message) for node in run.process.head.up()) / 2)
    if cut is None:
        return False
    _go_on(run, cut, "", tokens=None, window=None)
    told = f"its {len(cut.left)} older messages are left out without a summary, it goes on from a shorter branch"
    _warn(run, f"the dialog was too long for {run.config.model}; {told}")
    return True


async def _summary(run: Run, rules: Compaction) -> tuple[str, str]:
    """What the model says in short of the path, asked for beside it: a request that reads the cached prefix. Else empty, and the fault."""
    run.delta(Delta("wait", "the dialog nears the model's window: asking for a summary"))
    process = run.process
    question = process.graft(messages.user(rules.prompt or PROMPT), process.head)
    config, shared = _free(run), run.fan.shared if run.fan is not None else None
    request = Request(path=question.path(), config=config, lineage=process.lineage, shared=shared)
    request = msgspec.structs.replace(request, sibling=run.machine.next_sibling(process.lineage, request.digest))
    attempts = Attempts()
    try:
        reply = await ask(cast("Run", _Aside(run)), request, attempts)
    except asyncio.CancelledError:
        if attempts.draft:
            usage = spent(run, attempts.draft)
            run.spend(usage)
            reply = Reply(message=attempts.draft.message(interrupted=True), usage=usage)
            _keep(run, request, reply, attempts, "interrupted")
        raise
    except ProviderError as error:
        return "", type(error).__name__
    reply = msgspec.structs.replace(reply, usage=run.priced(reply.usage, reply.model))
    run.spend(reply.usage)
    _keep(run, request, reply, attempts, reply.stop)
    return reply.message.text.strip(), f"the model said nothing, {reply.stop}"


def _free(run: Run) -> Config:
    """The config of the call, so that the cached prefix holds; without what would force the answer into another form."""
    settings = run.config.settings
    if settings.output_schema is None and settings.tool_choice in (None, "auto", "none"):
        return run.config
    return run.process.declared(msgspec.structs.replace(settings, output_schema=None, tool_choice=None))


def _keep(run: Run, request: Request, reply: Reply, attempts: Attempts, stop: str) -> None:
    node = run.process.graft(reply.message, request.head)
    run.note_reply(node, request, reply, attempts, stop, aside=True)


class _Aside:
    """A call while it asks for a summary: all that happens is counted and written down, but it is no part of its answer."""

    def __init__(self, run: Run) -> None:
        self._run, self.fan = run, run.fan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def write(self, kind: type[E], **fields: Any) -> E:
        marks = {"aside": True} if kind is Asked else {}
        return self._run.write(kind, **fields, **marks)

    def delta(self, delta: Delta) -> None:
        if delta.kind in ("wait", "reset"):
            self._run.delta(delta)


def _go_on(run: Run, cut: Cut, summary: str, *, tokens: int | None, window: int | None) -> None:
    """Stand on a branch of the system prompt, what is told of the messages that are left out, and those that are kept."""
    process, before, copies = run.process, run.process.head, dict[Node, Node]()
    node = _placed(run, messages.user(_told(cut.left, summary)), cut.system[-1] if cut.system else None)
    for one in cut.kept:
        node = copies[one] = _placed(run, bare(_unlabelled(one.message) if process.sees_labels else one.message), node)
    run.shortened(node, copies)
    policy = "summarise" if summary else "shorten"
    run.write(Compacted, node=node.id, before=before.id, left_out=len(cut.left), policy=policy, tokens=tokens, window=window)


def _placed(run: Run, message: Message, parent: Node | None) -> Node:
    """The node of a message of the new branch, under a number of its own."""
    process = run.process
    if process.sees_labels and message.role != "assistant":
        message = labelled(message, process.labels.next)
    node, new = run.machine.dialog.append(cleaned(message), parent)
    number = process.labels.add(node)
    if new:
        above = parent.id if parent is not None else None
        run.write(Appended, node=node.id, parent=above, message=node.message, number=number, aside=True)
    return node


def _told(left: Sequence[Node], summary: str) -> str:
    """What is said in place of the messages that are left out: how many they are, what they come to, which fds they name.

    Where they begin with such a message of an earlier time, it is told as well.
    """
    words = "\n".join(part.text for node in left for part in parts_of(node.message) if isinstance(part, Text))
    labels, fds = _LABEL.findall(words), list(dict.fromkeys(_FD.findall(words)))
    count, first = len(left), labels[0] if labels else ""
    if earlier := _EARLIER.search(left[0].message.text):
        count, first, summary = count - 1 + int(earlier["count"]), earlier["first"] or first, summary or earlier["summary"] or ""
    which = f" ({first} to {labels[-1]})" if labels else ""
    told = [f"[The first {count} messages of this dialog{which} are left out here: with them it was too long for your window.]"]
    if summary:
        told.append(f"<summary>\n{summary}\n</summary>")
    if fds:
        told.append(f"[Fds that they name can still be read: {', '.join(fds)}]")
    return "\n".join(told)


def _unlabelled(message: Message) -> Message:
    """The message without the number it had on its own branch."""
    parts = message.parts
    if message.role == "user" and parts and isinstance(parts[0], Text) and (found := _LABEL.match(parts[0].text)):
        words = parts[0].text[found.end() :].removeprefix(" ")
        first = (msgspec.structs.replace(parts[0], text=words),) if words else ()
        return msgspec.structs.replace(message, parts=(*first, *parts[1:]))
    last = parts[-1] if message.role == "tool" and parts else None
    if isinstance(last, ToolResult) and last.content and isinstance(end := last.content[-1], Text) and _LABEL.fullmatch(end.text):
        return msgspec.structs.replace(message, parts=(*parts[:-1], msgspec.structs.replace(last, content=last.content[:-1])))
    return message


def _note_own(run: Run) -> None:
    """Write down that the reply came from a dialog which the provider had shortened itself."""
    head = run.process.head
    own = any(isinstance(part, Opaque) and part.body.get("type") == "compaction" for part in head.message.parts)
    if own and head.parent is not None:
        run.write(Compacted, node=head.id, before=head.parent.id, left_out=head.depth - 1, policy="provider")
