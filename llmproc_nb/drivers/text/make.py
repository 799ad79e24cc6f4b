"""The ways to make a long text: from a string, bytes, a file, or pieces that come one by one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llmproc_nb.core.errors import ToolError
from llmproc_nb.drivers.text.source import Foreign, Kept
from llmproc_nb.drivers.text.spool import encoded, is_blob, kept
from llmproc_nb.drivers.text.stored import COPY_BYTES, StoredText

IN_PLACE_BYTES = 64 * 1024 * 1024


def long_text(value: str | bytes | Path, *, folder: Path | None = None) -> StoredText:
    """The text of a string, of bytes (as UTF-8; what is none becomes U+FFFD), or of a file.

    Up to 64 KB are kept in memory, more in a file of `folder` that is named by its content; without a folder in a private one that goes
    with the kernel. A file of more than 64 MB is read where it lies: whether it changes is watched (see source). A file that `folder`
    itself keeps is used as it is. Raises ToolError where a file cannot be read, LogError where the text cannot be kept.
    """
    if isinstance(value, str):
        return long_text_from((value,), folder=folder)
    if isinstance(value, bytes | bytearray | memoryview):
        return kept((bytes(value[at : at + COPY_BYTES]) for at in range(0, len(value), COPY_BYTES)), folder)
    try:
        if is_blob(value, folder) and value.is_file():
            return StoredText(Kept(value), blob=value.name)
        source = Foreign(value)
        if source.size > IN_PLACE_BYTES:
            return StoredText(source)
        return kept((source.read(at, at + COPY_BYTES) for at in range(0, source.size, COPY_BYTES)), folder)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or "no path can have a NUL in it"
        raise ToolError(f"the file {value.name!r} cannot be read ({said})", place=str(value)) from error


def long_text_from(pieces: Iterable[str], *, folder: Path | None = None) -> StoredText:
    """The text of pieces that come one by one, each of any length, in constant memory: rows of a frame, output of a command."""
    return kept(encoded(pieces), folder)
