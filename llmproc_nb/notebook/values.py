"""Values as a model reads them: text as it is, data with its types, pictures as pictures; what is left out is always said.

Here: which form a value takes in a prompt. Not here: frames and arrays (sample), pictures and what objects say of themselves (the value
driver), references in prompts (template). How long a value's text may be: fit.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import types
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import msgspec

from llmproc_nb.core.call import Call
from llmproc_nb.core.errors import PromptError, kind_of
from llmproc_nb.core.message import AnyPart, Document, Image, Message, Text, clean
from llmproc_nb.core.result import RunResult
from llmproc_nb.drivers.value import as_json, has_own_view, own_view, picture, without_addresses
from llmproc_nb.inside.sample import sample_text, sampled
from llmproc_nb.notebook.fit import Fit
from llmproc_nb.notebook.reference import Read

ONE_LINE_CHARS = 200
_PARTS = (Text, Image, Document)
_SOURCED = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType)
_PLAIN_MODULES = frozenset(("datetime", "decimal", "fractions", "uuid", "zoneinfo"))


def value_parts(value: Any, label: str, fit: Fit) -> tuple[AnyPart, ...]:
    """A value as parts of a prompt. `label` is how the person referred to it. Raises PromptError where a model cannot read it."""
    if isinstance(value, Read):
        return (Text(text=f"{label}:\n{clean(fit.text(value, label))}"),)
    if isinstance(value, str):
        return (Text(text=clean(fit.text(value, label))),)
    if isinstance(value, _PARTS):
        return (value,)
    own = own_view(value, label, fit.sample_tokens)
    if own is not None:
        return tuple(Text(text=fit.text(part.text, label)) if isinstance(part, Text) else part for part in own)
    if isinstance(value, list | tuple) and value and all(isinstance(part, _PARTS) for part in value):
        return tuple(value)
    if sampled(value):
        return (Text(text=clean(sample_text(value, label, fit.sample_tokens))),)
    return (picture(value) or Text(text=clean(fit.text(_text(value, label), label))),)


def is_block(value: Any) -> bool:
    """Whether a value's text is a block of its own with a title, not words within a line: frames, arrays, resources, and source."""
    return (sampled(value) and not has_own_view(value)) or isinstance(value, (*_SOURCED, Read))


# text


def _text(value: Any, label: str) -> str:
    if value is None or isinstance(value, bool | int | float | complex):
        return str(value)
    if isinstance(value, RunResult | Call):
        return str(value)
    if isinstance(value, Message):
        return value.text
    if isinstance(value, bytes | bytearray):
        return _decoded_text(bytes(value), label)
    if isinstance(value, PurePath) or type(value).__module__ in _PLAIN_MODULES:
        return str(value)
    if callable(getattr(value, "item", None)) and getattr(value, "shape", None) == ():
        return str(value.item())
    if isinstance(value, types.ModuleType):
        raise PromptError(
            f"{label} is the module {value.__name__}", place="prompt", right="a function, a value or text can be put into a prompt"
        )
    if isinstance(value, _SOURCED):
        return _source(value, label)
    if inspect.isawaitable(value) or isinstance(value, Iterator):
        right = (
            f"{{{{await {label}}}}} does not work in a prompt: await it in a cell before"
            if inspect.isawaitable(value)
            else f"{{{{list({label})}}}} is its items"
        )
        raise PromptError(f"{label} is {kind_of(value)}, which would be used up or never run", place="prompt", right=right)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    written = as_json(value) if _is_data(value) else None
    if written is not None and (len(written) <= ONE_LINE_CHARS or _is_flat(value)):
        written = as_json(value, indent=0)
    return written if written is not None else without_addresses(repr(value))


def _decoded_text(data: bytes, label: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise PromptError(
            f"{label} is {len(data):,} bytes that are neither an image nor UTF-8 text", place="prompt", right="decode them first"
        ) from None


def _source(value: Any, label: str) -> str:
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        raise PromptError(f"{label} is a method", place="prompt", right=f"{{{{{label}()}}}} is what it gives")
    try:
        return textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        raise PromptError(f"{label} is {kind_of(value)} without Python source", place="prompt", right="its source would be sent") from None


def _is_data(value: Any) -> bool:
    return (
        isinstance(value, dict | list | tuple | set | frozenset | msgspec.Struct)
        or dataclasses.is_dataclass(value)
        or callable(getattr(type(value), "model_dump", None))
    )


def _is_flat(value: Any) -> bool:
    """Whether this is a list of numbers and the like, of which a line for each would be mostly white space."""
    return isinstance(value, list | tuple | set | frozenset) and all(isinstance(item, int | float | None) for item in value)
