"""Tools whose parameters are plain JSON types: the schema, and the check of what a model gives for it.

For the tools that ship. Schemas of people's own functions come from the schema driver.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.provider import ToolSpec
from llmproc_nb.core.tool import Access, Tool

_TYPES: dict[str, tuple[type, str]] = {
    "string": (str, "a string"),
    "integer": (int, "a whole number"),
    "boolean": (bool, "true or false"),
    "array": (list, "a list of strings"),
}


def tool_of(
    name: str,
    function: Callable[..., Any],
    description: str,
    properties: dict[str, dict[str, Any]],
    *,
    access: Access = "read",
    **fields: Any,
) -> Tool:
    """A tool with these parameters, each the JSON schema of a plain type or a list of strings; one with a default may be left out."""
    required = [key for key, form in properties.items() if "default" not in form]
    shown = {
        key: {word: value for word, value in form.items() if word != "default" or value is not None} for key, form in properties.items()
    }
    schema = {"type": "object", "properties": shown, "required": required, "additionalProperties": False}

    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        faults = [_unknown(key, properties) for key in arguments if key not in properties]
        faults += [(f"argument {key!r} is missing", "") for key in required if key not in arguments]
        checked = {key: _value(key, arguments[key], form, faults) for key, form in properties.items() if key in arguments}
        if len(faults) == 1:
            raise ToolError(faults[0][0], right=faults[0][1], place=f"tool {name}")
        if faults:
            said = "; ".join(f"{found} ({right})" if right else found for found, right in faults)
            raise ToolError(f"{len(faults)} faults: {said}", place=f"tool {name}")
        return checked

    spec = ToolSpec(name=name, description=description, parameters=schema)
    return Tool(spec=spec, function=function, check=check, access=access, **fields)


def _unknown(key: str, properties: dict[str, Any]) -> tuple[str, str]:
    near = [name for name in properties if key and name.startswith(key)] or get_close_matches(key, properties, n=1) or list(properties)
    return f"unknown argument {key!r}", f"the tool has {', '.join(repr(name) for name in near)}"


def _value(key: str, value: Any, form: dict[str, Any], faults: list[tuple[str, str]]) -> Any:
    if value is None and "default" in form:
        return form["default"]
    kind, words = _TYPES[form["type"]]
    if kind is int and isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and len(value) < 20:
        value = int(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    if kind is list and isinstance(value, str):
        value = [value]
    wrong_items = isinstance(value, list) and not all(isinstance(item, str) for item in value)
    if not isinstance(value, kind) or wrong_items or (kind is int and isinstance(value, bool)):
        faults.append((f"argument {key!r} is {value!r:.60}", f"it should be {words}"))
    elif "enum" in form and value not in form["enum"]:
        faults.append((f"argument {key!r} is {value!r:.60}", f"it should be one of {', '.join(form['enum'])}"))
    elif "maximum" in form and not form["minimum"] <= value <= form["maximum"]:
        faults.append((f"argument {key!r} is {value!r:.60}", f"it should be between {form['minimum']} and {form['maximum']}"))
    return value
