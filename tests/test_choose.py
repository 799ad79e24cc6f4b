"""Which program a process gets: what a cell says over what `%agent` chose over what the environment has."""

from __future__ import annotations

import pytest

from llmproc_nb import Program
from llmproc_nb.choose import Choice, program_of
from llmproc_nb.core.errors import PersonError, ProgramError

SCRIPTED = Program(name="demo", provider="scripted", model="script", script=({"say": "hi"},))
LOCAL = Program(name="local", provider="ollama", model="llama3.2", base_url="http://box:11434/v1", api_key_env="BOX_KEY")


def made(environ=None, **choice):
    program = program_of(Choice(**choice), "scout", environ or {}, {"demo": SCRIPTED, "local": LOCAL})
    return program.provider, program.model, program.base_url, program.api_key_env


@pytest.mark.parametrize(
    ("choice", "result"),
    [
        ({"model": "claude-sonnet-5-5"}, ("anthropic", "claude-sonnet-5-5", None, None)),
        ({"model": "openai:gpt-5.5"}, ("openai", "gpt-5.5", None, None)),
        ({"model": "o3"}, ("openai", "o3", None, None)),
        ({"model": "ollama:qwen:7b"}, ("ollama", "qwen:7b", None, None)),
        ({"program": "demo"}, ("scripted", "script", None, None)),
        ({"program": "demo", "model": "claude-sonnet-5-5"}, ("anthropic", "claude-sonnet-5-5", None, None)),
        ({"program": "local"}, ("ollama", "llama3.2", "http://box:11434/v1", "BOX_KEY")),
        ({"program": "local", "model": "qwen:7b"}, ("ollama", "qwen:7b", "http://box:11434/v1", "BOX_KEY")),
        ({"program": "local", "model": "claude-sonnet-5-5"}, ("anthropic", "claude-sonnet-5-5", None, None)),
        ({"model": "mine", "base_url": "http://box/v1"}, ("openai", "mine", "http://box/v1", None)),
        ({"model": "claude-x", "base_url": "http://box"}, ("anthropic", "claude-x", "http://box", None)),
    ],
)
def test_a_choice_becomes_a_program(choice, result):
    assert made(**choice) == result


def test_a_key_in_the_environment_chooses_its_vendor():
    assert made({"OPENAI_API_KEY": "k"})[0] == "openai"
    assert made({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"})[0] == "anthropic"


def test_nothing_chosen_says_what_could_be():
    with pytest.raises(PersonError, match="no model is chosen"):
        made()


@pytest.mark.parametrize("choice", [{"model": "mine"}, {"program": "demo", "model": "mine"}])
def test_a_model_nobody_is_known_to_serve_is_an_error(choice):
    with pytest.raises(ProgramError, match="no provider is known"):
        made(**choice)


@pytest.mark.parametrize("later", [Choice(model="claude-sonnet-5-5"), Choice(provider="openai"), Choice(program="demo")])
def test_an_address_stays_with_the_model_it_was_chosen_for(later):
    first = Choice(model="mine", provider="vllm", base_url="http://box/v1")
    assert later.over(first).base_url is None


def test_what_is_not_said_again_stays_chosen():
    assert Choice(max_steps=3).over(Choice(program="demo", model="m")) == Choice(program="demo", model="m", max_steps=3)
