"""Conditions on an argument of a tool call: a regular expression, or a path pattern after `glob:`.

A condition is read in one of two ways, both on the safe side. `covers`, for what lets a call through: the condition must describe the
whole argument, classes such as \\w mean ASCII only, and a path must not leave the folder it names. `touches`, for what stops a call: it is
enough that the condition occurs somewhere, in any line, in any text within a list or table, in the path as written or as it resolves.
A value that is no text is read as its JSON text. Not here: rules and decisions (approval).
"""

from __future__ import annotations

import json
import posixpath
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

GLOB = "glob:"
MAX_CHARS = 200_000
MAX_VALUES = 10_000
_ELSEWHERE = re.compile(r"[/~$%]|[A-Za-z][\w+.-]*:")
_PROBE_S = 0.005


def covers(condition: str, value: Any) -> bool:
    """Whether the condition describes the value from its first to its last character. What is too long to look at is not covered."""
    text = _text(value)
    if len(text) > MAX_CHARS:
        return False
    if not condition.startswith(GLOB):
        return _regex(condition, re.ASCII).fullmatch(text) is not None
    pattern = condition.removeprefix(GLOB)
    start = _ELSEWHERE.match(text)
    if not isinstance(value, str) or not text or "\\" in text or "\0" in text or ".." in text.split("/"):
        return False
    if start and not pattern.startswith(start[0]):
        return False
    return _regex(_path_regex(pattern), re.DOTALL).fullmatch(posixpath.normpath(text)) is not None


def touches(condition: str, value: Any) -> bool:
    """Whether the condition occurs anywhere in the value. What is too long to look at is touched."""
    texts = list(islice(_texts(value), MAX_VALUES + 1))
    if len(texts) > MAX_VALUES or sum(map(len, texts)) > 2 * MAX_CHARS:
        return True
    if condition.startswith(GLOB):
        found: Callable[[str], bool] = _path_finder(condition.removeprefix(GLOB))
    else:
        plain, wide = _regex(condition, 0), _regex(condition, re.DOTALL | re.MULTILINE)

        def found(text: str) -> bool:
            return plain.search(text) is not None or wide.search(text) is not None

    return any(found(form) for text in texts for form in {text, unicodedata.normalize("NFKC", text)})


@lru_cache(maxsize=512)
def fault(condition: str) -> tuple[str, str] | None:
    """What is wrong with a condition, and what would be right; None where it can be used."""
    if condition.startswith(GLOB):
        pattern = condition.removeprefix(GLOB)
        if not pattern or ".." in pattern.split("/") or "\\" in pattern:
            return f"{pattern[:40]!r} is no path pattern", "*, ** and ? stand for parts of a path, as in glob:data/**"
        return None
    try:
        compiled = _regex(condition, 0)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{condition[:40]!r} is no regular expression: {error}", "a regular expression, or glob: and a path pattern"
    if _explodes(compiled):
        found = f"{condition[:40]!r} can take endless time on a short text"
        return found, "a repeat within a repeat must be told apart from the next one, as in ( [a-z]+)* with its space"
    return None


def _text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _texts(value: Any) -> Iterator[str]:
    """The value as text, and every text within it."""
    yield _text(value)
    waiting = [value] if isinstance(value, dict | list) else []
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            waiting += item


@lru_cache(maxsize=512)
def _regex(pattern: str, flags: int) -> re.Pattern[str]:
    return re.compile(pattern, flags)


@lru_cache(maxsize=512)
def _path_regex(pattern: str) -> str:
    """`*` and `?` stay within a folder, `**` goes through folders; everything else stands for itself."""
    made = [
        {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
        for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    ]
    return "".join(made)


def _path_finder(pattern: str) -> Callable[[str], bool]:
    """Finds a path in any letter case: a relative pattern at any depth, a folder's `/**` with the folder itself."""
    folder = pattern.removesuffix("/**")
    body = _path_regex(folder) + ("(?:/.*)?" if folder != pattern else "")
    start = "" if pattern.startswith("/") else "(?:.*/)?"
    regex = _regex(start + body, re.DOTALL | re.IGNORECASE)

    def found(text: str) -> bool:
        slashed = text.replace("\\", "/")
        return any(regex.fullmatch(form.rstrip("/")) is not None for form in (slashed, posixpath.normpath(slashed)))

    return found


def _explodes(regex: re.Pattern[str]) -> bool:
    """Whether the time a search takes grows exponentially with a short text: tried out on repetitions of what the pattern speaks of."""
    words = re.findall(r"\w+", regex.pattern)
    pumps = dict.fromkeys(["a", "0", " ", "-", "/", "a ", *(char for char in regex.pattern if not char.isspace()), *words])
    return any(_grows(regex, pump) for pump in islice(pumps, 40))


def _grows(regex: re.Pattern[str], pump: str) -> bool:
    for count in range(4, 31, 2):
        text = pump * count + "\0"
        if min(_cpu_s(regex, text), _cpu_s(regex, text)) > _PROBE_S:  # twice: the first one may have paid for something else
            return True
    return False


def _cpu_s(regex: re.Pattern[str], text: str) -> float:
    began = time.thread_time()
    regex.fullmatch(text)
    regex.search(text)
    return time.thread_time() - began
