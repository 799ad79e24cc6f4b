"""Values into a sandbox and out of it: each arrives as it was, or is refused with what is wrong with it."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import fractions
import math
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandboxes import linux_only, opened

from llmproc_nb.core.errors import ToolError
from llmproc_nb.drivers.arrow import packed, unpacked
from llmproc_nb.inside import passing, variables


def both(value: Any) -> list[Any]:
    """What comes of a value on its way in, and on its way out. Raises ToolError or Unfit."""
    went = packed(value, "it")
    kind, data = variables.written("it", value)
    return [
        variables.read(*(("frame", went) if isinstance(went, bytes) else variables.written("it", went))),
        unpacked(data) if kind == "frame" else variables.read(kind, data),
    ]


def alike(one: Any, other: Any) -> bool:
    """Whether two values are of the same types and equal, all through. Not the code that is tested."""
    if type(one) is not type(other):
        return False
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True, check_index_type="exact", check_column_type="exact", check_freq=True)
        columns = all(alike(one.iloc[:, at], other.iloc[:, at]) for at in range(one.shape[1]))
        return columns and alike(one.columns, other.columns) and alike(one.index, other.index)
    if isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other, check_exact=True, check_index_type="exact", check_freq=True)
        values = one.dtype != object or alike(list(one), list(other))
        return values and alike(one.name, other.name) and alike(one.index, other.index)
    if isinstance(one, pd.Index):
        same = list(one.names) == list(other.names) and getattr(one, "freq", None) == getattr(other, "freq", None)
        return same and [type(name) for name in one.names] == [type(name) for name in other.names] and alike(one.tolist(), other.tolist())
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(alike(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    return one is other or bool(one == other) or (one != one and other != other)


PASS = {
    "series": pd.Series([1, 2], name="x", index=["a", "b"]),
    "series without a name": pd.Series([1.5, np.nan]),
    "series of a number": pd.Series([1], name=2023),
    "row of a frame by time": pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2020", periods=2, freq="MS")).iloc[0],
    "series by month": pd.Series([1, 2], index=pd.period_range("2020", periods=2, freq="M")),
    "objects with nothing": pd.DataFrame({"a": pd.Series([1, 2, None], dtype=object)}),
    "objects of texts": pd.DataFrame({"a": pd.Series(["x", None], dtype=object)}),
    "objects of texts without numbers": pd.DataFrame({"a": pd.Series(["x", np.nan], dtype=object)}),
    "lists in cells": pd.DataFrame({"a": [[1], [2, 3]]}),
    "dicts alike": pd.DataFrame({"a": [{"k": 1}, {"k": 2}]}),
    "days": pd.DataFrame({"a": [dt.date(2020, 1, 1)]}),
    "labels of two kinds": pd.DataFrame([[1, 2]], columns=["name", 2023]),
    "labels twice": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "numbers as labels": pd.DataFrame(np.eye(2)),
    "years as labels": pd.DataFrame([[1, 2]], columns=[2020, 2021]),
    "names of columns": pd.DataFrame([[1, 2]], columns=pd.Index(["a", "b"], name="which")),
    "levels": pd.DataFrame({"a": [1], "b": [2]}, index=pd.MultiIndex.from_tuples([(1, "x")], names=["n", None])),
    "levels of labels": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_product([["a"], [1, 2]], names=["x", "y"])),
    "frequency": pd.DataFrame({"a": [1, 2, 3]}, index=pd.date_range("2020", periods=3, freq="B", tz="Europe/Berlin")),
    "categories": pd.DataFrame({"a": pd.Categorical(["x", "y"], ["y", "x"], ordered=True)}),
    "intervals": pd.DataFrame({"a": pd.interval_range(0, 2)}),
    "nothing": pd.DataFrame(),
    "no rows": pd.DataFrame({"a": pd.Series([], dtype="Int8"), "b": pd.Categorical([], ["x"])}),
    "no columns": pd.DataFrame(index=[1, 2]),
    "own missing values": pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")}),
    "array without a shape": np.array(5),
    "array of complex": np.array([1 + 2j]),
    "array of records": np.zeros(2, dtype=[("a", "i4"), ("b", "U3")]),
    "array by column": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "number of numpy": np.float32(1.5),
    "time of numpy": np.datetime64("2020-01-01"),
    "text": "ä\n",
    "data": {"a": [1, 2.5, None, True, {"b": []}], "": 2**63},
}


@pytest.mark.parametrize("name", PASS)
def test_what_passes_arrives_as_it_was(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        came = both(PASS[name])
    assert [alike(PASS[name], one) for one in came] == [True, True]


class Own(pd.DataFrame):
    """A frame of somebody's own."""


REFUSED = {
    "index": (lambda: pd.Index([1]), r"it is a pandas Index, which is neither .*; pandas.Series\(\) of it can pass"),
    "months": (lambda: pd.period_range("2020", periods=2, freq="M"), "it is a pandas PeriodIndex"),
    "intervals": (lambda: pd.interval_range(0, 2).array, "it is a pandas IntervalArray"),
    "masked": (lambda: np.ma.array([1.5, -999], mask=[0, 1]), r"it is a numpy MaskedArray, .*\.filled\(value\) can pass"),
    "levels of labels of several types": (
        lambda: pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_arrays([["a", "b"], ["x", False]])),
        r"it has a column whose labels do not fit those of others: \('b', False\); levels can pass that are",
    ),
    "matrix": (lambda: np.matrix([[1]]), r"it is a numpy matrix, .*numpy.asarray\(\)"),
    "records": (lambda: np.rec.array([(1, 2)]), r"it is a numpy recarray, .*numpy.asarray\(\)"),
    "objects": (lambda: np.array([1, None]), r"it is an array of objects.*\.tolist\(\)"),
    "object": (lambda: np.array(None), "it is an array of objects"),
    "own frames": (lambda: Own({"a": [1]}), "it is a .*Own, which would not arrive as it is; made a DataFrame it can pass"),
    "dicts": (lambda: pd.DataFrame({"a": [{"k": 1}, {"l": 2}]}), "it's column 'a' is one of objects, its dict in row 0 would not"),
    "tuples": (lambda: pd.DataFrame({"a": [(1, 2)]}), "it's column 'a' is one of objects, its tuple in row 0"),
    "arrays": (lambda: pd.DataFrame({"a": [np.eye(1)[0]]}), "it's column 'a' is one of objects, its ndarray in row 0"),
    "kinds": (lambda: pd.DataFrame({"a": [1, "x"]}), "it's column 'a', of the type object, cannot pass"),
    "large": (lambda: pd.DataFrame({"a": [2**70]}), "it's column 'a', of the type object, cannot pass"),
    "large in a series": (lambda: pd.Series([2**70]), "it, a series of the type object, cannot pass"),
    "cut": (lambda: pd.DataFrame({"a": pd.cut([1, 2], 2)}), "it's column 'a', of the type category of interval.* cannot pass"),
    "complex": (lambda: pd.DataFrame({"a": [1j]}), "it's column 'a', of the type complex128, cannot pass"),
    "index of objects": (lambda: pd.DataFrame({"a": [1]}, index=pd.Index(["x"], dtype=object)), r"it's index, .*df.reset_index\(\)"),
    "not a number": (lambda: float("nan"), "it is nan, which would not arrive as it is: plain data has no word for it; None can pass"),
    "without end": (lambda: [1.0, -math.inf], r"it\[1\] is -inf, which would not arrive as it is"),
    "tuple": (lambda: {"k": (1, 2)}, r"it\['k'\] is a tuple, which would not arrive as it is; a list can pass"),
    "set": (lambda: {1}, r"it is a set, .*a list can pass, as of sorted\(\)"),
    "day": (lambda: dt.date(2020, 1, 1), r"it is a datetime date, .*\.isoformat\(\)"),
    "time": (lambda: pd.Timestamp("2020"), r"it is a pandas Timestamp, .*\.isoformat\(\)"),
    "bytes": (lambda: b"x", r"it is a bytes, .*write_file\(\)"),
    "time inside": (lambda: [np.datetime64("2020")], r"it\[0\] is a numpy datetime64, .*\.item\(\)"),
    "no number inside": (lambda: [np.float64("nan")], r"it\[0\] is nan, which would not arrive as it is"),
    "array inside": (lambda: [np.array(1)], r"it\[0\] is a numpy ndarray, .*alone it can pass"),
    "frame inside": (lambda: [pd.DataFrame()], r"it\[0\] is a pandas DataFrame, .*alone it can pass"),
    "keys": (lambda: {1: 2}, "it would not arrive as it is: a key of it is no text but an int; keys of texts can pass"),
    "too large": (lambda: 2**64, "it is a whole number of more than 64 bits"),
    "half": (lambda: "\ud800", "it has half a character"),
    "fraction": (lambda: fractions.Fraction(1, 2), "it is a fractions Fraction, which would not arrive as it is; frames, series"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_pass_is_refused_with_what_is_wrong_and_what_would_be_right(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(ToolError, match=words):
        packed(make(), "it")
    with pytest.raises(passing.Unfit, match=words):
        variables.written("it", make())


def test_numbers_of_numpy_in_plain_data_become_equal_ones_of_pythons_own() -> None:
    value = {"mean": np.float64(1.5), "all": [np.int8(2), np.uint64(2**63), np.bool_(True), np.float32(0.1)]}
    came = both(value)
    assert came == [value, value] and [type(one) for one in came[0]["all"]] == [int, int, bool, float]


def test_what_is_in_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ToolError, match="nested more than 100 deep"):
        packed(loop, "it")


def test_what_is_too_large_for_one_message_is_refused_before_it_is_packed() -> None:
    great = np.broadcast_to(np.zeros(1), 1 << 30)
    with pytest.raises(ToolError, match=r"it has 8\.6 GB, and at most 4\.3 GB can pass at once; take a part of it"):
        packed(great, "it")
    with pytest.raises(passing.Unfit, match=r"at most 0\.5 GB"):
        variables.written("it", pd.Series(np.broadcast_to(np.zeros(1), 1 << 26)))


names = st.one_of(st.none(), st.text(max_size=3), st.integers(-3, 3000), st.tuples(st.text(max_size=1), st.integers(0, 3)))
values = (
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False, places=2),
    st.lists(st.integers(0, 3), max_size=2),
    st.tuples(st.integers(0, 3)),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=2),
    st.sampled_from([pd.NaT, pd.NA, np.datetime64("2020"), np.float64("nan"), pd.Timestamp("2020", tz="UTC"), decimal.Decimal("1.0")]),
)
cells = st.one_of(st.none(), *values)
KINDS = [
    "bool",
    "int8",
    "uint64",
    "float16",
    "float32",
    "float64",
    "datetime64[s]",
    "datetime64[ns]",
    "timedelta64[ms]",
    "complex64",
    "str",
    "object",
    "category",
]
KINDS += ["Int64", "boolean", "Float32", "string", "datetime64[us, UTC]", "period[M]", "Sparse[int64]", "int64[pyarrow]", ">i4"]


@st.composite
def columns(draw: st.DrawFn, size: int) -> Any:
    """A column of any type, or of any values."""
    kind = draw(st.sampled_from(["any", "same", *KINDS]))
    if kind in ("any", "same"):
        one = st.none() | values[draw(st.integers(0, len(values) - 1))] if kind == "same" else cells
        return pd.Series(draw(st.lists(one, min_size=size, max_size=size)), dtype=object)
    numbers = pd.Series(draw(st.lists(st.integers(0, 100), min_size=size, max_size=size)), dtype="int64")
    numbers = numbers % 2 if kind == "boolean" else numbers
    made = numbers.astype("datetime64[ns]").dt.to_period("M") if kind == "period[M]" else numbers.astype(kind)
    if draw(st.booleans()) and size and made.dtype.kind not in "biuc" and "Sparse" not in kind:
        made.iloc[0] = None
    return made


@st.composite
def indexes(draw: st.DrawFn, size: int) -> Any:
    kind = draw(st.sampled_from(["range", "freq", "months", "levels", "column"]))
    name = draw(names)
    if kind == "range":
        return pd.RangeIndex(3, 3 + 2 * size, 2, name=name)
    if kind == "freq":
        return pd.date_range("2020", periods=size, freq=draw(st.sampled_from(["D", "2h", "MS", "B"])), name=name)
    if kind == "months":
        return pd.period_range("2020", periods=size, freq="M", name=name)
    made = [draw(columns(size)) for _ in range(2 if kind == "levels" else 1)]
    try:
        return pd.MultiIndex.from_arrays(made, names=[name, draw(names)]) if kind == "levels" else pd.Index(made[0], name=name)
    except (TypeError, ValueError, OverflowError, NotImplementedError):  # pandas has no such index
        return pd.RangeIndex(size)


@st.composite
def frames(draw: st.DrawFn) -> Any:
    size = draw(st.integers(0, 3))
    made = [draw(columns(size)) for _ in range(draw(st.integers(0, 3)))]
    frame = pd.concat(made, axis=1) if made else pd.DataFrame(index=range(size))
    frame.index = draw(indexes(size))
    labels = draw(st.one_of(indexes(len(made)), st.lists(names, min_size=len(made), max_size=len(made))))
    try:
        frame.columns = labels
    except (TypeError, ValueError, NotImplementedError):
        frame.columns = range(len(made))
    return frame


@st.composite
def series(draw: st.DrawFn) -> Any:
    size = draw(st.integers(0, 3))
    made = draw(columns(size))
    made.index, made.name = draw(indexes(size)), draw(st.one_of(names, st.sampled_from([np.int64(3), pd.Timestamp("2020"), 1.5])))
    return made


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    kind = draw(st.sampled_from(["?", "i1", ">i4", "f2", "f8", "c16", "M8[ns]", "m8[D]", "U3", "S2", "O", "V3", "i4,U2", "T"]))
    made = np.zeros(shape, dtype=kind)
    return draw(st.sampled_from([made, made.T, made[..., None], made[()], made.view(np.ma.MaskedArray)]))


plain = st.recursive(
    cells, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(frames(), series(), arrays(), plain))
def test_anything_arrives_as_it_was_or_is_refused(value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            came = both(value)
        except (ToolError, passing.Unfit):
            return
        assert [alike(value, one) for one in came] == [True, True]


@linux_only
def test_values_go_through_a_sandbox_and_come_back() -> None:
    async def through() -> None:
        async with opened() as door:
            shell = await door.start()
            for name, value in PASS.items():
                await shell.put({"it": packed(value, "it")})
                assert alike(value, unpacked(await shell.get("it"))), name
            ran = await shell.run("import numpy as np, pandas as pd\nit = np.ma.array([1.5, -999], mask=[0, 1])", timeout_s=30)
            assert ran.status == "ok"
            with pytest.raises(ToolError, match=r"^sandbox: it is a numpy MaskedArray, .*its \.filled\(value\) can pass"):
                await shell.get("it")

    asyncio.run(through())


def test_nothing_heavy_is_loaded_for_plain_data() -> None:
    import subprocess

    code = "import sys; from llmproc_nb.inside import passing; passing.packed({'a': [1]}, 'a')\n"
    code += "print([name for name in ('pandas', 'numpy', 'pyarrow') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
