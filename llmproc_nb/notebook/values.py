"""Values as a model reads them: text as it is, data with its types, pictures as pictures; what is left out is always said.

Here: which form a value takes. Not here: frames and arrays (sample), pictures (picture), references in prompts (template). No
library is imported for this: a value's own type tells which one it comes from.
"""

from __future__ import annotations

import dataclasses
import inspect
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
from llmproc_nb.notebook.picture import accepted, asked, decoded, picture
from llmproc_nb.notebook.sample import cut_text, sample_text, sampled

BUDGET_TOKENS = 2000
ONE_LINE_CHARS = 200
_PARTS = (Text, Image, Document)
_SOURCED = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType)
_SPOKEN = ("text/llm+plain", "text/markdown", "text/plain")
_PLAIN_MODULES = frozenset(("datetime", "decimal", "fractions", "uuid", "zoneinfo"))


def value_parts(value: Any, label: str, budget_tokens: int = BUDGET_TOKENS) -> tuple[AnyPart, ...]:
    """A value as parts of a prompt. `label` is how the person referred to it. Raises PromptError where a model cannot read it."""
    if isinstance(value, str):
        return (Text(text=clean(value)),)
    if isinstance(value, _PARTS):
        return (value,)
    own = _own_view(value, label, budget_tokens)
    if own is not None:
        return own
    if isinstance(value, list | tuple) and value and all(isinstance(part, _PARTS) for part in value):
        return tuple(value)
    return (picture(value) or Text(text=clean(_text(value, label, budget_tokens))),)


def is_block(value: Any) -> bool:
    """Whether a value's text is a block of its own with a title, not words within a line: frames, arrays, and source."""
    return (sampled(value) and not _has_own_view(value)) or isinstance(value, _SOURCED)


def tool_value(value: Any, budget_tokens: int = 2 * BUDGET_TOKENS) -> Any:
    """What a tool of the notebook returned, in a form `result_parts` takes: frames, arrays, figures and objects with a view of their own
    become text or parts, within the budget; everything else is returned unchanged."""
    if value is None or isinstance(value, (str, bytes, bytearray, bool, int, float, BaseException, *_PARTS)):
        return value
    shown = _special(value, budget_tokens)
    if shown is not None:
        return shown
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return _sequence(value, budget_tokens)
    if isinstance(value, dict):
        return {key: _inner(item, budget_tokens) for key, item in value.items()}
    return value


def _special(value: Any, budget_tokens: int) -> Any:
    """A value with a form of its own for models; None for any other."""
    if isinstance(value, RunResult | Call):
        return str(value)
    if isinstance(value, Message):
        return value.text
    try:
        own = _own_view(value, type(value).__name__, budget_tokens)
        if own is not None:
            return own[0].text if len(own) == 1 and isinstance(own[0], Text) else list(own)
        return sample_text(value, "", budget_tokens) if sampled(value) else picture(value)
    except PromptError as error:  # the tool has run: a view that fails must not make it a failure
        return f"{cut_text(repr(value), budget_tokens)}\n[{error.found}]"


def _sequence(value: list[Any] | tuple[Any, ...], budget_tokens: int) -> Any:
    """A list whose items are left as they are, or, where one of them is a picture, a list of parts."""
    shown = [
        _special(item, budget_tokens) if not isinstance(item, (str, int, float, type(None), *_PARTS)) else item for item in value[:1000]
    ]
    shown = [new if new is not None else old for new, old in zip(shown, value, strict=False)] + list(value[1000:])
    if not any(isinstance(item, _PARTS) for item in shown):
        return shown if any(new is not old for new, old in zip(shown, value, strict=True)) else value
    parts: list[Any] = []
    for item in shown:
        parts += item if isinstance(item, list) and all(isinstance(part, _PARTS) for part in item) else [_as_part(item)]
    return parts


def _as_part(item: Any) -> Any:
    if isinstance(item, _PARTS):
        return item
    return Text(text=clean(item if isinstance(item, str) else _json(item) or repr(item)))


def _inner(item: Any, budget_tokens: int) -> Any:
    """A value inside a dict: frames and arrays as text, pictures by a note, for JSON holds no pictures."""
    if isinstance(item, dict):
        return {key: _inner(deep, budget_tokens) for key, deep in item.items()}
    if isinstance(item, str | int | float | bytes | None):
        return item
    shown = item if isinstance(item, _PARTS) else _special(item, budget_tokens)
    if isinstance(shown, list):
        shown = "\n".join(part.text for part in shown if isinstance(part, Text)) or shown[0]
    if isinstance(shown, _PARTS):
        return shown.text if isinstance(shown, Text) else f"[{type(shown).__name__.lower()} left out: return it by itself or in a list]"
    return item if shown is None else shown


# what an object says of itself


def _has_own_view(value: Any) -> bool:
    return not isinstance(value, type) and callable(getattr(type(value), "_ai_repr_", None))


def _own_view(value: Any, label: str, budget_tokens: int) -> tuple[AnyPart, ...] | None:
    """What `_ai_repr_` gives, or the text/llm+plain of a bundle; None where the type has neither."""
    ask = getattr(type(value), "_ai_repr_", None)
    if not _has_own_view(value) or ask is None:
        return _spoken_bundle(value, label, budget_tokens)
    data = asked(lambda: ask(value, **accepted(ask, {"budget_tokens": budget_tokens})), f"{label}._ai_repr_")
    if isinstance(data, str):
        return (Text(text=clean(data)),)
    parts = tuple(_view_parts(data, budget_tokens)) if isinstance(data, Mapping) else ()
    if not parts:
        raise PromptError(
            f"{label}._ai_repr_ gave nothing that a model reads", place="prompt", right="text/plain, JSON, PNG and JPEG are read"
        )
    return parts


def _spoken_bundle(value: Any, label: str, budget_tokens: int) -> tuple[AnyPart, ...] | None:
    ask = getattr(type(value), "_repr_mimebundle_", None)
    if isinstance(value, type) or not callable(ask):
        return None
    try:
        data = ask(value, **accepted(ask, {"include": {"text/llm+plain"}, "exclude": None}))
    except Exception:  # a view made for screens may need what is not there; the value has other forms
        return None
    data = data[0] if isinstance(data, tuple) and data else data
    text = data.get("text/llm+plain") if isinstance(data, Mapping) else None
    return (Text(text=clean(cut_text(text, budget_tokens))),) if isinstance(text, str) else None


def _view_parts(data: Mapping[str, Any], budget_tokens: int) -> Iterator[AnyPart]:
    """The best text of a bundle, and its picture."""
    text = next((data[kind] for kind in _SPOKEN if isinstance(data.get(kind), str)), None)
    if text is None and "application/json" in data:
        text = _json(data["application/json"])
    if text is not None:
        yield Text(text=clean(cut_text(text, budget_tokens)))
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            yield Image(media_type=kind, data=decoded(data[kind]))
            return


# text


def _text(value: Any, label: str, budget_tokens: int) -> str:
    if value is None or isinstance(value, bool | int | float | complex):
        return str(value)
    if isinstance(value, RunResult | Call):
        return str(value)
    if isinstance(value, Message):
        return value.text
    if isinstance(value, bytes | bytearray):
        return cut_text(_decoded_text(bytes(value), label), budget_tokens)
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
    if sampled(value):
        return sample_text(value, label, budget_tokens)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    written = _json(value) if _is_data(value) else None
    if written is not None and len(written) <= ONE_LINE_CHARS:
        written = _json(value, indent=0)
    return cut_text(written if written is not None else repr(value), budget_tokens)


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


def _json(value: Any, indent: int = 2) -> str | None:
    """The value as JSON, in one line with an indent of 0; None where it is no data."""
    try:
        return msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=indent).decode()
    except (TypeError, ValueError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    return sample_text(value, "", 300) if sampled(value) else clean(str(value))
