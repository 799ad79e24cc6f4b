"""The OpenAI drivers: Responses, and Chat Completions with every server that speaks it. Importing this loads no SDK."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import Program
from llmproc_nb.drivers.openai.chat import OpenAIChat
from llmproc_nb.drivers.openai.client import official_url
from llmproc_nb.drivers.openai.responses import OpenAIResponses

__all__ = ["OpenAIChat", "OpenAIResponses", "from_program"]

_OWN = ("openai", "openai_chat", "openai_response", "openai_responses")


def from_program(program: Program) -> OpenAIResponses | OpenAIChat:
    """The provider of a program's endpoint.

    `openai` is Responses at OpenAI's own address and Chat Completions anywhere else, the one API all compatible servers have.
    `openai_responses` (also `openai_response`) and `openai_chat` name one of them; the other names are those of endpoints.
    """
    name = program.provider
    options: dict[str, Any] = {"name": name}
    if program.api_key_env:
        options |= {"key_variable": program.api_key_env, "other_key_variable": None}
    if name not in _OWN:
        # by name, as the table of drivers does: no driver imports another
        endpoints = import_module("llmproc_nb.drivers.endpoints")
        if name not in endpoints.ENDPOINTS:
            raise ProgramError(f"provider {name!r} is not served here", right=endpoints.REFUSED.get(name, f"one of {', '.join(_OWN)} is"))
        return OpenAIChat(**{**endpoints.ENDPOINTS[name].options(program.base_url), **options})
    if program.base_url:
        options["base_url"] = program.base_url
        # a server at home needs no key; one that does will say so
        options["needs_key"] = official_url(program.base_url) or bool(program.api_key_env)
    if name in ("openai_responses", "openai_response") or (name == "openai" and official_url(program.base_url)):
        return OpenAIResponses(**options)
    return OpenAIChat(**options)
