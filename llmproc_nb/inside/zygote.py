"""The zygote: a process with the usual libraries loaded, from which the families of sandboxes are forked. It never runs code of a model.

It lives as long as its socket: when the notebook's kernel is gone, however it went, the zygote waits for its families to end, removes
their folders and ends too.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import threading
import time
from typing import Any

from llmproc_nb.inside import area, channel, confine, folder, keeper, shell
from llmproc_nb.inside.rules import Refused
from llmproc_nb.inside.rules import load as load_rules

LAST_WAIT_S = 5.0
HANG_UPS = (signal.SIGHUP, signal.SIGQUIT)
"""A host that `nohup` or a script started ignores them, and so would all that it starts."""

LIBRARIES = ("numpy", "pandas", "pyarrow", "matplotlib.pyplot", "matplotlib_inline.backend_inline")


def main(fd: int, host: int, base: str) -> None:
    """Serve requests for families until the other side closes, or the process of the host is gone: a fork of it may hold the socket.

    `base` is the folder in which the host makes those of its families.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the notebook's terminal is no matter of ours
    for number in HANG_UPS:
        signal.signal(number, signal.SIG_DFL)
    control = socket.socket(fileno=os.dup(fd))  # a low number: the host's may be one that select cannot wait for
    os.close(fd)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        gone, (lifeline, ours) = os.pidfd_open(host), os.pipe()
    except ProcessLookupError:
        folder.sweep(base)
        return
    load()
    folders: dict[int, str] = {}
    ends: list[Any] = [control, wake, gone]
    while True:
        ready, _, _ = select.select(ends, [], [])
        if wake in ready:
            os.read(wake, 4096)
            reap(folders)
        if gone in ready or os.getppid() != host:
            break
        if control in ready:
            try:
                request, _, fds = channel.receive(control)
            except (EOFError, OSError):
                break
            family(request, fds, folders, lifeline, (control.fileno(), wake, waker, gone, ours))
    os.close(ours)  # the keepers see that it is over, and end what is theirs
    last = time.monotonic() + LAST_WAIT_S
    while folders and time.monotonic() < last:
        reap(folders)
        time.sleep(0.02)
    for pid, own in folders.items():
        os.kill(pid, signal.SIGKILL)
        area.remove(own)
    select.select([gone], [], [], max(0.0, last - time.monotonic()))
    folder.sweep(base)  # the host may have made one and ended before it asked for a family


def load() -> None:
    """Import what is installed, make the shell that all families start from, and let it go through what is slow the first time."""
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    shell.prepare()
    others = threading.active_count() - 1
    if others:
        raise SystemExit(f"the zygote has {others} threads beside its own: no process can be forked from it safely")
    gc.collect()
    gc.freeze()


def family(request: dict[str, Any], fds: list[int], folders: dict[int, str], lifeline: int, own: tuple[int, ...]) -> None:
    """Fork a family; what becomes of it is told over the family's own socket."""
    pid = os.fork()
    if pid:
        folders[pid] = load_rules(request["rules"]).folder
        channel.close_all(fds)
        return
    try:
        begin(request, fds[0], lifeline, own)
    finally:
        os._exit(1)


def begin(request: dict[str, Any], fd: int, lifeline: int, own: tuple[int, ...]) -> None:
    """In the new process: confine it, and be its keeper."""
    signal.set_wakeup_fd(-1)
    for number in own:
        os.close(number)
    control = socket.socket(fileno=fd)
    rules = load_rules(request["rules"])
    channel.send(control, {"op": "root"})
    try:
        confine.enter(rules, lambda: keeper.main(control, lifeline, rules))
    except Refused as error:
        channel.send(control, {"op": "refused", "why": str(error)})
    except OSError as error:
        channel.send(control, {"op": "refused", "why": f"{type(error).__name__}: {error}"})


def reap(folders: dict[int, str]) -> None:
    """Take leave of families that have ended, and of their folders."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        if pid in folders:
            area.remove(folders.pop(pid))
