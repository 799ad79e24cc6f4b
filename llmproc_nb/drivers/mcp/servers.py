"""All servers of a program: started at once, their tools as one toolset, their resources and prompts by name."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmproc_nb.core.errors import LlmprocError, ProgramError, PromptError, ToolError
from llmproc_nb.core.message import Message
from llmproc_nb.core.program import McpServer
from llmproc_nb.core.tool import Tool, Toolset
from llmproc_nb.drivers.mcp.launch import launch
from llmproc_nb.drivers.mcp.offer import check_wishes, joined, offered
from llmproc_nb.drivers.mcp.parts import Parts, prompt_messages, resource_parts
from llmproc_nb.drivers.mcp.server import Server, every_page
from llmproc_nb.drivers.mcp.values import Change, Ears, PromptInfo, Resource, ServerInfo, Terms


async def connect(
    servers: Mapping[str, McpServer],
    *,
    environ: Mapping[str, str],
    base_dir: Path | str,
    roots: Sequence[Path] | None = None,
    terms: Terms | None = None,
    **ears: Any,
) -> Servers:
    """The servers, connected, on the loop this runs on; those of which no tool is wanted start when something of them is read.

    `base_dir` is where stdio servers are started; `roots` are the folders that servers are told of, `base_dir` by default. `ears` are
    those of `Ears`: sampler, elicitor, on_change, on_log, on_progress. Raises ProgramError where one cannot be started or has no such tool.
    """
    folder = Path(base_dir).absolute()
    made = Servers(servers, environ, folder, tuple(roots or (folder,)), terms or Terms(), Ears(**ears))
    try:
        await made.start()
    except BaseException:
        await made.close()
        raise
    return made


class Servers:
    """Connected servers. Everything here belongs to the loop they were connected on."""

    def __init__(
        self,
        declared: Mapping[str, McpServer],
        environ: Mapping[str, str],
        folder: Path,
        roots: tuple[Path, ...],
        terms: Terms,
        ears: Ears,
    ) -> None:
        self._declared, self._environ, self._folder = dict(declared), environ, folder
        self._roots, self._terms, self._ears = roots, terms, ears
        self._servers: dict[str, Server] = {}
        self._offers: dict[str, list[Tool]] = {}
        self._readable: dict[str, tuple[Resource | PromptInfo, ...]] = {}
        self._toolset = Toolset()

    @property
    def toolset(self) -> Toolset:
        """The tools as they are now; after a change it is another value."""
        return self._toolset

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._declared)

    def info(self, server: str) -> ServerInfo:
        """How a server is now."""
        self._known(server)
        return self._servers[server].info if server in self._servers else ServerInfo(name=server, alive=False)

    def last_words(self, server: str) -> str:
        """What a server wrote last on its stderr, cleaned."""
        self._known(server)
        return self._servers[server].tail.text if server in self._servers else ""

    async def start(self) -> None:
        """Start those of which tools are wanted, all at once. Raises ProgramError that tells of each that failed."""
        wanted = [name for name, server in self._declared.items() if server.tools is not None]
        starting = [self._server(name) for name in wanted]  # what is wrong in a declaration is told before any is started
        got = await asyncio.gather(*(server.start() for server in starting), return_exceptions=True)
        failed = [error for error in got if isinstance(error, BaseException)]
        if failed:
            raise _as_one(failed)
        for server in starting:
            check_wishes(server.name, server.declared, server.listed)
            self._offers[server.name] = self._offer(server)
        self._toolset = joined(tool for name in wanted for tool in self._offers[name])

    async def close(self) -> None:
        """End every server and what it started."""
        await asyncio.gather(*(server.close() for server in self._servers.values()), return_exceptions=True)

    def rest(self) -> None:
        """End every server when what is under way is answered; the next thing asked of one starts it again."""
        for server in self._servers.values():
            server.rest()

    # resources and prompts

    async def resources(self, server: str) -> tuple[Resource, ...]:
        """What a server has to read, templates after the rest."""
        found: list[Resource] = []
        if (await self._can(server)).resources is None:
            return ()
        listed = await self._pages(server, "resources", lambda client, cursor: client.list_resources(cursor=cursor))
        for page in listed:
            for one in page.resources:
                found.append(_resource(one, one.uri, one.size))
        try:
            templates = await self._pages(
                server, "resource templates", lambda client, cursor: client.list_resource_templates(cursor=cursor)
            )
        except PromptError:
            templates = []  # many servers know nothing of them
        return (*found, *(_resource(one, one.uri_template, None) for page in templates for one in page.resource_templates))

    async def read(self, server: str, resource: str) -> Parts:
        """What is in a resource, given by its uri or its name; where there is none of the name, what a prompt says. Raises PromptError."""
        uri = resource if "://" in resource else await self._uri(server, resource)
        if uri is None:
            return tuple(part for message in await self.prompt(server, resource) for part in message.parts)  # type: ignore[misc]
        result = await self._asked(server, lambda client: client.read_resource(uri, cache_mode="bypass"), f"the resource {resource!r}")
        return resource_parts(result.contents)

    async def prompts(self, server: str) -> tuple[PromptInfo, ...]:
        if (await self._can(server)).prompts is None:
            return ()
        pages = await self._pages(server, "prompts", lambda client, cursor: client.list_prompts(cursor=cursor))
        return tuple(_prompt(one) for page in pages for one in page.prompts)

    async def prompt(self, server: str, name: str, arguments: Mapping[str, str] | None = None) -> tuple[Message, ...]:
        """The messages of a prompt. Raises PromptError where there is none, or an argument is missing."""
        known = {prompt.name: prompt for prompt in await self.prompts(server)}
        if name not in known:
            raise PromptError(f"MCP server {server!r} has no prompt {name!r}", right=_has(known), step=_near(name, known))
        given = {key: value if isinstance(value, str) else str(value) for key, value in (arguments or {}).items()}
        missing = [key for key in known[name].required if key not in given]
        if missing:
            raise _lacks(server, name, missing)
        result = await self._asked(server, lambda client: client.get_prompt(name, given or None), f"the prompt {name!r}")
        return prompt_messages(result)

    async def known(self, server: str) -> tuple[Resource | PromptInfo, ...]:
        """What can be read of a server, as it was when it was last there: none is started to tell."""
        if self.info(server).alive:
            self._readable[server] = (*await self.resources(server), *await self.prompts(server))
        return self._readable.get(server, ())

    # within

    def _known(self, name: str) -> None:
        if name not in self._declared:
            raise PromptError(f"there is no MCP server {name!r}", right=_has(self._declared), step=_near(name, self._declared))

    def _server(self, name: str) -> Server:
        self._known(name)
        if name not in self._servers:
            declared = self._declared[name]
            ready = launch(name, declared, self._environ, self._folder)
            self._servers[name] = Server(declared, ready, self._terms.of(declared), self._ears, self._roots, self._changed)
        return self._servers[name]

    def _offer(self, server: Server) -> list[Tool]:
        return offered(server.name, server.declared, server.listed, server.call)

    def _changed(self, server: Server) -> None:
        """A server has other tools: the toolset is another one, and whoever wants to know is told, if a model would see it."""
        before = {tool.name: tool for tool in self._offers.get(server.name, ())}
        self._offers[server.name] = self._offer(server)
        after = {tool.name: tool for tool in self._offers[server.name]}
        changed = tuple(name for name in after if name in before and _differ(after[name], before[name]))
        change = Change(
            server=server.name,
            added=tuple(name for name in after if name not in before),
            removed=tuple(name for name in before if name not in after),
            changed=changed,
        )
        if change == Change(server=server.name):
            return
        self._toolset = joined(tool for name in self._declared for tool in self._offers.get(name, ()))
        if self._ears.on_change is not None:
            self._ears.on_change(change)

    async def _can(self, server: str) -> Any:
        """What a server says it can do."""
        return await self._asked(server, _capabilities, "its capabilities")

    async def _asked(self, server: str, send: Any, what: str) -> Any:
        asked = self._server(server)
        try:
            return await asked.ask(lambda client, clock, link: send(client), what)
        except ToolError as error:
            raise PromptError(error.found, right=error.right, step=error.step) from None

    async def _pages(self, server: str, what: str, send: Any) -> list[Any]:
        async def pages(client: Any) -> list[Any]:
            return await every_page(lambda cursor: send(client, cursor), lambda page: [page])

        found: list[Any] = await self._asked(server, pages, f"the list of {what}")
        return found

    async def _uri(self, server: str, name: str) -> str | None:
        """The uri of a resource by its name; None where the name is a prompt's. Raises PromptError."""
        known = await self.resources(server)
        for one in known:
            if name in (one.uri, one.name) and not one.template:
                return one.uri
        prompts = [prompt.name for prompt in await self.prompts(server)]
        if name in prompts:
            return None
        if ":" in name:
            return name  # a uri such as urn:… or data:…
        names = [one.name or one.uri for one in known]
        right = f"{_has(names)}, and the prompts {_some(prompts)}" if prompts else _has(names)
        raise PromptError(f"MCP server {server!r} has no resource or prompt {name!r}", right=right, step=_near(name, (*names, *prompts)))


async def _capabilities(client: Any) -> Any:
    return client.server_capabilities


def _differ(one: Tool, other: Tool) -> bool:
    return one.spec != other.spec or one.access != other.access


def _as_one(failed: list[BaseException]) -> BaseException:
    """The fault of several servers as one error; what is no fault of theirs goes on as it is."""
    for error in failed:
        if not isinstance(error, LlmprocError):
            return error
    first = failed[0]
    if len(failed) == 1 or not isinstance(first, LlmprocError):
        return first
    return ProgramError(f"{len(failed)} MCP servers did not start: " + " — ".join(str(error) for error in failed))


def _resource(one: Any, uri: str, size: int | None) -> Resource:
    template = size is None and not hasattr(one, "uri")
    words = one.description or one.title or ""
    return Resource(uri=uri, name=one.name, description=words, media_type=one.mime_type, size_bytes=size, template=template)


def _prompt(one: Any) -> PromptInfo:
    arguments = one.arguments or []
    required = tuple(argument.name for argument in arguments if argument.required)
    return PromptInfo(
        name=one.name, description=one.description or "", arguments=tuple(argument.name for argument in arguments), required=required
    )


def _lacks(server: str, name: str, missing: Sequence[str]) -> PromptError:
    given = ", ".join(f"{key}='…'" if key.isidentifier() else f"**{{{key!r}: '…'}}" for key in missing)
    asked = f"process.servers.prompt({server!r}, {name!r}, {given})"
    found = f"the prompt {name!r} of {server!r} needs {', '.join(missing)}"
    return PromptError(found, right=f"its messages are {asked}", step=f"In a cell, {{{{{asked}[0].text}}}} is the first one's text.")


def _has(names: Any) -> str:
    return f"there is {_some(names) or 'none'}"


def _some(names: Any) -> str:
    shown = list(names)
    return f"{', '.join(shown[:20])}{' …' if len(shown) > 20 else ''}"


def _near(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f"Did you mean {near[0]!r}?" if near else ""
