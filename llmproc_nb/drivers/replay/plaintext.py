"""A text in memory behind core's LongText, for fds of a run that is made again: nobody searches it, its readers' answers are recorded."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from hashlib import blake2b

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.longtext import Found


class PlainText:
    """A text as one string."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._text = "".join(pieces)

    @property
    def chars(self) -> int:
        return len(self._text)

    @property
    def lines(self) -> int:
        return self._text.count("\n") + (bool(self._text) and not self._text.endswith("\n"))

    @cached_property
    def digest(self) -> str:
        return blake2b(self._text.encode(errors="replace"), digest_size=16).hexdigest()

    def slice(self, start: int, stop: int) -> str:
        return self._text[max(0, start) : max(0, stop)]

    def line_start(self, line: int) -> int:
        at = 0
        for _ in range(line - 1):
            at = self._text.find("\n", at) + 1
            if not at:
                return self.chars
        return at

    def line_at(self, char: int) -> int:
        return max(1, min(self._text.count("\n", 0, max(0, char)) + 1, self.lines))

    def search(
        self,
        pattern: str,
        *,
        context_lines: int = 0,
        limit: int = 50,
        start_char: int = 0,
        ignore_case: bool = False,
        timeout_s: float = 10.0,
    ) -> Found:
        raise ToolError("nothing is searched when a log is run again", right="what was found is in the log")
