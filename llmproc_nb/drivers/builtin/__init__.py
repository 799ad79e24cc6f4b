"""The small tools that ship: calculator, read_file, list_dir, with the names and parameters LLMProc gave them.

Here: the tools and their schemas. Not here: how they work (arithmetic, folder), the system calls (core), schemas of people's own
functions (the schema driver).
"""

from __future__ import annotations

from pathlib import Path

from llmproc_nb.core.form import tool_of
from llmproc_nb.core.tool import Tool
from llmproc_nb.drivers.builtin.arithmetic import FUNCTIONS, evaluate, written
from llmproc_nb.drivers.builtin.folder import Folder

# what LLMProc's programs may name and this version does not run
KNOWN_LATER = frozenset({"ast_grep", "copy", "paste"})
_MOST_DECIMALS = 15


def builtin_tools(root: Path) -> dict[str, Tool]:
    """The tools by name; files are read inside `root` only."""
    folder = Folder(root)
    path = {"type": "string"}
    flag = {"type": "boolean", "default": False}
    tools = (
        tool_of(
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
        tool_of(
            "read_file",
            folder.read,
            "Read a whole text file, or look at a picture (PNG, JPEG, GIF, WebP), in the working folder.",
            {"file_path": {**path, "description": "Path relative to the working folder"}},
        ),
        tool_of(
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
