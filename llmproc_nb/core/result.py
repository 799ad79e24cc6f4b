"""What a call gives: the text, why it stopped, and everything that happened on the way, in numbers."""

from __future__ import annotations

from typing import Any

import msgspec

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.event import CodeRan
from llmproc_nb.core.message import ToolResult
from llmproc_nb.core.usage import Usage


class ApiCall(msgspec.Struct, frozen=True, kw_only=True):
    """One request that got its reply. Times in seconds."""

    model: str
    stop: str
    raw_stop: str | None
    id: str
    usage: Usage
    duration_s: float
    attempts: int
    node: str
    replayed: bool = False
    cache_miss: str = ""


class ToolRun(msgspec.Struct, frozen=True, kw_only=True):
    """One tool call and its answer. `arguments` as read, or the model's text where it could not be read; `error` the text of a failure.

    `trace` says where in the tool's own code it failed; the model is not told.
    """

    name: str
    arguments: dict[str, Any] | str
    result: ToolResult
    outcome: str
    duration_s: float
    position: int = 0
    replayed: bool = False
    trace: str | None = None

    @property
    def error(self) -> str | None:
        return self.result.text if self.result.is_error else None

    @property
    def tool_name(self) -> str:
        return self.name

    @property
    def tool_args(self) -> dict[str, Any] | str:
        return self.arguments


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one call. `str()` gives the final text.

    `nodes` are the nodes of this call on the path, from the user's message to the head; `left` are those that a
    goto left behind. `stop_reason` is the model's (end_turn, max_tokens,
    stop_sequence, refusal …), a limit (max_steps: those of one call; max_total_steps, max_total_tokens, max_cost,
    max_seconds), `interrupted` or `killed`. `usage` is all that was used, `below` the part of it that its children used. `code` are
    the cells that ran in its sandbox.
    """

    text: str
    stop_reason: str
    process: str
    pid: int
    call: int
    program: str
    provider: str
    model: str
    scripted: bool
    nodes: tuple[Node, ...]
    left: tuple[Node, ...] = ()
    api_calls: tuple[ApiCall, ...] = ()
    tool_calls: tuple[ToolRun, ...] = ()
    usage: Usage = Usage()
    below: Usage = Usage()
    duration_s: float = 0.0
    detail: str | None = None
    parsed: Any = None
    notes: tuple[str, ...] = ()
    code: tuple[CodeRan, ...] = ()

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        said = self.text if len(self.text) <= 60 else self.text[:59] + "…"
        return f"<RunResult {self.process} {self.stop_reason}: {said!r}>"

    @property
    def cost_usd(self) -> float | None:
        """What this call cost; None where a request has no known price."""
        return None if self.usage.unpriced_requests else self.usage.cost_usd

    @property
    def input_tokens(self) -> int:
        return self.usage.input_tokens

    @property
    def output_tokens(self) -> int:
        return self.usage.output_tokens

    @property
    def total_tokens(self) -> int:
        return self.usage.total_tokens

    # the names LLMProc's RunResult has
    @property
    def last_message(self) -> str:
        return self.text

    @property
    def api_call_count(self) -> int:
        return len(self.api_calls)

    @property
    def tool_call_count(self) -> int:
        return len(self.tool_calls)

    @property
    def usd_cost(self) -> float | None:
        return self.cost_usd

    @property
    def cached_tokens(self) -> int:
        return self.usage.cache_read_tokens

    @property
    def cache_write_tokens(self) -> int:
        return self.usage.cache_write_tokens

    @property
    def duration_ms(self) -> float:
        return self.duration_s * 1000
