"""What a callable's annotations and docstring say: types resolved where they were written, words per parameter, the description."""

from __future__ import annotations

import json
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

# the parts of a docstring that speak of single parameters or of exceptions; all the rest is the tool's description
_SECTIONS = re.compile(
    r"^(?:Args|Arguments|Parameters|Params|Keyword Args|Keyword Arguments|Raises|Exceptions|Except|Attributes):[ \t]*\n(?:[ \t]+.*\n|\n)*"
    r"|^(?:Parameters|Other Parameters|Raises|Warns)\n-{3,}\n(?:(?!\S.*\n-{3,}\n).*\n)*"
    r"|^:(?:param|parameter|arg|argument|key|keyword|type|rtype|raises?|except|exception)\b[^:\n]*:.*\n(?:[ \t]+.*\n)*",
    re.MULTILINE,
)


def resolved(annotation: Any, target: Any, frame: types.FrameType | None) -> Any:
    """The type an annotation means, its strings looked up in the function's module and closure, then where the tool was declared.

    Raises NameError, SyntaxError, AttributeError or TypeError where it means nothing.
    """
    own = getattr(target, "__globals__", None) or vars(sys.modules.get(getattr(target, "__module__", None) or "", types))
    try:
        return _evaluated(annotation, own, _closure(target))
    except NameError:
        return _evaluated(annotation, own, {**_surroundings(frame), **_closure(target)})


def _evaluated(annotation: Any, own: dict[str, Any], local: dict[str, Any]) -> Any:
    holder: Any = types.SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, own, local, include_extras=True)["it"]


def _closure(target: Any) -> dict[str, Any]:
    names = getattr(getattr(target, "__code__", None), "co_freevars", ())
    found = {}
    for name, cell in zip(names, getattr(target, "__closure__", None) or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # named, but not assigned yet
            continue
    return found


def _surroundings(frame: types.FrameType | None) -> dict[str, Any]:
    """The names where a tool is declared and in the functions of the same module around it, the innermost first."""
    names: dict[str, Any] = {}
    module = frame.f_globals if frame else None
    while frame is not None and frame.f_globals is module:
        names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names


def modern(hint: Any) -> Any:
    """The type with each `typing.TypedDict` in it as one that pydantic reads before Python 3.12."""
    if sys.version_info >= (3, 12):
        return hint
    if typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        hints = typing.get_type_hints(hint, include_extras=True)
        items = {key: _item(form, key in hint.__required_keys__) for key, form in hints.items()}
        made = keyed(hint.__name__, items)
        made.__doc__, made.__module__ = hint.__doc__, hint.__module__
        return made
    inner = typing.get_args(hint)
    if typing.get_origin(hint) in (None, typing.Literal) or not inner:
        return hint
    made_inner = tuple(modern(item) if isinstance(item, type) or typing.get_origin(item) else item for item in inner)
    if all(new is old for new, old in zip(made_inner, inner, strict=True)):
        return hint
    if typing.get_origin(hint) is typing.Annotated:
        return typing.Annotated[made_inner]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.Union[made_inner]  # noqa: UP007 - an operator takes no tuple
    return hint.copy_with(made_inner) if hasattr(hint, "copy_with") else typing.get_origin(hint)[made_inner]


def keyed(name: str, fields: Mapping[str, tuple[Any, bool]], rest: Any = None) -> Any:
    """A TypedDict with these keys (type, required) and, where `rest` is a type, any others of that type. A key may have any name."""
    import typing_extensions

    make: Any = typing_extensions.TypedDict  # pydantic reads this one in every version of Python
    items = {key: form if required else typing.NotRequired[form] for key, (form, required) in fields.items()}
    made = make(name, items) if rest is None else make(name, items, extra_items=rest)
    made.__pydantic_config__ = {"extra": "forbid" if rest is None else "allow"}
    return made


def _item(hint: Any, required: bool) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (typing.Required, typing.NotRequired):  # Python does not count these when they stood in a string
        return modern(typing.get_args(hint)[0]), typing.get_origin(hint) is typing.Required
    return modern(hint), required


def optional(hint: Any) -> Any:
    """The type or None; what is said about the type (Annotated) stays outermost, where it is found."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *words = typing.get_args(hint)
        return typing.Annotated[(typing.Optional[inner], *words)]  # noqa: UP045 - `|` fails on some types
    return hint if hint is Any else typing.Optional[hint]  # noqa: UP045


def own_words(hint: Any) -> str | None:
    """The description that an annotation carries: `Annotated[T, Field(description=…)]`, `Doc(…)` or a plain string."""
    if typing.get_origin(hint) is not typing.Annotated:
        return None
    for word in reversed(typing.get_args(hint)[1:]):
        text = word if isinstance(word, str) else getattr(word, "description", None) or getattr(word, "documentation", None)
        if isinstance(text, str):
            return text
    return None


def alias(hint: Any) -> str | None:
    """The name by which the model knows a parameter, where `Field(alias=…)` gives it another one."""
    words = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
    names = (getattr(word, "validation_alias", None) or getattr(word, "alias", None) for word in words)
    return next((name for name in names if isinstance(name, str)), None)


def json_default(value: Any) -> Any:
    """A default as JSON data; None where there is none, or none to show."""
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        data = to_jsonable_python(value)
        json.dumps(data, allow_nan=False)
    except (PydanticSerializationError, ValueError, TypeError):
        return None
    return data


def description(doc: str) -> str:
    """A docstring without what it says of single parameters and exceptions."""
    return re.sub(r"\n{3,}", "\n\n", _SECTIONS.sub("\n", doc + "\n")).strip()


def parameter_words(doc: str) -> Mapping[str, str]:
    """What a docstring in Google, NumPy or Sphinx style says of each parameter."""
    sections = [match.group() for match in _SECTIONS.finditer(doc + "\n")]
    if not sections:
        return {}
    from docstring_parser import ParseError, parse

    try:
        found = parse("\n".join(["Words.", "", *sections])).params  # only these: it would take later paragraphs for the last parameter's
    except ParseError:
        return {}
    return {item.arg_name.lstrip("*"): " ".join(item.description.split()) for item in found if item.description}
