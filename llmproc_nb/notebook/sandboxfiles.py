"""Files between the folder of a notebook and the working folder of a sandbox. Nothing that is in the notebook's folder is overwritten."""

from __future__ import annotations

import glob
from pathlib import Path

from llmproc_nb.core.errors import PersonError, ToolError
from llmproc_nb.core.process import Process

PULL, FILES = "%sandbox pull", "%sandbox files"


def pull_files(process: Process, names: list[str]) -> list[str]:
    """Copy files of the working folder into that of the notebook, by their last names; gives these."""
    others = [name for name in names if "." not in name and "/" not in name]
    if others:
        raise PersonError(f"{' '.join(names)} are files and variables", place=PULL, right="one kind at a time")
    there = next((name for name in names if Path(Path(name).name).exists()), None)
    if there is not None:
        step = f"process.sandbox.read_file({there!r}) gives its bytes."
        raise PersonError(f"there is a file {Path(there).name} here already", place=PULL, right="nothing is overwritten", step=step)
    came = {Path(name).name: process.sandbox.read_file(name) for name in names}  # all or none
    for name, data in came.items():
        Path(name).write_bytes(data)
    return list(came)


def push_files(process: Process, names: list[str]) -> list[str]:
    """Copy files, or those that patterns name, into the working folder; gives where they are there."""
    if not names:
        raise PersonError("no file is named", place=FILES, right="`%sandbox files data.csv` copies one in")
    places = []
    for path in [path for name in names for path in _paths(name)]:
        place = path.name if path.is_absolute() or ".." in path.parts else path.as_posix()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PersonError(f"{path} cannot be read: {error.strerror or error}", place=FILES) from None
        try:
            process.sandbox.write_file(place, data)
        except ToolError as error:
            raise PersonError(f"{place} of {len(data):,} bytes: {error.found}", place=FILES, right=error.right) from None
        places.append(place)
    return places


def _paths(name: str) -> list[Path]:
    """The files that a path or a pattern names. Raises PersonError where there is none."""
    path = Path(name).expanduser()
    found = [path] if path.exists() else [Path(one) for one in sorted(glob.glob(str(path), recursive=True))]
    files = [one for one in found if not one.is_dir()]
    if not files:
        right = f"`{name.rstrip('/')}/*` names the files in it" if found else ""
        raise PersonError(f"{name} is a folder" if found else f"there is no file {name}", place=FILES, right=right)
    return files
