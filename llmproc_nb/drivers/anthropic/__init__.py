"""The Messages API of Anthropic, also on Vertex AI. Importing this loads no SDK."""

from llmproc_nb.core.program import Program
from llmproc_nb.drivers.anthropic.driver import AnthropicProvider
from llmproc_nb.drivers.anthropic.vertex import AnthropicVertexProvider
from llmproc_nb.drivers.anthropic.wire import left_out

__all__ = ["AnthropicProvider", "AnthropicVertexProvider", "from_program", "left_out"]


def from_program(program: Program) -> AnthropicProvider:
    """The provider of a program's endpoint."""
    if program.provider == "anthropic_vertex":
        return AnthropicVertexProvider(
            project_id=program.project_id,
            region=program.region,
            base_url=program.base_url,
            key_variable=program.api_key_env,
            prompt_caching=program.prompt_caching,
        )
    return AnthropicProvider(
        name=program.provider or "anthropic",
        base_url=program.base_url,
        key_variable=program.api_key_env,
        prompt_caching=program.prompt_caching,
    )
