"""The host's end of a sandbox's way out: an HTTP proxy on a unix socket that connects to the hosts on a list, and to nothing else.

Names are looked up here and the address that was looked at is the one connected to. What an allowed server does with a connection, and
what is said inside TLS, is not seen. `python -m llmproc_nb.drivers.sandbox.proxy SOCKET HOST…` runs one until its stdin ends.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llmproc_nb.core.errors import ProgramError

PORTS = (80, 443)
MOST = 64
"""Connections at once."""
HEAD_LIMIT = 64 * 1024
HEAD_S, CONNECT_S, IDLE_S = 30.0, 15.0, 600.0
PIECE = 64 * 1024
HOP_BY_HOP = ("proxy-connection", "proxy-authorization", "connection", "keep-alive", "te", "trailer", "upgrade")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Allowed(msgspec.Struct, frozen=True):
    """One entry of the list: `name` without `*.`, whether its subdomains are meant, the ports."""

    name: str
    below: bool
    ports: tuple[int, ...]

    def matches(self, name: str, port: int) -> bool:
        return port in self.ports and (name.endswith(f".{self.name}") if self.below else name == self.name)


class Denied(Exception):
    """What the code inside is told: a status of HTTP and a sentence."""

    def __init__(self, status: str, why: str) -> None:
        self.status = status
        super().__init__(why)


def allowed(entry: str) -> Allowed:
    """`name`, `*.name`, `name:port`, an address, `[address]:port`. Raises ProgramError."""
    text = entry.strip()
    below = text.startswith("*.")
    try:
        parts = urlsplit(f"//{bracketed(text.removeprefix('*.'))}")
        name, port = plain(parts.hostname or ""), parts.port
    except ValueError:
        name, port, parts = "", None, urlsplit("")
    if not re.fullmatch(r"[a-z0-9._:-]+", name) or parts.path or parts.query or parts.username is not None:
        raise ProgramError(
            f"{entry!r} is no host", place="[sandbox] hosts", right="it is a name, *.name or an address, with :port or without"
        )
    return Allowed(name, below, (port,) if port else PORTS)


def bracketed(text: str) -> str:
    """An address of IPv6 as it is written before a port."""
    return f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text


def plain(name: str) -> str:
    """A name as names are compared. Raises ValueError."""
    name = name.lower().rstrip(".")
    return name if name.isascii() else name.encode("idna").decode("ascii")


class Proxy:
    """Serves on a unix socket, on the loop that starts it. `on_denied` is told each request that was not let through."""

    def __init__(self, hosts: Iterable[str], path: str, *, on_denied: Callable[[str], None] | None = None) -> None:
        self.allowed = tuple(allowed(host) for host in hosts)
        self.path = path
        self._on_denied = on_denied or (lambda why: None)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to serve. The folder of the socket must be one that only the host's user may enter: the socket itself is open to all."""
        self._server = await asyncio.start_unix_server(self._accepted, self.path, limit=HEAD_LIMIT)
        os.chmod(self.path, 0o666)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._tasks) > MOST:
                raise Denied("503 Service Unavailable", f"more than {MOST} connections at once")
            await self._serve(reader, writer)
        except Denied as denied:
            self._on_denied(str(denied))
            writer.write(f"HTTP/1.1 {denied.status}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n{denied}\n".encode())
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # who was served is gone, or never said what it wants
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, _, fields = head.partition("\r\n")
        if set("\r\n\0") & set(head.replace("\r\n", "")):
            raise Denied("400 Bad Request", "a line of the request ends in another way than lines of HTTP do")
        method, _, rest = line.partition(" ")
        target = rest.rpartition(" ")[0]
        tunnel = method == "CONNECT"
        name, port, path = goal(target, tunnel)
        there, back = await self._connect(name, port)
        try:
            if tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                back.write(_forwarded(method, path, name, port, fields).encode("latin-1"))
            await _both(_pump(reader, back), _pump(there, writer))
        finally:
            back.close()

    async def _connect(self, name: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to an address that the list allows for this name."""
        entries = [entry for entry in self.allowed if entry.matches(name, port)]
        if not entries:
            listed = ", ".join(sorted({entry.name for entry in self.allowed})) or "none"
            raise Denied("403 Forbidden", f"{name}:{port} is not on the list of this sandbox (allowed: {listed})")
        try:
            async with asyncio.timeout(CONNECT_S):
                address = await self._looked_up(name, port, exact=any(not entry.below for entry in entries))
                return await asyncio.open_connection(str(address), port, limit=HEAD_LIMIT)
        except (OSError, TimeoutError, UnicodeError) as error:  # the last: no name of DNS has this form
            raise Denied("502 Bad Gateway", f"{name}:{port} cannot be reached: {error or 'no answer in time'}") from None

    async def _looked_up(self, name: str, port: int, *, exact: bool) -> Address:
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
        for address in (ipaddress.ip_address(one[4][0]) for one in found):
            if may_be_reached(address, name, exact):
                return address
        raise Denied("403 Forbidden", f"{name} has an address inside this machine or its network, for which it is not listed")


def may_be_reached(address: Address, name: str, exact: bool) -> bool:
    """Public addresses; private ones of a name that is listed as it is; this machine's own only as `localhost` or the very address."""
    address = getattr(address, "ipv4_mapped", None) or address
    if getattr(address, "sixtofour", None) or getattr(address, "is_site_local", False):  # they lead to any other address, or inside
        return exact and name == str(address)
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast or address.is_reserved:
        return exact and (name in ("localhost", str(address)))
    return address.is_global or exact


def goal(target: str, tunnel: bool) -> tuple[str, int, str]:
    """Host, port and path that a request is for. Raises Denied."""
    try:
        parts = urlsplit(f"//{target}" if tunnel else target)
        name, port = plain(parts.hostname or ""), parts.port or (443 if tunnel else 80)
    except ValueError:
        raise Denied("400 Bad Request", f"{target!r} is no address") from None
    if not name or (not tunnel and parts.scheme != "http"):
        raise Denied("400 Bad Request", f"{target!r} is not http://host/path, nor host:port after CONNECT")
    return name, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _forwarded(method: str, path: str, name: str, port: int, fields: str) -> str:
    """The head as the server gets it: for the host that was looked at, and one request only on this connection."""
    kept = [line for line in fields.split("\r\n") if line and line.partition(":")[0].strip().lower() not in (*HOP_BY_HOP, "host")]
    host = bracketed(name) if port == 80 else f"{bracketed(name)}:{port}"
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *kept, "Connection: close", "", ""])


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        async with asyncio.timeout(IDLE_S):
            data = await reader.read(PIECE)
        if not data:
            break
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _both(*pumps: Any) -> None:
    """Both directions, until both have ended or one has failed."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(path: str, hosts: list[str]) -> None:
    proxy = Proxy(hosts, path)
    await proxy.start()
    print("serving", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()
    await proxy.close()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], sys.argv[2:]))
