"""Prices: our usage against hand-made sums, unknown and free endpoints, tiers and dates."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproc_nb.core.usage import Usage
from llmproc_nb.drivers.pricing import context_window, cost_usd

WHEN_NS = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1e9)
# 10,000 read, of which 6,000 from the cache and 3,000 into it (1,000 of these for an hour); 500 written
USAGE = Usage(
    requests=1,
    input_tokens=10_000,
    output_tokens=500,
    cache_read_tokens=6_000,
    cache_write_tokens=3_000,
    cache_write_1h_tokens=1_000,
    reasoning_tokens=200,
)


@pytest.mark.parametrize(
    ("model", "provider", "dollars_per_million"),
    [
        # plain input 1,000 · read 6,000 · written for 5 minutes 2,000 · for an hour 1,000 · output 500
        ("claude-sonnet-4-5-20250929", "anthropic", 1_000 * 3 + 6_000 * 0.3 + 2_000 * 3.75 + 1_000 * 6 + 500 * 15),
        ("claude-haiku-4-5", "anthropic", 1_000 * 1 + 6_000 * 0.1 + 2_000 * 1.25 + 1_000 * 2 + 500 * 5),
        # no price for writing into the cache: these tokens cost what plain input costs
        ("gpt-4o", "openai", 4_000 * 2.5 + 6_000 * 1.25 + 500 * 10),
        ("gpt-5-mini", "openai_responses", 4_000 * 0.25 + 6_000 * 0.025 + 500 * 2),
    ],
)
def test_the_price_of_a_request_is_the_sum_made_by_hand(model: str, provider: str, dollars_per_million: float) -> None:
    assert cost_usd(model, provider, USAGE, WHEN_NS) == pytest.approx(dollars_per_million / 1e6, rel=1e-12)


def test_a_long_request_costs_the_higher_tier_for_all_its_tokens() -> None:
    short = Usage(requests=1, input_tokens=272_000, output_tokens=1_000)
    long = Usage(requests=1, input_tokens=272_001, output_tokens=1_000)
    assert cost_usd("gpt-5.4", "openai", short, WHEN_NS) == pytest.approx((272_000 * 2.5 + 1_000 * 15) / 1e6)
    assert cost_usd("gpt-5.4", "openai", long, WHEN_NS) == pytest.approx((272_001 * 5 + 1_000 * 22.5) / 1e6)


def test_the_price_is_that_of_the_day_of_the_request() -> None:
    before = int(datetime(2026, 7, 29, 12, tzinfo=UTC).timestamp() * 1e9)
    usage = Usage(requests=1, input_tokens=1_000_000 // 10)
    assert (cost_usd("gpt-5.6-luna", "openai", usage, before), cost_usd("gpt-5.6-luna", "openai", usage, WHEN_NS)) == (0.1, 0.02)


def test_unknown_is_none_and_free_is_zero() -> None:
    found = {
        ("claude-of-next-year", "anthropic"): None,
        ("gpt-4o", "no-such-provider"): None,
        ("gpt-4o", "my-openai-proxy"): None,
        ("llama3.3", "openai_chat"): None,
        ("llama3.3", "ollama"): 0.0,
        ("anything", "scripted"): 0.0,
        ("anything", "replay"): 0.0,
    }
    assert {key: cost_usd(*key, USAGE) for key in found} == found


def test_counts_that_contradict_each_other_have_no_price() -> None:
    assert cost_usd("gpt-4o", "openai", Usage(input_tokens=10, cache_read_tokens=20)) is None


def test_windows_are_known_where_the_data_has_them() -> None:
    asked = (
        ("claude-haiku-4-5", "anthropic"),
        ("claude-sonnet-4-5@20250929", "anthropic_vertex"),
        ("gpt-4o", "openai"),
        ("nobody", "openai"),
    )
    assert [context_window(*pair) for pair in asked] == [200_000, 200_000, 128_000, None]


def test_models_on_vertex_have_a_price() -> None:
    price = cost_usd("claude-sonnet-4-5@20250929", "anthropic_vertex", Usage(input_tokens=1_000_000 // 10), WHEN_NS)
    assert price == pytest.approx(0.3, rel=0.11)  # Vertex adds up to a tenth in some regions


@given(st.integers(0, 200_000), st.integers(0, 200_000), st.integers(0, 100_000), st.integers(0, 50_000))
def test_reading_from_the_cache_is_never_dearer_than_reading_anew(plain: int, cached: int, written: int, said: int) -> None:
    total = plain + cached + written
    with_cache = Usage(requests=1, input_tokens=total, output_tokens=said, cache_read_tokens=cached)
    without = Usage(requests=1, input_tokens=total, output_tokens=said)
    lower, upper = (
        cost_usd("claude-sonnet-5-5", "anthropic", with_cache, WHEN_NS),
        cost_usd("claude-sonnet-5-5", "anthropic", without, WHEN_NS),
    )
    assert lower is not None and upper is not None
    assert lower == pytest.approx(upper - cached * (2 - 0.1) / 1e6, abs=1e-12)
