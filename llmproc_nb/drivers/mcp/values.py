"""What goes in and out of this driver, as frozen values. Here: terms of a connection, what a server asks and tells. No SDK, no I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

import msgspec

from llmproc_nb.core.message import Message
from llmproc_nb.core.program import McpServer

MB = 1_000_000


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every server of one `connect` that does not say otherwise.

    `call_timeout_s` is the longest silence during a call: progress that a server tells, and the time it waits for an answer of ours,
    start it anew. `protocol` "legacy" skips the question for the newest protocol, for old servers that do not take it well.
    """

    connect_timeout_s: float = 30.0
    call_timeout_s: float = 300.0
    stop_grace_s: float = 1.0
    max_message_bytes: int = 256 * MB
    protocol: Literal["auto", "legacy"] = "auto"

    def of(self, server: McpServer) -> Terms:
        """These terms, with the times that a server's declaration gives it."""
        connect_s, call_s = server.connect_timeout_s or self.connect_timeout_s, server.timeout_s or self.call_timeout_s
        return msgspec.structs.replace(self, connect_timeout_s=connect_s, call_timeout_s=call_s)


class SamplingAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A server wants a model's reply. `caller` is the process whose tool call is under way, where that is certain."""

    server: str
    messages: tuple[Message, ...]
    system: str = ""
    max_tokens: int
    temperature: float | None = None
    stop_sequences: tuple[str, ...] = ()
    model_hints: tuple[str, ...] = ()
    caller: Any = None


class SamplingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The model's reply to a server. `stop_reason` in MCP's words: endTurn, stopSequence, maxTokens."""

    text: str
    model: str
    stop_reason: str = "endTurn"


class ElicitAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A server wants something of the person: a form (`schema`: a flat JSON schema), or a visit of `url`."""

    server: str
    message: str
    schema: dict[str, Any] | None = None
    url: str | None = None
    caller: Any = None


class ElicitAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the person said. `content` goes with "accept" of a form."""

    action: Literal["accept", "decline", "cancel"] = "decline"
    content: dict[str, Any] | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of a server are others now; names as the model sees them."""

    server: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A server tells something. `level` is one of syslog's: debug to emergency."""

    server: str
    level: str
    text: str
    logger: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a call is. `total` None: nobody knows."""

    server: str
    tool: str
    progress: float
    total: float | None = None
    text: str = ""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """Something a server can give to read. `template`: the uri has `{names}` to fill in."""

    uri: str
    name: str = ""
    description: str = ""
    media_type: str | None = None
    size_bytes: int | None = None
    template: bool = False


class PromptInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt a server offers; of `arguments` those in `required` must be given."""

    name: str
    description: str = ""
    arguments: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is now. `title` is what it calls itself; `starts` counts connections made."""

    name: str
    alive: bool
    title: str = ""
    protocol: str = ""
    instructions: str = ""
    tools: tuple[str, ...] = ()
    os_pid: int | None = None
    starts: int = 0


Sampler: TypeAlias = Callable[[SamplingAsk], Awaitable[SamplingAnswer]]
Elicitor: TypeAlias = Callable[[ElicitAsk], Awaitable[ElicitAnswer]]


class Ears(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers what servers ask, and who hears what they tell. The plain functions are called on the owner loop and must not wait."""

    sampler: Sampler | None = None
    elicitor: Elicitor | None = None
    on_change: Callable[[Change], None] | None = None
    on_log: Callable[[LogLine], None] | None = None
    on_progress: Callable[[Progress], None] | None = None
