"""The zygote as the notebook's process sees it: started once, asked for families, started again when it has ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from llmproc_nb.inside import channel
from llmproc_nb.inside.rules import environment

OWN = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # another one would reserve a gigabyte of addresses, which the limit of memory counts
}
SAID_BYTES = 4000
START = """
import sys
if {root!r} not in sys.path:
    sys.path.insert(0, {root!r})
from llmproc_nb.inside import zygote
sys.path.append(sys.path.pop(sys.path.index({root!r})))
zygote.main({fd}, {pid}, {base!r})
"""
"""What it runs: this very checkout's code, whose folder then comes last in the search for modules."""


class Zygote:
    """One for the whole process, whatever loops there are. Its methods may wait a little: they are for other threads than a loop's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._said: IO[bytes] | None = None
        self.environ: Mapping[str, str] = os.environ

    @property
    def pid(self) -> int:
        """The process now."""
        return self._process.pid if self._process is not None else 0

    def begin(self) -> None:
        """Start it, if it is not there."""
        with self._lock:
            self._begin()

    def family(self, rules: str, fd: int) -> None:
        """Ask for a family whose keeper talks over this descriptor. What becomes of it is told there."""
        with self._lock:
            for last in (False, True):
                control = self._begin()
                try:
                    channel.send(control, {"op": "family", "rules": rules}, fds=(fd,))
                    return
                except OSError:
                    if last:
                        raise
                    self._end()

    def last_words(self) -> str:
        """What it wrote to its stderr last."""
        if self._said is None:
            return ""
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), SAID_BYTES, max(0, size - SAID_BYTES)).decode("utf-8", "replace").strip()

    def _begin(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._socket is None:
            ours, other = socket.socketpair()
            self._said = tempfile.TemporaryFile()  # noqa: SIM115
            root, base = str(Path(__file__).resolve().parents[3]), tempfile.gettempdir()
            code = START.format(root=root, fd=other.fileno(), pid=os.getpid(), base=base)
            with other:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-c", code],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._said,
                    pass_fds=(other.fileno(),),
                    env=environment(self.environ, {**OWN, "MPLCONFIGDIR": _fonts()}),
                    cwd="/",
                    start_new_session=True,
                )
            self._socket = ours
        return self._socket

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None


def _fonts() -> str:
    """Where matplotlib keeps what it found out about fonts, apart from the person's own settings for it."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "llmproc-nb", "matplotlib")


ZYGOTE = Zygote()
"""The one of this process."""
