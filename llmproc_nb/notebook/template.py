"""Prompts with values in them: `{{expression}}` and `@name`, nothing else.

Here: what counts as a reference, and what happens to the text around it. Not here: how a value is told to a model (values).

- A frame, an array or the source of a function stands below the line that refers to it, by its name; on a line of its own in that place.
- `{{expression}}` is any Python expression, anywhere in the text. Braces that never close are text.
- `@name` and `@name.attribute` count at the start of a word: at the beginning, after white space, or after one of `([{"'*,;:=>`.
  Not in fenced code and not between backticks (decorators stay as they are), and not where `@`, `/` or `-` and a letter follow
  (`@types/node`, `@user@host`, `@font-face`).
- `\\@name` and `\\{{` are literal: the backslash goes, the rest stays.
- `@server:resource` is kept for resources of servers; it is refused until there are any.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from llmproc_nb.core.errors import LlmprocError, PromptError
from llmproc_nb.core.message import AnyPart, Text, clean
from llmproc_nb.notebook.values import BUDGET_TOKENS, is_block, value_parts

Lookup: TypeAlias = Callable[[str], Any] | Mapping[str, Any]

_REFERENCE = re.compile(r"(?<![^\s(\[{\"'“‘«*,;:=>])@(?P<path>[^\W\d]\w*(?:\.[^\W\d]\w*)*)(?P<after>@|/|-\w|:(?=[\w/]))?")
_ESCAPED = re.compile(r"\\(?=\{\{|@[^\W\d])")
_FENCED = r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)"
_CODE = re.compile(_FENCED + r"|(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)(?P=ticks)(?!`)", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"\\|\{\{|@")


def render_prompt(source: str, lookup: Lookup, evaluate: Callable[[str], Any], budget_tokens: int = BUDGET_TOKENS) -> tuple[AnyPart, ...]:
    """The prompt as parts: text as it is, values in the form a model reads, neighbouring texts merged, order kept.

    `lookup` are the names (or a function that raises KeyError or NameError), `evaluate` gives an expression's value. `budget_tokens` is
    the most one value may take. Raises PromptError, naming the reference, before anything is sent.
    """
    found = list(_pieces(source, lookup, evaluate))
    made: list[AnyPart] = []
    waiting: list[str] = []
    shown: set[tuple[str, int]] = set()
    for position, (text, label, value) in enumerate(found):
        if label is None:
            made.append(Text(text=_with_blocks(clean(text), waiting)))
        elif not is_block(value) or _alone(found, position):
            made += value_parts(value, label, budget_tokens)
        else:
            made.append(Text(text=label))
            if (label, id(value)) not in shown:
                waiting += [_block(part.text) for part in value_parts(value, label, budget_tokens) if isinstance(part, Text)]
            shown.add((label, id(value)))
    if waiting:
        made.append(Text(text=_with_blocks("\n", waiting)))
    return _merged(made)


def _with_blocks(text: str, waiting: list[str]) -> str:
    """The text with the blocks that wait for the end of their line; none waits then."""
    line, end, rest = text.partition("\n")
    if not waiting or not end:
        return text
    blocks = "\n".join(waiting)
    waiting.clear()
    return f"{line}\n\n{blocks}\n{rest}" if rest else f"{line}\n\n{blocks}"


def _block(text: str) -> str:
    return text.rstrip("\n") + "\n"


def _alone(found: list[tuple[str, str | None, Any]], position: int) -> bool:
    """Whether a reference has a line of its own."""
    before = found[position - 1][0] if position else ""
    after = found[position + 1][0] if position + 1 < len(found) else ""
    starts = (before == "" and position <= 1) or before.rstrip(" \t").endswith("\n")
    ends = (after == "" and position + 2 >= len(found)) or after.lstrip(" \t").startswith("\n")
    return starts and ends


def _merged(parts: Iterable[AnyPart]) -> tuple[AnyPart, ...]:
    made: list[AnyPart] = []
    for part in parts:
        if isinstance(part, Text) and not part.text:
            continue
        if made and isinstance(part, Text) and isinstance(made[-1], Text) and part.extra is None and made[-1].extra is None:
            made[-1] = Text(text=made[-1].text + part.text)
        else:
            made.append(part)
    return tuple(made)


def _pieces(source: str, lookup: Lookup, evaluate: Callable[[str], Any]) -> Iterator[tuple[str, str | None, Any]]:
    """Texts (with no label) and references (label and value), in order."""
    code = [found.span() for found in _CODE.finditer(source)]
    at = start = 0
    while at < len(source):
        here = _MARK.search(source, at)
        if here is None:
            break
        at = here.start()
        if here[0] == "\\":
            if _ESCAPED.match(source, at) and not (source[at + 1] == "@" and _within(at, code)):
                yield source[start:at], None, None
                start = at + 1
                at = start + (2 if source[start] == "{" else 1)
            else:
                at += 1
            continue
        found = _expression(source, at, lookup, evaluate) if here[0] == "{{" else None if _within(at, code) else _name(source, at, lookup)
        if found is None:
            at += len(here[0])
            continue
        label, value, end = found
        yield source[start:at], None, None
        yield "", label, value
        at = start = end
    yield source[start:], None, None


def _within(at: int, spans: list[tuple[int, int]]) -> bool:
    return any(start <= at < end for start, end in spans)


def _expression(source: str, at: int, lookup: Lookup, evaluate: Callable[[str], Any]) -> tuple[str, Any, int] | None:
    """The expression that begins here with its value and end: up to the first `}}` with which it is Python. None where none closes."""
    first: str | None = None
    close = source.find("}}", at + 2)
    while close >= 0:
        while source.startswith("}}", close + 1):  # `}}}` ends a dict and the reference
            close += 1
        for end in _closings(source, at, close):
            expression = source[at + 2 : end].strip()
            first = expression if first is None else first
            if _is_python(expression):
                return expression, _evaluated(expression, lookup, evaluate), end + 2
        close = source.find("}}", close + 2)
        if close - at > 2000:
            break
    if first is None:
        return None
    raise PromptError(
        f"{{{{{first[:60]}}}}} is no Python expression",
        place="prompt",
        right="an expression belongs in {{…}}",
        step=r"Write \{{ for two braces that stay.",
    )


def _closings(source: str, at: int, last: int) -> Iterator[int]:
    """The places where a run of closing braces can end the reference, first one first."""
    start = last
    while start > at + 2 and source[start - 1] == "}":
        start -= 1
    yield from range(start, last + 1)


def _is_python(expression: str) -> bool:
    try:
        compile(f"({expression}\n)", "<prompt>", "eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return bool(expression)


def _evaluated(expression: str, lookup: Lookup, evaluate: Callable[[str], Any]) -> Any:
    try:
        return evaluate(expression)
    except LlmprocError:
        raise
    except NameError as error:
        near = _near(error.name or "", lookup)
        raise PromptError(
            f"there is no name {error.name!r} for {{{{{expression}}}}}",
            place="prompt",
            right=f"did you mean {near[0]!r}?" if near else "an expression sees the variables of this notebook",
            step=r"Write \{{ for two braces that stay.",
        ) from error
    except Exception as error:  # the person's own code: whatever it raises is said, and nothing is sent
        raise PromptError(
            f"{{{{{expression}}}}} raised {type(error).__name__}: {error}", place="prompt", right="nothing was sent"
        ) from error


def _name(source: str, at: int, lookup: Lookup) -> tuple[str, Any, int] | None:
    """The name that is referred to here, with its value and end; None where this is just an @."""
    found = _REFERENCE.match(source, at)
    if found is None or (found["after"] and not found["after"].startswith(":")):
        return None
    path = found["path"]
    if found["after"]:
        raise PromptError(
            f"@{path}:… is kept for resources of servers, and there are none yet",
            place="prompt",
            right=f"@{path} followed by a space is the value of {path}",
            step=rf"Write \@{path} for text.",
        )
    base, *attributes = path.split(".")
    value = _looked_up(base, lookup)
    label = base
    for name in attributes:
        value, label = _attribute(value, name, label), f"{label}.{name}"
    return label, value, found.end("path")


def _looked_up(name: str, lookup: Lookup) -> Any:
    try:
        return lookup[name] if isinstance(lookup, Mapping) else lookup(name)
    except (KeyError, NameError):
        near = _near(name, lookup)
        raise PromptError(
            f"there is no name {name!r} for @{name}",
            place="prompt",
            right=f"did you mean @{near[0]}?" if near else "@name is the value of a variable of this notebook",
            step=rf"Write \@{name} for text.",
        ) from None


def _near(name: str, lookup: Lookup) -> list[str]:
    known = [key for key in lookup if isinstance(key, str) and not key.startswith("_")] if isinstance(lookup, Mapping) else []
    return difflib.get_close_matches(name, known, 1)


def _attribute(value: Any, name: str, label: str) -> Any:
    try:
        return getattr(value, name)
    except AttributeError:
        near = difflib.get_close_matches(name, dir(value), 1)
        raise PromptError(
            f"{label} has no attribute {name!r}",
            place="prompt",
            right=f"did you mean @{label}.{near[0]}?" if near else f"@{label} is the value itself",
            step=f"Put a space before the full stop to end the reference at @{label}.",
        ) from None
    except Exception as error:  # a property is the person's own code
        raise PromptError(f"@{label}.{name} raised {type(error).__name__}: {error}", place="prompt", right="nothing was sent") from error
