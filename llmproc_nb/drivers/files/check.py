"""Everything that can be said about a program file without starting it. No network, no keys, nothing is run."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import Note, Program
from llmproc_nb.drivers.files.reading import linked_programs, of_file
from llmproc_nb.drivers.files.table import Findings


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found. `program` is None where the file has errors of its own; `errors` include those of linked programs."""

    path: str
    program: Program | None
    notes: tuple[Note, ...]
    errors: tuple[ProgramError, ...]

    @property
    def ok(self) -> bool:
        """Whether the program loads and everything it links to is there."""
        return not self.errors

    def lines(self) -> list[str]:
        """The report as lines of text: one for the program, one for each error and note, one that counts."""
        rows = [("error", str(error)) for error in self.errors]
        rows += [(note.kind, f"{note.place}: {note.text}") for note in self.notes]
        width = max((len(kind) for kind, _ in rows), default=0)
        lines = [_summary(self.path, self.program)] if self.program is not None else []
        lines += [f"  {kind:<{width}}  {' '.join(text.split())}" for kind, text in rows]
        return [*lines, f"{self.path}: {_count(len(self.errors), 'error')}, {_count(len(self.notes), 'note')}"]


def check(path: str | Path) -> Report:
    """The report on a file: does not raise for what the file says, or where there is none."""
    findings = Findings(str(path))
    program = of_file(Path(path), findings)
    program = None if findings.errors else program
    errors = [*findings.errors, *(linked_programs(program)[1] if program is not None else ())]
    # A link that leads nowhere is a note for load, which does not follow links; here it is an error and said once.
    places = {error.place for error in errors}
    notes = tuple(note for note in findings.notes if note.kind != "missing" or note.place not in places)
    return Report(path=str(path), program=program, notes=notes, errors=tuple(errors))


def _summary(path: str, program: Program) -> str:
    parts = [f"{program.provider} {program.model}".strip()]
    for count, word in ((len(program.tools), "tool"), (len(program.mcp), "MCP server"), (len(program.linked), "linked program")):
        if count:
            parts.append(_count(count, word))
    if isinstance(program.script, tuple) and program.script:
        parts.append(_count(len(program.script), "scripted turn"))
    return f"{path}: the program {program.name!r}: {', '.join(parts)}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
