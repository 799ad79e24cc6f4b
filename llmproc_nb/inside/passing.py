"""What passes between a notebook and a sandbox, as it is or not at all: plain data, NumPy's arrays and numbers, pandas frames and series.

Both sides pack and read by these rules, and kernels that know nothing of this project get this text as code: it imports nothing of it.
One thing arrives as another: a number of NumPy's in a list or a dict as the equal one of Python's own, for results are full of them.
What Arrow has no place for (a series, objects in a column, kinds of labels) is said in the metadata of its schema. What Arrow would change
is looked for by types, in columns of objects by values.
"""

from __future__ import annotations

import importlib
import io
import json
import math
import sys
import warnings
from typing import Any

KEY = b"llmproc"
NUMPY = b"\x93NUMPY"
DEEPEST = 100
MOST_BYTES = (1 << 32) - 1
"""What one message can have."""
LABELS = ("object", "str", "int64", "float64", "bool")
NUMBERS = "biufcMm"
NUMBERED = "biuf"
"""The kinds of NumPy's types that a single value may be of, and those of them that are one number."""
PLAIN = "frames, series, arrays and plain data (texts, numbers, lists, dicts of texts) can pass as they are"
AS_TEXT = "a text can pass, as of str() or .isoformat(), or a column of a frame"
SAYS = {
    "tuple": "a list can pass, as of list()",
    "set": "a list can pass, as of sorted()",
    "frozenset": "a list can pass, as of sorted()",
    "bytes": "process.sandbox.write_file() and read_file() take bytes",
    "date": AS_TEXT,
    "time": AS_TEXT,
    "datetime": AS_TEXT,
    "timedelta": AS_TEXT,
    "Timestamp": AS_TEXT,
    "Timedelta": AS_TEXT,
    "Period": AS_TEXT,
    "NaTType": "None can pass",
    "Decimal": AS_TEXT,
    "complex": "an array of it can pass",
    "MaskedArray": "its .filled(value) can pass, and its .mask",
    "matrix": "numpy.asarray() of it can pass",
    "recarray": "numpy.asarray() of it, or pandas.DataFrame() of it, can pass",
}


class Unfit(TypeError):
    """A value that would not arrive as it is: what is wrong with it, and what would be right."""

    def __init__(self, found: str, right: str = PLAIN) -> None:
        self.found, self.right = found, right
        super().__init__(f"{found}; {right}")


# out of one side


def packed(value: Any, name: str, most: int = MOST_BYTES) -> Any:
    """Bytes of an Arrow stream for a frame, a series or a number of NumPy's, of an .npy file for an array, else a copy of plain data.

    Raises Unfit where it would arrive as something else, or has more than `most` bytes.
    """
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and type(value) in (pandas.DataFrame, pandas.Series):
        return _stream(value, name, most)
    if numpy is not None and type(value) is numpy.ndarray:
        return _npy(value, name, most)
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in NUMBERS:
        return _number(value)
    if pandas is not None and isinstance(value, pandas.Index | pandas.api.extensions.ExtensionArray):
        raise Unfit(f"{name} is {a_kind(value)}, which is neither frame nor array", "pandas.Series() of it can pass")
    return _plain(name, value)


def _npy(array: Any, name: str, most: int) -> bytes:
    import numpy

    kind = array.dtype
    if kind.hasobject:
        right = "give it one type of numbers or texts, as in .astype(str), or make it a list by .tolist()"
        raise Unfit(f"{name} is an array of objects, which would not arrive as it is", right)
    if kind.metadata or numpy.lib.format.descr_to_dtype(numpy.lib.format.dtype_to_descr(kind)) != kind:
        raise Unfit(f"{name} is an array of the type {kind}, which would arrive as another", "fields without titles and gaps can pass")
    _fits(array.nbytes, name, most)
    sink = io.BytesIO()
    numpy.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def _number(value: Any) -> bytes:
    import pyarrow

    table = pyarrow.table({"number": pyarrow.array([value.tobytes()], pyarrow.binary())})
    return _written(_saying(table, {"number": value.dtype.str}))


def _stream(value: Any, name: str, most: int) -> bytes:
    import pyarrow

    _fits(int(value.memory_usage().sum() if hasattr(value, "columns") else value.memory_usage()), name, most)
    _check_names(value, name)
    try:
        table, said = _table(value)
        _check(value, name, table, said)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError, RecursionError, AttributeError, KeyError) as error:
        raise error if isinstance(error, Unfit) else _blamed(value, name, error) from None
    _fits(table.nbytes, name, most)
    return _written(table)


def _fits(count: int, name: str, most: int) -> None:
    if count > most - (1 << 20):
        raise Unfit(f"{name} has {count / 1e9:.1f} GB, and at most {most / 1e9:.1f} GB can pass at once", "take a part of it")


def _written(table: Any) -> bytes:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        if table.num_rows:
            stream.write_table(table)
        else:  # a table without rows would go without its categories
            stream.write_batch(pyarrow.RecordBatch.from_arrays([one.combine_chunks() for one in table.columns], schema=table.schema))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _saying(table: Any, said: dict[str, Any]) -> Any:
    return table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: json.dumps(said).encode()}) if said else table


def _table(value: Any) -> tuple[Any, dict[str, Any]]:
    """The Arrow table of a frame or a series, and what is said beside it."""
    import pyarrow

    said: dict[str, Any] = {}
    frame = value
    if not hasattr(value, "columns"):
        plain = _is_label(value.name)
        said["series"] = {"name": value.name} if plain else {}
        frame = value.to_frame(name=str(value.name) if plain else value.name)
    else:
        said |= _said_of_labels(value.columns)
        frame = value.copy(deep=False)
        if "labels" in said and not (frame.columns.is_unique and all(type(label) is str for label in said["labels"])):
            frame.columns = [str(at) for at in range(len(frame.columns))]  # Arrow knows texts only, each once
    frame.attrs = {}
    for place in ("index", "columns"):
        labels = getattr(frame, place)
        if hasattr(type(labels), "inferred_freq") and labels.freqstr:  # those of months and the like are in their type
            said[f"freq of {place}"] = labels.freqstr
    objects = [at for at, kind in enumerate(frame.dtypes) if str(kind) == "object"]
    if objects:
        said["objects"] = {str(at): any(type(one) is float for one in frame.iloc[:, at]) for at in objects}
    return _saying(pyarrow.Table.from_pandas(frame), said), said


def _said_of_labels(columns: Any) -> dict[str, Any]:
    """Labels that plain data can say; those of dates, of levels and the like are Arrow's matter."""
    pandas = sys.modules["pandas"]
    if type(columns) is pandas.RangeIndex:
        return {"range": [columns.start, columns.stop, columns.step]}
    labels = columns.tolist() if type(columns) is pandas.Index and str(columns.dtype) in LABELS else [()]
    return {"labels": labels, "dtype": str(columns.dtype)} if all(_is_label(label) for label in labels) else {}


def _is_label(label: Any) -> bool:
    return label is None or type(label) in (str, bool, int) or (type(label) is float and math.isfinite(label))


def _check_names(value: Any, name: str) -> None:
    """Raises Unfit for what Arrow would only warn of, or lose without a word."""
    labels = [value.index, value.columns] if hasattr(value, "columns") else [value.index]
    wrong = next((one for each in labels for one in each.names if one is not None and type(one) is not str), None)
    if wrong is not None:
        right = "names of texts can pass, as of .rename_axis('x')"
        raise Unfit(f"an index of {name} has a name that is no text: {wrong!r}, {a_kind(wrong)}", right)
    if len(labels) == 1:
        if not _is_label(value.name) and type(value.name).__name__ != "Timestamp" and not hasattr(value.name, "dtype"):
            right = "a text or a number can be its name, as in .rename('x')"
            raise Unfit(f"{name}'s own name is {a_kind(value.name)}: {value.name!r}", right)
    elif value.columns.dtype == object and value.columns.nlevels == 1 and "labels" not in _said_of_labels(value.columns):
        wrong = next(label for label in value.columns if not _is_label(label))
        raise Unfit(f"{name} has a column whose label is {a_kind(wrong)}: {wrong!r}", "labels of texts or numbers can pass")
    elif value.columns.nlevels > 1 and (odd := [label for label in value.columns if not _are_texts(label, value.columns.levels)]):
        right = "levels can pass that are each of texts alone or of numbers alone"
        raise Unfit(f"{name} has a column whose labels do not fit those of others: {odd[0]!r}", right)


def _are_texts(label: tuple[Any, ...], levels: Any) -> bool:
    """Whether those parts of a label are texts whose level has no type of its own."""
    return all(level.dtype != object or type(part) is str for part, level in zip(label, levels, strict=True))


def _check(value: Any, name: str, table: Any, said: dict[str, Any]) -> None:
    """Raises Unfit where the table does not say all. Types are compared by a first row, values where they are objects."""
    if not table.num_columns and len(value):
        raise Unfit(f"{name} has rows and no column", "with one column it can pass, as of df.assign(x=0)")
    first = value.iloc[:1]
    back = restored(_table(first)[0])
    if type(back) is not type(value):
        raise Unfit(f"{name} would arrive as {a_kind(back)}")
    if not hasattr(value, "columns"):
        if not _alike(value.name, back.name):
            raise Unfit(f"{name}'s own name, {value.name!r}, would arrive as {back.name!r}", "a text can be its name, as in .rename('x')")
        first, back, value = first.to_frame("0"), back.to_frame("0"), value.to_frame("0")
    elif not _same_labels(value.columns, back.columns):
        right = "labels of texts or whole numbers can pass, as of df.columns.astype(str)"
        raise Unfit(f"{name}'s column labels, {_short(value.columns)}, would arrive as {_short(back.columns)}", right)
    for label, kind, came in zip(value.columns, value.dtypes, back.dtypes, strict=True):
        if not _same_kind(kind, came):
            right = f"another type can pass, as of df[{label!r}].astype(str)"
            raise Unfit(f"{name}'s column {label!r}, of the type {kind}, would arrive as {came}", right)
    for at, nan in said.get("objects", {}).items():
        _check_objects(value.iloc[:, int(at)], _objects(table.column(int(at)), nan), name)
    index, other = first.index, back.index
    if any(str(kind) == "object" for kind in getattr(index, "dtypes", (index.dtype,))):
        index, other = value.index, restored(_table(value.iloc[:, :0])[0]).index
        same = _same_labels(index, other)
    else:
        same = _same_labels(index, other, by_value=False)
    if not same:
        right = "df.reset_index() makes it columns, and df.index.astype(str) texts"
        raise Unfit(f"{name}'s index, {_short(index)}, would arrive as {_short(other)}", right)


def _check_objects(column: Any, came: list[Any], name: str) -> None:
    for row, (one, other) in enumerate(zip(column, came, strict=True)):
        if not _alike(one, other):
            found = f"{name}'s column {column.name!r} is one of objects, its {type(one).__name__} in row {row} would not arrive as it is"
            step = f"give it one type, as in df[{column.name!r}].astype(str), or make it a list by .tolist()"
            raise Unfit(found, step)


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types, all through."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (one != one and other != other)
    if type(one) in (list, tuple):
        return len(one) == len(other) and all(_alike(*pair) for pair in zip(one, other, strict=True))
    if type(one) is dict:
        return list(one) == list(other) and all(_alike(one[key], other[key]) for key in one)
    return one is other or bool(one == other)


def _same_labels(one: Any, other: Any, *, by_value: bool = True) -> bool:
    if type(one) is not type(other) or not _alike(list(one.names), list(other.names)):
        return False
    kinds = zip(getattr(one, "dtypes", [one.dtype]), getattr(other, "dtypes", [other.dtype]), strict=True)
    if not all(_same_kind(*pair) for pair in kinds) or getattr(one, "freq", None) != getattr(other, "freq", None):
        return False
    return not by_value or _alike(one.tolist(), other.tolist())


def _same_kind(one: Any, other: Any) -> bool:
    """Whether two types of columns are the same; those of categories forget their order when they compare themselves."""
    if type(one) is not type(other) or one != other:
        return False
    return not hasattr(one, "categories") or _same_labels(one.categories, other.categories)


def _short(labels: Any) -> str:
    return " ".join(repr(labels).split())[:200]


def _blamed(value: Any, name: str, error: Exception) -> Unfit:
    """What is told of a frame that Arrow does not take: the first column that it does not take alone."""
    import pyarrow

    frame = value if hasattr(value, "columns") else value.to_frame("0")
    said = str(error)
    for at, kind in enumerate(frame.dtypes):
        try:
            with warnings.catch_warnings(action="ignore"):  # what is wrong is said here
                restored(pyarrow.Table.from_pandas(frame.iloc[:, [at]]))
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError, RecursionError, AttributeError, KeyError) as why:
            label, kinds = frame.columns[at], f"{kind} of {kind.categories.dtype}" if hasattr(kind, "categories") else kind
            found = f"{name}'s column {label!r}, of the type {kinds}, cannot pass: {why}" if hasattr(value, "columns") else ""
            right = f"give it one simple type, as in df[{label!r}].astype(str)" if found else "give it one simple type, as in .astype(str)"
            return Unfit(found or f"{name}, a series of the type {kinds}, cannot pass: {why}", right)
    return Unfit(f"{name} cannot pass: {said}", "df.reset_index() and df.columns.astype(str) make simple labels")


def _plain(name: str, value: Any, depth: int = DEEPEST) -> Any:
    """A copy of plain data. Raises Unfit."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if not depth:
        raise Unfit(f"{name} is nested more than {DEEPEST} deep")
    if kind is str:
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise Unfit(f"{name} has half a character (a surrogate) in it", "whole texts can pass")
        return value
    if kind is int:
        if not -(1 << 63) <= value < 1 << 64:
            raise Unfit(f"{name} is a whole number of more than 64 bits", "as a text it can pass, as of str()")
        return value
    if kind is float:
        if not math.isfinite(value):
            raise Unfit(
                f"{name} is {value}, which would not arrive as it is: plain data has no word for it",
                "None can pass, or an array or a column of it",
            )
        return value
    if kind is list:
        return [_plain(f"{name}[{at}]", item, depth - 1) for at, item in enumerate(value)]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise Unfit(
                    f"{name} would not arrive as it is: a key of it is no text but {a_kind(key)}", "keys of texts can pass, as of str()"
                )
        return {_plain(f"a key of {name}", key): _plain(f"{name}[{key!r:.50}]", item, depth - 1) for key, item in value.items()}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in NUMBERED and value.dtype.itemsize <= 8:
        return _plain(name, value.item(), depth)
    raise Unfit(f"{name} is {a_kind(value)}, which would not arrive as it is", _right(value))


def a_kind(value: Any) -> str:
    """The same with its article; None is None."""
    name = kind_of(value)
    return "None" if value is None else f"{'an' if name[:1].lower() in set('aeio') else 'a'} {name}"


def kind_of(value: Any) -> str:
    """The type of a value with the library it is of."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    return kind.__name__ if library in ("builtins", "__main__") else f"{library} {kind.__name__}"


def _right(value: Any) -> str:
    kind = type(value)
    if (said := SAYS.get(kind.__name__)) is not None:
        return said
    if kind.__name__ in ("DataFrame", "Series", "ndarray"):
        return "alone it can pass, not in here" if kind.__module__.partition(".")[0] in ("numpy", "pandas") else PLAIN
    if kind.__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", ()):
        return "a number of Python's own can pass in here, as of .item()"
    for base in kind.__mro__[1:-1]:
        if base.__name__ in ("DataFrame", "Series", "ndarray", "str", "int", "float", "list", "dict", "tuple"):
            return f"made a {base.__name__} it can pass" if base is not tuple else SAYS["tuple"]
    return PLAIN


# into the other side


def unpacked(data: Any) -> Any:
    """What packed bytes are, for a side that trusts them."""
    import pyarrow

    if bytes(data[: len(NUMPY)]) == NUMPY:
        import numpy

        return numpy.load(io.BytesIO(data), allow_pickle=False)
    prepare()
    with pyarrow.ipc.open_stream(pyarrow.py_buffer(data)) as stream:
        return restored(stream.read_all())


def prepare() -> None:
    """Have pandas tell Arrow of its periods and intervals, which it does when it first gives it some."""
    import pyarrow

    pandas = importlib.import_module("pandas")
    pyarrow.array(pandas.array([], dtype="period[D]"))


def said_of(table: Any) -> dict[str, Any]:
    """What is said beside a table. Raises ValueError."""
    said = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
    if not isinstance(said, dict):
        raise ValueError("what is said beside it is no dict")
    return said


def restored(table: Any) -> Any:
    """The frame, series or number of a table. Raises whatever it comes upon where the table does not fit together."""
    said = said_of(table)
    if "number" in said:
        import numpy

        (data,), kind = table.column(0).to_pylist(), numpy.dtype(said["number"])
        if kind.kind not in NUMBERS or kind.itemsize != len(data):
            raise ValueError("its number and its type do not fit together")
        return numpy.frombuffer(data, kind)[0]
    frame = table.to_pandas()
    pandas = sys.modules["pandas"]
    for at, nan in said.get("objects", {}).items():
        frame.isetitem(int(at), pandas.Series(_cells(_objects(table.column(int(at)), nan)), index=frame.index, dtype=object))
    if "labels" in said and said["dtype"] in LABELS:
        frame.columns = pandas.Index(said["labels"], dtype=said["dtype"], name=frame.columns.name)
    if "range" in said:
        frame.columns = pandas.RangeIndex(*said["range"], name=frame.columns.name)
    for place in ("index", "columns"):
        if f"freq of {place}" in said:
            getattr(frame, place).freq = said[f"freq of {place}"]
    if "series" not in said:
        return frame
    series = frame.iloc[:, 0]
    series.name = said["series"].get("name", series.name)
    return series


def _objects(column: Any, nan: bool) -> list[Any]:
    """The values of a column as Python's own; what is missing is None, or not a number."""
    return [math.nan if value is None and nan else value for value in column.to_pylist()]


def _cells(values: list[Any]) -> Any:
    """An array of objects, also where they are lists."""
    import numpy

    cells = numpy.empty(len(values), dtype=object)
    for at, value in enumerate(values):
        cells[at] = value
    return cells
