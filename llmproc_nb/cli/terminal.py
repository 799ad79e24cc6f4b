"""The two streams of a command: answers on stdout, everything else on stderr. Here: what goes where, and that it acts on no terminal.

Not here: what is said of a call (channel).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from llmproc_nb.core.errors import LlmprocError, PersonError
from llmproc_nb.core.visible import one_line, visible


class UsageError(PersonError):
    """Flags that do not go together, or too few of them."""


class OutputError(LlmprocError):
    """Stdout cannot be written: a full disk, most of the time."""


class Terminal:
    """`live`: stdout is a terminal, so that an answer can be shown as it grows. `quiet`: nothing but errors on stderr."""

    def __init__(self, *, quiet: bool = False, live: bool = True) -> None:
        self.quiet = quiet
        self.live = live and sys.stdout.isatty()
        self._one_screen = self.live and sys.stderr.isatty()
        self._in_line = False

    def piece(self, text: str) -> None:
        """A piece of an answer, on its way to a terminal."""
        if text:
            with _written():
                sys.stdout.write(visible(text))
            self._in_line = not text.endswith("\n")

    def end(self) -> None:
        """End the line that pieces left open."""
        if self._in_line:
            self.piece("\n")

    def text(self, text: str) -> None:
        """A whole text to stdout, with a line feed at its end; as it is where stdout is no terminal."""
        with _written():
            if text:
                sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
                sys.stdout.write("" if text.endswith("\n") else "\n")

    def json(self, *values: Any) -> None:
        """Values to stdout as JSON, one a line, in UTF-8 whatever stdout prefers."""
        with _written():
            for value in values:
                sys.stdout.buffer.write(msgspec.json.encode(value, enc_hook=repr) + b"\n")

    def note(self, text: str) -> None:
        """A line on stderr, unless quiet."""
        if not self.quiet:
            self.line(text)

    def loud(self, text: str) -> None:
        """A line on stderr that cannot be overlooked, unless quiet."""
        colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        if not self.quiet:
            self._write(f"\x1b[7m {text} \x1b[0m" if colours else text)

    def line(self, text: str) -> None:
        """A line on stderr."""
        self._write(visible(text))

    def _write(self, text: str) -> None:
        if self._one_screen:
            self.end()
        with suppress(OSError):  # nobody reads the remarks any more; the answer still counts
            print(text, file=sys.stderr, flush=True)


@contextmanager
def _written() -> Iterator[None]:
    """See to it that what is written arrives. Raises OutputError, and BrokenPipeError where nobody reads."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"stdout cannot be written: {error.strerror or error}") from None


def shortened(text: str, limit_chars: int) -> str:
    """The visible text in one line, with … where it is longer than the limit."""
    words = " ".join(text[: 4 * limit_chars].split())
    return one_line(words if len(words) <= limit_chars else words[: limit_chars - 1] + "…", limit_chars)
