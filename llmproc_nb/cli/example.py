"""The example programs that `chat` offers: those that came with the package, those of a checkout, and those of the working folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llmproc_nb.api import Program
from llmproc_nb.core.errors import ProgramError

SUFFIXES = (".toml", ".yaml", ".yml")


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A program to choose: its file, the name shown, and the first line of comment in the file."""

    path: Path
    title: str
    about: str

    def is_called(self, name: str) -> bool:
        """Whether this is what somebody means by a name: that of the file, with or without its suffix, or the one shown."""
        return name.casefold() in (self.path.name.casefold(), self.path.stem.casefold(), self.title.casefold())


def examples() -> list[Example]:
    """All that are there, each once."""
    files = [path for folder in _folders() for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.is_file()]
    return [_example(path) for path in {path.resolve(): path for path in files}.values()]


def _folders() -> list[Path]:
    package = Path(__file__).parents[1]
    checkout = package.parent
    beside = [checkout / "programs"] if (checkout / "pyproject.toml").is_file() else []
    return [folder for folder in (Path("programs"), package / "programs", *beside) if folder.is_dir()]


def _example(path: Path) -> Example:
    try:
        program = Program.from_file(path)
    except ProgramError as error:
        return Example(path=path, title=path.stem, about=f"does not load: {error}")
    comments = (line.lstrip("# ").strip() for line in path.read_text("utf-8", "replace").splitlines() if line.startswith("#"))
    return Example(path=path, title=program.display_name or program.name, about=next((line for line in comments if line), ""))
