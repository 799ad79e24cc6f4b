"""What a tool returned, in the form a model reads: nothing of it is cut that a process which reads fds could not page through.

Not here: values in prompts, which have a budget (the notebook).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from llmproc_nb.core.call import Call
from llmproc_nb.core.errors import PromptError
from llmproc_nb.core.message import Document, Image, Message, Text, clean
from llmproc_nb.core.result import RunResult
from llmproc_nb.core.tool import Paged, Shown, as_text, result_parts
from llmproc_nb.drivers.value.data import as_json
from llmproc_nb.drivers.value.own import own_view
from llmproc_nb.drivers.value.picture import picture
from llmproc_nb.inside.sample import cut_text, kind_of, sample, sample_text
from llmproc_nb.inside.whole import PAGE_ROWS, SAID_TOKENS, WHOLE_TOKENS, pieces

Inline: TypeAlias = Callable[[Paged], str]
"""The words for a value that stands within other data."""
OWN_TOKENS = 2000
"""The budget that an object which has a view of its own is told."""
_PARTS = (Text, Image, Document)
_PLAIN = (str, bytes, bytearray, bool, int, float, type(None))


def returned(value: Any, inline: Inline) -> tuple[Shown, ...]:
    """What a tool returned, as parts; what may be too long is still to be paged, that within other data by `inline`."""
    return result_parts(tool_value(value, inline), partial(_told, inline=inline))


def prompt_value(value: Any) -> Any:
    """A value that is said to a process: frames, arrays, figures and objects with a view of their own as text or parts, within a budget."""
    made = tool_value(value)
    if isinstance(made, list | tuple):
        return type(made)(Text(text=_direct(part)) if isinstance(part, Paged) else part for part in made)
    return _direct(made) if isinstance(made, Paged) else made


def _direct(value: Paged) -> str:
    return value.direct


def tool_value(value: Any, inline: Inline = _direct) -> Any:
    """What a tool returned, in a form `result_parts` takes: frames, arrays, figures and objects with a view of their own become text,
    parts or what can be paged; everything else is returned unchanged."""
    if isinstance(value, (*_PLAIN, BaseException, *_PARTS)):
        return value
    try:
        made = _sequence(value, inline) if _is_sequence(value) else _inner(value, inline) if isinstance(value, dict) else _special(value)
    except RecursionError:  # it holds itself
        return value
    return value if made is None else made


def _special(value: Any) -> Any:
    """A value with a form of its own for models: text, parts in a list, or what can be paged; None for any other."""
    if isinstance(value, (*_PLAIN, *_PARTS, Paged)):
        return None
    if isinstance(value, RunResult | Call):
        return str(value)
    if isinstance(value, Message):
        return value.text
    try:
        own = own_view(value, type(value).__name__, OWN_TOKENS)
        if own is not None:
            parts = [_long(part.text) if isinstance(part, Text) else part for part in own]
            return parts[0] if len(parts) == 1 else [Text(text=part) if isinstance(part, str) else part for part in parts]
        return _sampled(value) if kind_of(value) is not None else picture(value)
    except PromptError as error:  # the tool has run: a view that fails must not make it a failure
        return _long(f"{clean(repr(value))}\n[{error.found}]")


def _long(text: str) -> str | Paged:
    short = cut_text(text, WHOLE_TOKENS)
    return text if short is text else Paged(pieces=lambda: (text,), page_lines=None, direct=short)


def _sampled(value: Any) -> str | Paged:
    """A frame, series or array: all of it where that is little, else what is said of it and all of it to page through."""
    kind, whole = kind_of(value), partial(pieces, value)
    if kind == "frame" and len(value) > PAGE_ROWS:
        said = sample_text(value, "", SAID_TOKENS)
        return Paged(pieces=whole, said=said, page_lines=PAGE_ROWS, direct=said)
    direct, complete = sample(value, "", WHOLE_TOKENS)
    if kind == "array":
        return Paged(pieces=whole, page_lines=None, direct=direct, complete=complete)
    return Paged(pieces=whole, said=sample_text(value, "", SAID_TOKENS), page_lines=PAGE_ROWS, direct=direct, complete=complete)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) and not hasattr(value, "_fields")


def _sequence(value: list[Any] | tuple[Any, ...], inline: Inline) -> Any:
    """A list with its items in their own form, or, where one of them is a picture, a list of parts."""
    made = [None if _is_sequence(item) or isinstance(item, dict) else _special(item) for item in value]
    if not any(isinstance(new, list) or isinstance(item if new is None else new, _PARTS) for new, item in zip(made, value, strict=True)):
        return _like(value, [_inner(item, inline) if new is None else _words(new, inline) for new, item in zip(made, value, strict=True)])
    parts: list[Shown] = []
    for new, item in zip(made, value, strict=True):
        parts += new if isinstance(new, list) else [_as_part(item if new is None else new, inline)]
    return parts


def _like(value: list[Any] | tuple[Any, ...], made: list[Any]) -> Any:
    """The items as a list or tuple, as they were; the value itself where each is as it was."""
    if all(new is old for new, old in zip(made, value, strict=True)):
        return value
    return tuple(made) if isinstance(value, tuple) else made


def _as_part(item: Any, inline: Inline) -> Shown:
    if isinstance(item, (*_PARTS, Paged)):
        return item  # type: ignore[no-any-return]
    if isinstance(item, str):
        return Text(text=clean(item))
    plain = _inner(item, inline)
    return Text(text=clean(as_json(plain, told=partial(_told, inline=inline)) or repr(plain)))


def _inner(item: Any, inline: Inline) -> Any:
    """A value inside of other data: frames and arrays as text, pictures by a note, for JSON holds no pictures."""
    if isinstance(item, _PLAIN):
        return item
    if isinstance(item, dict):
        return {key: _inner(deep, inline) for key, deep in item.items()}
    if _is_sequence(item):
        return _like(item, [_inner(deep, inline) for deep in item])
    shown = item if isinstance(item, (*_PARTS, Paged)) else _special(item)
    return item if shown is None else _words(shown, inline)


def _told(item: Any, *, inline: Inline) -> Any:
    """The form in JSON of a value that JSON has none for."""
    made = _inner(item, inline)
    return as_text(item) if made is item else made


def _words(shown: Any, inline: Inline) -> str:
    """The text of a value with a form of its own."""
    if isinstance(shown, list):
        return "\n".join(_words(part, inline) for part in shown if isinstance(part, Text | Paged)) or _words(shown[0], inline)
    if isinstance(shown, Paged):
        return shown.direct if shown.complete else inline(shown)
    if isinstance(shown, Image | Document):
        return f"[{type(shown).__name__.lower()} left out: return it by itself or in a list]"
    return shown.text if isinstance(shown, Text) else str(shown)
