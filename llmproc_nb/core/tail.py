"""The last words of a process: what it wrote on stderr and, by mistake, on stdout. Here: the bounded buffer and its cleaning."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmproc_nb.core.message import clean
from llmproc_nb.core.provider import HIDDEN

KEPT_BYTES = 16_384
SHOWN_LINES = 8
SHOWN_CHARS = 1200
SHORTEST_SECRET = 6

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


class Tail:
    """Bytes in, the last lines of them out. What is in `secrets` is never shown."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._kept = bytearray()
        self._secrets = sorted({text for text in secrets if len(text) >= SHORTEST_SECRET}, key=len, reverse=True)

    def add(self, data: bytes) -> None:
        self._kept += data[-KEPT_BYTES:]
        if len(self._kept) > 2 * KEPT_BYTES:
            del self._kept[:-KEPT_BYTES]

    def hide(self, text: str) -> str:
        """The text cleaned of what a terminal would obey, and of secrets."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return _CONTROLS.sub("", _ESCAPES.sub("", clean(text)))

    @property
    def lines(self) -> list[str]:
        """The last lines that are not empty, cleaned."""
        text = self.hide(bytes(self._kept[-KEPT_BYTES:]).decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n"))
        return [line.rstrip() for line in text.split("\n") if line.strip()][-SHOWN_LINES:]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)[-SHOWN_CHARS:]

    def last_words(self, chars: int = SHOWN_CHARS) -> str:
        """`It said last: …` for an error, in one line, or nothing where it said nothing."""
        words = " | ".join(line.strip() for line in self.lines)
        words = f"…{words[-chars:]}" if len(words) > chars else words
        return f"It said last: {words}{'' if words.endswith(('.', '!', '?')) else '.'}" if words else ""
