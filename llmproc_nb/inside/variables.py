"""Variables that go in and come out: frames as the bytes of an Arrow stream, anything else as plain JSON data."""

from __future__ import annotations

import io
import json
import math
from typing import Any

from llmproc_nb.inside.bundle import clean_text

SAID_CHARS = 200
NUMPY = b"\x93NUMPY"


def read(kind: str, data: bytes) -> Any:
    """The value that came in."""
    if kind == "json":
        return json.loads(data)
    if data[: len(NUMPY)] == NUMPY:
        import numpy

        return numpy.load(io.BytesIO(data), allow_pickle=False)
    import pyarrow

    with pyarrow.ipc.open_stream(pyarrow.py_buffer(data)) as stream:
        return stream.read_all().to_pandas()


def written(name: str, value: Any) -> tuple[str, bytes]:
    """The value that goes out: its kind and its bytes. Raises TypeError where it could not arrive as it is."""
    if type(value).__name__ == "Series" and hasattr(value, "to_frame"):
        value = value.to_frame()
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) and not value.dtype.hasobject:
        import numpy

        sink_of_array = io.BytesIO()
        numpy.save(sink_of_array, value, allow_pickle=False)
        return "frame", sink_of_array.getvalue()
    if type(value).__name__ == "DataFrame" and hasattr(value, "to_csv"):
        import pyarrow

        table = pyarrow.Table.from_pandas(value)
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return "frame", sink.getvalue().to_pybytes()
    return "json", json.dumps(_plain(name, value), allow_nan=False).encode()


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


def _plain(name: str, value: Any, depth: int = 100) -> Any:
    if not depth:
        raise TypeError(f"{name} is nested more than 100 deep")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{name} is {value}, which plain data has no word for: a frame or an array has")
        return float(value)
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(f"{name}[{key!r}]", item, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(f"{name}[{at}]", item, depth - 1) for at, item in enumerate(value)]
    if type(value).__module__ == "numpy" and not getattr(value, "shape", (1,)) and hasattr(value, "item"):
        return _plain(name, value.item(), depth - 1)
    kind = f"{type(value).__name__}{' whose keys are no texts' if isinstance(value, dict) else ''}"
    raise TypeError(f"{name} is of type {kind}: only pandas frames, arrays and plain JSON data can be taken out")
