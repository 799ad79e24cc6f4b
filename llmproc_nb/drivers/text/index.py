"""Where characters and lines are in the bytes of a text: for each block of 256 KB how many of both come before it. 1 GB needs 100 KB.

Made in one pass. Bytes that are no UTF-8 count as what `errors="replace"` makes of them; blocks are cut where that does not change it.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable

from llmproc_nb.drivers.text.source import Source

BLOCK_BYTES = 256 * 1024
_MANY_BYTES = 16 * 1024 * 1024
_WORTH_AN_IMPORT_BYTES = 256 * 1024 * 1024


class Index:
    """Block b holds bytes `starts[b]` to before `starts[b + 1]`; `chars[b]` characters and `feeds[b]` line feeds come before it."""

    def __init__(self, source: Source) -> None:
        self.starts, self.chars, self.feeds = array("Q", [0]), array("Q", [0]), array("Q", [0])
        self.broken: set[int] = set()
        self.ends_with_feed = False
        count_feeds = _counter(source.size)
        at = chars = feeds = 0
        while at < source.size:
            block = source.read(at, at + BLOCK_BYTES)
            if at + len(block) < source.size:
                block = block[: safe_end(block)]
            at += len(block)
            chars += self._length(block)
            feeds += count_feeds(block)
            self.starts.append(at)
            self.chars.append(chars)
            self.feeds.append(feeds)
            self.ends_with_feed = block.endswith(b"\n")

    @property
    def exact(self) -> bool:
        """Whether the bytes are right UTF-8; `broken` are the blocks where they are not."""
        return not self.broken

    @property
    def blocks(self) -> int:
        return len(self.starts) - 1

    def block_of_char(self, char: int) -> int:
        """The block that holds a character; for the end of the text the last one."""
        return min(bisect_right(self.chars, char) - 1, self.blocks - 1)

    def block_of_feed(self, feed: int) -> int:
        """The block that holds the line feed of that number, from 1."""
        return bisect_left(self.feeds, feed) - 1

    def _length(self, block: bytes) -> int:
        if block.isascii():
            return len(block)
        try:
            return len(block.decode())
        except UnicodeDecodeError:
            self.broken.add(len(self.starts) - 1)
            return len(block.decode(errors="replace"))


def safe_end(block: bytes) -> int:
    """The last place at which a block can be cut without cutting a character: before a byte that begins one, or after three that cannot."""
    if block[-1] < 0x80:
        return len(block)
    for back in range(1, 4):
        if block[-back] & 0xC0 != 0x80:
            return len(block) - back
    return len(block)


def _counter(size: int) -> Callable[[bytes], int]:
    """What counts line feeds. Up to Python 3.12 `count` costs more than all the rest of the pass; numpy, once it is there, does not."""
    if size >= (_MANY_BYTES if "numpy" in sys.modules else _WORTH_AN_IMPORT_BYTES):
        try:
            import numpy
        except ImportError:
            pass
        else:
            return lambda block: int(numpy.count_nonzero(numpy.frombuffer(block, numpy.uint8) == 10))
    return lambda block: block.count(b"\n")
