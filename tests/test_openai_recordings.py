"""Real exchanges of OpenAI's APIs come through the drivers whole, and a continued dialog sends back what the API needs."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import json
import sys
from typing import Any

import pytest
from paths import SHARED, needs_shared

from llmproc_nb.core import errors
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import ProviderError
from llmproc_nb.core.message import Message, Opaque, Text, Thinking, ToolCall, ToolResult, system, user
from llmproc_nb.core.provider import Config, Draft, Reply, Request, Settings, ToolSpec
from llmproc_nb.drivers.openai import OpenAIChat, OpenAIResponses

JSON = dict[str, Any]
RECORDINGS = SHARED / "recordings"
pytestmark = needs_shared


def replay() -> Any:
    """The replay server's module, loaded from the shared folder."""
    name = "shared_replay_server"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SHARED / "tools" / "replay_server.py")
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def openai_files() -> list[tuple[str, str | None]]:
    """Each recording of an OpenAI API, and the API of those that are bare responses."""
    if not (RECORDINGS / "index.json").is_file():
        return []
    found = []
    for entry in json.loads((RECORDINGS / "index.json").read_text()):
        apis = [api for api in entry.get("apis", ()) if api.startswith("openai")]
        if apis:
            found.append((entry["file"], apis[0] if apis[0] in ("openai-responses", "openai-chat") else None))
    return found


FILES = openai_files()


def load(file: str, api: str | None) -> list[Any]:
    exchanges: list[Any] = replay().load_cassette(RECORDINGS / file, api=api)
    for exchange in exchanges:
        # a response that is fetched (background mode) has the same body as one that is asked for
        exchange.method = "POST"
        exchange.url = exchange.url.split("/responses/")[0] + "/responses" if "/responses/" in exchange.url else exchange.url
    return exchanges


async def ask_all(exchanges: list[Any], chunk: str) -> list[Reply | ProviderError]:
    """What the drivers make of each recorded answer."""
    got: list[Reply | ProviderError] = []
    with replay().ReplayServer(exchanges, chunk=chunk) as server:
        kind = OpenAIResponses if exchanges[0].path.endswith("/responses") else OpenAIChat
        provider = kind(base_url=f"{server.root}/v1", api_key="none")
        for _ in exchanges:
            try:
                got.append(await provider.ask(Request(path=Node(user("hi"), None).path(), config=Config(model="m")), Draft(provider.api)))
            except ProviderError as error:
                got.append(error)
        await provider.close()
    return got


# what an answer holds, read from the recording by other means than the driver's


def stated(exchange: Any) -> JSON:
    """Words, calls, thoughts, counts and the API's stop word of a recorded answer."""
    if exchange.path.endswith("/responses"):
        return _stated_response(exchange)
    return _stated_completion(exchange)


def _stated_response(exchange: Any) -> JSON:
    response = exchange.resp_json()
    done: list[Any] = []
    if response is None:
        events = [data for _, data in replay().sse_payloads(exchange.resp_body) if isinstance(data, dict)]
        response = next(event["response"] for event in reversed(events) if "response" in event)
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    output = done or response["output"]
    pieces = [piece for item in output if item["type"] == "message" for piece in item["content"]]
    usage = response.get("usage") or {}
    return {
        "text": "".join(piece.get("text") or piece.get("refusal") or "" for piece in pieces),
        "calls": [
            (i["call_id"], i["name"], i.get("arguments", i.get("input")))
            for i in output
            if i["type"].endswith(("function_call", "custom_tool_call"))
        ],
        "thoughts": [item.get("encrypted_content") for item in output if item["type"] == "reasoning"],
        "kinds": [item["type"] for item in output],
        "read": usage.get("input_tokens", 0),
        "written": usage.get("output_tokens", 0),
        "stop": (response.get("incomplete_details") or {}).get("reason") or response["status"],
        "id": response["id"],
        "model": response["model"],
    }


def _stated_completion(exchange: Any) -> JSON:
    whole = exchange.resp_json()
    chunks = [whole] if whole else [data for _, data in replay().sse_payloads(exchange.resp_body) if isinstance(data, dict)]
    text, thoughts, calls, stop, usage = "", "", dict[int, list[str]](), None, dict[str, Any]()
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            if choice["index"] == 0:
                delta = choice.get("delta") or choice.get("message") or {}
                text += (delta.get("content") or "") + (delta.get("refusal") or "")
                thoughts += delta.get("reasoning") or delta.get("reasoning_content") or ""
                stop = choice.get("finish_reason") or stop
                for number, call in enumerate(delta.get("tool_calls") or ()):
                    slot = calls.setdefault(call.get("index", number), ["", "", ""])
                    for at, piece in enumerate((call.get("id"), call["function"].get("name"), call["function"].get("arguments"))):
                        slot[at] += piece or ""
    return {
        "text": text,
        "calls": [tuple(call) for call in calls.values()],
        "thoughts": [None] if thoughts else [],
        "read": usage.get("prompt_tokens", 0),
        "written": usage.get("completion_tokens", 0),
        "stop": stop,
        "id": chunks[0]["id"],
        "model": chunks[0]["model"],
    }


def shown(reply: Reply) -> JSON:
    """The same of a reply."""
    parts = reply.message.parts
    kinds = {Text: "message", Thinking: "reasoning", ToolCall: "function_call"}
    out = {
        "text": reply.message.text,
        "calls": [(call.id, call.name, _raw_arguments(call)) for call in reply.message.tool_calls],
        "thoughts": [part.signature for part in parts if isinstance(part, Thinking)],
        "read": reply.usage.input_tokens,
        "written": reply.usage.output_tokens,
        "stop": reply.raw_stop,
        "id": reply.id,
        "model": reply.model,
    }
    if reply.message.api == "openai-responses":
        out["kinds"] = [
            part.body["type"] if isinstance(part, Opaque) else (part.extra or {}).get("type") or kinds[type(part)] for part in parts
        ]
    return out


def _raw_arguments(call: ToolCall) -> str:
    custom = (call.extra or {}).get("type") == "custom_tool_call"
    return str(json.loads(call.arguments)["input"]) if custom else call.arguments


def fails(exchange: Any) -> bool:
    body = exchange.resp_json()
    if exchange.status >= 400 or (isinstance(body, dict) and body.get("error")):
        return True
    return body is None and any(isinstance(data, dict) and data.get("error") for _, data in replay().sse_payloads(exchange.resp_body))


@pytest.mark.parametrize(("file", "api"), FILES, ids=[file for file, _ in FILES])
def test_every_recorded_answer_comes_through_whole_however_it_is_cut(file: str, api: str | None) -> None:
    exchanges = load(file, api)

    async def run() -> list[list[Reply | ProviderError]]:
        return await asyncio.gather(*(ask_all(copy.deepcopy(exchanges), chunk) for chunk in ("event", "line", "whole", "bytes:3")))

    whole, *others = asyncio.run(run())
    assert [list(map(repr, other)) for other in others] == [list(map(repr, whole))] * 3
    for got, exchange in zip(whole, exchanges, strict=True):
        if fails(exchange):
            assert isinstance(got, ProviderError)
        else:
            assert isinstance(got, Reply)
            assert shown(got) == stated(exchange)


@pytest.mark.parametrize(
    ("file", "kind", "words"),
    [
        ("o07-responses-error-400-context-length.yml", errors.ContextTooLong, "context window"),
        ("o08-chat-error-401.yaml", errors.AuthError, "Incorrect API key"),
        ("o13-chat-error-429-and-in-body.yaml", errors.RateLimited, "Provider returned error"),
        ("o14-chat-error-inside-stream.yaml", errors.RequestRefused, "Token limit reached"),
        ("fixtures/v05-quota-error-mid-stream.chunks.txt", errors.QuotaExhausted, "exceeded your current quota"),
    ],
)
def test_a_recorded_error_becomes_the_right_one_of_the_tree(file: str, kind: type[ProviderError], words: str) -> None:
    for got in asyncio.run(ask_all(load(file, "openai-responses"), "event")):
        assert type(got) is kind and words in str(got)


def test_recorded_stops_are_told_apart() -> None:
    stops = {}
    for name in ("o05-chat-refusal-stream.yaml", "o06-responses-incomplete-stream.yaml", "o15-chat-json-schema-refused-parse.yaml"):
        reply = asyncio.run(ask_all(load(name, None), "event"))[0]
        assert isinstance(reply, Reply)
        stops[name[:3]] = (reply.stop, reply.detail)
    no = "I'm very sorry, but I can't assist with that request."
    assert stops == {"o05": ("refusal", no), "o06": ("max_tokens", None), "o15": ("refusal", no)}


# continued dialogs: the recorded requests are rebuilt from our own replies


class Dialogs:
    """Recorded requests of the Responses API as our requests: what the model said is replaced by what we got of it."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}

    def request(self, body: JSON) -> Request:
        head: Node | None = None
        said = pending = 0
        first = _words(next(item for item in body["input"] if item.get("role") == "user"))
        calls: list[ToolCall] = []
        for item in body["input"]:
            if item.get("role") in ("system", "developer", "user"):
                head = Node(system(_words(item)) if item["role"] != "user" else user(_words(item)), head)
                pending = 0
            elif item["type"].endswith("_call_output"):
                result = ToolResult(call_id=calls.pop(0).id, content=(Text(text=item["output"]),))
                head = Node(Message(role="tool", parts=(result,)), head)
                pending = 0
            elif not pending:
                reply = self.replies[f"{first} {said}"]
                head, calls = Node(reply.message, head), list(reply.message.tool_calls)
                said, pending = said + 1, 1
        assert head is not None
        self.name = f"{first} {said}"
        tools = tuple(
            ToolSpec(name=tool["name"], description=tool["description"], parameters=tool["parameters"])
            for tool in body.get("tools", ())
            if tool["type"] == "function"
        )
        hosted = [tool for tool in body.get("tools", ()) if tool["type"] != "function"]
        settings = Settings(effort=(body.get("reasoning") or {}).get("effort"), body={"tools": hosted} if hosted else {})
        return Request(path=head.path(), config=Config(model=body["model"], tools=tools, settings=settings))


def _words(item: JSON) -> str:
    content = item["content"]
    return content if isinstance(content, str) else "".join(piece["text"] for piece in content)


def essence(body: JSON) -> JSON:
    """What of a request decides the answer. Call ids are numbered in order of their calls: some recorders put other ids there."""
    numbers: dict[str, int] = {}
    inputs: list[Any] = []
    for item in body["input"]:
        kind = item.get("type", "message")
        if kind == "message" and item["role"] == "system":
            continue
        if kind == "message":
            inputs.append((item["role"], _words(item)))
        elif kind == "reasoning":
            inputs.append((kind, item["id"], item["encrypted_content"], item["summary"]))
        elif kind == "function_call":
            inputs.append((kind, numbers.setdefault(item["call_id"], len(numbers)), item["name"], json.loads(item["arguments"])))
        elif kind == "function_call_output":
            inputs.append((kind, numbers[item["call_id"]], item["output"]))
        else:
            inputs.append((kind, item["id"], item["status"]))
    systems = [_words(item) for item in body["input"] if item.get("role") == "system"]
    return {
        "system": body.get("instructions") or "\n\n".join(systems) or None,
        "input": inputs,
        "model": body["model"],
        "reasoning": body.get("reasoning"),
        "tools": [(tool.get("name"), tool["type"], tool.get("parameters")) for tool in body.get("tools", ())],
        "store": body.get("store"),
    }


@pytest.mark.parametrize(
    "file",
    ["o03-responses-interleaved-reasoning-tools.yaml", "o12-responses-parallel-requests.yaml", "o16-responses-web-search-stream.yaml"],
)
def test_a_continued_dialog_sends_back_what_the_api_needs(file: str) -> None:
    async def run() -> tuple[JSON, list[Any]]:
        exchanges = load(file, None)
        dialogs = Dialogs()
        with replay().ReplayServer(exchanges, match="body") as server:
            provider = OpenAIResponses(base_url=f"{server.root}/v1", api_key="none")
            for exchange in exchanges:
                request = dialogs.request(exchange.req_json())
                dialogs.replies[dialogs.name] = await provider.ask(request, Draft(provider.api))
            await provider.close()
            return server.report(), exchanges

    report, exchanges = asyncio.run(run())
    assert (report["unplayed"], report["unmatched"]) == ([], [])
    assert [sent["matched"] for sent in report["sent"]] == [exchange.index for exchange in exchanges]
    for sent, exchange in zip(report["sent"], exchanges, strict=True):
        assert essence(sent["json"]) == essence(exchange.req_json())


def test_a_dialog_over_several_turns_keeps_every_item_as_it_came() -> None:
    """The items of a reply go back with all their fields, in their order."""

    async def run() -> None:
        exchange = load("o16-responses-web-search-stream.yaml", None)[0]
        with replay().ReplayServer([exchange]) as server:
            provider = OpenAIResponses(base_url=f"{server.root}/v1", api_key="none")
            asked = Node(user("When?"), None)
            reply = await provider.ask(Request(path=asked.path(), config=Config(model="gpt-4.1")), Draft(provider.api))
            again = Node(user("Which month?"), Node(reply.message, asked))
            sent = provider.preview(Request(path=again.path(), config=Config(model="gpt-4.1")))
            await provider.close()
        done = [data["item"] for name, data in replay().sse_payloads(exchange.resp_body) if name == "response.output_item.done"]
        assert sent["input"] == [{"role": "user", "content": "When?"}, *done, {"role": "user", "content": "Which month?"}]

    asyncio.run(run())
