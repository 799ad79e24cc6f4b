"""Values on their way into a sandbox and out of it: frames as Arrow streams, arrays as NumPy writes them, all else as plain JSON data.

Nothing is ever unpickled, and nothing arrives as something else than it was.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec

from llmproc_nb.core.errors import ToolError

MOST_BYTES = 4 << 30
"""What a frame may take here, about."""
OBJECT_BYTES, VALUE_BYTES = 120, 16
NUMPY = b"\x93NUMPY"
PLAIN = "frames, arrays and plain data (texts, numbers, lists, dicts of texts) can pass as they are"


def packed(value: Any, name: str) -> Any:
    """The bytes of an Arrow stream for a frame (a series is a frame of one column), of an .npy file for an array, else plain data.

    Raises ToolError where a value could not arrive as it is.
    """
    if hasattr(value, "to_frame") and not hasattr(value, "columns"):  # a series or an index
        value = value.to_frame()
    if hasattr(value, "columns") and hasattr(value, "to_parquet"):
        return _stream(value, name)
    if hasattr(value, "dtype") and getattr(value, "shape", None):
        return _npy(value, name)
    if hasattr(value, "dtype") and hasattr(value, "item"):
        value = value.item()
    try:
        made = msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError, OverflowError):
        made = None
    if made != value or (made is None and value is not None):  # NaN, tuples, bytes, dates, keys that are no texts
        raise ToolError(f"{name}, a {type(value).__name__}, would not arrive as it is", place="sandbox", right=PLAIN)
    return made


def unpacked(value: Any) -> Any:
    """A frame or an array for the bytes of one, anything else as it is. Raises ToolError for bytes that are neither."""
    if not isinstance(value, bytes | bytearray | memoryview):
        return value
    import pyarrow as pa

    try:
        if bytes(value[: len(NUMPY)]) == NUMPY:
            return _array(bytes(value))
        if any(_packed_small(message) for message in pa.ipc.MessageReader.open_stream(value)):
            raise ValueError("it is compressed, which no sandbox does")
        with pa.ipc.open_stream(value) as stream:
            table = stream.read_all()
        table.validate(full=True)  # the bytes come out of a sandbox: its code may have written anything
        needed = sum(_cost(chunk) for column in table.columns for chunk in column.chunks)
        if needed > MOST_BYTES:
            raise ValueError(f"it would take about {needed / 1e9:.0f} GB of memory")
        return table.to_pandas()
    except Exception as error:  # foreign code, which raises whatever it comes upon in what hostile code has written
        raise ToolError(f"what came is no whole frame or array: {error}", place="sandbox", right=PLAIN) from None


def _npy(array: Any, name: str) -> bytes:
    import io

    import numpy as np

    if array.dtype.hasobject:
        raise ToolError(f"{name} is an array of objects, which would not arrive as it is", place="sandbox", right=PLAIN)
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def _array(data: bytes) -> Any:
    """The array of an .npy file. What its head says is checked first: it could claim any size."""
    import io

    import numpy as np

    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.itemsize * math.prod(shape) != len(data) - file.tell():
        raise ValueError("its head and its content do not fit together")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C").copy()


def _packed_small(message: Any) -> bool:
    """Whether the data of a message is compressed: a few bytes could become any number of them. It is a flatbuffer; no library reads it."""
    data = message.metadata.to_pybytes()
    kind, head = _field(data, struct.unpack_from("<I", data)[0], 1), _field(data, struct.unpack_from("<I", data)[0], 2)
    if not kind or not head or data[kind] not in (_BATCH, _DICTIONARY):
        return False
    batch = head + struct.unpack_from("<I", data, head)[0]
    if data[kind] == _DICTIONARY:
        inner = _field(data, batch, 1)
        batch = inner + struct.unpack_from("<I", data, inner)[0]
    return bool(_field(data, batch, 3))


_DICTIONARY, _BATCH = 2, 3


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 where it has none."""
    names = table - struct.unpack_from("<i", data, table)[0]
    place = 4 + 2 * number
    found = struct.unpack_from("<H", data, names + place)[0] if place < struct.unpack_from("<H", data, names)[0] else 0
    return table + found if found else 0


def _cost(array: Any) -> int:
    """About how many bytes the values of an array take in pandas. Empty ones take none in Arrow, however many there are."""
    import pyarrow as pa

    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        return len(array) * VALUE_BYTES + _cost(array.dictionary)
    if pa.types.is_run_end_encoded(kind):
        return len(array) * OBJECT_BYTES
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        return len(array) * OBJECT_BYTES + sum(_cost(array.field(at)) for at in range(kind.num_fields))
    if pa.types.is_nested(kind):
        return len(array) * OBJECT_BYTES + _cost(array.values)
    return len(array) * (VALUE_BYTES if pa.types.is_primitive(kind) or pa.types.is_null(kind) else OBJECT_BYTES)


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
