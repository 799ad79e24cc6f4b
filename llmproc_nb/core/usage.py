"""Tokens and money: what was used, what is allowed. Prices themselves come from a driver."""

from __future__ import annotations

from math import inf

import msgspec

from llmproc_nb.core.field import Declared, check_values, wrong

ITERATIONS = 10


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one or more requests.

    `input_tokens` is everything the model read, cache reads and writes included; `output_tokens` is everything it wrote, reasoning
    included. `cost_usd` is the sum of the known prices; `unpriced_requests` says how many requests had no known price, so 0 is never
    mistaken for unknown.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_requests: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, metaclass=Declared):
    """What one process and its whole subtree may use; None is no limit.

    `max_iterations` counts the requests of the process in one call and no others (default: as many as `steps`, else 10); `seconds` the
    time of one call and of what it began. The others count for the life of the process, `steps` the requests.
    """

    max_iterations: int | None = None
    steps: int | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None
    children: int | None = None
    depth: int | None = None

    def __post_init__(self) -> None:
        check_values(self)
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not 0 <= value < inf:
                raise wrong("Limits", name, value, "a number from 0 up is needed; None is no limit")

    @property
    def of_call(self) -> int:
        """How many requests of its own one call may make."""
        chosen = self.steps if self.max_iterations is None else self.max_iterations
        return ITERATIONS if chosen is None else chosen

    def reached(self, *, steps: int, seconds: float, usage: Usage) -> str | None:
        """The stop reason of the first limit of the subtree that is used up, or None."""
        if self.steps is not None and steps >= self.steps:
            return "max_total_steps"
        if self.tokens is not None and usage.total_tokens >= self.tokens:
            return "max_total_tokens"
        if self.cost_usd is not None and usage.cost_usd >= self.cost_usd:
            return "max_cost"
        if self.seconds is not None and seconds >= self.seconds:
            return "max_seconds"
        return None
