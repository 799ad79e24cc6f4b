"""Attacks on the states of sandboxes by bad luck: stops at any moment, copies that are gone, sessions that die. Against plain dicts."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from plainshell import PlainCheckpoint, PlainDoor, PlainDrivers, PlainShell
from test_state import door, machine, said, start, value

from llmproc_nb.api import Process
from llmproc_nb.core.errors import CallStateError, ToolError
from llmproc_nb.core.sandbox import Ran, SandboxRules
from llmproc_nb.drivers.rebuild import rebuild as resume

KEEP_S = 0.4


class SlowShell(PlainShell):
    """Of which a copy takes a while, as of a real one that is large. `bad` cannot be put; `again` waits when it is run once more."""

    async def keep(self) -> PlainCheckpoint | None:
        if self.door.keeps:
            await asyncio.sleep(KEEP_S)
        return await super().keep()

    async def put(self, variables: Any) -> None:
        for name, given in variables.items():
            if name == "bad":
                raise ToolError("there is no room for it")
            self.space[name] = given

    async def run(self, code: str, **how: Any) -> Ran:
        if code.startswith("again") and f"{code}" in self.door.ran:
            self.door.ran.append(code)
            await asyncio.sleep(KEEP_S)
            if code == "again = 'die'":
                self.alive = False
                return Ran(status="died")
        return await super().run(code, **how)


class SlowDoor(PlainDoor):
    async def start(self) -> PlainShell:
        self.starts += 1
        return SlowShell(self)


class SlowDrivers(PlainDrivers):
    def sandbox(self, program: Any) -> Any:
        self.doors.append(SlowDoor(keeps=self.keeps))
        return self.doors[-1]


def slow(*, keeps: bool = True, **fields: Any) -> Process:
    on = machine()
    on.drivers = SlowDrivers(keeps=keeps)
    return start(on, **fields)


def stopped(process: Process, text: str, after_s: float = 0.1) -> str:
    """How a call ends that is stopped a little after it began."""
    call = process.run(text)
    time.sleep(after_s)
    call.cancel()
    return call.result().stop_reason


def test_who_is_stopped_while_a_copy_is_made_stops_nothing_else() -> None:
    scout = slow()
    said(scout, "run: x = 1")
    assert stopped(scout, "run: print(x)") == "interrupted"
    assert said(scout, "run: print(x)").strip() == "1"
    assert value(scout) == "1"


def test_a_child_that_is_stopped_while_its_parent_is_kept_does_not_hurt_the_parent() -> None:
    scout = slow()
    said(scout, "run: x = 1")
    child = scout.fork("child")
    assert stopped(child, "run: print(x)") == "interrupted"  # type: ignore[arg-type]
    assert (value(scout), value(child)) == ("1", "1")  # type: ignore[arg-type]


def test_who_is_stopped_while_cells_are_run_again_leaves_no_session_behind() -> None:
    scout = slow(keeps=False)
    said(scout, "run: again = 1")
    child = scout.fork("child")
    assert stopped(child, "run: print(again)") == "interrupted"  # type: ignore[arg-type]
    assert [shell.alive for shell in door(scout).shells] == [True, False]
    assert value(child, "again") == "1"  # type: ignore[arg-type]


def test_a_state_that_cannot_be_made_again_is_told_and_can_be_left() -> None:
    scout = slow(keeps=False)
    said(scout, "run: again = 'die'")
    child = scout.fork("child")
    answer = said(child, "run: print(1)")  # type: ignore[arg-type]
    assert "ended when its earlier cells were run again" in answer
    child.sandbox.restart()
    assert value(child) == "None"  # type: ignore[arg-type]


def test_what_could_be_put_only_in_part_is_not_there() -> None:
    scout = slow()
    scout.sandbox.run("x = 1")
    with pytest.raises(ToolError, match="no room"):
        scout.sandbox.put(x=2, bad=3)
    assert value(scout) == "1"


def test_a_copy_that_cannot_be_woken_is_given_back() -> None:
    scout = start()
    said(scout, "run: x = 1")
    said(scout, "run: x = 2")
    first = door(scout).kept[0]

    async def wake() -> PlainShell:
        raise ToolError("the folders have no room")

    first.wake = wake  # type: ignore[method-assign]
    scout.goto("~1")
    assert value(scout) == "1"
    assert [copy.closed for copy in door(scout).kept][:2] == [True, False]


def test_where_forks_share_a_session_a_death_takes_back_only_its_own_cell() -> None:
    scout = start(rules=SandboxRules(on_fork="share"))
    scout.sandbox.run("x = 1")
    child = scout.fork("child")
    child.sandbox.run("x += 1")  # type: ignore[union-attr]
    assert "died with this cell" in said(scout, "run: die")
    assert (value(scout), value(child)) == ("2", "2")  # type: ignore[arg-type]
    on = machine()
    again = resume(tuple(scout.machine.log.events), on, programs={"scout": scout.program})[1].process
    assert again is not None and value(again) == "2"


def test_where_forks_share_a_session_the_end_of_one_leaves_it_to_the_others() -> None:
    scout = start(rules=SandboxRules(on_fork="share"))
    child = scout.fork("child")
    child.sandbox.run("x = 5")  # type: ignore[union-attr]
    scout.kill()
    scout.machine.owner.wait(asyncio.sleep(0.05))
    assert value(child) == "5" and door(scout).starts == 1  # type: ignore[arg-type]


def test_a_process_that_was_killed_runs_no_code() -> None:
    scout = start()
    scout.sandbox.run("x = 1")
    scout.kill()
    with pytest.raises(CallStateError, match="was killed"):
        scout.sandbox.run("x = 2")
    assert len(scout.machine.drivers.doors) == 1  # type: ignore[attr-defined]


def test_a_closed_machine_has_no_thread_of_its_own() -> None:
    scout = start()
    scout.sandbox.run("x = 1")
    scout.machine.close()
    assert scout.machine.owner._thread not in threading.enumerate()
