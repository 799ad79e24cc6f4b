"""Values that are data, as JSON: the same text in every run."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from llmproc_nb.core.message import clean
from llmproc_nb.inside.sample import sample_text, sampled

_ADDRESS = re.compile(r"(?<=\S) at 0x[0-9A-Fa-f]{6,16}(?=[>\s,)])")


def as_json(value: Any, indent: int = 2, told: Callable[[Any], Any] | None = None) -> str | None:
    """The value as JSON, in one line with an indent of 0; None where it is no data. `told` gives the form of what JSON has none for."""
    try:
        return msgspec.json.format(msgspec.json.encode(_ordered(value), enc_hook=told or _plain), indent=indent).decode()
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


def without_addresses(text: str) -> str:
    """The text of an object without its place in memory, which is another one in every run, so that a recording could never answer."""
    return _ADDRESS.sub("", text)
