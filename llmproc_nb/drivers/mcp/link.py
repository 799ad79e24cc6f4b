"""One connection to a server, entered and left in one long-lived task of the owner loop, as the SDK's cancel scopes demand.

Other tasks of the same loop call through it. Here: its beginning, its end and the calls under way. Not here: restarts (server).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.errors import LlmprocError, ProgramError
from llmproc_nb.core.tail import Tail
from llmproc_nb.drivers.mcp import asks
from llmproc_nb.drivers.mcp.calls import Calls
from llmproc_nb.drivers.mcp.http import http_client, http_transport
from llmproc_nb.drivers.mcp.launch import Launch
from llmproc_nb.drivers.mcp.parts import SCHEMA_FAULT
from llmproc_nb.drivers.mcp.sse import sse_transport
from llmproc_nb.drivers.mcp.stdio import Child, stdio_transport
from llmproc_nb.drivers.mcp.values import Ears, LogLine, Terms
from llmproc_nb.drivers.mcp.wire import CODES

if TYPE_CHECKING:
    from mcp.client import Client, Transport

LISTEN_AGAIN_S = 1.0


class Link:
    """A connection. `client` is the SDK's, once `start` has come back; `dead` says that no further call should use it."""

    def __init__(
        self, launch: Launch, terms: Terms, ears: Ears, folders: tuple[Path, ...], tail: Tail, on_stale: Callable[[], None]
    ) -> None:
        self._launch, self._terms, self._ears, self._folders, self._on_stale = launch, terms, ears, folders, on_stale
        self.tail = tail
        self.calls = Calls(terms.call_timeout_s)
        self.calls.on_empty = self._left
        self.dead = False
        self.child: Child | None = None
        self.client: Client
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._side: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect. Raises ProgramError, which says what the server said last."""
        self._task = asyncio.create_task(self._live(), name=f"mcp {self._launch.name}")
        try:
            await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        """Leave the connection; calls under way are answered with its end."""
        self.dead = True
        self._stop.set()
        if self._task is not None and not self._task.done():
            if not self._ready.done():
                self._task.cancel()
            _, late = await asyncio.wait({self._task}, timeout=4 * self._terms.stop_grace_s + 1.0)
            for task in late:
                task.cancel()
                await asyncio.wait({task}, timeout=1.0)

    def retire(self) -> None:
        """No further call; the connection is left when the last one is answered."""
        self.dead = True
        if not self.calls.open:
            self._stop.set()

    def _left(self) -> None:
        if self.dead:
            self._stop.set()

    def _ended(self) -> None:
        """The transport tells that nothing more can come."""
        self.dead = True
        self._stop.set()

    async def end(self) -> str:
        """How it ended, for an error."""
        return await self.child.end() if self.child is not None else "closed the connection"

    # the one task

    async def _live(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                if await self._connected(stack):
                    await self._stop.wait()
        except asyncio.CancelledError:
            if not self._ready.done():
                self._ready.cancel()
            raise
        except Exception:  # foreign code again, on the way out: whoever still waits is told of the end by the SDK
            _LOG.debug("MCP server %s: the end of a connection", self._launch.name, exc_info=True)
        finally:
            self.dead = True
            for task in tuple(self._side):
                task.cancel()

    async def _connected(self, stack: AsyncExitStack) -> bool:
        """Whether it came to a connection; if not, whoever waits for it knows why."""
        try:
            async with asyncio.timeout(self._terms.connect_timeout_s):
                await self._enter(stack)
        except Exception as error:  # the SDK and what it runs on are foreign code: whatever they raise ends this connection and no other
            self._ready.set_exception(await self._not_connected(error))
            return False
        self._ready.set_result(None)
        return True

    async def _enter(self, stack: AsyncExitStack) -> None:
        launch, terms = self._launch, self._terms
        if launch.type == "stdio":
            self.child = await Child.start(launch, self.tail)  # it starts while the SDK is imported
            stack.push_async_callback(self.child.stop, terms.stop_grace_s)
        await asyncio.to_thread(import_module, "mcp.client")
        for name in ("mcp", "client"):  # without a reader the last resort of logging would print the SDK's tracebacks into the notebook
            logging.getLogger(name).addHandler(_SILENT)
        self.client = await stack.enter_async_context(self._client(await self._transport(stack)))
        self._take_unvalidated()
        await self._subscribe()

    async def _transport(self, stack: AsyncExitStack) -> Transport:
        most = self._terms.max_message_bytes
        if self.child is not None:
            return stdio_transport(self.child, most, self._ended)
        client = await stack.enter_async_context(http_client(self._launch, most))
        if self._launch.type == "sse":
            return sse_transport(self._launch, client, most, self._ended)
        return http_transport(self._launch, client, most)

    def _client(self, transport: Transport) -> Client:
        from mcp.client import Client

        name, ears, calls = self._launch.name, self._ears, self.calls
        return Client(
            transport,
            cache=None,
            mode=self._terms.protocol,
            client_info=_own_name(),
            sampling_callback=asks.sampling(name, ears, calls),
            elicitation_callback=asks.elicitation(name, ears, calls),
            list_roots_callback=asks.roots(self._folders),
            logging_callback=self._log,
            log_level="info" if ears.on_log else None,
            message_handler=self._message,
        )

    def _take_unvalidated(self) -> None:
        """A result that breaks the server's own schema is given with a note: the call was made, its answer must not be lost."""
        session = self.client.session
        validate = session.validate_tool_result

        async def noted(name: str, result: Any) -> None:
            try:
                await validate(name, result)
            except RuntimeError as error:
                result.meta = {**(result.meta or {}), SCHEMA_FAULT: str(error).split("\n", 1)[0]}

        session.validate_tool_result = noted  # type: ignore[method-assign]

    async def _subscribe(self) -> None:
        """Hear of changes: older servers tell by themselves, newer ones to whoever listens. The SDK tells `_message` of both."""
        import mcp_types as mcp
        from mcp_types.version import MODERN_PROTOCOL_VERSIONS

        can = self.client.server_capabilities
        if self.client.protocol_version in MODERN_PROTOCOL_VERSIONS:
            if can.tools is not None and can.tools.list_changed:
                self._aside(self._listen())
        elif can.logging is not None and self._ears.on_log is not None:
            request = mcp.SetLevelRequest(params=mcp.SetLevelRequestParams(level="info"))
            self._aside(self._tell(self.client.session.send_request(request, mcp.EmptyResult)))

    async def _tell(self, request: Awaitable[Any]) -> None:
        from mcp.shared.exceptions import MCPError

        with suppress(MCPError, ValueError):  # a server that cannot is as well served without
            await request

    async def _listen(self) -> None:
        from mcp.client.subscriptions import SubscriptionLost
        from mcp.shared.exceptions import MCPError

        lost = False
        while not self.dead:
            try:
                async with self.client.listen(tools_list_changed=True) as changes:
                    if lost:
                        self._on_stale()  # what changed meanwhile was told to nobody
                    async for _ in changes:
                        pass
                return
            except SubscriptionLost:
                lost = True
                await asyncio.sleep(LISTEN_AGAIN_S)
            except (MCPError, RuntimeError):
                return

    def _aside(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._side.add(task)
        task.add_done_callback(self._side.discard)

    async def _message(self, message: Any) -> None:
        import mcp_types as mcp

        if isinstance(message, mcp.ToolListChangedNotification):
            self._on_stale()

    async def _log(self, params: Any) -> None:
        if self._ears.on_log is not None:
            text = params.data if isinstance(params.data, str) else json.dumps(params.data, ensure_ascii=False)
            self._ears.on_log(LogLine(server=self._launch.name, level=params.level, text=self.tail.hide(text), logger=params.logger or ""))

    async def _not_connected(self, error: Exception) -> LlmprocError:
        """What went wrong at the start, in words for the person."""
        launch = self._launch
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, LlmprocError):
            return error
        ended = self.child is not None and (self.dead or not self.child.alive)
        if ended:
            found = f"{self.tail.hide(launch.words)!r} {await self.end()} before it answered"
        elif isinstance(error, TimeoutError):
            found = f"{self.tail.hide(launch.words)!r} did not answer within {self._terms.connect_timeout_s:g} s"
        else:
            found = f"no connection to {self.tail.hide(launch.words)!r}: {self.tail.hide(str(error)) or type(error).__name__}"
        right = (
            "a server of type stdio answers on its stdout" if launch.type == "stdio" else f"a server of type {launch.type} answers there"
        )
        step = self.tail.last_words() or _http_hint(error)
        return ProgramError(found, place=launch.place, right=right, step=step)


_SILENT = logging.NullHandler()
_LOG = logging.getLogger(__name__)


def _own_name() -> Any:
    import mcp_types as mcp

    return mcp.Implementation(name="llmproc-nb", version="0")


def _http_hint(error: Exception) -> str:
    if getattr(error, "code", None) != CODES["http"]:
        return ""
    words = str(error)
    if "HTTP 401" in words or "HTTP 403" in words:
        return "Does it need a header, such as Authorization?"
    return 'Is its type "sse", or its path another one?' if any(f"HTTP {code}" in words for code in (400, 404, 405, 406)) else ""
