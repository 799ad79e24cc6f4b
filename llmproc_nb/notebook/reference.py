"""References in a prompt: `{{expression}}` and `@name`, nothing else.

Here: what counts as a reference and what it stands for. Not here: what happens to the text around it (template).

- `{{expression}}` is any Python expression, anywhere in the text. Braces that never close are text.
- `@name`, with `.attribute` and `[subscript]` directly behind it, counts at the start of a word: at the beginning, after white space, or
  after one of `([{"'*,;:=>`. Not in fenced code and not between backticks, not where `@`, `/` or `-` and a letter follow (`@types/node`,
  `@user@host`, `@font-face`), and not where it decorates a function or class that was pasted as it is.
- `\\@name` and `\\{{` are literal: the backslash goes, the rest stays.
- `@server:resource` is a resource of a server of the process that is asked, by its name or its uri, or a prompt of that name, up to
  white space; a full stop, comma or bracket behind it is text. Where the process has no such server it is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from llmproc_nb.core.errors import LlmprocError, PromptError, raised
from llmproc_nb.core.message import AnyPart, Text

Lookup: TypeAlias = Callable[[str], Any] | Mapping[str, Any]

_REFERENCE = re.compile(r"(?<![^\s(\[{\"'“‘«*,;:=>])@(?P<path>[^\W\d]\w*(?:\.[^\W\d]\w*)*)(?P<after>@|/|-\w|:(?=[\w/]))?")
_RESOURCE = re.compile(r"(?<![^\s(\[{\"'“‘«*,;:=>])@(?P<server>[^\W\d][\w-]*):(?P<resource>[\w/]\S*)")
_ESCAPED = re.compile(r"\\(?=\{\{|@[^\W\d])")
_FENCED = r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)"
_CODE = re.compile(_FENCED + r"|(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)(?P=ticks)(?!`)", re.DOTALL | re.MULTILINE)
_DECORATOR = re.compile(
    r"@(?P<path>[^\W\d][\w.]*)[ \t]*(?:\((?:.{0,2000}?)\))?[ \t]*(?:#[^\n]*)?\n(?:[ \t]*[@#][^\n]*\n)*"
    r"[ \t]*(?:(?:async[ \t]+)?def[ \t]+\w+[ \t]*[\[(]|(?:\w+[ \t]+){0,3}class[ \t]+\w+[^\n]*[:({])",
    re.DOTALL,
)
_CHAIN = re.compile(r"(?:\.[^\W\d]\w*)+")
MAX_SUBSCRIPT_CHARS = 200
_MARK = re.compile(r"\\|\{\{|@")


class Resources(Protocol):
    """The servers of the process that is asked. Started, if need be, by the first look at `names`."""

    @property
    def names(self) -> Collection[str]: ...

    def read(self, server: str, resource: str) -> tuple[AnyPart, ...]: ...


class Read(str):
    """The text of a resource: a block of its own, like a frame."""


def pieces(
    source: str, lookup: Lookup, evaluate: Callable[[str], Any], resources: Resources | None = None
) -> Iterator[tuple[str, str | None, Any]]:
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
        found = (
            _expression(source, at, lookup, evaluate)
            if here[0] == "{{"
            else None
            if _within(at, code)
            else _resource(source, at, resources) or _name(source, at, lookup, evaluate)
        )
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
                shown, step = f"{{{{{expression}}}}}", r"Write \{{ for two braces that stay."
                return expression, _evaluated(expression, shown, step, lookup, evaluate), end + 2
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


def _evaluated(expression: str, shown: str, step: str, lookup: Lookup, evaluate: Callable[[str], Any]) -> Any:
    """The value of an expression; `shown` is how it stands in the prompt."""
    try:
        return evaluate(expression)
    except LlmprocError:
        raise
    except NameError as error:
        near = _near(error.name or "", lookup)
        raise PromptError(
            f"there is no name {error.name!r} for {shown}",
            place="prompt",
            right=f"did you mean {near[0]!r}?" if near else "an expression sees the variables of this notebook",
            step=step,
        ) from error
    except Exception as error:  # the person's own code: whatever it raises is said, and nothing is sent
        raise PromptError(f"{shown} raised {raised(error)}", place="prompt", right="nothing was sent") from error


def _name(source: str, at: int, lookup: Lookup, evaluate: Callable[[str], Any]) -> tuple[str, Any, int] | None:
    """The name that is referred to here, with its value and end; None where this is just an @."""
    found = _REFERENCE.match(source, at)
    if found is None or (found["after"] and not found["after"].startswith(":")) or _decorates(source, at, lookup):
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
    end = _chain_end(source, at + 1, found.end("path"))
    if end > found.end("path"):
        expression = source[at + 1 : end]
        step = f"Put a space before the bracket to end the reference at @{path}."
        return expression, _evaluated(expression, f"@{expression}", step, lookup, evaluate), end
    label = base
    for name in attributes:
        value, label = _attribute(value, name, label), f"{label}.{name}"
    return label, value, end


def _resource(source: str, at: int, resources: Resources | None) -> tuple[str, Any, int] | None:
    """The resource that is referred to here: its text as a block or in the line, else its parts. Raises PromptError."""
    found = _RESOURCE.match(source, at)
    if found is None or resources is None or found["server"] not in resources.names:
        return None
    name = _without_marks(found["resource"])
    parts = resources.read(found["server"], name)
    label, end = f"{found['server']}:{name}", found.start("resource") + len(name)
    if not all(isinstance(part, Text) for part in parts):
        return label, parts, end
    text = "\n".join(part.text for part in parts if isinstance(part, Text)).strip("\n")
    return label, Read(text) if "\n" in text else text, end


def _without_marks(word: str) -> str:
    """A word without the marks behind it that belong to the sentence: a bracket stays where it was opened in the word."""
    while word:
        last = word[-1]
        opened = {")": "(", "]": "[", "}": "{", ">": "<"}.get(last)
        if last not in ".,;:!?'\"’”»*`" and (opened is None or word.count(opened) >= word.count(last)):
            break
        word = word[:-1]
    return word


def _chain_end(source: str, start: int, end: int) -> int:
    """Where a reference ends that began at `start`, with the subscripts that stand directly behind it and what follows them."""
    while source.startswith("[", end):
        close = source.find("]", end)
        while close >= 0 and not _is_python(source[start : close + 1]):
            close = source.find("]", close + 1, end + MAX_SUBSCRIPT_CHARS)
        if close < 0 or "\n" in source[end:close]:
            return end
        end = close + 1
        attributes = _CHAIN.match(source, end)
        end = attributes.end() if attributes else end
    return end


def _decorates(source: str, at: int, lookup: Lookup) -> bool:
    """Whether this is the decorator of pasted code: on a line of its own, a function or class below it, and no data of that name here."""
    found = _DECORATOR.match(source, at)
    if found is None or source[source.rfind("\n", 0, at) + 1 : at].strip():
        return False
    base, *attributes = found["path"].split(".")
    try:
        value = lookup[base] if isinstance(lookup, Mapping) else lookup(base)
    except (KeyError, NameError):
        return True
    return bool(attributes) or callable(value)


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
        near = difflib.get_close_matches(name, _attributes(value), 1)
        raise PromptError(
            f"{label} has no attribute {name!r}",
            place="prompt",
            right=f"did you mean @{label}.{near[0]}?" if near else f"@{label} is the value itself",
            step=f"Put a space before the full stop to end the reference at @{label}.",
        ) from None
    except Exception as error:  # a property is the person's own code
        raise PromptError(f"@{label}.{name} raised {raised(error)}", place="prompt", right="nothing was sent") from error


def _attributes(value: Any) -> list[str]:
    """The names of a value's attributes; none where it does not say."""
    try:
        return dir(value)
    except Exception:  # the person's own code
        return []
