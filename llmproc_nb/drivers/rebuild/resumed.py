"""What became of a process of an earlier run."""

from __future__ import annotations

import msgspec

from llmproc_nb.core.process import Process


class Resumed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one process of the earlier run.

    `process` is None where it could not be started; `fault` says why. `finished`, `unknown` and `never_started` are the tools that were
    open, by name. `unanswered` is a question that had got no answer when the kernel died: it is off the path, to be asked again.
    `missing_tools` need their functions: supply them with `process.add_tools`, under the same names. `missing_links` are programs it
    could spawn and cannot any more.
    """

    name: str
    old_pid: int
    process: Process | None = None
    finished: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    never_started: tuple[str, ...] = ()
    unanswered: str | None = None
    missing_tools: tuple[str, ...] = ()
    missing_links: tuple[str, ...] = ()
    fault: str | None = None

    def __str__(self) -> str:
        if self.process is None:
            return f"{self.name}: not resumed. {self.fault}"
        facts = [
            f"{len(self.process.path) - 1} messages",
            *(f"{what}: {', '.join(names)}" for what, names in self._open() if names),
            *([f"not answered, ask again: “{self.unanswered[:60]}”"] if self.unanswered is not None else []),
            *([f"functions to be supplied: {', '.join(self.missing_tools)}"] if self.missing_tools else []),
            *([f"programs it cannot spawn any more: {', '.join(self.missing_links)}"] if self.missing_links else []),
        ]
        return f"{self.name} (pid {self.process.pid}): {'; '.join(facts)}"

    def _open(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (
            ("finished", self.finished),
            ("begun, whether it took effect is unknown", self.unknown),
            ("never started", self.never_started),
        )
