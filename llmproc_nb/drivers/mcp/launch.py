"""How a server is started: its declaration with every `${VAR}` filled in, and the environment it gets. Pure.

The environment of a stdio server is an allow-list and what its declaration names: keys of the host are not passed on by accident.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import msgspec

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import McpServer

_WINDOWS = """APPDATA HOMEDRIVE HOMEPATH LOCALAPPDATA PATH PATHEXT PROCESSOR_ARCHITECTURE PROGRAMDATA PROGRAMFILES
    SYSTEMDRIVE SYSTEMROOT TEMP TMP USERNAME USERPROFILE WINDIR"""
_POSIX = """HOME LANG LANGUAGE LC_ALL LC_CTYPE LOGNAME PATH SHELL TERM TMPDIR TZ USER
    NODE_EXTRA_CA_CERTS SSL_CERT_DIR SSL_CERT_FILE XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME XDG_RUNTIME_DIR"""
PASSED_ON = tuple((_WINDOWS if sys.platform == "win32" else _POSIX).split())

_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_INPUT = re.compile(r"\$\{input:[^}]*\}")


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A declaration ready to be used. `secrets` must not be shown; `words` says in errors what was started."""

    name: str
    type: str
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    folder: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    words: str = ""

    @property
    def place(self) -> str:
        return f"MCP server {self.name}"


def launch(name: str, server: McpServer, environ: Mapping[str, str], folder: Path) -> Launch:
    """The declaration with its variables filled in. Raises ProgramError, which names server, key and variable."""
    place = f"MCP server {name}"
    secrets: list[str] = []

    def fill(text: str, key: str) -> str:
        return _filled(text, f"{place}: {key}", environ, secrets)

    headers = {header: fill(value, f"headers.{header}") for header, value in server.headers.items()}
    own = {variable: fill(value, f"env.{variable}") for variable, value in server.env.items()}
    hidden = (*secrets, *headers.values(), *(value.split(" ", 1)[-1] for value in headers.values()), *_secret(own))
    if server.type != "stdio":
        url = fill(server.url or "", "url")
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ProgramError(
                f"{_bare(server.url or '')!r} is no address", place=f"{place}: url", right="it begins with http:// or https://"
            )
        hidden = (*secrets, *hidden, *_userinfo(url))
        return Launch(name=name, type=server.type, url=url, headers=headers, secrets=tuple(hidden), words=_bare(server.url or ""))
    if not server.command:
        raise ProgramError("no command is given", place=place, right="a stdio server is started by its command")
    command = (fill(server.command, "command"), *(fill(text, f"args[{at}]") for at, text in enumerate(server.args)))
    if any("\0" in text for text in (*command, *own, *own.values())):
        raise ProgramError("a command, an argument or a variable holds a NUL character", place=place, right="none may")
    env = {key: environ[key] for key in PASSED_ON if key in environ and not environ[key].startswith("()")} | own
    words = " ".join((server.command, *server.args))
    words = words if len(words) <= 200 else f"{words[:200]}…"
    return Launch(name=name, type="stdio", command=command, env=env, folder=str(folder), secrets=(*secrets, *hidden), words=words)


def _filled(text: str, place: str, environ: Mapping[str, str], secrets: list[str]) -> str:
    if (wish := _INPUT.search(text)) is not None:
        raise ProgramError(f"{wish[0]} asks an editor for a value", place=place, right="an environment variable is written ${NAME}")

    def value(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        got = environ.get(name)
        if got is None or (not got and default is not None):
            if default is None:
                why, right = f"there is no environment variable {name}", f"${{{name}}} needs it"
                raise ProgramError(why, place=place, right=right, step=f"Set {name} before the start.")
            return str(default)
        secrets.append(got)
        return got

    return _VARIABLE.sub(value, text)


def _secret(own: Mapping[str, str]) -> list[str]:
    """Values written into a declaration that look as if they were meant for nobody else."""
    return [value for name, value in own.items() if re.search(r"KEY|TOKEN|SECRET|PASS|AUTH|CREDENTIAL", name, re.IGNORECASE)]


def _userinfo(url: str) -> list[str]:
    parts = urlsplit(url)
    return [text for text in (parts.username, parts.password, parts.query) if text]


def _bare(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
