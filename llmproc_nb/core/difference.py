"""Two values that should be the same, and in few words where they are not. Pure text, for replay and for people."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Any

import msgspec

from llmproc_nb.core.message import AnyPart, Message, Text, Thinking, ToolCall, ToolResult
from llmproc_nb.core.provider import Config, ToolSpec

AROUND = 24
MAX_CHARS = 80


def text_difference(recorded: str, now: str) -> str:
    """The first place where two texts differ, with a little around it: `"…the old…" is now "…the new…"`."""
    start = _common(recorded, now)
    end = _common(recorded[start:][::-1], now[start:][::-1])
    return f"{_cut(recorded, start, len(recorded) - end)} is now {_cut(now, start, len(now) - end)}"


def _common(one: str, other: str) -> int:
    """How many characters at the beginning are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one.startswith(other[:middle]) else (low, middle - 1)
    return low


def _cut(text: str, start: int, end: int) -> str:
    first, last = max(0, start - AROUND), min(len(text), max(end, start) + AROUND)
    piece = text[first:last]
    if len(piece) > MAX_CHARS + 2 * AROUND:
        piece = f"{piece[: MAX_CHARS // 2 + AROUND]} … {piece[-MAX_CHARS // 2 :]}"
    return f"{'“…' if first else '“'}{piece}{'…”' if last < len(text) else '”'}"


def message_difference(recorded: Message, now: Message) -> str:
    """Where two messages differ first: role, a part's kind, its text, or a field of it."""
    if recorded.role != now.role:
        return f"the role {recorded.role} is now {now.role}"
    for number, (one, other) in enumerate(zip(recorded.parts, now.parts, strict=False), 1):
        if one != other:
            where = f"part {number} " if len(recorded.parts) > 1 or len(now.parts) > 1 else ""
            return where + _part_difference(one, other)
    if len(recorded.parts) != len(now.parts):
        return f"{_parts(recorded.parts)} are now {_parts(now.parts)}"
    return _field_difference(recorded, now)


def _parts(parts: Iterable[AnyPart]) -> str:
    return f"({', '.join(_kind(part) for part in parts) or 'no parts'})"


def _kind(part: AnyPart) -> str:
    return str(part.__struct_config__.tag).replace("_", " ")


def _part_difference(one: AnyPart, other: AnyPart) -> str:
    if type(one) is not type(other):
        return f"({_kind(one)}) is now ({_kind(other)})"
    if isinstance(one, Text | Thinking) and isinstance(other, Text | Thinking) and one.text != other.text:
        return text_difference(one.text, other.text)
    if isinstance(one, ToolCall) and isinstance(other, ToolCall) and one.arguments != other.arguments:
        return f"of the call of {one.name}: " + text_difference(one.arguments, other.arguments)
    if isinstance(one, ToolResult) and isinstance(other, ToolResult) and one.text != other.text:
        return f"of the result of {one.name}: " + text_difference(one.text, other.text)
    return _field_difference(one, other)


def _field_difference(one: Any, other: Any) -> str:
    """The first field of two values of one type that differs."""
    for name in one.__struct_fields__:
        before, after = getattr(one, name), getattr(other, name)
        if before != after:
            return f"`{name}` {_short(before)} is now {_short(after)}"
    return "nothing that can be seen"


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    text = msgspec.json.encode(value).decode() if not isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def config_difference(recorded: Config, now: Config) -> str:
    """Where two ways to ask differ: model, tools, settings."""
    found = []
    if recorded.model != now.model:
        found.append(f"the model {recorded.model!r} is now {now.model!r}")
    found += _tool_differences({tool.name: tool for tool in recorded.tools}, {tool.name: tool for tool in now.tools})
    if not found and [tool.name for tool in recorded.tools] != [tool.name for tool in now.tools]:
        found.append("the tools come in another order")
    for name in now.settings.__struct_fields__:
        before, after = getattr(recorded.settings, name), getattr(now.settings, name)
        if before != after:
            found.append(f"the setting {name} {_short(before)} is now {_short(after)}")
    return "; ".join(found) or "nothing that can be seen"


def _tool_differences(recorded: dict[str, ToolSpec], now: dict[str, ToolSpec]) -> list[str]:
    found = [f"the tool {name} is gone" for name in recorded if name not in now]
    found += [f"the tool {name} is new" for name in now if name not in recorded]
    for name in recorded.keys() & now.keys():
        one, other = recorded[name], now[name]
        if one.description != other.description:
            found.append(f"the description of the tool {name}: {text_difference(one.description, other.description)}")
        elif one != other:
            before, after = msgspec.json.encode(one.parameters).decode(), msgspec.json.encode(other.parameters).decode()
            found.append(f"the parameters of the tool {name}: {text_difference(before, after)}")
    return found


def likeness(one: Message, other: Message) -> float:
    """How alike two messages are, 0 to 1, by their role and the beginning of their text."""
    if one.role != other.role:
        return 0.0
    return 0.1 + 0.9 * SequenceMatcher(None, _words(one)[:400], _words(other)[:400], autojunk=False).quick_ratio()


def _words(message: Message) -> str:
    return message.text or "\n".join(part.text for part in message.tool_results)
