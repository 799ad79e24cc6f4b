"""Variables that go in and come out, and what is told of them: frames and arrays as bytes, anything else as plain JSON data."""

from __future__ import annotations

import json
from typing import Any

from llmproc_nb.inside import passing
from llmproc_nb.inside.bundle import clean_text

SAID_CHARS = 200
MOST_OUT = 1 << 29
"""What the other side takes of one variable."""


def read(kind: str, data: bytes) -> Any:
    """The value that came in."""
    return json.loads(data) if kind == "json" else passing.unpacked(data)


def written(name: str, value: Any) -> tuple[str, bytes]:
    """The value that goes out: its kind and its bytes. Raises Unfit where it could not arrive as it is."""
    made = passing.packed(value, name, MOST_OUT)
    return ("frame", made) if isinstance(made, bytes) else ("json", json.dumps(made, allow_nan=False).encode())


def described(name: str, value: Any) -> dict[str, str]:
    """A variable by name, type and a few words. Only types of Python's own are asked for their text: code of a cell could hang there."""
    kind = type(value)
    said = ""
    if kind in (bool, int, float, complex, type(None)):
        said = repr(value) if kind is not int or abs(value) < 10**50 else "a large number"
    elif kind in (str, bytes):
        said = repr(value[:SAID_CHARS])
    elif kind in (list, tuple, dict, set, frozenset):
        said = f"{len(value)} item{'s' * (len(value) != 1)}"
    elif kind.__module__.partition(".")[0] in ("pandas", "numpy"):
        shape = getattr(value, "shape", None)
        said = " × ".join(str(size) for size in shape) if type(shape) is tuple else ""
    elif kind.__name__ == "module":
        said = str(getattr(value, "__name__", ""))
    return {"name": clean_text(name)[:SAID_CHARS], "kind": clean_text(kind.__name__)[:SAID_CHARS], "said": clean_text(said)[:SAID_CHARS]}
