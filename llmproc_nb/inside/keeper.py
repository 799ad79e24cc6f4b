"""The keeper of a family: it holds the folder with the areas, forks the first shell, takes leave of the dead, and ends everything.

It is trusted, single-threaded, and never runs code of a model. It lives as long as its socket to the notebook's kernel, and the zygote.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from llmproc_nb.inside import area, channel, confine, kin, shell
from llmproc_nb.inside.rules import Rules
from llmproc_nb.inside.watch import Watch

WATCH_S, IDLE_S = 0.1, 2.0
"""How often a keeper looks at what its family has: while cells run, and while none does but something may go on behind them."""


def main(control: socket.socket, lifeline: int, rules: Rules) -> None:
    """Serve until the other side closes, then end everything."""
    kin.take_orphans()
    keeper = Keeper(control, lifeline, rules)
    try:
        keeper.serve()
    except (EOFError, ConnectionError):
        pass
    finally:
        kin.end_all()
        for name in os.listdir(confine.areas()):
            area.remove(os.path.join(confine.areas(), name))
        os._exit(0)


class Keeper:
    """What a keeper knows: its areas' snapshots, and whether cells are running."""

    def __init__(self, control: socket.socket, lifeline: int, rules: Rules) -> None:
        self._control, self._lifeline, self._rules = control, lifeline, rules
        self._snapshots: dict[str, area.Copied] = {}
        self._seen = Watch(rules)
        self._ops: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
            "shell": self._shell,
            "area": self._area,
            "snapshot": self._snapshot,
            "drop": self._drop,
            "watch": self._watch,
            "end": self._end,
        }

    def serve(self) -> None:
        """Answer requests, and look after the dead and the greedy in between."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._own = (self._control.fileno(), self._lifeline, wake, waker)
        channel.send(self._control, {"op": "ready"})
        ends: list[Any] = [self._control, self._lifeline, wake]
        looked = time.monotonic()
        while True:
            next_s = looked + (WATCH_S if self._seen.running else IDLE_S) - time.monotonic()
            ready, _, _ = select.select(ends, [], [], max(0.0, next_s))
            if self._lifeline in ready:
                return
            if wake in ready:
                os.read(wake, 4096)
                self._reap()
            if next_s <= 0 or not ready:
                self._end_greedy()
                looked = time.monotonic()
            if self._control in ready:
                request, _, fds = channel.receive(self._control)
                self._answer(request, fds)

    def _answer(self, request: dict[str, Any], fds: list[int]) -> None:
        answer: dict[str, Any]
        mount: tuple[int, ...] = ()
        try:
            answer = self._ops[request["op"]](request, fds)
            if "mount" in answer:
                mount = (answer.pop("mount"),)
        except OSError as error:
            answer = {"error": "no room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"{type(error).__name__}: {error}"}
        if "n" in request:
            channel.send(self._control, {"op": "answer", "n": request["n"], "fds": len(mount), **answer}, fds=mount)
        channel.close_all([*fds, *mount])

    def _path(self, name: str) -> str:
        return os.path.join(confine.areas(), name)

    def _shell(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        path = self._path(request["area"])
        confine.make_area(path)
        mount = confine.attach(path)
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for fd in self._own:
                    os.close(fd)
                shell.first(fds, mount, path, self._rules)
            finally:
                os._exit(1)
        self._seen.begun.add(pid)
        if mount is not None:
            os.close(mount)
        return {}

    def _area(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        path = self._path(request["name"])
        area.copy(self._path(request["source"]), path, again=request["again"])
        mount = None if request["again"] else confine.attach(path)
        return {"path": path} if mount is None else {"path": path, "mount": mount}

    def _snapshot(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        before = request["before"]
        copied = area.copy(
            self._path(request["area"]), self._path(request["name"]), self._snapshots.get(before), self._path(before) if before else ""
        )
        self._snapshots[request["name"]] = copied
        return {"left_out": copied.left_out[:20]}

    def _drop(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._snapshots.pop(request["name"], None)
        area.clear(self._path(request["name"]))
        return {}

    def _watch(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Hear who is who: live sessions, those that run a cell, frozen copies."""
        began = len(request["running"]) > len(self._seen.running)
        self._seen.sessions, self._seen.running, self._seen.copies = request["sessions"], request["running"], request["copies"]
        if began:
            self._end_greedy()
        return {}

    def _end(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """End one shell and what it started; `spared` are the other shells and the frozen copies."""
        kin.end(request["pid"], set(request["spared"]))
        return {}

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._seen.begun.discard(pid)
            channel.send(self._control, {"op": "ended", "pid": pid, "how": kin.how(status)})

    def _end_greedy(self) -> None:
        self._seen.hold(lambda found: channel.send(self._control, {"op": "greedy", **found._asdict()}))
