"""Logs read back: which files there are, and what is in one. Not here: writing (jsonl), what events mean (record), frames (notebook)."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from llmproc_nb.core.dialog import Dialog
from llmproc_nb.core.errors import LogError
from llmproc_nb.core.event import AnyEvent, Appended, Called, Event, Merged, Opened, Replied, Sent, Started, ToolRan
from llmproc_nb.core.line import FOLDER, UnknownEvent, blob_folder, blob_name, decode, decode_all, log_stem
from llmproc_nb.core.record import tree, without_collection


class _Read(NamedTuple):
    events: tuple[AnyEvent, ...]
    unknown: tuple[UnknownEvent, ...]
    notes: tuple[str, ...]
    torn: bool


class LogFile:
    """A log on disk. It is read when something of it is first asked for.

    A file may hold several runs, one after the other; numbers (seq, pid, call) of the later ones go on where the earlier ones ended, so
    each is unique within `events`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = find_log(path)

    @property
    def events(self) -> tuple[AnyEvent, ...]:
        """All events, oldest first. Raises LogError where the file is broken in the middle."""
        return self._read.events

    @property
    def unknown(self) -> tuple[UnknownEvent, ...]:
        """Events of kinds that this version does not know."""
        return self._read.unknown

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the file: a torn end, unknown kinds, missing lines."""
        return self._read.notes

    @property
    def torn(self) -> bool:
        """Whether the last line was not whole (its writer was killed) and is left out."""
        return self._read.torn

    @cached_property
    def _read(self) -> _Read:
        return _read(self.path)

    def dialog(self) -> Dialog:
        """The tree of all messages, each node's id computed again. Raises LogError at the first one that differs."""
        return tree(self.events, place=self.path.name)

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        return f"<LogFile {self.path.name}: {'; '.join(self._facts())}>"

    def _repr_markdown_(self) -> str:
        name = self.path.name.replace("`", "")
        return "\n".join([f"**Log** `{name}`", "", *(f"- {fact}" for fact in self._facts())])

    def _facts(self) -> list[str]:
        events = self.events
        kinds = Counter(type(event) for event in events)
        names = Counter(event.name for event in events if isinstance(event, Started))
        listed = ", ".join(name if count == 1 else f"{name} ({count} times)" for name, count in names.items())
        counts = [
            _count(len(events), "event"),
            _count(kinds[Called], "call"),
            _count(kinds[Replied], "reply"),
            _count(kinds[ToolRan], "tool run"),
            _count(kinds[Appended], "message"),
        ]
        facts = [", ".join(counts), f"processes: {listed or 'none'}"]
        if events:
            facts.append(f"{_when(events[0])} to {_when(events[-1])} UTC" + (f", {kinds[Opened]} runs" if kinds[Opened] > 1 else ""))
        return [*facts, *self.notes]


def find_log(path: str | Path) -> Path:
    """The log at a path: a file itself; of a folder its newest one, or that of the `.llmproc` in it. Raises LogError when there is none."""
    given = Path(path).expanduser()
    if given.is_file():
        return given
    found = list_logs(given)
    if found:
        return found[0]
    what = "this folder has no logs" if given.is_dir() else "there is no such file or folder"
    raise LogError(
        what, place=str(path), right="a log is a file whose name ends in .jsonl", step="Logs of notebooks lie in .llmproc beside them."
    )


def list_logs(folder: str | Path, notebook: str | None = None) -> list[Path]:
    """The logs in a folder or in the `.llmproc` in it, newest first; of one notebook only, if named."""
    place = Path(folder)
    if (place / FOLDER).is_dir():
        place = place / FOLDER
    if not place.is_dir():
        return []
    stem = re.escape(log_stem(notebook)) if notebook else ""
    of_this = re.compile(rf"{stem}-\d{{8}}T\d{{6}}\..*" if notebook else ".*")
    files = [file for file in place.glob("*.jsonl") if of_this.fullmatch(file.name)]
    return sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)


def _read(path: Path) -> _Read:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LogError(f"the log cannot be read: {error.strerror or error}", place=str(path)) from error
    with without_collection():
        plain = decode_all(data)
        events, unknown, torn = (plain, [], False) if plain is not None else _read_lines(path, data)
        joined = _joined(events)
        return _Read(joined, tuple(unknown), _notes(joined, unknown, torn), torn)


def _read_lines(path: Path, data: bytes) -> tuple[list[AnyEvent], list[UnknownEvent], bool]:
    """Events, unknown events, and whether the last line is torn; line by line."""
    lines = data.split(b"\n")
    blobs = blob_folder(path)

    def fetch(name: str) -> bytes:
        try:
            data = (blobs / name).read_bytes()
        except OSError as error:
            raise LogError(f"its content in {blobs.name}/{name} cannot be read: {error.strerror or error}") from error
        if blob_name(data) != name:
            raise LogError(f"its content in {blobs.name}/{name} was changed", right="the file's name is the hash of its content")
        return data

    while lines and not lines[-1].strip():
        lines.pop()
    events: list[AnyEvent] = []
    unknown: list[UnknownEvent] = []
    torn = False
    for number, line in enumerate(lines, 1):
        try:
            event = decode(line, fetch)
        except LogError as error:
            if number == len(lines) and not data.endswith(b"\n") and _is_cut(line):
                torn = True
                break
            error.place = f"{path.name}, line {number}"
            raise
        if isinstance(event, UnknownEvent):
            unknown.append(event)
        else:
            events.append(event)
    return events, unknown, torn


def _is_cut(line: bytes) -> bool:
    """Whether a line that is no event is not even whole JSON."""
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, ValueError):
        return True
    return False


def _joined(events: list[AnyEvent]) -> tuple[AnyEvent, ...]:
    """The events of all runs as one: numbers of later runs are moved up."""
    starts = [index for index, event in enumerate(events) if isinstance(event, Opened)]
    if len(starts) < 2:
        return tuple(events)
    joined: list[AnyEvent] = []
    seqs = pids = calls = 0
    for start, end in pairwise([0, *starts[1:], len(events)]):
        run = [_moved_up(event, seqs, pids, calls) for event in events[start:end]]
        seqs = max((event.seq for event in run), default=seqs)
        pids = max((event.pid for event in run), default=pids)
        calls = max((event.call or calls for event in run), default=calls)
        joined += run
    return tuple(joined)


def _moved_up(event: AnyEvent, seqs: int, pids: int, calls: int) -> AnyEvent:
    fields: dict[str, object] = {"seq": event.seq + seqs}
    if event.pid:
        fields["pid"] = event.pid + pids
    if event.call is not None:
        fields["call"] = event.call + calls
    if isinstance(event, Appended) and event.results:
        fields["results"] = tuple(seq + seqs for seq in event.results)
    if isinstance(event, Started) and event.parent_pid is not None:
        fields["parent_pid"] = event.parent_pid + pids
    if isinstance(event, Sent) and event.sender is not None:
        fields["sender"] = event.sender + pids
    if isinstance(event, Merged):
        fields["child"] = event.child + pids
    return msgspec.structs.replace(event, **fields)


def _notes(events: tuple[AnyEvent, ...], unknown: list[UnknownEvent], torn: bool) -> tuple[str, ...]:
    notes = []
    if unknown:
        kinds = ", ".join(sorted({event.kind for event in unknown}))
        notes.append(f"{_count(len(unknown), 'event')} of kinds this version does not know: {kinds}")
    missing = 0 if unknown else sum(later.seq - earlier.seq != 1 for earlier, later in pairwise(events))
    if missing:
        notes.append(f"lines are missing or out of order at {_count(missing, 'place')}")
    if torn:
        notes.append("the last line is torn and left out: its writer was stopped while writing")
    return tuple(notes)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what if number == 1 else what.removesuffix('y') + 'ies' if what.endswith('y') else what + 's'}"


def _when(event: Event) -> str:
    return f"{datetime.fromtimestamp(event.time_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}"
