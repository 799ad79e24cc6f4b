"""What a request cost and how much a model can read, from the price data that genai-prices carries with it. No network is used.

Here: our providers' names to its own, our usage to its own. Not here: sums and limits (core's usage).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from llmproc_nb.core.usage import Usage

# nobody sends a bill for these
FREE = frozenset({"scripted", "replay", "ollama", "vllm", "llamacpp", "lmstudio"})
# our name of a provider to its names in the price data, the best first
_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "anthropic_vertex": ("google", "anthropic"),
        "openai_chat": ("openai",),
        "openai_response": ("openai",),
        "openai_responses": ("openai",),
        "gemini": ("google",),
        "moonshot": ("moonshotai",),
        "xai": ("x-ai",),
    }
)


def cost_usd(model: str, provider: str, usage: Usage, when_ns: int | None = None) -> float | None:
    """The price of one request in dollars; None where it is not known. `usage` is that of one request, since some prices have tiers.

    `when_ns` is the time of the request (UTC, since 1970), for prices that changed; None is now.
    """
    if provider in FREE:
        return 0.0
    if (found := _found(model, provider)) is None:
        return None
    import genai_prices

    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
    )
    when = datetime.now(UTC) if when_ns is None else datetime.fromtimestamp(when_ns / 1e9, UTC)
    seller, info = found
    try:
        price = info.calc_price(counted, seller, genai_request_timestamp=when)
    except ValueError:  # counts that contradict each other, as some endpoints send: better unknown than wrong
        return None
    return float(price.total_price)


def context_window(model: str, provider: str) -> int | None:
    """How many tokens a model can read; None where it is not known."""
    found = _found(model, provider)
    window: int | None = found[1].context_window if found else None
    return window


@lru_cache(maxsize=256)
def _found(model: str, provider: str) -> tuple[Any, Any] | None:
    """Who sells a model, and what is known of it. Names are compared exactly: a look-alike would give a wrong price."""
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    known = {seller.id for seller in snapshot.providers}
    for name in _NAMES.get(provider, (provider,)):
        if name not in known:
            continue
        try:
            return snapshot.find_provider_model(model, None, name, None)  # type: ignore[no-any-return]
        except LookupError:
            continue
    return None
