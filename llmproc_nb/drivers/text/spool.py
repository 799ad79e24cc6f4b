"""Writing texts into files named by the hash of their bytes, beside a log or in a private folder that goes with the kernel."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from llmproc_nb.core.errors import LogError
from llmproc_nb.core.message import clean
from llmproc_nb.drivers.text.source import Held, Kept
from llmproc_nb.drivers.text.stored import StoredText

HELD_BYTES = 64 * 1024
"""Longer texts are kept in files: a process may have thousands of them."""
_PIECE_CHARS = 1 << 20
_BLOB = re.compile(r"[0-9a-f]{32}")
_PREFIX, _LOCK = "llmproc-nb-", "lock"
_HIGH = ("\ud800", "\udbff")


def kept(pieces: Iterable[bytes], folder: Path | None) -> StoredText:
    """The text of these bytes: in memory while they are few, else in a file. Raises LogError where that cannot be written."""
    held = bytearray()
    waiting = iter(pieces)
    for piece in waiting:
        held += piece
        if len(held) > HELD_BYTES:
            return _spooled(chain((bytes(held),), waiting), folder or Path(private_folder().name))
    return StoredText(Held(bytes(held)))


def encoded(pieces: Iterable[str]) -> Iterator[bytes]:
    """Pieces of text as UTF-8, none of them long. Lone surrogates become U+FFFD; two that belong together may come in two pieces."""
    carried = ""
    for piece in pieces:
        for at in range(0, len(piece), _PIECE_CHARS):
            part = carried + piece[at : at + _PIECE_CHARS]
            carried = part[-1:] if _HIGH[0] <= part[-1:] <= _HIGH[1] else ""
            yield clean(part[: len(part) - len(carried)]).encode()
    if carried:
        yield clean(carried).encode()


def is_blob(path: Path, folder: Path | None) -> bool:
    """Whether a path is a file that this folder keeps."""
    return folder is not None and bool(_BLOB.fullmatch(path.name)) and path.parent.resolve() == folder.resolve()


@cache
def private_folder() -> TemporaryDirectory[str]:
    """A folder for this kernel alone; it goes when the kernel ends, or with the next one where that was killed."""
    with suppress(ImportError):
        _sweep()
    made = TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
    with suppress(ImportError, OSError):
        _locked(Path(made.name) / _LOCK, os.O_CREAT)  # never closed: the lock tells that somebody lives here
    return made


def _sweep() -> None:
    """Remove the folders of kernels that were killed: those whose lock nobody holds."""
    for lock in Path(gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):
            handle = _locked(lock, 0)
            shutil.rmtree(lock.parent, ignore_errors=True)
            os.close(handle)


def _locked(path: Path, flags: int) -> int:
    """The handle of a file that nobody else has locked. Raises OSError where somebody has."""
    import fcntl

    handle = os.open(path, os.O_RDWR | flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _spooled(pieces: Iterable[bytes], folder: Path) -> StoredText:
    draft = folder / f"{uuid.uuid4().hex}.draft"
    hashed = blake2b(digest_size=16)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb") as file:
                for piece in pieces:
                    hashed.update(piece)
                    file.write(piece)
                size = file.tell()
            target = folder / hashed.hexdigest()
            if not (target.is_file() and target.stat().st_size == size):
                draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return StoredText(Kept(target), blob=target.name)
    except OSError as error:
        raise LogError(f"a long text cannot be kept: {error.strerror or error}", place=str(folder), step="Make room there.") from error
