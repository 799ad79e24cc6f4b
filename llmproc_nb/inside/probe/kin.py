"""Attempts between sessions of one family. `facts` has of the other: `siblings`, its pids inside, and `marker`, a file only it has."""

from __future__ import annotations

import os
import signal

from llmproc_nb.inside.probe.files import _make_and_move
from llmproc_nb.inside.probe.processes import _squeeze
from llmproc_nb.inside.probe.tried import SEIZE, Facts, Tried, attempts, call, names, open_to, read


@attempts
def kin_files(tried: Tried, facts: Facts) -> None:
    marker = facts["marker"]
    _make_and_move(os.getcwd())
    tried.refused(f"read {marker}", read, marker)
    for pid in facts["siblings"]:
        for folder in (
            f"/proc/{pid}/cwd",
            f"/proc/{pid}/root{os.getcwd()}",
            *(f"/proc/{pid}/root{place}" for place in ("/agent/work", "/tmp")),
        ):
            tried.refused(f"read in {folder}", read, os.path.join(folder, marker))
    tried.holds("its folder by old fds", not _by_old_fds(marker), "nothing")
    areas = "/agent/areas" if facts["tier"] == "namespaces" else os.path.dirname(os.path.dirname(os.environ["HOME"]))
    for name in names(areas):
        if os.path.join(areas, name) != os.path.dirname(os.environ["HOME"]):
            tried.refused(f"read in the area {name}", read, os.path.join(areas, name, "work", marker))


def _by_old_fds(marker: str) -> list[int]:
    """Folders that are open from before, in which the other one's file is."""
    found = []
    for fd in range(256):
        try:
            os.close(os.open(marker, os.O_RDONLY, dir_fd=fd))
            found.append(fd)
        except OSError:
            continue
    return found


@attempts
def kin_processes(tried: Tried, facts: Facts) -> None:
    for pid in facts["siblings"]:
        for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
            tried.refused(f"signal {number.name}", os.kill, pid, number)
        tried.refused("ptrace", call, "ptrace", SEIZE, pid, 0, 0)
        _squeeze(tried, pid)
        for name in ("mem", "environ", "fd/0", "maps"):
            tried.refused(f"open /proc/{pid}/{name}", open_to, f"/proc/{pid}/{name}", os.O_RDONLY)
