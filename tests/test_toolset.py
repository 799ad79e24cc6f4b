"""Sets of tools: what joins, filters and names of them give, as a model calls them."""

from __future__ import annotations

import pytest
from machines import machine

from llmproc_nb import Program, Tool, Toolset
from llmproc_nb.core.errors import ToolDeclarationError
from llmproc_nb.drivers.schema import tool


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(access="read")
def count(text: str) -> int:
    """Count characters."""
    return len(text)


LAB = Toolset([add, count])


def called(tools: Toolset, name: str, **arguments: object) -> tuple[tuple[str, ...], str]:
    """What a model is offered by a program with these tools, and what it is answered when it calls one."""
    script = ({"call": [{"name": name, "arguments": arguments}]}, {"say": "done"})
    process = Program(name="lab", provider="scripted", model="m", script=script, tools=tuple(tools)).start(machine=machine())
    result = process.run("go").result()
    return tuple(spec.name for spec in process.config.tools if spec.name != "read_fd"), result.tool_calls[0].result.text


def test_a_prefix_is_what_a_model_calls_the_tools_by():
    assert called(LAB.prefix("lab_"), "lab_add", a=2, b=3) == (("lab_add", "lab_count"), "5")
    assert "there is no tool 'add'" in called(LAB.prefix("lab_"), "add", a=2, b=3)[1]


def test_a_prefixed_tool_keeps_its_schema_and_the_name_it_had():
    twice = LAB.prefix("lab_").prefix("my_")
    made = twice.get("my_lab_add")
    assert made is not None and made.spec.parameters == add.spec.parameters and made.base == "add"
    assert (twice.names_of(add), list(LAB)) == (("add", "my_lab_add"), [add, count])


def test_a_filter_leaves_those_that_are_wanted_and_no_model_calls_another():
    def is_read(one: Tool) -> bool:
        return one.access == "read"

    assert called(LAB.filter(is_read), "count", text="four") == (("count",), "4")
    assert "there is no tool 'add'" in called(LAB.filter(is_read), "add", a=2, b=3)[1]
    assert not len(LAB.filter(lambda one: False))


def test_sets_of_two_labs_are_told_apart_by_their_prefixes():
    both = LAB.prefix("one_").join(LAB.prefix("two_"))
    assert called(both, "two_count", text="four") == (("one_add", "one_count", "two_add", "two_count"), "4")
    with pytest.raises(ToolDeclarationError, match="two tools are called 'add'"):
        Toolset([*LAB, *LAB])
