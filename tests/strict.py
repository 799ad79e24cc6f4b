"""What the real model APIs refuse, as checks of a request body: roles, calls without answers, ids used twice, empty texts, breakpoints.

Here: `check_anthropic`, `check_responses`, `check_chat`, each raising Refused. Not here: a server (caching, servers).
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

JSON = dict[str, Any]

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_THOUGHTS = ("thinking", "redacted_thinking")
MAX_BREAKPOINTS = 4


class Refused(AssertionError):
    """Why an API would answer this body with a 400."""


def need(true: Any, what: object) -> None:
    """Raises Refused where something is not so."""
    if not true:
        raise Refused(str(what)[:600])


def check_anthropic(body: JSON) -> None:
    """Raises Refused where the Messages API would refuse the body."""
    need(isinstance(body.get("model"), str) and body["model"], "model: a text is needed")
    max_tokens = body.get("max_tokens")
    need(isinstance(max_tokens, int) and max_tokens >= 0, "max_tokens: a number is needed")
    _check_tools([tool.get("name") for tool in body.get("tools", ())])
    system = body.get("system", [])
    for block in [] if isinstance(system, str) else system:
        need(block.get("type") == "text" and block["text"].strip(), f"system: {block}")
    _check_messages(body["messages"])
    _check_breakpoints(body)


def _check_messages(messages: list[JSON]) -> None:
    said: set[str] = set()
    open_calls: list[str] = []
    roles = [message["role"] for message in messages]
    need(roles and roles[0] == roles[-1] == "user", f"the first and the last message are the user's: {roles}")
    need(("assistant", "assistant") not in pairwise(roles), f"two replies in a row: {roles}")
    for message in messages:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        need(isinstance(blocks, list) and blocks, f"messages: nothing in {message}")
        kinds = [block["type"] for block in blocks]
        need(all(block["text"].strip() for block in blocks if block["type"] == "text"), f"text without a word in {message}")
        if message["role"] == "assistant":
            need(not open_calls, f"no tool_result for {open_calls}")
            open_calls = _calls_of(blocks, kinds)
            need(len(set(open_calls)) == len(open_calls) and not said & set(open_calls), f"ids of tool_use are used twice: {open_calls}")
            said |= set(open_calls)
        else:
            results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
            first = kinds[: len(results)] == ["tool_result"] * len(results)
            need(sorted(results) == sorted(open_calls) and first, f"tool_result {results} for tool_use {open_calls}, before all else")
            open_calls = []


def _calls_of(blocks: list[JSON], kinds: list[str]) -> list[str]:
    need("tool_result" not in kinds and kinds[-1] not in _THOUGHTS, f"a reply of {kinds}")
    need(all(block.get("signature") for block in blocks if block["type"] == "thinking"), "thinking without its signature")
    calls = [block for block in blocks if block["type"] == "tool_use"]
    need(all(_ID.fullmatch(call["id"]) and isinstance(call["input"], dict) for call in calls), f"tool_use: {calls}")
    return [call["id"] for call in calls]


def _check_tools(names: list[Any]) -> None:
    need(all(isinstance(name, str) and _TOOL_NAME.fullmatch(name) for name in names), f"tools: names {names}")
    need(len(set(names)) == len(names), f"tools: names are used twice: {names}")


def _check_breakpoints(body: JSON) -> None:
    blocks = list(body.get("tools", ()))
    for content in (body.get("system", ""), *(message["content"] for message in body["messages"])):
        blocks += [] if isinstance(content, str) else content
    marked = [block for block in blocks if block.get("cache_control")]
    count = len(marked) + ("cache_control" in body)
    need(count <= MAX_BREAKPOINTS, f"cache_control stands on {count} blocks, {MAX_BREAKPOINTS} are allowed")
    need(all(block.get("type") not in _THOUGHTS for block in marked), "cache_control on a thought")
    lives = [block["cache_control"].get("ttl", "5m") for block in marked]
    need(lives == sorted(lives), f"cache_control: 1h stands before 5m, not after: {lives}")  # "1h" < "5m"


def check_responses(body: JSON) -> None:
    """Raises Refused where the Responses API would refuse the input."""
    calls: list[str] = []
    answered: list[str] = []
    items = body["input"]
    if isinstance(items, str):
        need(items.strip(), "input: empty")
        return
    _check_tools([tool["name"] for tool in body.get("tools", ()) if tool["type"] == "function"])
    ids = [item["id"] for item in items if "id" in item]
    need(len(set(ids)) == len(ids), f"ids of items are used twice: {ids}")
    for at, item in enumerate(items):
        kind = item.get("type", "message")
        if kind == "function_call":
            need(isinstance(item["arguments"], str) and item["name"] and item["call_id"] not in calls, item)
            calls.append(item["call_id"])
        elif kind == "function_call_output":
            need(item["call_id"] in calls and item["call_id"] not in answered and item["output"], item)
            answered.append(item["call_id"])
        elif kind == "reasoning":
            after = items[at + 1] if at + 1 < len(items) else {}
            need(item.get("encrypted_content") and (after.get("type") == "function_call" or after.get("role") == "assistant"), item)
        else:
            need(kind == "message" and item["content"], item)
            need(sorted(calls) == sorted(answered), f"{calls} answered by {answered}")
    need(sorted(calls) == sorted(answered), f"{calls} answered by {answered}")
    need(items[-1].get("role") == "user" or items[-1].get("type") == "function_call_output", items[-1])


def check_chat(body: JSON) -> None:
    """Raises Refused where Chat Completions would refuse the messages."""
    said: set[str] = set()
    open_calls: list[str] = []
    for message in body["messages"]:
        role = message["role"]
        if role == "tool":
            need(message["tool_call_id"] in open_calls and message["content"], message)
            open_calls.remove(message["tool_call_id"])
            continue
        need(not open_calls, f"no answers to {open_calls}")
        need(message.get("content") or (role == "assistant" and (message.get("tool_calls") or message.get("refusal"))), message)
        for call in message.get("tool_calls", ()):
            function = call["function"]
            need(call["type"] == "function" and function["name"] and isinstance(function["arguments"], str), call)
            need(call["id"] and call["id"] not in said, call)
            said.add(call["id"])
            open_calls.append(call["id"])
    need(not open_calls, f"no answers to {open_calls}")
    need(body["messages"][-1]["role"] in ("user", "tool"), f"the last message is {body['messages'][-1]['role']}'s")
