"""Matches of a code pattern in files, found in an interpreter of its own: this file is its script, and imports nothing of this project.

Parsers are foreign code: on some files they take minutes without letting another thread run, on others they end the whole process.
Here that costs one file, in a notebook's kernel it would cost the notebook. On stdin comes one job, on stdout goes one line of JSON for
each file once it is done: `[number, [[line, code], …], fault, refusal, part]`. `fault` says why a file was not searched (`full`: no more
is wanted), `refusal` why the language takes no such pattern, `part` that in it the pattern is not `whole` code: only with something
around it, or never (`broken`).
"""

from __future__ import annotations

import codecs
import json
import os
import re
import signal
import sys
from contextlib import suppress
from typing import Any

_VARIABLES = re.compile(r"\$+[A-Z_][A-Z0-9_]*|\$\$\$")
_WHOLE = ("{}", "{};", "{}: a", "a{{{}}}")
"""What a pattern may be a piece of: code by itself, a statement, a head, what stands in a block."""
_BOMS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_SNIFFED_BYTES = 64_000


def main() -> None:
    """Search the files of the job on stdin."""
    sys.path.append(sys.argv[1])
    job = json.loads(sys.stdin.buffer.read())
    _limit(job["memory_bytes"])
    refused: dict[str, str] = {}
    part: dict[str, str] = {}
    left = job["most_chars"]
    for number, path, language in job["files"]:
        _end_after(job["file_s"])
        if language not in part:
            part[language] = _part(job["pattern"], language)
        found, fault = _searched(path, language, job, left, refused)
        left -= sum(len(code) for _, code in found)
        _end_after(0)
        said = json.dumps([number, found, fault, refused.get(language, ""), part[language]], ensure_ascii=False)
        sys.stdout.buffer.write(f"{said}\n".encode(errors="replace"))
        sys.stdout.buffer.flush()


def _limit(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, memory_bytes)):
        with suppress(OSError, ValueError):  # there may be a lower limit, or none of this kind
            resource.setrlimit(kind, (most, most))


def _end_after(seconds: float) -> None:
    """End this process when so much time has passed; 0: not any more. No parser can stand in the way of it."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _searched(path: str, language: str, job: dict[str, Any], left: int, refused: dict[str, str]) -> tuple[list[tuple[int, str]], str]:
    """The matches in a file, and what is wrong with it."""
    if language in refused:
        return [], ""
    try:
        source = _text(path, job["file_bytes"])
        return _matches(source, language, job["pattern"], left)
    except _NoText:
        return [], "is no text"
    except OSError as error:
        return [], f"cannot be read ({error.strerror})"
    except RuntimeError as error:  # what the library says of patterns
        refused[language] = _cause(str(error))
        return [], ""
    except BaseException as error:  # a fault of its Rust code is no Exception
        return [], f"could not be searched ({type(error).__name__})"


class _NoText(Exception):
    pass


def _text(path: str, most_bytes: int) -> str:
    # nothing that took the place of the file since it was looked at is followed or waited for
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        data = file.read(most_bytes)
    encoding = next((encoding for mark, encoding in _BOMS if data.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in data[:_SNIFFED_BYTES]:
        raise _NoText
    return data.decode(encoding, "replace")


def _matches(source: str, language: str, pattern: str, left: int) -> tuple[list[tuple[int, str]], str]:
    from ast_grep_py import SgRoot

    lines, found = source.split("\n"), list[tuple[int, str]]()
    for node in SgRoot(source, language).root().find_all(pattern=pattern):
        line = node.range().start.line
        code = _shown(node.text(), lines[line])
        left -= len(code)
        if left < 0:
            return found, "full"
        found.append((line + 1, code))
    return found, ""


def _shown(code: str, first_line: str) -> str:
    """Code as it is shown: its further lines four blanks in, and otherwise as far as they are from where its first line begins."""
    indent = first_line[: len(first_line) - len(first_line.lstrip())]
    first, *rest = code.replace("\r\n", "\n").split("\n")
    return "\n".join([first, *(f"    {line.removeprefix(indent)}".rstrip() for line in rest)])


def _part(pattern: str, language: str) -> str:
    """Whether a pattern is `whole` code, `part` of some, or `broken` whatever stands around it."""
    from ast_grep_py import SgRoot

    code = _VARIABLES.sub("Zz", pattern)
    try:
        sound = [SgRoot(whole.format(code), language).root().find(kind="ERROR") is None for whole in _WHOLE]
        return "whole" if sound[0] else "part" if any(sound) else "broken"
    except BaseException:  # a language without a kind of node for errors, or one that this version of the library does not have
        return "whole"


def _cause(said: str) -> str:
    """The innermost cause in what the library says, without its stack."""
    lines = [line.strip() for line in said.partition("\n\nStack backtrace")[0].splitlines() if line.strip()]
    cause = re.sub(r"^\d+: ", "", next((line for line in reversed(lines) if re.match(r"\d+: ", line)), lines[-1] if lines else ""))
    return cause.partition(" Please check")[0].rstrip(".").replace("µ", "$")  # what some languages have in place of it


if __name__ == "__main__":
    main()
