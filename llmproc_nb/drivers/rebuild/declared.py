"""Programs, tools and links as a log declares them, with functions behind them as far as they are there.

A log has a tool by its name only, so a name may mean a function that was supplied, a tool that ships, or nothing that is there any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

from llmproc_nb.core.declaration import program_from, stand_in
from llmproc_nb.core.doors import Drivers
from llmproc_nb.core.errors import LlmprocError, ProgramError
from llmproc_nb.core.event import AnyEvent, Declared, Started
from llmproc_nb.core.manual import PARAMETERS
from llmproc_nb.core.program import McpServer, Program, ToolWish
from llmproc_nb.core.provider import HIDDEN, ToolSpec
from llmproc_nb.core.record import Past, declared, program_of
from llmproc_nb.core.tool import Tool


class Declarations:
    """What a log says of the programs and tools of its processes."""

    def __init__(
        self,
        events: Iterable[AnyEvent],
        past: Mapping[int, Past],
        drivers: Drivers,
        tools: tuple[Any, ...],
        programs: Mapping[str, Program],
        scripts: Mapping[str, Callable[..., Any]],
    ) -> None:
        self.past, self.drivers, self.given, self.programs = past, drivers, tools, programs
        self.scripts = scripts
        self.configs: dict[str, Declared] = declared(events)
        self._known: dict[str, Tool | None] = {}
        self._spawned: dict[str, Started] = {one.name: one.started for one in past.values() if one.started.origin == "spawn"}

    def config(self, past: Past) -> Declared | None:
        """How a process asked last."""
        return self.configs.get(past.config or "")

    def specs(self, past: Past) -> dict[str, ToolSpec]:
        """The tools a process had when it last asked; of one that never did, those of the process it is a twin of."""
        config, parent = self.config(past), self.past.get(past.started.parent_pid or 0)
        if config is None and past.twin and parent is not None:
            return self.specs(parent)
        return {spec.name: spec for spec in config.tools} if config else {}

    def program(self, past: Past) -> tuple[Program, tuple[str, ...], tuple[str, ...]]:
        """The program of a process, the names of functions that are missing, and those of links. Raises ProgramError."""
        given = self.programs.get(past.name)
        if given is not None:
            return given, (), ()
        declaration = program_of(past, self.past)
        tools = self.tools(past, declaration)
        program, missing = program_from(declaration, tools, name=past.name)
        script = declaration.get("script")
        if isinstance(script, str) and script in missing and past.started.provider == "scripted":
            raise _no_script(past.name, script)
        program = program.replace(
            provider=program.provider or past.started.provider,
            mcp={name: server for name, server in program.mcp.items() if not _is_hidden(server)},
        )
        there = self.linked(program)
        links = {name: link for name, link in program.linked.items() if self.drivers.link_path(program, link) in there}
        return program.replace(linked=links), missing, tuple(name for name in program.linked if name not in links)

    def tools(self, past: Past, declaration: Mapping[str, Any]) -> dict[str, Any]:
        """What stands behind each tool of a process by name: its function, the tool that ships, or a stand-in; and its script."""
        specs = self.specs(past)
        named = [wish for wish in declaration.get("tools", ()) if isinstance(wish, str)]
        supplied = self._supplied
        found: dict[str, Any] = {}
        for name in dict.fromkeys((*specs, *named)):
            spec, own, ships = specs.get(name), supplied.get(name), self._ships(name)
            if own is not None and (ships is None or spec is None or own.spec == spec):
                found[name] = own
            elif ships is not None and (spec is None or _is_same(ships.spec, spec)):
                found[name] = ToolWish(name=name)
            elif own is not None:
                found[name] = own
            elif spec is not None:
                found[name] = stand_in(spec)
        script = declaration.get("script")
        if isinstance(script, str) and (script in self.scripts or script in supplied):
            found[script] = self.scripts.get(script) or supplied[script]
        return found

    @cached_property
    def _supplied(self) -> dict[str, Tool]:
        return {tool.name: tool for tool in self.drivers.tools(self.given, Program())}

    def _ships(self, name: str) -> Tool | None:
        """The tool of that name that comes with the drivers."""
        if name not in self._known:
            self._known[name] = None
            with suppress(LlmprocError):
                self._known[name] = self.drivers.tools((ToolWish(name=name),), Program()).get(name)
        return self._known[name]

    def linked(self, program: Program) -> dict[str, Program]:
        """The programs that can be reached by links, by path: given, as they are on disk now, or as the log has those that were spawned."""
        found: dict[str, Program] = {}
        waiting = [program]
        while waiting:
            one = waiting.pop()
            for name, link in one.linked.items():
                path = self.drivers.link_path(one, link) if link.program is None else ""
                if not path or path in found:
                    continue
                if name in self.programs:
                    found[path] = self.programs[name]
                    continue
                with suppress(LlmprocError):
                    found |= self.drivers.linked(one.replace(linked={name: link}))
                if path not in found and name in self._spawned:
                    found[path] = self._from_log(self._spawned[name])
                    waiting.append(found[path])
        return found

    def _from_log(self, started: Started) -> Program:
        past = self.past[started.pid]
        return program_from(started.program, self.tools(past, started.program), name=started.name)[0]


def _no_script(process: str, script: str) -> ProgramError:
    if script == "<lambda>":
        found, right = "its script was a lambda, which has no name to find it by", "a function made with def is found"
        return ProgramError(found, place=process, right=right, step="Give its program one.")
    right = "a function is found by its name"
    return ProgramError(f"its script is not in this kernel: {script}", place=process, right=right, step=f"Define {script} before resuming.")


def _is_same(ships: ToolSpec, recorded: ToolSpec) -> bool:
    """Whether a tool of a log is the one that ships. What a syscall says of itself depends on its program, its parameters are its own."""
    if ships.name in PARAMETERS:
        return set(recorded.parameters.get("properties", ())) <= set(PARAMETERS[ships.name])
    return ships.parameters == recorded.parameters


def _is_hidden(server: McpServer) -> bool:
    """Whether a log keeps to itself how to reach a server."""
    return HIDDEN in (*server.args, *server.env.values(), *server.headers.values())


def is_stand_in(tool: Tool | ToolWish) -> bool:
    """Whether a tool only keeps the place of one that is missing."""
    return isinstance(tool, Tool) and tool.function.__module__ == stand_in.__module__
