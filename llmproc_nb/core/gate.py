"""The one gate through which every new child of a process comes: forked or spawned, by a person, by Python or by a model.

Here: who may have how many children, how deep, with which access; and whether one more request may be made. Not here: how a child is
made (machine).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmproc_nb.core.errors import LimitReached
from llmproc_nb.core.tool import Access, Toolset
from llmproc_nb.core.usage import Limits

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process

RANK: dict[Access, int] = {"read": 0, "write": 1, "admin": 2}
MODEL_CHILDREN = 100
MODEL_DEPTH = 3


def admit(parent: Process, count: int = 1, access: Access | None = None, *, by_model: bool = False) -> Access:
    """Let `count` children in and count them for the parent and everyone above it; gives their access level.

    A model has limits also where the program sets none. Raises LimitReached, before anything is made.
    """
    parent.check_alive()
    granted = parent.access if access is None else access
    if access is not None and RANK[access] > RANK[parent.access]:
        raise LimitReached(
            f"a child with {granted} access was asked for",
            place=parent.name,
            right=f"{parent.name} has {parent.access} access itself",
            step=f"Ask for {parent.access} access, or start {parent.name} with more.",
        )
    with parent.machine.log.alone():  # who counts must not count on what another thread is about to take
        check(parent, count, by_model=by_model)
        _count(parent, count)
    return granted


def release(parent: Process | None, count: int = 1) -> None:
    """Take children back that were let in and could not be made."""
    if parent is not None:
        with parent.machine.log.alone():
            _count(parent, -count)


def _count(parent: Process | None, count: int) -> None:
    while parent is not None:
        parent.children += count
        parent = parent.parent


def check(parent: Process, count: int = 1, *, by_model: bool = False) -> None:
    """Raises LimitReached where a limit of the parent, or of anyone above it, does not allow so many children more."""
    process: Process | None = parent
    deep = 1
    while process is not None:
        limits = process.program.limits
        if by_model or limits.children is not None or limits.depth is not None:
            _check(process, limits, count, deep, by_model)
        process, deep = process.parent, deep + 1


def allowed(tools: Toolset, access: Access) -> Toolset:
    """The tools that a process with this access may have."""
    if access == "admin":
        return tools
    return tools.filter(lambda tool: RANK[tool.access] <= RANK[access])


def _check(process: Process, limits: Limits, count: int, deep: int, by_model: bool) -> None:
    children = MODEL_CHILDREN if limits.children is None and by_model else limits.children
    depth = MODEL_DEPTH if limits.depth is None and by_model else limits.depth
    if children is not None and process.children + count > children:
        had = f"{process.children} made so far, {count} more asked for"
        right = f"{process.name} may have {children} children and children's children in all"
        raise LimitReached(had, place=process.name, right=right, step=_step(process, "children", "Go on with those it has"))
    if depth is not None and deep > depth:
        raise LimitReached(
            f"a child {deep} levels below {process.name} was asked for",
            place=process.name,
            right=f"its limit of depth is {depth}",
            step=_step(process, "depth", "Go on without one"),
        )


def _step(process: Process, limit: str, instead: str) -> str:
    return f"{instead}, or start {process.name} from a program with a higher limits.{limit}."


def take_step(process: Process, limits: Limits, *, iteration: int, seconds: float, shared: bool = True) -> str | None:
    """Count one request more for a process and everyone above it; or the stop reason of the first limit used up by one of them.

    `iteration` is how many the call has made. Called on the owner loop: of many children at once none takes what another one was given.
    Which of them a `shared` limit stops is chance, so a replay does not look at these: its recording says who was stopped.
    """
    stop = "max_steps" if iteration >= limits.of_call else None
    if shared and stop is None:
        stop = limits.reached(steps=process.steps, seconds=seconds, usage=process.usage)
        for above in process.ancestors:
            stop = stop or above.program.limits.reached(steps=above.steps, seconds=-1.0, usage=above.usage)
    if stop is None:
        for one in (process, *process.ancestors):
            one.steps += 1
    return stop
