"""Items of the Responses API: parts from output items, and input items from nodes.

An item that came from this API goes back as it came: what the neutral part cannot carry stays in its `extra`. Here: both directions,
one item or node at a time. Not here: streams and requests (responses).
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.message import AnyPart, Document, Image, Message, Opaque, Text, Thinking, ToolCall, ToolResult
from llmproc_nb.core.provider import Draft
from llmproc_nb.core.wire import is_prompt, plain_name, short_id
from llmproc_nb.drivers.openai.settings import data_url, with_breakpoint

API = "openai-responses"
JSON = dict[str, Any]
MAX_ID_CHARS = 64

_WORDS = ("text", "refusal")


# output items → parts of a draft


def open_item(draft: Draft, key: int, item: JSON) -> None:
    """Start the part of an output item that begins. Items only the provider understands wait until they are whole."""
    kind = item.get("type")
    if kind == "message":
        draft.open(key, "text")
    elif kind == "reasoning":
        draft.open(key, "thinking")
    elif kind in ("function_call", "custom_tool_call"):
        draft.open(key, "tool", id=_call_id(item), name=str(item.get("name") or ""))


def close_item(draft: Draft, key: int, item: JSON, *, begun: bool) -> None:
    """Set the part of an output item that is whole. `begun`: it was opened before, as an item of this type."""
    kind = item.get("type")
    if kind not in ("message", "reasoning", "function_call", "custom_tool_call"):
        draft.open(key, "opaque", body=item)
        return
    if not begun:
        open_item(draft, key, item)
    if kind == "message":
        text, content = _fold(item.get("content"))
        _set_text(draft, key, text)
        draft.update(key, extra={**_without(item, "type", "role"), "content": content})
    elif kind == "reasoning":
        text, folded = _fold_thoughts(item)
        _set_text(draft, key, text)
        sealed = item.get("encrypted_content")
        draft.update(
            key, signature=sealed if isinstance(sealed, str) else None, extra={**_without(item, "type", "encrypted_content"), **folded}
        )
    else:
        arguments = item.get("arguments") if kind == "function_call" else {"input": str(item.get("input") or "")}
        _set_text(draft, key, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))
        rest = _without(item, "call_id", "name", "arguments", "input", *(("type",) if kind == "function_call" else ()))
        draft.update(key, id=_call_id(item), name=str(item.get("name") or ""), extra=rest)


def refusal_of(item: JSON) -> str | None:
    """The words of a refusal in a message item."""
    words = [piece["refusal"] for piece in _dicts(item.get("content")) if isinstance(piece.get("refusal"), str)]
    return "".join(words) or None


def _set_text(draft: Draft, key: int, text: str) -> None:
    if draft.text(key):
        draft.replace(key, text or draft.text(key))
    else:
        draft.write(key, text)


def _fold(pieces: Any) -> tuple[str, list[JSON]]:
    """The words of content pieces, and the pieces; a single piece without its words, which the part carries."""
    kept = _dicts(pieces)
    texts = [str(piece.get("text") or piece.get("refusal") or "") for piece in kept]
    if len(kept) == 1:
        word = "refusal" if "refusal" in kept[0] else "text"
        kept = [{**_without(kept[0], word), "type": kept[0].get("type") or ("refusal" if word == "refusal" else "output_text")}]
    return "".join(texts), kept


def _unfold(pieces: list[JSON], text: str) -> list[JSON]:
    if len(pieces) != 1 or any(word in pieces[0] for word in _WORDS):
        return pieces
    return [{**pieces[0], ("refusal" if pieces[0].get("type") == "refusal" else "text"): text}]


def _fold_thoughts(item: JSON) -> tuple[str, JSON]:
    """What was thought: the summary where there is one, else the thoughts themselves, which open models show."""
    for field in ("summary", "content"):
        pieces = _dicts(item.get(field))
        if pieces:
            return "\n\n".join(str(piece.get("text") or "") for piece in pieces), {field: _fold(pieces)[1]}
    return "", {}


def _dicts(value: Any) -> list[JSON]:
    return [piece for piece in value if isinstance(piece, dict)] if isinstance(value, list) else []


def _without(item: JSON, *names: str) -> JSON:
    return {name: value for name, value in item.items() if name not in names}


def _call_id(item: JSON) -> str:
    return str(item.get("call_id") or item.get("id") or "")


# nodes → input items


def render(node: Node, *, marked: bool = False) -> bytes:
    """The input items of a node as JSON, joined by commas; `marked` puts a cache breakpoint at the end."""
    message = node.message
    if message.role == "system":
        items = [] if is_prompt(node) else [{"role": "system", "content": message.text}]
    else:
        items = _said(message) if message.role == "assistant" else _heard(node)
    if marked and items:
        items[-1] = with_breakpoint(items[-1], "input_text")
    return b",".join(map(msgspec.json.encode, items))


def _said(message: Message) -> list[JSON]:
    """The items of an assistant message. Other APIs' thoughts and opaque parts stay at home."""
    own = message.api == API
    # ids tie an item to thoughts that must come before it; where these cannot be sent, neither are the ids
    with_ids = not any(isinstance(part, Thinking) and not _travels(part) for part in message.parts)
    items: list[JSON] = []
    followed = False
    for part in reversed(message.parts):
        if isinstance(part, Thinking):
            # thoughts without the finished item that they led to are refused
            if own and followed and _travels(part):
                items.append(_thoughts_item(part))
            continue
        extra = part.extra if own else None
        followed = extra is not None or isinstance(part, Opaque)
        if extra and not with_ids:
            extra = _without(extra, "id")
        item = _said_item(part, extra, own)
        if item is not None:
            items.append(item)
    items.reverse()
    return items


def _travels(part: Thinking) -> bool:
    return bool(part.signature or (part.extra or {}).get("content"))


def _said_item(part: AnyPart, extra: JSON | None, own: bool) -> JSON | None:
    if isinstance(part, Text):
        if extra:
            return {"type": "message", "role": "assistant", **extra, "content": _unfold(extra.get("content") or [], part.text)}
        return {"role": "assistant", "content": part.text} if part.text else None
    if isinstance(part, ToolCall):
        named = {"call_id": short_id(part.id, MAX_ID_CHARS), "name": plain_name(part.name)}
        if extra and extra.get("type") == "custom_tool_call":
            return {**extra, **named, "input": _custom_input(part.arguments)}
        return {"type": "function_call", **(extra or {}), **named, "arguments": part.arguments}
    return part.body if isinstance(part, Opaque) and own else None


def _thoughts_item(part: Thinking) -> JSON:
    item: JSON = {"type": "reasoning", **(part.extra or {})}
    item["summary"] = _unfold(_dicts(item.get("summary")), part.text)
    if item.get("content"):
        item["content"] = _unfold(_dicts(item["content"]), part.text)
    if part.signature:
        item["encrypted_content"] = part.signature
    return item


def _custom_input(arguments: str) -> str:
    try:
        return str(json.loads(arguments)["input"])
    except (ValueError, KeyError, TypeError):
        return arguments


def _heard(node: Node) -> list[JSON]:
    """The items of a user or tool message: the answers to tool calls first, then the rest as one message."""
    parts = node.message.parts
    items = [_output_item(part, node) for part in parts if isinstance(part, ToolResult)]
    rest = [part for part in parts if isinstance(part, Text | Image | Document)]
    if rest:
        items.append({"role": "user", "content": _content(rest)})
    return items


def _output_item(result: ToolResult, node: Node) -> JSON:
    kind = "custom_tool_call_output" if _is_custom(result.call_id, node) else "function_call_output"
    return {"type": kind, "call_id": short_id(result.call_id, MAX_ID_CHARS), "output": _content(result.content, joint="\n")}


def _is_custom(call_id: str, node: Node) -> bool:
    """Whether the call this answers was one of a custom tool; its answer has a type of its own."""
    for above in node.up():
        if above.message.role == "assistant":
            calls = [call for call in above.message.tool_calls if call.id == call_id]
            if calls:
                return above.message.api == API and (calls[0].extra or {}).get("type") == "custom_tool_call"
    return False


def _content(parts: Any, *, joint: str = "") -> str | list[JSON]:
    """Text as a string where there is nothing else, else a list of pieces."""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return str(parts[0].text)
    if not parts or (joint and all(isinstance(part, Text) for part in parts)):
        return joint.join(part.text for part in parts)
    return [_piece(part) for part in parts]


def _piece(part: Text | Image | Document) -> JSON:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": part.url or data_url(part.media_type, part.data or b""), "detail": "auto"}
    if part.text is not None:
        return {"type": "input_text", "text": f"{part.title}\n\n{part.text}" if part.title else part.text}
    if part.url is not None:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "filename": part.title or "document.pdf", "file_data": data_url(part.media_type, part.data or b"")}
