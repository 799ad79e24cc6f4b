"""The turns of a script as Python gives them."""

from __future__ import annotations

from typing import Any

import pytest
from machines import machine

from llmproc_nb.api import Program
from llmproc_nb.core.errors import ProgramError


def started(script: Any) -> Any:
    return Program(name="scout", provider="scripted", model="script", script=script).start(machine=machine())


def test_a_text_is_a_turn() -> None:
    scout = started(["Hello.", {"say": "Bye."}])
    assert [scout.run(text).result().text for text in ("one", "two")] == ["Hello.", "Bye."]


WRONG = {
    r"^\[script\]: the script gave an int; text, a turn as a dict, or a Message is needed": [3],
    r"^\[script\]: the script gave None; text": ["Hello.", None],
    r"^\[script\] turn 2: Object contains unknown field `sai`; a turn has say, think": ["Hello.", {"sai": "Bye."}],
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_no_turn_is_told(words: str) -> None:
    with pytest.raises(ProgramError, match=words):
        started(WRONG[words])
