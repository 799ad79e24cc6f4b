"""A wider pattern for RE2, which finds the lines where a pattern may match: it matches wherever the pattern does, and perhaps elsewhere.

RE2 takes a time linear in the text whatever the pattern, lets other threads run and reads 1 GB in about a second; but it knows neither
lookarounds nor references back, and its classes are ASCII. So what it does not know is widened here (a lookaround to nothing, a reference
to anything, `\\w` by all that is not ASCII), and the lines it finds are matched by the real pattern (search). Where a pattern cannot be
widened there is no sieve and every line is matched.
"""

from __future__ import annotations

import re
from typing import Any

_CLASSES = {
    "w": r"\w\x{80}-\x{10FFFF}",
    "d": r"\d\p{Nd}\x{10000}-\x{10FFFF}",  # new digits come with new scripts, and those lie there
    "s": r"\s\x{b}\x{1c}-\x{1f}\x{85}\x{a0}\x{1680}\x{180e}\x{2000}-\x{200b}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}",
}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "a": 7}
_REPEAT = re.compile(r"\{(\d*)(?:(,)(\d*))?\}")
_FLAGS = re.compile(r"\(\?([aimsu]*(?:-[ims]+)?)([:)])")
_NAMED = re.compile(r"\(\?P?<(?![=!])[^>]*>")
_REFERENCE = re.compile(r"\(\?P=\w+\)")
_FOLDS = re.compile(r"\(\?[a-zA-Z]*i")
_FOLDED = r"\x{130}\x{131}\x{17f}\x{212a}"  # what is an i, an s or a k when case is ignored, and is not ASCII
_MOST_REPEATS = 100
_HEX = {"x": 2, "u": 4, "U": 8}


class _TooOdd(Exception):
    """The pattern has something that cannot be widened."""


def sieve(pattern: str, *, ignore_case: bool) -> Any:
    """The compiled sieve of a pattern that is known to be right; None where there is none, or where it would let everything through."""
    try:
        import re2  # type: ignore[import-untyped]
    except ImportError:
        return None
    folds = ignore_case or bool(_FOLDS.search(pattern))
    options = re2.Options()
    options.never_nl, options.one_line, options.never_capture, options.log_errors = True, False, True, False
    try:
        made = re2.compile(("(?mi)" if folds else "(?m)") + widened(pattern, folds=folds), options)
    except (_TooOdd, RecursionError, IndexError, re2.error):
        return None
    return None if made.search(b"") else made


def widened(pattern: str, *, folds: bool) -> str:
    """The pattern in RE2's words."""
    reader = _Reader(pattern, folds)
    wide = reader.alternatives()
    if reader.at != len(pattern):
        raise _TooOdd
    return wide


class _Reader:
    def __init__(self, pattern: str, folds: bool) -> None:
        self.pattern, self.folds, self.at = pattern, folds, 0

    def alternatives(self) -> str:
        """Everything up to the end, or to the bracket that closes the group."""
        out: list[str] = []
        while self.at < len(self.pattern) and self.pattern[self.at] != ")":
            if self.pattern[self.at] == "|":
                out.append("|")
                self.at += 1
            else:
                out.append(self.item() + self.repeat())
        return "".join(out)

    def item(self) -> str:
        sign = self.pattern[self.at]
        if sign == "(":
            return self.group()
        if sign == "[":
            return self.char_class()
        if sign == "\\":
            return self.escape()
        if sign in "*+?" or (sign == "{" and self.pattern[self.at + 1 : self.at + 2] in tuple("eids0123456789,<")):
            raise _TooOdd
        self.at += 1
        return {"^": "(?:^)", "$": r"(?:\r?$)", ".": "."}.get(sign) or self.literal(ord(sign))

    def repeat(self) -> str:
        sign = self.pattern[self.at : self.at + 1]
        if sign == "{":
            made = self.counted()
        elif sign and sign in "*+?":
            self.at += 1
            made = sign
        else:
            return ""
        if self.pattern[self.at : self.at + 1] in ("?", "+"):  # lazy or possessive: where it matches is the same, or wider
            self.at += 1
        return made

    def counted(self) -> str:
        found = _REPEAT.match(self.pattern, self.at)
        if found is None:
            if self.pattern[self.at + 1 : self.at + 2] in tuple("eids0123456789,<"):
                raise _TooOdd  # a fuzzy match
            return ""  # a bracket as it stands
        least, most = int(found[1] or 0), int(found[3] or 0) if found[2] else int(found[1] or 0)
        if not found[1] and not found[3]:
            raise _TooOdd
        self.at = found.end()
        if max(least, most) > _MOST_REPEATS:
            return "*"
        return f"{{{least},{found[3]}}}" if found[2] else f"{{{least}}}"

    def group(self) -> str:
        for kind in ("(?=", "(?!", "(?<=", "(?<!"):
            if self.pattern.startswith(kind, self.at):
                self.body(len(kind))
                return "(?:)"
        for kind in ("(?:", "(?>"):
            if self.pattern.startswith(kind, self.at):
                return f"(?:{self.body(3)})"
        if found := _REFERENCE.match(self.pattern, self.at):
            self.at = found.end()
            return "(?:.*)"
        if found := _NAMED.match(self.pattern, self.at):
            return f"(?:{self.body(len(found[0]))})"
        if found := _FLAGS.match(self.pattern, self.at):
            if found[2] == ":":
                return f"(?:{self.body(len(found[0]))})"
            self.at = found.end()
            return ""
        if self.pattern[self.at + 1] in "?*":
            raise _TooOdd
        return f"(?:{self.body(1)})"

    def body(self, skip: int) -> str:
        self.at += skip
        inner = self.alternatives()
        if self.pattern[self.at] != ")":
            raise _TooOdd
        self.at += 1
        return inner

    def escape(self) -> str:
        letter = self.pattern[self.at + 1]
        self.at += 2
        if letter in _CLASSES:
            return f"[{_CLASSES[letter]}]"
        if letter in "DWS":
            return f"\\{letter}"
        if letter in "bB":
            return "(?:)"
        if letter in "AZz":
            return "(?:^)" if letter == "A" else r"(?:\r?$)"
        if letter.isdigit():
            self.digits()
            return "(?:.*)"
        code = self.code(letter)
        return "." if code is None else self.literal(code)

    def code(self, letter: str) -> int | None:
        """The character of an escape; None for any one character."""
        if letter in _CONTROLS:
            return _CONTROLS[letter]
        if letter in _HEX:
            word = self.pattern[self.at : self.at + _HEX[letter]]
            if len(word) != _HEX[letter] or not re.fullmatch("[0-9a-fA-F]+", word):
                raise _TooOdd
            self.at += len(word)
            return int(word, 16)
        if letter in "pPN" and self.pattern[self.at] == "{":
            self.at = self.pattern.index("}", self.at) + 1 if "}" in self.pattern[self.at :] else len(self.pattern) + 1
            return None
        if letter.isalpha():
            raise _TooOdd
        return ord(letter)

    def digits(self) -> None:
        for _ in range(2):
            if self.pattern[self.at : self.at + 1].isdigit():
                self.at += 1

    def literal(self, code: int) -> str:
        """A character; with case ignored, whatever may count as the same."""
        if self.folds and code >= 0x80:
            return "."
        return rf"(?:\x{{{code:x}}}|[{_FOLDED}])" if self.folds and chr(code).isalpha() else rf"\x{{{code:x}}}"

    def char_class(self) -> str:
        self.at += 1
        negated = self.pattern[self.at] == "^"
        self.at += negated
        out: list[str] = []
        anything = self.folds and negated
        first = True
        while first or self.pattern[self.at] != "]":
            first = False
            sign = self.pattern[self.at]
            self.at += 1
            if sign == "[" and self.pattern[self.at] in ":.=":
                raise _TooOdd
            if sign != "\\":
                out.append("-" if sign == "-" else rf"\x{{{ord(sign):x}}}")
                anything |= self.folds and ord(sign) >= 0x80
                continue
            letter = self.pattern[self.at]
            self.at += 1
            if letter in _CLASSES:
                out.append(rf"\{letter}" if negated else _CLASSES[letter])
            elif letter in "DWS":
                out.append(rf"\{letter}")
                anything |= negated
            elif letter.isdigit():
                self.digits()
                anything = True
            else:
                code = 8 if letter == "b" else self.code(letter)
                anything |= code is None or (self.folds and code >= 0x80)
                out.append(rf"\x{{{code or 0:x}}}")
        self.at += 1
        if anything:
            return "."
        return f"[{'^' if negated else ''}{''.join(out)}{_FOLDED if self.folds else ''}]"
