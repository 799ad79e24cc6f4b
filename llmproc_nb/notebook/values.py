"""Values as a model reads them: text as it is, data with its types, pictures as pictures; what is left out is always said.

Here: which form a value takes. Not here: frames and arrays (sample), pictures (picture), references in prompts (template). No
library is imported for this: a value's own type tells which one it comes from. How long a value's text may be: fit.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from llmproc_nb.core.call import Call
from llmproc_nb.core.errors import PromptError
from llmproc_nb.core.message import AnyPart, Document, Image, Message, Text, clean
from llmproc_nb.core.result import RunResult
from llmproc_nb.inside.sample import sample_text, sampled
from llmproc_nb.notebook.fit import Fit
from llmproc_nb.notebook.picture import accepted, asked, decoded, picture
from llmproc_nb.notebook.reference import Read

ONE_LINE_CHARS = 200
_PARTS = (Text, Image, Document)
_SOURCED = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType)
_SPOKEN = ("text/llm+plain", "text/markdown", "text/plain")
_ADDRESS = re.compile(r"(?<=\S) at 0x[0-9A-Fa-f]{6,16}(?=[>\s,)])")
_PLAIN_MODULES = frozenset(("datetime", "decimal", "fractions", "uuid", "zoneinfo"))


def value_parts(value: Any, label: str, fit: Fit) -> tuple[AnyPart, ...]:
    """A value as parts of a prompt. `label` is how the person referred to it. Raises PromptError where a model cannot read it."""
    if isinstance(value, Read):
        return (Text(text=f"{label}:\n{clean(fit.text(value, label))}"),)
    if isinstance(value, str):
        return (Text(text=clean(fit.text(value, label))),)
    if isinstance(value, _PARTS):
        return (value,)
    own = own_view(value, label, fit)
    if own is not None:
        return own
    if isinstance(value, list | tuple) and value and all(isinstance(part, _PARTS) for part in value):
        return tuple(value)
    if sampled(value):
        return (Text(text=clean(sample_text(value, label, fit.sample_tokens))),)
    return (picture(value) or Text(text=clean(fit.text(_text(value, label), label))),)


def is_block(value: Any) -> bool:
    """Whether a value's text is a block of its own with a title, not words within a line: frames, arrays, resources, and source."""
    return (sampled(value) and not _hasown_view(value)) or isinstance(value, (*_SOURCED, Read))


# what an object says of itself


def _hasown_view(value: Any) -> bool:
    return not isinstance(value, type) and callable(getattr(type(value), "_ai_repr_", None))


def own_view(value: Any, label: str, fit: Fit) -> tuple[AnyPart, ...] | None:
    """What `_ai_repr_` gives, or the text/llm+plain of a bundle; None where the type has neither."""
    ask = getattr(type(value), "_ai_repr_", None)
    if not _hasown_view(value) or ask is None:
        return _spoken_bundle(value, label, fit)
    data = asked(lambda: ask(value, **accepted(ask, {"budget_tokens": fit.sample_tokens})), f"{label}._ai_repr_")
    if isinstance(data, str):
        return (Text(text=clean(fit.text(data, label))),)
    parts = tuple(_view_parts(data, label, fit)) if isinstance(data, Mapping) else ()
    if not parts:
        raise PromptError(
            f"{label}._ai_repr_ gave nothing that a model reads", place="prompt", right="text/plain, JSON, PNG and JPEG are read"
        )
    return parts


def _spoken_bundle(value: Any, label: str, fit: Fit) -> tuple[AnyPart, ...] | None:
    ask = getattr(type(value), "_repr_mimebundle_", None)
    if isinstance(value, type) or not callable(ask):
        return None
    try:
        data = ask(value, **accepted(ask, {"include": {"text/llm+plain"}, "exclude": None}))
    except Exception:  # a view made for screens may need what is not there; the value has other forms
        return None
    data = data[0] if isinstance(data, tuple) and data else data
    text = data.get("text/llm+plain") if isinstance(data, Mapping) else None
    return (Text(text=clean(fit.text(text, label))),) if isinstance(text, str) else None


def _view_parts(data: Mapping[str, Any], label: str, fit: Fit) -> Iterator[AnyPart]:
    """The best text of a bundle, and its picture."""
    text = next((data[kind] for kind in _SPOKEN if isinstance(data.get(kind), str)), None)
    if text is None and "application/json" in data:
        text = as_json(data["application/json"])
    if text is not None:
        yield Text(text=clean(fit.text(text, label)))
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            yield Image(media_type=kind, data=decoded(data[kind]))
            return


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
        raise PromptError(f"{label} is a {type(value).__name__}, which would be used up or never run", place="prompt", right=right)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    written = as_json(value) if _is_data(value) else None
    if written is not None and (len(written) <= ONE_LINE_CHARS or _is_flat(value)):
        written = as_json(value, indent=0)
    return written if written is not None else without_addresses(repr(value))


def without_addresses(text: str) -> str:
    """The text of an object without its place in memory, which is another one in every run, so that a recording could never answer."""
    return _ADDRESS.sub("", text)


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
        raise PromptError(
            f"{label} is a {type(value).__name__} without Python source", place="prompt", right="its source would be sent"
        ) from None


def _is_data(value: Any) -> bool:
    return (
        isinstance(value, dict | list | tuple | set | frozenset | msgspec.Struct)
        or dataclasses.is_dataclass(value)
        or callable(getattr(type(value), "model_dump", None))
    )


def _is_flat(value: Any) -> bool:
    """Whether this is a list of numbers and the like, of which a line for each would be mostly white space."""
    return isinstance(value, list | tuple | set | frozenset) and all(isinstance(item, int | float | None) for item in value)


def as_json(value: Any, indent: int = 2) -> str | None:
    """The value as JSON, in one line with an indent of 0; None where it is no data."""
    try:
        return msgspec.json.format(msgspec.json.encode(_ordered(value), enc_hook=_plain), indent=indent).decode()
    except (TypeError, ValueError, RecursionError):
        return None


def _ordered(value: Any) -> Any:
    """The value with its sets as sorted lists: their own order is another one in every run."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=lambda item: (type(item).__name__, without_addresses(repr(item))))
    if isinstance(value, dict):
        return {key: _ordered(item) for key, item in value.items()}
    return [_ordered(item) for item in value] if type(value) in (list, tuple) else value


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    return sample_text(value, "", 300) if sampled(value) else clean(without_addresses(str(value)))
