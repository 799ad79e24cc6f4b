"""What does not fit a schema, in words for a model: which argument, what was found, what is right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from llmproc_nb.core.errors import ToolError

_SHOWN_CHARS = 60


def unknown(name: str, known: Sequence[str], *, noun: str = "argument", owner: str = "the tool") -> tuple[str, str]:
    """What was found and what would be right, for a name that is not one of those known."""
    near = [item for item in known if name and item.startswith(name)] or get_close_matches(name, known, n=1) or known
    right = f"{owner} has {', '.join(repr(item) for item in near)}" if near else f"{owner} has none"
    return f"unknown {noun} {name!r}", right


def fault(errors: Sequence[Mapping[str, Any]], data: Any, *, place: str, noun: str = "argument", known: Sequence[str] = ()) -> ToolError:
    """The ToolError for what a validator found in `data`: all faults, each with its place, its value and what would be right.

    `errors` have `loc`, `msg`, `type` and `input`; those of several branches at one place are one fault.
    """
    merged: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        found, right = _words(error, data, noun, known)
        rights = merged.setdefault((_path(error, data), found), [])
        if right and right not in rights:
            rights.append(right)
    faults = [(found, _joined(rights)) for (_, found), rights in merged.items()]
    if len(faults) == 1:
        return ToolError(faults[0][0], right=faults[0][1], place=place)
    lines = (f"{found} ({right})" if right else found for found, right in faults)
    return ToolError(f"{len(faults)} faults: {'; '.join(lines)}", place=place)


def _joined(rights: Sequence[str]) -> str:
    return " or ".join([*rights[:1], *(right.removeprefix("it should be ") for right in rights[1:])])


def _words(error: Mapping[str, Any], data: Any, noun: str, known: Sequence[str]) -> tuple[str, str]:
    kind, path = str(error["type"]), _path(error, data)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        inside, _, name = path.rpartition(".")
        return (f"unknown field {name!r} in {inside!r}", "") if inside else unknown(name, known, noun=noun, owner=_owner(noun))
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{noun} {path!r} is missing", ""
    said = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    right = "it " + said.removeprefix("Input ") if said.startswith("Input should") else said[:1].lower() + said[1:]
    return f"{noun} {path!r} is {shown(error['input'])}" if path else f"the {_owner(noun)[4:]} is {shown(error['input'])}", right


def _owner(noun: str) -> str:
    return "the tool" if noun == "argument" else "the answer"


def _path(error: Mapping[str, Any], data: Any) -> str:
    """Where in the data, as `a.b[0]`; the names of union branches, which the data does not have, are left out."""
    path, steps = "", tuple(error["loc"])
    for position, step in enumerate(steps):
        inside = (isinstance(data, dict) and step in data) or (isinstance(data, list) and isinstance(step, int) and step < len(data))
        if inside:
            data = data[step]
        elif not (position == len(steps) - 1 and str(error["type"]).startswith("missing")):
            continue
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path


def shown(value: Any) -> str:
    """A value as short JSON, for a sentence."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
