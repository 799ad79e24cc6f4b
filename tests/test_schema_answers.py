"""Answers of a type: `run(..., schema=…)` asks for it, reads it, and says what is wrong with one that does not fit."""

from __future__ import annotations

import dataclasses

import pytest
from machines import roles, scripted
from pydantic import BaseModel

from llmproc_nb import LlmprocError


class Town(BaseModel):
    name: str
    people: int


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


def test_an_answer_is_read_into_its_type():
    process = scripted({"say": '{"name": "Oslo", "people": 717710}'}, {"say": '{"x": 1, "y": 2}'}, {"say": '{"value": ["a", "b"]}'})
    assert process.run("Which town?", schema=Town).result().parsed == Town(name="Oslo", people=717710)
    assert process.run("Which point?", schema=Point).result().parsed == Point(1.0, 2.0)
    assert process.run("Which letters?", schema=list[str]).result().parsed == ["a", "b"]


def test_the_schema_goes_into_the_request_and_only_this_one():
    seen = []

    def script(request):
        seen.append(request.config.settings.output_schema)
        return '{"name": "Oslo", "people": 1}'

    process = scripted(script)
    process.run("Which town?", schema=Town).result()
    process.run("And now in words.").result()
    assert seen[0]["required"] == ["name", "people"] and seen[1] is None


def test_an_answer_that_does_not_fit_says_what_is_wrong_and_stays_on_the_path():
    process = scripted({"say": '{"name": "Oslo"}'})
    with pytest.raises(LlmprocError, match="people"):
        process.run("Which town?", schema=Town).result()
    assert roles(process) == ["system", "user", "assistant"]
