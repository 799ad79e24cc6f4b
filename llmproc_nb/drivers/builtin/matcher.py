"""The matches of a code pattern in many files: the interpreter that finds them (`parser`), begun, listened to, and ended.

It is begun again after a file that it cannot stand, and ended with the call: what a parser does cannot be stopped in another way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

Files: TypeAlias = list[tuple[Path, str]]

PACKAGE = "ast_grep_py"
FILE_BYTES = 1_000_000
"""What is larger was hardly written by hand; the slowest parsers need seconds for so much."""
FILE_S, SEARCH_S, MOST_FAULTS = 5.0, 60.0, 5
MOST_CHARS = 20_000_000
"""Of matches in all: with a pattern for anything each part of the code is shown again within all that it is a part of."""
MEMORY_BYTES = 4 << 30
_NEEDED = ("SYSTEMROOT",)  # no interpreter begins without it where there is one


class Found(msgspec.Struct, kw_only=True):
    """What there is of the files until `done`: the matches as `line: code`, and the faults, by number; the languages that were looked at.

    `refused`: those in which there can be no such pattern, and why; `parts`: those in which it is code only with something around it;
    `broken`: those in which it is none. `end`: why the rest is not searched.
    """

    done: int = 0
    shown: dict[int, list[str]] = {}
    faults: dict[int, str] = {}
    languages: set[str] = set()
    refused: dict[str, str] = {}
    parts: set[str] = set()
    broken: set[str] = set()
    end: str = ""


class Matcher:
    """One search. `end` may be called from any thread, at any time."""

    def __init__(self, pattern: str, *, file_s: float = FILE_S, search_s: float = SEARCH_S) -> None:
        self._pattern, self._file_s, self._search_s = pattern, file_s, search_s
        self._ended = False
        self._running: subprocess.Popen[bytes] | None = None

    def end(self) -> None:
        """Have the search come to its end, wherever it is."""
        self._ended = True
        if self._running is not None:
            self._running.kill()

    def search(self, files: Files) -> Found:
        """What is found in the files, in their order; one that the library cannot stand is a fault, and the others are searched."""
        found, crashes, until = Found(), 0, time.monotonic() + self._search_s
        while found.done < len(files) and not found.end and not self._ended:
            self._run(files, found, until)
            if found.done < len(files) and not found.end:
                found.faults[found.done] = f"the parser of {files[found.done][1]} fails on it, or takes too long"
                found.done, crashes = found.done + 1, crashes + 1
                if crashes >= MOST_FAULTS:
                    found.end = f"its parser failed on {crashes} files"
        return found

    def _run(self, files: Files, found: Found, until: float) -> None:
        """Search as far as one interpreter comes."""
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(Path(__file__).with_name("parser.py")), _site()]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        environ = {key: os.environ[key] for key in _NEEDED if key in os.environ}  # a parser needs to know nothing
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, env=environ, start_new_session=True) as running:
            self._running = running
            try:
                if not self._ended:
                    self._hear(running, files, found, until)
            finally:
                running.kill()

    def _hear(self, running: subprocess.Popen[bytes], files: Files, found: Found, until: float) -> None:
        assert running.stdin is not None and running.stdout is not None
        try:
            running.stdin.write(self._job(files, found))
            running.stdin.close()
        except BrokenPipeError:
            return
        for line in running.stdout:
            _note(found, files, json.loads(line))
            if found.done < len(files) and not found.end and time.monotonic() > until:
                found.end = f"this took more than {self._search_s:g} s"
            if found.end:
                return

    def _job(self, files: Files, found: Found) -> bytes:
        job: dict[str, Any] = {"pattern": self._pattern, "file_bytes": FILE_BYTES, "file_s": self._file_s, "memory_bytes": MEMORY_BYTES}
        job["most_chars"] = MOST_CHARS - sum(len(line) for lines in found.shown.values() for line in lines)
        job["files"] = [(number, str(path), language) for number, (path, language) in enumerate(files) if number >= found.done]
        return json.dumps(job).encode()


def _site() -> str:
    """The folder that the library is imported from."""
    spec = find_spec(PACKAGE)
    return str(Path(spec.origin).parent.parent) if spec is not None and spec.origin else ""


def _note(found: Found, files: Files, said: list[Any]) -> None:
    """Take down what came of one file."""
    number, matches, fault, refusal, part = said
    language = files[number][1]
    found.languages.add(language)
    found.done = number + 1
    if matches:
        found.shown[number] = [f"{line}: {code}" for line, code in matches]
    if refusal:
        found.refused[language] = refusal
    if part != "whole":
        (found.parts if part == "part" else found.broken).add(language)
    if fault == "full":
        found.end = f"these are more than {MOST_CHARS:,} characters"
    elif fault:
        found.faults[number] = fault
