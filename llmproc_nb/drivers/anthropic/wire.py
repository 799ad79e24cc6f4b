"""A request as the body of a Messages request, in bytes. Pure: no SDK, nothing is sent.

Here: the body, its cache breakpoints, the settings, and what of them a model does not take. Not here: single messages (blocks).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.provider import Config, Request, Settings, ToolSpec
from llmproc_nb.core.wire import Fragments, grown
from llmproc_nb.drivers.anthropic.blocks import CACHE_CONTROL, message_form, text_blocks

DEFAULT_MAX_TOKENS = 8192
"""What is asked for when nobody says: enough for long answers, and taken by every model since Claude 3.5. A thinking budget is added."""

VERTEX_VERSION = "2026-10-21"
"""What the SDK writes into the body for Vertex, where the API's version is no header."""

SETTLED_NODES = 64
"""A dialog grows at its end: whole runs of so many messages before the end are kept joined, as one piece."""

RECENT_PREFIXES = 16
"""Of so many dialogs the settled part is kept."""

BREAKPOINTS = 4
FAR_BLOCKS = 18
"""The API looks back 20 blocks from a breakpoint for an older entry; beyond this one more breakpoint stands in between."""

_SAMPLING = ("temperature", "top_p", "top_k")
_VERSION = re.compile(
    r"claude-(?:[a-z]+-|v)?(\d+)(?:[-.](\d{1,2})(?!\d))?"
)  # claude-3-5-haiku-20241022, claude-opus-4@20250514, claude-2.1
_LAST_WITH_SAMPLING = (4, 6)
_encode = msgspec.json.Encoder().encode


def takes_sampling(model: str) -> bool:
    """Whether a model takes temperature, top_p and top_k: Claude up to 4.6 does, and so does what is no Claude behind a gateway."""
    if "claude" not in model:
        return True
    version = _VERSION.search(model)
    return version is not None and (int(version[1]), int(version[2] or 0)) <= _LAST_WITH_SAMPLING


def left_out(settings: Settings, model: str) -> tuple[str, ...]:
    """The names of the settings that this model does not take and that are therefore not sent."""
    if takes_sampling(model):
        return ()
    return tuple(name for name in _SAMPLING if getattr(settings, name) is not None)


class Wire:
    """Bodies of requests. What a message or a config becomes is made once; a longer dialog costs little more than a short one."""

    def __init__(self, *, prompt_caching: bool = True, vertex: bool = False) -> None:
        self._caching, self._vertex = prompt_caching, vertex
        self._plain = Fragments(lambda node: message_form(node.message))
        self._marked = Fragments(lambda node: message_form(node.message, marked=True))
        self._system = Fragments(lambda node: text_blocks(node.message))
        self._system_marked = Fragments(lambda node: text_blocks(node.message, marked=True))
        self._prefixes: dict[Node, tuple[bytes, ...]] = {}
        self._configs: dict[tuple[str, bool], bytes] = {}

    def body(self, request: Request) -> bytes:
        """The exact bytes that go out."""
        return b"".join(self.pieces(request))

    def pieces(self, request: Request) -> tuple[bytes, ...]:
        """The exact bytes that go out, in pieces; those of what is settled are the same from request to request."""
        path, settings = request.path, request.config.settings
        start = next((at for at, node in enumerate(path) if node.message.role != "system"), len(path))
        caching = self._caching and "cache_control" not in settings.body  # at the top level it means: the API places them
        system = b"" if "system" in settings.body else self._system_forms(path[:start], caching)
        pieces = [b"{", self._config_form(request.config, mark_tools=caching and not system)]
        if system:
            pieces += (b',"system":[', system, b"]")
        if "messages" not in settings.body:
            marks = self._breakpoints(path, start, BREAKPOINTS - 1 - _own_breakpoints(settings)) if caching else []
            settled, rest = self._message_forms(path, start, marks)
            pieces.append(b',"messages":[')
            return b"".join(pieces), *settled, rest + b"]}"
        pieces.append(b"}")
        return (b"".join(pieces),)

    def _system_forms(self, nodes: Sequence[Node], caching: bool) -> bytes:
        nodes = [node for node in nodes if self._system[node]]
        if not nodes or not caching:
            return self._system.join(nodes)
        return b",".join([*map(self._system.__getitem__, nodes[:-1]), self._system_marked[nodes[-1]]])

    def _message_forms(self, path: Sequence[Node], start: int, marks: Sequence[int]) -> tuple[tuple[bytes, ...], bytes]:
        """The messages that are settled, in pieces, and the last ones, with the comma before them."""
        settled_to = self._settled_to(start, min(marks, default=len(path)))
        settled = self._settled(path, start, settled_to)
        last = [(self._marked if at in marks else self._plain)[path[at]] for at in range(settled_to, len(path))]
        rest = b",".join(filter(None, last))
        return settled, b"," + rest if settled and rest else rest

    def _settled_to(self, start: int, end: int) -> int:
        return max(start, end - (end - start) % SETTLED_NODES)

    def _settled(self, path: Sequence[Node], start: int, end: int) -> tuple[bytes, ...]:
        """The plain forms of path[start:end], made from those of the request before and kept for the next one."""
        if end <= start:
            return ()
        known = end
        while known > start and path[known - 1] not in self._prefixes:
            known -= SETTLED_NODES
        if known == end:
            return self._prefixes[path[end - 1]]
        before = self._prefixes.pop(path[known - 1]) if known > start else ()
        made = grown(before, self._plain.join(path[known:end]))
        self._prefixes[path[end - 1]] = made
        if len(self._prefixes) > RECENT_PREFIXES:
            self._prefixes.pop(next(iter(self._prefixes)))
        return made

    def _breakpoints(self, path: Sequence[Node], start: int, most: int) -> list[int]:
        """Where breakpoints go, the most needed first: the end, the end of the request before, and one in between where these are far."""
        last = self._cacheable(path, len(path) - 1, start)
        reply = next((at for at in range(len(path) - 1, start - 1, -1) if path[at].message.role == "assistant"), start)
        before = self._cacheable(path, min(reply, last) - 1, start)
        found = [at for at in (last, before) if at >= start]
        if len(found) == 2 and (between := self._between(path, before, last)) > before:
            found.append(between)
        return found[: max(0, most)]

    def _between(self, path: Sequence[Node], first: int, last: int) -> int:
        """The place nearest to the middle, by blocks; `first` where the two are near enough."""
        counts = [len(node.message.parts) for node in path[first + 1 : last + 1]]
        if sum(counts) <= FAR_BLOCKS:
            return first
        passed, middle = 0, first
        for at, count in enumerate(counts, first + 1):
            middle, passed = at, passed + count
            if passed * 2 >= sum(counts):
                break
        return self._cacheable(path, min(middle, last - 1), first + 1)

    def _cacheable(self, path: Sequence[Node], at: int, start: int) -> int:
        """The nearest place at or before this one whose message may carry a breakpoint; below `start` where there is none."""
        while at >= start and self._marked[path[at]] == self._plain[path[at]]:
            at -= 1
        return at

    def _config_form(self, config: Config, *, mark_tools: bool) -> bytes:
        key = (config.id, mark_tools)
        made = self._configs.get(key)
        if made is None:
            if len(self._configs) >= 256:
                self._configs.pop(next(iter(self._configs)))
            made = self._configs[key] = _encode(self._config(config, mark_tools))[1:-1]
        return made

    def _config(self, config: Config, mark_tools: bool) -> dict[str, Any]:
        settings = config.settings
        body: dict[str, Any] = {"anthropic_version": VERTEX_VERSION} if self._vertex else {"model": config.model}
        body["max_tokens"] = _max_tokens(settings)
        body |= _chosen(settings, config.model)
        own = {name: value for name, value in settings.body.items() if name != "tools"}
        tools = [*map(_tool, config.tools), *settings.body.get("tools", ())]
        if tools:
            if mark_tools and _own_breakpoints(settings) < BREAKPOINTS:
                tools[-1] = {**tools[-1], "cache_control": CACHE_CONTROL}
            body["tools"] = tools
            if settings.tool_choice:
                body["tool_choice"] = _tool_choice(settings.tool_choice)
        if isinstance(own.get("output_config"), dict):
            own["output_config"] = {**body.get("output_config", {}), **own["output_config"]}
        return {**body, **own, "stream": True}


def _own_breakpoints(settings: Settings) -> int:
    """How many breakpoints the person put into tools of the provider's own."""
    return sum("cache_control" in tool for tool in settings.body.get("tools", ()))


def _max_tokens(settings: Settings) -> int:
    if settings.max_tokens is not None:
        return settings.max_tokens
    budget = (settings.thinking or {}).get("budget_tokens")
    return DEFAULT_MAX_TOKENS + (budget if isinstance(budget, int) else 0)


def _chosen(settings: Settings, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if takes_sampling(model):
        body |= {name: value for name in _SAMPLING if (value := getattr(settings, name)) is not None}
    if settings.stop:
        body["stop_sequences"] = list(settings.stop)
    if settings.thinking is not None:
        body["thinking"] = settings.thinking
    output: dict[str, Any] = {}
    if settings.effort is not None:
        output["effort"] = settings.effort
    if settings.output_schema is not None:
        output["format"] = {"type": "json_schema", "schema": settings.output_schema}
    if output:
        body["output_config"] = output
    return body


def _tool(spec: ToolSpec) -> dict[str, Any]:
    described = {"description": spec.description} if spec.description else {}
    return {"name": spec.name, **described, "input_schema": spec.parameters}


def _tool_choice(choice: str) -> dict[str, str]:
    """`auto`, `any` (other APIs say `required`), `none`, or the name of a tool."""
    if choice in ("auto", "any", "none"):
        return {"type": choice}
    return {"type": "any"} if choice == "required" else {"type": "tool", "name": choice}
