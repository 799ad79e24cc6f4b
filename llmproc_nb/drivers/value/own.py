"""What an object says of itself to a model: `_ai_repr_`, or the text/llm+plain of its bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmproc_nb.core.errors import PromptError
from llmproc_nb.core.message import Image, Text, clean
from llmproc_nb.drivers.value.data import as_json
from llmproc_nb.drivers.value.picture import accepted, asked, decoded

_SPOKEN = ("text/llm+plain", "text/markdown", "text/plain")


def has_own_view(value: Any) -> bool:
    """Whether a value's type has a view for models."""
    return not isinstance(value, type) and callable(getattr(type(value), "_ai_repr_", None))


def own_view(value: Any, label: str, budget_tokens: int) -> tuple[Text | Image, ...] | None:
    """What `_ai_repr_` gives, or the text/llm+plain of a bundle, however long; None where the type has neither.

    `label` is what errors call the value. Raises PromptError where it has a view that a model cannot read.
    """
    ask = getattr(type(value), "_ai_repr_", None)
    if not has_own_view(value) or ask is None:
        return _spoken_bundle(value)
    data = asked(lambda: ask(value, **accepted(ask, {"budget_tokens": budget_tokens})), f"{label}._ai_repr_")
    if isinstance(data, str):
        return (Text(text=clean(data)),)
    parts = tuple(_view_parts(data)) if isinstance(data, Mapping) else ()
    if not parts:
        raise PromptError(
            f"{label}._ai_repr_ gave nothing that a model reads", place="prompt", right="text/plain, JSON, PNG and JPEG are read"
        )
    return parts


def _spoken_bundle(value: Any) -> tuple[Text, ...] | None:
    ask = getattr(type(value), "_repr_mimebundle_", None)
    if isinstance(value, type) or not callable(ask):
        return None
    try:
        data = ask(value, **accepted(ask, {"include": {"text/llm+plain"}, "exclude": None}))
    except Exception:  # a view made for screens may need what is not there; the value has other forms
        return None
    data = data[0] if isinstance(data, tuple) and data else data
    text = data.get("text/llm+plain") if isinstance(data, Mapping) else None
    return (Text(text=clean(text)),) if isinstance(text, str) else None


def _view_parts(data: Mapping[str, Any]) -> Iterator[Text | Image]:
    """The best text of a bundle, and its picture."""
    text = next((data[kind] for kind in _SPOKEN if isinstance(data.get(kind), str)), None)
    if text is None and "application/json" in data:
        text = as_json(data["application/json"])
    if text is not None:
        yield Text(text=clean(text))
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            yield Image(media_type=kind, data=decoded(data[kind]))
            return
