"""Code cells that ran in a sandbox as a notebook: what was run, in order, with what came of it. It runs on its own in any Python kernel."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any

from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.event import CodeRan
from llmproc_nb.core.output import FRAME
from llmproc_nb.core.sandbox import Output
from llmproc_nb.core.waking import FILE, value_of
from llmproc_nb.inside import passing

LINE_CHARS = 120
OWN = "llmproc"
STOPPED = ("timed_out", "interrupted")
RAISES = "raises-exception"
"""The tag by which who runs a notebook goes on after a cell that raises."""
GIVEN = "`{names}` came from outside of the sandbox here. To run this notebook on its own, set {it} first."


def write(cells: Sequence[CodeRan], path: Path, given: Sequence[str] = ()) -> None:
    """Write the notebook; `given` are variables and files that it began with. Raises PersonError where it cannot be written.

    A file is overwritten only if it is such a notebook.
    """
    import nbformat

    if path.exists() and not _is_own(path):
        found = f"there is another file {path.name} already"
        raise PersonError(found, place="to_notebook", right="only what it wrote itself is overwritten", step="Choose another name.")
    book = notebook(cells, given)
    try:
        nbformat.write(book, path)
    except OSError as error:
        raise PersonError(f"{path.name} cannot be written: {error.strerror or error}", place="to_notebook") from None


def _is_own(path: Path) -> bool:
    try:
        return OWN in json.loads(path.read_text(encoding="utf-8"))["metadata"]
    except (OSError, ValueError, TypeError, KeyError):  # it is no notebook
        return False


def notebook(cells: Iterable[CodeRan], given: Sequence[str] = ()) -> Any:
    """The notebook of these cells, oldest first."""
    from nbformat import v4

    book = v4.new_notebook(
        metadata={OWN: {"cells": "of a sandbox"}, "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    if given:
        book.cells.append(_given(given))
    count = 0
    for cell in cells:
        if cell.put and len(cell.outputs) == len(cell.put) and all(_is_name(name) for name in cell.put):
            count += 1
            book.cells.append(v4.new_code_cell(_set(cell.outputs), execution_count=count))
        elif cell.put:
            book.cells.append(_given(cell.put))
        elif cell.status in STOPPED:  # run again it would never end
            book.cells.append(v4.new_markdown_cell(f"This cell was stopped before its end ({cell.status}):\n\n```python\n{cell.code}\n```"))
        elif cell.code:
            count += 1
            outputs = [_output(one, count) for one in cell.outputs]
            raised = cell.status == "error" or any(one.kind == "error" for one in cell.outputs)
            ended = {"llmproc": {"status": cell.status, "notes": list(cell.notes)}, **({"tags": [RAISES]} if raised else {})}
            book.cells.append(v4.new_code_cell(cell.code, execution_count=count, outputs=outputs, metadata=ended))
    for number, one in enumerate(book.cells, start=1):
        one["id"] = f"cell-{number}"  # the same log gives the same file
    return book


def _given(names: Sequence[str]) -> Any:
    from nbformat import v4

    shown = ", ".join(name.removeprefix("./") for name in names)
    return v4.new_markdown_cell(GIVEN.format(names=shown, it="it" if len(names) == 1 else "them"))


def _is_name(name: str) -> bool:
    return name.startswith(FILE) or (name.isidentifier() and not iskeyword(name))


def _set(outputs: Iterable[Output]) -> str:
    """Code that sets what came from outside."""
    imports, lines = set[str](), list[str]()
    for output in outputs:
        name, value = output.name, value_of(output)
        if not isinstance(value, bytes):
            lines.append(f"{name} = {value!r}")
            continue
        text = b64encode(value).decode()
        data = 'base64.b64decode("""' + "".join(f"\n{text[at : at + LINE_CHARS]}" for at in range(0, len(text), LINE_CHARS)) + '""")'
        imports.add("import base64")
        if name.startswith(FILE):
            imports.add("from pathlib import Path")
            path = f"Path({name.removeprefix(FILE)!r})"
            lines.append(f"{path}.parent.mkdir(parents=True, exist_ok=True)\n{path}.write_bytes({data});")
        elif value.startswith(passing.NUMPY):
            imports |= {"import io", "import numpy as np"}
            lines.append(f"{name} = np.load(io.BytesIO({data}))")
        else:
            imports |= {"import numpy as np", "import pyarrow"}
            lines.append(f"{name} = pyarrow.ipc.open_stream({data}).read_pandas()")
            lines += _as_it_was(name, value)
    return "\n".join([*sorted(imports), *([""] if imports else []), *lines])


def _as_it_was(name: str, value: bytes) -> list[str]:
    """What is still to be done to a frame, where the value was a series or a number, or had labels that Arrow has no place for."""
    import pyarrow

    said = passing.said_of(pyarrow.ipc.open_stream(value).read_all())
    if "number" in said:
        return [f"{name} = np.frombuffer({name}.iat[0, 0], {said['number']!r})[0]"]
    lines = [f"{name}.columns = {said['labels']!r}"] if "labels" in said and said["dtype"] == "object" else []
    lines += [f"{name}.columns = range{tuple(said['range'])!r}"] if "range" in said else []
    lines += [f"{name}.index.freq = {said['freq of index']!r}"] if "freq of index" in said else []
    if "series" in said:
        named = f".rename({said['series']['name']!r})" if "name" in said["series"] else ""
        lines.append(f"{name} = {name}.iloc[:, 0]{named}")
    return lines


def _output(output: Output, count: int) -> Any:
    from nbformat import v4

    if output.kind == "stream":
        return v4.new_output("stream", name=output.name or "stdout", text=output.text)
    if output.kind == "error":
        return v4.new_output("error", ename=output.name, evalue=output.text, traceback=list(output.trace))
    data = {kind: value for kind, value in output.data.items() if kind != FRAME}
    more = {"execution_count": count} if output.kind == "execute_result" else {}
    return v4.new_output(output.kind, data=data, **more)
