"""The servers of a process: its own model answers what they sample, its person what they ask, its log keeps what they say."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

from llmproc_nb.core.approval import Ask
from llmproc_nb.core.call import inside
from llmproc_nb.core.errors import LimitReached, PersonError, ProgramError
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.message import Message
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import EnvInfo, FdRules, Preload, Program
from llmproc_nb.core.provider import Settings
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.mcp.servers import Servers, connect
from llmproc_nb.drivers.mcp.values import ElicitAnswer, ElicitAsk, LogLine, SamplingAnswer, SamplingAsk, Terms

BARE: dict[str, Any] = {
    "tools": (), "hosted": {}, "mcp": {}, "linked": {}, "preload": Preload(), "env_info": EnvInfo(), "fd": FdRules(enabled=False),
}  # fmt: skip
"""What a server's question must not bring along: what the program adds to its own dialogs is none of the server's business."""
OWN_PYTHON, CONNECT_S = "LLMPROC_PYTHON", "LLMPROC_TOOL_FETCH_TIMEOUT"
LOUD = frozenset({"warning", "error", "critical", "alert", "emergency"})


async def connect_for(program: Program, machine: Machine, name: str, environ: Mapping[str, str]) -> Servers:
    """The servers of a program, connected for processes of a machine. `name` is that of the first of them.

    In their declarations `${LLMPROC_PYTHON}` is the Python that runs this, which has what this project has installed. The variable
    LLMPROC_TOOL_FETCH_TIMEOUT gives the seconds to connect and to list tools, where a declaration does not.
    """

    async def sampler(ask: SamplingAsk) -> SamplingAnswer:
        return await _sample(machine, _caller(machine, ask.caller, name), ask)

    async def elicitor(ask: ElicitAsk) -> ElicitAnswer:
        return await _elicit(machine, _caller(machine, ask.caller, name), ask)

    def on_log(line: LogLine) -> None:
        if line.level in LOUD:
            machine.warn(f"MCP server {line.server} says ({line.level}): {line.text}")

    folder, terms = Path(program.base_dir or ".").absolute(), _terms(environ)
    environ, ears = {OWN_PYTHON: sys.executable, **environ}, {"sampler": sampler, "elicitor": elicitor, "on_log": on_log}
    return await connect(program.mcp, environ=environ, base_dir=folder, roots=(Path.cwd(),), terms=terms, **ears)


def _terms(environ: Mapping[str, str]) -> Terms:
    """The usual terms, with the time to connect that the environment gives. Raises ProgramError."""
    said = environ.get(CONNECT_S, "").strip()
    if not said:
        return Terms()
    with suppress(ValueError):
        if 0 < (seconds := float(said)) < math.inf:
            return Terms(connect_timeout_s=seconds)
    place, right = f"environment variable {CONNECT_S}", "a number of seconds, more than 0, is needed"
    raise ProgramError(f"found {said[:40]!r}", place=place, right=right)


def _caller(machine: Machine, caller: Any, name: str) -> Process:
    """The process in whose call a server asks; the one it was connected for, where the protocol does not say."""
    return caller if isinstance(caller, Process) else machine.find(name)


async def _sample(machine: Machine, process: Process, ask: SamplingAsk) -> SamplingAnswer:
    """The answer of the process's own model, by a child without tools: it counts for the limits of the process and is in its log."""
    settings = Settings(max_tokens=ask.max_tokens, temperature=ask.temperature, stop=ask.stop_sequences)
    said = [message for message in ask.messages if message.parts]
    if not said or said[-1].role != "user":
        raise PersonError("a server sampled without a question", right="the last message is the user's")
    program = msgspec.structs.replace(process.program, system=ask.system, settings=settings, limits=Limits(max_iterations=1), **BARE)
    child = machine.start(program, name=f"{process.name}.{ask.server}", parent=process, origin="spawn")
    try:
        for message in said[:-1]:
            child.say(message)
        result = await child.run(Message(role="user", parts=said[-1].parts))
    finally:
        child.kill()  # nobody goes on with it; what it said stays in tree and log
    if not result.api_calls:
        raise LimitReached(
            f"the limit of {process.name} is reached ({result.stop_reason})",
            right="its model is not asked any more",
            step="A program with higher limits would let it answer.",
        )
    return SamplingAnswer(text=result.text, model=child.model, stop_reason="maxTokens" if result.stop_reason == "max_tokens" else "endTurn")


async def _elicit(machine: Machine, process: Process, ask: ElicitAsk) -> ElicitAnswer:
    """What the person answers, where one can be asked; else it is declined."""
    if machine.approver is None:
        return ElicitAnswer()
    properties = (ask.schema or {}).get("properties", {})
    wanted = {key: form.get("default", "") if isinstance(form, dict) else "" for key, form in properties.items()}
    why = f"{ask.message} {ask.url}" if ask.url else ask.message
    description = f"The MCP server {ask.server} asks you. Fields: {json.dumps(properties, ensure_ascii=False)}" if properties else ""
    put = Ask(
        process=process.name,
        pid=process.pid,
        tool=f"{ask.server} asks",
        title=f"the MCP server {ask.server} asks: {why}",
        description=description,
        arguments=wanted,
        why=why,
        access="read",
        once=True,
    )
    with ExitStack() as waits:  # the time a person takes is not the call's
        for run in inside.get():
            waits.enter_context(run.person.waiting())
        made = await machine.approver.decide(put)
    if not made.allowed:
        return ElicitAnswer()
    return ElicitAnswer(action="accept", content=dict(made.arguments if made.arguments is not None else wanted))
