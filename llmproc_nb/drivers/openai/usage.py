"""Token counts of both APIs as Usage. Any count may be missing or null."""

from __future__ import annotations

from typing import Any

from llmproc_nb.core.usage import Usage


def usage_of(counts: Any) -> Usage | None:
    """The tokens an answer states, under the names of either API; None where it states none."""
    if not isinstance(counts, dict):
        return None
    read = _int(counts, "input_tokens", "prompt_tokens")
    written = _int(counts, "output_tokens", "completion_tokens")
    total = _int(counts, "total_tokens")
    of_read = _dict(counts, "input_tokens_details", "prompt_tokens_details")
    of_written = _dict(counts, "output_tokens_details", "completion_tokens_details")
    return Usage(
        input_tokens=read,
        # some servers count reasoning in the total only
        output_tokens=max(written, total - read),
        cache_read_tokens=_int(of_read, "cached_tokens") or _int(counts, "prompt_cache_hit_tokens"),
        cache_write_tokens=_int(of_read, "cache_write_tokens"),
        reasoning_tokens=_int(of_written, "reasoning_tokens"),
    )


def _int(counts: dict[str, Any], *names: str) -> int:
    return next((int(counts[name]) for name in names if isinstance(counts.get(name), int | float)), 0)


def _dict(counts: dict[str, Any], *names: str) -> dict[str, Any]:
    return next((counts[name] for name in names if isinstance(counts.get(name), dict)), {})
