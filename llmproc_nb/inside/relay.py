"""The way out of a family whose network is empty: a listener on its loopback that hands every connection to the host's proxy.

Trusted code in a process of its own beside the keeper, where the proxy's socket can be seen. It reads nothing of what it passes on.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from llmproc_nb.inside import linux
from llmproc_nb.inside.rules import PROXY_PORT

PIECE = 65536
MOST = 64
"""Connections at once; others wait to be accepted."""


class Relay:
    """Pairs of sockets; what comes out of one goes into the other. One that does not take it is waited for, so nothing is piled up."""

    def __init__(self, listener: socket.socket, path: str) -> None:
        self.listener, self.path = listener, path
        self.selector = selectors.DefaultSelector()
        self.peers: dict[socket.socket, socket.socket] = {}
        self.waiting: dict[socket.socket, bytes] = {}
        self.ended: set[socket.socket] = set()
        self.selector.register(listener, selectors.EVENT_READ)

    def turn(self) -> None:
        for key, events in self.selector.select():
            one = key.fileobj
            if one is self.listener:
                self._accept()
            elif isinstance(one, socket.socket) and one in self.peers:
                self._guarded(self._write if events & selectors.EVENT_WRITE else self._read, one)

    def _accept(self) -> None:
        inner, _ = self.listener.accept()
        outer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            outer.connect(self.path)
        except OSError:  # the proxy is gone, and with it the way out
            inner.close()
            outer.close()
            return
        for one, other in ((inner, outer), (outer, inner)):
            one.setblocking(False)
            self.peers[one] = other
        self._await(inner)
        if len(self.peers) >= 2 * MOST:
            self.selector.unregister(self.listener)

    def _guarded(self, step: Callable[[socket.socket], None], one: socket.socket) -> None:
        try:
            step(one)
        except BlockingIOError:
            return
        except OSError:
            self._drop(one)
        else:
            if one in self.peers:
                self._await(one)

    def _read(self, one: socket.socket) -> None:
        other = self.peers[one]
        if data := one.recv(PIECE):
            self.waiting[other] = data
            return
        self.ended.add(one)
        other.shutdown(socket.SHUT_WR)
        if other in self.ended:
            self._drop(one)

    def _write(self, one: socket.socket) -> None:
        if rest := self.waiting[one][one.send(self.waiting[one]) :]:
            self.waiting[one] = rest
        else:
            del self.waiting[one]

    def _await(self, one: socket.socket) -> None:
        """Of a pair: read where nothing waits to be written to the other, write where something does."""
        for end, other in ((one, self.peers[one]), (self.peers[one], one)):
            events = 0 if end in self.ended or other in self.waiting else selectors.EVENT_READ
            events |= selectors.EVENT_WRITE if end in self.waiting else 0
            if end in self.selector.get_map():
                self.selector.unregister(end)
            if events:
                self.selector.register(end, events)

    def _drop(self, one: socket.socket) -> None:
        if self.listener not in self.selector.get_map():
            self.selector.register(self.listener, selectors.EVENT_READ)
        for end in (one, self.peers[one]):
            if end in self.selector.get_map():
                self.selector.unregister(end)
            self.ended.discard(end)
            self.waiting.pop(end, None)
            del self.peers[end]
            end.close()


def start(path: str) -> int:
    """Run the relay in a child of the keeper; gives its pid."""
    listener = socket.create_server(("127.0.0.1", PROXY_PORT), backlog=128)
    keeper = os.getpid()
    if (child := os.fork()) == 0:
        _serve(listener, path, keeper)
    listener.close()
    return child


def _serve(listener: socket.socket, path: str, keeper: int) -> NoReturn:
    try:
        kept = listener.detach()
        os.dup2(kept, 3)
        os.closerange(4, 1 << 16)
        linux.prctl(linux.PDEATHSIG, signal.SIGKILL)
        linux.drop_capabilities()
        relay = Relay(socket.socket(fileno=3), path)
        while os.getppid() == keeper:
            relay.turn()
    finally:
        os._exit(1)
