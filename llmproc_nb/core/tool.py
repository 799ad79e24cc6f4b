"""Tools: what a model may call. Here: the tool, the toolset, arguments in and results out. Schemas of functions come from a driver."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import ToolDeclarationError, ToolError
from llmproc_nb.core.message import AnyPart, Document, Image, Text, clean, cleaned
from llmproc_nb.core.provider import ToolSpec

Access: TypeAlias = Literal["read", "write", "admin"]
ResultParts: TypeAlias = tuple[Text | Image | Document, ...]


class CutShort(Exception):
    """A tool was stopped while it ran, and this is what it has to give all the same: what a model is told of it."""


class Paged(msgspec.Struct, frozen=True, kw_only=True):
    """A value that may be too long to be shown whole, with all of its text in pieces.

    Of a table (rows, `page_lines` lines a page) `said` is what stands beside its fd; any other has its first page there. `direct` stands in
    its place where nobody can read on, and, if it is `complete`, where it is not too long. `whole`: the rows are all there are.
    """

    pieces: Callable[[], Iterable[str]]
    said: str = ""
    page_lines: int | None = 50
    direct: str = ""
    complete: bool = False
    whole: bool = True


Shown: TypeAlias = Text | Image | Document | Paged


EMPTY_RESULT = "(no output)"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tool is called from: call number `position` of the reply at `node`."""

    node: Node
    position: int


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A schema and the function behind it.

    `check` turns the model's arguments into those of the function and raises ToolError where they do not fit. `where` says on which
    thread a plain function runs: `worker` (its own), or `main` (a notebook's main thread while a cell waits); coroutine functions
    run on the owner loop. `timeout_s` None means no end. `inject` names parameters the model does not see: the process itself, the
    place of the call, or `{"process": process}`. `access` is what a process needs to have it. `kind` syscall: it acts on its own
    process only, so a replay runs it again; jump: a syscall that moves the head, looked at before any other call of its reply. `base` is
    the name it had before it was renamed.
    """

    spec: ToolSpec
    function: Callable[..., Any]
    check: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    where: Literal["worker", "main"] = "worker"
    access: Access = "write"
    timeout_s: float | None = 300.0
    inject: Mapping[str, Literal["process", "runtime_context", "place"]] = {}
    kind: Literal["tool", "syscall", "jump"] = "tool"
    base: str = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, for the person who declared it."""
        return self.function(*args, **kwargs)

    @property
    def name(self) -> str:
        return self.spec.name

    def renamed(self, name: str) -> Tool:
        return msgspec.structs.replace(self, spec=msgspec.structs.replace(self.spec, name=name), base=self.base or self.name)

    def described(self, description: str | None, parameters: Mapping[str, str]) -> Tool:
        """The same tool with another description, or other words for some parameters."""
        schema = dict(self.spec.parameters)
        properties = dict(schema.get("properties", {}))
        for key, words in parameters.items():
            if key not in properties:
                raise ToolDeclarationError(f"tool {self.name} has no parameter {key!r}", right=f"it has {', '.join(properties) or 'none'}")
            properties[key] = {**properties[key], "description": words}
        spec = ToolSpec(name=self.name, description=description or self.spec.description, parameters={**schema, "properties": properties})
        return msgspec.structs.replace(self, spec=spec)


class Toolset:
    """Tools by name, in order. Immutable: join, filter, prefix and rename give new ones."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise ToolDeclarationError(
                    f"two tools are called {tool.name!r}", right="each needs its own name", step="Give one an alias."
                )
            self._tools[tool.name] = tool

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(tool.spec for tool in self)

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def names_of(self, tool: Tool) -> tuple[str, ...]:
        """What a tool of any toolset is called here: its name before an alias, and that of each alias of it in this one."""
        base = tool.base or tool.name
        return (base, *(own.name for own in self if own.base == base))

    def join(self, other: Iterable[Tool]) -> Toolset:
        """These tools and the others; one of the same name takes the place of ours."""
        return Toolset({**self._tools, **{tool.name: tool for tool in other}}.values())

    def filter(self, keep: Callable[[Tool], bool]) -> Toolset:
        return Toolset(tool for tool in self if keep(tool))

    def prefix(self, prefix: str) -> Toolset:
        return Toolset(tool.renamed(prefix + tool.name) for tool in self)

    def rename(self, names: Mapping[str, str]) -> Toolset:
        """Names: old to new; a tool that is not named keeps its own."""
        return Toolset(tool.renamed(names.get(tool.name, tool.name)) for tool in self)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __repr__(self) -> str:
        return f"Toolset({', '.join(self._tools)})"


def read_arguments(text: str) -> dict[str, Any]:
    """The arguments of a tool call. Raises ToolError, in words for the model, where they are no JSON object."""
    try:
        value = cleaned(json.loads(text, parse_constant=_no_constant))
    except (ValueError, RecursionError) as error:
        raise ToolError(
            f"the arguments are not valid JSON ({error})", right="one JSON object is needed", step="Call the tool again."
        ) from None
    if not isinstance(value, dict):
        raise ToolError(f"the arguments are a JSON {type(value).__name__}", right="one JSON object is needed", step="Call the tool again.")
    return value


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON value")


def result_parts(value: Any, told: Callable[[Any], Any] | None = None) -> tuple[Shown, ...]:
    """What a tool returned, as parts a model can read: text as it is, data as JSON, PNG or JPEG bytes as an image, parts as they are.

    `told` gives the form of what JSON has none for.
    """
    if value is None or (isinstance(value, str) and not value):
        return (Text(text=EMPTY_RESULT),)
    if isinstance(value, str):
        return (Text(text=clean(value)),)
    if isinstance(value, Shown):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(part, Shown) for part in value):
        return tuple(value)
    if isinstance(value, bytes | bytearray):
        return (_bytes_part(bytes(value)),)
    if isinstance(value, BaseException):
        return (Text(text=clean(f"{type(value).__name__}: {value}")),)
    return (Text(text=_as_json(value, told or as_text)),)


def _bytes_part(data: bytes) -> Text | Image:
    for magic, media_type in ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif")):
        if data.startswith(magic):
            return Image(media_type=media_type, data=data)
    return Text(text=data.decode(errors="replace"))


def _as_json(value: Any, told: Callable[[Any], Any]) -> str:
    dump = getattr(value, "model_dump", None)  # a pydantic model, without importing pydantic
    if callable(dump):
        value = dump(mode="json")
    try:
        return msgspec.json.encode(value, enc_hook=told).decode()
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError):
        return clean(repr(value))


def as_text(value: Any) -> Any:
    """The form in JSON of what JSON has none for."""
    item = getattr(value, "item", None)  # a numpy scalar
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    return clean(str(value))


def parts_text(parts: Iterable[AnyPart]) -> str:
    """The words in parts; a picture or a document by a short note."""
    return "\n".join(part.text if isinstance(part, Text) else f"[{type(part).__name__.lower()}]" for part in parts)
