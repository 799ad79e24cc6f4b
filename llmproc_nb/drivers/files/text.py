"""Text of a program file → plain data: TOML, YAML and JSON, with the line and column of what cannot be read.

Not here: what the data mean. Bounds hold before anything is built, so a hostile file ends in an error and not in a hang.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.drivers.files.table import MAX_DEPTH, Findings

MAX_CHARS = 1_000_000
FORMATS = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
_KEY_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_TOML_KEY = re.compile(rf"(?<![\w-]){_KEY_PART}(?:[ \t]*+\.[ \t]*+{_KEY_PART}){{60}}")


def format_of(path: Path, place: str) -> str:
    """`toml` or `yaml`, by the file's suffix."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ProgramError(
            f"the suffix {path.suffix or '(none)'} is not that of a program", place=place, right="programs end in .toml, .yaml or .yml"
        )
    return kind


def read(path: Path, place: str) -> str:
    """The text of a UTF-8 file. Raises ProgramError naming `place` where it cannot be read."""
    try:
        if path.stat().st_size > 4 * MAX_CHARS:
            raise ProgramError(f"{path.name} has {path.stat().st_size:,} bytes", place=place, right=f"at most {4 * MAX_CHARS:,} are read")
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ProgramError(f"{path.name} is not UTF-8 (byte {error.start})", place=place, right="text files are read as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise ProgramError(f"{path.name} cannot be read: {reason}", place=place, right="a readable file is needed") from error


def parse(text: str, kind: str, findings: Findings) -> dict[str, Any]:
    """The data of a program's text; keys given twice become notes. Raises ProgramError with line and column."""
    if len(text) > MAX_CHARS:
        raise ProgramError(f"the text has {len(text):,} characters", place=findings.file, right=f"a program has at most {MAX_CHARS:,}")
    text = text.removeprefix("\ufeff")
    if kind == "toml":
        return _toml(text, findings.file)
    if kind == "yaml":
        data = _yaml(text, findings)
        if not isinstance(data, dict):
            found = "the file is empty" if data is None else f"the file holds {findings.describe(data)}"
            raise ProgramError(found, place=findings.file, right="a program is a mapping with at least `model:`")
        return data
    raise ProgramError(f"the format {kind!r} is not known", place=findings.file, right="it is toml or yaml")


def parse_json(text: str, place: str) -> Any:
    """The data of a JSON text. Raises ProgramError with line and column."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ProgramError(f"no valid JSON at line {error.lineno}, column {error.colno}: {error.msg}", place=place) from error
    except (ValueError, RecursionError) as error:
        raise ProgramError("JSON that is nested too deep or holds impossible numbers", place=place) from error


def _toml(text: str, file: str) -> dict[str, Any]:
    # tomllib takes quadratic time for them.
    if text.count(".") >= 60:
        for long_key in _LONG_TOML_KEY.finditer(text):
            if _at_key(text, long_key.start()):
                raise ProgramError(
                    "a key with more than 60 dotted parts", place=f"{file}: line {text.count(chr(10), 0, long_key.start()) + 1}"
                )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said, line, column = _toml_place(str(error), text)
        raise ProgramError(f"no valid TOML: {said}", place=f"{file}: line {line}, column {column}", right=_toml_hint(text, line)) from error
    except RecursionError as error:
        raise ProgramError("lists or tables nested too deep", place=file, right=f"at most {MAX_DEPTH} levels are read") from error
    except ValueError as error:
        raise ProgramError(f"no valid TOML: {error}", place=file) from error


def _at_key(text: str, start: int) -> bool:
    before = text[text.rfind("\n", 0, start) + 1 : start]
    return before.rstrip(" \t")[-1:] in ("", "[", "{", ",")


def _toml_place(message: str, text: str) -> tuple[str, int, int]:
    match = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if match:
        return message[: match.start()], int(match[1]), int(match[2])
    lines = text.split("\n")
    return message.removesuffix(" (at end of document)"), len(lines), len(lines[-1]) + 1


def _toml_hint(text: str, line: int) -> str:
    source = text.split("\n")[line - 1].strip()
    if re.match(r"[\w.-]+\s*:\s", source):
        return "TOML writes `key = value`; with `key: value` the file is YAML and ends in .yaml"
    if re.match(r"[\w.-]+\s*=\s*(True|False|None|null)\b", source):
        return "TOML writes true and false, and leaves a key out where there is no value"
    if re.match(r"[\w.-]+\s*=\s*[A-Za-z]", source):
        return "a text stands in quotes"
    return ""


def _yaml(text: str, findings: Findings) -> Any:
    import yaml

    from llmproc_nb.drivers.files.safe_yaml import Loader, TooBig

    try:
        loader = Loader(text)
        try:
            data = loader.get_single_data()
        finally:
            loader.dispose()
    except TooBig as error:
        raise ProgramError(error.found, place=f"{findings.file}: line {error.line}, column {error.column}", right=error.right) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{findings.file}: line {mark.line + 1}, column {mark.column + 1}" if mark else findings.file
        raise ProgramError(
            f"no valid YAML: {error.problem or error.context}", place=place, right=_yaml_hint(error.problem or "")
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise ProgramError(
            f"a character that YAML does not allow (U+{ord(text[error.position]):04X})",
            place=f"{findings.file}: line {line}, column {column}",
        ) from error
    except (ValueError, RecursionError, OverflowError, IndexError, KeyError, TypeError) as error:
        raise ProgramError(f"no valid YAML: {str(error) or type(error).__name__}", place=findings.file) from error
    for key, line in loader.repeated:
        findings.note("unserved", f"line {line}", f"the key {key!r} stands twice in its table; the later one counts")
    return data


def _yaml_hint(problem: str) -> str:
    if "\\t" in problem or "tab" in problem:
        return "YAML is indented with spaces"
    if "could not determine a constructor" in problem:
        return "a program holds plain values, no tags"
    if "another document" in problem:
        return "a file holds one program"
    return ""
