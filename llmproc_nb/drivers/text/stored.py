"""A long text over its bytes and their index: any range of characters or line from one or two blocks.

Here: reading. Not here: searching (search), where the bytes lie (source), what a page is (core).
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from llmproc_nb.core.longtext import Found
from llmproc_nb.drivers.text.index import Index
from llmproc_nb.drivers.text.source import Foreign, Kept, Source, changed

COPY_BYTES = 1 << 20


class StoredText:
    """A text that reads itself in pieces: core's LongText. `blob` is the name of the file in its folder that holds it, None elsewhere."""

    def __init__(self, source: Source, *, blob: str | None = None) -> None:
        self.source, self.blob = source, blob
        self.index = Index(source)
        self._digest = blob if self.index.exact else None

    @property
    def chars(self) -> int:
        return self.index.chars[-1]

    @property
    def lines(self) -> int:
        return self.index.feeds[-1] + (self.chars > 0 and not self.index.ends_with_feed)

    @property
    def size_bytes(self) -> int:
        """The length of the original bytes."""
        return self.source.size

    @property
    def path(self) -> Path | None:
        """The file it is read from; None for a text in memory."""
        return self.source.path if isinstance(self.source, Kept | Foreign) else None

    @property
    def digest(self) -> str:
        """blake2b of the text as UTF-8. For a file read where it lies the first look costs one more pass, about a second per GB."""
        if self._digest is None:
            hashed = blake2b(digest_size=16)
            for number in range(self.index.blocks):
                hashed.update(self.utf8(number))
            self._digest = hashed.hexdigest()
        return self._digest

    def slice(self, start: int, stop: int) -> str:
        index = self.index
        start, stop = max(0, start), min(stop, self.chars)
        pieces: list[str] = []
        number = index.block_of_char(start) if start < stop else index.blocks
        while number < index.blocks and index.chars[number] < stop:
            before = index.chars[number]
            pieces.append(self.block(number)[max(0, start - before) : stop - before])
            number += 1
        return "".join(pieces)

    def line_start(self, line: int) -> int:
        if line <= 1:
            return 0
        if line > self.lines:
            return self.chars
        number = self.index.block_of_feed(line - 1)
        return self.index.chars[number] + _after_feed(self.block(number), line - 1 - self.index.feeds[number])

    def line_at(self, char: int) -> int:
        if not self.chars:
            return 1
        char = max(0, char)
        number = self.index.block_of_char(char)
        feeds = self.index.feeds[number] + self.block(number).count("\n", 0, char - self.index.chars[number])
        return min(feeds + 1, self.lines)

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
        from llmproc_nb.drivers.text.search import search

        return search(
            self, pattern, context_lines=context_lines, limit=limit, start_char=start_char, ignore_case=ignore_case, timeout_s=timeout_s
        )

    def block(self, number: int) -> str:
        """The characters of a block."""
        text = self._bytes(number).decode(errors="replace")
        if len(text) != self.index.chars[number + 1] - self.index.chars[number]:
            raise changed(self.path or Path(), "in a way that shows neither in its size nor in its time")
        return text

    def utf8(self, number: int) -> bytes:
        """The characters of a block as UTF-8."""
        data = self._bytes(number)
        return data.decode(errors="replace").encode() if number in self.index.broken else data

    def original(self) -> Iterator[bytes]:
        """The bytes that the text came from, in pieces."""
        for at in range(0, self.source.size, COPY_BYTES):
            yield self.source.read(at, at + COPY_BYTES)

    def _bytes(self, number: int) -> bytes:
        return self.source.read(self.index.starts[number], self.index.starts[number + 1])

    def __repr__(self) -> str:
        return f"<StoredText {self.chars:,} characters, {self.lines:,} lines>"


def _after_feed(text: str, nth: int) -> int:
    """Where the character after the nth line feed is."""
    if nth > 64:  # one pass in C over the whole block instead of a step in Python for each line
        return sum(map(len, text.split("\n", nth)[:nth])) + nth
    at = 0
    for _ in range(nth):
        at = text.index("\n", at) + 1
    return at
