"""The prompt caches of the real model APIs, as they account for tokens. Pure: bodies and times in, tokens out.

Here: which prefix a request reads, what it writes, what it pays for in full. Not here: HTTP (caching). A token is four bytes of content.
Documented rules that are followed:

- Anthropic: an entry is written at each block with `cache_control`, and nowhere else. A request reads the longest entry found at one of its
  breakpoints or shortly before (20 places, the breakpoint's own included). Tools come before system, system before messages; what differs
  earlier spoils what is later, `tool_choice` and `thinking` only spoil messages. Reading makes an entry live longer.
- OpenAI before GPT-5.6: prefixes of 1,024 tokens and more, in steps of 128, without being asked; writing is free.
- OpenAI, all models: `prompt_cache_key` keeps requests apart.
- OpenAI from GPT-5.6 on: entries only at breakpoints: one that the API places at the latest message that is not the model's, and explicit
  ones; they are read exactly there, by requests that have a message end there. Writing costs.
- Everywhere: an entry can be read from the moment on when the request that writes it begins to answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec

JSON = dict[str, Any]
BYTES_A_TOKEN = 4
LOOKBACK = 20
STEP = 128
EXPLICIT_FROM = (5, 6)
MAX_MATCHED = 80
MAX_WRITTEN = 4


@dataclass(frozen=True, kw_only=True)
class Place:
    """The end of a block: the digest of everything up to there, and how long that is."""

    digest: bytes
    tokens: int
    mark: str | None = None
    """`5m` or `1h` where the request has a breakpoint here; `auto` where the API may place one."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a request reads, writes and pays for in full, in tokens. `writes` are entries to be made when it begins to answer."""

    read: int = 0
    written: int = 0
    written_1h: int = 0
    uncached: int = 0
    writes: tuple[tuple[bytes, float], ...] = field(default=(), repr=False)

    @property
    def total(self) -> int:
        return self.read + self.written + self.uncached


class Entries:
    """Digests of prefixes that can be read, with the end of their lives."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ends: dict[bytes, tuple[float, float]] = {}

    def live(self, digest: bytes) -> bool:
        found = self._ends.get(digest)
        return found is not None and found[1] > self._now()

    def write(self, writes: Iterable[tuple[bytes, float]]) -> None:
        """Make entries, or keep them for longer."""
        now = self._now()
        for digest, life_s in writes:
            self._ends[digest] = (life_s, now + life_s)

    def touch(self, digest: bytes) -> None:
        life_s, _ = self._ends[digest]
        self._ends[digest] = (life_s, self._now() + life_s)

    def clear(self) -> None:
        self._ends.clear()


class _Body(msgspec.Struct):
    """A request as far as caches are concerned; long lists stay bytes, of which most are known from requests before."""

    model: str = ""
    tools: msgspec.Raw = msgspec.Raw(b"[]")
    system: msgspec.Raw = msgspec.Raw(b"[]")
    messages: list[msgspec.Raw] = []
    input: msgspec.Raw = msgspec.Raw(b"[]")
    instructions: str = ""
    tool_choice: Any = None
    thinking: Any = None
    cache_control: Any = None
    prompt_cache_key: str = ""
    prompt_cache_options: JSON = {}


class Blocks:
    """The blocks of messages as (digest, bytes, mark), made once for equal bytes."""

    def __init__(self, split: Callable[[Any], list[tuple[str, Any, str | None]]]) -> None:
        self._split = split
        self._made: dict[bytes, list[tuple[bytes, int, str | None]]] = {}

    def of(self, raw: bytes) -> list[tuple[bytes, int, str | None]]:
        """The blocks of one message in its bytes."""
        made = self._made.get(raw)
        if made is None:
            if len(self._made) > 5_000:
                self._made.clear()
            made = self._made[raw] = [
                (_hash(kind.encode(), _plain(block)), size(block), mark) for kind, block, mark in self._split(msgspec.json.decode(raw))
            ]
        return made


def size(value: Any) -> int:
    """The bytes of all texts in a block, at any depth."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict):
        return sum(size(item) for key, item in value.items() if key not in ("type", "cache_control", "prompt_cache_breakpoint", "role"))
    if isinstance(value, list):
        return sum(map(size, value))
    return 0


def _plain(block: Any) -> bytes:
    """A block as it counts for equality: the order of its keys matters, its breakpoint does not."""
    if isinstance(block, dict):
        block = {key: value for key, value in block.items() if key not in ("cache_control", "prompt_cache_breakpoint")}
    return json.dumps(block).encode()


def _hash(*parts: bytes) -> bytes:
    made = blake2b(digest_size=16)
    for part in parts:
        made.update(part)
    return made.digest()


def _chained(before: bytes, blocks: Iterable[tuple[bytes, int, str | None]], passed: int = 0) -> list[Place]:
    places = []
    for digest, count, mark in blocks:
        before, passed = _hash(before, digest), passed + count
        places.append(Place(digest=before, tokens=passed // BYTES_A_TOKEN, mark=mark))
    return places


class AnthropicCache:
    """The cache of the Messages API. `account` when a request arrives, `entries.write(account.writes)` when it begins to answer."""

    def __init__(self, now: Callable[[], float], *, least_tokens: int = 1024, life_s: float = 300.0) -> None:
        self.entries = Entries(now)
        self._least, self._lives = least_tokens, {"5m": life_s, "1h": 12 * life_s}
        self._blocks = Blocks(_anthropic_blocks)

    def account(self, raw: bytes) -> Account:
        """What this body reads and writes now."""
        places = self.places(raw)
        marks = [at for at, place in enumerate(places) if place.mark and place.tokens >= self._least]
        window = {near for at in marks for near in range(max(0, at - LOOKBACK + 1), at + 1)}
        found = max((at for at in window if self.entries.live(places[at].digest)), default=-1)
        read = 0
        if found >= 0:
            self.entries.touch(places[found].digest)
            read = places[found].tokens
        new = [places[at] for at in marks if at > found]
        end = new[-1].tokens if new else read
        end_1h = max((place.tokens for place in new if place.mark == "1h"), default=read)
        total = places[-1].tokens if places else 0
        writes = tuple((place.digest, self._lives[place.mark or "5m"]) for place in new)
        return Account(read=read, written=end - read, written_1h=end_1h - read, uncached=total - end, writes=writes)

    def places(self, raw: bytes) -> list[Place]:
        """The ends of all blocks, in the order that counts for the cache."""
        body = msgspec.json.decode(raw, type=_Body)
        head = [(_hash(_plain(tool)), len(_plain(tool)), _mark(tool)) for tool in msgspec.json.decode(body.tools)]
        system = msgspec.json.decode(body.system)
        for block in [{"type": "text", "text": system}] if isinstance(system, str) else system:
            head.append((_hash(b"system", _plain(block)), size(block), _mark(block)))
        places = _chained(_hash(body.model.encode()), head)
        last, passed = (places[-1].digest, sum(count for _, count, _ in head)) if places else (_hash(body.model.encode()), 0)
        start = _hash(last, json.dumps([body.tool_choice, body.thinking]).encode())
        said = [block for message in body.messages for block in self._blocks.of(bytes(message))]
        if body.cache_control and said:
            said[-1] = (*said[-1][:2], body.cache_control.get("ttl", "5m"))
        return places + _chained(start, said, passed)


def _mark(block: JSON) -> str | None:
    mark = block.get("cache_control")
    return mark.get("ttl", "5m") if mark else None


def _anthropic_blocks(message: JSON) -> list[tuple[str, Any, str | None]]:
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [(message["role"], block, _mark(block)) for block in blocks]


class OpenAICache:
    """The caches of Responses and Chat Completions, by the model's generation."""

    def __init__(
        self, now: Callable[[], float], *, least_tokens: int = 1024, life_s: float = 300.0, explicit_life_s: float = 1800.0
    ) -> None:
        self.entries = Entries(now)
        self._least, self._life_s, self._explicit_life_s = least_tokens, life_s, explicit_life_s
        self._blocks = Blocks(_openai_blocks)

    def account(self, raw: bytes) -> Account:
        """What this body reads and writes now."""
        body = msgspec.json.decode(raw, type=_Body)
        places = self._places(body)
        explicit = has_breakpoints(body.model)
        return self._by_breakpoints(places, body.prompt_cache_options) if explicit else self._by_steps(places)

    def _places(self, body: _Body) -> list[Place]:
        seed = _hash(body.model.encode(), b"\0", body.prompt_cache_key.encode())
        head = [(_hash(b"instructions", body.instructions.encode()), len(body.instructions.encode()), None)] if body.instructions else []
        if (tools := bytes(body.tools)) != b"[]":
            head.insert(0, (_hash(tools), len(tools), None))
        items = body.messages
        if not items and bytes(body.input)[:1] == b"[":
            items = msgspec.json.decode(body.input, type=list[msgspec.Raw])
        elif not items:
            items = [msgspec.Raw(b'{"role":"user","content":%b}' % bytes(body.input))]
        return _chained(seed, [*head, *(block for item in items for block in self._blocks.of(bytes(item)))])

    def _by_steps(self, places: Sequence[Place]) -> Account:
        """Prefixes in steps of 128 tokens. A step within a block counts as that block's own piece."""
        total = places[-1].tokens if places else 0
        steps: list[tuple[int, bytes]] = []
        start = 0
        for place in places:
            first = -(-max(start + 1, self._least) // STEP) * STEP
            steps += [(at, _hash(place.digest, at.to_bytes(4, "big"))) for at in range(first, place.tokens + 1, STEP)]
            start = place.tokens
        read, digest = max(((at, step) for at, step in steps if self.entries.live(step)), default=(0, b""))
        if read:
            self.entries.touch(digest)
        return Account(read=read, uncached=total - read, writes=tuple((step, self._life_s) for _, step in steps))

    def _by_breakpoints(self, places: Sequence[Place], options: JSON) -> Account:
        total = places[-1].tokens if places else 0
        ends = [place for place in places if place.mark and place.tokens >= self._least]
        found = next((place for place in reversed(ends[-MAX_MATCHED:]) if self.entries.live(place.digest)), None)
        if found:
            self.entries.touch(found.digest)
        read = found.tokens if found else 0
        implicit = options.get("mode", "implicit") == "implicit"
        own = [place for place in ends if place.mark == "explicit"][-(MAX_WRITTEN - implicit) :]
        if implicit and ends:
            own.append(ends[-1])
        end = max((place.tokens for place in own), default=read)
        writes = tuple((place.digest, self._explicit_life_s) for place in own)
        return Account(read=read, written=max(0, end - read), uncached=total - max(end, read), writes=writes)


def has_breakpoints(model: str) -> bool:
    """Whether an OpenAI model caches at breakpoints: GPT-5.6 and later."""
    version = re.search(r"gpt-(\d+)(?:\.(\d+))?", model)
    return version is not None and (int(version[1]), int(version[2] or 0)) >= EXPLICIT_FROM


def _openai_blocks(item: JSON) -> list[tuple[str, Any, str | None]]:
    """The blocks of an item. The API may place a breakpoint at the end of what is not the model's own."""
    theirs = item.get("role") == "assistant" or item.get("type") in ("function_call", "reasoning")
    kind = str(item.get("role") or item.get("type"))
    said = item.get("output") if "output" in item else item.get("content")
    rest = {name: value for name, value in item.items() if name not in ("content", "output", "role", "type")}
    blocks = said if isinstance(said, list) else [{"type": "text", "text": said or ""}]
    made = [(kind, {**rest, **_plain_text(block)}, "explicit" if block.get("prompt_cache_breakpoint") else None) for block in blocks]
    if not theirs and made and made[-1][2] is None:
        made[-1] = (*made[-1][:2], "auto")
    return made


def _plain_text(block: JSON) -> JSON:
    """A block; one that is only text in one form, however it was said."""
    return {"text": block["text"]} if block.get("type") in ("text", "input_text", "output_text") else block
