"""What a model that only echoes says, in the forms of three APIs: the first words of what was said last, and the usage it is told.

So nobody's answer can be mistaken for another's. Not here: what the usage is (promptcache) and HTTP (caching).
"""

from __future__ import annotations

import json
from typing import Any

from promptcache import BYTES_A_TOKEN, Account, has_breakpoints
from servers import anthropic_message, openai_chat_text, openai_responses, sse, sse_data

JSON = dict[str, Any]


def answered(
    path: str, body: JSON, account: Account, *, number: int, text: str = "", content: list[JSON] | None = None
) -> tuple[bytes, int]:
    """The whole answer to a body in bytes, and its tokens. `text` or (Anthropic) `content` take the place of the echo."""
    text = text or f"You said: {last_words(body)[:60]}"
    output = 1 + len(text) // BYTES_A_TOKEN
    if path == "/v1/messages":
        return _message(body, account, number, content or [{"type": "text", "text": text}], output)
    details = {"cached_tokens": account.read}
    if has_breakpoints(body["model"]):
        details["cache_write_tokens"] = account.written
    if path == "/v1/responses":
        return _response(body, account.total, details, number, text, output)
    usage = {"prompt_tokens": account.total, "completion_tokens": output, "total_tokens": account.total + output}
    events = openai_chat_text(text, model=body["model"], usage={**usage, "prompt_tokens_details": details})
    return b"".join(sse_data(events)), output


def _message(body: JSON, account: Account, number: int, content: list[JSON], output: int) -> tuple[bytes, int]:
    stop = "tool_use" if content[-1]["type"] == "tool_use" else "end_turn"
    if body["max_tokens"] == 0:  # only warms the cache
        content, stop, output = [], "max_tokens", 0
    lives = {"ephemeral_5m_input_tokens": account.written - account.written_1h, "ephemeral_1h_input_tokens": account.written_1h}
    usage = {
        "input_tokens": account.uncached,
        "cache_creation_input_tokens": account.written,
        "cache_read_input_tokens": account.read,
        "cache_creation": lives,
        "output_tokens": output,
    }
    events = anthropic_message(content, stop=stop, usage=usage, model=body["model"])
    events[0]["message"]["id"] = f"msg_{number}"
    if body.get("stream"):
        return b"".join(sse(events)), output
    whole = {**events[0]["message"], "content": content, "stop_reason": stop, "usage": usage}
    return json.dumps(whole).encode(), output


def _response(body: JSON, total: int, details: JSON, number: int, text: str, output: int) -> tuple[bytes, int]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    items: list[JSON] = [{"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}]
    if (body.get("prompt_cache_options") or {}).get("prewarm"):
        items, output = [], 0
    counts = {"input_tokens": total, "output_tokens": output, "total_tokens": total + output}
    usage = {**counts, "input_tokens_details": details, "output_tokens_details": {"reasoning_tokens": 0}}
    events = openai_responses(items, model=body["model"], usage=usage)
    for event in events:
        if "response" in event:
            event["response"]["id"] = f"resp_{number}"
    return b"".join(sse(events)) if body.get("stream") else json.dumps(events[-1]["response"]).encode(), output


def refusal(path: str, status: int, words: str) -> bytes:
    """The body of an answer that is an error."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    error = {"type": kind, "message": words}
    return json.dumps({"type": "error", "error": error} if path == "/v1/messages" else {"error": {**error, "code": kind}}).encode()


def last_words(body: JSON) -> str:
    """What was said last in a request."""
    items = body.get("messages") or body.get("input") or ""
    content = items if isinstance(items, str) else items[-1].get("content") or items[-1].get("output") or ""
    if isinstance(content, str):
        return content
    texts = [block.get("text") or block.get("content") or "" for block in content]
    return next((text for text in reversed(texts) if isinstance(text, str) and text), "a picture")
