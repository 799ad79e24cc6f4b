"""The small tools that ship: calculator, read_file, list_dir, with the names and parameters LLMProc gave them.

Here: the tools and their schemas. Not here: how they work (arithmetic, folder), the system calls (core), schemas of people's own
functions (the schema driver).
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.provider import ToolSpec
from llmproc_nb.core.tool import Tool
from llmproc_nb.drivers.builtin.arithmetic import FUNCTIONS, evaluate, written
from llmproc_nb.drivers.builtin.folder import Folder

# what LLMProc's programs may name and this version does not run yet
KNOWN_LATER = frozenset({"fork", "spawn", "goto", "read_fd", "fd_to_file", "write_stderr", "ast_grep", "copy", "paste"})
_MOST_DECIMALS = 15
_TYPES: dict[str, tuple[type, str]] = {"string": (str, "a string"), "integer": (int, "a whole number"), "boolean": (bool, "true or false")}


def builtin_tools(root: Path) -> dict[str, Tool]:
    """The tools by name; files are read inside `root` only."""
    folder = Folder(root)
    path = {"type": "string"}
    flag = {"type": "boolean", "default": False}
    tools = (
        _tool(
            "calculator",
            calculator,
            "Calculate an arithmetic expression exactly. Use it for any number that must be right. "
            f"Operators: + - * / // % ** (powers). Constants: pi, e, tau. Functions: {', '.join(FUNCTIONS)}.",
            {
                "expression": {"type": "string", "description": "The expression, for example 2 * (3 + 4) ** 0.5"},
                "precision": {
                    "type": "integer",
                    "minimum": 0,
                    "maximum": _MOST_DECIMALS,
                    "default": 6,
                    "description": "The most decimals to show",
                },
            },
        ),
        _tool(
            "read_file",
            folder.read,
            "Read a whole text file, or look at a picture (PNG, JPEG, GIF, WebP), in the working folder.",
            {"file_path": {**path, "description": "Path relative to the working folder"}},
        ),
        _tool(
            "list_dir",
            folder.list,
            "List what is in a folder inside the working folder, by name; folders end in /.",
            {
                "directory_path": {**path, "default": ".", "description": "Path relative to the working folder"},
                "show_hidden": {**flag, "description": "Also list names that begin with a dot"},
                "detailed": {**flag, "description": "Also show kind, size in bytes and time of the last change"},
            },
        ),
    )
    return {tool.name: tool for tool in tools}


def calculator(expression: str, precision: int = 6) -> str:
    """The value of an arithmetic expression as text. Raises ToolError."""
    return written(evaluate(expression), precision)


def _tool(name: str, function: Any, description: str, properties: dict[str, dict[str, Any]]) -> Tool:
    required = [key for key, form in properties.items() if "default" not in form]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        faults = [_unknown(key, properties) for key in arguments if key not in properties]
        faults += [(f"argument {key!r} is missing", "") for key in required if key not in arguments]
        checked = {key: _value(key, arguments[key], form, faults) for key, form in properties.items() if key in arguments}
        if len(faults) == 1:
            raise ToolError(faults[0][0], right=faults[0][1], place=f"tool {name}")
        if faults:
            said = "; ".join(f"{found} ({right})" if right else found for found, right in faults)
            raise ToolError(f"{len(faults)} faults: {said}", place=f"tool {name}")
        return checked

    return Tool(spec=ToolSpec(name=name, description=description, parameters=schema), function=function, check=check, access="read")


def _unknown(key: str, properties: dict[str, Any]) -> tuple[str, str]:
    near = get_close_matches(key, properties, n=1, cutoff=0.5) or list(properties)
    return f"unknown argument {key!r}", f"the tool has {', '.join(repr(name) for name in near)}"


def _value(key: str, value: Any, form: dict[str, Any], faults: list[tuple[str, str]]) -> Any:
    kind, words = _TYPES[form["type"]]
    if kind is int and isinstance(value, str) and value.strip().lstrip("-").isdecimal() and len(value) < 20:
        value = int(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        faults.append((f"argument {key!r} is {value!r:.60}", f"it should be {words}"))
    elif "maximum" in form and not form["minimum"] <= value <= form["maximum"]:
        faults.append((f"argument {key!r} is {value!r:.60}", f"it should be between {form['minimum']} and {form['maximum']}"))
    return value
