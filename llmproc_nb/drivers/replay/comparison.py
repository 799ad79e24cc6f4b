"""What came of making a recorded run again: how much was equal, and the first difference."""

from __future__ import annotations

import msgspec


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first place where the second run went another way. `step` counts the call's messages from 1; a node may be missing."""

    process: str
    call: int
    step: int
    recorded: str | None
    now: str | None
    text: str

    def __str__(self) -> str:
        ids = f"node {self.recorded[:8] if self.recorded else 'none'} recorded, {self.now[:8] if self.now else 'none'} now"
        return f"call {self.call} of {self.process}, message {self.step}: {self.text} ({ids})"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What came of re-executing a log: how much was compared, and the first difference if there is one. True where all is equal."""

    processes: int
    calls: int
    nodes: int
    difference: Difference | None = None
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return self.difference is None

    def __bool__(self) -> bool:
        return self.equal

    def __str__(self) -> str:
        counts = f"{_count(self.processes, 'process')}, {_count(self.calls, 'call')}, {_count(self.nodes, 'node')}"
        said = f"{counts}: all equal" if self.equal else f"{counts} equal, then a difference. {self.difference}"
        return ". ".join([said, *self.notes])

    def __repr__(self) -> str:
        return f"<Comparison {self}>"

    def _repr_markdown_(self) -> str:
        rows = ["| processes | calls | nodes | result |", "|---|---|---|---|"]
        result = "all equal" if self.equal else "differs"
        rows.append(f"| {self.processes} | {self.calls} | {self.nodes} | {result} |")
        text = str(self.difference).replace("`", "ʼ") if self.difference else ""
        return "\n".join([*rows, "", *([f"First difference: `{text}`"] if text else []), *self.notes])


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"
