"""Typed answers: the schema of a form, and the function that reads a model's text into its value. Not here: tools (function)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from llmproc_nb.core.errors import ToolDeclarationError, ToolError
from llmproc_nb.drivers.schema import annotation, fault, form

_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?\s*```\s*", re.DOTALL)
_RULE = "a pydantic model, a dataclass, a TypedDict, another type of JSON data or a JSON schema would do"


def schema_of(kind: Any) -> tuple[dict[str, Any], Callable[[str], Any]]:
    """The JSON schema of an answer, and what reads the answer's text into a value or raises ToolError with all faults.

    `kind` is a pydantic model, dataclass, TypedDict or any other type pydantic knows, or a dict that is a JSON schema already. What is no
    JSON object (a list, an Enum) is asked for as `{"value": …}` and given without that wrapping.
    """
    if isinstance(kind, dict):
        return kind, _reader(kind)
    from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter
    from pydantic_core import SchemaError, ValidationError

    place = f"answer {getattr(kind, '__name__', None) or kind}"
    try:
        adapter: Any = TypeAdapter(annotation.modern(kind))
        schema = form.plain(adapter.json_schema())
        if wrapped := "properties" not in schema:
            adapter = TypeAdapter(annotation.keyed("Answer", {"value": (annotation.modern(kind), True)}))
            schema = form.plain(adapter.json_schema())
    except (PydanticUserError, PydanticUndefinedAnnotation, SchemaError, TypeError) as error:
        raise ToolDeclarationError(str(error).partition("\n")[0].rstrip("."), place=place, right=_RULE) from None
    extra = None if form.open_ended(schema) else "forbid"
    form.close(schema)

    def parse(text: str) -> Any:
        data = _json(text, place)
        try:
            value = adapter.validate_python(data, extra=extra)
        except ValidationError as error:
            known = tuple(schema.get("properties", ()))
            raise fault.fault(error.errors(include_url=False), data, place=place, noun="field", known=known) from None
        return value["value"] if wrapped else value

    return schema, parse


def _json(text: str, place: str) -> Any:
    fenced = _FENCE.fullmatch(text)
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"the answer is no JSON ({error})", place=place, right="one JSON value that follows the schema is needed") from None


def _reader(schema: dict[str, Any]) -> Callable[[str], Any]:
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]

    place = f"answer {schema.get('title', 'by schema')}"
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ToolDeclarationError(f"this is no JSON schema ({error.message})", place=place, right="see json-schema.org") from None

    def parse(text: str) -> Any:
        data = _json(text, place)
        faults = sorted(kind(schema).iter_errors(data), key=lambda error: [str(step) for step in error.absolute_path])
        if faults:
            said = "; ".join(f"{error.json_path.removeprefix('$').lstrip('.') or 'the answer'}: {error.message}" for error in faults)
            count = "" if len(faults) == 1 else f"{len(faults)} faults: "
            raise ToolError(f"{count}{said}", place=place, right="the answer must follow the schema")
        return data

    return parse
