"""Recorded traffic of the Messages API, played to the driver by a replay server: replies arrive whole, and go back as they came."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import anthropic
import pytest

from llmproc_nb.core import errors
from llmproc_nb.core.dialog import Dialog, Node
from llmproc_nb.core.message import Document, Image, Message, Opaque, Text, Thinking, ToolCall, ToolResult
from llmproc_nb.core.provider import Config, Draft, Reply, Request, Settings, ToolSpec
from llmproc_nb.drivers.anthropic import AnthropicProvider
from llmproc_nb.drivers.anthropic.blocks import message_form
from tests.paths import SHARED, needs_shared

pytestmark = needs_shared
JSON = dict[str, Any]
MODES = ("event", "bytes:3")
MORE_MODES = ("event", "line", "whole", "bytes:3")  # for two recordings that have a bit of everything


@lru_cache
def replay_server() -> ModuleType:
    spec = importlib.util.spec_from_file_location("replay_server", SHARED / "tools" / "replay_server.py")
    assert spec and spec.loader
    module = sys.modules["replay_server"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recordings() -> list[str]:
    index = SHARED / "recordings" / "index.json"
    if not index.exists():
        return []
    entries = json.loads(index.read_text())
    names = [entry["file"] for entry in entries if any(api.startswith("anthropic") for api in entry["apis"])]
    return sorted(name for name in names if (SHARED / "recordings" / name).is_file())


def exchanges(name: str) -> list[Any]:
    return replay_server().load_cassette(SHARED / "recordings" / name, api="anthropic")  # type: ignore[no-any-return]


def kept(value: Any) -> Any:
    """Without what may differ: cache breakpoints, nulls and empty lists, `is_error: false`, text instead of a list of one text."""
    if isinstance(value, list):
        return [kept(item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {}
    for key, item in value.items():
        if key == "cache_control" or item is None or item == [] or (key, item) == ("is_error", False):
            continue
        if key in ("content", "system") and isinstance(item, str) and value.get("type") in (None, "tool_result"):
            item = [{"type": "text", "text": item}] if item.strip() else None
        if item is not None:
            fields[key] = kept(item)
    return fields


def meant(value: Any) -> Any:
    """As `kept`, and without the caller `direct`, which is what the API assumes; most clients do not send it back."""
    if isinstance(value, list):
        return [meant(item) for item in value]
    if isinstance(value, dict):
        return {key: meant(item) for key, item in kept(value).items() if (key, item) != ("caller", {"type": "direct"})}
    return value


def from_source(source: JSON) -> JSON:
    if source["type"] == "base64":
        return {"media_type": source["media_type"], "data": base64.b64decode(source["data"])}
    return {"url": source["url"]} if source["type"] == "url" else {"text": source["data"], "media_type": source["media_type"]}


def part(block: JSON) -> Any:
    """A recorded block as a part, the way a person of this API would build it."""
    kind, rest = block["type"], {key: value for key, value in block.items() if key != "cache_control"}
    extra = {key: value for key, value in rest.items() if key in ("citations", "caller", "context")} or None
    if kind == "text":
        return Text(text=block["text"], extra=extra)
    if kind == "thinking":
        return Thinking(text=block["thinking"], signature=block.get("signature"))
    if kind == "redacted_thinking":
        return Thinking(redacted=block["data"])
    if kind == "image" and block["source"]["type"] in ("base64", "url"):
        return Image(**from_source(block["source"]))
    if kind == "document" and block["source"]["type"] in ("base64", "url", "text"):
        return Document(**from_source(block["source"]), title=block.get("title"), extra=extra)
    if kind == "tool_use":
        return ToolCall(id=block["id"], name=block["name"], arguments=json.dumps(block["input"]), extra=extra)
    if kind == "tool_result":
        content = block.get("content") or []
        pieces = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if all(piece["type"] in ("text", "image", "document") for piece in pieces):
            return ToolResult(call_id=block["tool_use_id"], content=tuple(map(part, pieces)), is_error=block.get("is_error") or False)
    return Opaque(body=rest)


def message(recorded: JSON, replies: list[Reply]) -> Message:
    """A recorded message; one of the driver's own replies where it is that."""
    content = recorded["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if recorded["role"] == "assistant":
        for reply in replies:
            ours = kept(json.loads(message_form(reply.message)))["content"]
            if [(block["type"], block.get("id"), block.get("text")) for block in ours] == [
                (block["type"], block.get("id"), block.get("text")) for block in kept(blocks)
            ]:
                return reply.message
    role = "tool" if any(block["type"] == "tool_result" for block in blocks) else recorded["role"]
    return Message(role=role, parts=tuple(map(part, blocks)), api="anthropic")


def request(body: JSON, replies: list[Reply]) -> Request:
    """The request that a recorded body stands for."""
    system = body.get("system") or []
    texts = [{"type": "text", "text": system}] if isinstance(system, str) else system
    messages = [Message(role="system", parts=tuple(map(part, texts)), api="anthropic")] if texts else []
    messages += [message(recorded, replies) for recorded in body.get("messages") or [{"role": "user", "content": "hello"}]]
    head: Node | None = None
    dialog = Dialog()
    for one in messages:
        head, _ = dialog.append(one, head)
    assert head is not None
    return Request(path=head.path(), config=config(body))


def config(body: JSON) -> Config:
    known = ("model", "messages", "system", "stream", "max_tokens", "temperature", "thinking", "stop_sequences", "tools")
    own = {key: value for key, value in body.items() if key not in known}
    tools = list(body.get("tools") or ())
    plain = [tool for tool in tools if set(tool) - {"cache_control"} <= {"name", "description", "input_schema"}]
    if len(plain) != len(tools):
        plain, own = [], {**own, "tools": tools}
    specs = tuple(ToolSpec(name=tool["name"], description=tool.get("description", ""), parameters=tool["input_schema"]) for tool in plain)
    settings = Settings(
        max_tokens=body.get("max_tokens", 1024),
        temperature=body.get("temperature"),
        thinking=body.get("thinking"),
        stop=tuple(body.get("stop_sequences") or ()),
        body=own,
    )
    return Config(model=body.get("model", "claude-test"), tools=specs, settings=settings)


def play(name: str, chunk: str) -> tuple[list[Reply | errors.ProviderError], Any]:
    """What the driver makes of each recorded answer, and the server with what it was sent."""
    found: list[Reply | errors.ProviderError] = []

    async def run(root: str, recorded: list[Any]) -> None:
        provider = AnthropicProvider(base_url=root, api_key="k")
        for exchange in recorded:
            replies = [one for one in found if isinstance(one, Reply)]
            try:
                found.append(await provider.ask(request(exchange.req_json() or {}, replies), Draft("anthropic")))
            except errors.ProviderError as error:
                found.append(error)
        await provider.close()

    recorded = exchanges(name)
    with replay_server().ReplayServer(recorded, chunk=chunk) as server:
        asyncio.run(run(server.root, recorded))
    return found, server


@lru_cache
def as_the_sdk_reads_it(name: str) -> tuple[Any, ...]:
    """The recorded answers, whole ones as they are and streams as the SDK's own helper joins them; None where it is an error."""
    recorded, found = exchanges(name), []
    with replay_server().ReplayServer(recorded) as server:
        client = anthropic.Anthropic(base_url=server.root, api_key="k", max_retries=0)
        for exchange in recorded:
            ask = {"model": "claude-opus-4-8", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
            if exchange.status != 200:
                found.append(None)
                exchange.played = 1
            elif exchange.is_sse:
                with client.beta.messages.stream(**ask) as stream:  # type: ignore[arg-type]
                    found.append(stream.get_final_message().to_dict())
            else:
                exchange.played = 1
                found.append(exchange.resp_json())
    return tuple(found)


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        (name, chunk)
        for name in recordings()
        if "spliced" not in name
        for chunk in (MORE_MODES if name.startswith(("a03", "a09")) else MODES)
    ],
)
def test_a_recorded_reply_arrives_whole_and_would_go_back_as_it_came(name: str, chunk: str) -> None:
    found, _ = play(name, chunk)
    expected = as_the_sdk_reads_it(name)
    assert len(found) == len(expected)
    for reply, whole in zip(found, expected, strict=True):
        if whole is None:
            assert isinstance(reply, errors.ProviderError)
            continue
        assert isinstance(reply, Reply)
        blocks = [block for block in kept(whole["content"]) if block["type"] != "text" or block["text"].strip()]
        form = message_form(reply.message)
        assert (kept(json.loads(form))["content"] if form else []) == blocks
        assert (reply.raw_stop, reply.model, reply.id) == (whole["stop_reason"], whole["model"], whole["id"])
        counts = whole["usage"]
        iterations = [one for one in counts.get("iterations") or () if one["type"] == "compaction"]
        read = sum(
            (one.get(key) or 0)
            for one in (counts, *iterations)
            for key in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        )
        written = sum(one["output_tokens"] for one in (counts, *iterations))
        assert (reply.usage.requests, reply.usage.input_tokens, reply.usage.output_tokens) == (1, read, written)
        assert reply.usage.cache_read_tokens == (counts.get("cache_read_input_tokens") or 0)
        assert reply.usage.cache_write_tokens == (counts.get("cache_creation_input_tokens") or 0)


@pytest.mark.parametrize("name", [name for name in recordings() if not name.startswith("fixtures/")])
def test_what_is_sent_means_what_was_recorded(name: str) -> None:
    _, server = play(name, "event")
    recorded = exchanges(name)
    assert server.report()["unplayed"] == []
    for sent in server.sent:
        ours, theirs = json.loads(sent.body), recorded[sent.matched].req_json()
        assert ours.pop("stream") is True
        theirs.pop("stream", None)
        assert meant(ours) == meant(theirs)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("a16-error-404-twice.yaml", errors.ModelNotFound, "this-model-does-not-exist"),
        ("a17-error-401-stream.yaml", errors.AuthError, "x-api-key"),
        ("a18-error-400-effort.yaml", errors.RequestRefused, "effort"),
    ],
)
def test_a_recorded_refusal_becomes_the_error_of_its_kind(name: str, kind: type[errors.ProviderError], words: str) -> None:
    if not (SHARED / "recordings" / name).exists():
        pytest.skip("this recording is not here")
    found, _ = play(name, "event")
    assert {type(error) for error in found} == {kind}
    assert words in str(found[0])


def test_a_second_message_in_one_stream_takes_the_place_of_the_first() -> None:
    name = "fixtures/v06-spliced-message-start.chunks.txt"
    if not Path(SHARED / "recordings" / name).exists():
        pytest.skip("this recording is not here")
    found, _ = play(name, "event")
    (reply,) = found
    assert isinstance(reply, Reply)
    assert reply.message == Message(
        role="assistant",
        api="anthropic",
        parts=(
            Thinking(text="Let me call the tool.", signature="sig-second"),
            ToolCall(id="toolu_second", name="test-tool", arguments='{"value":"Sparkle Day"}'),
        ),
    )
    assert reply.id == "msg_second"


def test_a_refusal_without_a_word_is_an_empty_reply_with_its_reason() -> None:
    name = "fixtures/v02-refusal.chunks.txt"
    if not Path(SHARED / "recordings" / name).exists():
        pytest.skip("this recording is not here")
    found, _ = play(name, "event")
    (reply,) = found
    assert isinstance(reply, Reply)
    assert (reply.stop, reply.message.parts) == ("refusal", ())
