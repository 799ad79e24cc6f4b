"""The Anthropic driver against a loopback server that behaves well, badly and worse."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproc_nb.core import errors
from llmproc_nb.core.dialog import Dialog, Node
from llmproc_nb.core.message import Document, Image, Message, Opaque, Text, Thinking, ToolCall, ToolResult, system, user
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import Config, Delta, Draft, Reply, Request, Settings, ToolSpec
from llmproc_nb.core.usage import Usage
from llmproc_nb.drivers.anthropic import AnthropicProvider, AnthropicVertexProvider, from_program, left_out
from llmproc_nb.drivers.anthropic.stream import Collector
from llmproc_nb.drivers.anthropic.wire import VERTEX_VERSION
from tests.servers import Answer, LoopbackServer, Seen, anthropic_message, anthropic_text, anthropic_tools, sse

JSON = dict[str, Any]
NO_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_PROFILE", "ANTHROPIC_CUSTOM_HEADERS")
ADD = ToolSpec(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})


def chain(*messages: Message) -> Node:
    """The last node of a dialog of these messages."""
    head: Node | None = None
    dialog = Dialog()
    for message in messages:
        head, _ = dialog.append(message, head)
    assert head is not None
    return head


def request(*messages: Message, model: str = "claude-test", tools: tuple[ToolSpec, ...] = (), **chosen: Any) -> Request:
    return Request(path=chain(*(messages or (user("hi"),))).path(), config=Config(model=model, tools=tools, settings=Settings(**chosen)))


def ask(url: str, *requests: Request, draft: Draft | None = None, **how: Any) -> list[Reply]:
    """The replies to these requests, asked one after the other by one provider."""

    async def run() -> list[Reply]:
        provider = AnthropicProvider(base_url=url, **{"api_key": "k", **how})
        try:
            return [await provider.ask(one, Draft("anthropic") if draft is None else draft) for one in requests]
        finally:
            await provider.close()

    return asyncio.run(run())


def answered(answer: Answer, draft: Draft | None = None, **how: Any) -> Reply:
    """The reply to one request that is answered so."""
    with LoopbackServer(lambda seen, n: answer) as server:
        (reply,) = ask(server.url, request(), draft=draft, **how)
    return reply


def refused(answer: Answer, draft: Draft | None = None, **how: Any) -> errors.ProviderError:
    """The error of one request that is answered so."""
    with pytest.raises(errors.ProviderError) as caught:
        answered(answer, draft, **how)
    return caught.value


def call(call_id: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(id=call_id, name="add", arguments=arguments)


def result(call_id: str, text: str = "3") -> ToolResult:
    return ToolResult(call_id=call_id, name="add", content=(Text(text=text),))


def assistant(*parts: Any, **more: Any) -> Message:
    return Message(role="assistant", parts=parts, api="anthropic", **more)


def results(*parts: Any) -> Message:
    return Message(role="tool", parts=parts)


def preview(one: Request, **how: Any) -> JSON:
    return AnthropicProvider(**how).preview(one)


# replies


def test_a_streamed_text_is_a_whole_reply_and_its_pieces_reach_the_reader() -> None:
    read: list[Delta] = []
    usage = {"input_tokens": 3, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 7, "output_tokens": 9}
    counts = {**usage, "cache_creation": {"ephemeral_1h_input_tokens": 2, "ephemeral_5m_input_tokens": 5}}
    reply = answered(Answer(chunks=sse(anthropic_text("hello world", usage=counts))), Draft("x", read.append))
    assert reply == Reply(
        message=Message(role="assistant", api="anthropic", parts=(Text(text="hello world"),)),
        stop="end_turn",
        raw_stop="end_turn",
        usage=Usage(requests=1, input_tokens=50, output_tokens=9, cache_read_tokens=40, cache_write_tokens=7, cache_write_1h_tokens=2),
        model="claude-test",
        id="msg_1",
    )
    assert "".join(delta.text for delta in read) == "hello world"
    assert len(read) > 1


def test_tool_calls_keep_the_text_of_their_arguments() -> None:
    calls: list[tuple[str, str, JSON | str]] = [("t1", "add", '{"a": 1.50}'), ("t2", "add", '{"a": '), ("t3", "add", {})]
    reply = answered(Answer(chunks=sse(anthropic_tools(calls, text="I add."))))
    assert reply.stop == "tool_use"
    assert reply.message.parts == (Text(text="I add."), call("t1", '{"a": 1.50}'), call("t2", '{"a": '), call("t3"))


def test_a_whole_message_instead_of_a_stream_is_a_reply() -> None:
    content = [{"type": "text", "text": "hello"}, {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}}]
    body = {"type": "message", "id": "m", "model": "claude-x", "role": "assistant", "content": content, "stop_reason": "tool_use"}
    for answer in (
        Answer(body={**body, "usage": {"input_tokens": 1, "output_tokens": None}}),
        Answer(body=json.dumps(body), headers={"content-type": "text/plain"}),
        Answer(chunks=[json.dumps(body).encode()]),
    ):
        reply = answered(answer)
        assert reply.message == assistant(Text(text="hello"), call("t1", '{"a":1}'))
        assert (reply.stop, reply.model) == ("tool_use", "claude-x")


def test_a_stream_that_calls_itself_text_is_read_all_the_same() -> None:
    body = b"".join(sse(anthropic_text("hello")))
    assert answered(Answer(body=body, headers={"content-type": "text/plain"})).message.text == "hello"


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_line_ends_and_cuts_of_a_stream_do_not_matter(ends: bytes, size: int) -> None:
    body = b"".join([b": a comment\n\n", *sse(anthropic_text("grüße 🎈 end"))]).replace(b"\n", ends)
    body = body.replace(b"gr\\u00fc\\u00dfe", "grüße".encode())
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    assert answered(Answer(chunks=chunks)).message.text == "grüße 🎈 end"


def test_unknown_events_blocks_and_pieces_do_not_break_a_reply() -> None:
    events = anthropic_text("hello")
    odd = {"type": "crystal", "shape": "cube", "note": None}
    events[1:1] = [
        {"type": "weather", "index": 7},
        {"type": "content_block_start", "index": 9, "content_block": odd},
        {"type": "content_block_delta", "index": 9, "delta": {"type": "crystal_delta", "note": "shi", "side": 2}},
        {"type": "content_block_delta", "index": 9, "delta": {"type": "crystal_delta", "note": "ny"}},
        {"type": "content_block_stop", "index": 9},
    ]
    events.insert(-3, {"type": "content_block_delta", "index": 0, "delta": {"type": "sparkle_delta", "sparkle": "*"}})
    reply = answered(Answer(chunks=[b"data: [DONE]\n\n", b"data: 7\n\n", *sse(events)]))
    assert reply.message == assistant(Opaque(body={**odd, "note": "shiny", "side": 2}), Text(text="hello"))


def test_server_tools_citations_and_callers_survive_a_round_trip() -> None:
    content: list[JSON] = [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "grüße"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result", "url": "u", "page_age": None}]},
        {"type": "text", "text": "cited", "citations": [{"type": "char_location", "cited_text": "c", "start_char_index": 0}]},
        {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}, "caller": {"type": "code_execution_20250825", "tool_id": "s"}},
        {"type": "compaction", "content": "short", "encrypted_content": "e"},
    ]
    reply = answered(Answer(chunks=sse(anthropic_message(content))))
    assert preview(request(user("hi"), reply.message), prompt_caching=False)["messages"][1] == {"role": "assistant", "content": content}


def test_numbers_that_are_none_and_broken_letters_do_not_reach_the_dialog() -> None:
    block = '{"type":"odd","n":NaN,"m":1e999,"s":"\\udc00"}'
    body = b"".join(sse(anthropic_message([{"type": "odd"}]))).replace(b'{"type": "odd"}', block.encode())
    assert answered(Answer(chunks=[body])).message.parts == (Opaque(body={"type": "odd", "n": None, "m": None, "s": "\ufffd"}),)


def test_citations_that_come_in_pieces_are_kept_in_order() -> None:
    events = anthropic_text("cited")
    events[3:3] = [{"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {"n": n}}} for n in (1, 2)]
    (part,) = answered(Answer(chunks=sse(events))).message.parts
    assert part == Text(text="cited", extra={"citations": [{"n": 1}, {"n": 2}]})


def test_blocks_that_all_have_the_index_zero_stay_apart() -> None:
    events = anthropic_message([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])
    reply = answered(Answer(chunks=sse([{**event, "index": 0} if "index" in event else event for event in events])))
    assert reply.message.parts == (Text(text="one"), Text(text="two"))


def test_halves_of_a_character_in_two_pieces_are_joined_and_lone_ones_replaced() -> None:
    events = anthropic_text("ab")
    deltas = [event for event in events if event["type"] == "content_block_delta"]
    deltas[0]["delta"]["text"], deltas[1]["delta"]["text"] = "\ud83c", "\udf88 \udc00"
    assert answered(Answer(chunks=sse(events))).message.text == "🎈 \ufffd"


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("end_turn", "end_turn"),
        ("tool_use", "tool_use"),
        ("max_tokens", "max_tokens"),
        ("stop_sequence", "stop_sequence"),
        ("refusal", "refusal"),
        ("pause_turn", "pause_turn"),
        ("compaction", "pause_turn"),
        ("model_context_window_exceeded", "context_window"),
        ("sunset", "other"),
    ],
)
def test_every_stop_reason_has_our_word_and_keeps_its_own(reason: str, stop: str) -> None:
    reply = answered(Answer(chunks=sse(anthropic_text("x", stop=reason))))
    assert (reply.stop, reply.raw_stop) == (stop, reason)


def test_a_refusal_says_why() -> None:
    events = anthropic_message([], stop="refusal")
    events[-2]["delta"]["stop_details"] = {"type": "refusal", "category": "bio", "explanation": "No."}
    assert answered(Answer(chunks=sse(events))).detail == "bio: No."


def test_what_the_server_spent_on_shortening_is_counted() -> None:
    aside = {"type": "compaction", "input_tokens": 1000, "output_tokens": 50, "cache_read_input_tokens": 5}
    usage: JSON = {
        "input_tokens": 10,
        "output_tokens": 5,
        "iterations": [aside, {"type": "message", "input_tokens": 10, "output_tokens": 5}],
    }
    usage["output_tokens_details"] = {"thinking_tokens": 4}
    reply = answered(Answer(chunks=sse(anthropic_text("x", usage=usage))))
    assert reply.usage == Usage(requests=1, input_tokens=1015, output_tokens=55, cache_read_tokens=5, reasoning_tokens=4)


# answers that are no replies


def test_a_connection_that_is_reset_keeps_what_was_said_and_spent() -> None:
    for then in ("reset", "cut"):
        draft = Draft("anthropic")
        error = refused(Answer(chunks=sse(anthropic_text("hello world"))[:4], then=then, delay_s=0.02), draft)  # type: ignore[arg-type]
        assert (type(error), error.retryable) == (errors.ConnectionLost, True)
        assert draft.message(interrupted=True) == assistant(Text(text="hello wo"), interrupted=True)
        assert draft.usage.input_tokens == 10


def test_a_stream_that_ends_in_the_middle_is_garbled() -> None:
    draft = Draft("anthropic")
    error = refused(Answer(chunks=sse(anthropic_text("hello world"))[:4]), draft)
    assert type(error) is errors.GarbledReply
    assert "ended in the middle" in str(error)
    assert draft.message().text == "hello wo"


def test_a_reply_that_is_whole_does_not_wait_for_a_server_that_hangs() -> None:
    began = time.monotonic()
    assert answered(Answer(chunks=sse(anthropic_text("hello")), then="hang")).message.text == "hello"
    assert answered(Answer(chunks=sse(anthropic_text("hello")), then="reset")).message.text == "hello"
    assert time.monotonic() - began < 5


def test_silence_between_pieces_ends_in_a_timeout() -> None:
    draft = Draft("anthropic")
    error = refused(Answer(chunks=sse(anthropic_text("hello world"))[:3], then="hang"), draft, timeout_s=0.2)
    assert (type(error), draft.message().text) == (errors.TimedOut, "hell")
    assert type(refused(Answer(then="hang"), timeout_s=0.2)) is errors.TimedOut


def test_a_slow_stream_is_no_timeout_as_long_as_pieces_come() -> None:
    assert answered(Answer(chunks=sse(anthropic_text("hello")), delay_s=0.08), timeout_s=0.4).message.text == "hello"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b""),
        Answer(body="<html><body>Sign in to the hotel's network</body></html>", headers={"content-type": "text/html"}),
        Answer(body='{"type": "mess', headers={"content-type": "application/json"}),
        Answer(body={"id": "chatcmpl-1", "choices": []}),
        Answer(body="[" * 20_000, headers={"content-type": "application/json"}),
        Answer(chunks=[]),
        Answer(chunks=[b"<html>Sign in</html>"]),
        Answer(chunks=[b"data: {not json\n\n"]),
        Answer(chunks=[b"data: " + b"[" * 20_000 + b"\n\n"]),
        Answer(chunks=sse([{"type": "message_start"}])),
        Answer(chunks=sse([{"type": "content_block_start", "index": 0}])),
        Answer(chunks=sse([{"type": "content_block_start", "index": 0, "content_block": "text"}])),
        Answer(chunks=sse([*anthropic_text("x")[:1], {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta"}}])),
        Answer(chunks=sse([*anthropic_text("x")[:2], {"type": "content_block_delta", "index": 0, "delta": None}])),
        Answer(chunks=sse([*anthropic_text("x")[:2], {"type": "content_block_delta", "index": [0], "delta": {}}])),
        Answer(body=b"no gzip", headers={"content-encoding": "gzip", "content-type": "text/event-stream"}),
    ],
)
def test_an_answer_that_is_no_reply_is_garbled(answer: Answer) -> None:
    error = refused(answer)
    assert type(error) is errors.GarbledReply
    assert str(error).startswith("anthropic claude-test: ")
    assert len(str(error)) < 400


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "x", "text", "{"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "id", "n"]), inner, max_size=2),
    max_leaves=4,
)
names = ("index", "delta", "content_block", "message", "usage", "error", "content")
kinds = ("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "error", "x")
blocks = ("text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "text_delta", "input_json_delta", "citations_delta")
fields = (
    "text",
    "thinking",
    "signature",
    "input",
    "id",
    "name",
    "citations",
    "citation",
    "partial_json",
    "data",
    "iterations",
    "cache_creation",
)
inner = st.dictionaries(st.sampled_from(fields), values, max_size=4)
typed = st.builds(lambda kind, rest: {"type": kind, **rest}, st.sampled_from(blocks), inner)
odd_events = st.builds(
    lambda kind, rest: {"type": kind, **rest},
    st.sampled_from(kinds),
    st.dictionaries(st.sampled_from(names), values | typed | inner | st.integers(0, 1), max_size=4),
)


@settings(max_examples=200)
@given(st.lists(odd_events, max_size=12))
def test_events_without_any_sense_end_in_an_error_of_ours_and_a_draft_that_can_be_read(events: list[JSON]) -> None:
    draft = Draft("anthropic")
    collector = Collector(draft, "here")
    try:
        for event in [*anthropic_text("x")[:2], *events]:
            collector.feed(event)
    except errors.ProviderError:
        pass
    message = draft.message(interrupted=True)
    assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message
    preview(request(user("x"), message))


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("overloaded_error", errors.Overloaded),
        ("rate_limit_error", errors.RateLimited),
        ("api_error", errors.ServerFailed),
        ("billing_error", errors.QuotaExhausted),
        ("sunset_error", errors.ServerFailed),
    ],
)
def test_an_error_inside_a_stream_is_told_by_its_type(word: str, kind: type[errors.ProviderError]) -> None:
    event = {"type": "error", "error": {"type": word, "message": "Not now"}, "request_id": "req_7"}
    draft = Draft("anthropic")
    error = refused(Answer(chunks=sse([*anthropic_text("hello world")[:4], event])), draft)
    assert (type(error), error.found, error.status, error.request_id) == (kind, "Not now", None, "req_7")
    assert draft.message().text == "hello wo"


def test_an_error_event_without_json_is_an_error() -> None:
    assert "upstream went away" in str(refused(Answer(chunks=[b"event: error\ndata: upstream went away\n\n"])))


@pytest.mark.parametrize(
    ("status", "word", "message", "kind"),
    [
        (401, "authentication_error", "invalid x-api-key", errors.AuthError),
        (403, "permission_error", "no", errors.AuthError),
        (404, "not_found_error", "model: claude-nope", errors.ModelNotFound),
        (400, "invalid_request_error", "max_tokens: too many", errors.RequestRefused),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", errors.ContextTooLong),
        (413, "request_too_large", "too large", errors.RequestRefused),
        (429, "rate_limit_error", "slow down", errors.RateLimited),
        (500, "api_error", "oops", errors.ServerFailed),
        (529, "overloaded_error", "Overloaded", errors.Overloaded),
    ],
)
def test_a_status_becomes_the_error_of_its_kind(status: int, word: str, message: str, kind: type[errors.ProviderError]) -> None:
    body = {"type": "error", "error": {"type": word, "message": message}}
    headers = {"request-id": "req_1", "retry-after": "7"}
    with LoopbackServer(lambda seen, n: Answer(status=status, body=body, headers=headers)) as server:
        with pytest.raises(errors.ProviderError) as caught:
            ask(server.url, request())
        assert len(server.seen) == 1  # nobody but the call asks again
    error = caught.value
    assert (type(error), error.status, error.request_id, error.retry_after_s) == (kind, status, "req_1", 7.0)
    assert message in str(error)


def test_a_gateway_that_fails_in_html_is_told_by_its_status() -> None:
    assert type(refused(Answer(status=502, body="<html>Bad gateway</html>", headers={"content-type": "text/html"}))) is errors.ServerFailed


def test_a_server_that_does_not_run_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(errors.Unreachable):
            ask(f"http://127.0.0.1:{taken.getsockname()[1]}", request())


def test_a_wrong_address_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(errors.ProgramError, match="'localhost:8000' is no URL; base_url starts with https://"):
        AnthropicProvider(base_url="localhost:8000")


def test_an_interrupted_request_gives_its_connection_back_at_once_and_keeps_what_was_said() -> None:
    draft = Draft("anthropic")
    answer = Answer(chunks=sse(anthropic_text("hello world"))[:3], then="hang")

    async def run(server: LoopbackServer) -> float:
        provider = AnthropicProvider(base_url=server.url, api_key="k")
        task = asyncio.ensure_future(provider.ask(request(), draft))
        while not draft.message().text:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not server.dropped:
            await asyncio.sleep(0.005)
        took_s = time.monotonic() - began
        await provider.close()
        return took_s

    with LoopbackServer(lambda seen, n: answer) as server:
        assert asyncio.run(asyncio.wait_for(run(server), 10)) < 0.4
    assert draft.message(interrupted=True) == assistant(Text(text="hell"), interrupted=True)


def test_requests_one_after_the_other_share_a_connection_also_after_an_error() -> None:
    def answer(seen: Seen, n: int) -> Answer:
        return Answer(status=529, body={"error": {"type": "overloaded_error"}}) if n == 1 else Answer(chunks=sse(anthropic_text("x")))

    async def run(url: str) -> None:
        provider = AnthropicProvider(base_url=url, api_key="k")
        for n in range(4):
            if n == 1:
                with pytest.raises(errors.Overloaded):
                    await provider.ask(request(), Draft("anthropic"))
            else:
                await provider.ask(request(), Draft("anthropic"))
        await provider.close()

    with LoopbackServer(answer) as server:
        asyncio.run(run(server.url))
        assert (len(server.seen), server.connections) == (4, 1)


def test_one_provider_can_be_asked_from_one_loop_after_another() -> None:
    with LoopbackServer(lambda seen, n: Answer(chunks=sse(anthropic_text(str(n))))) as server:
        provider = AnthropicProvider(base_url=server.url, api_key="k")
        assert [asyncio.run(provider.ask(request(), Draft("anthropic"))).message.text for _ in range(2)] == ["0", "1"]


# keys and addresses


def test_a_missing_key_says_which_variable_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in NO_KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with LoopbackServer(lambda seen, n: Answer(chunks=sse(anthropic_text("x")))) as server:
        with pytest.raises(errors.AuthError, match=r"anthropic: there is no API key; .*ANTHROPIC_API_KEY"):
            ask(server.url, request(), api_key=None)
        monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
        with pytest.raises(errors.AuthError, match=r"Config file not found.*ANTHROPIC_API_KEY"):
            ask(server.url, request(), api_key=None)
        with pytest.raises(errors.AuthError, match="MY_KEY"):
            ask(server.url, request(), api_key=None, key_variable="MY_KEY")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "other")
        with pytest.raises(errors.AuthError, match="MY_KEY"):  # no other key goes to this address
            ask(server.url, request(), api_key=None, key_variable="MY_KEY")
        monkeypatch.setenv("MY_KEY", "mine")
        ask(server.url, request(), api_key=None, key_variable="MY_KEY")
        assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer mine"]


def test_a_broken_key_is_not_repeated_in_the_error() -> None:
    error = refused(Answer(), api_key="sk-ant-secret\n")
    assert isinstance(error, errors.AuthError)
    assert "secret" not in str(error)


def test_headers_of_the_settings_are_sent() -> None:
    with LoopbackServer(lambda seen, n: Answer(chunks=sse(anthropic_text("x")))) as server:
        ask(server.url, request(headers={"anthropic-beta": "one,two", "X-Team": "blue"}))
        sent = server.seen[0]
    assert (sent.method, sent.path) == ("POST", "/v1/messages")
    assert (sent.headers["anthropic-beta"], sent.headers["x-team"]) == ("one,two", "blue")
    assert (sent.headers["content-type"], sent.headers["authorization"]) == ("application/json", "Bearer k")


def test_betas_are_sent_as_the_header_that_the_api_reads() -> None:
    one = request(headers={"Anthropic-Beta": "one"}, body={"betas": ["two", "three"], "metadata": {"user_id": "u"}})
    with LoopbackServer(lambda seen, n: Answer(chunks=sse(anthropic_text("x")))) as server:
        ask(server.url, one, request(body={"betas": ["two"]}))
        first, second = server.seen
    assert (first.headers["anthropic-beta"], second.headers["anthropic-beta"]) == ("one,two,three", "two")
    assert (first.body["metadata"], "betas" in first.body, first.body == preview(one)) == ({"user_id": "u"}, False, True)


def test_importing_the_driver_and_a_preview_load_no_sdk() -> None:
    code = (
        "import sys; from llmproc_nb.drivers.anthropic import AnthropicProvider, from_program\n"
        "from llmproc_nb.core.dialog import Dialog; from llmproc_nb.core.message import user\n"
        "from llmproc_nb.core.provider import Config, Request\n"
        "node, _ = Dialog().append(user('hi'), None)\n"
        "AnthropicProvider().preview(Request(path=node.path(), config=Config(model='m')))\n"
        "print([name for name in ('anthropic', 'httpx2', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_vertex_puts_the_model_into_the_address_and_the_version_into_the_body() -> None:
    async def run(url: str) -> Reply:
        provider = AnthropicVertexProvider(project_id="proj", region="europe-west1", base_url=url, api_key="token")
        reply = await provider.ask(request(model="claude-sonnet-4-5@20250929"), Draft("anthropic"))
        await provider.close()
        return reply

    with LoopbackServer(lambda seen, n: Answer(chunks=sse(anthropic_text("x")))) as server:
        assert asyncio.run(run(server.url)).message.text == "x"
        sent = server.seen[0]
    model = "/projects/proj/locations/europe-west1/publishers/anthropic/models/claude-sonnet-4-5@20250929"
    assert sent.path == f"{model}:streamRawPredict"
    assert sent.headers["authorization"] == "Bearer token"
    assert (sent.body["anthropic_version"], sent.body["stream"], "model" in sent.body) == (VERTEX_VERSION, True, False)


@pytest.mark.parametrize(("key", "token"), [("ya29.token", "ya29.token"), ("AIzaKey", None), ("AQ.key", None), ("", None)])
def test_vertex_finds_its_project_and_its_token_in_the_environment(key: str, token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "proj")
    monkeypatch.setenv("VERTEX_API_KEY", key)
    provider = AnthropicVertexProvider(region="europe-west1")
    client = provider._load()
    assert (client.project_id, client.access_token) == ("proj", token)
    monkeypatch.setenv("ANTHROPIC_VERTEX_PROJECT_ID", "own")
    monkeypatch.setenv("MY_TOKEN", "ya29.mine")
    client = AnthropicVertexProvider(region="r", key_variable="MY_TOKEN")._load()
    assert (client.project_id, client.access_token) == ("own", "ya29.mine")


def test_the_version_for_vertex_is_the_one_of_the_sdk() -> None:
    from anthropic._constants import ANTHROPIC_API_VERSION

    assert VERTEX_VERSION == ANTHROPIC_API_VERSION


def test_vertex_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("ANTHROPIC_VERTEX_PROJECT_ID", "GOOGLE_CLOUD_PROJECT", "CLOUD_ML_REGION"):
        monkeypatch.delenv(name, raising=False)

    def error(**where: Any) -> str:
        with pytest.raises(errors.AuthError) as caught:
            asyncio.run(AnthropicVertexProvider(**where).ask(request(), Draft("anthropic")))
        return str(caught.value)

    assert "ANTHROPIC_VERTEX_PROJECT_ID or GOOGLE_CLOUD_PROJECT names it" in error(region="us-east5")
    assert "CLOUD_ML_REGION" in error(project_id="p")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    assert "gcloud auth application-default login" in error(project_id="p", region="us-east5", base_url="http://127.0.0.1:9")


def test_a_program_names_its_provider() -> None:
    made = from_program(Program(provider="anthropic_vertex", project_id="p", region="r"))
    assert (type(made), made.name, made.api, made.scripted) == (AnthropicVertexProvider, "anthropic_vertex", "anthropic", False)
    assert type(from_program(Program(provider="anthropic"))) is AnthropicProvider


# what is sent


def test_a_preview_is_what_is_sent() -> None:
    one = request(
        system("You add."),
        user("1+2?"),
        assistant(Text(text="I add."), call("t1", '{"a": 1}')),
        results(result("t1")),
        tools=(ADD,),
        temperature=0.5,
        model="claude-sonnet-4-5",
    )
    with LoopbackServer(lambda seen, n: Answer(chunks=sse(anthropic_text("x")))) as server:
        ask(server.url, one)
        assert server.seen[0].body == preview(one)


def test_messages_take_the_form_of_the_api() -> None:
    tools = results(
        ToolResult(call_id="t1", content=(Text(text="a"), Text(text=" "), Image(data=b"\x89PNG"), Document(text="d", title="D"))),
        ToolResult(call_id="t2", content=(), is_error=True),
        Text(text="and go on"),
    )
    asked = Message(role="user", parts=(Text(text="see"), Image(url="https://x/y.png"), Document(data=b"%PDF"), Text(text="")))
    thought = (Thinking(text="unsigned"), Thinking(text="hm", signature="s"), Text(text="\n"))
    reply = assistant(*thought, call("t1", '{"a": 1.50}'), call("t2", "[1]"))
    sent = preview(request(system("S"), system("T"), asked, assistant(), reply, tools), prompt_caching=False)
    assert sent == {
        "model": "claude-test",
        "max_tokens": 8192,
        "stream": True,
        "system": [{"type": "text", "text": "S"}, {"type": "text", "text": "T"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1.5}},
                    {"type": "tool_use", "id": "t2", "name": "add", "input": {"INVALID_JSON": "[1]"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [
                            {"type": "text", "text": "a"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}},
                            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "title": "D"},
                        ],
                    },
                    {"type": "tool_result", "tool_use_id": "t2", "is_error": True, "content": [{"type": "text", "text": "(no output)"}]},
                    {"type": "text", "text": "and go on"},
                ],
            },
        ],
    }


def test_parts_of_another_api_stay_at_home() -> None:
    foreign = Message(
        role="assistant",
        api="openai",
        parts=(
            Thinking(text="hm", signature="other"),
            Opaque(body={"type": "web_search_call"}),
            Text(text="so", extra={"annotations": []}),
            ToolCall(id="functions.add:0", name="my.add", arguments="{}", extra={"item": 1}),
        ),
    )
    sent = preview(request(user("x"), foreign, results(result("functions.add:0"))), prompt_caching=False)["messages"]
    assert sent[1]["content"] == [
        {"type": "text", "text": "so"},
        {"type": "tool_use", "id": "functions_add_0", "name": "my_add", "input": {}},
    ]
    assert sent[2]["content"][0]["tool_use_id"] == "functions_add_0"


def test_an_interrupted_reply_goes_back_without_what_can_never_be_answered() -> None:
    cut = assistant(
        Text(text="I sea"),
        Opaque(body={"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}),
        Opaque(body={"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}),
        Opaque(body={"type": "server_tool_use", "id": "s2", "name": "web_search", "input": {}}),
        call("t1"),
        interrupted=True,
    )
    sent = preview(request(user("x"), cut, results(result("t1", "interrupted")), user("go on")))["messages"]
    assert [block.get("id", block["type"]) for block in sent[1]["content"]] == ["text", "s1", "web_search_tool_result", "t1"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user", "user"]


@pytest.mark.parametrize("text", ["", "[]", "null", '{"a": NaN}', '{"a": 1', "{" * 5000, '{"a": "' + "x" * 10 + "}"])
def test_arguments_that_are_no_object_are_sent_as_invalid(text: str) -> None:
    sent = preview(request(user("x"), assistant(call("t1", text)), results(result("t1"))))["messages"]
    assert sent[1]["content"][0]["input"] == {"INVALID_JSON": text}


def test_settings_become_fields_of_the_request() -> None:
    schema = {"type": "object", "properties": {}}
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    sent = preview(
        request(
            tools=(ADD,),
            model="claude-sonnet-4-6",
            top_p=0.9,
            stop=("END",),
            effort="low",
            thinking={"type": "enabled", "budget_tokens": 2000},
            output_schema=schema,
            tool_choice="add",
            body={"tools": [hosted], "metadata": {"user_id": "u"}, "output_config": {"task_budget": 5}},
        ),
        prompt_caching=False,
    )
    del sent["messages"]
    assert sent == {
        "model": "claude-sonnet-4-6",
        "max_tokens": 8192 + 2000,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}, "task_budget": 5},
        "tools": [{"name": "add", "description": "Adds.", "input_schema": ADD.parameters}, hosted],
        "tool_choice": {"type": "tool", "name": "add"},
        "metadata": {"user_id": "u"},
        "stream": True,
    }


def test_tool_choice_is_left_out_where_there_is_no_tool_and_zero_tokens_are_asked_for_as_said() -> None:
    sent = preview(request(tool_choice="auto", max_tokens=0))
    assert ("tool_choice" in sent, sent["max_tokens"]) == (False, 0)
    assert preview(request(tools=(ADD,), tool_choice="any"))["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("claude-2.1", True),
        ("claude-instant-1.2", True),
        ("claude-3-5-haiku-20241022", True),
        ("claude-opus-4-20250514", True),
        ("claude-4-opus-20250514", True),
        ("claude-sonnet-4-0", True),
        ("claude-sonnet-4-5@20250929", True),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", True),
        ("anthropic/claude-sonnet-4.6", True),
        ("claude-opus-4-7", False),
        ("claude-opus-4-8", False),
        ("claude-sonnet-5", False),
        ("claude-opus-5-5", False),
        ("claude-fable-5-2", False),
        ("claude-mythos-preview", False),
        ("glm-5", True),
    ],
)
def test_sampling_is_sent_to_models_that_take_it_and_named_where_not(model: str, takes: bool) -> None:
    one = request(model=model, temperature=0.0, top_k=5)
    assert [name for name in ("temperature", "top_p", "top_k") if name in preview(one)] == (["temperature", "top_k"] if takes else [])
    assert left_out(one.config.settings, model) == (() if takes else ("temperature", "top_k"))


# prompt caching


def marks(sent: JSON) -> list[tuple[str, int, int]]:
    """Where the cache breakpoints are: section, message, block."""
    found = [("tools", 0, at) for at, tool in enumerate(sent.get("tools", ())) if "cache_control" in tool]
    found += [("system", 0, at) for at, block in enumerate(sent.get("system", ())) if "cache_control" in block]
    for number, message in enumerate(sent["messages"]):
        found += [("messages", number, at) for at, block in enumerate(message["content"]) if "cache_control" in block]
    return found


def test_breakpoints_stand_at_the_prompt_the_last_request_and_the_end() -> None:
    turn = (assistant(call("t1")), results(result("t1")))
    more = (assistant(Text(text="a"), call("t2")), results(result("t2")))
    assert marks(preview(request(system("S"), user("x"), tools=(ADD,)))) == [("system", 0, 0), ("messages", 0, 0)]
    assert marks(preview(request(user("x"), tools=(ADD, ADD)))) == [("tools", 0, 1), ("messages", 0, 0)]
    sent = preview(request(system("S"), user("x"), *turn))
    assert marks(sent) == [("system", 0, 0), ("messages", 0, 0), ("messages", 2, 0)]
    sent = preview(request(system("S"), user("x"), *turn, *more))
    assert marks(sent) == [("system", 0, 0), ("messages", 2, 0), ("messages", 4, 0)]
    assert marks(preview(request(system("S"), user("x"), *turn), prompt_caching=False)) == []


def test_thirty_parallel_results_get_a_breakpoint_in_between() -> None:
    calls = tuple(call(f"t{n}") for n in range(30))
    answers = tuple(result(f"t{n}") for n in range(30))
    sent = preview(request(system("S"), user("x"), assistant(*calls), results(*answers)))
    assert marks(sent) == [("system", 0, 0), ("messages", 0, 0), ("messages", 1, 29), ("messages", 2, 29)]


def test_many_messages_since_the_last_reply_get_a_breakpoint_in_between() -> None:
    said = [user(f"line {n}") for n in range(40)]
    sent = preview(request(user("x"), assistant(Text(text="yes")), *said))
    assert marks(sent) == [("messages", 0, 0), ("messages", 21, 0), ("messages", 41, 0)]


def test_no_breakpoint_stands_on_thinking_or_on_parts_of_the_server() -> None:
    signed = Thinking(text="hm", signature="s")
    sent = preview(request(user("x"), assistant(Text(text="a"), signed, Opaque(body={"type": "compaction", "content": "c"}))))
    assert marks(sent) == [("messages", 0, 0), ("messages", 1, 0)]
    assert marks(preview(request(user("x"), assistant(signed)))) == [("messages", 0, 0)]


def test_breakpoints_of_the_person_count() -> None:
    own = {"type": "web_search_20250305", "name": "web_search", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    one = (system("S"), user("x"), assistant(*(call(f"t{n}") for n in range(30))), results(*(result(f"t{n}") for n in range(30))))
    assert len(marks(preview(request(*one, body={"tools": [own]})))) == 4
    assert marks(preview(request(*one, body={"cache_control": {"type": "ephemeral"}}))) == []


def common_path(size: int = 50_000) -> Node:
    """The last node of a dialog of about so many characters that ends in a reply."""
    turns = [part for n in range(size // 2000) for part in (user(f"{n} " + "u" * 1000), assistant(Text(text=f"{n} " + "a" * 1000)))]
    return chain(system("S"), *turns)


def raw_of(provider: AnthropicProvider, node: Node, shared: Node | None) -> bytes:
    return provider._wire.body(Request(path=node.path(), config=Config(model="m", tools=(ADD,)), shared=shared))


def test_forks_send_the_same_bytes_up_to_what_they_share_also_in_later_turns() -> None:
    shared = common_path()
    provider, raws = AnthropicProvider(), []
    for n in range(5):
        head = Node(user(f"way {n} " + "x" * n), shared)
        for turn in range(1 + n):
            raws.append(raw_of(provider, head, shared))
            assert raws[-1] == raw_of(AnthropicProvider(), head, shared)  # whatever was sent before
            calls = Node(assistant(*(call(f"t{turn}_{at}") for at in range(25))), head)
            head = Node(
                user("and then?"), Node(assistant(Text(text="so")), Node(results(*(result(f"t{turn}_{at}") for at in range(25))), calls))
            )
    last = shared.message.text.encode()
    common = {raw[: raw.index(last) + len(last) + len(b'","cache_control":{"type":"ephemeral"}}]}')] for raw in raws}
    assert len(common) == 1 and next(iter(common)).endswith(last + b'","cache_control":{"type":"ephemeral"}}]}')
    assert len(next(iter(common))) > 50_000
    assert {raw.count(b'"cache_control"') for raw in raws} <= {3, 4}


def test_breakpoints_of_a_fork_stand_at_the_prompt_what_is_shared_the_last_request_and_the_end() -> None:
    shared = common_path(4000)
    first = Node(user("way"), shared)
    assert marks(json.loads(raw_of(AnthropicProvider(), first, shared))) == [("system", 0, 0), ("messages", 3, 0), ("messages", 4, 0)]
    second = Node(user("on"), Node(assistant(Text(text="a")), first))
    assert marks(json.loads(raw_of(AnthropicProvider(), second, shared))) == [
        ("system", 0, 0),
        ("messages", 3, 0),
        ("messages", 4, 0),
        ("messages", 6, 0),
    ]
    assert marks(json.loads(raw_of(AnthropicProvider(), shared, shared))) == [("system", 0, 0), ("messages", 3, 0)]
    assert raw_of(AnthropicProvider(), first, Node(user("elsewhere"), shared)) == raw_of(AnthropicProvider(), first, None)


def test_what_is_shared_and_cannot_carry_a_breakpoint_has_it_before() -> None:
    shared = Node(assistant(Thinking(text="hm", signature="s")), common_path(4000))
    sent = json.loads(raw_of(AnthropicProvider(), Node(user("way"), shared), shared))
    assert marks(sent) == [("system", 0, 0), ("messages", 3, 0), ("messages", 4, 0)]
    assert marks(preview(request(user("x"))))[-1:] == [("messages", 0, 0)]


def test_a_shared_reply_of_many_parts_keeps_the_request_before_in_reach() -> None:
    """The API looks back 20 blocks: the entry of the request that got this reply would not be found from its end."""
    asked = Node(user("x"), common_path(4000))
    shared = Node(results(*(result(f"t{n}") for n in range(30))), Node(assistant(*(call(f"t{n}") for n in range(30))), asked))
    for head in (Node(user("way"), shared), Node(user("on"), Node(assistant(Text(text="a")), Node(user("other way"), shared)))):
        sent = json.loads(raw_of(AnthropicProvider(), head, shared))
        assert marks(sent) == [("system", 0, 0), ("messages", 4, 0), ("messages", 6, 29), ("messages", len(sent["messages"]) - 1, 0)]


def without_marks(raw: bytes) -> bytes:
    return raw.replace(b',"cache_control":{"type":"ephemeral"}', b"")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
turns = st.lists(st.tuples(texts, st.integers(0, 25), texts), min_size=1, max_size=90)


@settings(max_examples=40)
@given(turns, texts)
def test_what_was_sent_once_is_sent_again_byte_by_byte(turns: list[tuple[str, int, str]], prompt: str) -> None:
    provider, dialog = AnthropicProvider(), Dialog()
    head, _ = dialog.append(system(prompt), None)
    before: bytes | None = None
    for number, (said, calls, answer) in enumerate(turns):
        head, _ = dialog.append(user(said), head)
        ids = [f"t{number}_{n}" for n in range(calls)]
        head, _ = dialog.append(assistant(Text(text=answer), *map(call, ids)), head)
        if ids:
            head, _ = dialog.append(results(*map(result, ids)), head)
        raw = provider._wire.body(Request(path=head.path(), config=Config(model="m", tools=(ADD,))))
        assert raw.count(b"cache_control") <= 4
        plain = without_marks(raw)
        if before is not None:
            assert plain.startswith(before.removesuffix(b"]}").removesuffix(b"["))
        before = plain
        fresh = AnthropicProvider().preview(Request(path=head.path(), config=Config(model="m", tools=(ADD,))))
        assert json.loads(raw) == fresh


def test_a_fork_sends_the_same_bytes_up_to_where_it_left() -> None:
    provider, dialog = AnthropicProvider(), Dialog()
    head: Node | None = None
    for n in range(200):
        head, _ = dialog.append(user(f"line {n}") if n % 2 == 0 else assistant(Text(text=f"reply {n}")), head)
    assert head is not None
    trunk = head.path()

    def raw(node: Node) -> bytes:
        return without_marks(provider._wire.body(Request(path=node.path(), config=Config(model="m"))))

    whole = raw(head)
    for at in (10, 64, 65, 128, 150, 199):
        fork, _ = dialog.append(user("another way"), trunk[at])
        shared = raw(trunk[at]).removesuffix(b"]}")
        assert whole.startswith(shared)
        assert raw(fork) == shared + b',{"role":"user","content":[{"type":"text","text":"another way"}]}]}'
    assert raw(head) == whole


def test_a_long_dialog_costs_little_more_than_a_short_one() -> None:
    """The body of a dialog of 2,000 messages is made in well under a millisecond where its beginning was sent before."""
    provider, dialog = AnthropicProvider(), Dialog()
    head, _ = dialog.append(system("S"), None)
    spent: list[float] = []
    for n in range(1000):
        head, _ = dialog.append(assistant(call(f"t{n}")), head)
        head, _ = dialog.append(results(result(f"t{n}", "x" * 200)), head)
        one = Request(path=head.path(), config=Config(model="m"))
        began = time.process_time()
        provider._wire.body(one)
        spent.append(time.process_time() - began)
    assert sorted(spent[-100:])[50] < 0.002
