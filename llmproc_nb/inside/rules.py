"""What a sandbox is allowed, as plain data that a host hands to its processes. Imports nothing of this project."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

TIERS = ("namespaces", "landlock", "process")
KEPT = [
    "LANG",
    "LANGUAGE",
    "TZ",
    "TERM",
    "COLUMNS",
    "LINES",
    "MPLBACKEND",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHASHSEED",
    "PYTHONIOENCODING",
    "PYTHONUNBUFFERED",
    "PYTHONUTF8",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
]
"""The variables of the host that a sandbox may see, besides those that begin with LC_."""
SOCKETS = "/run/kernel"
PROXY_PORT = 3128
"""Where the way out listens on the loopback of a family, if it has one."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What confines one family of sessions.

    `folder` is a private host directory of the family, made and removed by the host; `last` is what is removed where the host cannot do it
    any more. `readable` are more host paths, shown read-only at
    the same place; `writable` ones can be written. `sockets` is a host folder in which a kernel makes its sockets, to be found inside
    at `sockets_inside`. `env` is added to the allow-list. `relay` is the path of the host proxy's unix socket; "" is no network;
    `loopback`: requests to 127.0.0.1 go there too, for a server of the host. The kernel holds each
    process to its memory, CPU time and file size; a keeper sees to it that a session has no more processes and CPU time with what it
    starts, and a family no more memory (watch), beside the `checkpoints_mb` of its frozen copies. The limit of the disk holds for a family.
    """

    tier: str = "namespaces"
    folder: str = ""
    last: str = ""
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    sockets: str = ""
    memory_mb: int = 4096
    checkpoints_mb: int = 0
    disk_mb: int = 512
    cpu_s: int = 3600
    processes: int = 64
    env: dict[str, str] = field(default_factory=dict)
    relay: str = ""
    loopback: bool = False

    @property
    def sockets_inside(self) -> str:
        return SOCKETS if self.tier == "namespaces" else self.sockets

    def dump(self) -> str:
        return json.dumps(asdict(self))


def load(text: str) -> Rules:
    """The rules that `dump` wrote."""
    fields: dict[str, Any] = json.loads(text)
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return Rules(**values)


class Refused(Exception):
    """A confinement that cannot be had: which promise, and why."""


def environment(environ: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a sandbox. Nothing else of the host's may be in the memory of a process that becomes one."""
    kept = {name: value for name, value in environ.items() if name in KEPT or name.startswith("LC_")}
    folders = [f"{sys.prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin"]
    return kept | {"PATH": os.pathsep.join(folders), "USER": "sandbox", "LOGNAME": "sandbox", "SHELL": "/bin/sh"} | dict(env)


def proxied(rules: Rules) -> dict[str, str]:
    """The variables that lead programs to the family's way out; none where it has none."""
    if not rules.relay:
        return {}
    url = f"http://127.0.0.1:{PROXY_PORT}"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    own = {} if rules.loopback else dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1")
    return dict.fromkeys(names, url) | own
