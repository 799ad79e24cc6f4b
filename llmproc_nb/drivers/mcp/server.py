"""One server: its calls, its list of tools, and a new connection where the last one died.

What had not reached the server is sent again, once; what had may have taken effect, and is never sent twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmproc_nb.core.errors import ProgramError, ToolError
from llmproc_nb.core.message import Text
from llmproc_nb.core.program import McpServer
from llmproc_nb.core.tail import Tail
from llmproc_nb.core.tool import EMPTY_RESULT, ResultParts, parts_text
from llmproc_nb.drivers.mcp.launch import Launch
from llmproc_nb.drivers.mcp.link import Link
from llmproc_nb.drivers.mcp.parts import tool_parts
from llmproc_nb.drivers.mcp.values import Ears, Progress, ServerInfo, Terms
from llmproc_nb.drivers.mcp.wire import CODES

if TYPE_CHECKING:
    import mcp_types as mcp
    from mcp.client import Client

T = TypeVar("T")
MOST_PAGES = 1000
SETTLE_S = 0.05
UNKNOWN = "whether it took effect is unknown"
_CLOSED = -32000


class Server:
    """A server by its name. It is connected by the first thing asked of it, and anew by the first after its end."""

    def __init__(
        self,
        declared: McpServer,
        launch: Launch,
        terms: Terms,
        ears: Ears,
        folders: tuple[Path, ...],
        on_tools: Callable[[Server], None],
    ) -> None:
        self.name, self.declared, self.launch = launch.name, declared, launch
        self.listed: tuple[mcp.Tool, ...] = ()
        self.starts = 0
        self._terms, self._ears, self._folders, self._on_tools = terms, ears, folders, on_tools
        self.tail = Tail(launch.secrets)
        self._link: Link | None = None
        self._lock = asyncio.Lock()
        self._closed = False
        self._refresh: asyncio.Task[None] | None = None
        self._again = False

    async def start(self) -> None:
        """Connect and list the tools. Raises ProgramError."""
        await self._alive()

    async def close(self) -> None:
        self._closed = True
        if self._refresh is not None:
            self._refresh.cancel()
        if self._link is not None:
            await self._link.close()

    def rest(self) -> None:
        """End the connection when what is under way is answered; the next thing asked makes a new one."""
        if self._link is not None:
            self._link.retire()

    @property
    def info(self) -> ServerInfo:
        link = self._link
        alive = link is not None and not link.dead
        client = link.client if link is not None and alive else None
        said = client.server_info if client is not None else None
        return ServerInfo(
            name=self.name,
            alive=alive,
            title=(said.title or said.name) if said else "",
            protocol=client.protocol_version if client is not None else "",
            instructions=(client.instructions or "") if client is not None else "",
            tools=tuple(tool.name for tool in self.listed),
            os_pid=link.child.process.pid if link is not None and alive and link.child is not None else None,
            starts=self.starts,
        )

    async def call(self, tool: str, arguments: dict[str, Any], caller: Any = None) -> ResultParts:
        """The result of a tool. Raises ToolError, in words for the model."""

        async def send(client: Client, clock: asyncio.Timeout, link: Link) -> mcp.CallToolResult:
            async def heard(progress: float, total: float | None, message: str | None) -> None:
                link.calls.heard(clock)
                if self._ears.on_progress is not None:
                    words = self.tail.hide(message or "")
                    self._ears.on_progress(Progress(server=self.name, tool=tool, progress=progress, total=total, text=words))

            return await client.call_tool(tool, arguments, progress_callback=heard)

        result = await self.ask(send, f"tool {tool!r}", caller)
        parts = tool_parts(result)
        if result.is_error:
            raise ToolError(parts_text(parts) or f"the tool {tool!r} failed and says nothing of it")
        return parts or (Text(text=EMPTY_RESULT),)

    async def ask(self, send: Callable[[Client, asyncio.Timeout, Link], Awaitable[T]], what: str, caller: Any = None) -> T:
        """What the server answers. Raises ToolError where it refuses, dies, says nothing in time or nothing that can be read."""
        from mcp.shared.exceptions import MCPError

        for last in (False, True):
            try:
                link = await self._alive()
            except ProgramError as error:
                raise ToolError(f"MCP server {self.name!r} is not there: {error.found}", step=error.step) from None
            clock = asyncio.timeout(self._terms.call_timeout_s)
            try:
                async with clock:
                    with link.calls.one(clock, caller):
                        return await send(link.client, clock, link)
            except MCPError as error:
                if error.code == CODES["unsent"] and not last and not self._closed:
                    link.retire()
                    continue
                raise await self._refused(link, what, error) from None
            except TimeoutError:
                said = f"MCP server {self.name!r} said nothing about {what} for {self._terms.call_timeout_s:g} s and was told to stop"
                raise ToolError(said, right=UNKNOWN, step=self.tail.last_words(300)) from None
            except (ValueError, RuntimeError) as error:  # the SDK refuses an answer of the wrong form
                first = self.tail.hide(str(error)).split("\n", 1)[0][:300]
                raise ToolError(f"what MCP server {self.name!r} answered to {what} cannot be read ({first})", right=UNKNOWN) from None
        raise AssertionError("unreachable")

    async def _refused(self, link: Link, what: str, error: Any) -> ToolError:
        words = self.tail.hide(error.message)
        if error.code == CODES["unsent"]:
            return ToolError(f"MCP server {self.name!r} cannot be reached: {words}", right=f"{what} was not run")
        if error.code in (_CLOSED, CODES["lost"]):
            link.retire()
            if self._closed:
                return ToolError(f"MCP server {self.name!r} was closed during {what}", right=UNKNOWN)
            how = await link.end() if error.message == "Connection closed" or link.child is not None else f"broke off ({words})"
            said = f"MCP server {self.name!r} {how} during {what}"
            step = f"{self.tail.last_words(300)} The next call starts it again.".strip()
            return ToolError(said, right=UNKNOWN, step=step)
        if error.code in (CODES["too long"], CODES["unreadable"], -32700):
            return ToolError(f"{what} of MCP server {self.name!r}: {words}", right="it was run")
        return ToolError(f"MCP server {self.name!r} refuses {what}: {words}")

    # the connection

    async def _alive(self) -> Link:
        link = self._link
        if link is not None and not link.dead:
            return link
        async with self._lock:  # of many calls that find it dead, one connects
            if self._closed:
                raise ProgramError("it was closed", place=self.launch.place)
            if self._link is not None and not self._link.dead:
                return self._link
            link = Link(self.launch, self._terms, self._ears, self._folders, self.tail, self._stale)
            await link.start()
            self.starts += 1
            try:
                await self._list(link)
            except BaseException:
                await link.close()
                raise
            self._link = link
        if self.starts > 1:
            self._on_tools(self)
        return link

    async def _list(self, link: Link) -> None:
        """Learn the tools, page by page. Raises ProgramError."""
        from mcp.shared.exceptions import MCPError

        if link.client.server_capabilities.tools is None:
            self.listed = ()
            return
        try:
            async with asyncio.timeout(self._terms.connect_timeout_s):
                pages = await every_page(lambda cursor: link.client.list_tools(cursor=cursor), lambda page: page.tools)
        except (MCPError, TimeoutError, ValueError) as error:
            why = self.tail.hide(str(error)).split("\n", 1)[0][:300] or f"no answer within {self._terms.connect_timeout_s:g} s"
            raise ProgramError(f"its tools cannot be listed: {why}", place=self.launch.place, step=self.tail.last_words()) from None
        self.listed = tuple(pages)

    def _stale(self) -> None:
        """The server says that its tools are others now. It may say so many times at once."""
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._list_again())
        else:
            self._again = True

    async def _list_again(self) -> None:
        while True:
            self._again = False
            await asyncio.sleep(SETTLE_S)
            link = self._link
            if link is None or link.dead or self._closed:
                return
            try:
                await self._list(link)
            except ProgramError:
                return  # the tools stay as they were; a call will tell what is wrong
            self._on_tools(self)
            if not self._again:
                return


async def every_page(ask: Callable[[str | None], Awaitable[Any]], items: Callable[[Any], list[T]]) -> list[T]:
    """All items of a list that comes in pages; one that comes round again, or never ends, is left where it does."""
    found: list[T] = []
    cursor: str | None = None
    seen: set[str | None] = set()
    while cursor not in seen and len(seen) < MOST_PAGES:
        seen.add(cursor)
        page = await ask(cursor)
        found += items(page)
        cursor = page.next_cursor
        if not cursor:
            break
    return found
