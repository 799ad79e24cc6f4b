"""Values of the Python API that cannot be: said where they are given, before anything is appended or sent."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from machines import scripted

from llmproc_nb import Limits, Program, Settings
from llmproc_nb.core.errors import PersonError, ProgramError

FOUND = {
    "Program: there is no field 'modle'; did you mean 'model'?": lambda: Program(modle="x"),
    "Program: there is no field 'sytem'; did you mean 'system'?": lambda: Program().replace(sytem="x"),
    "Program: there is no field 'zz'; there are name, model, ": lambda: Program(zz=1),
    "Program(system=…): found 3; a text is needed.": lambda: Program(system=3),
    "Program(user=…): found 3; a text or None is needed.": lambda: Program().replace(user=3),
    "Program(settings=…): found a dict; Settings(…) is needed.": lambda: Program(settings={"headers": {"x-api-key": "SECRET"}}),
    "Program(limits=…): found 3; Limits(…) is needed.": lambda: Program(limits=3),
    "Limits: there is no field 'stepz'; did you mean 'steps'?": lambda: Program(limits={"stepz": 3}),
    "Program(tools=…): found 'calculator'; a list is needed, as in tools=['calculator'].": lambda: Program(tools="calculator"),
    "Program(tools=…): found a function; a list is needed.": lambda: Program(tools=scripted),
    "Program(script=…): found 'hi'; a list or a function is needed.": lambda: Program(script="hi"),
    "Program(prompt_caching=…): found 'no'; True or False is needed.": lambda: Program(prompt_caching="no"),
    "Limits: there is no field 'step'; did you mean 'steps'?": lambda: Limits(step=3),
    "Limits(cost_usd=…): found 'x'; a number or None is needed.": lambda: Limits(cost_usd="x"),
    "Limits(steps=…): found -1; a number from 0 up is needed; None is no limit.": lambda: Limits(steps=-1),
    "Limits(steps=…): found 2.5; a whole number or None is needed.": lambda: Limits(steps=2.5),
    "Limits(steps=…): found True; a whole number or None is needed.": lambda: Limits(steps=True),
    "Limits(seconds=…): found nan; a number from 0 up is needed": lambda: Limits(seconds=float("nan")),
    "Settings(stop=…): found 'END'; a list is needed, as in stop=['END'].": lambda: Settings(stop="END"),
    "Settings(temperature=…): found 'hot'; a number or None is needed.": lambda: Settings(temperature="hot"),
    "start(tools=…): found 'calculator'; a list is needed, as in tools=['calculator'].": lambda: Program().start(tools="calculator"),
    "start(tools=…): found a function; a list is needed.": lambda: Program().start(tools=scripted),
    "add_tools(tools=…): found 'calculator'; a list": lambda: scripted({"say": "hi"}).add_tools("calculator"),
    "merge(child=…): found 3.5; a process or its name is needed.": lambda: scripted({"say": "hi"}).merge(3.5),
    "send(text=…): found 5; a text is needed.": lambda: scripted({"say": "hi"}).send(5),
    "spawn(program=…): found 5; a Program(…), or the name of a link, is needed.": lambda: scripted({"say": "hi"}).spawn(5),
    "fork(name=…): found 3; a text is needed.": lambda: scripted({"say": "hi"}).fork(3),
    "fork_map(names=…): found 3; a list of texts is needed.": lambda: scripted({"say": "hi"}).fork_map(["a"], names=[3]),
    "sandbox.run(code=…): found 5; a text is needed.": lambda: scripted({"say": "hi"}).sandbox.run(5),
    "sandbox.get(name=…): found 5; a text is needed.": lambda: scripted({"say": "hi"}).sandbox.get(5),
    "sandbox.read_file(path=…): found None; a text is needed.": lambda: scripted({"say": "hi"}).sandbox.read_file(None),
    "sandbox.write_file(data=…): found 5; bytes or a text are needed.": lambda: scripted({"say": "hi"}).sandbox.write_file("a", 5),
    "Settings: there is no field 'max_token'; did you mean 'max_tokens'?": lambda: Settings(max_token=3),
}


@pytest.mark.parametrize("said", FOUND)
def test_a_declaration_says_what_was_found_and_what_would_be_right(said: str) -> None:
    with pytest.raises(ProgramError) as caught:
        FOUND[said]()
    assert str(caught.value).startswith(said)


def test_a_branch_is_merged_by_its_name_as_in_the_magic() -> None:
    process = scripted({"say": "one"}, {"say": "two"})
    child = process.fork("alice")
    child.run("go").result()
    assert '<merged from="alice"' in process.merge("alice").message.text
    with pytest.raises(PersonError, match="there is no process 'alise'; did you mean 'alice'"):
        process.merge("alise")


@pytest.mark.parametrize("value", [0, -1, "ten", 2.5, True, [3]])
def test_a_number_of_requests_that_cannot_be_is_an_error_before_anything_is_said(value: Any) -> None:
    process = scripted({"say": "hi"})
    before, events = process.head, len(process.machine.log.events)
    with pytest.raises(ProgramError, match=r"run\(max_iterations=…\): found .*; a whole number from 1 up is needed"):
        process.run("go", max_iterations=value)
    assert (process.head, len(process.machine.log.events)) == (before, events)
    assert process.run("go", max_iterations=1).result().text == "hi"


def test_what_is_right_stays_as_it_is_and_numbers_of_numpy_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    assert Limits(children=0, depth=0, steps=5, cost_usd=1, seconds=0.5).children == 0
    assert Program(name="a", limits={"steps": 3}).limits == Limits(steps=3)
    limits = Limits(steps=numpy.int64(3))
    assert type(limits.steps) is int and msgspec.json.decode(msgspec.json.encode(limits), type=Limits) == limits
    assert Program(tools=["calculator"], script=[{"say": "x"}], sandbox={"memory_mb": 500}).tools == ["calculator"]
    assert scripted({"say": "hi"}).run("go", max_iterations=numpy.int64(1)).result().text == "hi"


def test_a_program_is_checked_in_no_time() -> None:
    began = time.process_time()
    for _ in range(1000):
        Program(name="a", limits=Limits(steps=3))
    assert time.process_time() - began < 0.2


def test_a_path_is_a_text_where_one_is_needed(tmp_path: Any) -> None:
    assert Program(base_dir=tmp_path).base_dir == str(tmp_path)
