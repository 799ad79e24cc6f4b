"""Which program a new process gets: what the cell says over what `%agent` chose over what the environment has.

Here: choices and how they combine. Not here: reading program files (drivers.files).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from llmproc_nb.api import Program
from llmproc_nb.core.errors import PersonError, ProgramError, meant
from llmproc_nb.drivers.table import provider_names

DEFAULT_MODELS = {"ANTHROPIC_API_KEY": "anthropic:claude-sonnet-5-5", "OPENAI_API_KEY": "openai:gpt-5.5"}
_FAMILIES = ((r"claude", "anthropic"), (r"gpt-|chatgpt-|o\d", "openai"), (r"gemini", "gemini"))


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody chose; None: nothing. `model` may name its provider: `anthropic:claude-…`."""

    program: str | None = None
    model: str | None = None
    provider: str | None = None
    base_url: str | None = None
    system: str | None = None
    max_steps: int | None = None

    def over(self, other: Choice) -> Choice:
        """These choices, and the other's where these say nothing.

        A provider and an address belong to the model they were chosen with, and a model to its program: a new one drops them, or a key
        would go to a server it is not meant for.
        """
        if self.program is not None:
            other = Choice(max_steps=other.max_steps)
        elif self.model is not None or self.provider is not None:
            other = msgspec.structs.replace(other, provider=None, base_url=None)
        return Choice(
            **{name: value if (value := getattr(self, name)) is not None else getattr(other, name) for name in self.__struct_fields__}
        )

    @property
    def empty(self) -> bool:
        return self == Choice()


def program_of(choice: Choice, name: str, environ: Mapping[str, str], known: Mapping[str, Any]) -> Program:
    """The program of a choice. `known` are the names of the notebook, where a Program may stand. Raises PersonError, ProgramError."""
    program = _base(choice, name, known)
    if not choice.program:
        program = program.replace(name=name)
    model = choice.model if choice.model is not None or program.model else _default_model(environ)
    provider = choice.provider
    if choice.base_url is not None and model is not None and provider is None and split_model(model)[0] is None:
        provider = "openai"  # what every compatible server speaks
    program = with_model(program, model, provider)
    if choice.base_url is not None:
        program = program.replace(base_url=choice.base_url)
    if choice.system is not None:
        program = program.replace(system=choice.system)
    if choice.max_steps is not None:
        program = program.replace(limits=msgspec.structs.replace(program.limits, max_iterations=choice.max_steps))
    return program


def with_model(program: Program, model: str | None, provider: str | None = None) -> Program:
    """The program with another model, provider, or both. An address and a key stay with the provider they were given for."""
    if model is not None:
        named = model
        provider, model = split_model(model, provider, own=program.provider)
        if not model:
            raise ProgramError(f"--model {named!r} names no model", right="a model, or provider:model, is needed")
        if provider is None and program.provider == "scripted":  # a script is no provider of models
            program = program.replace(provider="")
    provider = provider or program.provider
    if not provider:
        raise ProgramError(f"no provider is known for model {model!r}", right="`provider:model` names both, as in `ollama:llama3.2`")
    moved = {} if provider == program.provider else {"base_url": None, "api_key_env": None}
    return program.replace(model=model or program.model, provider=provider, **moved)


def _base(choice: Choice, name: str, known: Mapping[str, Any]) -> Program:
    if choice.program is None:
        return Program(name=name)
    value = known.get(choice.program)
    if isinstance(value, Program):
        return value
    if re.search(r"\.(toml|ya?ml)$", choice.program):
        return Program.from_file(choice.program)
    programs = [key for key, value in known.items() if isinstance(value, Program)]
    raise PersonError(
        f"--program {choice.program!r} is neither a file (.toml, .yaml) nor a Program in this notebook",
        right=meant(choice.program, programs, "give the path of a program, as in programs/quickstart.toml"),
    )


def split_model(model: str, provider: str | None = None, *, own: str = "") -> tuple[str | None, str]:
    """Provider and model of `provider:model`, or of a model whose family is known; None where nothing says the provider.

    A colon belongs to the model (`qwen:7b`) where what stands before it is no provider, and `own` (the program's) or `provider` names one.
    """
    head, colon, rest = model.partition(":")
    if colon and provider is None and (head in provider_names() or not own or own == "scripted"):
        return head, rest
    if provider is None:
        provider = next((family for pattern, family in _FAMILIES if re.match(pattern, model)), None)
    return provider, model


def _default_model(environ: Mapping[str, str]) -> str:
    for key, model in DEFAULT_MODELS.items():
        if environ.get(key):
            return model
    raise PersonError(
        "no model is chosen and no API key is set",
        right="`%agent --program FILE` takes a program, a scripted one works offline; `%agent --model claude-sonnet-5-5` needs a key",
        step="See `%agent?`.",
    )
