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
from llmproc_nb.core.wire import Fragments, Joined, ended, grown
from llmproc_nb.drivers.anthropic.blocks import CACHE_CONTROL, message_form, text_blocks

DEFAULT_MAX_TOKENS = 8192
"""What is asked for when nobody says: enough for long answers, and taken by every model since Claude 3.5. A thinking budget is added."""

VERTEX_VERSION = "2026-10-21"
"""What the SDK writes into the body for Vertex, where the API's version is no header."""

BETA_HEADER = "anthropic-beta"
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


def headers(settings: Settings) -> dict[str, str]:
    """The headers a person wants, with the betas of the body, where the SDK's own methods take them."""
    betas = settings.body.get("betas")
    betas = [betas] if isinstance(betas, str) else betas
    if not betas or not isinstance(betas, list):
        return settings.headers
    named = next((name for name in settings.headers if name.lower() == BETA_HEADER), BETA_HEADER)
    return {**settings.headers, named: ",".join(filter(None, (settings.headers.get(named), *map(str, betas))))}


class Wire:
    """Bodies of requests. What a message or a config becomes is made once; a longer dialog costs little more than a short one."""

    def __init__(self, *, prompt_caching: bool = True, vertex: bool = False, diagnoses: bool = False) -> None:
        self._caching, self._vertex, self._diagnoses = prompt_caching, vertex, diagnoses
        self._plain = Fragments(lambda node: message_form(node.message))
        self._marked = Fragments(lambda node: message_form(node.message, marked=True))
        self._system = Fragments(lambda node: text_blocks(node.message))
        self._system_marked = Fragments(lambda node: text_blocks(node.message, marked=True))
        self._settled = Joined(self._plain, self._marked)
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
            most = max(0, BREAKPOINTS - 1 - _own_breakpoints(settings)) if caching else 0
            pieces.append(b',"messages":[')
            return b"".join(pieces), *ended(self._messages(request, start, most), b"]" + self._asks_why(request) + b"}")
        pieces.append(b"}")
        return (b"".join(pieces),)

    def _asks_why(self, request: Request) -> bytes:
        """What asks the API to say why its cache did not serve a request that shares its beginning with others."""
        if not self._diagnoses or not request.after or "diagnostics" in request.config.settings.body:
            return b""
        return b',"diagnostics":' + _encode({"previous_message_id": request.after})

    def _system_forms(self, nodes: Sequence[Node], caching: bool) -> bytes:
        nodes = [node for node in nodes if self._system[node]]
        if not nodes or not caching:
            return b",".join(map(self._system.__getitem__, nodes))
        return b",".join([*map(self._system.__getitem__, nodes[:-1]), self._system_marked[nodes[-1]]])

    def _messages(self, request: Request, start: int, most: int) -> tuple[bytes, ...]:
        """The messages in pieces, with so many breakpoints at most; those from the first that moves with each request on are made anew."""
        path, shared = request.path, _place_of(request.shared, request.path)
        marks = self._breakpoints(path, start, shared)[:most]
        moving = min((at for at in marks if at > shared), default=len(path))
        settled = self._settled(path, start, moving, sorted(at for at in marks if at <= shared))
        last = ((self._marked if at in marks else self._plain)[path[at]] for at in range(moving, len(path)))
        return grown(settled, b",".join(filter(None, last)))

    def _breakpoints(self, path: Sequence[Node], start: int, shared: int) -> list[int]:
        """Where breakpoints go, the most needed first: the end, the end of what siblings share, the ends of the requests before these.

        Those up to `shared` depend on nothing after it, so that siblings send the same bytes; below `start` nothing is shared.
        """
        last = self._cacheable(path, len(path) - 1, start)
        before = self._before(path, last, start)
        common = self._cacheable(path, shared, start)
        found = [last, common]
        if common >= start:
            if self._is_far(path, earlier := self._before(path, common, start), common):
                found.append(earlier)
            before = max(before, common)
        found.append(before)
        if before >= start and self._is_far(path, before, last):
            found.append(self._between(path, before, last))
        return [at for at in dict.fromkeys(found) if at >= start]

    def _before(self, path: Sequence[Node], at: int, start: int) -> int:
        """The end of the request before the one that ends here: what comes before the last reply."""
        reply = next((near for near in range(at, start - 1, -1) if path[near].message.role == "assistant"), start)
        return self._cacheable(path, reply - 1, start)

    def _is_far(self, path: Sequence[Node], first: int, last: int) -> bool:
        """Whether the API, looking back from `last`, would not find an entry at `first`."""
        return sum(len(node.message.parts) for node in path[first + 1 : last + 1]) > FAR_BLOCKS

    def _between(self, path: Sequence[Node], first: int, last: int) -> int:
        """The place nearest to the middle, by blocks."""
        counts = [len(node.message.parts) for node in path[first + 1 : last + 1]]
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
        own = {name: value for name, value in settings.body.items() if name not in ("tools", "betas")}
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


def _place_of(shared: Node | None, path: Sequence[Node]) -> int:
    """Where the node stands on the path; -1 where it does not."""
    return shared.depth if shared is not None and shared.depth < len(path) and path[shared.depth] is shared else -1


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
