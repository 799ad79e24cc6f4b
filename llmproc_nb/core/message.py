"""Messages: what was said, by whom, in parts. Immutable values, the same for every provider.

Here: the parts, the message, and the cleaning of text that comes in. Not here: a message's place in the tree (dialog) and its form on
a wire (each driver).
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """One piece of a message.

    `extra` holds the fields of the provider's own form that the neutral fields do not carry (ids, citations, phases); it goes back
    verbatim to the same API and is left out for any other.
    """

    extra: dict[str, Any] | None = None


class Text(Part, frozen=True, kw_only=True, omit_defaults=True, tag="text"):
    text: str


class Thinking(Part, frozen=True, kw_only=True, omit_defaults=True, tag="thinking"):
    """What the model thought. `signature` and `redacted` go back unchanged; without one of them it stays at home."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None


class Image(Part, frozen=True, kw_only=True, omit_defaults=True, tag="image"):
    """A picture by its bytes, or by a URL that the provider fetches."""

    media_type: str = "image/png"
    data: bytes | None = None
    url: str | None = None


class Document(Part, frozen=True, kw_only=True, omit_defaults=True, tag="document"):
    """A document by its bytes (PDF), its text, or a URL that the provider fetches."""

    media_type: str = "application/pdf"
    data: bytes | None = None
    text: str | None = None
    url: str | None = None
    title: str | None = None


class ToolCall(Part, frozen=True, kw_only=True, omit_defaults=True, tag="tool_call"):
    """A model asks for a tool. `arguments` is the JSON text exactly as the model wrote it, valid or not."""

    id: str
    name: str
    arguments: str = "{}"


class ToolResult(Part, frozen=True, kw_only=True, omit_defaults=True, tag="tool_result"):
    """The answer to one tool call."""

    call_id: str
    name: str = ""
    content: tuple[Text | Image | Document, ...] = ()
    is_error: bool = False

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content if isinstance(part, Text))


class Opaque(Part, frozen=True, kw_only=True, omit_defaults=True, tag="opaque"):
    """A part only its own provider understands (server tools, compaction), kept and sent back verbatim."""

    body: dict[str, Any]


AnyPart: TypeAlias = Text | Thinking | Image | Document | ToolCall | ToolResult | Opaque


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who said what. `api` names the API whose reply this is, so that a driver knows whether `extra` and opaque parts are its own.

    `interrupted` marks a reply that was stopped before its end: what was said so far is kept.
    """

    role: Role
    parts: tuple[AnyPart, ...] = ()
    api: str | None = None
    interrupted: bool = False

    @property
    def text(self) -> str:
        """The words of the message: its text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple([part for part in self.parts if isinstance(part, ToolCall)])

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        return tuple([part for part in self.parts if isinstance(part, ToolResult)])


def calls_tools(message: Message) -> bool:
    """Whether there are tool calls in a message. It costs less than to list them: a fork asks."""
    for part in message.parts:  # noqa: SIM110 - `any` costs three times as much
        if isinstance(part, ToolCall):
            return True
    return False


def parts_of(message: Message) -> tuple[AnyPart, ...]:
    """What can be read in a message: its parts, with tool results replaced by their contents."""
    parts: list[AnyPart] = []
    for part in message.parts:
        parts.extend(part.content if isinstance(part, ToolResult) else (part,))
    return tuple(parts)


def clean(text: str) -> str:
    """The text with each lone surrogate replaced by U+FFFD: such a string can be neither sent, logged nor shown."""
    try:
        text.encode()
    except UnicodeEncodeError:
        # utf-16 joins a high and a low surrogate that arrived as two escapes; only the truly lone ones are replaced
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def cleaned(value: Any) -> Any:
    """The value with every text in it cleaned. Raises RecursionError where it is nested too deep."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key) if isinstance(key, str) else key: cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, tuple):
        return tuple(cleaned(item) for item in value)
    if isinstance(value, msgspec.Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        changed = {name: new for name, old in fields.items() if old and (new := cleaned(old)) is not old and new != old}
        return msgspec.structs.replace(value, **changed) if changed else value
    return value


def user(content: str | tuple[AnyPart, ...] | list[AnyPart]) -> Message:
    """A user message from text or parts."""
    parts = (Text(text=clean(content)),) if isinstance(content, str) else tuple(content)
    return Message(role="user", parts=parts)


def system(text: str) -> Message:
    return Message(role="system", parts=(Text(text=clean(text)),) if text else ())
