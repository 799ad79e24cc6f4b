"""Tools of one reply that end in any order, forks and spawns among them: a replay has the same ids, numbers and fds whatever came first."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from family import call
from simple import machine
from test_replay_forks import never, standing

from llmproc_nb.core.message import parts_of
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import Request
from llmproc_nb.core.tool import parts_text
from llmproc_nb.drivers.replay import Recording, reexecute

CROWDS = {
    "long": [call("long", about="a"), call("long", about="b")],
    "fork": [call("fork", prompts=["p", "q"]), call("fork", prompts=["p", "q"])],
    "spawn": [call("spawn", prompt="same"), call("spawn", prompt="same")],
}


def crowd(chance: random.Random, *kinds: str) -> Program:
    """A program whose first reply calls many tools at once; each takes its own time, and no answer is given twice."""
    count = [0]

    async def long(about: str) -> str:
        """Make a long text."""
        await asyncio.sleep(chance.random() * 0.01)
        return "".join(f"{about} {number}\n" for number in range(3000))

    async def answer(request: Request) -> Any:
        await asyncio.sleep(chance.random() * 0.01)
        words = parts_text(parts_of(request.head.message))
        count[0] += 1
        if words == "crowd":
            return {"call": [one for kind in kinds for one in CROWDS[kind]]}
        if words == "p":
            return {"call": [call("long", about="p")]}
        return f"{count[0]}: see fd:1, fd:2, fd:3 and fd:4"

    return Program(name="s", provider="scripted", model="m", script=answer, tools=("fork", "spawn", long))


@pytest.mark.parametrize("kinds", ["long", "fork", "spawn", "long fork", "fork long", "long spawn", "fork spawn long"])
def test_calls_of_one_reply_that_end_in_any_order_replay_to_the_same(kinds: str) -> None:
    for seed in range(6):
        program = crowd(random.Random(seed), *kinds.split())
        live = machine()
        live.start(program).run("crowd").result()
        again = machine(recorded=Recording(live.log.events))
        again.start(program.replace(script=never)).run("crowd").result()
        assert standing(again) == standing(live), seed
        assert reexecute(live.log.events).equal
