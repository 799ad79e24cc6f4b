"""Paths that a program names: where they lead, what is read there, and what was probably meant where nothing is."""

from __future__ import annotations

from pathlib import Path

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.drivers.files.table import Table, meant
from llmproc_nb.drivers.files.text import read


def place_of(name: str, folder: Path) -> Path | None:
    """Where a path of a program leads; None where it can be no path at all."""
    return folder / name if name.strip() and "\0" not in name and len(name) < 4096 else None


def is_file(path: Path | None) -> bool:
    """Whether there is a file; a name that the system refuses (too long) is none."""
    try:
        return path is not None and path.is_file()
    except OSError:
        return False


def near_file(path: Path | None) -> str:
    """`Did you mean …?` for a path that does not exist, from the names beside it."""
    try:
        if path is None:
            return ""
        if not path.parent.is_dir():
            return f"There is no folder {path.parent.name!r} either." if path.parent.name else ""
        names = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    except OSError:
        return ""
    same_stem = [name for name in names if Path(name).stem == path.stem]
    return f"Did you mean {same_stem[0]!r}?" if same_stem else meant(path.name, names)


def read_named(table: Table, key: str, folder: Path) -> str | None:
    """The text of the file that a key names; an error at the key where there is none."""
    name = table.text(key)
    if name is None:
        return None
    path = place_of(name, folder)
    if path is None or not is_file(path):
        step = near_file(path) if name.strip() else ""
        table.error(key, f"there is no file {name[:200]!r}", right="paths are relative to the program's folder", step=step)
        return None
    try:
        return read(path, f"{table.findings.file}: {table.where(key)}")
    except ProgramError as error:
        table.findings.errors.append(error)
        return None
