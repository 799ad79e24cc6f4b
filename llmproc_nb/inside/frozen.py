"""Copies of a live shell: a frozen one is forked between two cells and waits; woken, it forks again, and that process goes on live.

What a fork cannot take along is said: other threads, subprocesses, sockets and pipes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from llmproc_nb.inside import channel, kin, openfiles, outlet
from llmproc_nb.inside.rules import Refused

if TYPE_CHECKING:
    from llmproc_nb.inside.shell import State


def keep(state: State, n: int, fds: list[int]) -> None:
    """Fork a frozen copy. In the process that asked it comes back at once; in a copy only when that was woken, as a live shell."""
    outlet.flush()
    _reap(state)
    chance = random.getstate()
    pid = os.fork()
    if pid == 0:
        freeze(state, fds[0], chance)
        return
    state.kept.append(pid)
    channel.close_all(fds)
    state.out.say({"op": "kept", "n": n})


def freeze(state: State, fd: int, chance: Any) -> None:
    """Wait as a copy. Comes back in each process that is to go on from here, `random` as it was: Python reseeds it in forks."""
    os.setsid()
    state.running = False
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    state.out.sock.close()
    state.leave_pipes()
    _silence()
    files = openfiles.remember(state.area, fd)
    folder = _folder()
    state.kept = []
    waiting = socket.socket(fileno=fd)
    state.out = outlet.Outlet(waiting)
    state.out.say({"op": "hello"})
    children: set[int] = set()
    before = signal.signal(signal.SIGCHLD, lambda *_: _tell_ends(state, children))
    while True:
        try:
            header, _, fds = channel.receive(waiting)
        except (EOFError, OSError):
            os._exit(0)
        if header["op"] == "measure":
            state.out.say({"op": "size", "mb": round(kin.own_private_mb(), 3)})
            continue
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, before)
            waiting.close()
            go_on(state, header, fds, files, folder)
            random.setstate(chance)
            if header["owner"]:
                _part_chance(header["owner"])
            state.ready()
            return
        children.add(pid)
        channel.close_all(fds)


def _part_chance(owner: str) -> None:
    """Let the global generators go on in a way of the owner's own: forks do not draw alike, but each draws the same from the same seed."""
    made, numpy = hashlib.sha512(f"{owner}{random.getstate()}".encode()), sys.modules.get("numpy")
    if numpy is not None:
        made.update(numpy.random.get_state()[1].tobytes())
        numpy.random.seed(numpy.frombuffer(made.digest(), dtype="uint32"))
    random.seed(made.digest())


def _tell_ends(state: State, children: set[int]) -> None:
    """Say how live shells ended that were woken from this copy."""
    for pid in tuple(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            children.discard(pid)
            state.out.say({"op": "ended", "pid": pid, "how": kin.how(status)})


def go_on(state: State, header: dict[str, Any], fds: list[int], files: list[openfiles.File], folder: str) -> None:
    """Become a live shell: a socket, pipes and an area of its own."""
    os.setsid()
    state.adopt(fds[:3])
    before = state.area
    try:
        state.stay() if header["again"] else state.move_in(fds[3] if len(fds) > 3 else None, header["area"])
    except Refused as error:
        state.out.say({"op": "failed", "why": str(error)[:1000]})
        os._exit(1)
    moved = {before: state.area}
    with contextlib.suppress(OSError):
        os.chdir(_moved(folder, moved))
    openfiles.reopen(files, moved)
    if tempfile.tempdir is not None:
        tempfile.tempdir = _moved(tempfile.tempdir, moved)
    sys.path[:] = [_moved(path, moved) for path in sys.path]
    renew_loop()


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # code took it away
        return ""


def _moved(path: str, moved: dict[str, str]) -> str:
    for old, new in moved.items():
        if path == old or path.startswith(old + "/"):
            return new + path[len(old) :]
    return path


def renew_loop() -> None:
    """A new event loop in the place of IPython's: the old one's descriptors are shared with the process it came from."""
    from IPython.core import async_helpers

    async_helpers._asyncio_event_loop = None


def left_behind(state: State) -> list[str]:
    """What no copy of this process has, in a few words each."""
    things = []
    others = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
    if others:
        things.append(f"{len(others)} thread{'s' * (len(others) != 1)} ({', '.join(others[:5])})")
    children = [pid for pid in _children() if pid not in state.kept and not _leads(pid)]
    if children:
        things.append(f"{len(children)} subprocess{'es' * (len(children) != 1)}")
    return things + openfiles.left_behind(state.area, _own_fds(state))


def _own_fds(state: State) -> set[int]:
    from IPython.core import async_helpers

    own = {state.out.sock.fileno(), *state.pipes, 0, 1, 2}
    loop: Any = async_helpers._asyncio_event_loop
    for part in ("_ssock", "_csock", "_selector"):
        inner = getattr(loop, part, None)
        if inner is not None:
            try:
                own.add(inner.fileno())
            except (OSError, ValueError):
                continue
    return own


def _children() -> list[int]:
    try:
        with open("/proc/self/task/" + str(os.getpid()) + "/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _leads(pid: int) -> bool:
    """Whether a child leads a session of its own, as shells do that were woken from a copy of this one which has ended."""
    try:
        return os.getsid(pid) == pid
    except OSError:
        return True  # it has ended meanwhile


def _reap(state: State) -> None:
    """Take leave of copies that have ended."""
    for pid in list(state.kept):
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                state.kept.remove(pid)
        except ChildProcessError:
            state.kept.remove(pid)


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in (outlet.OUT, outlet.ERR):
        os.dup2(nowhere, fd)
    os.close(nowhere)
