"""Programs: frozen declarations of what a process is. Pure data; reading TOML and YAML is a driver's matter.

A Program is the one form that every generation of files, a package or Python code ends in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self, TypeAlias, get_args
from urllib.parse import urlsplit, urlunsplit

import msgspec

from llmproc_nb.core.approval import Approval
from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.field import Declared, check_names, check_values
from llmproc_nb.core.provider import HIDDEN, Settings
from llmproc_nb.core.sandbox import SandboxRules, rules_of
from llmproc_nb.core.tool import Access, Tool
from llmproc_nb.core.usage import Limits


class ToolWish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool asked for by name, with what should differ: `alias` is the name the model sees."""

    name: str
    alias: str | None = None
    description: str | None = None
    param_descriptions: dict[str, str] = {}
    access: Access | None = None


class McpServer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An MCP server: a command (stdio) or a url (sse, http), and which of its tools are offered (None: none, "all", or wishes).

    `timeout_s` is the longest silence during a call, `connect_timeout_s` how long it may take to start and list its tools; None: as usual.
    """

    type: Literal["stdio", "sse", "http"] = "stdio"
    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str | None = None
    headers: dict[str, str] = {}
    description: str = ""
    tools: Literal["all"] | tuple[ToolWish, ...] | None = None
    timeout_s: float | None = None
    connect_timeout_s: float | None = None


class Preload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Files whose text is added to the system prompt at start; relative to the program's folder or to the working folder."""

    files: tuple[str, ...] = ()
    relative_to: Literal["program", "cwd"] = "program"


class EnvInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Facts about the machine that are added to the system prompt at start. `extra` are lines of the program's own."""

    variables: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    env_vars: dict[str, str] = {}
    file_map_root: str | None = None
    file_map_max_files: int = 50
    file_map_show_size: bool = True
    extra: dict[str, str] = {}


class FdRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a text becomes an fd, and how long its pages are, in characters. A program that says nothing has fds for its tools' results."""

    enabled: bool = True
    max_direct_output_chars: int = 8000
    default_page_size: int = 4000
    max_input_chars: int = 8000
    page_user_input: bool = True
    enable_references: bool = False


Policy: TypeAlias = Literal["off", "warn", "summarise", "provider"]


class Compaction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is done when a dialog fills the share `at` of its model's window. A program that says nothing is warned.

    `off`: nothing; `warn`: it is said, nothing changes; `summarise`: the model sums up what was said and goes on from a new branch with the
    summary and the last `keep_last` messages; `provider`: the API shortens by itself, where it can. `window` is in tokens, for models
    whose window is not known (or should count as smaller); `prompt` asks for the summary.
    """

    policy: Policy = "warn"
    at: float = 0.8
    keep_last: int = 6
    window: int | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        place, policies = "compaction", get_args(Policy)
        if self.policy not in policies:
            raise ProgramError(f"the policy is {self.policy!r}", place=place, right=f"it is one of {', '.join(policies)}")
        if not 0 < self.at <= 1:
            raise ProgramError(f"at is {self.at!r}", place=place, right="a share of the window is above 0 and at most 1, as in 0.8")
        if self.keep_last < 1 or (self.window is not None and self.window < 1):
            raise ProgramError(f"keep_last is {self.keep_last}, window {self.window}", place=place, right="both are 1 or more")


class Link(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Another program this one may spawn: by path, or loaded already. `description` is what the model is told of it."""

    path: str | None = None
    program: Program | None = None
    description: str = ""


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the loader has to say about one key: unknown, superseded, not served. `place` is file, table and key."""

    kind: Literal["unknown", "superseded", "unserved", "missing"]
    place: str
    text: str


class Program(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, metaclass=Declared):
    """What a process is made from.

    `tools` holds functions, Tools, or wishes by name, resolved at start. `script` is for `provider = "scripted"`: turns as data, or a
    function of the request. `hosted` are tools that the provider runs itself (`{"web_search": {…}}`). Paths are relative to `base_dir`.
    """

    name: str = "agent"
    model: str = ""
    provider: str = ""
    base_url: str | None = None
    api_key_env: str | None = None
    project_id: str | None = None
    region: str | None = None
    system: str = ""
    user: str | None = None
    settings: Settings = Settings()
    limits: Limits = Limits()
    tools: tuple[ToolWish | Tool | Callable[..., Any], ...] = ()
    hosted: dict[str, dict[str, Any]] = {}
    linked: dict[str, Link] = {}
    preload: Preload = Preload()
    env_info: EnvInfo = EnvInfo()
    fd: FdRules | None = None
    compaction: Compaction | None = None
    mcp: dict[str, McpServer] = {}
    approval: Approval | None = None
    sandbox: SandboxRules | None = None
    script: tuple[str | dict[str, Any], ...] | Callable[..., Any] = ()
    prompt_caching: bool = True
    demo_prompts: tuple[str, ...] = ()
    demo_pause: bool = True
    display_name: str | None = None
    base_dir: str = "."
    source: str = ""
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.sandbox, dict):  # as a file says it
            msgspec.structs.force_setattr(self, "sandbox", rules_of(self.sandbox, f"{self.source or self.name}: [sandbox]"))
        if isinstance(self.limits, dict):
            msgspec.structs.force_setattr(self, "limits", Limits(**self.limits))
        check_values(self)

    def replace(self, **fields: Any) -> Self:
        """The same program with other fields. Raises ProgramError for one that there is not, or that is not of its type."""
        check_names(type(self), fields)
        return msgspec.structs.replace(self, **fields)

    def __repr__(self) -> str:
        """Short, and without what may be a secret."""
        tools = f", {len(self.tools)} tools" if self.tools else ""
        return f"<Program {self.name}: {self.provider or 'no provider'}:{self.model or 'no model'}{tools}>"

    def declaration(self) -> dict[str, Any]:
        """The program as JSON data, for the log: functions by their names, linked programs by theirs, no notes."""
        fields: dict[str, Any] = {}
        for name, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True):
            value = getattr(self, name)
            if name in ("notes", "base_dir", "source") or value == default:
                continue
            if value in ((), {}):
                continue
            fields[name] = _names(value) if name in ("tools", "script") else msgspec.to_builtins(_public(value), enc_hook=_named)
            if name == "base_url":
                fields[name] = _open_url(value)
        return fields


def _public(value: Any) -> Any:
    """A field as a log may have it: headers and environments, which may hold secrets, only by their names."""
    if isinstance(value, Settings):
        return value.public()
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, McpServer):
        hidden = {"env": dict.fromkeys(value.env, HIDDEN), "headers": dict.fromkeys(value.headers, HIDDEN)}
        return msgspec.structs.replace(value, args=(HIDDEN,) * len(value.args), url=value.url and _open_url(value.url), **hidden)
    if isinstance(value, SandboxRules):
        return msgspec.structs.replace(value, env=dict.fromkeys(value.env, HIDDEN))
    if isinstance(value, Link):
        return msgspec.structs.replace(value, program=None, path=value.path or (value.program.name if value.program else None))
    return value


def _open_url(url: str) -> str:
    """An address without what may be a secret: user, password and query."""
    found = urlsplit(url)
    host = found.netloc.rpartition("@")[2]
    return urlunsplit((found.scheme, host, found.path, "", ""))


def _names(value: Any) -> Any:
    if callable(value) and not isinstance(value, Tool):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, Tool):
        return value.name
    if isinstance(value, tuple | list):
        return [_names(item) for item in value]
    return msgspec.to_builtins(value, enc_hook=_named)


def _named(value: Any) -> Any:
    return getattr(value, "__name__", repr(value))
