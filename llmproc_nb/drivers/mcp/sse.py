"""A server behind an event stream and posts, the older of the two HTTP transports. Our own, as the SDK's reads at most 1 MB at a time
and leaves a request waiting for ever when its post fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.drivers.mcp.launch import Launch
from llmproc_nb.drivers.mcp.wire import answer, parse

if TYPE_CHECKING:
    from httpx2 import AsyncClient
    from mcp.client import Transport


def sse_transport(launch: Launch, client: AsyncClient, most_bytes: int, on_end: Callable[[], None]) -> Transport:
    """The two streams of a server for the SDK's client. `on_end` is called when no further message can come."""
    return _streams(launch, client, most_bytes, on_end)  # type: ignore[return-value]


@asynccontextmanager
async def _streams(launch: Launch, client: AsyncClient, most_bytes: int, on_end: Callable[[], None]) -> AsyncIterator[tuple[Any, Any]]:
    import anyio
    import httpx2

    come, read = anyio.create_memory_object_stream[Any](0)
    write, going = anyio.create_memory_object_stream[Any](0)
    endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    posts: set[asyncio.Task[None]] = set()

    async def reader(response: httpx2.Response) -> None:
        try:
            async for event in httpx2.EventSource(response, max_event_size=most_bytes):
                if event.event == "endpoint":
                    if not endpoint.done():
                        endpoint.set_result(event.data)
                elif event.data and (message := parse(event.data.encode(errors="replace"))) is not None:
                    await come.send(message)
        except (httpx2.HTTPError, httpx2.StreamError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the end of the stream is the end of the connection, whatever its reason
        if not endpoint.done():
            endpoint.cancel()
        on_end()
        await come.aclose()

    async def post(address: str, item: Any) -> None:
        body = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode(errors="replace")
        kind, words = "", ""
        try:
            got = await client.post(address, content=body, headers={"content-type": "application/json"})
            if got.status_code >= 300:
                kind, words = "http", f"HTTP {got.status_code} {got.reason_phrase}"
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            kind, words = "unsent", _words(error)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            kind, words = "lost", _words(error)
        if kind and hasattr(item.message, "method") and getattr(item.message, "id", None) is not None:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await come.send(answer(item.message.id, kind, words))

    async def writer(address: str) -> None:
        async for item in going:
            task = asyncio.create_task(post(address, item))
            posts.add(task)
            task.add_done_callback(posts.discard)

    async with client.stream("GET", launch.url, headers={"accept": "text/event-stream", "cache-control": "no-store"}) as response:
        _check(launch, response)
        tasks = [asyncio.create_task(reader(response))]
        try:
            address = await _address(launch, endpoint)
            tasks.append(asyncio.create_task(writer(address)))
            yield read, write
        finally:
            for task in (*tasks, *posts):
                task.cancel()
            await asyncio.gather(*tasks, *posts, return_exceptions=True)
            for stream in (come, read, write, going):
                stream.close()


async def _address(launch: Launch, endpoint: asyncio.Future[str]) -> str:
    """Where to post to. It must be at the same origin: headers meant for one server go to no other."""
    try:
        address = urljoin(launch.url, await endpoint)
    except asyncio.CancelledError:
        if not endpoint.cancelled():
            raise
        raise ProgramError("the stream ended before it named an endpoint", place=launch.place) from None
    if urlsplit(address)[:2] != urlsplit(launch.url)[:2]:
        raise ProgramError("it wants messages at another origin", place=launch.place, right="an endpoint is at the address of the server")
    return address


def _check(launch: Launch, response: Any) -> None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status_code >= 300:
        raise ProgramError(
            f"HTTP {response.status_code} {response.reason_phrase} at {launch.words}", place=launch.place, step=_hint(response)
        )
    if kind != "text/event-stream":
        found = f"{launch.words} answers with {kind or 'nothing'}"
        raise ProgramError(found, place=launch.place, right="a server of type sse answers with an event stream", step='Is its type "http"?')


def _hint(response: Any) -> str:
    if response.status_code in (401, 403):
        return "Does it need a header, such as Authorization?"
    return 'Is its type "http"?' if response.status_code in (400, 404, 405, 406) else ""


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
