"""System calls: tools that act on the process that calls them. Here: what a model sees of them and what they do.

goto, fork, spawn, wait, send, kill, read_fd, fd_to_file, run_python, write_stderr. Not here: how a head moves and a child is made
(process, machine), the paging itself (fd, reading), where code runs (sandboxed), and when a goto is looked at (loop).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from llmproc_nb.core import message as messages
from llmproc_nb.core import reading
from llmproc_nb.core.address import known, node_at
from llmproc_nb.core.branch import Branch, Branches, run_all, said_since
from llmproc_nb.core.call import Call
from llmproc_nb.core.errors import LlmprocError, LogError, PersonError, ToolError
from llmproc_nb.core.event import Warned
from llmproc_nb.core.form import tool_of
from llmproc_nb.core.manual import DESCRIPTIONS, PARAMETERS
from llmproc_nb.core.message import Message, Text, ToolResult
from llmproc_nb.core.output import is_long, plain, shown
from llmproc_nb.core.program import FdRules
from llmproc_nb.core.provider import Delta
from llmproc_nb.core.result import RunResult
from llmproc_nb.core.sandbox import Output
from llmproc_nb.core.server import rest_servers
from llmproc_nb.core.tool import CutShort, Place, Shown, Tool, Toolset

if TYPE_CHECKING:
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.fd import Fd
    from llmproc_nb.core.process import Process
    from llmproc_nb.core.program import Program

SETTLE_S = 0.15
"""How long a stopped system call waits for its children: less than a stopped tool may take to end."""
LEFT_TO_PARENT = "not run here: this call is left to the parent process"
PROCESS = {"process": "process"}


def goto(process: Process, position: str, message: str) -> str:
    """What a goto says that cannot be followed; one that can is followed by the loop before any tool runs."""
    node = target(process, position)
    raise ToolError(f"{position} is node {node.id[:8]}, where no goto leads now", right="one goto in a reply counts, the first")


def target(process: Process, position: str) -> Node:
    """Where a model's goto leads: a message with a label on its path, before the newest. Raises ToolError."""
    if not isinstance(position, str) or not position.strip().strip("[]").startswith("msg_"):
        raise ToolError(f"position {position!r:.60} is no label", right=f"labels look like msg_3; on the path are {known(process)}")
    try:
        node = node_at(process, position.strip().strip("[]"))
    except PersonError as error:
        raise ToolError(error.found, right=error.right) from None
    if node.depth >= len(process.path) or process.path[node.depth] is not node:
        raise ToolError(f"{position} is on a branch that was left", right=f"on the path are {known(process)}")
    if node is process.head or node is process.head.parent:
        right = "a goto leads further back"
        raise ToolError(f"{position} is where you are", right=right, step="Go on from here, or name an earlier message.")
    return node


def went_back(position: str, message: str, left: int) -> Message:
    """The note that a model finds at the place it went back to."""
    words = (
        f"You went back to here. The {left} messages that followed are left behind and not in your context any more; this is your own note"
    )
    return messages.user(f'<goto to="{position.strip().strip("[]")}">{words} about them:\n{message}\n</goto>')


async def fork(process: Process, place: Place, prompts: list[str]) -> str:
    """The answers of one child per prompt, as JSON in the order of the prompts; when cut short, as far as the children have come."""
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise ToolError("a prompt is empty" if prompts else "there are no prompts", right="each child needs something to do")
    children = process.machine.fork_many(process, place.node, names=[None] * len(prompts), by_model=True)
    fault: LogError | None = None
    for number, child in enumerate(children, start=1):
        try:
            child.append(_answers_for_child(place, child.name, number, len(children)))
        except LogError as error:  # each stands on its answers all the same: nobody must find a child on calls that have none
            fault = fault or error
        child.first, child.by_model = child.head, True
    if fault is not None:
        raise fault
    branches = run_all(process, children, prompts, place.node)
    try:
        await branches
    except asyncio.CancelledError:
        await _settled(branches.future)
        raise CutShort(_told(process, branches)) from None
    return _told(process, branches)


def _answers_for_child(place: Place, name: str, number: int, count: int) -> Message:
    """What a child finds as the answers to the calls of the reply in which it was made."""
    own = f"You are {name}, child {number} of {count}. What follows is your task; your answer to it goes to the parent."
    results = []
    for position, call in enumerate(place.node.message.tool_calls):
        words = own if position == place.position else LEFT_TO_PARENT
        results.append(ToolResult(call_id=call.id, name=call.name, content=(Text(text=words),)))
    return Message(role="tool", parts=tuple(results))


def _told(process: Process, branches: Branches) -> str:
    return json.dumps([_answer_of(process, number, branch) for number, branch in enumerate(branches)], ensure_ascii=False, indent=1)


def _answer_of(process: Process, number: int, branch: Branch) -> dict[str, Any]:
    """One child's answer, with its fds under numbers of the parent."""
    ended = branch.call.done()
    text = branch.text if ended else said_since(branch.process)
    told: dict[str, Any] = {"id": number, "process": branch.process.name, "message": text or "(no text)"}
    if isinstance(branch.error, LlmprocError):
        told |= {"error": True, "message": branch.error.for_model(), **({"said_until_then": text} if text else {})}
    elif branch.stop_reason != "end_turn":
        told["stopped"] = branch.stop_reason if ended else "interrupted"
    fds = {fd.name: _here(process, branch.process, fd) for fd in branch.process.own_fds() if _names(text, fd)}
    return {**told, **({"fds": {f"{branch.process.name} {old}": new for old, new in fds.items()}} if fds else {})}


async def spawn(
    process: Process,
    prompt: str,
    program_name: str = "",
    additional_preload_files: list[str] | None = None,
    fds: list[str] | None = None,
    wait: bool = True,
) -> str:
    """The answer of a new process of a linked program, or, where it is not waited for, its name."""
    if not prompt.strip():
        raise ToolError("the prompt is empty", right="a new process needs something to do")
    start = partial(process.spawn, program_name, preload=tuple(additional_preload_files or ()), fds=tuple(fds or ()), by_model=True)
    async with process.starting:  # of several in one reply each gets its pid in order, the same in every run
        child = await process.machine.owner.workers.run(start)  # it reads files and may wait for servers to start
        call = child.run(prompt)
    if not wait:
        pid = _pid(process, child)
        return f"{child.name} runs in the background: wait(pid={pid!r}) gives its answer, send(pid, text) tells it more"
    return await _answer(process, child, call, last=True)


async def wait(process: Process, pid: str) -> str:
    """The answer of a child that runs in the background."""
    child = _relative(process, pid, of="children")
    if not child.calls:
        raise ToolError(f"{child.name} has not been asked anything", right="a process with a call can be waited for")
    return await _answer(process, child, child.calls[0], last=not any(tool.function is send for tool in process.tools))


async def _answer(process: Process, child: Process, call: Call, *, last: bool) -> str:
    """The answer of a child. After the `last` one its model can ask for, its servers rest; the child stays, for whoever looks at it."""
    if last and child.origin == "spawn":
        call.when_done(lambda _: rest_servers(child))
    try:
        result = await call
    except asyncio.CancelledError:
        await _settled(call.future)
        if not call.done() or call.exception() is not None:
            raise
        raise CutShort(_answer_in_words(process, child, call.result())) from None
    return _answer_in_words(process, child, result)


async def _settled(future: Future[Any]) -> None:
    """Give children that were stopped the time to write down what they have."""
    done = asyncio.wrap_future(future)
    done.add_done_callback(lambda left: left.cancelled() or left.exception())  # heard: or asyncio complains to the person
    await asyncio.wait({done}, timeout=SETTLE_S)


def _answer_in_words(process: Process, child: Process, result: RunResult) -> str:
    """What a child said, how it ended where that was not by itself, and its fds under numbers of the parent."""
    taken = {fd.name: _here(process, child, fd) for fd in child.own_fds() if _names(result.text, fd)}
    fds = f"\n[{'; '.join(f'{old} of {child.name} is your {new}' for old, new in taken.items())}]" if taken else ""
    if result.stop_reason == "end_turn" and result.text:
        return result.text + fds
    return f"{result.text}\n[{child.name} stopped: {result.stop_reason}]{fds}".strip()


def _names(text: str, fd: Fd) -> bool:
    return re.search(rf"{fd.name}(?!\d)", text) is not None


def _here(process: Process, child: Process, fd: Fd) -> str:
    """The name that an fd of a child has here: one with the same text, such as it was given, or a new one."""
    own = next((one for one in process.fds if one.text is fd.text), None)
    return (own or process.take_fd(child, fd)).name


async def send(process: Process, pid: str, text: str) -> str:
    """Tell another living process something. A child that has nothing to do begins a call with it."""
    other = _relative(process, pid, of="family")
    if other.parent is process and other.state == "idle" and not other.busy:
        other.run(f"[message from {process.name}] {text}")
        return f"{other.name} works on it; wait(pid={pid!r}) gives its answer"
    other.send(text, sender=process)
    return f"{other.name} reads it with its next request"


async def kill(process: Process, pid: str) -> str:
    """End a child."""
    child = _relative(process, pid, of="children")
    child.kill()
    return f"{child.name} ended"


def _pid(process: Process, child: Process) -> str:
    """What a model calls a process by: its name, or its pid where an older one of the family has that name."""
    family = [one for one in tuple(process.machine.processes.values()) if one is not process and one.root is process.root]
    return str(child.pid) if any(one.name == child.name and one is not child for one in family) else child.name


def _relative(process: Process, pid: str, *, of: str) -> Process:
    """A living process of the same family, by name or pid; of `children`: one below this process."""
    everyone = [one for one in tuple(process.machine.processes.values()) if one is not process and one.root is process.root]
    found = everyone if of == "family" else [one for one in everyone if process in one.ancestors]
    named = [one for one in found if pid in (one.name, str(one.pid))]
    living = [one for one in named if one.alive]
    if living:
        return living[0]  # the others of this name are told by their pids
    names = ", ".join(one.name for one in found if one.alive) or "none"
    raise ToolError(f"{pid!r:.60} {'was ended' if named else f'is none of your {of}'}", right=f"there are {names}")


def read_fd(process: Process, **arguments: Any) -> str:
    """A part of an fd, or where a pattern is found in it."""
    told = reading.read_fd(process.fds, **arguments)
    process.log_fds()
    return told


def fd_to_file(process: Process, **arguments: Any) -> str:
    """Write a whole fd to a file."""
    return reading.fd_to_file(process.fds, process.machine.drivers.write_text, **arguments)


async def run_python(process: Process, place: Place, code: str) -> tuple[Shown, ...]:
    """What a code cell gave. While it runs the live view has the last line that it wrote."""

    def came(output: Output) -> None:
        run = process.running
        if run is not None and run.hears and output.kind == "stream":
            run.delta(Delta("wait", plain(output.text[-500:]).rstrip().rpartition("\n")[2]))

    ran = await process.sandbox.execute(code, place=place, on_output=came)
    return await process.machine.owner.workers.run(partial(shown, ran)) if is_long(ran) else shown(ran)


def write_stderr(process: Process, message: str) -> str:
    """Put a line into the log channel, which people read and no answer contains."""
    process.machine.log.write(Warned, pid=process.pid, text=messages.clean(message), stderr=True)
    return "written"


def fd_rules(program: Program) -> FdRules | None:
    """When texts become fds in processes of a program; None where never."""
    rules = program.fd if program.fd is not None else FdRules(page_user_input=False)
    return rules if rules.enabled else None


def with_fds(tools: Toolset, program: Program) -> Toolset:
    """The tools, and the one that reads what became of their long results. A process without tools has no use for it."""
    if not len(tools) or fd_rules(program) is None or any(tool.function is read_fd for tool in tools):
        return tools
    return tools.join([syscall("read_fd", program)])


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "goto": goto, "fork": fork, "spawn": spawn, "wait": wait, "send": send, "kill": kill,
    "read_fd": read_fd, "fd_to_file": fd_to_file, "run_python": run_python, "write_stderr": write_stderr,
}  # fmt: skip
SYSCALLS = frozenset(_FUNCTIONS)
_ACCESS: dict[str, Any] = {
    "fork": "admin",
    "spawn": "admin",
    "kill": "admin",
    "send": "write",
    "fd_to_file": "write",
    "run_python": "write",
}
_WITH_PLACE = ("fork", "run_python")
_DONE_ONCE = ("fd_to_file", "run_python")
"""What has effects beyond the process: answered from the recording where one is replayed."""


def syscall(name: str, program: Program) -> Tool:
    """The tool of a system call, as a process of a program has it."""
    parameters, description = PARAMETERS[name], DESCRIPTIONS[name]
    if name == "spawn":
        description, parameters = _spawn_words(program)
    return tool_of(
        name,
        _FUNCTIONS[name],
        description,
        parameters,
        access=_ACCESS.get(name, "read"),
        inject={**PROCESS, "place": "place"} if name in _WITH_PLACE else PROCESS,
        kind="jump" if name == "goto" else "tool" if name in _DONE_ONCE else "syscall",
        timeout_s=None if name in ("fork", "spawn", "wait", "run_python") else 300.0,
    )


def _spawn_words(program: Program) -> tuple[str, dict[str, Any]]:
    """The description with the programs that may be started, and the parameters: `wait` only where there is a tool to wait with."""
    names = {wish if isinstance(wish, str) else getattr(wish, "name", "") for wish in program.tools}
    parameters = {key: form for key, form in PARAMETERS["spawn"].items() if key != "wait" or "wait" in names}
    listed = "".join(f"\n- {name}: {link.description or 'no description'}" for name, link in program.linked.items())
    return DESCRIPTIONS["spawn"] + (f"\nPrograms:{listed}" if listed else ""), parameters
