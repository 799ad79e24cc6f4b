"""`jupyter llmproc run`: one prompt, one answer on stdout."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec

from llmproc_nb.api import Process, Program
from llmproc_nb.cli import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_LIMIT, EXIT_USAGE
from llmproc_nb.cli.start import LIMIT_STOPS, Started, how_it_ended, spent, started
from llmproc_nb.cli.terminal import Terminal, UsageError
from llmproc_nb.core.errors import LlmprocError, PersonError, ToolError
from llmproc_nb.core.event import Replied, ToolRan
from llmproc_nb.core.result import RunResult
from llmproc_nb.core.tool import parts_text, read_arguments


def command(flags: Namespace) -> int:
    """Run it and give the exit code."""
    terminal = Terminal(quiet=flags.quiet, live=not flags.json)
    begun: Started | None = None
    try:
        program = Program.from_file(flags.program)
        prompt = _prompt(flags, program)
        with started(flags, program, terminal) as begun:
            if begun.process.provider.scripted:
                terminal.loud("scripted: no model answered")
            result = begun.ask(prompt)
    except LlmprocError as error:
        if not flags.json:
            raise
        terminal.json(_facts(begun) | {"error": {"kind": type(error).__name__, "text": str(error)}})
        terminal.line(error.for_cell())
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR
    if flags.json:
        terminal.json(_facts(begun) | {"text": result.text, "stop_reason": result.stop_reason})
    elif not terminal.live:
        terminal.text(result.text)
    _say_end(begun, result)
    return _exit_code(result)


def _prompt(flags: Namespace, program: Program) -> str:
    """What to ask: of -p, -f, stdin or the program itself. Raises UsageError where nobody says it."""
    given = _given(flags)
    own = (program.user or "").strip("\n")
    if flags.append and not given.strip():
        raise UsageError("--append has nothing to append", right="a prompt by -p, -f or stdin is needed with it")
    words = f"{own}\n\n{given}".strip("\n") if flags.append else given if given.strip() else own
    if not words.strip():
        raise UsageError("there is no prompt", place=flags.program, right="give one by -p, -f or stdin; the program has none of its own")
    return words


def _given(flags: Namespace) -> str:
    if flags.prompt is not None:
        if not flags.prompt.strip():
            raise UsageError("the prompt given by -p is empty")
        return str(flags.prompt)
    if flags.prompt_file not in (None, "-"):
        try:
            return _decoded(Path(flags.prompt_file).read_bytes(), flags.prompt_file)
        except OSError as error:
            raise PersonError(f"it cannot be read: {error.strerror or error}", place=flags.prompt_file) from None
    if flags.prompt_file is None and sys.stdin.isatty():
        return ""
    return _decoded(sys.stdin.buffer.read(), "stdin")


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PersonError(f"this is no UTF-8 (byte {error.start})", place=place, right="a prompt is text in UTF-8") from None


def _exit_code(result: RunResult) -> int:
    if result.stop_reason in ("interrupted", "killed"):
        return EXIT_INTERRUPTED
    return EXIT_LIMIT if result.stop_reason in LIMIT_STOPS else 0


def _say_end(begun: Started, result: RunResult) -> None:
    ended = how_it_ended(result)
    if ended:
        begun.terminal.note(ended)
    where = f", log {begun.log}" if begun.log else ""
    begun.terminal.note(f"{result.process}: {result.stop_reason}, {spent(result.usage)}{where}")


def _facts(begun: Started | None) -> dict[str, Any]:
    """What --json prints of a process, from its log: so it is there also when the run ended in an error."""
    empty: dict[str, Any] = {
        "text": "",
        "stop_reason": "error",
        "api_calls": [],
        "tool_calls": [],
        "usage": None,
        "cost_usd": None,
        "model": None,
    }
    if begun is None:
        return empty | {"provider": None, "scripted": None, "process": None, "log": None, "error": None}
    process, usage = begun.process, msgspec.structs.asdict(begun.process.usage)
    cost_usd = usage.pop("cost_usd")
    events = begun.machine.log.events
    return {
        "text": process.get_last_message(),
        "stop_reason": "error",
        "api_calls": [_api_call(event) for event in events if isinstance(event, Replied) and event.pid == process.pid],
        "tool_calls": [_tool_call(event, process) for event in events if isinstance(event, ToolRan) and event.pid == process.pid],
        "usage": usage,
        "cost_usd": None if usage["unpriced_requests"] else cost_usd,
        "model": process.model,
        "provider": process.provider.name,
        "scripted": process.provider.scripted,
        "process": process.name,
        "log": str(begun.log) if begun.log else None,
        "error": None,
    }


def _api_call(event: Replied) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in ("model", "id", "stop", "raw_stop", "duration_s", "attempts", "node", "replayed")}
    return fields | {"input_tokens": event.usage.input_tokens, "output_tokens": event.usage.output_tokens}


def _tool_call(event: ToolRan, process: Process) -> dict[str, Any]:
    text = process.machine.dialog.find(event.node).message.tool_calls[event.position].arguments
    try:
        arguments: Any = read_arguments(text)
    except ToolError:
        arguments = text
    return {
        "name": event.name,
        "arguments": arguments,
        "outcome": event.outcome,
        "result": parts_text(event.result.content),
        "duration_s": event.duration_s,
        "replayed": event.replayed,
    }
