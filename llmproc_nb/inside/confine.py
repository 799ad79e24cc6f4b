"""Provisional: the tier `process`, until confinement is merged."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from llmproc_nb.inside.rules import Rules

_STATE: dict[str, str] = {}


class Refused(Exception):
    """Which promise cannot be had, and why."""


def found() -> dict[str, str]:
    """Which tiers can be had here."""
    return {"namespaces": "not built", "landlock": "not built", "process": ""}


def enter(rules: Rules, main: Callable[[], None]) -> NoReturn:
    """Run main as the keeper, in a process of its own."""
    if rules.tier != "process":
        raise Refused(f"the tier {rules.tier} cannot be had: not built")
    _STATE["areas"] = os.path.join(rules.folder, "areas")
    os.makedirs(_STATE["areas"], mode=0o700)
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        main()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def areas() -> str:
    """The folder that holds the areas."""
    return _STATE["areas"]


def attach(area: str) -> int | None:
    """A mount of the area; None: it is used by its path."""
    return None


def settle(mount: int | None, area: str, rules: Rules) -> str:
    """Take the area as one's own."""
    return area
