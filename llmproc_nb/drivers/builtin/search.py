"""Searching code by its structure: which files are looked at, and what is told of the matches. How they are found is in `matcher`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llmproc_nb.core.errors import ProgramError, ToolError
from llmproc_nb.drivers.builtin.folder import Folder, is_closed
from llmproc_nb.drivers.builtin.language import SUFFIXES, language_of, named
from llmproc_nb.drivers.builtin.matcher import FILE_BYTES, PACKAGE, Files, Found, Matcher

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process

PATTERN_CHARS = 2_000  # one that is nested tens of thousands deep ends the library
MOST_FILES, MOST_ENTRIES = 10_000, 200_000  # where there are more, another folder was meant
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "venv"})
_LOWER_NAME = re.compile(r"\$+[a-z]\w*")
_PATTERN = "a pattern is code that parses by itself, with $NAME for one part of it and $$$NAME for any number"


class Chosen(msgspec.Struct, kw_only=True):
    """The files that are searched, with their languages, and what is said of those that are not."""

    files: Files
    notes: list[str]


def check_installed(place: str) -> None:
    """Raises ProgramError where the library is not there."""
    if find_spec(PACKAGE) is None:
        raise ProgramError(
            "the tool ast_grep needs the package ast-grep-py, which is not installed",
            place=place,
            right="the extra llmproc-nb[code] brings it",
            step='Run pip install "llmproc-nb[code]" and start the program again.',
        )


class CodeSearch:
    """Structural search in one folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    async def search(self, process: Process, pattern: str, path: str = ".", language: str = "") -> str:
        """How many matches there are, and each as `path:line: code`. Raises ToolError."""
        if not pattern.strip():
            raise ToolError("the pattern is empty", right=_PATTERN)
        if len(pattern) > PATTERN_CHARS:
            raise ToolError(f"the pattern has {len(pattern):,} characters", right=f"up to {PATTERN_CHARS:,} are possible")
        matcher = Matcher(pattern)

        def searched() -> str:
            chosen = chosen_files(self._folder, path, named(language))
            return _told(pattern, self._folder.root, chosen, matcher.search(chosen.files))

        try:
            return await process.machine.owner.workers.run(searched)
        finally:
            matcher.end()  # a thread cannot be stopped, what it waits for can


# ---- which files


def chosen_files(folder: Folder, asked: str, language: str) -> Chosen:
    """A file; or those in a folder whose language their names tell, by path, with a `language` only those of it. Raises ToolError."""
    path = folder.inside(asked)
    folder.check_open(path, asked)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise folder.missing(path, asked, "file or folder") from None
    except OSError as error:
        raise ToolError(f"{asked!r:.100} cannot be read ({error.strerror})", right="choose another file or folder") from None
    if stat.S_ISDIR(mode):
        return _in_folder(folder.root, path, asked, language)
    if not stat.S_ISREG(mode):
        raise ToolError(f"{asked!r} is no ordinary file", right="a file with code, or a folder, is needed")
    language = language or language_of(path) or ""
    if not language:
        raise ToolError(f"{asked!r} does not tell its language", right=f"language may be one of {', '.join(SUFFIXES)}")
    return _bounded(folder.root, [(path, language)], [])


def _in_folder(root: Path, path: Path, asked: str, language: str) -> Chosen:
    files: Files = []
    notes: list[str] = []
    for one in _walk(path, root, notes):
        if language and one.suffix.lower() in SUFFIXES[language]:
            files.append((one, language))
        elif not language and (told := language_of(one)):
            files.append((one, told))
    if not files:
        suffixes = SUFFIXES[language] if language else dict.fromkeys(suffix for some in SUFFIXES.values() for suffix in some)
        found = f"there is no {language or 'code'} in {asked!r}"
        raise ToolError(" ".join([found, *notes]), right=f"its files would end in {', '.join(suffixes)}")
    return _bounded(root, sorted(files), notes)


def _walk(top: Path, root: Path, notes: list[str]) -> Iterator[Path]:
    """The files below a folder; nothing hidden, nothing installed or made, and no links: what they lead to in here has its own path."""

    def unlisted(error: OSError) -> None:
        notes.append(f"({_name(root, Path(str(error.filename)))} cannot be listed)")

    seen = 0
    for where, folders, names in os.walk(top, onerror=unlisted):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        seen += len(folders) + len(names)
        if seen > MOST_ENTRIES:
            notes.append(f"(not all is searched: there are more than {MOST_ENTRIES:,} files and folders; name a folder further down)")
            return
        paths = (Path(where, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if not is_closed(path.name) and not path.is_symlink() and path.is_file())


def _bounded(root: Path, files: Files, notes: list[str]) -> Chosen:
    """The files without those that are too large, and not more than there may be."""
    sizes = {path: _size(path) for path, _ in files}
    large = [f"({_name(root, path)} is not searched: it has {size:,} bytes)" for path, size in sizes.items() if size > FILE_BYTES]
    if large:
        large.append(f"(files of up to {FILE_BYTES:,} bytes are searched)")
    small = [(path, language) for path, language in files if sizes[path] <= FILE_BYTES]
    if len(small) > MOST_FILES:
        notes = [*notes, f"({len(small) - MOST_FILES:,} files are not searched: up to {MOST_FILES:,} are; name a folder further down)"]
    return Chosen(files=small[:MOST_FILES], notes=[*notes, *large])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone meanwhile: the search says so
        return 0


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


# ---- what is told


def _told(pattern: str, root: Path, chosen: Chosen, found: Found) -> str:
    """The matches after a line that counts them, and then what was not searched, and why."""
    names = [_name(root, path) for path, _ in chosen.files]
    matches = [f"{names[number]}:{line}" for number, lines in found.shown.items() for line in lines]
    wrong = sorted({*found.refused, *found.broken})
    if not matches and wrong and found.languages <= set(wrong):
        raise _no_pattern(pattern, wrong, found)
    left_out = [number for number, (_, language) in enumerate(chosen.files[: found.done]) if language in found.refused]
    searched = found.done - len({*left_out, *found.faults})
    said = f"{_count(len(matches), 'match', 'matches')} in {len(found.shown):,} of {_count(searched, 'file', 'files')}"
    notes = [f"({names[number]} is not searched: {fault})" for number, fault in found.faults.items()]
    if not matches and found.parts:
        notes.insert(0, f"(in {', '.join(sorted(found.parts))} the pattern is only a part of a statement; the whole one may be found)")
    if left_out:
        notes.append(f"({_count(len(left_out), 'file is', 'files are')} not searched: in {', '.join(found.refused)} this is no code)")
    if found.end:
        left = _count(len(names) - found.done, "more file is", "more files are")
        notes.append(f"({left} not searched: {found.end}; ask for less, or in fewer files)")
    return "\n".join([said, *matches, *chosen.notes, *notes])


def _count(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"


def _no_pattern(pattern: str, languages: list[str], found: Found) -> ToolError:
    causes = {found.refused[language] for language in languages if language in found.refused}
    why = f" ({causes.pop()})" if len(causes) == 1 else ""
    lower = _LOWER_NAME.search(pattern)
    if lower is not None:
        said = f"the pattern {pattern!r:.200} has a name in small letters, {lower[0]!r}, which stands for nothing"
        return ToolError(said, right=f"what stands for a part of the code is written in capitals, as {lower[0].upper()}")
    said = f"the pattern {pattern!r:.200} is no whole piece of code in {', '.join(languages)}{why}"
    return ToolError(said, right=_PATTERN, step="Write the whole expression or statement.")
