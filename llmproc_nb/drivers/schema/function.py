"""A Tool from any callable: signature, annotations and docstring read into a JSON schema, and the check of what a model sends.

Here: what a callable asks for and how it is called. Not here: the reading of annotations and docstrings (annotation), schemas as
vendors take them (form), the words of a fault (fault), the tools that ship (the builtin driver).
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from llmproc_nb.core.errors import ToolDeclarationError, kind_of
from llmproc_nb.core.provider import ToolSpec
from llmproc_nb.core.tool import Tool
from llmproc_nb.drivers.schema import annotation, fault, form

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TYPE_RULE = "str, int, list, Literal, Enum, a dataclass, a TypedDict, a pydantic model or no annotation would do"
_DEFAULT_TIMEOUT_S: float = 300.0


def tool(
    function: Any = None,
    *,
    name: str | None = None,
    description: str | None = None,
    param_descriptions: Mapping[str, str] | None = None,
    where: Literal["worker", "main"] | None = None,
    access: Literal["read", "write", "admin"] = "write",
    timeout_s: float | None = _DEFAULT_TIMEOUT_S,
) -> Any:
    """A Tool from a callable, by `tool(function, …)` or `@tool`; from `@tool(…)` the decorator.

    Name, description and parameters come from the function where they are not given. `where` None: `main` for a plain function of the
    notebook, else `worker`. Keywords bound by functools.partial are not shown to the model. Raises ToolDeclarationError.
    """
    frame = sys._getframe(1)

    def declare(function: Any) -> Tool:
        if isinstance(function, Tool):
            made = function.renamed(_checked(name)) if name else function
            return made.described(description, param_descriptions or {})
        _refuse_uncallable(function)
        asked = _Signature(function, _checked(name or _name_of(function)), frame)
        words = annotation.description(asked.doc) if description is None else description
        called = asked.by_name()
        on_main = getattr(asked.target, "__module__", None) == "__main__" and not inspect.iscoroutinefunction(called)
        made = Tool(
            spec=ToolSpec(name=asked.name, description=words, parameters=asked.schema),
            function=called,
            check=asked.check,
            where=where or ("main" if on_main else "worker"),
            access=access,
            timeout_s=timeout_s,
            inject=injected(function),
        )
        return made.described(None, param_descriptions) if param_descriptions else made

    return declare if function is None else declare(function)


def injected(function: Callable[..., Any]) -> dict[str, Literal["process", "runtime_context"]]:
    """The parameters that the process fills and the model never sees, by name: the process itself, or LLMProc's `{"process": …}`."""
    parameters = inspect.signature(function).parameters.values()
    return {item.name: kind for item in parameters if (kind := _injection(item))}


class _Signature:
    """What a callable asks for: its JSON schema, the check of arguments, and the callable as one that takes keywords only."""

    def __init__(self, function: Callable[..., Any], name: str, frame: types.FrameType) -> None:
        self.function, self.name, self.place = function, name, f"tool {name}"
        self.target = _target(function)
        self.doc = _doc(function, self.target)
        parameters = self._parameters()
        bound = function.keywords if isinstance(function, functools.partial) else {}
        shown = [item for item in parameters if item.name not in bound and not _injection(item)]
        self.positional = [item for item in parameters if item.kind is item.POSITIONAL_ONLY]
        self.hints = {item.name: self._hint(item, frame) for item in shown}
        self.adapter, schema = self._built(shown)
        self.schema = self._described(schema, shown)
        self.known = tuple(self.schema["properties"])
        self.extra = None if form.open_ended(self.schema) else "forbid"

    def _parameters(self) -> list[inspect.Parameter]:
        try:
            parameters = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):
            raise ToolDeclarationError("its parameters cannot be read", place=self.place, right="a Python function is needed") from None
        owner = getattr(self.target, "__qualname__", "").rpartition(".")[0]
        in_class = bool(owner) and not owner.endswith("<locals>") and inspect.isfunction(self.function)
        if in_class and parameters and parameters[0].name in ("self", "cls"):
            right = f"the method of an object is needed, as in tool(thing.{self.target.__name__})"
            raise ToolDeclarationError(f"it is a method of {owner} without its object", place=self.place, right=right)
        if inspect.isgeneratorfunction(self.target) or inspect.isasyncgenfunction(self.target):
            raise ToolDeclarationError("it is a generator function", place=self.place, right="a function that returns its result is needed")
        for item in parameters:
            if item.kind is item.VAR_POSITIONAL:
                right = f"a named list would do, as in {item.name}: list[str]"
                raise ToolDeclarationError(f"parameter *{item.name} cannot be described to a model", place=self.place, right=right)
        return parameters

    def _hint(self, item: inspect.Parameter, frame: types.FrameType) -> Any:
        if item.annotation is item.empty:
            return Any
        try:
            hint = annotation.modern(annotation.resolved(item.annotation, self.target, frame))
        except (NameError, SyntaxError, AttributeError, TypeError) as error:
            found = f"the annotation {item.annotation!r} of parameter {item.name!r} cannot be resolved ({error})"
            raise ToolDeclarationError(found, place=self.place, right="its names must exist where the function is defined") from None
        if _is_field(item.default):  # `x: int = Field(3, ge=1)`: pydantic reads the rules and fills the default in
            return typing.Annotated[hint, item.default]
        return annotation.optional(hint) if item.default is None else hint

    def _built(self, shown: list[inspect.Parameter]) -> tuple[Any, dict[str, Any]]:
        from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter
        from pydantic_core import SchemaError

        faults = (PydanticUserError, PydanticUndefinedAnnotation, SchemaError, TypeError)
        fields = {item.name: (self.hints[item.name], _is_required(item)) for item in shown if item.kind is not item.VAR_KEYWORD}
        rest = next((self.hints[item.name] for item in shown if item.kind is item.VAR_KEYWORD), None)
        try:
            adapter: Any = TypeAdapter(annotation.keyed("Arguments", fields, rest))
            return adapter, form.plain(adapter.json_schema())
        except faults as error:
            for name, hint in self.hints.items():  # only now is it worth the time to find the one that fails
                try:
                    TypeAdapter(annotation.keyed("Arguments", {name: (hint, True)})).json_schema()
                except faults as single:
                    found = f"parameter {name!r} has a type that no model can send ({_first_line(single)})"
                    raise ToolDeclarationError(found, place=self.place, right=_TYPE_RULE) from None
            raise ToolDeclarationError(_first_line(error), place=self.place, right=_TYPE_RULE) from None

    def _described(self, schema: dict[str, Any], shown: list[inspect.Parameter]) -> dict[str, Any]:
        words = annotation.parameter_words(self.doc)
        properties = dict(schema.get("properties", {}))
        for item in shown:
            alias = annotation.alias(self.hints[item.name]) or item.name
            if alias not in properties:
                continue
            found = dict(properties[alias])
            if text := annotation.own_words(self.hints[item.name]) or words.get(item.name):
                found["description"] = text
            if item.default is not item.empty and not _is_field(item.default):
                default = annotation.json_default(item.default)
                found |= {"default": default} if default is not None else {}
            properties[alias] = found
        parts = {"type": "object", "properties": properties, "required": schema.get("required", [])}
        return {**parts, **{key: schema[key] for key in ("additionalProperties", "$defs") if key in schema}}

    def check(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as the function wants them. Raises ToolError, in words for the model, that names each one that does not fit."""
        from pydantic_core import ValidationError

        try:
            return self.adapter.validate_python(arguments, extra=self.extra)  # type: ignore[no-any-return]
        except ValidationError as error:
            raise fault.fault(error.errors(include_url=False), arguments, place=self.place, known=self.known) from None

    def by_name(self) -> Callable[..., Any]:
        """The callable, to be called with keywords only."""
        function = self.function
        if not inspect.isroutine(function) and inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            function = function.__call__  # type: ignore[operator]  # an object: so that whoever asks sees that it is a coroutine function
        return _keyworded(function, {item.name: item.default for item in self.positional}) if self.positional else function


def _keyworded(function: Callable[..., Any], positional: Mapping[str, Any]) -> Callable[..., Any]:
    def split(given: dict[str, Any]) -> list[Any]:
        count = max((position for position, name in enumerate(positional, 1) if name in given), default=0)
        return [given.pop(name, default) for name, default in list(positional.items())[:count]]

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(**given: Any) -> Any:
            return await function(*split(given), **given)

        return awaited

    @functools.wraps(function)
    def called(**given: Any) -> Any:
        return function(*split(given), **given)

    return called


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        found = "a lambda has no name" if name == "<lambda>" else f"{name!r} is no name for a tool"
        right = "1 to 64 letters, digits, _ or - are needed"
        raise ToolDeclarationError(found, right=right, step='Give one: tool(function, name="…").')
    return name


def _name_of(function: Any) -> str:
    if isinstance(function, functools.partial):
        return _name_of(function.func)
    return str(getattr(function, "__name__", type(function).__name__))


def _refuse_uncallable(function: Any) -> None:
    if not callable(function):
        kind = "a classmethod inside its class" if isinstance(function, classmethod) else kind_of(function)
        right = "a function is needed, or Class.method from outside of the class"
        raise ToolDeclarationError(f"{kind} cannot be called", right=right)


def _target(function: Any) -> Any:
    """The function whose module and docstring count: without partial, bound object and wrappers."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function).__call__
    return inspect.unwrap(getattr(function, "__func__", function))


def _doc(function: Any, target: Any) -> str:
    if inspect.isroutine(function) or inspect.isclass(function) or isinstance(function, functools.partial):
        return inspect.getdoc(target) or ""
    words = target.__doc__ or type(function).__doc__
    return inspect.cleandoc(words) if isinstance(words, str) else ""


def _injection(item: inspect.Parameter) -> Literal["process", "runtime_context"] | None:
    if item.name == "runtime_context":
        return "runtime_context"
    if isinstance(item.annotation, str):
        is_process = item.annotation.strip("\"' ").rpartition(".")[2] in ("Process", "LLMProcess")
    else:
        is_process = any((base.__module__, base.__name__) == ("llmproc_nb.core.process", "Process") for base in _bases(item.annotation))
    return "process" if is_process or (item.name == "process" and item.annotation is item.empty) else None


def _bases(kind: Any) -> tuple[type, ...]:
    return kind.__mro__ if isinstance(kind, type) else ()


def _is_field(default: Any) -> bool:
    return type(default).__name__ == "FieldInfo" and type(default).__module__ == "pydantic.fields"


def _is_required(item: inspect.Parameter) -> bool:
    return bool(item.default.is_required()) if _is_field(item.default) else item.default is item.empty


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
