"""Everything that can be said about a program file without starting it. No network, no keys, nothing is run."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llmproc_nb.core.errors import ProgramError, meant
from llmproc_nb.core.program import Note, Program, ToolWish
from llmproc_nb.core.syscall import SYSCALLS
from llmproc_nb.drivers.files import words
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
        """Whether the program loads, everything it links to is there, and nothing in the file keeps it from starting."""
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
    errors = [*findings.errors]
    if program is not None:
        errors += [*linked_programs(program)[1], *_keep_from_starting(program, findings)]
    # A link that leads nowhere is a note for load, which does not follow links; here it is an error and said once.
    places = {error.place for error in errors}
    notes = tuple(note for note in findings.notes if note.place not in places or note.kind not in ("missing", "unknown", "unserved"))
    return Report(path=str(path), program=program, notes=notes, errors=tuple(errors))


def _keep_from_starting(program: Program, findings: Findings) -> list[ProgramError]:
    """What `load` lets pass, because Python may still give another model, a script or a tool, and what a file alone cannot start with."""
    place = f"{findings.file}: [model] provider"
    refused = program.provider in words.REFUSED_PROVIDERS
    errors = [ProgramError(note.text, place=place) for note in findings.notes if refused and note.place == place]
    known = (*words.TOOLS, *sorted(SYSCALLS.difference(words.TOOLS)))
    for wish in program.tools:
        if isinstance(wish, ToolWish) and wish.name not in known:
            right = meant(wish.name, known, f"there are {', '.join(known)}")
            errors.append(ProgramError(f"there is no tool {wish.name!r}", place=f"{findings.file}: [tools] builtin", right=right))
    if program.provider == "scripted" and not program.script:
        right = 'provider = "scripted" answers with the turns of [script], such as turns = [{ say = "Hello" }]'
        errors.append(ProgramError("there are no turns", place=f"{findings.file}: [script]", right=right))
    return errors


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
