"""Answers from a recording, in place of the world. Here: the lookup of replies and tool answers, and what to say when there is none.

Answers are found by what was asked (the digest: path, model, tools, settings) and by who asked it (lineage, and how often before), not by
order of arrival. Not here: running a whole log again (reexecute), files (logfile, jsonl).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Protocol, TypeAlias, get_args

from llmproc_nb.core.dialog import Dialog, Node
from llmproc_nb.core.difference import config_difference, likeness, message_difference
from llmproc_nb.core.errors import PersonError, ReplayMiss, meant
from llmproc_nb.core.event import (
    AnyEvent,
    Asked,
    AttemptFailed,
    Called,
    CodeRan,
    Compacted,
    Decided,
    Declared,
    FdOpened,
    Offered,
    Replied,
    ServerRead,
    Started,
    Stopped,
    ToolRan,
)
from llmproc_nb.core.longtext import LongText
from llmproc_nb.core.message import Message
from llmproc_nb.core.provider import Config, Provider, Request
from llmproc_nb.core.record import tree
from llmproc_nb.drivers.replay.provider import Replay

Answer: TypeAlias = Replied | AttemptFailed
Source: TypeAlias = tuple[str, str, tuple[tuple[str, str], ...] | None]
"""What is read from a server: its name, that of the resource or prompt, the arguments of a prompt."""
Mode: TypeAlias = Literal["replay", "auto", "record"]
MODES: tuple[str, ...] = get_args(Mode)
OF_SUBTREES = ("max_total_steps", "max_total_tokens", "max_cost")
CUT_SHORT = ("interrupted", "killed", "max_seconds")
STEP = "Restore what was recorded, or run it once in mode auto or record."


class HasEvents(Protocol):
    @property
    def events(self) -> Iterable[AnyEvent]: ...


NOT_RECORDED = "(this text was too long for the recording)"


class Recording:
    """What a log knows, as answers for a machine: give it to `Machine(..., recorded=Recording(log, mode))`.

    Modes: `replay` answers from the log only and raises ReplayMiss for anything else; `auto` asks the real provider for what is not
    there; `record` never answers. Raises PersonError for another mode, LogError when the log's nodes are not what their ids say.
    `again`: the whole run is made again, so a request that failed fails, even where the same one was asked again and then answered.
    """

    def __init__(self, log: HasEvents | Iterable[AnyEvent], mode: Mode = "replay", *, place: str = "", again: bool = False) -> None:
        if mode not in MODES:
            there = f"it is one of {', '.join(MODES)}"
            raise PersonError(f"there is no mode {mode!r}", place="Recording", right=meant(str(mode), MODES, there))
        events = tuple(log if isinstance(log, Iterable) else log.events)
        self.mode, self.again = mode, again
        self.place = place or str(getattr(getattr(log, "path", None), "name", "the recording"))
        self.dialog: Dialog = tree(events, place=self.place)
        self.misses: list[ReplayMiss] = []
        self._index(events)

    def _index(self, events: tuple[AnyEvent, ...]) -> None:
        self._exact: dict[tuple[str, str, int], Answer] = {}
        self._asker: dict[tuple[str, str], list[Answer]] = {}
        self._any: dict[str, list[Answer]] = {}
        self._failed: dict[tuple[str, str], dict[int, AttemptFailed]] = {}
        self._tools: dict[tuple[str, int], list[ToolRan]] = {}
        self._tools_given: dict[tuple[str, int, str], int] = {}
        self._decided: dict[tuple[str, int], list[Decided]] = {}
        self._decided_given: dict[tuple[str, int, str], int] = {}
        self._offered: dict[str, list[tuple[int, Offered]]] = {}
        self._code: dict[tuple[str, int | None], list[CodeRan]] = {}
        self._code_given: dict[tuple[str, str, str], int] = {}
        self._reads: dict[Source, list[tuple[str, str, ServerRead]]] = {}
        self._reads_given: dict[tuple[str, str, Source], int] = {}
        self._fds: dict[tuple[str, int, str], list[FdOpened]] = {}
        self._texts: dict[str, str] = {}
        self._numbers: dict[tuple[str, str, str], list[int]] = {}
        self._asked: dict[str, list[Asked]] = {}
        self._configs: dict[str, Config] = {}
        self._broken_off: dict[tuple[str, str], str] = {}
        self._stopped: dict[tuple[str, str], str] = {}
        self._names: dict[int, str] = {}
        self._windows: dict[str, int] = {}
        asked: dict[tuple[int, str], Asked] = {}
        last: dict[int, Asked] = {}
        unanswered: dict[int, Asked] = {}
        calls: dict[int, int] = {}
        for event in events:
            if isinstance(event, Asked):
                asked[event.pid, event.digest] = last[event.pid] = unanswered[event.pid] = event
                self._asked.setdefault(event.node, []).append(event)
            elif isinstance(event, Replied):
                unanswered.pop(event.pid, None)
                self._add(event.digest, event.lineage, event.sibling, event)
            elif isinstance(event, AttemptFailed) and event.retry_in_s is None:
                unanswered.pop(event.pid, None)
                question = asked.get((event.pid, event.digest))
                if question is not None:
                    self._add(event.digest, question.lineage, question.sibling, event)
            elif isinstance(event, ToolRan):
                self._tools.setdefault((event.node, event.position), []).append(event)
            elif isinstance(event, Decided):
                self._decided.setdefault((event.node, event.position), []).append(event)
            elif isinstance(event, Offered):
                self._offered.setdefault(event.lineage, []).append((calls.get(event.pid, 0), event))
            elif isinstance(event, ServerRead):
                if not event.replayed:
                    source = _source(event.server, event.name, event.arguments)
                    self._reads.setdefault(source, []).append((self._names.get(event.pid, ""), event.node, event))
            elif isinstance(event, Called):
                calls[event.pid] = calls.get(event.pid, 0) + 1
            elif isinstance(event, Compacted):
                if event.window is not None and event.pid in last:
                    self._windows[self._configs[last[event.pid].config].model] = event.window
            elif isinstance(event, FdOpened):
                self._add_fd(event)
            elif isinstance(event, CodeRan):
                self._code.setdefault((event.node, event.position), []).append(event)
            elif isinstance(event, Declared):
                self._configs[event.config] = Config(model=event.model, tools=event.tools, settings=event.settings, id=event.config)
            elif isinstance(event, Started):
                self._names[event.pid] = event.lineage
            elif isinstance(event, Stopped) and event.reason == "error" and (asks := unanswered.get(event.pid)) and asks.call == event.call:
                self._add_failed(asks, event)
            elif isinstance(event, Stopped) and event.reason in OF_SUBTREES:
                self._stopped[self._names.get(event.pid, ""), event.node] = event.reason
            elif isinstance(event, Stopped) and event.reason in CUT_SHORT:
                nodes = {event.node, last[event.pid].node} if event.pid in last else {event.node}  # what was asked aside is below it
                self._broken_off |= {(node, self._names.get(event.pid, "")): event.reason for node in nodes}

    def _add(self, digest: str, lineage: str, sibling: int, answer: Answer) -> None:
        self._exact[digest, lineage, sibling] = answer
        self._asker.setdefault((digest, lineage), []).append(answer)
        self._any.setdefault(digest, []).append(answer)

    def _add_failed(self, asked: Asked, stop: Stopped) -> None:
        """Keep what no attempt tells of: a fault that is not the provider's, as of a script or a setting, ended the call."""
        fault = AttemptFailed(
            seq=stop.seq,
            time_ns=stop.time_ns,
            pid=stop.pid,
            call=stop.call,
            digest=asked.digest,
            attempt=asked.attempt,
            error="ProviderError",
            text=(stop.error or "").removesuffix("."),
        )
        self._failed.setdefault((asked.digest, asked.lineage), {})[asked.sibling] = fault

    def decision(self, node_id: str, position: int, lineage: str) -> Decided | None:
        """What was decided on a tool call; where it was decided several times (after a goto, a re-run), one after the other."""
        anyone = self._decided.get((node_id, position)) if self.mode != "record" else None
        if anyone is None:
            return None
        found = [event for event in anyone if self._names.get(event.pid) == lineage] or anyone
        given = self._decided_given.get((node_id, position, lineage), 0)
        self._decided_given[node_id, position, lineage] = given + 1
        return found[min(given, len(found) - 1)]

    def offered(self, lineage: str, call: int) -> Offered | None:
        """The tools that the servers of a process offered when its call number `call` (from 0) began."""
        if self.mode == "record":
            return None
        return next((event for before, event in reversed(self._offered.get(lineage, [])) if before <= call), None)

    def read(
        self, lineage: str, node_id: str, server: str, name: str, arguments: Mapping[str, str] | None, *, dry: bool = False
    ) -> ServerRead | None:
        """What was read from a server by the process that stood there, one time after the other; None to ask the server.

        Raises ReplayMiss in mode replay for what was never read; what was read elsewhere tells more: which message differs by it.
        """
        if self.mode == "record":
            return None
        source = _source(server, name, arguments)
        anywhere = self._reads.get(source, [])
        found = [event for *place, event in anywhere if place == [lineage, node_id]]
        given = self._reads_given.get((lineage, node_id, source), 0)
        if not dry:
            self._reads_given[lineage, node_id, source] = given + 1
        if given < len(found):
            return found[given]
        if self.mode == "auto":
            return None
        if not anywhere:
            what = "resource" if arguments is None else "prompt"
            raise self.missed(f"the recording has nothing of the {what} {name!r} of server {server!r}", "there are no servers in a replay")
        return (found or [event for *_, event in anywhere])[-1]

    def _add_fd(self, event: FdOpened) -> None:
        if event.text is not None:
            self._texts[event.digest] = event.text
        self._numbers.setdefault((self._names.get(event.pid, ""), event.label, event.digest), []).append(event.number)
        if event.source is not None and event.position is not None:
            self._fds.setdefault((event.source, event.position, self._names.get(event.pid, "")), []).append(event)

    def window(self, model: str) -> int | None:
        """The window, in tokens, for which paths to a model were shortened."""
        return self._windows.get(model)

    def fd_numbers(self, lineage: str) -> Callable[[str, LongText], int | None] | None:
        """What tells the number that an fd of this process had, by its label and text; of several equal ones the next."""
        if self.mode == "record":
            return None
        given: dict[tuple[str, str], int] = {}

        def number(label: str, text: LongText) -> int | None:
            key = label, text.digest
            numbers = self._numbers.get((lineage, *key), [])
            count = given[key] = given.get(key, 0) + 1
            return numbers[count - 1] if count <= len(numbers) else None

        return number

    def fds(self, node_id: str, position: int, lineage: str) -> list[tuple[FdOpened, str]]:
        """The fds that a tool call had opened, as `lineage` had them (or whoever made the same call), with their texts."""
        found = self._fds.get((node_id, position, lineage))
        if found is None:
            found = next((fds for key, fds in self._fds.items() if key[:2] == (node_id, position)), [])
        return [(event, self._texts.get(event.digest, NOT_RECORDED)) for event in found]

    def stop(self, lineage: str, node_id: str) -> str | None:
        """Which limit of a subtree had stopped a call there."""
        return self._stopped.get((lineage, node_id))

    def cut(self, node_id: str, position: int, lineage: str) -> ToolRan | None:
        """The answer to a system call that was cut short, and is again; of several to the same one the next."""
        if self.mode != "replay" or (node_id, position) not in self._tools:
            return None
        found = self.tool(node_id, position, lineage)
        return found if found is not None and found.outcome == "interrupted" else None

    def end(self, lineage: str, node_id: str) -> str | None:
        """How a call ended that was cut short there."""
        return self._broken_off.get((node_id, lineage)) if self.mode == "replay" else None

    def code(self, lineage: str, node_id: str, code: str) -> CodeRan | None:
        """What came of a cell that a person ran at a node, of equal ones the next; None to run it. Raises ReplayMiss in mode replay."""
        found = [event for event in self._of(lineage, node_id, None) if event.code == code]
        if not found and self.mode == "replay":
            raise self.missed(f"the recording has no such code cell at node {node_id[:8]}", f"it begins with {code[:60]!r}")
        given = self._code_given[lineage, node_id, code] = self._code_given.get((lineage, node_id, code), 0) + 1
        return found[given - 1] if given <= len(found) else None

    def code_at(self, lineage: str, node_id: str, position: int) -> CodeRan | None:
        """What came of the cell of a tool call, where one ran."""
        found = self._of(lineage, node_id, position)
        return found[-1] if found else None

    def _of(self, lineage: str, node_id: str, position: int | None) -> list[CodeRan]:
        anyone = self._code.get((node_id, position), [])
        return [event for event in anyone if self._names.get(event.pid) == lineage] or anyone

    def __len__(self) -> int:
        """How many answers of a model it holds."""
        return len(self._exact)

    def __repr__(self) -> str:
        return f"<Recording {self.place} ({self.mode}): {len(self)} replies, {len(self._tools)} tool answers, {len(self.dialog)} nodes>"

    def provider(self, real: Provider) -> Provider:
        """The provider to ask in place of the real one."""
        return real if self.mode == "record" else Replay(self, real)

    def tool(self, node_id: str, position: int, lineage: str = "") -> ToolRan | None:
        """The recorded answer to a tool call, so that no tool runs twice; None to run it. Raises ReplayMiss in mode replay."""
        if self.mode == "record":
            return None
        anyone = self._tools.get((node_id, position))
        if anyone is not None:
            runs = [run for run in anyone if self._names.get(run.pid) == lineage] or anyone
            given = self._tools_given.get((node_id, position, lineage), 0)
            self._tools_given[node_id, position, lineage] = given + 1
            return runs[min(given, len(runs) - 1)]
        if self.mode == "auto":
            return None
        raise self.missed(
            f"the recording has no answer to tool call {position + 1} of node {node_id[:8]}", "its writer was stopped before that"
        )

    def find(self, request: Request) -> Answer | None:
        """The recorded answer to a request: of the same asker and time, else the last of the same asker, else the last of anyone."""
        digest, asker = request.digest, (request.digest, request.lineage)
        found = self._exact.get((*asker, request.sibling))
        failed = self._failed.get(asker, {}) if self.mode == "replay" else {}
        if found is None and self.again:
            found = failed.get(request.sibling)
        if found is None:
            known = self._asker.get(asker) or list(failed.values()) or self._any.get(digest)
            found = known[-1] if known else None
        if self.mode == "auto" and (isinstance(found, AttemptFailed) or (found is not None and found.stop == "interrupted")):
            whole = [answer for answer in self._any[digest] if isinstance(answer, Replied) and answer.stop != "interrupted"]
            return whole[-1] if whole else None
        return found

    def is_broken_off(self, request: Request) -> bool:
        """Whether the recorded call was interrupted at this point, before a word was said."""
        return self.mode == "replay" and (request.head.id, request.lineage) in self._broken_off

    def missed(self, found: str, right: str) -> ReplayMiss:
        miss = ReplayMiss(found, place=self.place, right=right, step=STEP)
        self.misses.append(miss)
        return miss

    def explain(self, request: Request) -> ReplayMiss:
        """Why there is no answer: which message, or which setting, differs from the nearest recorded request."""
        known = [node for node in request.path if node.id in self.dialog]
        if len(known) < len(request.path):
            return self._explain_message(request, len(known))
        questions = self._asked.get(request.head.id, [])
        ways = {question.config: self._configs[question.config] for question in questions if question.config in self._configs}
        if request.config.id in ways:
            return self.missed(
                "this request was made in the recording, but got no answer there", "the recording ended or failed at this point"
            )
        if ways:
            nearest = ways.get(next((q.config for q in questions if q.lineage == request.lineage), ""), next(reversed(ways.values())))
            return self.missed(f"the dialog is recorded, but was asked in another way: {config_difference(nearest, request.config)}", "")
        return self.missed(f"the dialog is recorded up to {_name(request.head)}, but nothing was asked there", "")

    def _explain_message(self, request: Request, shared: int) -> ReplayMiss:
        node = request.path[shared]
        parent = self.dialog.find(request.path[shared - 1].id) if shared else None
        others = self.dialog.children(parent)
        if not others:
            return self.missed(f"{_name(node)} is new: the recording ends before it", f"it says {_start(node.message)}")
        nearest = max(others, key=lambda other: likeness(other.message, node.message))
        return self.missed(f"{_name(node)} differs from the recorded one", message_difference(nearest.message, node.message))


def _source(server: str, name: str, arguments: Mapping[str, str] | None) -> Source:
    return server, name, None if arguments is None else tuple(sorted(arguments.items()))


def _name(node: Node) -> str:
    return "the system prompt" if node.depth == 0 else f"message {node.depth} ({node.message.role})"


def _start(message: Message) -> str:
    text = message.text or "\n".join(part.text for part in message.tool_results)
    return f"“{text[:60]}{'…' if len(text) > 60 else ''}”"
