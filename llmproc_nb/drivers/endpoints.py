"""Named endpoints that speak OpenAI's Chat Completions: their addresses, keys and ways; and the names that cannot be served.

Here: the table. Not here: how they are asked (the openai driver). A program's `base_url` and `api_key_env` go before what is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint. Its key stands in `key_variable`, else in `other_key_variable`.

    `thoughts` is the field in which it wants its thoughts back; without one they are not sent.
    """

    base_url: str
    key_variable: str
    other_key_variable: str | None = None
    needs_key: bool = True
    max_tokens_field: str = "max_tokens"
    stream_usage: bool = True
    thoughts: str | None = None

    def options(self, base_url: str | None = None) -> dict[str, Any]:
        """What the chat driver is made with; `base_url` goes before the table's."""
        options = msgspec.structs.asdict(self)
        return {**options, "base_url": base_url} if base_url else options


ENDPOINTS: Mapping[str, Endpoint] = MappingProxyType(
    {
        "cerebras": Endpoint(
            base_url="https://api.cerebras.ai/v1", key_variable="CEREBRAS_API_KEY", max_tokens_field="max_completion_tokens"
        ),
        "deepseek": Endpoint(base_url="https://api.deepseek.com", key_variable="DEEPSEEK_API_KEY", thoughts="reasoning_content"),
        "fireworks": Endpoint(base_url="https://api.fireworks.ai/inference/v1", key_variable="FIREWORKS_API_KEY"),
        "gemini": Endpoint(
            base_url="https://generativelanguage.googleapis.com/v1beta/openai/",
            key_variable="GEMINI_API_KEY",
            other_key_variable="GOOGLE_API_KEY",
        ),
        "groq": Endpoint(base_url="https://api.groq.com/openai/v1", key_variable="GROQ_API_KEY", max_tokens_field="max_completion_tokens"),
        "huggingface": Endpoint(base_url="https://router.huggingface.co/v1", key_variable="HF_TOKEN"),
        "llamacpp": Endpoint(base_url="http://localhost:8080/v1", key_variable="LLAMACPP_API_KEY", needs_key=False),
        "lmstudio": Endpoint(base_url="http://localhost:1234/v1", key_variable="LMSTUDIO_API_KEY", needs_key=False),
        "mistral": Endpoint(base_url="https://api.mistral.ai/v1", key_variable="MISTRAL_API_KEY", stream_usage=False),
        "moonshot": Endpoint(base_url="https://api.moonshot.ai/v1", key_variable="MOONSHOT_API_KEY", thoughts="reasoning_content"),
        "ollama": Endpoint(base_url="http://localhost:11434/v1", key_variable="OLLAMA_API_KEY", needs_key=False),
        "openrouter": Endpoint(base_url="https://openrouter.ai/api/v1", key_variable="OPENROUTER_API_KEY", thoughts="reasoning_details"),
        "perplexity": Endpoint(base_url="https://api.perplexity.ai", key_variable="PERPLEXITY_API_KEY", stream_usage=False),
        "together": Endpoint(base_url="https://api.together.xyz/v1", key_variable="TOGETHER_API_KEY"),
        "vllm": Endpoint(base_url="http://localhost:8000/v1", key_variable="VLLM_API_KEY", needs_key=False),
        "xai": Endpoint(base_url="https://api.x.ai/v1", key_variable="XAI_API_KEY", max_tokens_field="max_completion_tokens"),
    }
)

_LOGIN = "it uses the login of another product, which is not offered to third parties"

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "claude_code": f"{_LOGIN}; use provider 'anthropic' with an API key",
        "codex": f"{_LOGIN}; use provider 'openai' with an API key",
        "gemini_vertex": "Vertex AI has no fixed address or key to put here; use provider 'gemini' with GEMINI_API_KEY, or "
        "'openai_chat' with your project's base_url and a token in api_key_env",
        "github_copilot": f"{_LOGIN}; use provider 'openai' with an API key",
        "azure": "every Azure resource has its own address; use provider 'openai_chat' or 'openai_responses' with base_url = "
        "'https://RESOURCE.openai.azure.com/openai/v1/' and api_key_env = 'AZURE_OPENAI_API_KEY'",
        "bedrock": "it signs requests with AWS credentials, which no driver here does; use provider 'anthropic' or a gateway with base_url",
    }
)
