"""The log as pandas frames: one row per event, message, call, tool run, process and fd; every log has the same columns and dtypes.

Join by `call`, `pid`, `node` (a message's id; with `position` a tool call), `seq` (an event's number) or `cell`. `COLUMNS` documents
every column. Numbers that may be missing are nullable (Int64, Float64), times are UTC, words that repeat are categoricals, text is
`string`. The only file that knows pandas, which is imported with the first frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.event import AnyEvent
from llmproc_nb.core.record import without_collection
from llmproc_nb.drivers.logfile import LogFile
from llmproc_nb.notebook.columns import tables
from llmproc_nb.notebook.pasttree import Table

if TYPE_CHECKING:
    import pandas as pd

TIME, WORD, TEXT, INT, FLOAT, BOOL = "datetime64[ns, UTC]", "category", "string", "Int64", "Float64", "boolean"

COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "events": {
        "seq": (INT, "number of the event within the log, from 1"),
        "time": (TIME, "when it was written down"),
        "kind": (WORD, "what happened: asked, replied, tool_ran …"),
        "pid": (INT, "the process; missing for the machine itself"),
        "process": (WORD, "the process's name"),
        "call": (INT, "the call it belongs to"),
        "cell": (TEXT, "id of the notebook cell it came from"),
        "node": (TEXT, "id of the message it is about"),
        "summary": (TEXT, "one line in words"),
    },
    "messages": {
        "depth": (INT, "how many messages are before it"),
        "role": (WORD, "system, user, assistant or tool"),
        "text": (TEXT, "its words; of tool results: theirs"),
        "process": (WORD, "that process's name"),
        "call": (INT, "the call that brought it"),
        "parts": (TEXT, "kinds of its parts, in order, joined by commas"),
        "interrupted": (BOOL, "a reply that was stopped before its end"),
        "on_path": (TEXT, "names of the processes on whose path it is at the end, joined by commas; missing: a branch that was left"),
        "node": (TEXT, "id: hash of the message and all before it"),
        "parent": (TEXT, "id of the message before it; missing at a root"),
        "time": (TIME, "when it came into the tree"),
        "seq": (INT, "the event that brought it"),
        "pid": (INT, "the process that brought it"),
        "cell": (TEXT, "the cell that brought it"),
        "number": (INT, "the number its process gave it, as in msg_7; missing for system prompts and what was put aside"),
        "aside": (BOOL, "it was put into the tree without its process going on to it, as a shorter copy for a fork"),
    },
    "calls": {
        "call": (INT, "number of the call within the log"),
        "process": (WORD, "the process's name"),
        "prompt": (TEXT, "what it was told"),
        "text": (TEXT, "the last words of the model"),
        "stop": (WORD, "why it ended; missing: it has no end in this log"),
        "error": (TEXT, "what went wrong"),
        "requests": (INT, "replies that came"),
        "retries": (INT, "attempts that failed"),
        "tools": (INT, "tool calls that were answered"),
        "input_tokens": (INT, "all that was read, cached tokens included"),
        "output_tokens": (INT, "all that was written, reasoning included"),
        "cache_read_tokens": (INT, "of the input: read from a cache"),
        "cache_write_tokens": (INT, "of the input: written to a cache"),
        "reasoning_tokens": (INT, "of the output: thinking"),
        "cost_usd": (FLOAT, "dollars; missing where a price is unknown"),
        "duration_s": (FLOAT, "seconds; missing while it has no end"),
        "started": (TIME, "when it began"),
        "model": (WORD, "the model that answered last"),
        "provider": (WORD, "who was asked"),
        "scripted": (BOOL, "no model answered, a script did"),
        "replayed": (BOOL, "all replies came from a recording"),
        "pid": (INT, "the process"),
        "cell": (TEXT, "the cell it came from"),
        "node": (TEXT, "the message it began with"),
        "head": (TEXT, "where the process stood at the end"),
    },
    "tools": {
        "call": (INT, "the call it belongs to"),
        "process": (WORD, "the process's name"),
        "name": (WORD, "the tool"),
        "arguments": (TEXT, "JSON, as the model wrote it"),
        "result": (TEXT, "the words of the answer"),
        "outcome": (WORD, "ran, failed, refused, timed_out, interrupted, or unknown: it has no answer in this log"),
        "error": (TEXT, "the answer, where it is no success"),
        "trace": (TEXT, "where in the tool's own code it failed"),
        "duration_s": (FLOAT, "seconds"),
        "time": (TIME, "when it was answered"),
        "replayed": (BOOL, "the answer came from a recording"),
        "pid": (INT, "the process"),
        "cell": (TEXT, "the cell it came from"),
        "node": (TEXT, "the reply that asked for it"),
        "position": (INT, "which of the reply's calls it is, from 0"),
        "call_id": (TEXT, "the provider's id of it"),
        "seq": (INT, "the event of the answer; of a call that has none: that of its start"),
        "allowed": (BOOL, "whether it might run; missing where nothing had to be decided"),
        "decided_by": (WORD, "what decided that: a rule, a level of access, a person, unattended …"),
        "changed": (BOOL, "a person changed its arguments"),
    },
    "processes": {
        "pid": (INT, "number of the process"),
        "process": (WORD, "its name"),
        "parent_pid": (INT, "the process that made it"),
        "parent": (WORD, "that process's name"),
        "origin": (WORD, "start; fork: it stands on its parent's dialog; or spawn: it began with nothing"),
        "access": (WORD, "what its tools may do: read, write or admin; missing in logs that do not say"),
        "lineage": (TEXT, "its name after those above it"),
        "program": (WORD, "name of its program"),
        "model": (WORD, "the program's model"),
        "provider": (WORD, "who is asked"),
        "scripted": (BOOL, "no model answers, a script does"),
        "started": (TIME, "when it began"),
        "cell": (TEXT, "the cell that started it"),
        "state": (WORD, "at the end: idle, running or killed"),
        "node": (TEXT, "where it began"),
        "head": (TEXT, "where it stood at the end"),
        "depth": (INT, "how many messages are before its head"),
        "calls": (INT, "calls it made"),
        "requests": (INT, "requests it made itself, failed attempts included"),
        "input_tokens": (INT, "tokens it read"),
        "output_tokens": (INT, "tokens it wrote"),
        "cost_usd": (FLOAT, "dollars; missing where a price is unknown"),
    },
    "fds": {
        "process": (WORD, "name of the process that opened it"),
        "number": (INT, "its number there, as in fd:3"),
        "label": (TEXT, "where it came from"),
        "chars": (INT, "characters of the text"),
        "lines": (INT, "lines of the text"),
        "pages": (INT, "pages it has"),
        "page_chars": (INT, "characters of a page; missing where pages are counted in lines"),
        "page_lines": (INT, "lines of a page, as of the rows of a table"),
        "read_chars": (INT, "characters that messages of its process show, searches and forks aside"),
        "digest": (TEXT, "blake2b of the text; equal texts have equal ones"),
        "node": (TEXT, "the reply whose tool call gave it"),
        "position": (INT, "which of the reply's calls that was, from 0"),
        "time": (TIME, "when it was opened"),
        "pid": (INT, "the process"),
        "seq": (INT, "the event"),
    },
    "code": {
        "process": (WORD, "the process in whose sandbox it ran"),
        "code": (TEXT, "the cell"),
        "put": (TEXT, "variables and files that were set from outside instead"),
        "status": (WORD, "ok, error, timed_out, interrupted, or died"),
        "text": (TEXT, "its outputs, in words"),
        "outputs": (INT, "how many outputs it has"),
        "notes": (TEXT, "what was said of it: lost variables, cells that were run again"),
        "duration_s": (FLOAT, "seconds"),
        "cpu_s": (FLOAT, "seconds of computing"),
        "memory_mb": (FLOAT, "what its process had at most"),
        "time": (TIME, "when it had run"),
        "replayed": (BOOL, "what came of it is from a recording"),
        "call": (INT, "the call it belongs to; missing where a person ran it"),
        "pid": (INT, "the process"),
        "cell": (TEXT, "the notebook cell it came from"),
        "node": (TEXT, "the reply that asked for it, or where the process stood"),
        "position": (INT, "which of the reply's calls it was, from 0; missing where a person ran it"),
        "after": (INT, "the cell (seq) whose state it went on from; missing for a fresh sandbox"),
        "seq": (INT, "the event"),
    },
}


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The frames of a log. `COLUMNS` says what is in them."""

    events: pd.DataFrame
    messages: pd.DataFrame
    calls: pd.DataFrame
    tools: pd.DataFrame
    processes: pd.DataFrame
    fds: pd.DataFrame
    code: pd.DataFrame

    def to_parquet(self, folder: str | Path) -> list[Path]:
        """Write each frame to `folder/NAME.parquet`; gives the files."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        files = []
        for name in COLUMNS:
            file = place / f"{name}.parquet"
            getattr(self, name).to_parquet(file, index=False)
            files.append(file)
        return files

    def __repr__(self) -> str:
        return f"<Frames {', '.join(f'{len(getattr(self, name)):,} {name}' for name in COLUMNS)}>"


def frames(events: Iterable[AnyEvent]) -> Frames:
    """The frames of a list of events, of a log that is still being written or of one from disk."""
    with without_collection():
        made = tables(events)
        return Frames(**{name: frame(made[name], columns) for name, columns in COLUMNS.items()})


def frame(table: Table, columns: dict[str, tuple[str, str]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: _column(table[name], dtype) for name, (dtype, _) in columns.items()}, copy=False)


def _column(values: list[Any], dtype: str) -> Any:
    """A list as an array of a dtype; None is missing."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if dtype == TIME:
        stamps = np.array(values, dtype="int64").view("datetime64[ns]")
        return pd.DatetimeIndex(stamps).tz_localize("UTC")
    if dtype == WORD:
        words = sorted(set(values) - {None})
        codes: dict[str | None, int] = {None: -1, **{word: code for code, word in enumerate(words)}}
        numbers = np.array([codes[value] for value in values], dtype="int32")
        return pd.Categorical.from_codes(numbers, categories=pd.Index(words, dtype="str"))  # type: ignore[arg-type]
    if dtype == TEXT:
        return pd.arrays.ArrowStringArray(pa.array(values, type=pa.large_string()))
    missing = np.array([value is None for value in values], dtype="bool") if None in values else np.zeros(len(values), dtype="bool")
    whole = [value or 0 for value in values] if missing.any() else values
    kinds: dict[str, tuple[str, Any]] = {
        INT: ("int64", pd.arrays.IntegerArray),
        FLOAT: ("float64", pd.arrays.FloatingArray),
        BOOL: ("bool", pd.arrays.BooleanArray),
    }
    kind, array = kinds[dtype]
    return array(np.array(whole, dtype=kind), missing)


class FramedLog(LogFile):
    """A log on disk, with its frames."""

    def frames(self) -> Frames:
        """Its frames, made once."""
        made: Frames | None = self.__dict__.get("_frames")
        if made is None:
            made = self.__dict__["_frames"] = frames(self.events)
        return made

    def seen(self, step: int | None = None, **which: Any) -> pd.DataFrame:
        """The messages that went out with a request, or the list of all requests; see `notebook.seen`."""
        from llmproc_nb.notebook.seen import seen

        return seen(self.events, step, **which)

    @property
    def events_frame(self) -> pd.DataFrame:
        return self.frames().events

    @property
    def messages(self) -> pd.DataFrame:
        return self.frames().messages

    @property
    def calls(self) -> pd.DataFrame:
        return self.frames().calls

    @property
    def tools(self) -> pd.DataFrame:
        return self.frames().tools

    @property
    def processes(self) -> pd.DataFrame:
        return self.frames().processes

    @property
    def fds(self) -> pd.DataFrame:
        return self.frames().fds

    @property
    def code(self) -> pd.DataFrame:
        return self.frames().code


def read_log(path: str | Path) -> FramedLog:
    """The log in a file, or the newest one in a folder (or in the `.llmproc` in it). Raises LogError."""
    return FramedLog(path)
