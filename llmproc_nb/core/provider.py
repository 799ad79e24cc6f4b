"""The provider door: what a model API is asked, and what it gives back.

Here: request, reply, the draft that collects a stream, and the protocol a driver follows. Not here: retries and limits (call, limiter)
and any wire format (drivers).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from itertools import takewhile
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.field import Declared, check_values
from llmproc_nb.core.message import AnyPart, Message, Opaque, Text, Thinking, ToolCall, clean
from llmproc_nb.core.usage import Usage

Stop: TypeAlias = Literal["end_turn", "tool_use", "max_tokens", "stop_sequence", "refusal", "pause_turn", "context_window", "other"]


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as a model sees it; `parameters` is a JSON schema of type object."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "object", "properties": {}})


HIDDEN = "(hidden)"
OPEN_HEADERS = frozenset({"anthropic-beta", "anthropic-version", "openai-beta"})


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, metaclass=Declared):
    """How to ask, in words every provider understands; a driver sends what its model takes and says what it leaves out.

    `thinking` is `{"type": "enabled" | "adaptive" | "disabled", "budget_tokens": int}`; `output_schema` a JSON schema the answer must
    follow; `body` goes into the request as it is, `headers` likewise.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    effort: str | None = None
    thinking: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    tool_choice: str | None = None
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}

    def __post_init__(self) -> None:
        check_values(self)

    def public(self) -> Settings:
        """The settings as a log may have them: headers that could hold a secret only by their names."""
        shown = {name: value if name.lower() in OPEN_HEADERS else HIDDEN for name, value in self.headers.items()}
        return msgspec.structs.replace(self, headers=shown) if self.headers else self


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a request but its path. `id` is a hash of it, made once."""

    model: str
    tools: tuple[ToolSpec, ...] = ()
    settings: Settings = Settings()
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            body = msgspec.json.encode((self.model, self.tools, self.settings.public()), order="deterministic")
            msgspec.structs.force_setattr(self, "id", blake2b(body, digest_size=16).hexdigest())


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a model: the path from root to head, and how to ask it.

    `lineage` names who asks (a process's name and its forks), `sibling` how often the same one asked the same before: together with
    the digest they find the answer in a recording, whatever the order of arrival. `shared` is the last node of the path that forks of
    it send along as well: a mark there lets a provider's cache serve them all. `after` is the API's id of the reply before it: an API
    that can say why its cache did not serve a request compares them.
    """

    path: tuple[Node, ...]
    config: Config
    lineage: str = ""
    sibling: int = 0
    shared: Node | None = None
    after: str = ""

    @property
    def head(self) -> Node:
        return self.path[-1]

    @property
    def digest(self) -> str:
        return blake2b(f"{self.config.id}{self.head.id}".encode(), digest_size=16).hexdigest()

    @property
    def system(self) -> str:
        """The system prompt: the text of the system messages the path starts with."""
        first = takewhile(lambda node: node.message.role == "system", self.path)
        return "\n\n".join(node.message.text for node in first if node.message.parts)


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole answer. `raw_stop` is the provider's own word for why it ended; `detail` what it said about it (a refusal's reason).

    `cache_miss` is the API's word for why its cache did not serve the request, where it was asked and has one.
    """

    message: Message
    stop: Stop = "end_turn"
    raw_stop: str | None = None
    detail: str | None = None
    usage: Usage = Usage()
    model: str = ""
    id: str = ""
    cache_miss: str = ""


class Delta(msgspec.Struct, frozen=True):
    """A piece of a reply on its way, for the live view only. `reset`: forget the pieces so far, the request is made again."""

    kind: Literal["text", "thinking", "tool", "reset", "wait"]
    text: str = ""
    index: int = 0


DeltaReader: TypeAlias = Callable[[Delta], None]


class _Block:
    __slots__ = ("chunks", "fields", "kind")

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind, self.fields = kind, fields
        self.chunks: list[str] = []


class Draft:
    """Collects a reply while it streams in. A driver writes to it; whoever asked can take what is there at any moment.

    Keys are the provider's own block or item numbers; parts come out sorted by them. A driver sets `model`, `id`, `usage`, `stop`,
    `raw_stop`, `detail` and `cache_miss` as it learns them, `replayed` where the words come from a recording, `requests_left` where the
    API says how many requests it takes before it refuses one. `on_begin` is called when the first part opens: what was asked is in the
    provider's cache.
    """

    def __init__(self, api: str, on_delta: DeltaReader | None = None, on_begin: Callable[[], None] | None = None) -> None:
        self.api = api
        self.model = ""
        self.id = ""
        self.usage = Usage()
        self.stop: Stop | None = None
        self.raw_stop: str | None = None
        self.detail: str | None = None
        self.cache_miss = ""
        self.replayed = False
        self._blocks: dict[Any, _Block] = {}
        self.requests_left: int | None = None
        self._on_delta, self._on_begin = on_delta, on_begin

    def open(self, key: Any, kind: Literal["text", "thinking", "tool", "opaque"], **fields: Any) -> None:
        """Start a part. Fields are those of the part: `extra`, `signature`, `id`, `name`, `body` …"""
        if not self._blocks and self._on_begin:
            self._on_begin()
        self._blocks[key] = _Block(kind, fields)
        if kind == "tool" and self._on_delta:
            self._on_delta(Delta("tool", clean(fields.get("name") or ""), len(self._blocks) - 1))

    def write(self, key: Any, text: str) -> None:
        """Add to a part's text (or a tool call's arguments)."""
        block = self._blocks[key]
        block.chunks.append(text)
        if self._on_delta and text and block.kind in ("text", "thinking"):
            self._on_delta(Delta(block.kind, clean(text), 0))  # type: ignore[arg-type]

    def update(self, key: Any, **fields: Any) -> None:
        """Set fields of a part that became known later."""
        self._blocks[key].fields.update(fields)

    def fields(self, key: Any) -> dict[str, Any]:
        return self._blocks[key].fields

    def text(self, key: Any) -> str:
        """What was written to a part so far."""
        return "".join(self._blocks[key].chunks)

    def replace(self, key: Any, text: str) -> None:
        """Set a part's text to its final form, where the provider repeats it whole at the end."""
        self._blocks[key].chunks = [text]

    def restart(self) -> None:
        """Forget what came: the provider begins the reply anew."""
        self._blocks.clear()
        if self._on_delta:
            self._on_delta(Delta("reset"))

    def __contains__(self, key: object) -> bool:
        return key in self._blocks

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def message(self, *, interrupted: bool = False) -> Message:
        """What was said so far."""
        parts = tuple(_part(self._blocks[key]) for key in sorted(self._blocks))
        return Message(role="assistant", parts=parts, api=self.api, interrupted=interrupted)

    def reply(self) -> Reply:
        """The whole reply."""
        message = self.message()
        return Reply(
            message=message,
            stop=self.stop or ("tool_use" if message.tool_calls else "end_turn"),
            raw_stop=self.raw_stop,
            detail=self.detail,
            usage=msgspec.structs.replace(self.usage, requests=1),
            model=self.model,
            id=self.id,
            cache_miss=self.cache_miss,
        )


def _part(block: _Block) -> AnyPart:
    text, fields = clean("".join(block.chunks)), block.fields
    if block.kind == "text":
        return Text(text=text, **fields)
    if block.kind == "thinking":
        return Thinking(text=text, **fields)
    if block.kind == "tool":
        return ToolCall(arguments=text if text.strip() else "{}", **fields)
    return Opaque(**fields)


class Provider(Protocol):
    """Speaks one model API. Made once per machine and endpoint; asked from the owner loop, by many calls at once."""

    name: str
    """What a person sees as the source of an answer: `anthropic`, `openai`, `scripted` …"""

    api: str
    """Names the wire form: the `api` of its messages. Providers with one api take back each other's `extra` and opaque parts."""

    scripted: bool
    """True where no model answers; shown wherever a person sees the answer."""

    async def ask(self, request: Request, draft: Draft) -> Reply:
        """Ask, write what comes to the draft, give the whole reply.

        Raises a ProviderError of the right kind; does not retry. The draft keeps what came before an error.
        """
        ...

    def left_out(self, config: Config) -> tuple[str, ...]:
        """The settings this API or model does not take, which are not sent."""
        ...

    def preview(self, request: Request) -> dict[str, Any]:
        """The exact request body, for `--dry-run`. Sends nothing, needs no key."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...
