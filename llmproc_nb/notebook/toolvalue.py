"""What a tool of the notebook returned, in the form a model reads. Not here: values in prompts (values)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproc_nb.core.call import Call
from llmproc_nb.core.errors import PromptError
from llmproc_nb.core.message import Document, Image, Message, Text, clean
from llmproc_nb.core.result import RunResult
from llmproc_nb.core.tool import Paged
from llmproc_nb.inside.sample import cut_text, is_frame, sample_text, sampled
from llmproc_nb.notebook.fit import SAMPLE_TOKENS, Fit
from llmproc_nb.notebook.picture import picture
from llmproc_nb.notebook.values import as_json, own_view

PAGE_ROWS = 50
ROWS_SAID_TOKENS = 800
ROWS_AT_ONCE = 10_000
_PARTS = (Text, Image, Document)


def tool_value(value: Any, budget_tokens: int = 2 * SAMPLE_TOKENS) -> Any:
    """What a tool of the notebook returned, in a form `result_parts` takes: frames, arrays, figures and objects with a view of their own
    become text or parts, within the budget; everything else is returned unchanged."""
    if value is None or isinstance(value, (str, bytes, bytearray, bool, int, float, BaseException, *_PARTS)):
        return value
    shown = _special(value, budget_tokens)
    if shown is not None:
        return rows(value, sample_text(value, "", ROWS_SAID_TOKENS)) if is_frame(value) and len(value) > PAGE_ROWS else shown
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return _sequence(value, budget_tokens)
    if isinstance(value, dict):
        return {key: _inner(item, budget_tokens) for key, item in value.items()}
    return value


def rows(frame: Any, said: str) -> Paged:
    """A frame as what is said of it, and all its rows as CSV."""

    def pieces() -> Iterator[str]:
        for at in range(0, len(frame), ROWS_AT_ONCE):
            yield frame.iloc[at : at + ROWS_AT_ONCE].to_csv(header=at == 0, lineterminator="\n")

    return Paged(said=said, pieces=pieces, page_lines=PAGE_ROWS)


def _special(value: Any, budget_tokens: int) -> Any:
    """A value with a form of its own for models; None for any other."""
    if isinstance(value, RunResult | Call):
        return str(value)
    if isinstance(value, Message):
        return value.text
    try:
        own = own_view(value, type(value).__name__, Fit(budget_tokens))
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
    return Text(text=clean(item if isinstance(item, str) else as_json(item) or repr(item)))


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
