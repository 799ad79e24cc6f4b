"""The log on disk: one line of JSON per event, long content in files beside it. Here: writing. Not here: reading (logfile).

`.llmproc/NOTEBOOK-RUN.jsonl` is the log of one kernel run, `recordings/NAME.jsonl` what a replay answers from; both are the same format,
with the blobs of each in a folder `….blobs` beside it. A line is handed to the system in one piece before `write` returns, so a killed
kernel loses nothing that was acknowledged.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal

from llmproc_nb.core.errors import LogError
from llmproc_nb.core.event import AnyEvent, Opened, Replied, ServerRead, ToolStarted
from llmproc_nb.core.line import FOLDER as FOLDER
from llmproc_nb.core.line import Blobs, blob_folder, encode, log_stem
from llmproc_nb.core.log import Store

RECORDINGS = "recordings"
_NEW = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)


class JsonlStore:
    """Appends events to a file. It comes into being with the first event after Opened: a run in which nothing happens leaves none."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._blobs = str(blob_folder(self.path))
        self._fd: int | None = None
        self._size = 0
        self._under_way: tuple[AnyEvent, int] | None = None
        self._waiting: list[AnyEvent] = []

    @property
    def blobs(self) -> Path:
        """Where long content lies."""
        return blob_folder(self.path)

    def write(self, event: AnyEvent) -> None:
        """Keep the event on disk. Raises LogError when that fails; the event then waits and is written first next time."""
        self._waiting.append(event)
        if self._fd is not None or not isinstance(event, Opened):
            self.flush()

    def flush(self) -> None:
        """Write what waits, in order. Raises LogError when that fails."""
        try:
            fd = self._open() if self._fd is None else self._fd
            if self._under_way is not None:
                self._settle(fd, *self._under_way)
            while self._waiting:
                self._append(fd, self._waiting[0])
        except OSError as error:
            raise self._fault(error) from error

    def set_aside(self) -> None:
        """Begin the log anew; what it holds stays beside it. Raises LogError where that fails or somebody else writes it."""
        try:
            fd = self._open() if self._fd is None else self._fd
            if self._size:
                _keep_beside(self.path, _read_at(fd, 0))
            os.ftruncate(fd, 0)
            self._size = 0
        except OSError as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Give the file back, after a last try to write what waits."""
        try:
            if any(not isinstance(event, Opened) for event in self._waiting):
                self.flush()
        finally:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _append(self, fd: int, event: AnyEvent) -> None:
        line, blobs = encode(event)
        if blobs:
            self._keep(blobs)
        data = line + b"\n"
        self._under_way = event, self._size + len(data)
        _write(fd, data)
        self._size += len(data)
        del self._waiting[0]
        self._under_way = None

    def _settle(self, fd: int, event: AnyEvent, end: int) -> None:
        """Find out what became of a write that was cut short, by a full disk or an interrupt: a whole line counts, a part is cut off."""
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            if status.st_size == end:
                self._size = end
                if self._waiting and self._waiting[0] is event:
                    del self._waiting[0]
            elif status.st_size > self._size:
                os.ftruncate(fd, self._size)
        self._under_way = None

    def _open(self) -> int:
        _make_folder(self.path.parent)
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            _lock(fd)
            self._size = _mended_size(fd)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return fd

    def _keep(self, blobs: Blobs) -> None:
        """Write content into files of its own, before the line that names them. One that a killed writer left torn is written again."""
        for name, data in blobs.items():
            path = os.path.join(self._blobs, name)
            fd = self._blob(path, len(data))
            if fd is None:
                continue
            try:
                _write(fd, data)
            except OSError:
                with suppress(OSError):
                    os.truncate(path, 0)  # room for others; its size says that it is not whole
                raise
            finally:
                os.close(fd)

    def _blob(self, path: str, size: int) -> int | None:
        """A new file for a blob; None where it is there already, whole as its size says."""
        try:
            return os.open(path, _NEW | os.O_EXCL, 0o600)
        except FileNotFoundError:
            _make_folder(Path(self._blobs))
        except FileExistsError:
            if os.stat(path).st_size == size:
                return None
        return os.open(path, _NEW | os.O_TRUNC, 0o600)

    def _fault(self, error: OSError) -> LogError:
        with suppress(OSError):  # whatever is wrong with the file now is tried again with the next write
            if self._fd is not None and self._under_way is not None:
                self._settle(self._fd, *self._under_way)
        waiting = f"{len(self._waiting)} event{'s wait' if len(self._waiting) > 1 else ' waits'} in memory and will be written first"
        step = "Make room on the disk, then go on." if error.errno in (28, 27, 122) else "Mend that, then go on."
        why = "another kernel is writing it" if isinstance(error, BlockingIOError) else error.strerror or error
        return LogError(f"the log cannot be written: {why}", place=str(self.path), right=waiting, step=step)


class RecordingStore:
    """Keeps a recording. In mode `record` what was there makes room and stays beside it; in mode `auto` only a run with news is added.

    So running a recorded notebook again in mode `auto` leaves the file as it is, and a recording holds one run where it was recorded again.
    """

    def __init__(self, path: str | Path, mode: Literal["record", "auto"]) -> None:
        self._store = JsonlStore(path)
        self._mode = mode
        self._held: list[AnyEvent] | None = []

    def write(self, event: AnyEvent) -> None:
        if self._held is None:
            self._store.write(event)
            return
        self._held.append(event)
        if self._is_news(event):
            self._begin()

    def _is_news(self, event: AnyEvent) -> bool:
        if self._mode == "record":
            return isinstance(event, Replied)  # before there is an answer nothing is worth the place of what was recorded
        return isinstance(event, ToolStarted) or (isinstance(event, Replied | ServerRead) and not event.replayed)

    def _begin(self) -> None:
        """Write what was held back, and everything from now on."""
        if self._mode == "record":
            self._store.set_aside()
        held, self._held = self._held or [], None
        fault: LogError | None = None
        for event in held:
            try:
                self._store.write(event)
            except LogError as error:  # the store keeps it; the others must reach it too
                fault = error
        if fault is not None:
            raise fault

    def close(self) -> None:
        self._store.close()


class Tee:
    """Several stores as one; each gets every event, whatever happens to the others."""

    def __init__(self, *stores: Store) -> None:
        self.stores = stores

    def write(self, event: AnyEvent) -> None:
        fault: LogError | None = None
        for store in self.stores:
            try:
                store.write(event)
            except LogError as error:
                fault = fault or error
        if fault is not None:
            raise fault

    def close(self) -> None:
        for store in self.stores:
            store.close()


def open_store(folder: str | Path, notebook: str | None, now_ns: int, *, software: str = "llmproc-nb") -> tuple[JsonlStore, dict[str, Any]]:
    """A new log in `.llmproc` below the notebook's folder, and the fields of the Opened event it begins with."""
    when = datetime.fromtimestamp(now_ns / 1e9, UTC)
    run = f"{when:%Y%m%dT%H%M%S}.{now_ns // 1_000_000 % 1000:03d}Z-{os.getpid()}"
    stem = log_stem(notebook) if notebook else "kernel"
    path, number = Path(folder) / FOLDER / f"{stem}-{run}.jsonl", 2
    while path.exists():
        path, number = path.with_name(f"{stem}-{run}-{number}.jsonl"), number + 1
    opened = {"run": run, "software": software}
    return JsonlStore(path), {**opened, "notebook": Path(notebook).name} if notebook else opened


def recording_path(folder: str | Path, name: str) -> Path:
    """Where the recording of that name lies: `recordings/NAME.jsonl`; a path is taken as it is."""
    given = Path(name)
    if given.suffix == ".jsonl" or len(given.parts) > 1:
        return Path(folder) / given
    return Path(folder) / RECORDINGS / f"{name}.jsonl"


def place_beside(path: Path) -> Path:
    """Where a recording stays when another one takes its place: NAME.1.jsonl beside it, or the next number that is free."""
    places = (path.with_name(f"{path.stem}.{number}{path.suffix or '.jsonl'}") for number in count(1))
    return next(place for place in places if not place.exists() and not blob_folder(place).exists())


def name_beside(name: str, place: Path) -> str:
    """What finds a recording at a place beside the one that `name` finds."""
    given = Path(name)
    return str(given.with_name(place.name)) if given.suffix == ".jsonl" or len(given.parts) > 1 else place.stem


def _keep_beside(path: Path, data: bytes) -> None:
    """Put what a log holds, and its blobs, in a place of their own; all of it, or nothing."""
    place, blobs = place_beside(path), blob_folder(path)
    try:
        _write_file(place, data)
        if blobs.is_dir():
            blobs.rename(blob_folder(place))
    except OSError:
        with suppress(OSError):
            place.unlink()
        raise


def _lock(fd: int) -> None:
    """Make sure that nobody else writes this file, where the system can tell."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _mended_size(fd: int) -> int:
    """The length of the file, after a torn last line that an earlier writer left is cut off."""
    status = os.fstat(fd)
    size = status.st_size
    if not size or not stat.S_ISREG(status.st_mode) or _read_at(fd, size - 1) == b"\n":
        return size
    whole = _read_at(fd, 0).rfind(b"\n") + 1
    os.ftruncate(fd, whole)
    return whole


def _read_at(fd: int, place: int) -> bytes:
    """Everything from a place on."""
    os.lseek(fd, place, os.SEEK_SET)
    pieces = []
    while piece := os.read(fd, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if folder.parent.name == FOLDER:
        _make_folder(folder.parent)
    private = FOLDER in folder.parts
    folder.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    if folder.name == FOLDER:
        _write_file(folder / ".gitignore", b"*\n")


def _write_file(path: Path, data: bytes) -> None:
    fd = os.open(path, _NEW | os.O_TRUNC, 0o600)
    try:
        _write(fd, data)
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    """Write all of it."""
    done = os.write(fd, data)
    while done < len(data):  # the disk is filling up: the next try either works or says what is wrong
        done += os.write(fd, data[done:])
