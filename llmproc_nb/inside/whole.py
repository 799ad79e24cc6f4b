"""Frames, series and arrays whole: as text in pieces, of which none is long. Not here: a sample of them (sample).

The libraries are not imported: a type's own module names them, and the values' own methods do the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproc_nb.inside.sample import array_head, kind_of

PAGE_ROWS = 50
SAID_TOKENS = 800
"""How long the sample is that stands beside the rows."""
WHOLE_TOKENS = 4000
"""How long the sample is that stands alone."""
ROWS_AT_ONCE = 10_000
VALUES_AT_ONCE = 1_000_000


def pieces(value: Any) -> Iterator[str]:
    """The rows of a frame, series or index as CSV, the names of the columns in line 1; of an array its values, as nested lists."""
    kind = kind_of(value)
    if kind == "array":
        yield f"{array_head(value)}, all values:\n"
        yield from _array(value)
    elif hasattr(value, "iloc"):
        yield from _rows(value, len(value.columns) if kind == "frame" else 1)
    else:
        yield from _index(value)


def _rows(value: Any, columns: int) -> Iterator[str]:
    step = max(1, min(ROWS_AT_ONCE, VALUES_AT_ONCE // max(1, columns)))
    for at in range(0, max(1, len(value)), step):
        yield _flat(value.iloc[at : at + step]).to_csv(header=at == 0, lineterminator="\n")


def _index(index: Any) -> Iterator[str]:
    for at in range(0, max(1, len(index)), ROWS_AT_ONCE):
        yield index[at : at + ROWS_AT_ONCE].to_frame(index=False).to_csv(header=at == 0, index=False, lineterminator="\n")


def _flat(part: Any) -> Any:
    """Some rows with the arrays and the like in their cells written out: their own text leaves out what is in the middle."""
    columns = [part.iloc[:, at] for at in range(part.shape[1])] if hasattr(part, "columns") else [part]
    if not any(map(_nests, columns)):
        return part
    return part.apply(_written_column) if hasattr(part, "columns") else _written_column(part)


def _nests(column: Any) -> bool:
    plain = getattr(column.dtype, "kind", "O") != "O" or column.dtype.name in ("str", "string", "category")
    return not plain and any(map(_is_nested, column))


def _written_column(column: Any) -> Any:
    return column.map(lambda cell: written(cell) if _is_nested(cell) else cell) if _nests(column) else column


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | tuple | dict) or (not isinstance(value, str) and kind_of(value) is not None)


def written(value: Any) -> str:
    """The text of a value with whatever it holds, to the last value."""
    if isinstance(value, float | int | str):  # most are
        return repr(value)
    kind = kind_of(value)
    if kind is not None:
        return "".join(_array(value) if kind == "array" else pieces(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {written(item)}" for key, item in value.items()) + "}"
    if type(value) in (list, tuple):
        before, after = "[]" if isinstance(value, list) else ("(", ",)" if len(value) == 1 else ")")
        return before + ", ".join(map(written, value)) + after
    return repr(value)


def _array(array: Any) -> Iterator[str]:
    """The values of an array, each row of it on a line of its own."""
    size, rows = int(array.size), array.shape[0] if array.ndim else 0
    if size <= 1 or array.ndim == 0:
        yield written(array.tolist())
    elif size // rows <= VALUES_AT_ONCE or array[0].ndim == array.ndim:
        step, gap = max(1, VALUES_AT_ONCE // max(1, size // rows)), ", " if array.ndim == 1 else ",\n "
        yield "["
        for at in range(0, rows, step):
            yield (gap if at else "") + gap.join(map(written, array[at : at + step].tolist()))
        yield "]"
    else:
        for at in range(rows):
            yield "[" if at == 0 else ",\n "
            yield from _array(array[at])
        yield "]"
