"""JSON schemas as vendors take them: pure work on schemas. Not here: how one is made from Python (function, answer)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# what stands under these keys is data or a list of names, not a schema
_VERBATIM = frozenset({"enum", "const", "default", "examples", "required"})


def plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without titles, discriminators and `default: null`, its definitions put in place; only recursive ones stay in `$defs`."""
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    direct = {name: frozenset(_references(body)) for name, body in definitions.items()}
    recursive = {name for name in definitions if name in _reached(name, direct)}
    top = {key: value for key, value in schema.items() if key != "$defs"}
    if set(top) == {"$ref"}:  # a recursive type by itself: vendors want an object at the top, not a reference
        top = definitions[top["$ref"].rpartition("/")[2]]
    body = _tidy(top, definitions, recursive)
    kept = sorted({name for start in _references(body) for name in (start, *_reached(start, direct))} & recursive)
    if kept:
        body["$defs"] = {name: _tidy(definitions[name], definitions, recursive) for name in kept}
    return body


def _references(node: Any) -> Iterable[str]:
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str):
            yield reference.rpartition("/")[2]
        for key, value in node.items():
            if key not in _VERBATIM:
                yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def _reached(name: str, direct: Mapping[str, frozenset[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(direct.get(name, ()))
    while waiting:
        if (found := waiting.pop()) not in seen:
            seen.add(found)
            waiting.extend(direct.get(found, ()))
    return seen


def _tidy(node: Mapping[str, Any], definitions: Mapping[str, Any], recursive: set[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    name = str(node.get("$ref", "")).rpartition("/")[2]
    if name in definitions and name not in recursive:
        made = _tidy(definitions[name], definitions, recursive)
    for key, value in node.items():
        if key == "$ref" and (name in recursive or name not in definitions):
            made[key] = value
        elif key in ("$ref", "title", "discriminator") or (key == "default" and value is None):
            continue
        elif key in ("properties", "patternProperties"):
            made[key] = {field: _tidy(form, definitions, recursive) for field, form in value.items()}
        elif key not in _VERBATIM and isinstance(value, dict):
            made[key] = _tidy(value, definitions, recursive)
        elif key not in _VERBATIM and isinstance(value, list):
            made[key] = [_tidy(item, definitions, recursive) if isinstance(item, dict) else item for item in value]
        else:
            made[key] = value
    return made


def objects(schema: Any) -> Iterable[dict[str, Any]]:
    """Each schema in this one that describes an object by its properties, itself included."""
    if isinstance(schema, list):
        for item in schema:
            yield from objects(item)
    elif isinstance(schema, dict):
        if isinstance(fields := schema.get("properties"), dict):
            yield schema
            yield from objects(list(fields.values()))
        for key, value in schema.items():
            if key == "$defs":
                yield from objects(list(value.values()))
            elif key not in _VERBATIM and key != "properties":
                yield from objects(value)


def open_ended(schema: Mapping[str, Any]) -> bool:
    """Whether an object in it takes keys that it does not name."""
    return any(form.get("additionalProperties") for form in objects(schema))


def close(schema: Mapping[str, Any]) -> None:
    """Say in each object that it has no other keys: what vendors ask of the schema of an answer."""
    for found in objects(schema):
        found.setdefault("additionalProperties", False)
