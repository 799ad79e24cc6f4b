"""Tools from Python functions and schemas of answers: what a model sees, what the function receives, what is refused and how."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
import inspect
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Optional, TypedDict, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import Doc

from llmproc_nb.core.errors import ToolDeclarationError, ToolError
from llmproc_nb.core.tool import Tool
from llmproc_nb.drivers.schema import injected, schema_of, tool

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 3


class Box(TypedDict):
    width: int
    label: NotRequired[str]


class Model(BaseModel):
    """A model with a title."""

    title: str = "t"
    size: int


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Open(BaseModel, extra="allow"):
    name: str


def form_of(hint: Any, *, default: Any = inspect.Parameter.empty) -> Any:
    """The schema of one parameter with that type."""

    def function(it: Any) -> None: ...

    function.__annotations__["it"] = hint
    if default is not inspect.Parameter.empty:
        function.__defaults__ = (default,)
    return tool(function).spec.parameters["properties"]["it"]


def received(hint: Any, value: Any) -> Any:
    """What the function receives where the model sends that value."""

    def function(it: Any) -> None: ...

    function.__annotations__["it"] = hint
    return tool(function).check({"it": value})["it"]


def refused(function: Any, **options: Any) -> str:
    with pytest.raises(ToolDeclarationError) as caught:
        tool(function, **options)
    return str(caught.value)


def told(made: Tool, arguments: dict[str, Any]) -> str:
    assert made.check is not None
    with pytest.raises(ToolError) as caught:
        made.check(arguments)
    return caught.value.for_model()


# ---- what the model sees


def test_a_function_becomes_a_tool_with_everything_it_says_of_itself() -> None:
    @tool
    def find(word: str, limit: int = 10, kind: Literal["noun", "verb"] | None = None, *, deep: bool = False) -> list[str]:
        """Find a word.

        It looks everywhere.

        Args:
            word: what to find,
                in small letters
            limit (int): how many

        Returns:
            The places.

        Raises:
            KeyError: never.

        Slow for long words.
        """
        return [word]

    assert (find.spec.name, find.spec.description, find.where, find.access, find.timeout_s) == (
        "find",
        "Find a word.\n\nIt looks everywhere.\n\nReturns:\n    The places.\n\nSlow for long words.",
        "worker",
        "write",
        300.0,
    )
    assert find.spec.parameters == {
        "type": "object",
        "properties": {
            "word": {"type": "string", "description": "what to find, in small letters"},
            "limit": {"type": "integer", "description": "how many", "default": 10},
            "kind": {"anyOf": [{"enum": ["noun", "verb"], "type": "string"}, {"type": "null"}]},
            "deep": {"type": "boolean", "default": False},
        },
        "required": ["word"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "doc",
    [
        "Go.\n\nArgs:\n    a (int): first\n    b: second\n\nExample:\n    go(1)",
        "Go.\n\nParameters\n----------\na : int\n    first\nb\n    second\n\nExamples\n--------\ngo(1)",
        "Go.\n\n:param a: first\n:type a: int\n:param int b: second\n\ngo(1)",
    ],
)
def test_google_numpy_and_sphinx_docstrings_are_read(doc: str) -> None:
    def go(a: int, b: int) -> None: ...

    go.__doc__ = doc
    made = tool(go)
    assert {name: form["description"] for name, form in made.spec.parameters["properties"].items()} == {"a": "first", "b": "second"}
    assert made.spec.description.startswith("Go.") and made.spec.description.endswith("go(1)") and "first" not in made.spec.description


def test_words_given_by_hand_go_before_those_of_the_annotation_and_of_the_docstring() -> None:
    def go(
        a: Annotated[int, Field(description="field")], b: Annotated[int, "plain"], c: Annotated[int, Doc("doc")], d: int, e: Model
    ) -> None:
        """Go.

        Args:
            a: from the docstring
            d: from the docstring
            e: from the docstring
        """

    made = tool(go, description="Other.", param_descriptions={"d": "by hand"})
    words = {name: form["description"] for name, form in made.spec.parameters["properties"].items()}
    assert (made.spec.description, words) == ("Other.", {"a": "field", "b": "plain", "c": "doc", "d": "by hand", "e": "from the docstring"})
    with pytest.raises(ToolDeclarationError, match="tool go has no parameter 'z'"):
        tool(go, param_descriptions={"z": "?"})


POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer", "default": 3}},
    "required": ["x"],
    "additionalProperties": False,
}
MODEL = {
    "type": "object",
    "description": "A model with a title.",
    "properties": {"title": {"type": "string", "default": "t"}, "size": {"type": "integer"}},
    "required": ["size"],
}


@pytest.mark.parametrize(
    ("hint", "form"),
    [
        (inspect.Parameter.empty, {}),
        (Any, {}),
        (int, {"type": "integer"}),
        (float | None, {"anyOf": [{"type": "number"}, {"type": "null"}]}),
        (Optional[str], {"anyOf": [{"type": "string"}, {"type": "null"}]}),  # noqa: UP045
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Color, {"type": "string", "enum": ["red", "blue"]}),
        (list[Color], {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (dict, {"type": "object", "additionalProperties": True}),
        (set[int], {"type": "array", "uniqueItems": True, "items": {"type": "integer"}}),
        (tuple[int, str], {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2}),
        (
            Box,
            {"type": "object", "properties": {"width": {"type": "integer"}, "label": {"type": "string"}}, "required": ["width"]}
            | {"additionalProperties": False},
        ),
        (Point, POINT),
        (Model, MODEL),
        (list[Point] | None, {"anyOf": [{"type": "array", "items": POINT}, {"type": "null"}]}),
        (Annotated[int, Field(ge=1, le=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
        (datetime, {"type": "string", "format": "date-time"}),
        (Path, {"type": "string", "format": "path"}),
        (bytes, {"type": "string", "format": "binary"}),
    ],
)  # fmt: skip
def test_each_type_has_its_schema_in_place_and_without_titles(hint: Any, form: Any) -> None:
    assert form_of(hint) == form


@pytest.mark.parametrize(
    ("hint", "default", "form"),
    [
        (int, 3, {"type": "integer", "default": 3}),
        (int, None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Color, Color.RED, {"type": "string", "enum": ["red", "blue"], "default": "red"}),
        (Path, Path("a"), {"type": "string", "format": "path", "default": "a"}),
        (float, float("inf"), {"type": "number"}),
        (Any, object(), {}),
        (int, Field(4, ge=1, description="many"), {"type": "integer", "minimum": 1, "default": 4, "description": "many"}),
        (
            Annotated[int, Field(ge=1, description="n")],
            None,
            {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "description": "n"},
        ),
    ],
)
def test_defaults_stand_in_the_schema_where_json_has_them(hint: Any, default: Any, form: Any) -> None:
    assert form_of(hint, default=default) == form


def test_a_recursive_type_keeps_its_definition_and_others_do_not() -> None:
    def grow(tree: Tree, point: Point) -> None: ...

    tree = {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}, "default": []}},
        "required": ["value"],
    }
    assert tool(grow).spec.parameters == {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/Tree"}, "point": POINT},
        "required": ["tree", "point"],
        "additionalProperties": False,
        "$defs": {"Tree": tree},
    }


def test_the_same_function_gives_the_same_bytes_every_time() -> None:
    def go(a: Tree, b: set[Color], c: Model | Point) -> None:
        """Go."""

    assert len({json.dumps(tool(go).spec.parameters) for _ in range(5)}) == 1


# ---- what the function receives


@pytest.mark.parametrize(
    ("hint", "value", "got"),
    [
        (int, "5", 5),
        (int, 5.0, 5),
        (Color, "blue", Color.BLUE),
        (list[Color], ["red"], [Color.RED]),
        (Point, {"x": 1}, Point(1, 3)),
        (dict[str, Point], {"p": {"x": "1", "y": 2}}, {"p": Point(1, 2)}),
        (Model, {"size": 2}, Model(size=2)),
        (Open, {"name": "n", "more": 1}, Open(name="n", more=1)),  # type: ignore[call-arg]
        (Box, {"width": 1}, {"width": 1}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1, 2], {1, 2}),
        (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (Path, "a/b", Path("a/b")),
        (bytes, "é", "é".encode()),
        (int | str, "5", "5"),
        (inspect.Parameter.empty, {"any": [1]}, {"any": [1]}),
        (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(value=1, children=[Tree(value=2)])),
    ],
)  # fmt: skip
def test_the_function_receives_the_values_its_types_say(hint: Any, value: Any, got: Any) -> None:
    assert received(hint, value) == got


def test_defaults_of_the_function_stay_its_own_and_those_of_fields_are_filled_in() -> None:
    marker = object()

    def go(a: Any = marker, b: int = Field(4, ge=1), c: int = Field(ge=1)) -> tuple[Any, int, int]:
        return a, b, c

    made = tool(go)
    assert made.spec.parameters["required"] == ["c"]
    assert made.check is not None
    assert made.function(**made.check({"c": "2"})) == (marker, 4, 2)


def test_other_arguments_go_where_the_function_takes_them() -> None:
    def go(a: int, **rest: int) -> tuple[int, dict[str, int]]:
        return a, rest

    made = tool(go)
    assert made.spec.parameters["additionalProperties"] == {"type": "integer"}
    assert made.check is not None
    assert made.function(**made.check({"a": 1, "b": "2"})) == (1, {"b": 2})
    assert told(made, {"a": 1, "b": "x"}) == "argument 'b' is \"x\"; it should be a valid integer, unable to parse string as an integer."


def test_any_parameter_name_will_do() -> None:
    def go(_a: int, json: int, schema: int, model_config: int, copy: int, title: int, self_: int) -> int:
        return _a + json + schema + model_config + copy + title + self_

    made = tool(go)
    assert made.check is not None
    assert made.function(**made.check(dict.fromkeys(made.spec.parameters["properties"], 1))) == 7


# ---- every kind of callable


class Counter:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, number: int) -> int:
        """Add to the count."""
        self.count += number
        return self.count

    @classmethod
    def named(cls, name: str) -> str:
        """Name it."""
        return f"{cls.__name__} {name}"

    @staticmethod
    def double(number: int) -> int:
        """Double."""
        return 2 * number

    def __call__(self, number: int) -> int:
        return self.add(number)


class Waiter:
    async def __call__(self, number: int) -> int:
        """Wait."""
        await asyncio.sleep(0)
        return number


async def wait(number: int, /, more: int = 1) -> int:
    """Wait."""
    await asyncio.sleep(0)
    return number + more


def power(base: int, exponent: int = 2, /, *, key: str = "") -> str:
    """Raise."""
    return f"{base**exponent}{key}"


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return called


@pytest.mark.parametrize(
    ("function", "name", "description", "arguments", "result"),
    [
        (Counter().add, "add", "Add to the count.", {"number": "2"}, 2),
        (Counter.named, "named", "Name it.", {"name": "x"}, "Counter x"),
        (Counter.double, "double", "Double.", {"number": 2}, 4),
        (Counter(), "Counter", "Counts.", {"number": 3}, 3),
        (Waiter(), "Waiter", "Wait.", {"number": 3}, 3),
        (wait, "wait", "Wait.", {"number": 3}, 4),
        (functools.partial(wait, more=5), "wait", "Wait.", {"number": 3}, 8),
        (power, "power", "Raise.", {"base": "3"}, "9"),
        (power, "power", "Raise.", {"base": 2, "exponent": 3, "key": "k"}, "8k"),
        (functools.partial(power, key="secret"), "power", "Raise.", {"base": 2}, "4secret"),
        (functools.partial(power, 3), "power", "Raise.", {"exponent": 3}, "27"),
        (wrapped(power), "power", "Raise.", {"base": 3}, "9"),
    ],
)
def test_every_kind_of_callable_is_called_as_it_should_be(function: Any, name: str, description: str, arguments: Any, result: Any) -> None:
    made = tool(function)
    assert made.check is not None
    value = made.function(**made.check(arguments))
    assert inspect.isawaitable(value) == inspect.iscoroutinefunction(made.function)
    assert (made.name, made.spec.description) == (name, description)
    assert (asyncio.run(value) if inspect.iscoroutine(value) else value) == result


def test_what_partial_has_bound_is_not_shown_to_the_model() -> None:
    made = tool(functools.partial(power, key="secret"))
    assert (list(made.spec.parameters["properties"]), "secret" in str(made.spec)) == (["base", "exponent"], False)
    assert told(made, {"base": 1, "key": "x"}) == "unknown argument 'key'; the tool has 'base', 'exponent'."


def test_a_lambda_and_a_builtin_become_tools_under_a_name() -> None:
    double = tool(lambda number: number * 2, name="double")
    length = tool(len, name="length")
    assert (double.function(number=2), double.spec.description) == (4, "")
    assert length.check is not None
    assert length.function(**length.check({"obj": [1, 2]})) == 2


def test_the_decorator_takes_options_and_a_tool_can_be_declared_again() -> None:
    @tool(name="other", access="read", timeout_s=None, where="main")
    def go() -> None:
        """Go."""

    again = tool(go, name="third", description="Third.")
    assert (go.name, go.access, go.timeout_s, go.where, go.spec.parameters) == (
        "other",
        "read",
        None,
        "main",
        {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
    )
    assert (again.name, again.spec.description, again.function, again.access) == ("third", "Third.", go.function, "read")


def test_functions_and_types_of_a_notebook_are_found_and_run_on_its_main_thread() -> None:
    source = dedent(
        """
        from __future__ import annotations
        import dataclasses
        @dataclasses.dataclass
        class Row:
            name: str
            next: Row | None = None
        def plain(row: Row, rows: list["Row"]) -> str: ...
        async def later(row: Row) -> str: ...
        """
    )
    main = sys.modules["__main__"]
    namespace = {"__name__": "__main__"}
    exec(compile(source, "<cell>", "exec"), namespace)
    row = namespace["Row"]
    vars(main)["Row"] = row  # a notebook's names are those of __main__
    try:
        plain, later = tool(namespace["plain"]), tool(namespace["later"])
    finally:
        del vars(main)["Row"]
    assert plain.check is not None
    assert plain.check({"row": {"name": "a", "next": {"name": "b"}}, "rows": []}) == {"row": row("a", row("b")), "rows": []}  # type: ignore[operator]
    assert (plain.where, later.where) == ("main", "worker")


def test_types_of_a_local_scope_are_found_where_the_tool_is_declared() -> None:
    class Local(enum.Enum):
        A = "a"

    def inner() -> Tool:
        @tool
        def go(kind: Local, kinds: dict[str, Local]) -> None: ...

        return go  # type: ignore[no-any-return]

    made = inner()
    assert made.check is not None
    assert made.check({"kind": "a", "kinds": {"x": "a"}}) == {"kind": Local.A, "kinds": {"x": Local.A}}


def test_what_the_process_fills_in_is_not_shown() -> None:
    def go(a: int, process, me: Process, runtime_context: dict[str, Any], other: Any = None) -> None:  # type: ignore[no-untyped-def]
        ...

    def kill(process: str) -> None: ...

    made = tool(go)
    assert (list(made.spec.parameters["properties"]), made.spec.parameters["required"]) == (["a", "other"], ["a"])
    assert injected(made.function) == {"process": "process", "me": "process", "runtime_context": "runtime_context"}
    assert told(made, {"a": 1, "process": 3}) == "unknown argument 'process'; the tool has 'a', 'other'."
    assert (list(tool(kill).spec.parameters["properties"]), injected(kill)) == (["process"], {})


# ---- what is refused


def test_a_function_that_cannot_be_described_is_refused_with_what_would_do() -> None:
    def stars(*names: str) -> None: ...
    def unknown(frame: NoSuchFrame) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def strange(ok: int, stream: Callable[[], int]) -> None: ...
    def odd(stream: Counter) -> None: ...
    def yields() -> Any:
        yield 1

    rule = "str, int, list, Literal, Enum, a dataclass, a TypedDict, a pydantic model or no annotation would do."
    assert refused(stars) == "tool stars: parameter *names cannot be described to a model; a named list would do, as in names: list[str]."
    assert refused(unknown) == (
        "tool unknown: the annotation 'NoSuchFrame' of parameter 'frame' cannot be resolved (name 'NoSuchFrame' is not defined); "
        "its names must exist where the function is defined."
    )
    assert refused(strange).startswith("tool strange: parameter 'stream' has a type that no model can send (") and refused(
        strange
    ).endswith(rule)
    assert refused(odd).startswith("tool odd: parameter 'stream' has a type that no model can send (") and "Counter" in refused(odd)
    assert refused(yields) == "tool yields: it is a generator function; a function that returns its result is needed."
    assert (
        refused(Counter.add)
        == "tool add: it is a method of Counter without its object; the method of an object is needed, as in tool(thing.add)."
    )
    assert refused(3, name="three") == "an int cannot be called; a function is needed, or Class.method from outside of the class."
    assert refused(Counter.__dict__["named"]).startswith("a classmethod inside its class cannot be called")
    assert refused(lambda: 1).startswith("a lambda has no name; 1 to 64 letters, digits, _ or - are needed. Give one:")


@pytest.mark.parametrize("name", ["", "a b", "naïve", "x" * 65, "a.b", "a\n"])
def test_a_name_that_a_vendor_would_refuse_is_refused_first(name: str) -> None:
    assert "no name for a tool; 1 to 64 letters, digits, _ or - are needed" in refused(power, name=name or " ")


# ---- what does not fit


def test_each_argument_that_does_not_fit_is_told_with_its_place() -> None:
    def go(
        count: int, color: Color, points: list[Point], model: Model, either: int | list[str] = 1, ratio: Annotated[float, Field(ge=0)] = 0
    ) -> None: ...

    made = tool(go)
    fine: dict[str, Any] = {"count": 1, "color": "red", "points": [], "model": {"size": 1}}
    cases = [
        ({"colour": "red"}, "unknown argument 'colour'; the tool has 'color'."),
        ({"count": "many"}, "argument 'count' is \"many\"; it should be a valid integer, unable to parse string as an integer."),
        ({"count": None}, "argument 'count' is null; it should be a valid integer."),
        ({"color": "green"}, "argument 'color' is \"green\"; it should be 'red' or 'blue'."),
        ({"points": [{"x": 1}, {"y": 2}]}, "argument 'points[1].x' is missing."),
        ({"points": [{"x": 1, "z": 2}]}, "unknown field 'z' in 'points[0]'."),
        ({"points": "[]"}, "argument 'points' is \"[]\"; it should be a valid list."),
        ({"model": {"size": 1, "siez": 2}}, "unknown field 'siez' in 'model'."),
        ({"either": {"a": 1}}, "argument 'either' is {\"a\": 1}; it should be a valid integer or a valid list."),
        ({"ratio": -1}, "argument 'ratio' is -1; it should be greater than or equal to 0."),
        ({"count": "x" * 100}, f"argument 'count' is \"{'x' * 58}…; it should be a valid integer, unable to parse string as an integer."),
    ]
    assert [told(made, fine | wrong) for wrong, _ in cases] == [words for _, words in cases]
    assert told(made, {"color": "red", "points": 1, "model": {}, "modle": {}}) == (
        "4 faults: argument 'count' is missing; argument 'points' is 1 (it should be a valid list); argument 'model.size' is missing; "
        "unknown argument 'modle' (the tool has 'model')."
    )


def test_a_validator_of_the_person_speaks_to_the_model() -> None:
    @dataclasses.dataclass
    class Even:
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("Only even numbers are served")

    def go(even: Even) -> None: ...

    assert told(tool(go), {"even": {"number": 3}}) == "argument 'even' is {\"number\": 3}; only even numbers are served."


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def everything(
    a: int, b: list[Point] | None = None, c: Color = Color.RED, d: dict[str, Tree] | None = None, e: Box | int = 1, f: Any = None
) -> None:
    """All at once."""


EVERYTHING = tool(everything)


@given(st.dictionaries(st.sampled_from([*"abcdef", "g"]), json_values))
def test_whatever_a_model_sends_is_taken_whole_or_refused_in_words(arguments: dict[str, Any]) -> None:
    assert EVERYTHING.check is not None
    try:
        taken = EVERYTHING.check(arguments)
    except ToolError as error:
        assert error.for_model()
    else:
        assert taken.keys() == arguments.keys()


@given(st.integers(), st.lists(st.tuples(st.integers(), st.integers())), st.sampled_from(Color), st.integers())
def test_what_fits_the_schema_arrives_as_it_was(number: int, pairs: list[tuple[int, int]], color: Color, width: int) -> None:
    sent = {"a": number, "b": [{"x": x, "y": y} for x, y in pairs], "c": color.value, "e": {"width": width}}
    assert EVERYTHING.check is not None
    assert EVERYTHING.check(json.loads(json.dumps(sent))) == {
        "a": number,
        "b": [Point(x, y) for x, y in pairs],
        "c": color,
        "e": {"width": width},
    }


def test_making_a_tool_and_checking_arguments_cost_little() -> None:
    def go(word: str, limit: int = 10, kind: Literal["noun", "verb"] = "noun") -> None:
        """Find.

        Args:
            word: what
            limit: how many
        """

    def best(function: Callable[[], Any], times: int) -> float:
        spans = []
        for _ in range(times):
            began = time.perf_counter()
            function()
            spans.append(time.perf_counter() - began)
        return min(spans)

    made = tool(go)
    assert made.check is not None
    assert best(lambda: tool(go), 20) < 0.003
    assert best(lambda: made.check({"word": "a", "limit": 1}), 200) < 0.00005  # type: ignore[misc]


# ---- typed answers


def answer_fault(kind: Any, text: str) -> str:
    with pytest.raises(ToolError) as caught:
        schema_of(kind)[1](text)
    return caught.value.for_model()


@pytest.mark.parametrize(
    ("kind", "schema", "text", "value"),
    [
        (Point, POINT, '{"x": 1}', Point(1, 3)),
        (Model, MODEL | {"additionalProperties": False}, '```json\n{"size": "2"}\n```', Model(size=2)),
        (
            Box,
            {"type": "object", "properties": {"width": {"type": "integer"}, "label": {"type": "string"}}, "required": ["width"]}
            | {"additionalProperties": False},
            '{"width": 1}',
            {"width": 1},
        ),
        (
            list[Color],
            {
                "type": "object",
                "properties": {"value": {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}}},
                "required": ["value"],
                "additionalProperties": False,
            },
            '{"value": ["red"]}',
            [Color.RED],
        ),
        ({"type": "object", "required": ["a"]}, {"type": "object", "required": ["a"]}, '{"a": 1}', {"a": 1}),
    ],
)
def test_an_answer_has_a_closed_schema_and_is_read_into_its_type(kind: Any, schema: Any, text: str, value: Any) -> None:
    made, parse = schema_of(kind)
    assert (made, parse(text)) == (schema, value)


def test_a_recursive_answer_keeps_its_definition() -> None:
    schema, parse = schema_of(Tree)
    assert parse('{"value": 1, "children": [{"value": 2}]}') == Tree(value=1, children=[Tree(value=2)])
    assert (list(schema["$defs"]), schema["$defs"]["Tree"]["additionalProperties"]) == (["Tree"], False)


def test_all_faults_of_an_answer_are_told() -> None:
    assert answer_fault(Model, '{"titel": 1}') == "2 faults: field 'size' is missing; unknown field 'titel' (the answer has 'title')."
    assert answer_fault(Model, '"x"').startswith('the answer is "x"; it should be a valid dictionary')
    assert answer_fault(Point, "none").startswith("the answer is no JSON (Expecting value")
    assert answer_fault(Tree, '{"value": 1, "children": [{"value": "x"}]}') == (
        "field 'children[0].value' is \"x\"; it should be a valid integer, unable to parse string as an integer."
    )
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["c"]}
    assert answer_fault(schema, '{"a": "x", "b": 1}') == (
        "3 faults: the answer: 'c' is a required property; a: 'x' is not of type 'integer'; b: 1 is not of type 'string'; "
        "the answer must follow the schema."
    )


def test_what_is_no_schema_is_refused() -> None:
    for kind in ({"type": "nothing"}, Callable[[], int], Counter):
        with pytest.raises(ToolDeclarationError):
            schema_of(kind)


def test_pydantic_is_not_loaded_before_a_tool_is_made() -> None:
    import subprocess

    code = "import sys, llmproc_nb.drivers.schema, llmproc_nb.drivers.builtin, llmproc_nb.drivers.pricing, llmproc_nb.drivers.enrich\n"
    code += "print([name for name in ('pydantic', 'docstring_parser', 'genai_prices', 'dotenv', 'jsonschema') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
