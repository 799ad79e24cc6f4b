"""Running the tool calls of one reply: all at once, answered in order, each answer an event before it is anything else."""

from __future__ import annotations

import asyncio
import difflib
import functools
import inspect
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core.decision import decide, said, write
from llmproc_nb.core.decision import recorded as recorded_decision
from llmproc_nb.core.errors import LlmprocError, LogError, ReplayMiss, ToolError
from llmproc_nb.core.event import ToolRan, ToolStarted
from llmproc_nb.core.message import Text, ToolCall, ToolResult, clean
from llmproc_nb.core.output import shown
from llmproc_nb.core.owner import ToolExit
from llmproc_nb.core.paging import file_part, in_place, open_recorded, paged_part, paged_result
from llmproc_nb.core.result import ToolRun
from llmproc_nb.core.sandboxed import note_recorded, recorded_ran
from llmproc_nb.core.syscall import read_fd, run_python
from llmproc_nb.core.tool import CutShort, Paged, Place, ResultParts, Shown, Tool, read_arguments, result_parts

if TYPE_CHECKING:
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.loop import Run

OWN_CODE = Path(__file__).parent
AT_ONCE = 32
GRACE_S = 0.2

CUT_OFF = "not run: the reply was cut off before this call was complete"
NOT_RUN = "not run: the call was interrupted before this tool started"
MAIN_BUSY = "not run: another tool held the notebook's main thread until the time of this one was over"
UNKNOWN = "interrupted while the tool ran: whether it took effect is unknown"


class NotBegun(Exception):
    """A function was given up while it waited for the main thread."""


async def run_tools(run: Run, node: Node) -> tuple[list[ToolRun], list[int], bool]:
    """Run the calls of the reply at `node`.

    Gives the runs in order, the seqs of their events, and whether all came to an end by themselves.
    """
    calls = node.message.tool_calls
    gate = asyncio.Semaphore(AT_ONCE)
    run.process.fds.hold()
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
    run.process.fds.release()
    faults = [error for task in tasks if (error := task.exception()) is not None]
    if faults:
        raise faults[0]
    made = [task.result() for task in tasks]
    whole = whole and all(tool_run.outcome != "interrupted" for tool_run, _ in made)
    return [tool_run for tool_run, _ in made], [seq for _, seq in made], whole


def refuse_all(run: Run, node: Node, why: str, done: tuple[int, str] | None = None) -> tuple[list[ToolRun], list[int]]:
    """Answer every call of a reply without running anything; `done` is the position of one that was done, and what is said of it."""
    made = []
    for position, call in enumerate(node.message.tool_calls):
        said, outcome = (done[1], "ran") if done is not None and done[0] == position else (why, "refused")
        made.append(_answer(run, node, position, call, (Text(text=said),), outcome, 0.0))
    return [tool_run for tool_run, _ in made], [seq for _, seq in made]


async def _one(run: Run, node: Node, position: int, call: ToolCall, gate: asyncio.Semaphore) -> tuple[ToolRun, int]:
    clock = run.machine.clock
    began: float | None = None
    arguments: dict[str, Any] | str = call.arguments
    deadline, trace = asyncio.timeout(None), None
    parts: ResultParts = ()
    try:
        recorded = _recorded(run, node, position, call)
        if recorded is not None:
            return recorded
        arguments = read_arguments(call.arguments)
        ready = await _ready(run, node, position, call, arguments)
        tool, arguments = ready.tool, ready.given
        place = Place(node=node, position=position)
        async with gate:
            run.write(ToolStarted, node=node.id, position=position, call_id=call.id, name=call.name, arguments=ready.written)
            await run.tell("tool_start", call.name, arguments)
            began = clock.monotonic()
            deadline = asyncio.timeout(tool.timeout_s)
            async with deadline:
                value = await _invoke(run, tool, ready.checked, place)
            cut = run.machine.recorded.cut(node.id, position, run.process.lineage) if tool.kind == "syscall" else None
            if cut is not None:  # what it had begun has come as far again by now
                open_recorded(run.process, node, position)
                return _answer(
                    run, node, position, call, cut.result.content, cut.outcome, cut.duration_s, arguments=arguments, replayed=True
                )
            given, outcome = (*ready.note, *await _shown(run, value, f"tool_result {call.name}", place)), "ran"
            if tool.function is read_fd:  # what was asked for page by page stays as it is
                parts = tuple(map(in_place, given))
            else:
                parts = await paged_result(run.process, given, f"tool_result {call.name}", node, position)
    except asyncio.CancelledError:
        given, outcome = (Text(text=NOT_RUN if began is None else UNKNOWN),), "refused" if began is None else "interrupted"
        given = (*_until_then(run, node, position), *given)
    except NotBegun:
        given, outcome = (Text(text=MAIN_BUSY if deadline.expired() else NOT_RUN),), "refused"
    except CutShort as cut_short:
        given, outcome = (Text(text=clean(str(cut_short))),), "interrupted"
    except ReplayMiss:
        raise  # not the tool's fault, and nothing a model could mend
    except LogError as error:  # the call ends with it, but each answer is known first: others of its tools may have taken effect
        run.unkept = run.unkept or error
        given, outcome = (Text(text=NOT_RUN if began is None else UNKNOWN),), "refused" if began is None else "failed"
    except LlmprocError as error:
        given, outcome = (Text(text=clean(error.for_model())),), "refused" if began is None else "failed"
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # a tool is foreign code: its fault is an answer, not ours
        given, outcome = (Text(text=clean(str(error) if isinstance(error, ToolExit) else f"{type(error).__name__}: {error}")),), "failed"
        if isinstance(error, ToolExit) and issubclass(error.kind, KeyboardInterrupt):
            given, outcome = (Text(text=NOT_RUN if began is None else UNKNOWN),), "interrupted"
        trace = _trace(error)
        if isinstance(error, TimeoutError) and deadline.expired():
            given, outcome = (Text(text=f"no result within {tool.timeout_s:g} s; whether it took effect is unknown"),), "timed_out"
    if outcome != "ran":
        try:  # an error can be as long as any other result
            parts = await paged_result(run.process, given, f"error of {call.name:.80}", node, position)
        except LogError as error:
            run.unkept, parts = run.unkept or error, tuple(map(in_place, given))
        except asyncio.CancelledError:
            parts = (Text(text=UNKNOWN),)
    duration_s = 0.0 if began is None else clock.monotonic() - began
    made = _answer(run, node, position, call, parts, outcome, duration_s, arguments=arguments, trace=trace)
    if outcome != "interrupted":
        with suppress(asyncio.CancelledError):  # the answer stands, whoever is told of it
            await run.tell("tool_end", call.name, made[0].result)
    return made


def _until_then(run: Run, node: Node, position: int) -> tuple[Shown, ...]:
    """What code that was interrupted had given until then."""
    cell = next((cell for cell in run.code if cell.node == node.id and cell.position == position), None)
    return shown(recorded_ran(cell)) if cell is not None and cell.status == "interrupted" else ()


class _Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A call that may run: the arguments as `given` and as `checked` for the function, as `written` in the log, and what is said first."""

    tool: Tool
    given: dict[str, Any]
    checked: dict[str, Any]
    written: str
    note: tuple[Text, ...] = ()


async def _ready(run: Run, node: Node, position: int, call: ToolCall, given: dict[str, Any]) -> _Ready:
    """The tool and its arguments, checked, and allowed by whoever decides. Raises ToolError."""
    tool = _find(run, call)
    checked = tool.check(given) if tool.check else given
    decision = await decide(run, node, position, tool, given)
    if decision is not None and not decision.allowed:
        raise ToolError(decision.for_model())
    if decision is None or decision.arguments is None:
        return _Ready(tool=tool, given=given, checked=checked, written=call.arguments)
    changed, written = decision.arguments, said(decision) or ""
    note = Text(text=f"[a person changed the arguments: it ran with {written}]")
    return _Ready(tool=tool, given=changed, checked=tool.check(changed) if tool.check else changed, written=written, note=(note,))


def _recorded(run: Run, node: Node, position: int, call: ToolCall) -> tuple[ToolRun, int] | None:
    """The recorded answer, if a recording answers for this tool. What acts on its own process only is done again. Raises ReplayMiss."""
    known = run.tools.get(call.name)
    if known is not None and known.kind != "tool":
        return None
    found = run.machine.recorded.tool(node.id, position, run.process.lineage)
    if found is None:
        return None
    open_recorded(run.process, node, position)
    if known is not None and known.function is run_python and found.outcome != "refused":
        code = read_arguments(call.arguments).get("code", "")
        note_recorded(run, node, position, str(code))
    decided = recorded_decision(run, node, position)
    if decided is not None:
        write(run, node, position, call.name, decided)
    given = decided.arguments if decided is not None else None
    return _answer(run, node, position, call, found.result.content, found.outcome, found.duration_s, arguments=given, replayed=True)


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


async def _invoke(run: Run, tool: Tool, arguments: dict[str, Any], place: Place) -> Any:
    values = {"process": run.process, "place": place, "runtime_context": {"process": run.process}}
    given = {name: values[kind] for name, kind in tool.inject.items()}
    function: Callable[[], Any] = functools.partial(tool.function, **arguments, **given)
    if inspect.iscoroutinefunction(inspect.unwrap(tool.function)) or inspect.iscoroutinefunction(getattr(tool.function, "__call__", None)):  # noqa: B004
        return await _released(function)
    if tool.where == "main" and run.on_main is not None:
        value = await _on_main(run.on_main(function))
    else:
        value = await run.machine.owner.workers.run(function)
    return await value if inspect.isawaitable(value) else value


async def _on_main(future: Future[Any]) -> Any:
    """What a function gives that runs on the main thread. Raises NotBegun where it was given up before it could run there."""
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if future.cancelled():
            raise NotBegun from None
        raise


async def _shown(run: Run, value: Any, label: str, place: Place) -> tuple[Shown, ...]:
    """What a tool returned, for the model. Anything but plain text may take its time, and a repr is foreign code: not on the owner loop."""
    if value is None or isinstance(value, str | bytes | bool | int | float):
        return result_parts(value)
    if isinstance(value, Path):
        return (await run.machine.owner.workers.run(lambda: file_part(run.process, value, place)),)
    if isinstance(value, tuple) and value and all(isinstance(part, Shown) for part in value):
        return value

    def inline(part: Paged) -> str:
        return paged_part(run.process, part, label, place.node, place.position).text

    return await run.machine.owner.workers.run(functools.partial(run.machine.drivers.returned, value, inline))


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
        await _grace(task)
        task.add_done_callback(lambda left: left.cancelled() or left.exception())
        if task.done() and not task.cancelled() and isinstance(cut := task.exception(), CutShort):
            raise cut from None
        raise


async def _grace(task: asyncio.Task[Any]) -> None:
    """Give a cancelled task a little time to end; a second wish to stop shortens nothing of it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + GRACE_S
    while not task.done() and (left_s := end - loop.time()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=left_s)
