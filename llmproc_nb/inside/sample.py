"""Frames and arrays as text: what they are, and as many of their values as fit, saying exactly what was left out.

The libraries are not imported: a type's own module names them, and the values' own methods do the work. Not here: all of them (whole).
"""

from __future__ import annotations

from typing import Any

CELL_CHARS = 200
NUMPY_SHOWN = 1000
"""Of an array with more values its own text leaves out the middle."""
MISSING_UP_TO_CELLS = 50_000_000


def tokens(text: str) -> int:
    """About how many tokens a text is: a quarter of its UTF-8 bytes."""
    return (len(text.encode("utf-8", "replace")) + 3) // 4


def cut_text(text: str, budget_tokens: int) -> str:
    """The text, or its beginning within the budget and a line that says how much was left out."""
    if tokens(text) <= budget_tokens:
        return text
    keep = max(1, min(len(text), budget_tokens * 4 * len(text) // max(1, len(text.encode("utf-8", "replace")))))
    return f"{text[:keep]}\n[{len(text) - keep:,} of {len(text):,} characters left out]"


def sampled(value: Any) -> bool:
    """Whether this is a frame, a series, an index or an array."""
    return kind_of(value) is not None


def sample_text(value: Any, label: str, budget_tokens: int) -> str:
    """The value's shape, types and a sample, in about that many tokens."""
    return sample(value, label, budget_tokens)[0]


def sample(value: Any, label: str, budget_tokens: int) -> tuple[str, bool]:
    """The value's shape, types and a sample, in about that many tokens; and whether that is all of it, with nothing left out or cut."""
    title = f"{label}: " if label else ""
    kind = kind_of(value)
    if kind == "frame":
        return _frame(value, title, budget_tokens)
    if kind == "series":
        return _series(value, title, budget_tokens)
    return _array(value, title, budget_tokens)


def kind_of(value: Any) -> str | None:
    """Which of these a value is: `frame`, `series` (an index is one), `array`, or none."""
    for base in type(value).__mro__:
        home = base.__module__.partition(".")[0]
        if home == "pandas":
            if base.__name__ == "DataFrame":
                return "frame"
            if base.__name__ in ("Series", "Index"):
                return "series"
        if home == "numpy" and base.__name__ == "ndarray":
            return "array"
    return None


def _frame(frame: Any, title: str, budget_tokens: int) -> tuple[str, bool]:
    rows, columns = frame.shape
    head = f"{title}pandas DataFrame, {_count(rows, 'row')} × {_count(columns, 'column')}"
    schema, shown = _schema(frame, budget_tokens // 2)
    index = "" if type(frame.index).__name__ == "RangeIndex" else f"\nindex: {_index(frame.index)}"
    lines = f"{head}{index}\n{schema}"
    part = frame.iloc[:, :shown]
    what = "rows as CSV" + (f", first {shown} columns" if shown < columns else "")
    rows_text, whole = _rows(part, budget_tokens - tokens(lines), what)
    return f"{lines}\n{rows_text}", whole and shown == columns


def _index(index: Any) -> str:
    names = [str(name) for name in index.names if name is not None]
    return f"{type(index).__name__}{' ' + ', '.join(names) if names else ''} ({index.dtype})"


def _schema(frame: Any, budget_tokens: int) -> tuple[str, int]:
    """One line per column as far as they fit, and how many columns fit."""
    counted = frame.shape[0] * frame.shape[1] <= MISSING_UP_TO_CELLS
    missing = frame.isna().sum().tolist() if counted else None
    lines, left = ["column,dtype,missing" if counted else "column,dtype (missing values not counted)"], budget_tokens
    for position, (name, dtype) in enumerate(zip(frame.columns.tolist(), frame.dtypes.tolist(), strict=True)):
        line = f"{_cell(name)},{dtype}" + (f",{missing[position]}" if missing is not None else "")
        left -= tokens(line) + 1
        if left < 0 and position:
            lines.append(f"[{frame.shape[1] - position:,} of {frame.shape[1]:,} columns left out]")
            return "\n".join(lines), position
        lines.append(line)
    return "\n".join(lines), frame.shape[1]


def _series(series: Any, title: str, budget_tokens: int) -> tuple[str, bool]:
    name = f" {series.name!r}" if getattr(series, "name", None) is not None else ""
    kind = "Series" if hasattr(series, "iloc") else type(series).__name__
    frame = series.to_frame() if kind == "Series" else series.to_frame(index=False)
    missing = int(frame.isna().any(axis=1).sum())
    head = f"{title}pandas {kind}{name}, {_count(len(series), 'value')}, {series.dtype}, {missing:,} missing"
    if kind == "Series" and type(series.index).__name__ != "RangeIndex":
        head += f"\nindex: {_index(series.index)}"
    text, whole = _rows(frame, budget_tokens - tokens(head), "values as CSV")
    return f"{head}\n{text}", whole


def _rows(frame: Any, budget_tokens: int, what: str) -> tuple[str, bool]:
    """All rows where they fit; else the first and the last ones, and how many were left out. And whether all is there, no cell cut."""
    total = frame.shape[0]
    budget_tokens -= 25  # for the lines around them
    if total == 0:
        return f"no {what.partition(' ')[0]}", not any(map(_is_long, frame.columns))
    few = _csv(frame.iloc[: min(total, 20)])
    fit = max(1, int(max(budget_tokens, 50) * min(total, 20) / max(1, tokens(few))))
    while True:
        if fit >= total:
            whole = _csv(frame)
            if tokens(whole) <= max(budget_tokens, 50) or total == 1:
                return f"all {what}:\n{whole}", not _cuts(frame)
            fit = max(1, total * 2 // 3)
            continue
        first = max(1, fit * 2 // 3)
        last = max(0, fit - first)
        head, tail = _csv(frame.iloc[:first]), _csv(frame.iloc[total - last :], header=False) if last else ""
        if tokens(head + tail) <= max(budget_tokens, 50) or fit == 1:
            break
        fit = max(1, fit * 2 // 3)
    ends = f"first {first:,}" + (f" and last {last:,}" if last else "")
    left_out = total - first - last
    gap = f"[{left_out:,} of {total:,} {what.partition(' ')[0]} left out]\n"
    return f"{ends} of {total:,} {what}:\n{head}{gap}{tail}", False


def _cuts(frame: Any) -> bool:
    """Whether a name or a cell is too long to be shown, or holds what would show only a part of itself."""
    objects = (frame.iloc[:, at] for at, dtype in enumerate(frame.dtypes.tolist()) if getattr(dtype, "kind", "O") == "O")
    return any(map(_is_long, frame.columns.tolist())) or any(any(map(_is_long, column)) for column in objects)


def _is_long(value: Any) -> bool:
    if isinstance(value, list | dict | tuple | set | bytes):
        items = value.values() if isinstance(value, dict) else () if isinstance(value, bytes) else value
        return len(repr(value)) > CELL_CHARS or any(map(_is_long, items))
    if isinstance(value, str):
        return len(value) > CELL_CHARS
    return sampled(value) and (kind_of(value) != "array" or value.size > NUMPY_SHOWN)


def _csv(frame: Any, *, header: bool = True) -> str:
    """Some rows as CSV, long cells cut with their length, and the index where it means something."""
    shown = frame.map(_short) if hasattr(frame, "map") else frame.applymap(_short)
    if header:
        names = [_cell(name) for name in shown.columns.tolist()]
        return str(shown.to_csv(index=type(frame.index).__name__ != "RangeIndex", header=names, lineterminator="\n"))
    return str(shown.to_csv(index=type(frame.index).__name__ != "RangeIndex", header=False, lineterminator="\n"))


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return _cell(value)
    if isinstance(value, list | dict | tuple | set | bytes):
        return _cell(repr(value))
    return value


def _cell(value: Any) -> str:
    text = str(value).encode("utf-8", "replace").decode()
    return text if len(text) <= CELL_CHARS else f"{text[:CELL_CHARS]}… ({len(text):,} characters)"


def array_head(array: Any) -> str:
    """What is said of an array before its values."""
    shape = " × ".join(f"{size:,}" for size in array.shape) or "no dimensions"
    return f"numpy array, {shape}, {array.dtype}"


def _array(array: Any, title: str, budget_tokens: int) -> tuple[str, bool]:
    head = f"{title}{array_head(array)}"
    flat = array.reshape(-1)
    size = int(flat.shape[0])
    count = min(size, max(8, budget_tokens // 2))
    while True:
        values = array.tolist() if count >= size else flat[:count].tolist()
        text = _written(values)
        if tokens(text) <= max(budget_tokens, 20) or count <= 8:
            break
        count = max(8, min(count, size) * 2 // 3) if count < size or size > 8 else 8
    if count >= size:
        plain = array.dtype.kind not in "OSUV"
        return f"{head}, all values:\n{text}", plain or not any(_is_long(item) or _is_long(repr(item)) for item in flat.tolist())
    left_out = f"[{size - count:,} of {size:,} values left out]"
    return f"{head}, first {count:,} of {size:,} values in row order:\n{text}\n{left_out}", False


def _written(values: Any) -> str:
    if isinstance(values, list):
        return "[" + ", ".join(_written(item) for item in values) + "]"
    return repr(values) if not isinstance(values, str | bytes) else _cell(repr(values))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
