"""Events: each thing that happened, as one flat immutable value. The log is nothing but these, in order.

Events are written for any reader: the cell, the file, the frames, callbacks. Numbers carry their unit in the name.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from llmproc_nb.core.message import Message, ToolResult
from llmproc_nb.core.provider import Settings, ToolSpec
from llmproc_nb.core.sandbox import Output
from llmproc_nb.core.usage import Usage


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", gc=False):
    """`seq` counts from 1 within a log; `time_ns` is UTC, nanoseconds since 1970; `pid` 0 is the machine itself.

    Events hold no cycles, so the garbage collector need not look through the many of a long log.
    """

    seq: int
    time_ns: int
    pid: int = 0
    call: int | None = None
    cell: str | None = None


class Opened(Event, frozen=True, kw_only=True, omit_defaults=True, tag="opened"):
    """A log begins: one run of one kernel."""

    version: int = 1
    run: str = ""
    notebook: str | None = None
    software: str = ""


class Declared(Event, frozen=True, kw_only=True, omit_defaults=True, tag="declared"):
    """A way to ask, named by its hash, before the first request that uses it."""

    config: str
    model: str
    tools: tuple[ToolSpec, ...] = ()
    settings: Settings = Settings()


class Started(Event, frozen=True, kw_only=True, omit_defaults=True, tag="started"):
    """A process began, standing on `node`. `program` is its declaration, as far as data can say it; a fork of the same program has none.

    `origin`: start, fork (a second head on its parent's dialog), or spawn (another program, begun by its parent). `access`: what its
    tools may do: read, write or admin; older logs do not say.
    """

    name: str
    node: str
    lineage: str
    parent_pid: int | None = None
    provider: str = ""
    scripted: bool = False
    program: dict[str, Any] = {}
    origin: str = "start"
    access: str | None = None


class Appended(Event, frozen=True, kw_only=True, omit_defaults=True, tag="appended"):
    """A node came into the tree. A message of tool results is not written twice: `results` are the seqs of its ToolRan events.

    `number` is the number its process gives it (`msg_7`); `label`: the model sees it after the results. `aside`: the process does not
    stand on it.
    """

    node: str
    parent: str | None = None
    message: Message | None = None
    results: tuple[int, ...] = ()
    number: int | None = None
    label: bool = False
    aside: bool = False


class Called(Event, frozen=True, kw_only=True, omit_defaults=True, tag="called"):
    """A call began: the process stood on `before`, `node` is what it was told."""

    node: str
    before: str


class Asked(Event, frozen=True, kw_only=True, omit_defaults=True, tag="asked"):
    """A request went out from `node`. `digest` covers the path and the config; see Request for lineage and sibling.

    `aside`: beside the dialog, for a summary; the process does not stand there.
    """

    node: str
    config: str
    digest: str
    lineage: str
    sibling: int = 0
    attempt: int = 1
    aside: bool = False


class AttemptFailed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="attempt_failed"):
    """An attempt to get a reply failed. `retry_in_s` is the wait before the next one; None: given up.

    `partial` is what had been said until then, `usage` what that had cost.
    """

    digest: str
    attempt: int
    error: str
    text: str
    retry_in_s: float | None = None
    partial: Message | None = None
    usage: Usage = Usage()


class Replied(Event, frozen=True, kw_only=True, omit_defaults=True, tag="replied"):
    """A reply is whole and stands at `node`. `replayed`: it came from a recording. `digest` and `aside` are those of the request."""

    node: str
    digest: str
    lineage: str
    sibling: int = 0
    stop: str
    raw_stop: str | None = None
    detail: str | None = None
    model: str = ""
    id: str = ""
    cache_miss: str = ""
    usage: Usage = Usage()
    duration_s: float = 0.0
    first_s: float | None = None
    attempts: int = 1
    replayed: bool = False
    aside: bool = False


class ToolStarted(Event, frozen=True, kw_only=True, omit_defaults=True, tag="tool_started"):
    """A tool is about to run, for call number `position` of the reply at `node`. Written before it can have any effect."""

    node: str
    position: int
    call_id: str
    name: str
    arguments: str


class ToolRan(Event, frozen=True, kw_only=True, omit_defaults=True, tag="tool_ran"):
    """A tool call is answered.

    `outcome`: ran, failed, refused (it never started), timed_out, interrupted (whether it took effect is unknown). `trace` says where
    in the tool's own code it failed, for people only.
    """

    node: str
    position: int
    name: str
    result: ToolResult
    outcome: str = "ran"
    duration_s: float = 0.0
    replayed: bool = False
    trace: str | None = None


class Offered(Event, frozen=True, kw_only=True, omit_defaults=True, tag="offered"):
    """The tools that the servers of a process offer from its next call on.

    `access` is what each needs, by name; `bases` what those were called that have an alias.
    """

    lineage: str
    tools: tuple[ToolSpec, ...] = ()
    access: dict[str, Literal["read", "write", "admin"]] = {}
    bases: dict[str, str] = {}


class ServerRead(Event, frozen=True, kw_only=True, omit_defaults=True, tag="server_read"):
    """Something was read from a server while the process stood on `node`: a prompt with its `arguments`, or (None) what has a name.

    `said` is what was in it: the messages of a prompt, or the parts of a resource, or of a prompt by its name alone, in one message.
    """

    node: str
    server: str
    name: str
    arguments: dict[str, str] | None = None
    said: tuple[Message, ...] = ()
    replayed: bool = False


class FdOpened(Event, frozen=True, kw_only=True, omit_defaults=True, tag="fd_opened"):
    """A long text became fd number `number` of its process.

    `label` says where it came from; `source` and `position` the tool call whose result it was, if it was one. `text` is None where it
    lies in the log's blob folder under its digest.
    """

    number: int
    label: str
    chars: int
    lines: int
    digest: str
    page_chars: int
    page_lines: int | None = None
    text: str | None = None
    source: str | None = None
    position: int | None = None


class CodeRan(Event, frozen=True, kw_only=True, omit_defaults=True, tag="code_ran"):
    """A code cell ran in the sandbox of its process. Its `seq` names the state that the sandbox has since.

    `node`: the reply whose tool call number `position` it was; where a person ran it (no position), the node the process stood on.
    `after` is the cell whose state it went on from, None: a fresh session. `put` are variables and files (`./name`) that were set from
    outside instead, with their values as outputs of these names where they are not much; `took` is one that was taken out, with its value
    as the output. The other fields are those of Ran. Where something was taken, or the session died, the state is that of `after`.
    """

    node: str
    position: int | None = None
    code: str = ""
    after: int | None = None
    put: tuple[str, ...] = ()
    took: str = ""
    status: str = "ok"
    outputs: tuple[Output, ...] = ()
    notes: tuple[str, ...] = ()
    duration_s: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    replayed: bool = False


class Decided(Event, frozen=True, kw_only=True, omit_defaults=True, tag="decided"):
    """Whether a tool call may run, and by what: a rule, a person … `arguments` are those it was changed to, as JSON text."""

    node: str
    position: int
    name: str
    allowed: bool
    by: str = ""
    reason: str = ""
    arguments: str | None = None


class Sent(Event, frozen=True, kw_only=True, omit_defaults=True, tag="sent"):
    """A text was put before process `pid`, by process `sender` (None: by a person); it is read with its next request."""

    text: str
    sender: int | None = None


class Merged(Event, frozen=True, kw_only=True, omit_defaults=True, tag="merged"):
    """A branch came home: what process `child` found was appended as `node`, and its fds were taken over. `usage` is what it had used."""

    child: int
    node: str
    head: str
    fds: dict[str, str] = {}
    usage: Usage = Usage()


class Compacted(Event, frozen=True, kw_only=True, omit_defaults=True, tag="compacted"):
    """A path near the model's window went on as a shorter branch: from `before` to `node`, `left_out` messages told in a summary."""

    node: str
    before: str
    left_out: int
    policy: str
    tokens: int | None = None
    window: int | None = None


class Moved(Event, frozen=True, kw_only=True, omit_defaults=True, tag="moved"):
    """A head went to another node: rerun (of a cell), reset, failed (the question got no answer), goto, undo, compacted, resumed."""

    node: str
    before: str
    reason: str


class Stopped(Event, frozen=True, kw_only=True, omit_defaults=True, tag="stopped"):
    """A call ended: by itself (the model's stop reason), by a limit (max_…), interrupted, killed, or by an error."""

    reason: str
    node: str
    usage: Usage = Usage()
    duration_s: float = 0.0
    error: str | None = None


class Killed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="killed"):
    """A process ended."""


class Warned(Event, frozen=True, kw_only=True, omit_defaults=True, tag="warned"):
    """Something a person should know that stops nothing. `stderr`: the model said it, with write_stderr."""

    text: str
    stderr: bool = False


class ReaderFailed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="reader_failed"):
    """An event reader raised; the others and the call went on."""

    reader: str
    error: str


AnyEvent: TypeAlias = (
    Opened
    | Declared
    | Started
    | Appended
    | Called
    | Asked
    | AttemptFailed
    | Replied
    | ToolStarted
    | ToolRan
    | Offered
    | ServerRead
    | FdOpened
    | CodeRan
    | Decided
    | Sent
    | Merged
    | Compacted
    | Moved
    | Stopped
    | Killed
    | Warned
    | ReaderFailed
)
