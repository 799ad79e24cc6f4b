"""Writing a whole text to a file: the bytes it came from, piece by piece; the file changes at once and whole, or not at all."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.longtext import LongText
from llmproc_nb.drivers.text.source import Foreign
from llmproc_nb.drivers.text.stored import COPY_BYTES, StoredText


def write_file(
    text: LongText | bytes,
    path: str | Path,
    *,
    mode: Literal["write", "append"] = "write",
    create: bool = True,
    exist_ok: bool = True,
    root: Path | None = None,
    shown: str = "",
) -> int:
    """The number of bytes written: exactly those the text came from, or given as bytes. Missing folders are made.

    `create=False`: only a file that exists; `exist_ok=False`: only one that does not. A relative path begins at `root`, and where one is
    given the file must lie in it. `shown` is what errors call the file. Raises ToolError.
    """
    shown = (shown or str(path))[:200]
    try:
        target = _target(Path(path), root, shown)
        exists = _check(target, shown, create=create, exist_ok=exist_ok)
        if mode == "append" and exists:
            return _append(text, target, shown)
        return _replace(text, target, exists)
    except (FileExistsError, NotADirectoryError) as error:
        raise ToolError(f"{shown!r} lies below a file", right="it can only lie in a folder") from error
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ToolError(f"{shown!r} cannot be written ({said})", right="a path to a file that may be written is needed") from error


def _target(path: Path, root: Path | None, shown: str) -> Path:
    """Where the path leads in the end, links followed."""
    if root is None:
        return path.expanduser().resolve()
    target = (root / path).resolve()
    if not target.is_relative_to(root.resolve()):
        raise ToolError(
            f"{shown!r} lies outside of the working folder",
            right="only what is in the working folder can be written",
            step='Give a path relative to it, such as "out/report.txt".',
        )
    return target


def _check(target: Path, shown: str, *, create: bool, exist_ok: bool) -> bool:
    """Whether the file exists. Raises ToolError where it may not be written."""
    if target.is_dir():
        raise ToolError(f"{shown!r} is a folder", right="the path of a file is needed")
    exists = target.exists()
    if exists and not stat.S_ISREG(target.stat().st_mode):
        raise ToolError(f"{shown!r} is no ordinary file", right="only those can be written")
    if exists and not exist_ok:
        raise ToolError(f"the file {shown!r} exists", right="exist_ok=false asks for a new one", step="Give another path.")
    if not exists and not create:
        raise ToolError(f"there is no file {shown!r}", right="create=false asks for one that exists", step="Give create=true to make it.")
    return exists


def _replace(text: LongText | bytes, target: Path, exists: bool) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{uuid.uuid4().hex}.draft")
    try:
        with open(draft, "xb") as file:
            size = sum(file.write(piece) for piece in _bytes(text))
        if exists:
            os.chmod(draft, stat.S_IMODE(target.stat().st_mode))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return size


def _append(text: LongText | bytes, target: Path, shown: str) -> int:
    status = target.stat()
    if isinstance(text, StoredText) and isinstance(text.source, Foreign) and text.source.file_id == (status.st_dev, status.st_ino):
        raise ToolError(f"the text is read from {shown!r} itself", right="it can be added to any other file")
    with open(target, "ab") as file:
        try:
            return sum(file.write(piece) for piece in _bytes(text))
        except BaseException:
            file.truncate(status.st_size)  # half a text is worse than none
            raise


def _bytes(text: LongText | bytes) -> Iterator[bytes]:
    if isinstance(text, bytes):
        yield text
        return
    if isinstance(text, StoredText):
        yield from text.original()
        return
    for at in range(0, text.chars, COPY_BYTES):
        yield text.slice(at, at + COPY_BYTES).encode()
