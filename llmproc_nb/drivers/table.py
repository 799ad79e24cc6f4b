"""Names to drivers: which module stands behind a provider's name, a tool's name, a price. Loaded on first use.

Other packages add providers by the entry point group `llmproc_nb.providers` (name = "module:Class", called with the Program).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from llmproc_nb.core.errors import ProgramError, ToolDeclarationError, meant
from llmproc_nb.core.event import CodeRan
from llmproc_nb.core.longtext import LongText
from llmproc_nb.core.machine import Machine
from llmproc_nb.core.message import clean
from llmproc_nb.core.program import EnvInfo, Link, Preload, Program, ToolWish
from llmproc_nb.core.provider import Provider, Settings
from llmproc_nb.core.reading import instructions
from llmproc_nb.core.sandbox import SandboxDoor, SandboxRules
from llmproc_nb.core.server import ServerDoor
from llmproc_nb.core.syscall import SYSCALLS, syscall
from llmproc_nb.core.tool import Paged, Shown, Tool, Toolset
from llmproc_nb.core.usage import Usage

HERE = "llmproc_nb.drivers"
PROVIDERS: Mapping[str, str] = {
    "anthropic": f"{HERE}.anthropic:from_program",
    "anthropic_vertex": f"{HERE}.anthropic:from_program",
    "openai": f"{HERE}.openai:from_program",
    "openai_chat": f"{HERE}.openai:from_program",
    "openai_response": f"{HERE}.openai:from_program",
    "openai_responses": f"{HERE}.openai:from_program",
    "scripted": f"{HERE}.scripted:from_program",
}

SDKS = ("anthropic", "openai")
"""The SDKs of drivers that ship, each called as the driver and as the provider it was made for."""

HOSTED: Mapping[str, dict[str, Any]] = {
    "anthropic": {"type": "web_search_20250305", "name": "web_search"},
    "openai": {"type": "web_search"},
}


def _family(provider: str) -> str:
    return {"anthropic_vertex": "anthropic", "openai_response": "openai", "openai_responses": "openai"}.get(provider, provider)


class LateDrivers:
    """The drivers that ship, and those other packages announce. Nothing is imported before it is needed."""

    def __init__(self, environ: Callable[[], Mapping[str, str]], spool: Path | None = None) -> None:
        self._environ, self._spool = environ, spool

    def provider(self, program: Program) -> Provider:
        """The provider of a program's endpoint. Raises ProgramError for a name nobody serves, with the reason where it is known."""
        make = self._maker(program.provider)
        return make(program)  # type: ignore[no-any-return]

    def _maker(self, name: str) -> Callable[[Program], Any]:
        if name in PROVIDERS:
            return load(PROVIDERS[name])
        endpoints = importlib.import_module(f"{HERE}.endpoints")
        if name in endpoints.REFUSED:
            raise ProgramError(f"provider {name!r} cannot be served: {endpoints.REFUSED[name]}", place="[model] provider")
        if name in endpoints.ENDPOINTS:
            return load(f"{HERE}.openai:from_program")
        for entry in metadata.entry_points(group="llmproc_nb.providers"):
            if entry.name == name:
                return entry.load()  # type: ignore[no-any-return]
        names = sorted(provider_names())
        right = meant(name, names, f"there are {', '.join(names)}")
        raise ProgramError(f"unknown provider {name!r}", place="[model] provider", right=right)

    def tools(self, wishes: tuple[Any, ...], program: Program) -> Toolset:
        """Functions, tools and wishes by name, as a toolset."""
        return Toolset(self._tool(wish, program) for wish in wishes)

    def _tool(self, wish: Any, program: Program) -> Tool:
        if isinstance(wish, Tool):
            return wish
        if isinstance(wish, str):
            wish = ToolWish(name=wish)
        if isinstance(wish, ToolWish):
            return self._named_tool(wish, program)
        if callable(wish):
            return load(f"{HERE}.schema:tool")(wish)  # type: ignore[no-any-return]
        raise ToolDeclarationError(
            f"a value of type {type(wish).__name__} is no tool", right="a function, a Tool or a tool's name is needed"
        )

    def _named_tool(self, wish: ToolWish, program: Program) -> Tool:
        if wish.name in SYSCALLS:
            return self._wished(syscall(wish.name, program), wish)
        tools, place = _builtin_tools(), f"{program.source or program.name}: [tools] builtin"
        if wish.name not in tools:
            names = tool_names()
            right = meant(wish.name, names, f"there are {', '.join(names)}")
            raise ProgramError(f"there is no tool {wish.name!r}", place=place, right=right)
        load(f"{HERE}.builtin:check_installed")(wish.name, place)
        return self._wished(tools[wish.name], wish)

    def _wished(self, tool: Tool, wish: ToolWish) -> Tool:
        """A tool with what a program wants different about it."""
        if wish.description or wish.param_descriptions:
            tool = tool.described(wish.description, wish.param_descriptions)
        if wish.access:
            tool = msgspec.structs.replace(tool, access=wish.access)
        return tool.renamed(wish.alias) if wish.alias else tool

    def linked(self, program: Program) -> dict[str, Program]:
        """All programs that can be reached by links, by path; each is read once, as it is on disk now."""
        return load(f"{HERE}.files:load_linked")(program)  # type: ignore[no-any-return]

    def link_path(self, program: Program, link: Link) -> str:
        return load(f"{HERE}.files:link_path")(program, link)  # type: ignore[no-any-return]

    async def connect(self, program: Program, machine: Machine, name: str) -> ServerDoor:
        mcp: Any = importlib.import_module(f"{HERE}.mcp")
        return await mcp.connect_for(program, machine, name, self._environ())  # type: ignore[no-any-return]

    def preload(self, program: Program, folder: str, files: tuple[str, ...]) -> Program:
        return load(f"{HERE}.enrich:with_preload")(program, Path(folder), files)  # type: ignore[no-any-return]

    def keep(self, pieces: Iterable[str]) -> LongText:
        return load(f"{HERE}.text:long_text_from")(pieces, folder=self._spool)  # type: ignore[no-any-return]

    def keep_file(self, path: Path) -> LongText:
        return load(f"{HERE}.text:long_text")(path, folder=self._spool)  # type: ignore[no-any-return]

    def sandbox(self, program: Program) -> SandboxDoor:
        """The door to the sandboxes of a program's processes."""
        rules = program.sandbox or SandboxRules()
        return load(f"{HERE}.sandbox:make")(rules, base_dir=Path(program.base_dir), environ=self._environ())  # type: ignore[no-any-return]

    async def proof(self, program: Program) -> list[tuple[str, bool | None, str, str]]:
        rules = program.sandbox or SandboxRules()
        return await load(f"{HERE}.sandbox:proof")(rules, base_dir=Path(program.base_dir), environ=self._environ())  # type: ignore[no-any-return]

    async def close(self) -> None:
        """End the sandboxes that wait for somebody, if there are any."""
        module = sys.modules.get(f"{HERE}.sandbox.pool")
        if module is not None:
            await module.pool().close()

    def packed(self, value: Any, name: str) -> Any:
        return load(f"{HERE}.arrow:packed")(value, name)

    def unpacked(self, value: Any) -> Any:
        return load(f"{HERE}.arrow:unpacked")(value)

    def returned(self, value: Any, inline: Callable[[Paged], str]) -> tuple[Shown, ...]:
        return load(f"{HERE}.value:returned")(value, inline)  # type: ignore[no-any-return]

    def prompt_value(self, value: Any) -> Any:
        return load(f"{HERE}.value:prompt_value")(value)

    def notebook(self, cells: Sequence[CodeRan], path: str, given: Sequence[str] = ()) -> None:
        load(f"{HERE}.cellbook:write")(cells, Path(path), given)

    def write_text(self, text: LongText, path: str, **how: Any) -> int:
        return load(f"{HERE}.text:write_file")(text, path, root=Path.cwd(), **how)  # type: ignore[no-any-return]

    def system(self, program: Program) -> tuple[str, tuple[str, ...]]:
        """The system prompt with all that a program adds to it, and what to warn about."""
        warnings = [f"{note.place}: {note.text}" for note in program.notes if note.kind != "superseded"]
        if program.hosted and _family(program.provider) not in HOSTED:
            warnings.append(
                f"{program.source or program.name}: provider {program.provider!r} runs no {', '.join(program.hosted)}; left out"
            )
        text = program.system
        if program.preload != Preload() or program.env_info != EnvInfo():
            text, more = load(f"{HERE}.enrich:enrich")(program, environ=self._environ())
            warnings += more
        if program.fd is not None and program.fd.enabled:
            rules = program.fd
            told = instructions(page_chars=rules.default_page_size, user_input=rules.page_user_input, references=rules.enable_references)
            text = f"{text}\n\n{told}".strip()
        return clean(text), tuple(warnings)

    def settings(self, program: Program) -> Settings:
        """The program's settings, with the tools that its provider runs itself put into the request."""
        settings, rules = program.settings, program.compaction
        if rules is not None and rules.policy == "provider":
            window = rules.window or self.window(program.model, program.provider)
            settings = load(f"{HERE}.files.compaction:own_compaction")(program, window)
        made = [{**HOSTED[family], **options} for _, options in program.hosted.items() if (family := _family(program.provider)) in HOSTED]
        if not made:
            return settings
        body = {**settings.body, "tools": [*settings.body.get("tools", ()), *made]}
        return msgspec.structs.replace(settings, body=body)

    def price(self, model: str, provider: str, usage: Usage, when_ns: int) -> float | None:
        if provider == "scripted":
            return 0.0
        return load(f"{HERE}.pricing:cost_usd")(model, provider, usage, when_ns)  # type: ignore[no-any-return]

    def window(self, model: str, provider: str) -> int | None:
        return load(f"{HERE}.pricing:context_window")(model, provider)  # type: ignore[no-any-return]

    def schema(self, kind: Any) -> tuple[dict[str, Any], Callable[[str], Any]]:
        return load(f"{HERE}.schema:schema_of")(kind)  # type: ignore[no-any-return]


def _builtin_tools() -> dict[str, Tool]:
    """The tools that ship, by name, for the working folder of now."""
    root = Path.cwd()

    def write(data: bytes, path: Path, shown: str) -> int:
        return load(f"{HERE}.text:write_file")(data, path, root=root, shown=shown)  # type: ignore[no-any-return]

    return load(f"{HERE}.builtin:builtin_tools")(root, write)  # type: ignore[no-any-return]


def tool_names() -> tuple[str, ...]:
    """The tools that ship, and the system calls."""
    return (*_builtin_tools(), *sorted(SYSCALLS))


def provider_names() -> frozenset[str]:
    """The providers that ship, those that are refused with a reason among them."""
    endpoints = importlib.import_module(f"{HERE}.endpoints")
    return frozenset({*PROVIDERS, *endpoints.ENDPOINTS, *endpoints.REFUSED})


def sdk_of(provider: str) -> str | None:
    """The SDK through which a provider is asked; None where it is none of those here."""
    endpoints = importlib.import_module(f"{HERE}.endpoints")
    made = PROVIDERS["openai"] if provider in endpoints.ENDPOINTS else PROVIDERS.get(provider)
    return next((sdk for sdk in SDKS if made == PROVIDERS[sdk]), None)


def sdks_with_key(environ: Mapping[str, str]) -> set[str]:
    """The SDKs for which there is a key: that of a vendor, or of a named endpoint."""
    endpoints = importlib.import_module(f"{HERE}.endpoints")
    keys: dict[str | None, str] = {f"{sdk.upper()}_API_KEY": sdk for sdk in SDKS}
    for endpoint in endpoints.ENDPOINTS.values():
        keys |= dict.fromkeys((endpoint.key_variable, endpoint.other_key_variable), "openai")
    return {sdk for name, sdk in keys.items() if name and environ.get(name)}


@lru_cache(maxsize=64)
def load(name: str) -> Callable[..., Any]:
    """What `module:attribute` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
