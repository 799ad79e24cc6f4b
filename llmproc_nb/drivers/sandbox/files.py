"""Files of the host for sandboxes: which ones go into working folders, which are shown where they are; paths in a working folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import SandboxRules

SYSTEM = ("/proc", "/sys", "/dev")


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


def with_readable(rules: SandboxRules, base: Path) -> SandboxRules:
    """The rules with the places of what they show. Raises ToolError where one is not there, or would show too much."""
    places = tuple(place_of(name, base) for name in rules.readable)
    for name, place in zip(rules.readable, places, strict=True):
        if why := too_much(place):
            raise ToolError(f"{name!r} {why}", place="[sandbox] readable", right="it names only what is needed")
        if not os.path.exists(place):
            right = "it is absolute, begins with ~, or is relative to the program"
            raise ToolError(f"there is no {name!r}", place="[sandbox] readable", right=right)
    return msgspec.structs.replace(rules, readable=places)


def place_of(name: str, base: Path) -> str:
    """Where a path leads that is absolute, begins with ~, or is relative to a folder."""
    return os.path.abspath(os.path.join(base, os.path.expanduser(name)))


def too_much(place: str) -> str:
    """Why a place of the host is not shown to a sandbox; "" where it may be. Links are followed."""
    real = Path(os.path.realpath(place))
    for path, why in (
        ("/", "is the whole machine"),
        (os.path.expanduser("~"), "holds the home, with its keys"),
        (tempfile.gettempdir(), "holds the folder for temporary files, where sandboxes have theirs"),
        ("/run", "holds sockets by which others are reached"),
    ):
        if Path(os.path.realpath(path)).is_relative_to(real):
            return why
    return "is of the system, of which each sandbox has its own" if any(real.is_relative_to(path) for path in SYSTEM) else ""
