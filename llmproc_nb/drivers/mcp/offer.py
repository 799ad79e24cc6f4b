"""Which tools of a server a program offers, under which names and with which words. Pure: from the server's list to core tools."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import McpServer, ToolWish
from llmproc_nb.core.provider import ToolSpec
from llmproc_nb.core.tool import ResultParts, Tool, Toolset

if TYPE_CHECKING:
    import mcp_types as mcp

NAME_CHARS = 64
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]+")


def offered(name: str, declared: McpServer, listed: Iterable[mcp.Tool], call: Callable[..., Awaitable[ResultParts]]) -> list[Tool]:
    """The tools that are wanted of a server, of those it has."""
    wishes = declared.tools
    if wishes is None:
        return []
    tools = {tool.name: tool for tool in listed}
    if wishes == "all":
        return [_tool(name, tool, None, call) for tool in tools.values()]
    return [_tool(name, tools[_plain(name, wish)], wish, call) for wish in wishes if _plain(name, wish) in tools]


def check_wishes(name: str, declared: McpServer, listed: Iterable[mcp.Tool]) -> None:
    """Raises ProgramError where a tool is wanted that the server does not have."""
    if not isinstance(declared.tools, tuple):
        return
    names = [tool.name for tool in listed]
    for wish in declared.tools:
        wanted = _plain(name, wish)
        if wanted not in names:
            near = difflib.get_close_matches(wanted, names, 3, 0.5)
            meant = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
            has = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "no tools"
            raise ProgramError(f"it has no tool {wanted!r}", place=f"MCP server {name}", right=f"it has {has}", step=meant)


def joined(tools: Iterable[Tool]) -> Toolset:
    """All as one toolset; where names that were made fit for a model are the same, the later one is told apart by a mark."""
    found: dict[str, Tool] = {}
    for tool in tools:
        name, number = tool.name, 1
        while name in found:
            number += 1
            name = f"{tool.name[: NAME_CHARS - len(str(number)) - 1]}_{number}"
        # the mark is no alias: it is another tool than the one whose name it would have
        found[name] = tool if name == tool.name else msgspec.structs.replace(tool.renamed(name), base=tool.base)
    return Toolset(found.values())


def tool_name(server: str, tool: str) -> str:
    """`server__tool` as every API takes it: other characters become "_", and what is too long ends in a mark of the whole."""
    name = _NOT_IN_NAMES.sub("_", f"{server}__{tool}")
    if len(name) <= NAME_CHARS:
        return name
    return f"{name[: NAME_CHARS - 9]}_{hashlib.blake2b(f'{server}__{tool}'.encode(), digest_size=4).hexdigest()}"


def _plain(server: str, wish: ToolWish) -> str:
    return wish.name.removeprefix(f"{server}__")


def _tool(server: str, tool: mcp.Tool, wish: ToolWish | None, call: Callable[..., Awaitable[ResultParts]]) -> Tool:
    schema = tool.input_schema if "type" in tool.input_schema else {"type": "object", **tool.input_schema}
    caller = "_process"
    while caller in schema.get("properties", {}):
        caller += "_"

    async def function(**arguments: Any) -> ResultParts:
        return await call(tool.name, arguments, arguments.pop(caller, None))

    function.__name__ = function.__qualname__ = name = tool_name(server, tool.name)
    title = tool.title or (tool.annotations.title if tool.annotations else None) or ""
    made = Tool(
        spec=ToolSpec(name=name, description=tool.description or title, parameters=schema),
        function=function,
        access=_access(tool),
        timeout_s=None,  # the driver has the clock: it knows of progress, and of waits for the person
        inject={caller: "process"},
    )
    return made if wish is None else _as_wished(made, wish)


def _as_wished(tool: Tool, wish: ToolWish) -> Tool:
    if wish.description or wish.param_descriptions:
        tool = tool.described(wish.description, wish.param_descriptions)
    if wish.alias:
        tool = tool.renamed(wish.alias)
    return msgspec.structs.replace(tool, access=wish.access) if wish.access else tool


def _access(tool: mcp.Tool) -> Literal["read", "write"]:
    return "read" if tool.annotations is not None and tool.annotations.read_only_hint else "write"
