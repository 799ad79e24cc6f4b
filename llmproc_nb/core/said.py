"""What is said to a process, and who reads along: checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmproc_nb.core import message as messages
from llmproc_nb.core.errors import PromptError, kind_of, meant
from llmproc_nb.core.field import whole, wrong
from llmproc_nb.core.message import Document, Image, Message, Part, Text

CALLBACKS = ("on_tool_start", "on_tool_end", "on_response")


def check_callbacks(callbacks: Mapping[str, Any]) -> None:
    for name in callbacks:
        if name not in CALLBACKS and f"on_{name}" not in CALLBACKS:
            raise PromptError(f"there is no callback {name!r}", right=meant(name, CALLBACKS, f"there are {', '.join(CALLBACKS)}"))


def count_of(max_iterations: Any) -> int:
    """How many requests a call may make. Raises ProgramError for what is no such number."""
    count = whole(max_iterations)
    if count is None or count < 1:
        raise wrong("run", "max_iterations", max_iterations, "a whole number from 1 up is needed")
    return count


def message_of(user_input: Any, show: Callable[[Any], Any]) -> Message:
    """What is said to a process: text, parts or a message; or a value for which `show` has such a form."""
    said = user_input
    if not isinstance(said, str | Message) and not _is_parts(said):
        said = show(said)
    if isinstance(said, Part):
        said = (said,)
    if not isinstance(said, str | Message) and not _is_parts(said):
        found = f"a prompt cannot be {kind_of(user_input)}"
        raise PromptError(found, right="text, a Message or a list of parts is needed", step="In an agent cell, {{value}} shows a value.")
    message = said if isinstance(said, Message) else messages.user(said if isinstance(said, str) else tuple(said))
    if not message.parts or not any(not isinstance(part, Text) or part.text.strip() for part in message.parts):
        raise PromptError("the prompt is empty", right="a process needs something to answer")
    if message.role != "user" or not all(isinstance(part, Text | Image | Document) for part in message.parts):
        what = f"a message of role {message.role!r}" if message.role != "user" else "a tool call or an answer to one"
        raise PromptError(f"{what} is no prompt", right="a user says text, images and documents")
    return message


def _is_parts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(part, Part) for part in value)
