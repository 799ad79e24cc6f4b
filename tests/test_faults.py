"""Bad input and faults, through the whole house: process → loop → real SDK → a server that misbehaves, with the log on disk.

After each of them: the designed error, a legal path, requests that a strict API takes, a log that is whole, and no key anywhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from kernels import kernel
from servers import (
    Answer,
    LoopbackServer,
    Seen,
    anthropic_message,
    anthropic_text,
    anthropic_tools,
    openai_chat_text,
    openai_chat_tools,
    openai_responses,
    sse,
    sse_data,
)

from llmproc_nb import Limits, Program, new_machine, read_log, tool
from llmproc_nb.api import Machine
from llmproc_nb.core import errors
from llmproc_nb.core.clock import Clock, FixedClock
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.event import Appended, AttemptFailed, Called, Moved, Replied, Stopped, ToolRan, ToolStarted
from llmproc_nb.core.usage import Usage
from llmproc_nb.drivers.anthropic import AnthropicProvider
from llmproc_nb.drivers.jsonl import JsonlStore
from llmproc_nb.drivers.openai.chat import OpenAIChat
from llmproc_nb.drivers.openai.responses import OpenAIResponses
from llmproc_nb.drivers.table import LateDrivers

JSON = dict[str, Any]
Calls = Sequence[tuple[str, str, JSON | str]]
SECRET = "sk-test-Zq3vXw81LmNoPb5kRtYuIeHg"
_ids = count(1)


# what an API takes


def check_anthropic(body: JSON) -> None:
    """Raises AssertionError where the Messages API would refuse the messages."""
    said: set[str] = set()
    open_calls: list[str] = []
    roles = [message["role"] for message in body["messages"]]
    assert roles[0] == roles[-1] == "user", roles
    assert ("assistant", "assistant") not in pairwise(roles), roles
    for message in body["messages"]:
        blocks = message["content"]
        assert isinstance(blocks, list) and blocks, message
        kinds = [block["type"] for block in blocks]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        assert all(block["text"].strip() for block in blocks if block["type"] == "text"), message
        if message["role"] == "assistant":
            assert not open_calls, f"no answers to {open_calls}"
            assert "tool_result" not in kinds and kinds[-1] not in ("thinking", "redacted_thinking"), kinds
            assert all(block.get("signature") for block in blocks if block["type"] == "thinking"), message
            calls = [block for block in blocks if block["type"] == "tool_use"]
            open_calls = [call["id"] for call in calls]
            assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", call["id"]) and isinstance(call["input"], dict) for call in calls), calls
            assert len(set(open_calls)) == len(open_calls) and not said & set(open_calls), open_calls
            said |= set(open_calls)
        else:
            assert results == open_calls and kinds[: len(results)] == ["tool_result"] * len(results), (results, open_calls)
            open_calls = []
    assert json.dumps(body).count('"cache_control"') <= 4


def check_responses(body: JSON) -> None:
    """Raises AssertionError where the Responses API would refuse the input."""
    calls: list[str] = []
    answered: list[str] = []
    items = body["input"]
    ids = [item["id"] for item in items if "id" in item]
    assert len(set(ids)) == len(ids), ids
    for at, item in enumerate(items):
        kind = item.get("type", "message")
        if kind == "function_call":
            assert isinstance(item["arguments"], str) and item["name"] and item["call_id"] not in calls, item
            calls.append(item["call_id"])
        elif kind == "function_call_output":
            assert item["call_id"] in calls and item["call_id"] not in answered and item["output"], item
            answered.append(item["call_id"])
        elif kind == "reasoning":
            after = items[at + 1] if at + 1 < len(items) else {}
            assert item.get("encrypted_content") and (after.get("type") == "function_call" or after.get("role") == "assistant"), item
        else:
            assert kind == "message" and item["content"], item
            assert sorted(calls) == sorted(answered), f"{calls} answered by {answered}"
    assert sorted(calls) == sorted(answered), f"{calls} answered by {answered}"
    assert items[-1].get("role") == "user" or items[-1]["type"] == "function_call_output", items[-1]


def check_chat(body: JSON) -> None:
    """Raises AssertionError where Chat Completions would refuse the messages."""
    said: set[str] = set()
    open_calls: list[str] = []
    for message in body["messages"]:
        role = message["role"]
        if role == "tool":
            assert message["tool_call_id"] in open_calls and message["content"], message
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls, f"no answers to {open_calls}"
        assert message.get("content") or (role == "assistant" and (message.get("tool_calls") or message.get("refusal"))), message
        for call in message.get("tool_calls", ()):
            assert call["type"] == "function" and call["function"]["name"] and isinstance(call["function"]["arguments"], str), call
            assert call["id"] and call["id"] not in said, call
            said.add(call["id"])
            open_calls.append(call["id"])
    assert not open_calls, f"no answers to {open_calls}"
    assert body["messages"][-1]["role"] in ("user", "tool")


# what an API says


def _responses_text(text: str) -> list[bytes]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    item = {"id": f"msg_{next(_ids)}", "type": "message", "role": "assistant", "status": "completed", "content": content}
    return sse(openai_responses([item]))


def _responses_tools(calls: Calls, status: str = "completed") -> list[bytes]:
    items = [
        {
            "id": f"fc_{next(_ids)}",
            "type": "function_call",
            "call_id": call_id,
            "name": name,
            "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
            "status": status,
        }
        for call_id, name, arguments in calls
    ]
    events = openai_responses(items, status=status)
    if status == "incomplete":
        events[-1]["response"]["incomplete_details"] = {"reason": "max_output_tokens"}
    return sse(events)


def _chat_cut_off(calls: Calls) -> list[bytes]:
    chunks = openai_chat_tools(calls)
    for chunk in chunks:
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] and "length"
    return sse_data(chunks)


@dataclass(frozen=True)
class Api:
    """One model API: how to reach it, what it says, what it takes. `cut_off` is a reply that max_tokens ended inside tool arguments."""

    provider: str
    base: str
    driver: Callable[..., Any]
    check: Callable[[JSON], None]
    text: Callable[[str], list[bytes]]
    tools: Callable[[Calls], list[bytes]]
    cut_off: Callable[[Calls], list[bytes]]
    key: str

    def __str__(self) -> str:
        return self.provider

    def says(self, text: str, **more: Any) -> Answer:
        return Answer(chunks=self.text(text), **more)

    def calls(self, *calls: tuple[str, str, JSON | str]) -> Answer:
        return Answer(chunks=self.tools(calls))

    def fault(self, status: int, kind: str, message: str, headers: dict[str, str] | None = None, code: str | None = None) -> Answer:
        """An error with a status, in the words of this API."""
        if self.provider == "anthropic":
            body: JSON = {"type": "error", "error": {"type": code or kind, "message": message}}
        else:
            body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
        return Answer(status, headers or {}, body)

    def error_event(self, kind: str, message: str) -> bytes:
        """An error inside a stream."""
        if self.provider == "anthropic":
            return sse([{"type": "error", "error": {"type": kind, "message": message}}])[0]
        if self.provider == "openai_chat":
            return sse_data([{"error": {"message": message, "type": kind, "code": kind}}], done=False)[0]
        failed = {"id": "resp_9", "object": "response", "status": "failed", "output": [], "error": {"code": kind, "message": message}}
        return sse([{"type": "response.failed", "sequence_number": 9, "response": failed}])[0]


ANTHROPIC = Api(
    provider="anthropic",
    base="",
    driver=AnthropicProvider,
    check=check_anthropic,
    text=lambda text: sse(anthropic_text(text)),
    tools=lambda calls: sse(anthropic_tools(calls)),
    cut_off=lambda calls: sse(anthropic_tools(calls, stop="max_tokens")),
    key="ANTHROPIC_API_KEY",
)
RESPONSES = Api(
    provider="openai_responses",
    base="/v1",
    driver=OpenAIResponses,
    check=check_responses,
    text=_responses_text,
    tools=_responses_tools,
    cut_off=lambda calls: _responses_tools(calls, "incomplete"),
    key="OPENAI_API_KEY",
)
CHAT = Api(
    provider="openai_chat",
    base="/v1",
    driver=OpenAIChat,
    check=check_chat,
    text=lambda text: sse_data(openai_chat_text(text)),
    tools=lambda calls: sse_data(openai_chat_tools(calls)),
    cut_off=_chat_cut_off,
    key="OPENAI_API_KEY",
)
APIS = (ANTHROPIC, RESPONSES, CHAT)
every_api = pytest.mark.parametrize("api", APIS, ids=str)


class Impatient(LateDrivers):
    """The shipped drivers, but a model API may be silent for no longer than `timeout_s`."""

    def __init__(self, api: Api, timeout_s: float) -> None:
        super().__init__(lambda: os.environ)
        self._api, self._timeout_s = api, timeout_s

    def provider(self, program: Program) -> Any:
        return self._api.driver(name=program.provider, base_url=program.base_url, timeout_s=self._timeout_s)


class House:
    """`with House(api, folder, answers) as house:` a server, a machine with its log in the folder, and one process `scout`.

    `answers` come one after the other; an exception among them closes the connection without a word, the last one stays.
    """

    def __init__(
        self,
        api: Api,
        folder: Path,
        answers: Sequence[Any] | Callable[[Seen, int], Answer],
        *,
        tools: Iterable[Any] = (),
        clock: Clock | None = None,
        timeout_s: float | None = None,
        **fields: Any,
    ) -> None:
        self.api, self.log_path = api, folder / "log.jsonl"
        self._answers = answers
        self.server = LoopbackServer(self._answer)
        self._clock, self._timeout_s, self._tools, self._fields = clock, timeout_s, tuple(tools), fields

    def _answer(self, seen: Seen, n: int) -> Answer:
        if callable(self._answers):
            return self._answers(seen, n)
        answer = self._answers[min(n, len(self._answers) - 1)]
        if isinstance(answer, Exception):
            raise answer
        made: Answer = answer
        return made

    def __enter__(self) -> House:
        self.server.__enter__()
        clock = self._clock or FixedClock()
        if self._timeout_s is None:
            self.machine: Machine = new_machine(log=self.log_path, clock=clock)
        else:
            self.machine = Machine(Impatient(self.api, self._timeout_s), store=JsonlStore(self.log_path), clock=clock)
        os.environ[self.api.key] = SECRET
        program = Program(
            name="scout",
            model="test-model",
            provider=self.api.provider,
            base_url=self.server.url + self.api.base,
            system="Be brief.",
            tools=self._tools,
            **self._fields,
        )
        self.scout = program.start(machine=self.machine)
        return self

    def __exit__(self, *exc: object) -> None:
        os.environ.pop(self.api.key, None)
        self.machine.close()
        self.server.__exit__()

    def run(self, text: str = "hello", **more: Any) -> Any:
        return self.scout.run(text, **more).result(timeout_s=20)

    def events(self, *kinds: type) -> list[Any]:
        return [event for event in self.machine.log.events if isinstance(event, kinds)]

    def goes_on(self, text: str = "fine again") -> None:
        """The next call on the process works, its request is legal, and everything is in the log."""
        self._answers = [self.api.says(text)]
        assert self.run("go on").text == text
        self.check()

    def check(self) -> None:
        """What is true after every call, however it ended."""
        legal(self.scout.path)
        for seen in self.server.seen:
            self.api.check(seen.body)
        self.check_log()
        ordered(self.machine.log.events)
        spent = [event.usage for event in self.events(Stopped)]
        assert self.scout.usage == sum(spent, Usage()) == sum((event.usage for event in self.events(Replied, AttemptFailed)), Usage())

    def check_log(self) -> None:
        log = read_log(self.log_path)
        assert log.events == tuple(self.machine.log.events)
        assert log.notes == ()
        assert {node.id for node in log.dialog()} == {node.id for node in self.machine.dialog}
        written = b"".join(file.read_bytes() for file in self.log_path.parent.rglob("*") if file.is_file())
        assert SECRET.encode() not in written


def legal(path: Sequence[Node]) -> None:
    """Each tool call on the path has exactly one answer, in the message right after it, and ids are unique."""
    messages = [node.message for node in path]
    assert [message.role for message in messages].count("system") <= 1
    seen: set[str] = set()
    for at, message in enumerate(messages):
        calls = [call.id for call in message.tool_calls]
        after = messages[at + 1] if at + 1 < len(messages) else None
        if calls:
            assert message.role == "assistant" and after is not None and after.role == "tool", (message, after)
            assert [result.call_id for result in after.tool_results] == calls
            assert len(set(calls)) == len(calls) and not seen & set(calls)
            seen |= set(calls)
        assert (message.role == "tool") == bool(message.tool_results)
        if message.role == "tool":
            assert messages[at - 1].tool_calls
        if message.role == "assistant":
            assert at and messages[at - 1].role != "system"


def ordered(events: Sequence[Any]) -> None:
    """No gaps; all of a call but its question lies between Called and Stopped; each tool call is started at most once and answered once."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    for number in {event.call for event in events if event.call is not None}:
        own = [event for event in events if event.call == number]
        assert isinstance(own[-1], Stopped) and [type(event) for event in own].count(Stopped) == 1, own
        assert isinstance(own[0], Called) or (isinstance(own[0], Appended) and isinstance(own[1], Called)), own
        started = [(event.node, event.position) for event in own if isinstance(event, ToolStarted)]
        ran = [(event.node, event.position) for event in own if isinstance(event, ToolRan)]
        assert len(set(started)) == len(started) and len(set(ran)) == len(ran) and set(started) <= set(ran), (started, ran)


def is_clean(error: BaseException) -> bool:
    """Whether no face of an error shows the key."""
    faces = f"{error} {error!r}" + (error.for_cell() + error.for_model() if isinstance(error, errors.LlmprocError) else "")
    return SECRET not in faces


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


# faults that end a call


FINAL: dict[str, tuple[Callable[[Api], Answer], type[errors.ProviderError], str]] = {
    "a wrong key": (
        lambda api: api.fault(401, "authentication_error", "invalid x-api-key", code=None),
        errors.AuthError,
        "{place}: invalid x-api-key (401). Check the API key in the environment (or .env) of the kernel.",
    ),
    "a wrong model": (
        lambda api: api.fault(404, "not_found_error", "model: test-model"),
        errors.ModelNotFound,
        "{place}: model: test-model (404). Check the model's name, and that the key may use it.",
    ),
    "a bad request": (
        lambda api: api.fault(400, "invalid_request_error", "max_tokens: must be positive"),
        errors.RequestRefused,
        "{place}: max_tokens: must be positive (400).",
    ),
    "too long by words": (
        lambda api: api.fault(400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"),
        errors.ContextTooLong,
        "{place}: prompt is too long: 250000 tokens > 200000 maximum (400). Start from an earlier node, or with less text.",
    ),
    "too long by code": (
        lambda api: api.fault(400, "invalid_request_error", "Too many tokens", code="context_length_exceeded"),
        errors.ContextTooLong,
        "{place}: Too many tokens (400). Start from an earlier node, or with less text.",
    ),
    "too large": (
        lambda api: api.fault(413, "request_too_large", "Request exceeds the maximum size"),
        errors.RequestRefused,
        "{place}: Request exceeds the maximum size (413).",
    ),
    "no credit": (
        lambda api: api.fault(429, "insufficient_quota", "You exceeded your current quota", code="insufficient_quota"),
        errors.QuotaExhausted,
        "{place}: You exceeded your current quota (429). Add credit to the account, or use another model.",
    ),
    "no credit, said in the stream": (
        lambda api: Answer(chunks=[*api.text("half an answer")[:3], api.error_event("insufficient_quota", "no credit left")]),
        errors.QuotaExhausted,
        "{place}: no credit left. Add credit to the account, or use another model.",
    ),
    "a wait that is too long": (
        lambda api: api.fault(429, "rate_limit_error", "slow down", {"retry-after": "3600"}),
        errors.RateLimited,
        "{place}: slow down (429); a wait of at most 60 s is made by itself, the API asks for 3600 s.",
    ),
    "a wait that is too long, in milliseconds": (
        lambda api: api.fault(429, "rate_limit_error", "slow down", {"retry-after-ms": "61000"}),
        errors.RateLimited,
        "{place}: slow down (429); a wait of at most 60 s is made by itself, the API asks for 61 s.",
    ),
    "the key repeated by the server": (
        lambda api: api.fault(401, "authentication_error", f"Incorrect API key provided: {SECRET}"),
        errors.AuthError,
        "{place}: Incorrect API key provided: (the key) (401). Check the API key in the environment (or .env) of the kernel.",
    ),
}


@every_api
@pytest.mark.parametrize("fault", FINAL)
def test_a_final_fault_is_said_once_and_takes_the_question_back(api: Api, fault: str, tmp_path: Path) -> None:
    answer, kind, words = FINAL[fault]
    with House(api, tmp_path, [answer(api)]) as house:
        before = house.scout.head
        with pytest.raises(kind) as caught:
            house.run()
        assert type(caught.value) is kind and is_clean(caught.value)
        assert str(caught.value) == words.format(place=f"{api.provider} test-model")
        assert house.scout.head is before and len(house.server.seen) == 1
        failed = house.events(AttemptFailed)
        assert [(event.error, event.retry_in_s, event.text) for event in failed] == [(kind.__name__, None, str(caught.value))]
        assert [event.reason for event in house.events(Stopped, Moved)] == ["failed", "error"]
        began = time.monotonic()
        house.goes_on()
        assert time.monotonic() - began < 2


@every_api
def test_a_fault_after_tools_ran_keeps_what_they_gave_and_the_dialog_goes_on(api: Api, tmp_path: Path) -> None:
    answers = [api.calls(("c1", "add", {"a": 1, "b": 2})), api.fault(400, "invalid_request_error", "no")]
    with House(api, tmp_path, answers, tools=[add]) as house:
        with pytest.raises(errors.RequestRefused):
            house.run()
        assert [message.role for message in house.scout.messages] == ["system", "user", "assistant", "tool"]
        house.goes_on()


# faults that pass


def _half(api: Api) -> list[bytes]:
    chunks = api.text("only a half of it was said")
    return chunks[: len(chunks) // 2]


PASSING: dict[str, tuple[Callable[[Api], Any], type[errors.ProviderError], str]] = {
    "429": (lambda api: api.fault(429, "rate_limit_error", "slow down", {"retry-after": "2"}), errors.RateLimited, r"slow down \(429\)"),
    "529": (lambda api: api.fault(529, "overloaded_error", "Overloaded"), errors.Overloaded, r"Overloaded \(529\)"),
    "503": (lambda api: Answer(503, body="<html>unavailable</html>"), errors.Overloaded, r"\(503\)"),
    "500": (lambda api: api.fault(500, "api_error", "Internal"), errors.ServerFailed, r"Internal \(500\)"),
    "502 in HTML": (lambda api: Answer(502, {"content-type": "text/html"}, "<html>Bad Gateway</html>"), errors.ServerFailed, "502"),
    "408": (lambda api: Answer(408, body=""), errors.TimedOut, "408"),
    "closed before a word": (lambda api: ConnectionResetError(), errors.ConnectionLost, ""),
    "reset": (lambda api: Answer(chunks=_half(api), then="reset"), errors.ConnectionLost, ""),
    "cut": (lambda api: Answer(chunks=_half(api), then="cut"), errors.ConnectionLost, ""),
    "a stream without its end": (lambda api: Answer(chunks=_half(api)), errors.GarbledReply, "ende?s?d?"),
    "words that are no JSON": (
        lambda api: Answer(chunks=[*_half(api), b"data: {this is no json\n\n", *api.text("x")[-1:]]),
        errors.GarbledReply,
        "no JSON",
    ),
    "events that are no objects": (lambda api: Answer(chunks=[b"data: 17\n\n", b"data: [1]\n\n"]), errors.GarbledReply, ""),
    "bytes that are no events": (lambda api: Answer(chunks=[b"\xff\xfe\x00garbage\n\n" * 3]), errors.GarbledReply, ""),
    "HTML with 200": (
        lambda api: Answer(headers={"content-type": "text/html"}, body="<!doctype html><p>Welcome</p>"),
        errors.GarbledReply,
        "HTML|no event stream",
    ),
    "nothing with 200": (lambda api: Answer(headers={"content-type": "text/event-stream"}, body=""), errors.GarbledReply, "empty"),
    "an empty object": (lambda api: Answer(body={}), errors.GarbledReply, ""),
    "an overload said in the stream": (
        lambda api: Answer(chunks=[*_half(api), api.error_event("overloaded_error", "Overloaded")]),
        errors.Overloaded,
        "Overloaded",
    ),
    "a rate limit said in the stream": (
        lambda api: Answer(chunks=[*_half(api), api.error_event("rate_limit_exceeded", "slow down")]),
        errors.RateLimited,
        "slow down",
    ),
    "a failure said in the stream": (
        lambda api: Answer(chunks=[*_half(api), api.error_event("server_error", "it broke")]),
        errors.ServerFailed,
        "it broke",
    ),
}


@every_api
@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_tried_again_and_doubles_nothing(api: Api, fault: str, tmp_path: Path) -> None:
    make, kind, words = PASSING[fault]
    heard: list[Any] = []
    with House(api, tmp_path, [make(api), make(api), api.says("the whole answer")]) as house:
        result = house.run(on_delta=heard.append)
        assert result.text == "the whole answer" == house.scout.messages[-1].text
        failed = house.events(AttemptFailed)
        assert [(event.error, event.attempt) for event in failed] == [(kind.__name__, 1), (kind.__name__, 2)]
        assert all(re.search(words, event.text) and event.text.startswith(f"{api.provider} test-model: ") for event in failed), failed
        assert all(event.retry_in_s is not None for event in failed)
        assert result.api_calls[0].attempts == 3 == len(house.server.seen)
        assert house.server.seen[0].body == house.server.seen[2].body
        last = max(at for at, delta in enumerate(heard) if delta.kind == "reset")
        assert "".join(delta.text for delta in heard[last + 1 :] if delta.kind == "text") == "the whole answer"
        house.goes_on()


@every_api
def test_a_fault_that_does_not_pass_is_raised_after_eight_attempts(api: Api, tmp_path: Path) -> None:
    with House(api, tmp_path, [Answer(chunks=_half(api), then="cut")]) as house:
        with pytest.raises(errors.ConnectionLost):
            house.run()
        assert [event.attempt for event in house.events(AttemptFailed)] == list(range(1, 9))
        assert [message.role for message in house.scout.messages] == ["system"]
        house.goes_on()


@every_api
def test_a_long_silence_is_a_timeout_and_slow_bytes_are_none(api: Api, tmp_path: Path) -> None:
    silent = Answer(chunks=_half(api), then="hang")
    whole = b"".join(api.text("slow but sure"))
    slow = Answer(chunks=[*(whole[at : at + 40] for at in range(0, len(whole), 40))], delay_s=0.02)
    with House(api, tmp_path, [silent, slow], timeout_s=0.25) as house:
        assert house.run().text == "slow but sure"
        failed = house.events(AttemptFailed)
        assert [(event.error, event.text) for event in failed] == [
            ("TimedOut", f"{api.provider} test-model: no answer within the time allowed.")
        ]
        house.goes_on()


@every_api
def test_nobody_there_is_said_after_three_attempts(api: Api, tmp_path: Path) -> None:
    with House(api, tmp_path, [api.says("here")]) as house:
        gone = Program(name="gone", model="m", provider=api.provider, base_url="http://127.0.0.1:9" + api.base).start(machine=house.machine)
        with pytest.raises(errors.Unreachable) as caught:
            gone.run("hello").result(timeout_s=20)
        assert is_clean(caught.value)
        assert [event.attempt for event in house.events(AttemptFailed)] == [1, 2, 3]
        house.check_log()


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "60"}, 60.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "soon"}, 1.0),
        ({"retry-after": "-5"}, 1.0),
        ({"retry-after": "²"}, 1.0),
        ({"retry-after-ms": "many"}, 1.0),
    ],
    ids=str,
)
def test_retry_after_is_waited_for_as_said(headers: dict[str, str], wait_s: float, tmp_path: Path) -> None:
    clock = FixedClock()
    sent = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    answer = ANTHROPIC.fault(429, "rate_limit_error", "slow down", sent)
    with House(ANTHROPIC, tmp_path, [answer, ANTHROPIC.says("ok")], clock=clock) as house:
        assert house.run().text == "ok"
        assert [event.retry_in_s for event in house.events(AttemptFailed)] == [wait_s]
        assert clock.slept_s[:1] == [wait_s]
        house.check()


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("form", ["GMT", "-0000", "+0900"])
def test_retry_after_may_be_a_date_wherever_the_kernel_runs(zone: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        when = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=30 + (9 * 3600 if form == "+0900" else 0))
        date = format_datetime(when, usegmt=True).replace("GMT", form)
        answers = [ANTHROPIC.fault(429, "rate_limit_error", "slow down", {"retry-after": date}), ANTHROPIC.says("ok")]
        with House(ANTHROPIC, tmp_path, answers) as house:
            assert house.run().text == "ok"
            (failed,) = house.events(AttemptFailed)
            assert 25 < failed.retry_in_s <= 30
    finally:
        monkeypatch.undo()
        time.tzset()


# tools


def explode() -> str:
    """Raise."""
    raise ValueError(f"it broke {chr(0xD800)}")


def give_up() -> str:
    """Raise the error of a socket that waited too long."""
    raise TimeoutError("the database did not answer")


@tool(timeout_s=0.1)
def sleep_on() -> str:
    """Never return in time."""
    time.sleep(1)
    return "late"


@tool(timeout_s=0.1)
async def sleep_deaf() -> str:
    """Never return, and do not heed being stopped."""
    while True:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            continue


async def leave() -> str:
    """Try to end the interpreter."""
    raise SystemExit(3)


TOOL_FAULTS: dict[str, tuple[str, JSON | str, str, str]] = {
    "unknown": ("adds", {"a": 1}, "refused", "there is no tool 'adds'; did you mean 'add'?"),
    "no JSON": ("add", '{"a": 1, "b"', "refused", "the arguments are not valid JSON .*Call the tool again."),
    "no object": ("add", "[1, 2]", "refused", "the arguments are a JSON list; one JSON object is needed. Call the tool again."),
    "NaN": ("add", '{"a": NaN, "b": 1}', "refused", "NaN is no JSON value"),
    "deep": ("add", '{"a": ' + "[" * 5000, "refused", "not valid JSON"),
    "a missing argument": ("add", {"a": 1}, "refused", "b"),
    "a wrong type": ("add", {"a": "one", "b": 2}, "refused", "a"),
    "one that raises": ("explode", {}, "failed", "ValueError: it broke \ufffd"),
    "one that raises TimeoutError itself": ("give_up", {}, "failed", "TimeoutError: the database did not answer"),
    "one that exits": ("leave", {}, "failed", "^SystemExit: 3"),
    "one that never returns": ("sleep_on", {}, "timed_out", "no result within 0.1 s; whether it took effect is unknown"),
    "one that does not heed its end": ("sleep_deaf", {}, "timed_out", "no result within 0.1 s"),
}


@every_api
@pytest.mark.parametrize("fault", TOOL_FAULTS)
def test_a_tool_call_that_goes_wrong_is_answered_and_the_others_run(api: Api, fault: str, tmp_path: Path) -> None:
    name, arguments, outcome, words = TOOL_FAULTS[fault]
    answers = [api.calls(("c1", name, arguments), ("c2", "add", {"a": 2, "b": 3})), api.says("done")]
    offered = [add, explode, give_up, sleep_on, sleep_deaf, leave]
    with House(api, tmp_path, answers, tools=offered) as house:
        began = time.monotonic()
        result = house.run()
        assert time.monotonic() - began < 3
        bad, good = result.tool_calls
        assert (bad.outcome, good.outcome, good.result.text, result.text) == (outcome, "ran", "5", "done")
        assert bad.result.is_error and re.search(words, bad.result.text), bad.result.text
        started = {event.position for event in house.events(ToolStarted)}
        assert started == ({1} if outcome == "refused" else {0, 1})
        house.goes_on()


@every_api
def test_ten_megabytes_in_an_argument_come_through_whole(api: Api, tmp_path: Path) -> None:
    got: list[int] = []

    def keep(text: str) -> int:
        """Keep a text."""
        got.append(len(text))
        return len(text)

    big = "ä" + "x" * 10_000_000
    with House(api, tmp_path, [api.calls(("c1", "keep", {"text": big})), api.says("kept")], tools=[keep]) as house:
        began = time.monotonic()
        assert house.run().text == "kept"
        assert time.monotonic() - began < 10
        assert got == [10_000_001]
        assert house.log_path.stat().st_size < 100_000
        house.goes_on()


@every_api
def test_call_ids_that_come_twice_are_told_apart(api: Api, tmp_path: Path) -> None:
    twice = (("same", "add", {"a": 1, "b": 1}), ("same", "add", {"a": 2, "b": 2}), ("same", "add", {"a": 2, "b": 2}))
    with House(api, tmp_path, [api.calls(*twice), api.calls(*twice), api.says("done")], tools=[add]) as house:
        result = house.run()
        assert [run.result.text for run in result.tool_calls] == ["2", "4", "4"] * 2
        house.goes_on()


@every_api
def test_an_answer_cut_off_inside_arguments_runs_no_tool_and_says_so(api: Api, tmp_path: Path) -> None:
    ran: list[int] = []

    def keep(text: str) -> None:
        """Keep a text."""
        ran.append(1)

    cut = Answer(chunks=api.cut_off([("c1", "keep", {"text": "whole"}), ("c2", "keep", '{"text": "cut in the mid')]))
    with House(api, tmp_path, [cut], tools=[keep]) as house:
        result = house.run()
        assert (result.stop_reason, ran) == ("max_tokens", [])
        assert [(run.outcome, run.result.text) for run in result.tool_calls] == [
            ("refused", "not run: the reply was cut off before this call was complete")
        ] * 2
        house.goes_on()


@every_api
@pytest.mark.parametrize("then", ["reset", "cut", "close cleanly"])
def test_tool_calls_of_a_broken_stream_do_not_run(api: Api, then: Any, tmp_path: Path) -> None:
    ran: list[int] = []

    def keep(text: str) -> str:
        """Keep a text."""
        ran.append(1)
        return "kept"

    whole = api.tools([("c1", "keep", {"text": "once"})])
    end = {"anthropic": 1, "openai_responses": 1, "openai_chat": 3}[api.provider]  # all but what says that the reply is whole
    broken = Answer(chunks=whole[:-end], then=then)
    if api is ANTHROPIC:
        broken = Answer(chunks=whole[:-2], then=then)
    with House(api, tmp_path, [broken, broken, Answer(chunks=whole), api.says("done")], tools=[keep]) as house:
        assert house.run().text == "done"
        assert ran == [1] and len(house.events(AttemptFailed)) == 2 and len(house.events(ToolStarted)) == 1
        house.goes_on()


THOUGHT: JSON = {"type": "thinking", "thinking": "so I think", "signature": "sig"}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([THOUGHT], id="thoughts only"),
        pytest.param([{"type": "redacted_thinking", "data": "abc"}], id="redacted thoughts only"),
        pytest.param([{"type": "text", "text": "  \n"}], id="blank"),
        pytest.param([], id="nothing"),
        pytest.param([{"type": "text", "text": "said"}, THOUGHT], id="thoughts last"),
    ],
)
@pytest.mark.parametrize("stop", ["end_turn", "max_tokens"])
def test_a_reply_without_words_can_be_answered(content: list[JSON], stop: str, tmp_path: Path) -> None:
    with House(ANTHROPIC, tmp_path, [Answer(chunks=sse(anthropic_message(content, stop=stop)))]) as house:
        assert house.run().stop_reason == stop
        house.goes_on()


@every_api
@pytest.mark.parametrize("at", range(1, 9))
def test_a_call_stopped_at_any_point_of_the_stream_leaves_a_legal_dialog(api: Api, at: int, tmp_path: Path) -> None:
    if api is ANTHROPIC:
        content = [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "I will add"},
            {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1, "b": 2}},
        ]
        chunks = sse(anthropic_message(content, stop="tool_use"))
    else:
        chunks = api.tools([("c1", "add", {"a": 1, "b": 2}), ("c2", "add", {"a": 1, "b": 2})])
    cut = len(chunks) * at // 9
    with House(api, tmp_path, [Answer(chunks=chunks[:cut], then="hang")], tools=[add]) as house:
        call = house.scout.run("hello")
        while not house.server.seen:
            time.sleep(0.005)
        time.sleep(0.1)
        began = time.monotonic()
        call.cancel()
        assert call.result(timeout_s=2).stop_reason == "interrupted"
        assert time.monotonic() - began < 1.5
        house.goes_on()


# a disk that is full

DISK = """
import json, resource, sys, threading, traceback
from pathlib import Path
import test_faults as t
from llmproc_nb.core import errors

NO_END = resource.RLIM_INFINITY

def tell(api, when, folder):
    ran, both = [], threading.Barrier(2, timeout=5)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (house.log_path.stat().st_size + 40, NO_END))

    def work(number: int) -> str:
        "Do something that cannot be undone."
        ran.append(number)
        both.wait()
        if when == "in a tool":
            fill()
        return f"did {number}"

    def answer(seen, n):
        if n == 0 and when.startswith("while"):
            fill()
            if when == "while it says no":
                return api.fault(400, "invalid_request_error", "no")
            if when == "while it fails":
                return api.fault(500, "api_error", "try again")
        return api.calls(("c1", "work", {"number": 1}), ("c2", "work", {"number": 2})) if n == 0 else api.says("done")

    with t.House(api, folder, answer, tools=[work]) as house:
        if when == "before it asks":
            fill()
        try:
            house.run()
            fault = None
        except errors.LogError as error:
            fault = str(error)
        t.legal(house.scout.path)
        t.ordered(house.machine.log.events)
        resource.setrlimit(resource.RLIMIT_FSIZE, (NO_END, NO_END))
        roles = [message.role for message in house.scout.messages]
        answers = [result.text for message in house.scout.messages for result in message.tool_results]
        asked = len(house.server.seen)
        house.goes_on()
        return [fault, roles, answers, sorted(ran), asked]

told = {}
for api in t.APIS:
    for when in json.loads(sys.argv[2]):
        try:
            told[f"{api}: {when}"] = tell(api, when, Path(sys.argv[1]) / str(api) / when)
        except Exception:
            told[f"{api}: {when}"] = traceback.format_exc()
        resource.setrlimit(resource.RLIMIT_FSIZE, (NO_END, NO_END))
print(json.dumps(told))
"""
NEVER = "not run: the call was interrupted before this tool started"
FULL: dict[str, list[Any]] = {
    "before it asks": [["system"], [], [], 0],
    "while it says no": [["system"], [], [], 1],
    "while it fails": [["system"], [], [], 1],
    "while it answers": [["system", "user", "assistant", "tool"], [NEVER, NEVER], [], 1],
    "in a tool": [["system", "user", "assistant", "tool"], ["did 1", "did 2"], [1, 2], 1],
}


@pytest.fixture(scope="module")
def full_disks(tmp_path_factory: pytest.TempPathFactory) -> JSON:
    """What happened at each moment at which the disk was full; a real one, so in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", DISK, str(tmp_path_factory.mktemp("disk")), json.dumps(list(FULL))],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LLMPROC_NB_LOG": "0"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: JSON = json.loads(done.stdout)
    return told


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are not there")
@every_api
@pytest.mark.parametrize("when", FULL)
def test_a_full_disk_ends_the_call_and_loses_nothing(api: Api, when: str, full_disks: JSON) -> None:
    told = full_disks[f"{api}: {when}"]
    assert isinstance(told, list), told
    fault, *rest = told
    assert "the log cannot be written: File too large" in fault and "Make room on the disk, then go on." in fault
    assert rest == FULL[when]


# in a cell


def test_in_a_cell_a_final_fault_is_one_red_line_and_a_passing_one_is_not_seen(tmp_path: Path) -> None:
    def answer(api: Api, n: int) -> Answer:
        made = [
            api.fault(401, "authentication_error", f"wrong key {SECRET}"),
            Answer(chunks=_half(api), then="cut"),
            api.says("all is well"),
        ]
        return made[n]

    with kernel(ANTHROPIC_API_KEY=SECRET, OPENAI_API_KEY=SECRET, LLMPROC_NB_LOG=str(tmp_path), LLMPROC_NB_STREAM="0") as notebook:
        assert notebook.run("%load_ext llmproc_nb").status == "ok"
        for api in APIS:
            with LoopbackServer(lambda seen, n, api=api: answer(api, n)) as server:
                choice = f"--provider {api.provider} -m test-model --base-url {server.url}{api.base}"
                failed = notebook.run(f"%%agent {api.provider}_1 {choice}\nhello", cell="a")
                assert failed.status == "error" and failed.error is not None
                assert [line.startswith("AuthError: ") and "Check the API key" in line for line in failed.error["traceback"]] == [True]
                good = notebook.run(f"%%agent {api.provider}_1\nhello again", cell="b")
                assert good.status == "ok", good.error
                assert "all is well" in good.data()[0] and "half" not in str(good.outputs)
                assert SECRET not in str(failed) + str(good)
                for seen in server.seen:
                    api.check(seen.body)
    (path,) = tmp_path.rglob("*.jsonl")
    assert SECRET not in path.read_text()
    log = read_log(path)
    ordered(log.events)
    assert [event.error for event in log.events if isinstance(event, AttemptFailed)] == ["AuthError", "ConnectionLost"] * 3
    assert log.dialog()


# what a person types


def test_a_wrong_table_a_wrong_tool_and_a_wrong_provider_are_said_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('[model]\nname = "m"\nprovider = "scripted"\n[parametres]\ntemperature = 1\n')
    assert [(note.kind, note.place) for note in Program.from_file(file).notes] == [("unknown", f"{file}: [parametres]")]
    machine = new_machine()
    with pytest.raises(errors.ProgramError, match=r"unknown provider 'antropic'; did you mean 'anthropic'\?"):
        Program(name="x", model="m", provider="antropic").start(machine=machine)
    with pytest.raises(errors.ProgramError, match="there is no tool 'calculater'; did you mean 'calculator'"):
        Program(name="x", model="m", provider="scripted", tools=("calculater",)).start(machine=machine)
    assert machine.processes == {}


def test_a_missing_key_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with House(ANTHROPIC, tmp_path, [ANTHROPIC.says("ok")]) as house:
        del os.environ["ANTHROPIC_API_KEY"]
        with pytest.raises(errors.AuthError, match="ANTHROPIC_API_KEY"):
            house.run()
        assert house.server.seen == []
        os.environ["ANTHROPIC_API_KEY"] = SECRET
        house.goes_on()


def test_a_limit_reached_is_a_stop_and_no_error(tmp_path: Path) -> None:
    with House(CHAT, tmp_path, [CHAT.calls(("c1", "add", {"a": 1, "b": 2}))], tools=[add], limits=Limits(max_iterations=1)) as house:
        result = house.run()
        assert (result.stop_reason, [run.outcome for run in result.tool_calls]) == ("max_steps", ["ran"])
        house.goes_on()
