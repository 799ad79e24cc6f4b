"""The full system prompt of a program: its own text, facts about the machine, preloaded files. And `.env`.

Here: what is read from the machine at the start of a process. Not here: texts about tools and fds (core), the reading of programs
(the files driver). Facts come in only where a program asks for them by name; what looks like a key never does.
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import quoteattr

import msgspec

from llmproc_nb.core.errors import PersonError, ToolError
from llmproc_nb.core.program import EnvInfo, Program

_MOST_WALKED = 20_000
_SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH)(_|$)", re.IGNORECASE)
_SKIPPED = frozenset({"__pycache__", "node_modules"})

Warn = Callable[[str], None]


def enrich(
    program: Program,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    now: datetime | None = None,
    command_timeout_s: float = 10.0,
) -> tuple[str, tuple[str, ...]]:
    """The system prompt a process of this program starts with, and what to warn about: each thing asked for that is not in it."""
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    warnings: list[str] = []
    place = program.source or program.name

    def warn(text: str) -> None:
        warnings.append(f"{place}: {text}")

    def run(command: str) -> str:
        return _output(command, environ, cwd, command_timeout_s, warn)

    parts = (
        program.system,
        _environment(program.env_info, environ, cwd, now or datetime.now().astimezone(), run, warn),
        _preloaded(program, cwd, warn),
    )
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()), tuple(warnings)


# ---- facts about the machine


def _environment(info: EnvInfo, environ: Mapping[str, str], cwd: Path, now: datetime, run: Callable[[str], str], warn: Warn) -> str:
    facts: dict[str, Callable[[], str]] = {
        "working_directory": lambda: str(cwd),
        "platform": lambda: f"{platform.system()} {platform.release()}".strip(),
        "date": lambda: f"{now:%Y-%m-%d}",
        "python_version": platform.python_version,
        "hostname": platform.node,
        "username": lambda: _user(environ),
    }
    asked = [name for wish in info.variables for name in (facts if wish == "all" else (wish,))]
    lines = []
    for name in dict.fromkeys(asked):
        if name in facts:
            lines.append(f"{name}: {facts[name]()}")
        elif name != "file_map":
            warn(f"[env_info] variables: unknown name {name!r}; there are {', '.join(facts)}, file_map and all")
    lines += [f"{key}: {value}" for key, value in info.extra.items()]
    lines += _variables(info, environ, warn)
    for command in info.commands:
        lines += [f"> {command}", run(command)]
    if "file_map" in info.variables or info.file_map_root is not None:
        lines += _file_map(info, cwd, warn)
    return "\n".join(["<env>", *lines, "</env>"]) if lines else ""


def _user(environ: Mapping[str, str]) -> str:
    named = next((environ[name] for name in ("LOGNAME", "USER", "LNAME", "USERNAME") if environ.get(name)), None)
    if named:
        return named
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without an entry, as in many containers
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def _variables(info: EnvInfo, environ: Mapping[str, str], warn: Warn) -> Iterator[str]:
    for key, name in info.env_vars.items():
        if _SECRET.search(name):
            warn(f"[env_info] env_vars.{key}: {name} looks like a secret and is left out")
        elif name not in environ:
            warn(f"[env_info] env_vars.{key}: {name} is not set")
        else:
            yield f"{key}: {environ[name]}"


def _output(command: str, environ: Mapping[str, str], cwd: Path, timeout_s: float, warn: Warn) -> str:
    """What a command prints, its errors included. It sees no variables that look like keys."""
    clean = {name: value for name, value in environ.items() if not _SECRET.search(name)}
    running = subprocess.Popen(
        command,
        shell=True,
        cwd=cwd,
        env=clean,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said = running.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        _end(running)
        said = running.communicate()[0]
        warn(f"[env_info] commands: {command!r} was stopped after {timeout_s:g} s")
        return f"{said.decode(errors='replace')}(stopped after {timeout_s:g} s)"
    text = said.decode(errors="replace").rstrip("\n")
    if running.returncode:
        warn(f"[env_info] commands: {command!r} ended with code {running.returncode}")
        return f"{text}\n(ended with code {running.returncode})".lstrip("\n")
    return text


def _end(running: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(running.pid, signal.SIGKILL)  # what the command started goes with it
    else:
        running.kill()


def _file_map(info: EnvInfo, cwd: Path, warn: Warn) -> Iterator[str]:
    root = cwd / (info.file_map_root or ".")
    if not root.is_dir():
        warn(f"[env_info] file_map_root: {info.file_map_root!r} is no folder")
        return
    yield f"file_map: {info.file_map_root or '.'} (without hidden files)"
    more = 0
    for position, path in enumerate(_walked(root)):
        if position >= info.file_map_max_files:
            more += 1
            continue
        size = f" ({_size(path.lstat().st_size)})" if info.file_map_show_size else ""
        yield f"  {path.relative_to(root).as_posix()}{size}"
    if more:
        yield f"  … and {more:,}{' or more' if more + info.file_map_max_files >= _MOST_WALKED else ''} other files"


def _walked(root: Path) -> Iterator[Path]:
    count = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        for name in sorted(files):
            if name.startswith("."):
                continue
            yield Path(folder, name)
            count += 1
            if count >= _MOST_WALKED:
                return


def _size(count: int) -> str:
    return f"{count} B" if count < 1_000 else f"{count / 1_000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


# ---- preloaded files


def with_preload(program: Program, folder: Path, files: tuple[str, ...]) -> Program:
    """The program with more files to read at its start, given relative to a folder. Raises ToolError for one outside of it, or missing."""
    paths = []
    for name in files:
        try:
            path = (folder / name).resolve()
            there = path.is_file()
        except (OSError, ValueError):
            raise ToolError(f"{name!r:.80} cannot be a path", right="a path relative to the program's folder is needed") from None
        if not any(path.is_relative_to(root.resolve()) for root in (folder, Path.cwd())):
            raise ToolError(f"the file {name!r:.80} lies outside of the program's folder", right="a path below it is needed")
        if path.name.startswith(".env") and path.name.removeprefix(".env.") not in ("example", "sample", "template"):
            raise ToolError(f"{name!r:.80} is for secrets", right="files such as .env are read by no model")
        if not there:
            raise ToolError(f"there is no file {name!r:.80}", right="paths are relative to the program's folder")
        paths.append(str(path))
    return program.replace(preload=msgspec.structs.replace(program.preload, files=(*program.preload.files, *paths)))


def _preloaded(program: Program, cwd: Path, warn: Warn) -> str:
    base = cwd if program.preload.relative_to == "cwd" else (cwd / program.base_dir)
    blocks = []
    for name in dict.fromkeys(program.preload.files):
        path = base / name
        try:
            text = path.read_bytes().decode("utf-8-sig", "replace")
        except OSError as error:
            warn(f"[preload] files: {name!r} cannot be read ({error.strerror}), looked for in {base}")
            continue
        if "\0" in text:
            warn(f"[preload] files: {name!r} is no text; left out")
            continue
        if "\ufffd" in text:
            warn(f"[preload] files: {name!r} is not UTF-8 throughout; what cannot be read stands as \ufffd")
        ending = "" if text.endswith("\n") else "\n"
        blocks.append(f"<file path={quoteattr(_relative(path, base))}>\n{text}{ending}</file>")
    return "\n".join(["<preload>", *blocks, "</preload>"]) if blocks else ""


def _relative(path: Path, base: Path) -> str:
    """A path as the model sees it: from the folder it was looked for in, also where `..` is needed, so that no two are alike."""
    return Path(os.path.relpath(path, base)).as_posix()


# ---- .env


def load_env(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the nearest `.env` from this folder upward that `environ` does not have yet; nothing is set. Raises PersonError.

    `${NAME}` in a value means `environ` first, then what stood above it in the file.
    """
    folder = folder.resolve()
    file = next((path for parent in (folder, *folder.parents) if (path := parent / ".env").exists() and not path.is_dir()), None)
    if file is None:
        return {}
    from dotenv import dotenv_values
    from dotenv.variables import parse_variables

    try:
        found = dotenv_values(file, interpolate=False, encoding="utf-8-sig")
    except OSError as error:
        raise PersonError(f"it cannot be read ({error.strerror})", place=str(file), right="make it readable or move it away") from None
    except UnicodeDecodeError:
        raise PersonError("it is not UTF-8", place=str(file), right="save it as UTF-8") from None
    values: dict[str, str] = {}
    for name, text in found.items():
        if text is not None:
            known = {**values, **environ}
            values[name] = "".join(atom.resolve(known) for atom in parse_variables(text))
    return {name: value for name, value in values.items() if name not in environ}
