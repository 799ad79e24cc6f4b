"""Nodes as messages of Chat Completions, as JSON bytes. Not here: chunks that come back (chunks) and requests (chat)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.message import Document, Image, Message, Opaque, Text, Thinking, ToolCall, ToolResult
from llmproc_nb.core.wire import is_prompt, plain_name, short_id
from llmproc_nb.drivers.openai.settings import data_url, with_breakpoint

API = "openai-chat"
JSON = dict[str, Any]


class Rendering:
    """How nodes become messages at one endpoint.

    `thoughts` names the field in which the endpoint wants its thoughts back, if it does; `extras` says whether it wants the fields of
    its own that it gave with a tool call (signatures), `max_id_chars` how long the id of a call may be.
    """

    def __init__(self, *, thoughts: str | None = None, extras: bool = False, max_id_chars: int | None = None) -> None:
        self._thoughts, self._extras, self._max_id_chars = thoughts, extras, max_id_chars

    def __call__(self, node: Node, *, marked: bool = False) -> bytes:
        """The messages of a node, joined by commas; `marked` puts a cache breakpoint at the end."""
        message = node.message
        if message.role == "system":
            made: list[JSON] = [] if is_prompt(node) else [{"role": "system", "content": message.text}]
        else:
            made = self._said(message) if message.role == "assistant" else self._heard(message)
        if marked and made:
            made[-1] = with_breakpoint(made[-1], "text")
        return b",".join(map(msgspec.json.encode, made))

    def _said(self, message: Message) -> list[JSON]:
        own = message.api == API
        said: JSON = {"role": "assistant", "content": None}
        refused = [part.text for part in message.parts if isinstance(part, Text) and own and (part.extra or {}).get("refusal")]
        text = "".join(part.text for part in message.parts if isinstance(part, Text)) if not refused else ""
        if text:
            said["content"] = text
        if refused:
            said["refusal"] = "".join(refused)
        calls = [self._call(call, own) for call in message.tool_calls]
        if calls:
            said["tool_calls"] = calls
        if not (text or refused or calls):
            return []
        if own and self._thoughts:
            said |= self._thought(message)
        for part in message.parts:
            if own and isinstance(part, Opaque):
                said |= part.body
        return [said]

    def _call(self, call: ToolCall, own: bool) -> JSON:
        extra = call.extra or {} if own and self._extras else {}
        function = {"name": plain_name(call.name), "arguments": _arguments(call)}
        return {"id": self._id(call.id), "type": "function", **extra, "function": function}

    def _id(self, call_id: str) -> str:
        return short_id(call_id, self._max_id_chars) if self._max_id_chars else call_id

    def _heard(self, message: Message) -> list[JSON]:
        """The messages of a user or tool message: an answer to each tool call, then the rest.

        Answers to tools are text here; pictures and documents in them follow in a user message.
        """
        made: list[JSON] = []
        shown: list[Text | Image | Document] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                words, pictures = _output(part)
                made.append({"role": "tool", "tool_call_id": self._id(part.call_id), "content": words})
                shown += pictures
        shown += [part for part in message.parts if isinstance(part, Text | Image | Document)]
        if shown:
            made.append({"role": "user", "content": _content(shown)})
        return made

    def _thought(self, message: Message) -> JSON:
        """The thoughts as the endpoint gave them, in the field it wants."""
        thoughts = [part for part in message.parts if isinstance(part, Thinking)]
        if self._thoughts == "reasoning_details":
            details = [detail for part in thoughts for detail in (part.extra or {}).get("reasoning_details", ())]
            return {"reasoning_details": details} if details else {}
        text = "".join(part.text for part in thoughts)
        return {self._thoughts: text} if text and self._thoughts else {}


def _arguments(call: ToolCall) -> str:
    """The arguments as the model wrote them; what is no object (it was cut off) as a part of one, which servers that read it take."""
    try:
        if isinstance(msgspec.json.decode(call.arguments), dict):
            return call.arguments
    except (ValueError, RecursionError):
        pass
    return msgspec.json.encode({"INVALID_JSON": call.arguments}).decode()


def _output(result: ToolResult) -> tuple[str, list[Text | Image | Document]]:
    words = [part.text for part in result.content if isinstance(part, Text)]
    pictures: list[Text | Image | Document] = [part for part in result.content if not isinstance(part, Text)]
    if pictures:
        words.append(f"[{len(pictures)} attached below]")
        pictures.insert(0, Text(text=f"Attached to the result of {result.name or result.call_id}:"))
    return "\n".join(words), pictures


def _content(parts: Sequence[Text | Image | Document]) -> str | list[JSON]:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_piece(part) for part in parts]


def _piece(part: Text | Image | Document) -> JSON:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": part.url or data_url(part.media_type, part.data or b"")}}
    if part.data is not None:
        return {"type": "file", "file": {"filename": part.title or "document.pdf", "file_data": data_url(part.media_type, part.data)}}
    # this API fetches no documents: the model gets the text, or at least the address
    words = part.text if part.text is not None else part.url or ""
    return {"type": "text", "text": f"{part.title}\n\n{words}" if part.title else words}
