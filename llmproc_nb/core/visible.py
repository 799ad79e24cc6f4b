"""Text of a model or a tool made safe to show: what would move a cursor, reverse or hide text becomes a sign one can see.

Here: characters. Not here: markup (html, markdown).
"""

from __future__ import annotations

import re

from llmproc_nb.core.message import clean

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")
_MARKS = r"\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_PILE = re.compile(f"([{_MARKS}]{{8}})([{_MARKS}]+)")
# C0 but tab and line feed, DEL and C1, soft hyphen, fillers, zero width and bidi controls, invisible operators, interlinear marks,
# noncharacters, tags and the second block of variation selectors
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e01ef]"
)
# a joiner is part of a word or an emoji only between two characters that are not ASCII
_LONE_JOINER = re.compile(r"(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])|(?<=[\u200c\u200d])[\u200c\u200d]")


def visible(text: str) -> str:
    """The text with nothing in it that acts on a terminal or hides: control characters as ␛ or ⟨U+202E⟩, colour codes left out.

    Line ends become one line feed; a pile of more than 8 combining marks is cut and says by how many.
    """
    text = clean(text)
    if text.isascii() and text.isprintable():
        return text
    text = _COLOUR.sub("", text.replace("\r\n", "\n")).replace("\u2028", "\n").replace("\u2029", "\n")
    text = _PILE.sub(lambda found: f"{found[1]}⟨+{len(found[2])} marks⟩", text)
    if not text.isascii():
        text = _LONE_JOINER.sub(_sign, text)
    flags = _FLAG.findall(text) if "\U0001f3f4" in text else []
    if not flags:
        return _UNSEEN.sub(_sign, text)
    pieces = [_UNSEEN.sub(_sign, piece) for piece in _FLAG.split(text)]
    return "".join(piece + flag for piece, flag in zip(pieces, [*flags, ""], strict=True))


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def one_line(text: str, limit_chars: int) -> str:
    """The visible text in one line of at most that many characters; says how long it is where it is longer."""
    short = " ".join(visible(text[: limit_chars * 4]).split())
    if len(short) <= limit_chars and len(text) <= limit_chars * 4:
        return short
    return f"{short[:limit_chars]}… ({len(text):,} characters)"


def capped(text: str, limit_chars: int, where: str = "in the log") -> tuple[str, str]:
    """The text up to a limit, and a note of how long it is and where the rest is; an empty note where it is whole."""
    if len(text) <= limit_chars:
        return text, ""
    return text[:limit_chars], f"the first {limit_chars:,} of {len(text):,} characters; the whole is {where}"
