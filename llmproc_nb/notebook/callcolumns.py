"""The columns of calls: for each call, what its events add up to."""

from __future__ import annotations

from typing import Any

from llmproc_nb.core.event import Asked, AttemptFailed, Called, Declared, Replied, Stopped, ToolRan
from llmproc_nb.core.record import Kinds, Past, total
from llmproc_nb.core.usage import Usage
from llmproc_nb.notebook.pasttree import Table, Tree, columns_of, known_cost


class _Sum:
    """What one call added up to."""

    __slots__ = ("error", "head", "model", "replayed", "replies", "retries", "stop", "tools", "usage")

    def __init__(self) -> None:
        self.usage: list[Usage] = []
        self.replies = self.retries = self.tools = 0
        self.replayed = True
        self.model: str | None = None
        self.head: str | None = None
        self.stop: Stopped | None = None


def call_columns(events: Kinds, past: dict[int, Past], tree: Tree) -> Table:
    """One row per call, oldest first."""
    begun: dict[int, Called] = {}
    sums: dict[int | None, _Sum] = {}
    models = {declared.config: declared.model for declared in events.of(Declared)}
    for called in events.of(Called):
        if called.call is not None:
            begun[called.call], sums[called.call] = called, _Sum()
    for asked in events.of(Asked):
        if (one := sums.get(asked.call)) is not None:
            one.model = models.get(asked.config)
    for replied in events.of(Replied):
        if (one := sums.get(replied.call)) is not None:
            one.usage.append(replied.usage)
            one.replies += 1
            one.replayed = one.replayed and replied.replayed
            one.model = replied.model or one.model
            one.head = one.head if replied.aside else replied.node
    for failed in events.of(AttemptFailed):
        if (one := sums.get(failed.call)) is not None:
            one.usage.append(failed.usage)
            one.retries += 1
    for ran in events.of(ToolRan):
        if (one := sums.get(ran.call)) is not None:
            one.tools += 1
    for stopped in events.of(Stopped):
        if (one := sums.get(stopped.call)) is not None:
            one.stop = stopped
    rows = [_call(number, event, sums[number], past.get(event.pid), tree) for number, event in begun.items()]
    return columns_of(
        "call pid process cell node head started duration_s model provider scripted replayed stop requests retries tools"
        " input_tokens output_tokens cache_read_tokens cache_write_tokens reasoning_tokens cost_usd prompt text error",
        rows,
    )


def _call(number: int, event: Called, one: _Sum, past: Past | None, tree: Tree) -> tuple[Any, ...]:
    started, stop = past.started if past else None, one.stop
    used = stop.usage if stop else total(one.usage)
    return (
        number,
        event.pid,
        started.name if started else None,
        event.cell,
        event.node,
        stop.node if stop else one.head or event.node,
        event.time_ns,
        stop.duration_s if stop else None,
        one.model,
        started.provider if started else None,
        started.scripted if started else None,
        one.replayed and one.replies > 0,
        stop.reason if stop else None,
        one.replies,
        one.retries,
        one.tools,
        used.input_tokens,
        used.output_tokens,
        used.cache_read_tokens,
        used.cache_write_tokens,
        used.reasoning_tokens,
        known_cost(used),
        tree.text(event.node),
        tree.text(one.head) if one.head else None,
        stop.error if stop else None,
    )
