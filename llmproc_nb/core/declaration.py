"""A program from its declaration in a log: the way back from `Program.declaration`, as far as data goes.

Not here: program files (drivers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmproc_nb.core.errors import ProgramError, ToolError
from llmproc_nb.core.program import Link, Program, ToolWish
from llmproc_nb.core.provider import ToolSpec
from llmproc_nb.core.tool import Tool


def program_from(
    declaration: Mapping[str, Any], functions: Mapping[str, Any] | None = None, *, name: str = ""
) -> tuple[Program, tuple[str, ...]]:
    """A program from its declaration in a log, and the names of the functions that are not among `functions`. Raises ProgramError."""
    fields, functions = dict(declaration), functions or {}
    wishes, script, linked = fields.pop("tools", ()), fields.pop("script", ()), fields.pop("linked", {})
    named = [wish for wish in (*wishes, script) if isinstance(wish, str)]
    try:
        program = msgspec.convert(fields, _Data)
        wanted = [functions.get(wish) if isinstance(wish, str) else msgspec.convert(wish, ToolWish) for wish in wishes]
        links = {key: _link(key, link) for key, link in linked.items()}
    except msgspec.ValidationError as error:
        raise ProgramError(f"its declaration in the log cannot be read: {error}", place=name) from None
    values = {key: getattr(program, key) for key in _Data.__struct_fields__ if key in fields}
    tools = tuple(wish for wish in wanted if wish is not None)
    turns = functions.get(script, ()) if isinstance(script, str) else tuple(script)
    return Program(**values, tools=tools, script=turns, linked=links), tuple(wish for wish in named if wish not in functions)


def _link(name: str, link: Mapping[str, Any]) -> Link:
    inner = link.get("program")
    program = program_from(inner, name=name)[0] if isinstance(inner, Mapping) else None
    return Link(path=link.get("path"), program=program, description=link.get("description", ""))


_LEFT_OUT = ("tools", "script", "linked", "notes", "base_dir", "source")
_Data: Any = msgspec.defstruct(
    "ProgramData",
    [
        (item.encode_name, item.type, item.default)
        if item.default is not msgspec.NODEFAULT
        else (item.encode_name, item.type, msgspec.field(default_factory=item.default_factory))
        for item in msgspec.structs.fields(Program)
        if item.name not in _LEFT_OUT
    ],
    kw_only=True,
)


def stand_in(spec: ToolSpec) -> Tool:
    """A tool that keeps its place among a process's tools while nobody has supplied its function."""

    def missing(**arguments: Any) -> Any:
        raise ToolError(f"the function behind {spec.name} is not there in this kernel", step="Go on without it.")

    return Tool(spec=spec, function=missing)
