"""`jupyter llmproc check`: what is wrong or odd in program files, one remark a line. Here: files and lines; the checks are a driver's."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from llmproc_nb.cli import EXIT_ERROR
from llmproc_nb.cli.example import SUFFIXES
from llmproc_nb.cli.terminal import Terminal
from llmproc_nb.core.errors import ProgramError
from llmproc_nb.drivers.files import Report, check

_HAS_MODEL = re.compile(r"""^\s*\[+\s*["']?model["']?\s*[.\]]|^["']?model["']?\s*[:=.]""", re.MULTILINE)
_OTHER_YAML = ("a program holds plain values, no tags", "a file holds one program")
"""What is said of YAML that is right by itself, and was written for something else."""
_LEFT_OUT = frozenset({"node_modules", "__pycache__", "site-packages"})


def command(flags: Namespace) -> int:
    """Check the files and give the exit code."""
    terminal = Terminal()
    reports, left = _reports(flags.files)
    if flags.json:
        terminal.json([_facts(report) for report in reports])
    else:
        for report in reports:
            for line in _lines(report, quiet=flags.quiet):
                terminal.text(" ".join(line.split()))
        for path in () if flags.quiet else left:
            terminal.text(f"{path}: skipped: it has no table [model], so it is no program")
    if not reports:
        terminal.line("there is no program to check: a program is a .toml, .yaml or .yml file with a table [model]")
    return EXIT_ERROR if not reports or any(not report.ok for report in reports) else 0


def _reports(given: list[str]) -> tuple[list[Report], list[Path]]:
    """A report on each file that was named, and on each program found in folders; and the files in folders that are no programs."""
    reports, left = [], []
    for name in given:
        if not Path(name).is_dir():
            reports.append(check(name))
            continue
        for path in _found(Path(name)):
            report = check(path)
            if report.program is None and _is_other(path, report):
                left.append(path)
            else:
                reports.append(report)
    return reports, left


def _found(folder: Path) -> Iterator[Path]:
    """The files in a folder that may be programs, sorted; hidden folders and those of other people's packages are not entered."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _LEFT_OUT)
        yield from (Path(place, name) for name in sorted(files) if name.lower().endswith(SUFFIXES))


def _is_other(path: Path, report: Report) -> bool:
    """Whether a faulty file is simply no program: it can be read, and never says `model`, nor anything that looks like it."""
    if any(": line " in error.place and error.right not in _OTHER_YAML for error in report.errors):
        return False
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return False
    return not _HAS_MODEL.search(text) and not any("Did you mean" in error.step or "is that it" in error.step for error in report.errors)


def _lines(report: Report, *, quiet: bool) -> Iterator[str]:
    for error in report.errors:
        yield f"{error.place or report.path}: error: {error.for_model()}"
    if quiet:
        return
    for note in report.notes:
        yield f"{note.place}: {note.kind}: {note.text}"
    if report.program is not None and report.ok:
        counted = f"{len(report.notes)} {'note' if len(report.notes) == 1 else 'notes'}"
        yield f"{report.path}: ok: {report.program.provider}:{report.program.model}, {counted}"


def _facts(report: Report) -> dict[str, Any]:
    return {
        "file": report.path,
        "program": report.program.name if report.program is not None else None,
        "ok": report.ok,
        "errors": [_error(error) for error in report.errors],
        "notes": [msgspec.structs.asdict(note) for note in report.notes],
    }


def _error(error: ProgramError) -> dict[str, str]:
    return {"place": error.place, "text": error.for_model()}
