"""Running the tool calls of one reply: all at once, answered in order, each answer an event before it is anything else."""

from __future__ import annotations

import asyncio
import difflib
import functools
import inspect
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.errors import LlmprocError, LogError, ReplayMiss, ToolError
from llmproc_nb.core.event import ToolRan, ToolStarted
from llmproc_nb.core.message import Text, ToolCall, ToolResult, clean
from llmproc_nb.core.owner import ToolExit
from llmproc_nb.core.result import ToolRun
from llmproc_nb.core.tool import ResultParts, Tool, read_arguments, result_parts

if TYPE_CHECKING:
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.loop import Run

OWN_CODE = Path(__file__).parent
AT_ONCE = 32
GRACE_S = 0.2

CUT_OFF = "not run: the reply was cut off before this call was complete"
NOT_RUN = "not run: the call was interrupted before this tool started"
UNKNOWN = "interrupted while the tool ran: whether it took effect is unknown"


async def run_tools(run: Run, node: Node) -> tuple[list[ToolRun], list[int], bool]:
    """Run the calls of the reply at `node`.

    Gives the runs in order, the seqs of their events, and whether all came to an end by themselves.
    """
    calls = node.message.tool_calls
    gate = asyncio.Semaphore(AT_ONCE)
    tasks = [asyncio.create_task(_one(run, node, position, call, gate)) for position, call in enumerate(calls)]
    whole, waiting = True, set(tasks)
    while waiting:
        try:
            _, waiting = await asyncio.wait(waiting)
        except asyncio.CancelledError:  # it may come more than once: who is impatient must not leave calls without an answer
            whole = False
            for task in tasks:
                task.cancel()
            for call in tuple(run.waits_for):  # a thread cannot be stopped, what it waits for can
                call.cancel()
    fault = next((error for task in tasks if (error := task.exception()) is not None), None)
    if fault is not None:
        raise fault
    made = [task.result() for task in tasks]
    whole = whole and all(tool_run.outcome != "interrupted" for tool_run, _ in made)
    return [tool_run for tool_run, _ in made], [seq for _, seq in made], whole


def refuse_all(run: Run, node: Node, why: str) -> tuple[list[ToolRun], list[int]]:
    """Answer every call of a reply without running anything."""
    made = [_answer(run, node, position, call, (Text(text=why),), "refused", 0.0) for position, call in enumerate(node.message.tool_calls)]
    return [tool_run for tool_run, _ in made], [seq for _, seq in made]


async def _one(run: Run, node: Node, position: int, call: ToolCall, gate: asyncio.Semaphore) -> tuple[ToolRun, int]:
    clock = run.machine.clock
    began: float | None = None
    arguments: dict[str, Any] | str = call.arguments
    deadline, trace = asyncio.timeout(None), None
    try:
        async with gate:
            recorded = run.machine.recorded_tool(node.id, position, run.process.lineage)
            if recorded is not None:
                return _answer(run, node, position, call, recorded.result.content, recorded.outcome, recorded.duration_s, replayed=True)
            tool = _find(run, call)
            arguments = read_arguments(call.arguments)
            checked = tool.check(arguments) if tool.check else arguments
            run.write(ToolStarted, node=node.id, position=position, call_id=call.id, name=call.name, arguments=call.arguments)
            await run.tell("tool_start", call.name, arguments)
            began = clock.monotonic()
            deadline = asyncio.timeout(tool.timeout_s)
            async with deadline:
                value = await _invoke(run, tool, checked)
            parts, outcome = await _shown(run, value), "ran"
    except asyncio.CancelledError:
        parts, outcome = (Text(text=NOT_RUN if began is None else UNKNOWN),), "refused" if began is None else "interrupted"
    except ReplayMiss:
        raise  # not the tool's fault, and nothing a model could mend
    except LogError as error:  # the call ends with it, but each answer is known first: others of its tools may have taken effect
        run.unkept = run.unkept or error
        parts, outcome = (Text(text=NOT_RUN if began is None else UNKNOWN),), "refused" if began is None else "failed"
    except LlmprocError as error:
        parts, outcome = (Text(text=clean(error.for_model())),), "refused" if began is None else "failed"
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # a tool is foreign code: its fault is an answer, not ours
        parts, outcome = (Text(text=clean(str(error) if isinstance(error, ToolExit) else f"{type(error).__name__}: {error}")),), "failed"
        if isinstance(error, ToolExit) and issubclass(error.kind, KeyboardInterrupt):
            parts, outcome = (Text(text=UNKNOWN),), "interrupted"
        trace = _trace(error)
        if isinstance(error, TimeoutError) and deadline.expired():
            parts, outcome = (Text(text=f"no result within {tool.timeout_s:g} s; whether it took effect is unknown"),), "timed_out"
    duration_s = 0.0 if began is None else clock.monotonic() - began
    made = _answer(run, node, position, call, parts, outcome, duration_s, arguments=arguments, trace=trace)
    if outcome != "interrupted":
        with suppress(asyncio.CancelledError):  # the answer stands, whoever is told of it
            await run.tell("tool_end", call.name, made[0].result)
    return made


def _answer(
    run: Run,
    node: Node,
    position: int,
    call: ToolCall,
    parts: ResultParts,
    outcome: str,
    duration_s: float,
    *,
    arguments: dict[str, Any] | str | None = None,
    replayed: bool = False,
    trace: str | None = None,
) -> tuple[ToolRun, int]:
    if arguments is None:
        try:
            arguments = read_arguments(call.arguments)
        except ToolError:
            arguments = call.arguments
    result = ToolResult(call_id=call.id, name=call.name, content=parts, is_error=outcome != "ran")
    fields: dict[str, Any] = {"name": call.name, "position": position, "result": result, "outcome": outcome}
    fields |= {"duration_s": duration_s, "replayed": replayed, "trace": trace}
    return ToolRun(arguments=arguments, **fields), run.keep(ToolRan, node=node.id, **fields)


def _trace(error: BaseException) -> str | None:
    """Where in the tool's own code an error came up, innermost last, without folders of this machine."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if OWN_CODE not in Path(frame.filename).parents]
    lines = [f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames[-8:]]
    return clean("\n".join(lines)) or None


def _find(run: Run, call: ToolCall) -> Tool:
    tool = run.tools.get(call.name)
    if tool is not None:
        return tool
    names = [known.name for known in run.tools]
    near = difflib.get_close_matches(call.name, names, 1)
    right = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}" if names else "there are no tools"
    raise ToolError(f"there is no tool {call.name!r}", right=right)


async def _invoke(run: Run, tool: Tool, arguments: dict[str, Any]) -> Any:
    process = run.process
    given = {name: process if kind == "process" else {"process": process} for name, kind in tool.inject.items()}
    function: Callable[[], Any] = functools.partial(tool.function, **arguments, **given)
    if inspect.iscoroutinefunction(inspect.unwrap(tool.function)) or inspect.iscoroutinefunction(getattr(tool.function, "__call__", None)):  # noqa: B004
        return await _released(function)
    if tool.where == "main" and run.on_main is not None:
        value = await asyncio.wrap_future(run.on_main(function))
    else:
        value = await run.machine.owner.workers.run(function)
    return await value if inspect.isawaitable(value) else value


async def _shown(run: Run, value: Any) -> ResultParts:
    """What a tool returned, for the model. Anything but plain text may take its time, and a repr is foreign code: not on the owner loop."""
    if value is None or isinstance(value, str | bytes | bool | int | float):
        return result_parts(value)
    return await run.machine.owner.workers.run(lambda: result_parts(run.machine.show(value)))


async def _released(function: Callable[[], Awaitable[Any]]) -> Any:
    """What a coroutine function gives. One that does not heed its end is left behind: it must not keep the call from ending."""

    async def body() -> Any:
        try:
            return await function()
        except (SystemExit, KeyboardInterrupt) as error:
            raise ToolExit(error) from None

    task = asyncio.create_task(body())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE_S)
        task.add_done_callback(lambda left: left.cancelled() or left.exception())
        raise
