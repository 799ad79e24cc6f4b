"""Processes of an earlier kernel run, living again: trees, heads, names, numbers, fds and usage, and an answer to every open tool call.

A tool that may have taken effect is never run again: its call is answered with what is known about it. `family` goes through the
events, `declared` makes programs and tools from what a log says of them, `ending` closes what was open. Not here: reading logs (logfile).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmproc_nb.core.machine import Machine
from llmproc_nb.core.program import Program
from llmproc_nb.core.record import last_run, processes, tree
from llmproc_nb.drivers.rebuild.declared import Declarations
from llmproc_nb.drivers.rebuild.ending import resumed
from llmproc_nb.drivers.rebuild.family import Family, above
from llmproc_nb.drivers.rebuild.resumed import Resumed

__all__ = ["Resumed", "rebuild"]


def rebuild(
    log: Any,
    machine: Machine,
    *,
    tools: Iterable[Any] = (),
    scripts: Mapping[str, Callable[..., Any]] | None = None,
    programs: Mapping[str, Program] | None = None,
    only: Iterable[str] | None = None,
) -> list[Resumed]:
    """The processes that lived when the log (its last run) ended, on a machine, in the order in which they had been started.

    `tools` are functions that programs had and data cannot say, `scripts` those that answer as a model, by name; `programs` takes the
    place of a process's recorded program, by name; `only` are the names to bring back, with those above them. The machine's own log gets
    all that is needed to do this once more from it alone. Raises LogError where the log's nodes are not what their ids say.
    """
    events = last_run(log.events if hasattr(log, "events") else log)
    dialog, past = tree(events), processes(events)
    names = set(only) if only is not None else None
    wanted = {one.pid for one in past.values() if not one.killed and (names is None or one.name in names)}
    wanted |= {pid for one in wanted for pid in above(past[one], past)}
    if not wanted:
        return []
    declarations = Declarations(events, past, machine.drivers, tuple(tools), dict(programs or {}), dict(scripts or {}))
    family = Family(events, dialog, past, machine, declarations, getattr(log, "path", None))
    family.start(wanted)
    found = [resumed(family, one) for one in past.values() if one.pid in wanted and not one.killed]
    return [one for one in found if one.process is None or one.process.alive]
