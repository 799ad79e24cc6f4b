"""Files that go into working folders: which ones a program names, and what a path in there may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmproc_nb.core.errors import ToolError


def relative(path: str) -> str:
    """The path, which is one in the working folder. Raises ToolError."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or "\0" in path:
        raise ToolError(f"{path!r} is no path in the working folder", place="sandbox", right="it is relative, without '..'")
    return path


def program_files(base: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """The files that patterns name, each with its path in the working folder. Raises ToolError where one names nothing, or leads out."""
    root = base.resolve()
    for pattern in patterns:
        found = [base / pattern] if (base / pattern).exists() else sorted(base.glob(pattern))
        inside = [path for start in found for path in (sorted(start.rglob("*")) if start.is_dir() else [start]) if path.is_file()]
        if not inside:
            raise ToolError(f"there is no file {pattern}", place="[sandbox] files", right=f"it is relative to {base.name or 'the program'}")
        for path in inside:
            try:
                yield str(path.relative_to(base)), path
                path.resolve().relative_to(root)
            except ValueError:
                raise ToolError(f"{pattern} leads out of the program's folder", place="[sandbox] files", right="it stays inside") from None
