"""The words a program file may use: provider names, tool names, request fields. Pure data; what is done with them is elsewhere."""

from __future__ import annotations

DRIVERS = ("anthropic", "anthropic_vertex", "openai", "openai_chat", "openai_response", "openai_responses", "scripted", "replay")
ENDPOINTS = (
    "cerebras",
    "deepseek",
    "fireworks",
    "gemini",
    "groq",
    "huggingface",
    "llamacpp",
    "lmstudio",
    "mistral",
    "moonshot",
    "ollama",
    "openrouter",
    "perplexity",
    "together",
    "vllm",
    "xai",
)
PROVIDERS = DRIVERS + ENDPOINTS
OFFLINE = ("scripted", "replay")
RENAMED_PROVIDERS = {"vertex": "anthropic_vertex"}
REFUSED_PROVIDERS = {
    "azure": "every resource has its own address; openai_chat or openai_responses with base_url and api_key_env ask it",
    "bedrock": "no driver signs its requests; anthropic, or a gateway with base_url, asks the same models",
    "claude_code": "it uses the login of another product; anthropic with an API key asks the same models",
    "codex": "it uses the login of another product; openai with an API key asks the same models",
    "gemini_vertex": "no driver has its address and login; gemini with an API key asks the same models",
    "github_copilot": "it uses the login of another product; openai with an API key asks similar models",
}
"""Providers whose programs load but do not start, and what to do instead."""

TOOLS = (
    "calculator",
    "read_file",
    "list_dir",
    "ast_grep",
    "spawn",
    "fork",
    "goto",
    "read_fd",
    "fd_to_file",
    "run_python",
    "write_stderr",
    "copy",
    "paste",
)
FD_TOOLS = ("read_fd", "fd_to_file")

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
THINKING = ("enabled", "disabled", "adaptive")
STOPS = ("end_turn", "tool_use", "max_tokens", "stop_sequence", "refusal", "pause_turn", "context_window", "other")
ACCESS = ("read", "write", "admin")

ENV_VARIABLES = ("working_directory", "platform", "date", "python_version", "hostname", "username")

REQUEST_FIELDS = (
    "betas",
    "cache_control",
    "chat_template_kwargs",
    "container",
    "context_management",
    "frequency_penalty",
    "guided_json",
    "include",
    "inference_geo",
    "keep_alive",
    "logit_bias",
    "logprobs",
    "max_tool_calls",
    "metadata",
    "min_p",
    "modalities",
    "n",
    "options",
    "output_config",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "repetition_penalty",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "speed",
    "store",
    "text",
    "top_logprobs",
    "truncation",
    "user",
    "verbosity",
    "web_search_options",
)
"""Fields of the APIs' requests that are passed on as they are, without a remark."""

OWN_FIELDS = ("input", "instructions", "messages", "model", "previous_response_id", "prompt", "stream", "stream_options", "system", "tools")
"""Fields of a request that the process itself writes."""

SECRETS = ("api_key", "apikey", "auth_token", "access_token", "token", "password", "secret")

HOMES = {
    "api_key_env": "model",
    "base_url": "model",
    "max_iterations": "model",
    "project_id": "model",
    "provider": "model",
    "region": "model",
    "system": "prompt",
    "system_prompt": "prompt",
    "system_prompt_file": "prompt",
    "user_prompt": "prompt",
    "extra_headers": "parameters",
    "max_completion_tokens": "parameters",
    "max_tokens": "parameters",
    "reasoning_effort": "parameters",
    "stop": "parameters",
    "temperature": "parameters",
    "thinking": "parameters",
    "top_k": "parameters",
    "top_p": "parameters",
    "builtin": "tools",
    "enabled": "tools",
    "config_path": "mcp",
    "mcp_servers": "mcp",
    "servers": "mcp",
    "steps": "limits",
    "cost_usd": "limits",
    "seconds": "limits",
    "turns": "script",
    "file_descriptor": "plugins",
    "linked_programs": "plugins.spawn",
    "env_info": "plugins",
    "preload_files": "plugins",
    "display_name": "demo",
    "prompts": "demo",
}
"""The table in which a key would be read, for keys that stand in a wrong one."""
