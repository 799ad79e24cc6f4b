"""Attempts on the network: the host's own servers and sockets, any address, other families of sockets."""

from __future__ import annotations

import socket
from typing import Any

from llmproc_nb.inside.probe.tried import Facts, Tried, attempts

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def _connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as attempt:
        attempt.settimeout(1)
        attempt.connect(address)
        attempt.send(b"probe")


def _answered(address: Any) -> None:
    """A datagram to one's own loopback can always be sent: only an answer shows that somebody is there."""
    with socket.socket(socket.AF_INET, DATAGRAM) as attempt:
        attempt.settimeout(0.5)
        attempt.sendto(b"probe", address)
        try:
            attempt.recv(16)
        except TimeoutError:
            raise ConnectionRefusedError from None


@attempts
def loopback(tried: Tried, facts: Facts) -> None:
    tried.refused("TCP to the host's loopback", _connect, socket.AF_INET, STREAM, ("127.0.0.1", facts["port"]))
    tried.refused("UDP to the host's loopback", _answered, ("127.0.0.1", facts["udp_port"]))
    tried.refused("TCP to the host's other name", _connect, socket.AF_INET6, STREAM, ("::ffff:127.0.0.1", facts["port"]))
    tried.refused("TCP to the host's address", _connect, socket.AF_INET, STREAM, (facts["address"], facts["port"]))
    tried.refused("TCP by fast open", _fast_open, ("127.0.0.1", facts["port"]))


def _fast_open(address: Any) -> int:
    with socket.socket(socket.AF_INET, STREAM) as attempt:
        attempt.settimeout(1)
        return attempt.sendto(b"probe", 0x20000000, address)


@attempts
def unix(tried: Tried, facts: Facts) -> None:
    for kind, name in ((STREAM, ""), (DATAGRAM, "-datagram")):
        tried.refused(f"the host's abstract socket{name}", _connect, socket.AF_UNIX, kind, "\0" + facts["abstract"] + name)
        tried.refused(f"the host's socket in a folder{name}", _connect, socket.AF_UNIX, kind, facts["socket"] + name)
    tried.refused("a datagram past a pair", _past_a_pair, facts["socket"] + "-datagram")


def _past_a_pair(address: str) -> None:
    """A connected datagram socket can send to any other address as well."""
    first, second = socket.socketpair(socket.AF_UNIX, DATAGRAM)
    with first, second:
        first.sendto(b"probe", address)


@attempts
def network(tried: Tried, facts: Facts) -> None:
    for address in ("192.0.2.1", "1.1.1.1", "10.0.0.1", "169.254.169.254"):
        tried.refused(f"TCP to {address}", _connect, socket.AF_INET, STREAM, (address, 80))
    tried.refused("UDP to 1.1.1.1", _connect, socket.AF_INET, DATAGRAM, ("1.1.1.1", 53))
    tried.refused("TCP to 2606:4700::1111", _connect, socket.AF_INET6, STREAM, ("2606:4700::1111", 80))
    tried.refused("look up a name", socket.getaddrinfo, "example.com", 80)
    for name, family in (("packet", 17), ("bluetooth", 31), ("vsock", 40), ("kernel crypto", 38), ("xdp", 44), ("can", 29), ("tipc", 30)):
        tried.refused(f"a {name} socket", socket.socket, family, DATAGRAM)
    tried.refused("a netfilter socket", socket.socket, 16, socket.SOCK_RAW, 12)
    tried.refused("a raw socket", socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
