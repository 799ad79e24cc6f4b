"""HTTP as an MCP connection needs it: a fault of one request is the answer to that request, never the end of all others.

Here: the client behind both HTTP transports, and the streamable one. Not here: the event stream of the older one (sse).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from llmproc_nb.drivers.mcp.launch import Launch
from llmproc_nb.drivers.mcp.wire import CODES

if TYPE_CHECKING:
    import httpx2
    from mcp.client import Transport

WAIT_S = 30.0


def http_client(launch: Launch, most_bytes: int) -> httpx2.AsyncClient:
    """A client with the server's headers. Reading may take as long as it wants: whoever asks has a clock."""
    import httpx2

    timeout = httpx2.Timeout(WAIT_S, read=None)

    class Client(httpx2.AsyncClient):
        async def send(self, request: httpx2.Request, **fields: Any) -> httpx2.Response:
            return await _send(super().send, request, most_bytes, fields)

    kind = Client if launch.type == "http" else httpx2.AsyncClient
    return kind(headers=launch.headers, timeout=timeout)


def http_transport(launch: Launch, client: httpx2.AsyncClient, most_bytes: int) -> Transport:
    """The two streams of a streamable HTTP server."""
    from mcp.client.streamable_http import streamable_http_client

    return streamable_http_client(launch.url, http_client=client, max_sse_event_size=most_bytes)


async def _send(send: Any, request: httpx2.Request, most_bytes: int, fields: dict[str, Any]) -> httpx2.Response:
    import httpx2

    try:
        response: httpx2.Response = await send(request, **fields)
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        if request.method != "POST":
            raise
        return _instead(request, 503, "unsent", f"no connection to {_bare(request)} ({_words(error)})")
    except httpx2.TransportError as error:
        if request.method != "POST":
            raise
        return _instead(request, 502, "lost", f"the connection to {_bare(request)} broke ({_words(error)})")
    kind = response.headers.get("content-type", "").lower()
    if request.method == "POST" and response.status_code >= 400:
        if response.status_code == 404 and "mcp-session-id" in request.headers:
            await response.aclose()  # the server was started anew and knows nothing of us: it has not run this
            return _instead(request, 404, "unsent", "the server no longer knows this connection")
        if not kind.startswith("application/json"):
            await response.aclose()
            words = f"HTTP {response.status_code} {response.reason_phrase} at {_bare(request)}"
            return _instead(request, response.status_code, "http", words)
    if kind.startswith("application/json"):
        response.stream = _bounded(response.stream, most_bytes)
    return response


def _instead(request: httpx2.Request, status: int, kind: str, words: str) -> httpx2.Response:
    import httpx2

    body = {"jsonrpc": "2.0", "id": None, "error": {"code": CODES[kind], "message": words}}
    return httpx2.Response(status, headers={"content-type": "application/json"}, content=json.dumps(body).encode(), request=request)


def _bounded(stream: Any, most_bytes: int) -> Any:
    """The same stream, which raises where it is longer than may be read at once."""
    import httpx2

    class TooLong(httpx2.StreamError):
        pass

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in stream:
                size += len(chunk)
                if size > most_bytes:
                    raise TooLong(f"the answer is longer than may be read at once ({most_bytes:,} bytes)")
                yield chunk

        async def aclose(self) -> None:
            await stream.aclose()

    return Bounded()


def _bare(request: httpx2.Request) -> str:
    return str(request.url.copy_with(userinfo=b"", query=None, fragment=None))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
