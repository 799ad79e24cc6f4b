"""Reading files and listing folders for a model, inside one folder and nowhere else.

A path may be relative to that folder or absolute; what it really is (`..` and links followed) must lie inside. `.env` files stay closed:
keys must not come into a dialog or a log.
"""

from __future__ import annotations

import codecs
import stat
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.message import Image

MAX_BYTES = 64_000_000
_SNIFFED_BYTES = 64_000
_CONTROL_SHARE = 0.05
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\b\x1b")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_OPEN_ENV_NAMES = frozenset({".env.example", ".env.sample", ".env.template"})


class Folder:
    """One folder, and what a model may see of it. `root` must exist."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def read(self, file_path: str) -> str | Image | Path:
        """The whole text of a file, its line ends as they are, or a picture; of a text too long to hold its path. Raises ToolError."""
        path = self.inside(file_path)
        self.check_open(path, file_path)
        data = self._bytes(path, file_path)
        if picture := _picture(data):
            return picture
        for mark, encoding in _BOMS:
            if data.startswith(mark):
                return data.decode(encoding, "replace")
        if _is_binary(data):
            raise ToolError(
                f"{file_path!r} is no text ({len(data):,} bytes)", right="text files and PNG, JPEG, GIF and WebP pictures are possible"
            )
        if len(data) == MAX_BYTES:
            return path
        return data.decode("utf-8", "replace") if data else "(the file is empty)"

    def _bytes(self, path: Path, asked: str) -> bytes:
        try:
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                raise ToolError(f"{asked!r} is a folder", right="use list_dir to see what is in it")
            if not stat.S_ISREG(found.st_mode):
                raise ToolError(f"{asked!r} is no ordinary file", right="a text file or a picture is needed")
            with path.open("rb") as file:
                return file.read(MAX_BYTES)
        except FileNotFoundError:
            raise self.missing(path, asked, "file") from None
        except OSError as error:
            raise ToolError(f"{asked!r:.100} cannot be read ({error.strerror})", right="choose another file") from None

    def list(self, directory_path: str = ".", show_hidden: bool = False, detailed: bool = False) -> str:
        """What is in a folder, one entry a line, by name; folders end in `/`. Raises ToolError."""
        path = self.inside(directory_path)
        try:
            entries = sorted(path.iterdir(), key=lambda entry: entry.name)
        except FileNotFoundError:
            raise self.missing(path, directory_path, "folder") from None
        except NotADirectoryError:
            raise ToolError(f"{directory_path!r} is a file", right="use read_file to read it") from None
        except OSError as error:
            raise ToolError(f"{directory_path!r:.100} cannot be listed ({error.strerror})", right="choose another folder") from None
        shown = [entry for entry in entries if show_hidden or not entry.name.startswith(".")]
        hidden = len(entries) - len(shown)
        lines = [_detail(entry) if detailed else _entry(entry) for entry in shown]
        if hidden:
            lines.append(f"({hidden} hidden; show_hidden=true lists them)")
        return "\n".join(lines) or "(the folder is empty)"

    def inside(self, asked: str, done: str = "read") -> Path:
        """What a path is in the end, in this folder; `done` is what would be done with it. Raises ToolError."""
        try:
            path = (self.root / asked).resolve()
        except (ValueError, RuntimeError, OSError):  # a NUL in it, links in a circle, a name too long
            raise ToolError(f"{asked!r:.100} cannot be a path", right="a path relative to the working folder is needed") from None
        if not path.is_relative_to(self.root):
            right = f"only what is in the working folder can be {done}"
            raise ToolError(
                f"{asked!r} lies outside of the working folder", right=right, step='Give a path relative to it, such as "data/a.csv".'
            )
        return path

    def check_open(self, path: Path, asked: str) -> None:
        """Raises ToolError for a file that holds keys."""
        if is_closed(path.name):
            raise ToolError(f"{asked!r} holds keys and stays closed", right="ask the person for what is needed from it")

    def missing(self, path: Path, asked: str, kind: str) -> ToolError:
        """That nothing is there, and what is."""
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, names, n=1)
        where = path.parent.relative_to(self.root).as_posix() if path != self.root else "."
        right = f"there is {near[0]!r} in {where!r}" if near else f"list_dir shows what is in {where!r}" if names else ""
        return ToolError(f"there is no {kind} {asked!r}", right=right)


def is_closed(name: str) -> bool:
    """Whether a file of this name holds keys."""
    return name.startswith(".env") and name not in _OPEN_ENV_NAMES


def _picture(data: bytes) -> Image | None:
    kinds = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF87a": "image/gif", b"GIF89a": "image/gif"}
    for mark, media_type in kinds.items():
        if data.startswith(mark):
            return Image(media_type=media_type, data=data)
    return Image(media_type="image/webp", data=data) if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _is_binary(data: bytes) -> bool:
    start = data[:_SNIFFED_BYTES]
    controls = sum(byte < 32 and byte not in _TEXT_CONTROLS for byte in start)
    return b"\0" in start or controls > _CONTROL_SHARE * len(start)


def _entry(path: Path) -> str:
    return f"{path.name}/" if path.is_dir() else path.name


def _detail(path: Path) -> str:
    found = path.lstat()
    kind = "link" if stat.S_ISLNK(found.st_mode) else "folder" if stat.S_ISDIR(found.st_mode) else "file"
    changed = datetime.fromtimestamp(found.st_mtime, UTC)
    return f"{kind:<6}  {found.st_size:>12,}  {changed:%Y-%m-%d %H:%M}Z  {_entry(path)}"
