"""[tools] and [mcp]: what the model may call. Wishes by name, hosted tools, and the servers with the tools wanted of each.

Not here: whether a tool of that name exists; that is known when the program starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import McpServer, ToolWish
from llmproc_nb.drivers.files import words
from llmproc_nb.drivers.files.path import read_named
from llmproc_nb.drivers.files.table import Table, closest, meant
from llmproc_nb.drivers.files.text import parse_json

Wanted = Literal["all"] | tuple[ToolWish, ...]
_TRANSPORTS: dict[str, Literal["stdio", "sse", "http"]] = {
    "stdio": "stdio",
    "sse": "sse",
    "http": "http",
    "streamable_http": "http",
    "streamable-http": "http",
    "streamablehttp": "http",
}


def wishes(table: Table, key: str) -> tuple[ToolWish, ...]:
    """A list of tool names and tool objects."""
    found = [_wish(table, place, item) for place, item in table.items(key)]
    return tuple(wish for wish in found if wish is not None)


def _wish(table: Table, place: str, item: Any) -> ToolWish | None:
    if isinstance(item, str) and item.strip():
        return ToolWish(name=item.strip())
    if not isinstance(item, Mapping):
        table.wrong(place, item, 'a tool is its name in quotes, or a table such as {name = "read_file", alias = "read"}')
        return None
    below = table.below(place, item)
    name = below.text("name")
    if not name:
        if "name" not in below:
            table.error(place, "a tool without a name", right='a tool object has at least name = "…"')
        return None
    wish = ToolWish(
        name=name,
        alias=below.text("alias") or None,
        description=below.text("description"),
        param_descriptions=below.text_map("param_descriptions"),
        access=below.choice("access", words.ACCESS),  # type: ignore[arg-type]
    )
    below.finish()
    return wish


def tools(table: Table) -> tuple[ToolWish, ...]:
    """[tools] builtin, with `enabled` and `aliases` of older files merged in."""
    found = wishes(table, "builtin")
    older = wishes(table, "enabled")
    if "enabled" in table:
        table.note("superseded", "enabled", "it is now called builtin, and read as that")
    for wish in found + older:
        if wish.name not in words.TOOLS and (near := closest(wish.name, words.TOOLS, 0.8)):
            key = "builtin" if wish in found else "enabled"
            table.note(
                "unknown", key, f"{wish.name!r} is no builtin tool; a tool of that name is looked for at start. Did you mean {near!r}?"
            )
    return unique(table, "builtin", found + older)


def unique(table: Table, key: str, found: tuple[ToolWish, ...]) -> tuple[ToolWish, ...]:
    """The wishes without repetitions; two tools under one name are an error."""
    chosen: dict[str, ToolWish] = {}
    for wish in found:
        name = wish.alias or wish.name
        if name in chosen and chosen[name].name != wish.name:
            table.error(key, f"two tools are called {name!r}", right="each tool needs its own name", step="Give one another alias.")
        elif name in chosen and chosen[name] != wish:
            table.note("unserved", key, f"the tool {name!r} is asked for twice; the first one counts")
        chosen.setdefault(name, wish)
    return tuple(chosen.values())


def rename(table: Table, found: tuple[ToolWish, ...], servers: dict[str, McpServer]) -> tuple[tuple[ToolWish, ...], dict[str, McpServer]]:
    """The wishes after [tools.aliases] of older files (alias → tool, or alias → server__tool)."""
    below = table.table("aliases")
    if below is None:
        return found, servers
    table.note("superseded", "aliases", 'an alias now stands with its tool: builtin = [{name = "read_file", alias = "read"}]; read as that')
    for alias in below.names():
        target = below.text(alias)
        if target is None:
            continue
        renamed = tuple(_aliased(wish, alias, target) for wish in found)
        changed = {name: _alias_of_server(name, server, alias, target) for name, server in servers.items()}
        if renamed == found and changed == servers:
            said = f"no tool {target!r} is asked for, so the alias names nothing. {meant(target, [wish.name for wish in found])}"
            if any(server.tools == "all" and target.startswith(f"{name}__") for name, server in servers.items()):
                said = 'the server\'s tools are taken as "all"; to rename one, list it in [tools.mcp] as {name = …, alias = …}'
            below.note("unserved", alias, said.strip())
        found, servers = renamed, changed
    return unique(table, "aliases", found), servers


def _aliased(wish: ToolWish, alias: str, target: str) -> ToolWish:
    # Older files list either the tool or its alias as enabled.
    if wish.alias is None and wish.name in (target, alias):
        return msgspec.structs.replace(wish, name=target, alias=alias)
    return wish


def _alias_of_server(name: str, server: McpServer, alias: str, target: str) -> McpServer:
    if not isinstance(server.tools, tuple) or not target.startswith(f"{name}__"):
        return server
    wanted = target.removeprefix(f"{name}__")
    tools = tuple(msgspec.structs.replace(wish, alias=alias) if wish.name == wanted else wish for wish in server.tools)
    return msgspec.structs.replace(server, tools=tools)


def hosted(table: Table, provider: str) -> dict[str, dict[str, Any]]:
    """[tools.anthropic] and [tools.openai]: tools that the provider runs itself. Those of the other provider are noted."""
    ours = "anthropic" if provider.startswith(("anthropic", "claude")) else "openai" if provider.startswith("openai") else None
    found: dict[str, dict[str, Any]] = {}
    for family in ("anthropic", "openai"):
        below = table.table(family)
        search = below.table("web_search") if below is not None else None
        if search is not None:
            options = _web_search(search, family)
            if options is not None and ours in (family, None):
                found.setdefault("web_search", options)
            elif options is not None:
                search.findings.note("unserved", f"[{search.name}]", f"the provider is {provider!r}, which does not run it")
        if below is not None:
            below.finish()
    return found


def _web_search(table: Table, family: str) -> dict[str, Any] | None:
    enabled = table.flag("enabled", False)
    options: dict[str, Any] = {}
    if family == "anthropic":
        options["max_uses"] = table.integer("max_uses", least=1)
        if (options["max_uses"] or 0) > 50:
            table.error("max_uses", f"found {options['max_uses']}", right="a whole number from 1 to 50 is needed")
        options["allowed_domains"] = list(table.texts("allowed_domains"))
        options["blocked_domains"] = list(table.texts("blocked_domains"))
    else:
        options["search_context_size"] = table.choice("search_context_size", ("low", "medium", "high"))
    options["user_location"] = table.plain("user_location") if table.table("user_location") is not None else None
    table.finish()
    return {key: value for key, value in options.items() if value} if enabled else None


def mcp(table: Table, tools_table: Table, folder: Path) -> dict[str, McpServer]:
    """The servers of [mcp], those of a config file included, with the tools wanted of each. `${VAR}` stays as it is."""
    faults = len(table.findings.errors)
    servers = {**_from_config(table, folder), **_servers(table, "servers")}
    # Where the servers could not be read, a wanted one that is not there is no second fault.
    unread = len(table.findings.errors) > faults
    wanted = _wanted(tools_table, "mcp")
    older = _wanted(table, "tools")
    if "tools" in table:
        table.note("superseded", "tools", "it is now [tools.mcp], and read as that")
    for name, tools in {**older, **wanted}.items():
        if name in servers:
            servers[name] = msgspec.structs.replace(servers[name], tools=tools)
            continue
        if unread:
            continue
        at = tools_table.below("mcp", {}) if name in wanted else table.below("tools", {})
        if table.data:
            at.error(
                name,
                "there is no server of this name in [mcp]",
                right=f"there is {', '.join(servers) or 'none'}",
                step=meant(name, servers),
            )
        else:
            at.note("missing", name, "there is no [mcp] that says how this server is started; its tools are not offered")
    return servers


def _from_config(table: Table, folder: Path) -> dict[str, McpServer]:
    text = read_named(table, "config_path", folder)
    if text is None:
        return {}
    name = str(table.data["config_path"])
    try:
        data = parse_json(text, f"{table.findings.file}: {table.where('config_path')} {name}")
    except ProgramError as error:
        table.findings.errors.append(error)
        return {}
    if not isinstance(data, dict):
        table.error("config_path", f"{name} holds {table.findings.describe(data)}", right='it holds {"mcpServers": {…}}')
        return {}
    config = Table(data, "", table.findings.of(name))
    key = next((key for key in ("mcpServers", "mcp_servers", "servers") if key in config), "mcpServers")
    if key not in config:
        table.error("config_path", f"{name} has no mcpServers", right='it holds {"mcpServers": {…}}', step=_similar(config))
    servers = _servers(config, key)
    config.take("inputs")
    config.finish()
    return servers


def _similar(config: Table) -> str:
    near = closest("mcpServers", [key for key in config.data if isinstance(key, str)])
    return f"There is a key {near!r}: is that it?" if near else ""


def _servers(table: Table, key: str) -> dict[str, McpServer]:
    below = table.table(key)
    found: dict[str, McpServer] = {}
    for name in below.names() if below is not None else ():
        server = below.table(name) if below is not None else None
        if server is not None:
            found[name] = _server(server)
    return found


def _server(table: Table) -> McpServer:
    command, url = table.text("command"), table.text("url")
    said = (table.text("type") or table.text("transport") or "").lower()
    kind = _TRANSPORTS.get(said)
    if said and kind is None:
        table.error("type", f"found {said[:40]!r}", right="it is stdio, sse or http", step=meant(said, _TRANSPORTS))
    elif kind is None:
        kind = "stdio" if command or not url else "sse" if url.rstrip("/").endswith("/sse") else "http"
    if kind == "stdio" and not command and "command" not in table:
        table.error("command", "no command is given", right="a stdio server is started by its command; others have a type and a url")
    if kind in ("sse", "http") and not url and "url" not in table:
        table.error("url", "no address is given", right=f"a server of type {kind} has a url")
    server = McpServer(
        type=kind or "stdio",
        command=command,
        args=table.texts("args"),
        env=table.text_map("env", secret=True),
        url=url,
        headers=table.text_map("headers", secret=True),
        description=table.text("description") or "",
        timeout_s=_seconds(table, "timeout"),
        connect_timeout_s=_seconds(table, "connect_timeout"),
    )
    table.finish()
    return server


def _seconds(table: Table, key: str) -> float | None:
    """A time under its key, or under the key with its unit."""
    also = f"{key}_s"
    if key in table and also in table:
        table.note("unserved", also, f"{key} says the same, and counts")
    own, other = table.seconds(key), table.seconds(also)
    return own if own is not None else other


def _wanted(table: Table, key: str) -> dict[str, Wanted]:
    below = table.table(key)
    found: dict[str, Wanted] = {}
    for name in below.names() if below is not None else ():
        assert below is not None
        value = below.take(name)
        if isinstance(value, str) and value.lower() == "all":
            found[name] = "all"
        elif isinstance(value, Mapping):
            found[name] = tuple(_from_mapping(below.below(name, value)))
        else:
            found[name] = unique(below, name, wishes(below, name))
    return found


def _from_mapping(table: Table) -> list[ToolWish]:
    """The form {tool = "read"} or {tool = {alias = …, access = …}}."""
    found = []
    for name in table.names():
        value = table.take(name)
        if isinstance(value, str) and value.lower() in words.ACCESS:
            value = {"access": value}
        if not isinstance(value, Mapping):
            table.wrong(name, value, f'an access level ({", ".join(words.ACCESS)}) or a table such as {{alias = "add"}} is needed', "")
            continue
        wish = _wish(table, name, {"name": name, **value})
        found += [wish] if wish is not None else []
    return found
