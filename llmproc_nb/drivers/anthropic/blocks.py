"""One message as the content blocks of the Messages API, encoded. Pure.

Here: parts to blocks, and a message with or without a cache breakpoint on its last block. Not here: requests (wire) and replies (stream).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.message import AnyPart, Document, Image, Message, Opaque, Text, Thinking, ToolCall, ToolResult
from llmproc_nb.core.tool import EMPTY_RESULT, read_arguments
from llmproc_nb.core.wire import plain_name

API = "anthropic"
CACHE_CONTROL = {"type": "ephemeral"}

_encode = msgspec.json.Encoder().encode
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_SERVER_CALLS = ("server_tool_use", "mcp_tool_use")
_Block = dict[str, Any]


def text_blocks(message: Message, *, marked: bool = False) -> bytes:
    """The texts of a system message as blocks, joined by commas; `marked` puts a cache breakpoint on the last one."""
    blocks = [block for part in message.parts if isinstance(part, Text) and (block := _block(part, own=message.api == API))]
    return b",".join(_encode(block) for block in _with_breakpoint(blocks, marked))


def message_form(message: Message, *, marked: bool = False) -> bytes:
    """The message as the API takes it; b"" where nothing of it can be sent.

    `marked` puts a cache breakpoint on the last block that may carry one; where none may, the form is the same as without.
    """
    blocks = _with_breakpoint(_blocks(message), marked)
    if not blocks:
        return b""
    role = b"assistant" if message.role == "assistant" else b"user"
    return b'{"role":"%b","content":%b}' % (role, _encode(blocks))


def _blocks(message: Message) -> list[_Block]:
    parts: Iterable[AnyPart] = message.parts
    if message.tool_results:  # the API wants the results before anything else that the person says
        parts = sorted(parts, key=lambda part: not isinstance(part, ToolResult))
    own = message.api == API
    blocks = [block for part in parts if (block := _block(part, own=own))]
    if message.interrupted:
        blocks = _without_open_server_calls(blocks)
    while message.role == "assistant" and blocks and blocks[-1].get("type") in ("thinking", "redacted_thinking"):
        blocks.pop()  # the API refuses a message that ends in a thought
    return blocks


def _without_open_server_calls(blocks: list[_Block]) -> list[_Block]:
    """A server's own tool that was interrupted has no answer and will never have one: the API refuses such a call."""
    answered = [block.get("tool_use_id") for block in blocks]
    return [block for block in blocks if block.get("type") not in _SERVER_CALLS or block.get("id") in answered]


def _with_breakpoint(blocks: list[_Block], marked: bool) -> list[_Block]:
    if marked:
        for at in reversed(range(len(blocks))):
            if blocks[at].get("type") in ("text", "image", "document", "tool_use", "tool_result"):
                return [*blocks[:at], {**blocks[at], "cache_control": CACHE_CONTROL}, *blocks[at + 1 :]]
    return blocks


def _block(part: AnyPart, *, own: bool) -> _Block | None:
    """The block of a part, or None where there is nothing to send. `own`: the part came from this API."""
    if isinstance(part, Opaque):
        return part.body if own else None
    block = _plain_block(part, own)
    return {**block, **part.extra} if block and own and part.extra else block


def _plain_block(part: AnyPart, own: bool) -> _Block | None:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text} if part.text.strip() else None  # the API refuses texts without a word
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": _id(part.id), "name": plain_name(part.name), "input": _input(part.arguments)}
    if isinstance(part, ToolResult):
        return _result(part, own)
    if isinstance(part, Thinking):
        return _thinking(part) if own else None
    if isinstance(part, Image):
        return {"type": "image", "source": _source(part)}
    if isinstance(part, Document):
        titled = {"title": part.title} if part.title else {}
        return {"type": "document", "source": _source(part), **titled}
    return None


def _thinking(part: Thinking) -> _Block | None:
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if part.signature:
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    return None


def _result(part: ToolResult, own: bool) -> _Block:
    content = [form for piece in part.content if (form := _block(piece, own=own))]
    block: _Block = {"type": "tool_result", "tool_use_id": _id(part.call_id)}
    if part.is_error:
        content = content or [{"type": "text", "text": EMPTY_RESULT}]  # the API refuses an error that says nothing
        block["is_error"] = True
    if content:
        block["content"] = content
    return block


def _source(part: Image | Document) -> _Block:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    if isinstance(part, Document) and part.text is not None:
        return {"type": "text", "media_type": "text/plain", "data": part.text}
    return {"type": "base64", "media_type": part.media_type, "data": part.data or b""}  # bytes are encoded as base64


def _id(call_id: str) -> str:
    """An id as this API takes it: calls of other models have ids with dots and colons, which it refuses."""
    return _NOT_IN_IDS.sub("_", call_id) or "_"


def _input(arguments: str) -> Any:
    """The arguments as the API wants them, an object: the model's own text where it is one, byte by byte."""
    try:
        if isinstance(msgspec.json.decode(arguments), dict):
            return msgspec.Raw(arguments.encode())
    except (ValueError, RecursionError):
        pass  # lone surrogates and numbers beyond any float, among others: the patient reader decides
    try:
        return read_arguments(arguments)
    except ToolError:
        return {"INVALID_JSON": arguments}
