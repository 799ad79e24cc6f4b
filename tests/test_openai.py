"""The OpenAI drivers against a server on loopback that answers, misbehaves and breaks as each test says."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import (
    Answer,
    LoopbackServer,
    openai_chat_text,
    openai_chat_tools,
    openai_responses,
    openai_responses_text,
    openai_responses_tools,
    sse,
    sse_data,
)

from llmproc_nb.core import errors
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import PersonError, ProgramError, ProviderError
from llmproc_nb.core.message import Document, Image, Message, Opaque, Text, Thinking, ToolCall, ToolResult, cleaned, system, user
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import Config, Delta, Draft, Reply, Request, Settings, ToolSpec
from llmproc_nb.core.usage import Usage
from llmproc_nb.drivers.endpoints import ENDPOINTS, REFUSED
from llmproc_nb.drivers.openai import OpenAIChat, OpenAIResponses, chunks, from_program, responses
from llmproc_nb.drivers.openai.settings import has_breakpoints, is_reasoning, is_strict

JSON = dict[str, Any]
Driver = OpenAIChat | OpenAIResponses
BOTH = pytest.mark.parametrize("kind", [OpenAIResponses, OpenAIChat])
ADD = ToolSpec(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})


def path(*messages: Message) -> tuple[Node, ...]:
    node: Node | None = None
    for message in messages:
        node = Node(message, node)
    assert node is not None
    return node.path()


def request(*messages: Message, model: str = "gpt-4.1", tools: tuple[ToolSpec, ...] = (), **settings: Any) -> Request:
    return Request(path=path(*(messages or (user("hi"),))), config=Config(model=model, tools=tools, settings=Settings(**settings)))


def text_of(kind: type[Driver], text: str) -> list[bytes]:
    return sse(openai_responses_text(text)) if kind is OpenAIResponses else sse_data(openai_chat_text(text))


def with_provider(kind: type[Driver], server: LoopbackServer, use: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
    """What `use(provider)` gives, in a loop of its own."""

    async def run() -> Any:
        provider = kind(base_url=f"{server.url}/v1", **{"api_key": "sk-test", **options})
        try:
            return await use(provider)
        finally:
            await provider.close()

    return asyncio.run(run())


def answered(kind: type[Driver], answer: Answer, asked: Request | None = None, **options: Any) -> tuple[Reply | ProviderError, Draft]:
    """The reply, or the error, and the draft."""
    draft = Draft(kind.api)

    async def use(provider: Driver) -> Reply | ProviderError:
        try:
            return await provider.ask(asked or request(), draft)
        except ProviderError as error:
            return error

    with LoopbackServer(lambda seen, n: answer) as server:
        return with_provider(kind, server, use, **options), draft


def reply_to(kind: type[Driver], chunks: Iterable[bytes]) -> Reply:
    got, _ = answered(kind, Answer(chunks=chunks))
    assert isinstance(got, Reply), got
    return got


def fault_of(kind: type[Driver], answer: Answer, **options: Any) -> tuple[type, str, str]:
    """Kind and text of the error, and what was said before it."""
    got, draft = answered(kind, answer, **options)
    assert isinstance(got, ProviderError), got
    return type(got), str(got), draft.message().text


# what is sent


@BOTH
def test_the_preview_is_what_is_sent(kind: type[Driver]) -> None:
    asked = request(
        system("Be brief."), user("hi"), tools=(ADD,), temperature=0.5, max_tokens=99, body={"user": "me"}, headers={"x-a": "b"}
    )
    with LoopbackServer(lambda seen, n: Answer(chunks=text_of(kind, "ok"))) as server:

        async def use(provider: Driver) -> JSON:
            await provider.ask(asked, Draft(kind.api))
            return provider.preview(asked)

        preview = with_provider(kind, server, use)
        seen = server.seen[0]
    assert preview == seen.body
    assert (seen.headers["authorization"], seen.headers["x-a"]) == ("Bearer sk-test", "b")
    assert seen.headers["content-type"] == "application/json"
    assert not [name for name in seen.headers if "stainless" in name]  # nothing of this machine is told
    assert "sk-test" not in json.dumps(preview)


@BOTH
def test_a_turn_sends_the_bytes_of_the_turn_before_and_more(kind: type[Driver]) -> None:
    """The dialog's part of each body starts with the part of the body before, byte for byte, on every branch."""
    calls = openai_responses_tools([("c1", "add", {"a": 1})]) if kind is OpenAIResponses else openai_chat_tools([("c1", "add", {"a": 1})])
    mark = b'"input":[' if kind is OpenAIResponses else b'"messages":['
    with LoopbackServer(lambda seen, n: Answer(chunks=(sse if kind is OpenAIResponses else sse_data)(calls))) as server:

        async def use(provider: Driver) -> None:
            left = head = path(system("Be brief."), user("Grüße 😀"))[-1]
            for turn in range(4):
                reply = await provider.ask(Request(path=head.path(), config=Config(model="gpt-4.1")), Draft(kind.api))
                result = ToolResult(call_id="c1", content=(Text(text=str(turn)),))
                head = Node(user(f"and {turn}?"), Node(Message(role="tool", parts=(result,)), Node(reply.message, head)))
            other = Node(user("something else"), left)
            await provider.ask(Request(path=other.path(), config=Config(model="gpt-4.1")), Draft(kind.api))

        with_provider(kind, server, use)
        dialogs = [seen.raw[seen.raw.index(mark) + len(mark) :].removesuffix(b"]}") for seen in server.seen]
    assert all(later.startswith(earlier + b",") for earlier, later in pairwise(dialogs[:4]))
    assert dialogs[4].startswith(dialogs[0] + b",")
    assert len(set(dialogs)) == 5


PICTURE = Image(data=b"png", media_type="image/png")
PICTURE_URL = "data:image/png;base64," + b64encode(b"png").decode()
TOOL_TURN = (
    user((Text(text="See"), PICTURE, Document(data=b"%PDF", title="a.pdf"), Document(text="words", title="b.txt"))),
    Message(
        role="assistant",
        parts=(Thinking(text="hm", signature="from afar"), Text(text="Let me add."), ToolCall(id="t1", name="add", arguments="{ bad")),
        api="anthropic",
    ),
    Message(role="tool", parts=(ToolResult(call_id="t1", name="add", content=(Text(text="3"), PICTURE)),)),
    Message(role="assistant", parts=(), api="anthropic"),
    Message(role="assistant", parts=(Opaque(body={"type": "server_tool_use"}), Text(text="It is 3.")), api="anthropic"),
)


def test_responses_gets_every_kind_of_part_in_its_own_form() -> None:
    asked = request(
        system("Be brief."),
        *TOOL_TURN,
        tools=(ADD,),
        model="gpt-5.5",
        max_tokens=50,
        effort="low",
        temperature=0.1,
        stop=("x",),
        tool_choice="add",
    )
    sent = OpenAIResponses(base_url="http://localhost/v1").preview(asked)
    assert sent == {
        "model": "gpt-5.5",
        "stream": True,
        "store": False,
        "instructions": "Be brief.",
        "tools": [{"type": "function", "name": "add", "description": "Adds.", "parameters": ADD.parameters, "strict": False}],
        "max_output_tokens": 50,
        "tool_choice": {"type": "function", "name": "add"},
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "See"},
                    {"type": "input_image", "image_url": PICTURE_URL, "detail": "auto"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
                    {"type": "input_text", "text": "b.txt\n\nwords"},
                ],
            },
            {"role": "assistant", "content": "Let me add."},
            {"type": "function_call", "call_id": "t1", "name": "add", "arguments": "{ bad"},
            {
                "type": "function_call_output",
                "call_id": "t1",
                "output": [{"type": "input_text", "text": "3"}, {"type": "input_image", "image_url": PICTURE_URL, "detail": "auto"}],
            },
            {"role": "assistant", "content": "It is 3."},
        ],
    }
    assert OpenAIResponses().left_out(asked.config) == ("stop", "temperature")


def test_chat_gets_every_kind_of_part_in_its_own_form() -> None:
    asked = request(
        system("Be brief."), *TOOL_TURN, tools=(ADD,), max_tokens=50, effort="low", temperature=0.1, stop=("x",), top_k=3, tool_choice="any"
    )
    sent = OpenAIChat(base_url="http://localhost/v1").preview(asked)
    assert sent == {
        "model": "gpt-4.1",
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": ADD.parameters}}],
        "max_tokens": 50,
        "tool_choice": "required",
        "reasoning_effort": "low",
        "temperature": 0.1,
        "stop": ["x"],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "See"},
                    {"type": "image_url", "image_url": {"url": PICTURE_URL}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
                    {"type": "text", "text": "b.txt\n\nwords"},
                ],
            },
            {
                "role": "assistant",
                "content": "Let me add.",
                "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"INVALID_JSON":"{ bad"}'}}],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "3\n[1 attached below]"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Attached to the result of add:"},
                    {"type": "image_url", "image_url": {"url": PICTURE_URL}},
                ],
            },
            {"role": "assistant", "content": "It is 3."},
        ],
    }
    assert OpenAIChat().left_out(asked.config) == ("top_k",)


def test_names_and_ids_of_other_models_are_sent_as_the_api_takes_them() -> None:
    long = "toolu_" + "x" * 70
    calls = (
        ToolCall(id="functions.add:0", name="my.tool add", arguments="{}"),
        ToolCall(id=long, name="", arguments="[1]"),
        ToolCall(id=long + "y", name="n" * 70),
    )
    results = tuple(ToolResult(call_id=call.id, name=call.name, content=(Text(text="3"),)) for call in calls)
    dialog = (user("x"), Message(role="assistant", parts=calls, api="anthropic"), Message(role="tool", parts=results))
    for most, sent, answers in (
        (64, OpenAIResponses().preview(request(*dialog))["input"][1:4], OpenAIResponses().preview(request(*dialog))["input"][4:]),
        (
            40,
            [{"call_id": call["id"], **call["function"]} for call in OpenAIChat().preview(request(*dialog))["messages"][1]["tool_calls"]],
            [{"call_id": answer["tool_call_id"]} for answer in OpenAIChat().preview(request(*dialog))["messages"][2:]],
        ),
    ):
        assert [call["name"] for call in sent] == ["my_tool_add", "_", "n" * 64]
        ids = [call["call_id"] for call in sent]
        assert ids == [answer["call_id"] for answer in answers]
        assert ids[0] == "functions.add:0" and len(set(ids)) == 3 and max(map(len, ids)) <= most


def test_arguments_that_are_no_object_are_marked_for_servers_that_read_them() -> None:
    calls = tuple(ToolCall(id=f"t{n}", name="add", arguments=text) for n, text in enumerate(('{"a": 1.50}', "[1]", "3", '{"a"', "")))
    sent = OpenAIChat().preview(request(user("x"), Message(role="assistant", parts=calls, api="openai-chat")))["messages"][1]["tool_calls"]
    texts = ['{"a": 1.50}', *(json.dumps({"INVALID_JSON": text}, separators=(",", ":")) for text in ("[1]", "3", '{"a"', ""))]
    assert [call["function"]["arguments"] for call in sent] == texts


def test_a_system_message_in_the_middle_of_a_dialog_stays_where_it_is() -> None:
    asked = request(system("Be brief."), system("Be kind."), user("hi"), system("Now be long."), user("go"))
    responses, chat = OpenAIResponses().preview(asked), OpenAIChat().preview(asked)
    assert responses["instructions"] == "Be brief.\n\nBe kind."
    middle = [{"role": "user", "content": "hi"}, {"role": "system", "content": "Now be long."}, {"role": "user", "content": "go"}]
    assert responses["input"] == middle
    assert chat["messages"] == [{"role": "system", "content": "Be brief.\n\nBe kind."}, *middle]


def test_openai_itself_is_asked_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    asked = request(model="o3", max_tokens=50, temperature=0.1, stop=("x",))
    chat, responses = OpenAIChat().preview(asked), OpenAIResponses().preview(asked)
    assert {**chat, "messages": 0} == {
        "model": "o3",
        "stream": True,
        "stream_options": {"include_usage": True},
        "prompt_cache_key": asked.path[0].id,
        "max_completion_tokens": 50,
        "messages": 0,
    }
    assert responses["prompt_cache_key"] == asked.path[0].id
    assert OpenAIChat().left_out(asked.config) == ("temperature", "stop")


@BOTH
def test_forks_of_a_model_that_has_breakpoints_have_one_where_their_paths_part(kind: type[Driver]) -> None:
    turns = [part for n in range(25) for part in (user(f"{n} " + "u" * 1000), Message(role="assistant", parts=(Text(text="a" * 1000),)))]
    shared = path(system("S"), *turns)[-1]
    provider = kind()
    mark = b'"input":[' if kind is OpenAIResponses else b'"messages":['

    def raw(node: Node, shared: Node | None, model: str = "gpt-5.6-luna") -> bytes:
        asked = Request(path=node.path(), config=Config(model=model), shared=shared)
        return b"".join(provider._body(asked))

    heads = [Node(user(f"way {n}"), shared) for n in range(3)]
    heads.append(Node(user("on"), Node(Message(role="assistant", parts=(Text(text="x"),)), heads[0])))
    raws = [raw(head, shared) for head in heads]
    common = {body[: body.index(b"a" * 1000, body.index(b"24 uuu"))] for body in raws}
    assert len(common) == 1 and len(next(iter(common))) > 49_000
    assert all(body.count(b'"prompt_cache_breakpoint":{"mode":"explicit"}}]') == 1 for body in raws)
    last = json.loads(raws[0])["input" if kind is OpenAIResponses else "messages"][-3]
    assert last["content"][0]["text"].startswith("24 ") and "prompt_cache_breakpoint" in last["content"][0]
    assert {json.loads(body)["prompt_cache_key"] for body in raws} == {shared.path()[0].id}
    assert not any(b"breakpoint" in raw(heads[0], *how) for how in ((shared, "gpt-5.5"), (None,), (Node(user("elsewhere"), shared),)))
    assert raw(heads[0], None).index(mark) == raw(heads[0], shared).index(mark)
    assert b"breakpoint" not in b"".join(
        kind(base_url="http://localhost/v1")._body(Request(path=heads[0].path(), config=Config(model="gpt-5.6"), shared=shared))
    )


@pytest.mark.parametrize(
    ("model", "explicit"),
    [("gpt-5.6", True), ("openai/gpt-6-astra", True), ("ft:gpt-5.10:me", True), ("gpt-5.5-pro", False), ("gpt-5", False), ("o3", False)],
)
def test_models_that_cache_at_breakpoints_are_known_by_their_names(model: str, explicit: bool) -> None:
    assert has_breakpoints(model) is explicit


def test_a_wanted_schema_is_strict_only_where_it_can_be() -> None:
    inner = {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"], "additionalProperties": False}
    closed = {"title": "My answer!", "type": "object", "properties": {"a": inner}, "required": ["a"], "additionalProperties": False}
    assert is_strict(closed)
    assert not is_strict({**closed, "required": []})
    assert not is_strict({**closed, "properties": {"a": {"type": "object"}}})
    asked = request(output_schema=closed)
    form = {"name": "My_answer_", "schema": closed, "strict": True}
    assert OpenAIResponses().preview(asked)["text"] == {"format": {"type": "json_schema", **form}}
    assert OpenAIChat().preview(asked)["response_format"] == {"type": "json_schema", "json_schema": form}


def test_fields_of_a_person_join_ours() -> None:
    asked = request(
        model="gpt-5",
        tools=(ADD,),
        effort="low",
        body={"reasoning": {"summary": "concise"}, "tools": [{"type": "web_search"}], "store": True, "input": []},
    )
    sent = OpenAIResponses().preview(asked)
    assert sent["reasoning"] == {"effort": "low", "summary": "concise"}
    assert [tool["type"] for tool in sent["tools"]] == ["function", "web_search"]
    assert (sent["store"], sent["input"]) == (True, [{"role": "user", "content": "hi"}])


def test_thinking_asked_for_in_common_words_shows_a_summary() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert OpenAIResponses().preview(request(model="gpt-5", thinking=thinking))["reasoning"] == {"summary": "auto"}
    assert "reasoning" not in OpenAIResponses().preview(request(model="gpt-4.1", thinking=thinking))
    assert OpenAIResponses().left_out(request(model="gpt-5", thinking=thinking).config) == ("thinking.budget_tokens",)


@pytest.mark.parametrize(
    ("model", "thinks"),
    [
        *((name, True) for name in ("o3-mini", "gpt-5", "gpt-5.5-2026-04-23", "openai/gpt-6-astra", "ft:o4-mini:me")),
        *((name, False) for name in ("gpt-4o", "gpt-5-chat-latest", "gpt-oss-120b", "o-model", "qwen3")),
    ],
)
def test_reasoning_models_are_known_by_their_names(model: str, thinks: bool) -> None:
    assert is_reasoning(model) is thinks


# what comes back


def test_a_responses_reply_goes_back_item_by_item() -> None:
    """Thoughts, several pieces of text, tool calls of both kinds and unknown items, each as it came."""
    summary = [{"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}]
    content = [{"type": "output_text", "text": "a", "annotations": [{"k": 1}]}, {"type": "output_text", "text": "b", "annotations": []}]
    items: list[JSON] = [
        {"id": "rs_1", "type": "reasoning", "summary": summary, "encrypted_content": "gAAA"},
        {
            "id": "fc_0",
            "type": "function_call",
            "call_id": "c1",
            "name": "add",
            "arguments": '{"a" : 1}',
            "status": "done",
            "namespace": "n",
        },
        {"id": "ctc", "type": "custom_tool_call", "call_id": "c2", "name": "calc", "input": "4 + 4\n", "status": "completed"},
        {"id": "x_1", "type": "new_kind", "deep": [{"a": None}]},
        {"id": "m", "type": "message", "role": "assistant", "phase": "commentary", "status": "completed", "content": content},
    ]
    reply = reply_to(OpenAIResponses, sse(openai_responses(items)))
    thinking, call, custom, other, text = reply.message.parts
    assert isinstance(thinking, Thinking) and (thinking.text, thinking.signature) == ("one\n\ntwo", "gAAA")
    assert isinstance(call, ToolCall) and (call.id, call.name, call.arguments) == ("c1", "add", '{"a" : 1}')
    assert isinstance(custom, ToolCall) and json.loads(custom.arguments) == {"input": "4 + 4\n"}
    assert isinstance(other, Opaque) and other.body == items[3]
    assert isinstance(text, Text) and text.text == "ab"
    assert (reply.stop, reply.raw_stop, reply.usage) == ("tool_use", "completed", Usage(requests=1, input_tokens=10, output_tokens=5))
    results = tuple(ToolResult(call_id=call_id, content=(Text(text="8"),)) for call_id in ("c1", "c2"))
    sent = OpenAIResponses().preview(request(user("hi"), reply.message, Message(role="tool", parts=results)))
    assert sent["input"][1:] == [
        *items,
        {"type": "function_call_output", "call_id": "c1", "output": "8"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "8"},
    ]


def test_an_interrupted_response_sends_back_only_what_was_finished() -> None:
    """Thoughts whose item never came are refused by the API, as are ids of items that were not finished."""
    whole = sse(openai_responses([{"id": "rs", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}, *TEXT_ITEM]))
    cut = next(n for n, chunk in enumerate(whole) if b"output_text.delta" in chunk) + 1
    got, draft = answered(OpenAIResponses, Answer(chunks=whole[:cut], then="cut"))
    assert isinstance(got, errors.ConnectionLost)
    said = draft.message(interrupted=True)
    assert [type(part) for part in said.parts] == [Thinking, Text]
    assert OpenAIResponses().preview(request(user("hi"), said, user("go on")))["input"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": said.text},
        {"role": "user", "content": "go on"},
    ]


TEXT_ITEM = [
    {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "Hello there"}]}
]


def test_thoughts_that_cannot_go_back_leave_no_ids_behind() -> None:
    reply = reply_to(OpenAIResponses, sse(openai_responses([{"id": "rs", "type": "reasoning", "summary": []}, *TEXT_ITEM])))
    sent = OpenAIResponses().preview(request(user("hi"), reply.message))
    assert sent["input"][1:] == [{name: value for name, value in TEXT_ITEM[0].items() if name != "id"}]


def test_a_server_that_numbers_all_items_alike_loses_none() -> None:
    items = [
        {"id": f"m{n}", "type": "message", "content": [{"type": "output_text", "text": word}]} for n, word in enumerate(("one ", "two"))
    ]
    numbered = [{**event, "output_index": 0} if "output_index" in event else event for event in openai_responses(items)]
    assert reply_to(OpenAIResponses, sse(numbered)).message.text == "one two"


def test_a_response_whose_items_come_only_at_the_end_is_whole() -> None:
    ends = [event for event in openai_responses_text("Hello") if event["type"] in ("response.created", "response.completed")]
    assert reply_to(OpenAIResponses, sse(ends)).message.text == "Hello"


@pytest.mark.parametrize(
    ("reason", "stop", "detail"),
    [("max_output_tokens", "max_tokens", None), ("content_filter", "refusal", "content_filter"), ("new", "other", None)],
)
def test_an_incomplete_response_says_why(reason: str, stop: str, detail: str | None) -> None:
    *begin, end = openai_responses(TEXT_ITEM, status="incomplete")
    end["response"]["incomplete_details"] = {"reason": reason}
    reply = reply_to(OpenAIResponses, sse([*begin, end]))
    assert (reply.stop, reply.detail, reply.raw_stop, reply.message.text) == (stop, detail, reason, "Hello there")


def chat(*deltas: JSON, finish: str | None = "stop", done: bool = True, **more: Any) -> list[bytes]:
    """Chunks of a chat answer made of these deltas."""
    chunks = [{"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return sse_data([*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], **more}], done=done)


def call(index: int | None, call_id: str | None, name: str | None, arguments: Any) -> JSON:
    function = {name_: value for name_, value in (("name", name), ("arguments", arguments)) if value is not None}
    piece: JSON = {"function": function}
    if index is not None:
        piece["index"] = index
    if call_id is not None:
        piece["id"] = call_id
    return {"tool_calls": [piece]}


@pytest.mark.parametrize(
    "deltas",
    [
        [call(0, "a", "f", '{"x"'), call(1, "b", "g", ""), call(0, None, None, ": 1}"), call(1, None, None, "{}")],
        [call(None, "a", "f", '{"x"'), call(None, None, None, ": 1}"), call(None, "b", "g", "{}")],
        [call(None, "a", "f", '{"x"'), call(None, "b", "g", ""), call(None, "a", None, ": 1}"), call(None, "b", None, "{}")],
        [call(0, "a", "f", '{"x": 1}'), call(0, "b", "g", "{}")],
        [call(0, "a", "f", '{"x"'), call(0, "a", "f", ": 1}"), call(1, "b", "g", {})],
        [call(0, "a", "f", '{"x"'), call(0, "other", None, ": 1}"), call(1, "b", "g", "{}")],
        [{"tool_calls": [*call(None, "a", "f", '{"x": 1}')["tool_calls"], *call(None, "b", "g", None)["tool_calls"]]}],
    ],
    ids=["mixed", "no index", "by id", "one index", "name repeated", "id changes", "whole"],
)
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_tool_calls_come_together_from_every_kind_of_server(deltas: list[JSON], finish: str) -> None:
    reply = reply_to(OpenAIChat, chat(*deltas, finish=finish))
    assert reply.message.parts == (ToolCall(id="a", name="f", arguments='{"x": 1}'), ToolCall(id="b", name="g", arguments="{}"))
    assert reply.stop == "tool_use"


def test_calls_without_ids_get_ids_that_are_the_same_every_time() -> None:
    chunks = chat(call(0, None, "f", "{}"), call(1, None, "g", "{}"))
    ids = [part.id for part in reply_to(OpenAIChat, chunks).message.tool_calls]
    assert ids == [part.id for part in reply_to(OpenAIChat, chunks).message.tool_calls]
    assert len(set(ids)) == 2 and all(ids)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_of_a_compatible_server_are_kept_and_stay_at_home(field: str) -> None:
    reply = reply_to(OpenAIChat, chat({"content": "", field: "think "}, {field: "hard"}, {"content": "Hi"}))
    assert reply.message.parts == (Thinking(text="think hard"), Text(text="Hi"))
    sent = OpenAIChat(base_url="http://localhost/v1").preview(request(user("hi"), reply.message))
    assert sent["messages"][1] == {"role": "assistant", "content": "Hi"}


def test_an_endpoint_gets_its_thoughts_and_signatures_back() -> None:
    first = {"type": "reasoning.text", "text": "think ", "index": 0}
    last = {"type": "reasoning.text", "text": "hard", "index": 0, "signature": "s"}
    piece = {**call(0, "a", "f", "{}")["tool_calls"][0], "extra_content": {"google": {"thought_signature": "t"}}}
    deltas = (
        {"reasoning": "think ", "reasoning_details": [first]},
        {"reasoning": "hard", "reasoning_details": [last]},
        {"tool_calls": [piece]},
    )
    reply = reply_to(OpenAIChat, chat(*deltas, finish="tool_calls"))
    asked = request(user("hi"), reply.message)
    function = {"name": "f", "arguments": "{}"}
    details = [{"type": "reasoning.text", "text": "think hard", "index": 0, "signature": "s"}]
    assert from_program(Program(provider="openrouter")).preview(asked)["messages"][1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "type": "function", "extra_content": {"google": {"thought_signature": "t"}}, "function": function}],
        "reasoning_details": details,
    }
    assert from_program(Program(provider="deepseek")).preview(asked)["messages"][1]["reasoning_content"] == "think hard"
    assert OpenAIChat().preview(asked)["messages"][1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "type": "function", "function": function}],
    }


@pytest.mark.parametrize(
    ("finish", "stop", "detail"), [("length", "max_tokens", None), ("content_filter", "refusal", "content_filter"), ("eos", "other", None)]
)
def test_a_finish_reason_becomes_a_stop(finish: str, stop: str, detail: str | None) -> None:
    reply = reply_to(OpenAIChat, chat({"content": "Hi"}, finish=finish))
    assert (reply.stop, reply.detail, reply.raw_stop) == (stop, detail, finish)


def test_a_refusal_goes_back_as_one() -> None:
    reply = reply_to(OpenAIChat, chat({"refusal": "No, "}, {"refusal": "never."}))
    assert (reply.stop, reply.detail, reply.message.text) == ("refusal", "No, never.", "No, never.")
    assert OpenAIChat().preview(request(user("hi"), reply.message))["messages"][1] == {
        "role": "assistant",
        "content": None,
        "refusal": "No, never.",
    }


def test_a_missing_end_mark_is_no_fault_after_a_finish_reason_and_the_other_way_round() -> None:
    assert reply_to(OpenAIChat, chat({"content": "Hi"}, done=False)).message.text == "Hi"
    assert reply_to(OpenAIChat, chat({"content": "Hi"}, finish=None)).stop == "end_turn"
    assert fault_of(OpenAIChat, Answer(chunks=chat({"content": "Hi"}, finish=None, done=False)))[::2] == (errors.GarbledReply, "Hi")


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"prompt_tokens": 9, "completion_tokens": None, "prompt_tokens_details": None}, Usage(requests=1, input_tokens=9)),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 21, "completion_tokens_details": {"reasoning_tokens": 10}},
            Usage(requests=1, input_tokens=9, output_tokens=12, reasoning_tokens=10),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 5}},
            Usage(requests=1, input_tokens=9, output_tokens=2, cache_read_tokens=4, cache_write_tokens=5),
        ),
    ],
)
def test_counts_may_be_missing_or_null(counts: JSON, usage: Usage) -> None:
    assert reply_to(OpenAIChat, chat({"content": "Hi"}, usage=counts)).usage == usage


@BOTH
def test_a_whole_json_answer_to_a_streaming_request_is_a_reply(kind: type[Driver]) -> None:
    if kind is OpenAIResponses:
        body = openai_responses_text("Hello")[-1]["response"]
    else:
        body = {"id": "c", "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}
    got, _ = answered(kind, Answer(body=body))
    assert isinstance(got, Reply) and (got.message.text, got.stop) == ("Hello", "end_turn")


@BOTH
def test_pieces_reach_the_reader_as_they_come(kind: type[Driver]) -> None:
    heard: list[Delta] = []
    with LoopbackServer(lambda seen, n: Answer(chunks=text_of(kind, "Hello there"))) as server:
        reply = with_provider(kind, server, lambda provider: provider.ask(request(), Draft(kind.api, heard.append)))
    assert "".join(delta.text for delta in heard if delta.kind == "text") == "Hello there" == reply.message.text
    assert len(heard) == 3


@BOTH
def test_what_the_api_says_it_still_takes_is_heard(kind: type[Driver]) -> None:
    _, draft = answered(kind, Answer(chunks=text_of(kind, "ok"), headers={"x-ratelimit-remaining-requests": "7"}))
    assert draft.requests_left == 7


@BOTH
def test_one_connection_serves_many_turns(kind: type[Driver]) -> None:
    with LoopbackServer(lambda seen, n: Answer(chunks=text_of(kind, "ok"))) as server:

        async def use(provider: Driver) -> None:
            for _ in range(5):
                await provider.ask(request(), Draft(kind.api))

        with_provider(kind, server, use)
        assert (len(server.seen), server.connections) == (5, 1)


@BOTH
def test_one_provider_can_be_asked_from_one_loop_after_another(kind: type[Driver]) -> None:
    with LoopbackServer(lambda seen, n: Answer(chunks=text_of(kind, f"number {n}"))) as server:
        provider = kind(base_url=f"{server.url}/v1", api_key="k")
        assert [asyncio.run(provider.ask(request(), Draft(kind.api))).message.text for _ in range(2)] == ["number 0", "number 1"]


@BOTH
def test_a_lone_surrogate_is_replaced_and_can_be_sent_back(kind: type[Driver]) -> None:
    chunks = [chunk.replace(b"MARK", b"\\ud800!") for chunk in text_of(kind, "xxxx MARK xxxx")]
    reply = reply_to(kind, chunks)
    assert reply.message.text == "xxxx \N{REPLACEMENT CHARACTER}! xxxx"
    assert kind().preview(request(user("hi"), reply.message))


# faults


@BOTH
@pytest.mark.parametrize(
    ("status", "error", "kind_of_error"),
    [
        (400, {"message": "too long", "code": "context_length_exceeded"}, errors.ContextTooLong),
        (400, {"message": "bad"}, errors.RequestRefused),
        (401, {"message": "wrong key", "code": "invalid_api_key"}, errors.AuthError),
        (404, {"message": "no such model", "code": "model_not_found"}, errors.ModelNotFound),
        (429, {"message": "slow down", "code": "rate_limit_exceeded"}, errors.RateLimited),
        (429, {"message": "pay", "code": "insufficient_quota", "type": "insufficient_quota"}, errors.QuotaExhausted),
        (500, {"message": "oops", "type": "server_error"}, errors.ServerFailed),
        (503, {"message": "full"}, errors.Overloaded),
    ],
)
def test_a_status_becomes_an_error_of_the_tree(kind: type[Driver], status: int, error: JSON, kind_of_error: type[ProviderError]) -> None:
    got, _ = answered(kind, Answer(status=status, body={"error": error}, headers={"retry-after": "7", "x-request-id": "req_1"}))
    assert type(got) is kind_of_error and isinstance(got, ProviderError)
    assert (got.status, got.retry_after_s, got.request_id) == (status, 7.0, "req_1")
    assert error["message"] in str(got) and "sk-test" not in str(got)


@BOTH
@pytest.mark.parametrize("status", [400, 502])
def test_a_status_with_a_page_of_html_is_an_error_too(kind: type[Driver], status: int) -> None:
    got = fault_of(kind, Answer(status=status, body="<html>no</html>", headers={"content-type": "text/html"}))
    assert got[0] is (errors.RequestRefused if status == 400 else errors.ServerFailed)


STATED = [
    ({"message": "pay", "code": "insufficient_quota"}, errors.QuotaExhausted),
    ({"message": "busy", "code": "server_error"}, errors.ServerFailed),
    ({"message": "slow", "code": 429}, errors.RateLimited),
    ({"message": "gone", "code": 502}, errors.ServerFailed),
    ({"message": "no such image", "code": "invalid_image_url"}, errors.RequestRefused),
    ({"message": "bad prompt", "code": "invalid_prompt"}, errors.RequestRefused),
    ("just words", errors.ServerFailed),
]


@BOTH
@pytest.mark.parametrize(("error", "kind_of_error"), STATED)
def test_an_error_inside_a_stream_ends_it_and_keeps_what_was_said(
    kind: type[Driver], error: Any, kind_of_error: type[ProviderError]
) -> None:
    text = text_of(kind, "Hello there")
    cut = next(n for n, chunk in enumerate(text) if b"there" in chunk or b"ell" in chunk) + 1
    event = {"type": "error", "error": error} if kind is OpenAIResponses else {"error": error}
    got = fault_of(kind, Answer(chunks=[*text[:cut], f"data: {json.dumps(event)}\n\n".encode(), b"data: [DONE]\n\n"]))
    assert got[0] is kind_of_error
    assert (error if isinstance(error, str) else error["message"]) in got[1]
    assert got[2] and "Hello there".startswith(got[2])


@BOTH
def test_an_error_as_the_whole_answer_with_status_200_is_an_error(kind: type[Driver]) -> None:
    assert fault_of(kind, Answer(body={"error": {"message": "slow", "code": "rate_limit_exceeded"}}))[0] is errors.RateLimited


def test_a_failed_response_is_an_error_by_its_code() -> None:
    *begin, end = openai_responses(TEXT_ITEM, status="failed")
    end["response"]["error"] = {"code": "rate_limit_exceeded", "message": "slow down"}
    assert fault_of(OpenAIResponses, Answer(chunks=sse([*begin, end])))[::2] == (errors.RateLimited, "Hello there")


@BOTH
@pytest.mark.parametrize("then", ["cut", "reset"])
def test_a_broken_connection_keeps_what_was_said(kind: type[Driver], then: Any) -> None:
    text = text_of(kind, "Hello there")
    cut = next(n for n, chunk in enumerate(text) if b"Hell" in chunk) + 1
    got = fault_of(kind, Answer(chunks=text[:cut], then=then, delay_s=0.01))
    assert got[0] is errors.ConnectionLost
    assert "Hello there".startswith(got[2])


@BOTH
@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [b"\n\n"],
        [b": ping\n\n"],
        [b"data: {]\n\n"],
        [b"data: 7\n\n"],
        [b"data: " + b"[" * 100_000 + b"\n\n"],
        [b"<!doctype html><p>Sign in</p>"],
        [b"Bad gateway"],
        [b'{"id": "x", "choi'],
        [b'data: {"id": "x"}\n\n', b"data: [DONE]\n\n"],
    ],
    ids=["nothing", "blank", "comment", "no JSON", "a number", "deep", "HTML", "words", "half an object", "only an end"],
)
def test_what_is_no_answer_is_called_garbled(kind: type[Driver], chunks: list[bytes]) -> None:
    assert fault_of(kind, Answer(chunks=chunks))[0] is errors.GarbledReply


@pytest.mark.parametrize("then", ["reset", "cut", "hang"])
def test_what_happens_after_the_end_mark_does_not_matter(then: Any) -> None:
    began = time.monotonic()
    got, _ = answered(OpenAIChat, Answer(chunks=text_of(OpenAIChat, "Hello"), then=then, delay_s=0.01))
    assert isinstance(got, Reply) and got.message.text == "Hello"
    assert time.monotonic() - began < 2


def test_a_proxy_that_answers_in_words_is_quoted() -> None:
    got = fault_of(OpenAIChat, Answer(chunks=[b"upstream connect error"]))
    assert got[:2] == (
        errors.GarbledReply,
        "openai gpt-4.1: the answer is no event stream: 'upstream connect error'; base_url leads to the API. Check it.",
    )


@BOTH
def test_halves_of_a_character_in_two_pieces_are_joined(kind: type[Driver]) -> None:
    chunks = [chunk.replace(b"AAA", b"\\ud83c").replace(b"BBB", b"\\udf88") for chunk in text_of(kind, "AAABBB...")]
    assert reply_to(kind, chunks).message.text == "🎈..."


@BOTH
def test_a_stream_that_ends_early_is_garbled_however_politely_it_ends(kind: type[Driver]) -> None:
    text = text_of(kind, "Hello there")
    cut = next(n for n, chunk in enumerate(text) if b"Hell" in chunk) + 1
    got = fault_of(kind, Answer(chunks=text[:cut]))
    assert got[0] is errors.GarbledReply and "Hello there".startswith(got[2])


@BOTH
def test_a_server_that_says_nothing_more_times_out(kind: type[Driver]) -> None:
    text = text_of(kind, "Hello there")
    assert fault_of(kind, Answer(chunks=text[:3], then="hang"), timeout_s=0.2)[0] is errors.TimedOut


@BOTH
def test_nobody_there_is_unreachable(kind: type[Driver]) -> None:
    with LoopbackServer(lambda seen, n: Answer()) as server:
        url = server.url

    async def run() -> None:
        provider = kind(base_url=url, api_key="k")
        with pytest.raises(errors.Unreachable):
            await provider.ask(request(), Draft(kind.api))
        await provider.close()

    asyncio.run(run())


@BOTH
def test_a_cancelled_request_closes_its_connection_at_once(kind: type[Driver]) -> None:
    text = text_of(kind, "Hello there")
    draft = Draft(kind.api)
    with LoopbackServer(lambda seen, n: Answer(chunks=text[:4], then="hang")) as server:

        async def use(provider: Driver) -> float:
            task = asyncio.ensure_future(provider.ask(request(), draft))
            while not draft:
                await asyncio.sleep(0.01)
            task.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not server.dropped and time.monotonic() < began + 2:
                await asyncio.sleep(0.01)
            return time.monotonic() - began

        assert with_provider(kind, server, use) < 0.5
        assert server.dropped == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False) | st.sampled_from(["", "x", "text", "{"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "id", "text", "name"]), inner, max_size=2),
    max_leaves=4,
)
item_kinds = st.sampled_from(["message", "reasoning", "function_call", "custom_tool_call", "odd", "output_text", "refusal"])
item_fields = ("content", "summary", "arguments", "input", "call_id", "id", "name", "encrypted_content", "text", "refusal")
item = st.builds(
    lambda kind, rest: {"type": kind, **rest},
    item_kinds,
    st.dictionaries(
        st.sampled_from(item_fields), values | st.lists(st.dictionaries(st.sampled_from(item_fields), values), max_size=2), max_size=4
    ),
)
event_kinds = st.sampled_from(
    [
        *(
            f"response.{word}"
            for word in ("created", "completed", "incomplete", "failed", "output_text.delta", "reasoning_summary_part.added")
        ),
        *("response.output_item.added", "response.output_item.done", "error", "odd", ""),
    ]
)
whole = st.dictionaries(
    st.sampled_from(["output", "usage", "error", "id", "model", "incomplete_details"]), values | st.lists(item, max_size=2)
)
odd_events = st.builds(
    lambda kind, rest: {"type": kind, **rest},
    event_kinds,
    st.dictionaries(
        st.sampled_from(["output_index", "item", "delta", "response", "output", "status", "summary_index"]),
        values | item | whole,
        max_size=4,
    ),
)
pieces = st.dictionaries(st.sampled_from(["index", "id", "function", "custom", "type", "name", "arguments"]), values, max_size=4)
deltas = st.dictionaries(
    st.sampled_from(["content", "tool_calls", "reasoning", "reasoning_details", "refusal", "function_call", "audio"]),
    values | st.lists(pieces, max_size=2) | pieces,
    max_size=3,
)
choices = st.dictionaries(st.sampled_from(["index", "delta", "message", "finish_reason", "error", "usage"]), values | deltas, max_size=3)
odd_chunks = st.dictionaries(
    st.sampled_from(["id", "model", "choices", "usage", "error", "detail", "x_groq"]), values | st.lists(choices, max_size=2), max_size=4
)


def is_readable(kind: type[Driver], stream: Any, draft: Draft, events: list[JSON]) -> None:
    try:
        for event in events:
            stream.take("", json.dumps(event).encode())
    except ProviderError:
        pass
    message = cleaned(draft.message(interrupted=True))
    assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message
    kind().preview(request(user("x"), message))


@hypothesis.settings(max_examples=300)
@given(st.lists(odd_events, max_size=8))
def test_events_without_any_sense_end_in_an_error_of_ours_and_a_draft_that_can_be_read(events: list[JSON]) -> None:
    draft = Draft("openai-responses")
    is_readable(OpenAIResponses, responses.Stream(draft, "here"), draft, [*openai_responses_text("x")[:4], *events])


@hypothesis.settings(max_examples=300)
@given(st.lists(odd_chunks, max_size=8))
def test_chunks_without_any_sense_end_in_an_error_of_ours_and_a_draft_that_can_be_read(chunks_: list[JSON]) -> None:
    draft = Draft("openai-chat")
    is_readable(OpenAIChat, chunks.Stream(draft, "here", "call"), draft, [*openai_chat_text("x")[:2], *chunks_])


# keys and endpoints


@BOTH
def test_a_missing_key_names_its_variable_and_sends_nothing(kind: type[Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with LoopbackServer(lambda seen, n: Answer(chunks=text_of(kind, "ok"))) as server:
        ask = lambda provider: provider.ask(request(), Draft(kind.api))  # noqa: E731
        with pytest.raises(errors.AuthError, match="OPENAI_API_KEY"):
            with_provider(kind, server, ask, api_key=None)
        assert server.seen == []
        monkeypatch.setenv("OPENAI_API_KEY", "sk-late")
        assert with_provider(kind, server, ask, api_key=None).message.text == "ok"


def test_a_server_at_home_needs_no_key_and_gets_nothing_of_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "secret")
    with LoopbackServer(lambda seen, n: Answer(chunks=text_of(OpenAIChat, "ok"))) as server:

        async def run() -> None:
            provider = from_program(Program(provider="ollama", base_url=f"{server.url}/v1"))
            assert (await provider.ask(request(model="llama3", max_tokens=5), Draft(provider.api))).message.text == "ok"
            await provider.close()

        asyncio.run(run())
        seen = server.seen[0]
    assert seen.path == "/v1/chat/completions" and seen.body["max_tokens"] == 5
    assert "secret" not in str(seen.headers) and "authorization" not in seen.headers


@pytest.mark.parametrize(
    ("provider", "base_url", "kind"),
    [
        ("openai", None, OpenAIResponses),
        ("openai", "https://eu.api.openai.com/v1", OpenAIResponses),
        ("openai", "http://localhost:8000/v1", OpenAIChat),
        ("openai_chat", None, OpenAIChat),
        ("openai_response", None, OpenAIResponses),
        ("openai_responses", "http://localhost:8000/v1", OpenAIResponses),
        *((name, None, OpenAIChat) for name in ENDPOINTS),
    ],
)
def test_a_name_and_an_address_choose_the_api(
    provider: str, base_url: str | None, kind: type[Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    made = from_program(Program(provider=provider, base_url=base_url, api_key_env="MY_KEY"))
    assert (type(made), made.name, made.scripted) == (kind, provider, False)


def test_gemini_takes_its_key_from_either_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(**fields: Any) -> str:
        async def run() -> None:
            provider = from_program(Program(provider="gemini", base_url=f"{server.url}/v1", **fields))
            await provider.ask(request(model="gemini-3-pro"), Draft(provider.api))
            await provider.close()

        with LoopbackServer(lambda seen, n: Answer(chunks=text_of(OpenAIChat, "ok"))) as server:
            asyncio.run(run())
            return server.seen[0].headers["authorization"]

    with pytest.raises(errors.AuthError, match=r"no API key in GEMINI_API_KEY or GOOGLE_API_KEY\. Set GEMINI_API_KEY in"):
        sent()
    monkeypatch.setenv("GOOGLE_API_KEY", "google")
    assert sent() == "Bearer google"
    monkeypatch.setenv("GEMINI_API_KEY", "gemini")
    assert sent() == "Bearer gemini"
    with pytest.raises(errors.AuthError, match=r"no API key in MY_KEY\. "):  # a name that the program gives is the only one
        sent(api_key_env="MY_KEY")


def test_an_address_in_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert type(from_program(Program(provider="openai"))) is OpenAIChat


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_served_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(ProgramError, match="use provider '"):
        from_program(Program(provider=name))
    assert name not in ENDPOINTS


@pytest.mark.parametrize("base_url", ["localhost:11434", "http://", "http://[bad", "ftp://host"])
def test_an_address_that_is_none_is_a_persons_error(base_url: str) -> None:
    with pytest.raises(PersonError, match="starts with http"):
        OpenAIChat(base_url=base_url)


def test_a_key_that_cannot_be_one_is_not_told() -> None:
    got, _ = answered(OpenAIChat, Answer(), api_key="sk-se\ncret")
    assert isinstance(got, errors.AuthError) and "cret" not in repr(got)
    kept, _ = answered(OpenAIChat, Answer(chunks=text_of(OpenAIChat, "ok")), api_key="sk-test\n")
    assert isinstance(kept, Reply)


def test_importing_the_drivers_loads_no_sdk() -> None:
    code = (
        "import sys, llmproc_nb.drivers.openai, llmproc_nb.drivers.endpoints\n"
        "print([name for name in ('openai', 'httpx2', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
