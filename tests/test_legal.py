"""Forks, gotos, spawns and shorter branches through the real SDKs, against servers that refuse what the real APIs refuse.

The model's side is LLMProc's own two examples: several tasks at once by fork, and a long way round that is left by goto.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from machines import machine, roles
from servers import (
    Answer,
    LoopbackServer,
    anthropic_text,
    anthropic_tools,
    openai_chat_text,
    openai_chat_tools,
    openai_responses_text,
    openai_responses_tools,
    sse,
    sse_data,
)
from strict import Refused, check_anthropic, check_chat, check_responses

from llmproc_nb.api import Process, Program
from llmproc_nb.core.clock import SystemClock
from llmproc_nb.core.program import Link

Calls = list[tuple[str, str, Any]]


class Api(NamedTuple):
    name: str
    provider: str
    path: str
    check: Callable[[dict[str, Any]], None]
    text: Callable[..., list[dict[str, Any]]]
    tools: Callable[..., list[dict[str, Any]]]
    stream: Callable[..., list[bytes]]

    def __str__(self) -> str:
        return self.name


APIS = (
    Api("anthropic", "anthropic", "", check_anthropic, anthropic_text, anthropic_tools, sse),
    Api("responses", "openai_responses", "/v1", check_responses, openai_responses_text, openai_responses_tools, sse),
    Api("chat", "openai_chat", "/v1", check_chat, openai_chat_text, openai_chat_tools, lambda events: sse_data(events)),
)
every_api = pytest.mark.parametrize("api", APIS, ids=str)


class Model:
    """A server that answers by what was said last, and remembers whatever an API would have refused."""

    def __init__(self, api: Api, think: Callable[[str, dict[str, Any]], str | Calls]) -> None:
        self.api, self.think, self.refused, self.bodies = api, think, [], []

    def __call__(self, request: Any, number: int) -> Answer:
        body = request.body
        self.bodies.append(body)
        try:
            self.api.check(body)
        except Refused as error:
            self.refused.append(str(error))
            return Answer(status=400, body={"type": "error", "error": {"type": "invalid_request_error", "message": str(error)}})
        said = self.think(last_words(body), body)
        if isinstance(said, str):
            events = self.api.text(said)
        else:
            events = self.api.tools([(f"c{number}_{place}", name, args) for place, (_, name, args) in enumerate(said)])
        text = json.dumps(events).replace('"fc_', f'"fc_{number}_').replace('"msg_1"', f'"msg_{number}"')  # an API gives each item its own
        return Answer(headers={"content-type": "text/event-stream"}, chunks=self.api.stream(json.loads(text)))


def last_words(body: dict[str, Any]) -> str:
    """Everything since the model spoke last, as text."""
    heard: list[str] = []
    for item in reversed(body.get("messages") or body["input"]):
        if item.get("role") == "assistant" or item.get("type") in ("function_call", "reasoning"):
            break
        heard.append(json.dumps(item))
    return " ".join(reversed(heard))


def process(api: Api, server: LoopbackServer, *tools: str, **fields: Any) -> Process:
    program = Program(
        name="scout",
        provider=api.provider,
        model="claude-sonnet-5-5" if api.provider == "anthropic" else "gpt-test",
        base_url=server.url + api.path,
        system="You help.",
        tools=tools,
        **fields,
    )
    return program.start(machine=machine(SystemClock()))


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


@every_api
def test_a_fork_by_the_model_is_legal_for_children_and_parent(api):
    def think(words: str, body: dict[str, Any]) -> str | Calls:
        if "summarise both files" in words:
            return [("", "calculator", {"expression": "6*7"}), ("", "fork", {"prompts": ["read A", "read B"]})]
        for name in "AB":
            if f"read {name}" in words and "You are scout" in words:
                return f"{name} is fine"
        return "both are fine" if "A is fine" in words and "B is fine" in words else f"lost: {words[:200]}"

    model = Model(api, think)
    with LoopbackServer(model) as server:
        scout = process(api, server, "fork", "calculator")
        assert scout.run("summarise both files").result().text == "both are fine"
        child = scout.machine.find("scout.2")
        assert child.run("and again, read A, You are scout").result().text == "A is fine"
        assert scout.run("go on: A is fine, B is fine").result().text == "both are fine"
    assert model.refused == [] and len(model.bodies) == 6


@every_api
def test_a_goto_by_the_model_and_what_follows_is_legal(api):
    def think(words: str, body: dict[str, Any]) -> str | Calls:
        if "<goto" in words:
            return "the short answer"
        if "look around" in words:
            return [("", "calculator", {"expression": "1+1"}), ("", "calculator", {"expression": "2+2"})]
        if "[msg_2]" in words:
            return [("", "goto", {"position": "msg_0", "message": "It was 2."}), ("", "calculator", {"expression": "3"})]
        return "fine"

    model = Model(api, think)
    with LoopbackServer(model) as server:
        scout = process(api, server, "goto", "calculator")
        assert scout.run("look around").result().text == "the short answer"
        assert roles(scout) == ["system", "user", "user", "assistant"]
        assert str(scout.run("thanks")) == "fine"
        scout.undo()
        assert str(scout.run("what now")) == "fine"
        for node in list(scout.machine.dialog):
            scout.goto(node)
            assert str(scout.run("from here")) in ("fine", "the short answer"), node
    assert model.refused == []


@every_api
def test_every_place_can_be_forked_shortened_and_merged_from(api):
    def think(words: str, body: dict[str, Any]) -> str | Calls:
        return [("", "calculator", {"expression": "1+1"})] * 2 if "count" in words else "fine"

    model = Model(api, think)
    with LoopbackServer(model) as server:
        scout = process(api, server, "calculator")
        for words in ("hello", "count", "count again", "bye"):
            scout.run(words).result()
        nodes = scout.path
        for node in nodes:
            assert str(scout.fork(at=node).run("x")) == "fine"
        for first in range(5):
            for last in range(5):
                assert str(scout.fork(first_k=first, last_n=last).run("x")) == "fine", (first, last)
        child = scout.fork("child")
        child.run("idea").result()
        scout.merge(child, "note")
        assert str(scout.run("and")) == "fine"
    assert model.refused == []


@every_api
def test_a_spawned_program_is_asked_legally_and_answers(api):
    def think(words: str, body: dict[str, Any]) -> str | Calls:
        if "ask the expert" in words:
            return [("", "spawn", {"prompt": "what is it", "program_name": "expert"})]
        return "it is 42" if "what is it" in words else "I see"

    model = Model(api, think)
    with LoopbackServer(model) as server:
        expert = Program(name="expert", provider=api.provider, model="gpt-test", base_url=server.url + api.path, system="You know.")
        if api.provider == "anthropic":
            expert = msgspec.structs.replace(expert, model="claude-sonnet-5-5")
        scout = process(api, server, "spawn", linked={"expert": Link(program=expert, description="knows")})
        result = scout.run("ask the expert").result()
        assert (result.text, result.tool_calls[0].result.text) == ("I see", "it is 42")
        assert result.below.requests == 1
    assert model.refused == []
