"""Values on their way into a sandbox and out of it: frames as Arrow streams, all else as plain JSON data. Nothing is ever unpickled."""

from __future__ import annotations

from typing import Any

import msgspec

from llmproc_nb.core.errors import ToolError

PLAIN = "frames and plain data (texts, numbers, lists, dicts) can pass"


def packed(value: Any, name: str) -> Any:
    """The bytes of an Arrow stream for a frame or series, the value itself where JSON can say it. Raises ToolError."""
    if hasattr(value, "to_frame") and not hasattr(value, "columns"):  # a series or an index
        value = value.to_frame()
    if hasattr(value, "columns") and hasattr(value, "to_parquet"):
        return _stream(value, name)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # an array, or one of its scalars
        value = value.tolist()
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ToolError(f"{name} is a {type(value).__name__}, which is no plain data ({error})", place="sandbox", right=PLAIN) from None


def unpacked(value: Any) -> Any:
    """A frame for the bytes of an Arrow stream, anything else as it is. Raises ToolError for bytes that are no such stream."""
    if not isinstance(value, bytes | bytearray | memoryview):
        return value
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(value) as stream:
            table = stream.read_all()
        table.validate(full=True)  # the bytes come out of a sandbox: its code may have written anything
        return table.to_pandas()
    except (pa.ArrowException, ValueError, TypeError, OSError) as error:
        raise ToolError(f"what came is no whole frame: {error}", place="sandbox", right=PLAIN) from None


def _stream(frame: Any, name: str) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    try:
        table = pa.Table.from_pandas(frame)
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        step = "Give its columns one type each, or leave them out."
        raise ToolError(f"{name} cannot go through Arrow: {error}", place="sandbox", right=PLAIN, step=step) from None
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
