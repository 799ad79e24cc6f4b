"""The fields of declarations that are made in Python: their names and values, checked where they are given.

Here: types, and what to say of a wrong one. Not here: what reads files (drivers.files), bounds that belong to one field.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from os import PathLike, fspath
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from llmproc_nb.core.errors import ProgramError, kind_of, meant

SHOWN_CHARS = 40
_WORDS: Mapping[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    tuple: "a list",
    dict: "a dict",
    NoneType: "None",
    Callable: "a function",
}


class Declared(msgspec.StructMeta):
    """Of declarations: a field that there is not is an error of ours, with the one that was probably meant."""

    def __call__(cls, *values: Any, **fields: Any) -> Any:
        check_names(cls, fields)
        return super().__call__(*values, **fields)


def check_names(declared: Any, names: Iterable[str]) -> None:
    """Raises ProgramError for a name that is no field."""
    known = declared.__struct_fields__
    for name in names:
        if name not in known:
            right = meant(name, known, f"there are {', '.join(known)}")
            raise ProgramError(f"there is no field {name!r}", place=declared.__name__, right=right)


def check_values(made: msgspec.Struct) -> None:
    """Raises ProgramError for a field of a wrong type. Whole numbers become Python's own, where they are numpy's, and paths texts."""
    for name, kinds in _kinds(type(made)).items():
        value = getattr(made, name)
        if type(value) in kinds:
            continue
        if int in kinds and (number := whole(value)) is not None:
            msgspec.structs.force_setattr(made, name, number)
        elif str in kinds and isinstance(value, PathLike):
            msgspec.structs.force_setattr(made, name, fspath(value))
        elif isinstance(value, bool) or not isinstance(value, kinds):
            right = _list_of(name, value) if kinds == (tuple, list) else f"{_words(kinds)} is needed"
            raise wrong(type(made).__name__, name, value, right)


def several(owner: str, name: str, value: Any) -> tuple[Any, ...]:
    """The things that were given. Raises ProgramError for a single one; the letters of a text are not meant."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise wrong(owner, name, value, _list_of(name, value))
    return tuple(value)


def check_text(owner: str, name: str, value: Any, right: str = "a text is needed") -> None:
    """Raises ProgramError for what is no text."""
    if not isinstance(value, str):
        raise wrong(owner, name, value, right)


def _list_of(name: str, value: Any) -> str:
    return "a list is needed" + (f", as in {name}=[{value!r}]" if isinstance(value, str) else "")


def wrong(owner: str, name: str, value: Any, right: str) -> ProgramError:
    """The error for a value. What may hold a secret is not shown."""
    plain = value is None or isinstance(value, str | int | float)
    found = f"{value!r:.{SHOWN_CHARS}}" if plain else kind_of(value)
    return ProgramError(f"found {found}", place=f"{owner}({name}=…)", right=right)


def whole(value: Any) -> int | None:
    """A whole number, one of numpy's too; None for everything else, True and False included."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


@cache
def _kinds(declared: type[msgspec.Struct]) -> dict[str, tuple[type, ...]]:
    """The types that the fields of a declaration may have."""
    hints = get_type_hints(declared)
    return {name: tuple(_flat(hints[name])) for name in declared.__struct_fields__}


def _flat(hint: Any) -> Iterator[Any]:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for one in get_args(hint):
            yield from _flat(one)
    elif origin is Literal:
        yield from {type(one) for one in get_args(hint)}
    else:
        yield object if hint is Any else origin or hint
        yield from {float: (int,), tuple: (list,)}.get(origin or hint, ())


def _words(kinds: tuple[Any, ...]) -> str:
    said = (kind for kind in kinds if kind is not list and not (kind is int and float in kinds))
    return " or ".join(_WORDS.get(kind) or f"{kind.__name__}(…)" for kind in said)
