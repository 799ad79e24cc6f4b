"""The small tools that ship: calculator, read_file, list_dir, ast_grep, copy, paste, with the names and parameters LLMProc gave them.

Here: the tools and their schemas. Not here: how they work (arithmetic, folder, search, clipboard), the system calls (core), schemas of
people's own functions (the schema driver).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmproc_nb.core.form import tool_of
from llmproc_nb.core.syscall import PROCESS
from llmproc_nb.core.tool import Tool
from llmproc_nb.drivers.builtin import search
from llmproc_nb.drivers.builtin.arithmetic import FUNCTIONS, evaluate, written
from llmproc_nb.drivers.builtin.clipboard import Clipboard, Write
from llmproc_nb.drivers.builtin.folder import Folder

_MOST_DECIMALS = 15
_PATH: dict[str, Any] = {"type": "string", "description": "Path relative to the working folder"}
_FLAG: dict[str, Any] = {"type": "boolean", "default": False}
_WORDS: dict[str, Any] = {"type": "string"}


def builtin_tools(root: Path, write: Write) -> dict[str, Tool]:
    """The tools by name; files are read inside `root` only, and written by `write`."""
    folder = Folder(root)
    tools = (_calculator(), *_reading(folder), _code_search(folder), *_clipboard(folder, write))
    return {tool.name: tool for tool in tools}


def check_installed(name: str, place: str) -> None:
    """Raises ProgramError where a tool of this name needs a package that is not there."""
    if name == "ast_grep":
        search.check_installed(place)


def calculator(expression: str, precision: int = 6) -> str:
    """The value of an arithmetic expression as text. Raises ToolError."""
    return written(evaluate(expression), precision)


def _calculator() -> Tool:
    return tool_of(
        "calculator",
        calculator,
        "Calculate an arithmetic expression. Use it for any number that must be right: whole and decimal numbers, + - * / // % and whole "
        "powers are exact; pi, e, roots and functions such as sin or log have about 15 digits, and so have fractions of thousands. "
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
    )


def _reading(folder: Folder) -> tuple[Tool, ...]:
    return (
        tool_of(
            "read_file",
            folder.read,
            "Read a whole text file, or look at a picture (PNG, JPEG, GIF, WebP), in the working folder.",
            {"file_path": _PATH},
        ),
        tool_of(
            "list_dir",
            folder.list,
            "List what is in a folder inside the working folder, by name; folders end in /.",
            {
                "directory_path": {**_PATH, "default": "."},
                "show_hidden": {**_FLAG, "description": "Also list names that begin with a dot"},
                "detailed": {**_FLAG, "description": "Also show kind, size in bytes and time of the last change"},
            },
        ),
    )


def _code_search(folder: Folder) -> Tool:
    return tool_of(
        "ast_grep",
        search.CodeSearch(folder).search,
        "Search code by its structure, whatever its line breaks and blanks: a pattern is code in which $NAME stands for one part and "
        "$$$NAME for any number of them, as in print($$$ARGS) or $OBJ.close(). In a folder all files of known languages are searched "
        "whose names are not hidden. Gives path, line and code of each match.",
        {
            "pattern": {**_WORDS, "description": "Whole code of the language, such as an expression or a statement"},
            "path": {**_PATH, "default": ".", "description": "A file or a folder, relative to the working folder"},
            "language": {**_WORDS, "default": "", "description": "Search files of this language only; empty: as their names tell"},
        },
        inject=PROCESS,
    )


def _clipboard(folder: Folder, write: Write) -> tuple[Tool, ...]:
    clipboard = Clipboard(folder, write)
    return (
        tool_of(
            "copy",
            clipboard.copy,
            "Copy a part of a text file to your clipboard, so that paste can put it elsewhere without you repeating it. The part goes from "
            "`start` to the next `end` after it, both included; give the same text twice to copy just that. It replaces what was copied "
            "before.",
            {
                "file_path": _PATH,
                "start": {**_WORDS, "description": "The exact text that the part begins with; it must stand at one place of the file"},
                "end": {**_WORDS, "description": "The exact text that the part ends with"},
            },
            access="write",
            inject=PROCESS,
        ),
        tool_of(
            "paste",
            clipboard.paste,
            "Put what you copied last into a text file, at the place that has the text `before` right before it, or the text `after` right "
            "after it; with both it goes right behind `before`, where nothing but blanks and line breaks lie between the two. Nothing is "
            "replaced and no line breaks are added. With neither a new file is made.",
            {
                "file_path": _PATH,
                "before": {
                    **_WORDS,
                    "default": "",
                    "description": "The exact text that what you paste comes right behind; it must stand at one place",
                },
                "after": {
                    **_WORDS,
                    "default": "",
                    "description": "The exact text that what you paste comes right in front of; it must stand at one place",
                },
            },
            access="write",
            inject=PROCESS,
        ),
    )
