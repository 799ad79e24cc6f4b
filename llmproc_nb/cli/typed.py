"""Lines that a person types: edited by prompt_toolkit on a terminal, else as they come on stdin."""

from __future__ import annotations

import os
import sys
from typing import Any


class Typed:
    """Gives one line after the other. `terminal`: somebody sits there."""

    def __init__(self) -> None:
        self.terminal = sys.stdin.isatty()
        self._edits = self.terminal and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._editor: Any = None

    def line(self, sign: str) -> str | None:
        """The next line without its end; None when there is no more. `sign` stands before it. Raises KeyboardInterrupt."""
        if self._edits:
            return self._edited(sign)
        if self.terminal:
            print(sign, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        return line.rstrip("\r\n") if line else None

    def _edited(self, sign: str) -> str | None:
        if self._editor is None:
            from prompt_toolkit import PromptSession

            self._editor = PromptSession()
        try:
            return str(self._editor.prompt(sign))
        except EOFError:
            return None
