"""Contents of MCP as parts of messages that every model API takes, with nothing dropped; and messages both ways.

What no API takes (sound, archives, pictures too large) stays as base64 in a text that says what it is: a part an API refuses would
make every later request of its dialog fail.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from llmproc_nb.core.message import Document, Image, Message, Text, ToolCall, ToolResult, clean, cleaned

if TYPE_CHECKING:
    import mcp_types as mcp

Parts: TypeAlias = tuple[Text | Image | Document, ...]

IMAGE_LIMIT_BYTES = 3_750_000  # 5 MB as base64, the least that the APIs take
PDF_LIMIT_BYTES = 20_000_000
COMPARED_CHARS = 1_000_000
SCHEMA_FAULT = "llmproc-nb/schema-fault"

_MAGIC = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
_TEXTS = ("application/json", "application/xml", "application/yaml", "application/javascript", "image/svg+xml")


def tool_parts(result: mcp.CallToolResult) -> Parts:
    """The parts of a tool's result. Structured content is added where the texts do not say the same."""
    parts = list(content_parts(result.content))
    structured = result.structured_content
    if structured is not None and not _is_said(structured, [part.text for part in parts if isinstance(part, Text)]):
        parts.append(Text(text=json.dumps(cleaned(structured), ensure_ascii=False)))
    fault = (result.meta or {}).get(SCHEMA_FAULT)
    if fault:
        parts.append(Text(text=f"[this result does not follow the schema that the server declares for it: {clean(str(fault))[:400]}]"))
    return tuple(parts)


def content_parts(blocks: Iterable[Any]) -> Parts:
    parts: list[Text | Image | Document] = []
    for block in blocks:
        parts += _block_parts(block)
    return tuple(parts)


def resource_parts(contents: Iterable[Any]) -> Parts:
    """What was read of a resource; a text is given as it is."""
    parts: list[Text | Image | Document] = []
    for content in contents:
        text = getattr(content, "text", None)
        parts += [Text(text=clean(text))] if text is not None else _blob(content.blob, content.mime_type, content.uri)
    return tuple(parts)


def prompt_messages(result: mcp.GetPromptResult) -> tuple[Message, ...]:
    return tuple(Message(role=said.role, parts=_block_parts(said.content)) for said in result.messages)


def sampling_messages(asked: Iterable[mcp.SamplingMessage]) -> tuple[Message, ...]:
    """The dialog a server wants continued. Its answers to tool calls come as messages of role tool."""
    made: list[Message] = []
    for said in asked:
        blocks = said.content if isinstance(said.content, list) else [said.content]
        results = tuple(_tool_result(block) for block in blocks if block.type == "tool_result")
        if results:
            made.append(Message(role="tool", parts=results))
        rest = [block for block in blocks if block.type != "tool_result"]
        parts: list[Any] = []
        for block in rest:
            parts += [_tool_call(block)] if block.type == "tool_use" else _block_parts(block)
        if parts:
            made.append(Message(role=said.role, parts=tuple(parts)))
    return tuple(made)


def _tool_call(block: mcp.ToolUseContent) -> ToolCall:
    return ToolCall(id=block.id, name=block.name, arguments=json.dumps(block.input))


def _tool_result(block: mcp.ToolResultContent) -> ToolResult:
    return ToolResult(call_id=block.tool_use_id, content=content_parts(block.content), is_error=bool(block.is_error))


def _block_parts(block: Any) -> Parts:
    if block.type == "text":
        return (Text(text=clean(block.text)),)
    if block.type in ("image", "audio"):
        return _blob(block.data, block.mime_type, "")
    if block.type == "resource_link":
        return (Text(text=_link_words(block)),)
    if block.type == "resource":
        resource = block.resource
        if getattr(resource, "text", None) is not None:
            kind = f", {resource.mime_type}" if resource.mime_type else ""
            return (Text(text=clean(f"[resource {resource.uri}{kind}]\n{resource.text}")),)
        return _blob(resource.blob, resource.mime_type, resource.uri)
    return (Text(text=json.dumps(cleaned(block.model_dump(mode="json", by_alias=True, exclude_none=True)))),)


def _link_words(link: mcp.ResourceLink) -> str:
    size = f"{link.size:,} bytes" if link.size is not None else None
    known = [text for text in (link.title or link.name, link.mime_type, size, link.description) if text]
    return clean(f"[resource link {link.uri}: {', '.join(known)}]" if known else f"[resource link {link.uri}]")


def _blob(data: str, media_type: str | None, uri: str) -> Parts:
    kind = (media_type or "").partition(";")[0].strip().lower()
    named = clean(f"{uri}, " if uri else "")
    try:
        raw = base64.b64decode(data, validate=False)
    except (binascii.Error, ValueError):
        return (Text(text=clean(f"[{named}{kind or 'data'}, not valid base64]\n{data}")),)
    seen = _image_type(raw)
    if seen and len(raw) <= IMAGE_LIMIT_BYTES:
        return (*_named(uri, kind), Image(media_type=seen, data=raw))
    if raw.startswith(b"%PDF-") and len(raw) <= PDF_LIMIT_BYTES:
        return (Document(media_type="application/pdf", data=raw, title=clean(uri.rsplit("/", 1)[-1]) or None),)
    if kind.startswith("text/") or kind in _TEXTS:
        try:
            return (Text(text=f"[{named}{kind}]\n{raw.decode()}"),)
        except UnicodeDecodeError:
            pass
    return (Text(text=f"[{named}{kind or 'data'}, {len(raw):,} bytes as base64]\n{base64.b64encode(raw).decode()}"),)


def _named(uri: str, kind: str) -> Parts:
    return (Text(text=clean(f"[resource {uri}{f', {kind}' if kind else ''}]")),) if uri else ()


def _image_type(raw: bytes) -> str | None:
    """What a picture is by its first bytes: servers err about it, and an API refuses what is not what it is called."""
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if raw.startswith(magic)), None)


def _is_said(structured: Any, texts: list[str]) -> bool:
    """Whether the texts say all of the structured content, as servers that know the older form repeat it."""
    values = [structured]
    if isinstance(structured, dict) and set(structured) == {"result"}:
        values.append(structured["result"])
    if any(value == text or value == _json(text) for value in values for text in texts):
        return True
    last = values[-1]
    if isinstance(last, list) and len(last) == len(texts):
        return all(item == text or item == _json(text) for item, text in zip(last, texts, strict=True))
    return False


def _json(text: str) -> Any:
    if len(text) > COMPARED_CHARS or text[:1] not in ("{", "[", '"', "-", "t", "f", "n", *"0123456789"):
        return _NOTHING
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOTHING


_NOTHING = object()
