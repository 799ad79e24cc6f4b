"""An ask in words: what a person reads before a tool call may run, and what the typed answer means.

Here: texts. Not here: where they are shown and read (a notebook's cell, a terminal).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llmproc_nb.core.approval import ALWAYS, PERSON, Ask, Decision, unanswered
from llmproc_nb.core.errors import LlmprocError, ToolError
from llmproc_nb.core.message import clean
from llmproc_nb.core.tool import read_arguments
from llmproc_nb.core.visible import one_line, visible

SIGN = "[y]es, [a]lways in this process, [n]o (and why), [e]dit the arguments> "
SIGN_ONCE = "[y]es, [n]o (and why), [e]dit the values> "
SIGN_JSON = "the arguments as JSON (nothing: as they are)> "
MAX_SHOWN_CHARS = 100_000
MAX_REASON_CHARS = 1000


def title(ask: Ask) -> str:
    """Who wants what, in one line: `scout wants to call delete_file (write access)`."""
    if ask.title:
        return one_line(ask.title, 300)
    why = f": {one_line(ask.why, 300)}" if ask.why else ""
    return f"{one_line(ask.process, 80)} wants to call {one_line(ask.tool, 80)} ({ask.access} access){why}"


def arguments_text(ask: Ask) -> str:
    """The arguments to read: one below the other, texts as they are but with nothing hidden in them. A cut is said loudly."""
    lines = [f"{visible(name)}: {_indented(value)}" for name, value in ask.arguments.items()]
    text = "\n".join(lines) or "(no arguments)"
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    return f"NOT ALL IS SHOWN: the first {MAX_SHOWN_CHARS:,} of {len(text):,} characters\n{text[:MAX_SHOWN_CHARS]}"


def _indented(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return visible(text).replace("\n", "\n    ")


def arguments_json(ask: Ask) -> str:
    """The arguments to edit, as JSON in which nothing is hidden."""
    text = json.dumps(ask.arguments, indent=2, ensure_ascii=False, default=str)
    return text if visible(text) == text else json.dumps(ask.arguments, indent=2, default=str)


def changed(ask: Ask, text: str) -> Decision:
    """The decision to let a call run with the arguments in a JSON text. Raises ToolError where the tool does not take them."""
    arguments = read_arguments(text)
    if ask.check is not None:
        ask.check(arguments)
    return Decision(allowed=True, by=PERSON, arguments=None if arguments == ask.arguments else arguments)


def refused(reason: str) -> Decision:
    """The decision that a call does not run."""
    return Decision(allowed=False, by=PERSON, reason=clean(reason).strip()[:MAX_REASON_CHARS])


def converse(ask: Ask, read: Callable[[str], str | None], say: Callable[[str], None]) -> Decision:
    """Ask until the answer is clear. `read` gives the next typed line (None: there is nobody any more)."""
    while True:
        line = read(SIGN_ONCE if ask.once else SIGN)
        if line is None:
            return unanswered(ask)
        word, _, rest = line.strip().partition(" ")
        word = word.strip(",.:;!").lower()
        if word in ("y", "yes") and not rest.strip():
            return Decision(allowed=True, by=PERSON)
        if word in ("a", "always") and not rest.strip() and not ask.once:
            return Decision(allowed=True, by=PERSON, reason=ALWAYS)
        if word in ("n", "no"):
            return refused(rest)
        if word in ("e", "edit"):
            made = _edited(ask, rest.strip(), read, say)
            if made is not None:
                return made
        elif word:
            say(f"{one_line(line, 40)!r} is not clear: y, {'' if ask.once else 'a, '}n or e is needed")


def _edited(ask: Ask, text: str, read: Callable[[str], str | None], say: Callable[[str], None]) -> Decision | None:
    """The decision with changed arguments; None where the person thought better of it."""
    while True:
        if not text:
            say(json.dumps(ask.arguments, default=str))
            text = (read(SIGN_JSON) or "").strip()
        if not text:
            return None
        try:
            return changed(ask, text)
        except ToolError as error:
            say(error.for_model())
        except LlmprocError as error:
            say(str(error))
        text = ""
