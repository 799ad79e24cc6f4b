"""Variables that go in and come out: frames as the bytes of an Arrow stream, anything else as plain JSON data."""

from __future__ import annotations

import json
import math
from types import ModuleType
from typing import Any

MOST_NAMES, MOST_CHARS = 1000, 80


def read(kind: str, data: bytes) -> Any:
    """The value that came in."""
    if kind == "json":
        return json.loads(data)
    import pyarrow

    with pyarrow.ipc.open_stream(pyarrow.py_buffer(data)) as stream:
        return stream.read_all().to_pandas()


def written(name: str, value: Any) -> tuple[str, bytes]:
    """The value that goes out: its kind and its bytes. Raises TypeError where it is neither a frame nor plain data."""
    if type(value).__name__ == "DataFrame" and hasattr(value, "to_csv"):
        import pyarrow

        table = pyarrow.Table.from_pandas(value)
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return "frame", sink.getvalue().to_pybytes()
    return "json", json.dumps(_plain(name, value), allow_nan=False).encode()


def listed(space: dict[str, Any], hidden: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The variables that cells made: name, type, and a few words. No method of a value is called but those of plain and known types."""
    made = {name: value for name, value in tuple(space.items()) if not name.startswith("_") and hidden.get(name, space) is not value}
    names = [name for name, value in made.items() if type(value) is not ModuleType]
    return [(name[:MOST_CHARS], type(space[name]).__name__[:MOST_CHARS], _words(space[name])) for name in sorted(names)[:MOST_NAMES]]


def _words(value: Any) -> str:
    kind = type(value)
    if kind.__module__.partition(".")[0] in ("numpy", "pandas") and kind.__name__ in ("DataFrame", "Series", "ndarray"):
        return " × ".join(f"{length:,}" for length in value.shape)
    if kind in (bool, int, float, complex, type(None)):
        return repr(value)[:MOST_CHARS] if kind is not int or value.bit_length() < 1000 else f"{value.bit_length():,} bits"
    if kind in (str, bytes):
        return repr(value[:MOST_CHARS])[:MOST_CHARS]
    if kind in (list, tuple, dict, set, frozenset):
        return f"{len(value):,} item{'' if len(value) == 1 else 's'}"
    return kind.__module__[:MOST_CHARS] if kind.__module__ != "builtins" else ""


def _plain(name: str, value: Any, depth: int = 100) -> Any:
    if not depth:
        raise TypeError(f"{name} is nested more than 100 deep")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(f"{name}[{key!r}]", item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{name}[{at}]", item, depth - 1) for at, item in enumerate(value)]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _plain(name, value.tolist(), depth - 1)
    raise TypeError(f"{name} is of type {type(value).__name__}: only pandas frames and plain JSON data can be taken out")
