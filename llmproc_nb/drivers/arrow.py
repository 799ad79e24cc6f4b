"""Values on their way into a sandbox and out of it: frames as Arrow streams, arrays as NumPy writes them, all else as plain JSON data.

Here: what hostile bytes are checked for before they are read. Not here: what passes, and how (inside.passing). Nothing is ever unpickled.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from llmproc_nb.core.errors import ToolError
from llmproc_nb.inside import passing

MOST_BYTES = 4 << 30
"""What a frame may take here, about."""
OBJECT_BYTES, VALUE_BYTES = 120, 16


def packed(value: Any, name: str) -> Any:
    """The bytes of a frame, a series, an array or a number of NumPy's, else a copy of plain data.

    Raises ToolError where a value could not arrive as it is.
    """
    try:
        return passing.packed(value, name)
    except passing.Unfit as error:
        raise ToolError(error.found, place="sandbox", right=error.right) from None


def unpacked(value: Any) -> Any:
    """A frame, a series, an array or a number for the bytes of one, anything else as it is. Raises ToolError for bytes that are neither."""
    if not isinstance(value, bytes | bytearray | memoryview):
        return value
    import pyarrow as pa

    try:
        if bytes(value[: len(passing.NUMPY)]) == passing.NUMPY:
            return _array(bytes(value))
        passing.prepare()
        if any(_packed_small(message) for message in pa.ipc.MessageReader.open_stream(value)):
            raise ValueError("it is compressed, which no sandbox does")
        with pa.ipc.open_stream(value) as stream:
            table = stream.read_all()
        table.validate(full=True)  # the bytes come out of a sandbox: its code may have written anything
        objects = passing.said_of(table).get("objects", {})
        needed = sum(_cost(chunk) for column in table.columns for chunk in column.chunks) + table.num_rows * len(objects) * OBJECT_BYTES
        if needed > MOST_BYTES:
            raise ValueError(f"it would take about {needed / 1e9:.0f} GB of memory")
        return passing.restored(table)
    except Exception as error:  # foreign code, which raises whatever it comes upon in what hostile code has written
        raise ToolError(f"what came is no whole frame or array: {error}", place="sandbox", right=passing.PLAIN) from None


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

    if isinstance(array, pa.ExtensionArray):  # periods, intervals
        return _cost(array.storage)
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
