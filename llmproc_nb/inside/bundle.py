"""A bundle of representations as clean JSON data, whatever an object gave: strings for names, base64 for bytes, nothing that runs."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from typing import Any

DEPTH = 40
NO_SCRIPTS = "scripts of a sandbox do not run here"
LEFT_OUT = (
    "application/javascript",
    "text/javascript",
    "application/vnd.jupyter.widget-view+json",
    "application/vnd.jupyter.widget-state+json",
)


def clean_bundle(data: Any) -> dict[str, Any]:
    """A bundle by MIME type. What would run in the notebook, or live in it, is left out; something is always left."""
    if not isinstance(data, dict):
        return {"text/plain": f"[a bundle that is no dict but {type(data).__name__}]"}
    kept = {str(mime): _value(str(mime), value) for mime, value in data.items() if str(mime).lower() not in LEFT_OUT and value is not None}
    kept = {clean_text(mime): value for mime, value in kept.items()}
    left_out = sorted(str(mime) for mime in data if str(mime).lower() in LEFT_OUT)
    return with_note(kept, left_out) or {"text/plain": f"[{clean_text(', '.join(left_out)) or 'nothing'}: not shown here]"}


def with_note(kept: dict[str, Any], left_out: Iterable[str]) -> dict[str, Any]:
    """A bundle whose text says that it was a widget, if one was left out."""
    words = kept.get("text/plain")
    if not isinstance(words, str) or not any("widget-view" in mime.lower() for mime in left_out):
        return kept
    return {**kept, "text/plain": f"{words}\n[a widget is not shown: {NO_SCRIPTS}]"}


def _value(mime: str, value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, str):
        return clean_text(value)
    return clean_json(value) if mime.endswith("json") else clean_text(str(value))


def clean_text(text: str) -> str:
    """The text without halves of surrogate pairs, which are no Unicode."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else str(text)


def clean_json(value: Any, depth: int = DEPTH) -> Any:
    """Plain JSON data; what is none becomes its text."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(int(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth and isinstance(value, dict):
        return {clean_text(str(key)): clean_json(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [clean_json(item, depth - 1) for item in value]
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    return clean_text(str(value))
