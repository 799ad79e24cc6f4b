"""Attacks on the states of sandboxes by bad luck: stops at any moment, copies that are gone, sessions that die. Against plain dicts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plainshell import PlainCheckpoint, PlainDoor, PlainDrivers, PlainShell
from test_state import door, machine, said, start, value

from llmproc_nb.api import Process
from llmproc_nb.core.branch import shortened
from llmproc_nb.core.dialog import Node
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
        for name, one in variables.items():
            if name == "bad":
                raise ToolError("there is no room for it")
            self.space[name] = one

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

    async def wake(*, owner: str = "") -> PlainShell:
        raise ToolError("the folders have no room")

    first.wake = wake  # type: ignore[method-assign]
    scout.goto("~1")
    assert value(scout) == "1"
    assert [copy.closed for copy in door(scout).kept][:2] == [True, False]


def test_who_shares_a_session_shares_it_with_its_own_family_only() -> None:
    one = start(rules=SandboxRules(on_fork="share"))
    other = one.machine.start(one.program, name="other")
    one.sandbox.run("x = 'one'")
    other.sandbox.run("x = 'other'")
    child = one.fork("child")
    assert (value(one), value(other), value(child)) == ("one", "other", "one")  # type: ignore[arg-type]


def test_where_forks_share_a_session_a_death_takes_back_only_its_own_cell() -> None:
    scout = start(rules=SandboxRules(on_fork="share"))
    scout.sandbox.run("x = 1")
    child = scout.fork("child")
    child.sandbox.run("x += 1")  # type: ignore[union-attr]
    assert "ended with this cell" in said(scout, "run: die")
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


MOVES = ("run", "two", "error", "person", "die", "put", "take", "say", "fork", "modelfork", "goto", "undo", "reset", "switch")
MOVES += ("restart", "compact", "kill", "resume")
State = list[int] | None
"""What `x` is; None where it is not said beforehand: between a reply of a model and what came of it."""


class Played:
    """Processes and, by hand, what each has at each node."""

    def __init__(self, rules: SandboxRules, *, keeps: bool) -> None:
        self.keeps = keeps
        self.root = start(machine(keeps=keeps), rules=rules)
        self.living = [self.root]
        self.at: dict[tuple[int, str], State] = {(self.root.pid, self.root.head.id): []}
        self.current = self.count = 0
        self.fresh = rules.on_fork == "fresh"

    @property
    def process(self) -> Process:
        return self.living[self.current % len(self.living)]

    def wanted(self) -> State:
        for node in self.up(self.process.head):
            if (self.process.pid, node.id) in self.at:
                return self.at[self.process.pid, node.id]
        return []

    def up(self, node: Node | None) -> Iterator[Node]:
        left = dict[str, list[str]]()
        pids = [self.process.pid, *(above.pid for above in self.process.ancestors)]
        while node is not None:
            yield node
            forms = (form for pid in reversed(pids) for form in self.root.machine.shorter.get((pid, node.id), ()))
            others = left.setdefault(node.id, list(dict.fromkeys(forms)))
            node = self.root.machine.dialog.find(others.pop()) if others else node.parent

    def grown(self) -> tuple[str, int]:
        self.count += 1
        return f"x = [*globals().get('x', []), {self.count}]", self.count

    def note(self, process: Process, since: Node, state: list[int]) -> None:
        """What is there after the first result since a node; between the two it is not said."""
        after = False
        for node in process.path:
            if node.depth > since.depth:
                after = after or node.message.role == "tool"
                self.at[process.pid, node.id] = list(state) if after else None

    def inherit(self, child: Process, parent: Process, before: Node) -> None:
        above = {node.id for node in before.up()}
        for (pid, node), known in tuple(self.at.items()):
            if pid == parent.pid and node in above and not self.fresh:
                self.at[child.pid, node] = known

    def move(self, kind: str, number: int) -> None:
        process, before, has = self.process, self.process.head, list(self.wanted() or [])
        if kind in ("run", "two", "error"):
            codes = [self.grown() for _ in range(1 + (kind == "two"))]
            said(process, "run: " + " ;; ".join(code for code, _ in codes) + ("\n1 / 0" if kind == "error" else ""))
            self.note(process, before, [*has, *(count for _, count in codes)])
        elif kind == "person":
            code, count = self.grown()
            process.sandbox.run(code)
            self.at[process.pid, before.id] = [*has, count]
        elif kind == "put":
            self.count += 1
            process.sandbox.put(x=[*has, self.count])
            self.at[process.pid, before.id] = [*has, self.count]
        elif kind == "take" and has:
            assert process.sandbox.get("x") == has
        elif kind == "die":
            said(process, "run: die")
            self.note(process, before, has)
        elif kind == "say":
            said(process, "hello")
        elif kind == "restart":
            process.sandbox.restart()
            self.at[process.pid, before.id] = []
        elif kind == "compact" and before.depth > 6:
            process.move(shortened(process, before, 0, 1), "compacted")
            self.at[process.pid, process.head.id] = list(has)
        elif kind == "goto":
            process.goto(process.path[number % len(process.path)].id)
        elif kind == "undo" and process._left:
            process.undo()
        elif kind == "reset":
            process.reset_state()
        elif kind == "switch":
            self.current = number
        else:
            self.family(kind, process, before, has)

    def family(self, kind: str, process: Process, before: Node, has: list[int]) -> None:
        if kind == "fork":
            child = process.fork()
            assert isinstance(child, Process)
            self.inherit(child, process, before)
            self.at[child.pid, child.head.id] = [] if self.fresh else list(has)
            self.living.append(child)
        elif kind == "modelfork":
            (code, count), *others = (self.grown() for _ in range(3))
            known = set(process.machine.processes)
            said(process, f"fork: {code} -> run: {others[0][0]} | run: {others[1][0]}")
            self.note(process, before, [*has, count])
            children = [one for pid, one in process.machine.processes.items() if pid not in known]
            for child, (_, own) in zip(children, others, strict=True):
                assert isinstance(child, Process)
                self.inherit(child, process, before)
                begins = [] if self.fresh else has
                for node in child.path[before.depth :]:
                    self.at[child.pid, node.id] = None if node.depth != before.depth else self.at.get((child.pid, node.id), [])
                self.note(child, child.first, [*begins, own])
                self.at[child.pid, child.first.id] = list(begins)
                self.living.append(child)
        elif kind == "kill" and len(self.living) > 1:
            self.living.remove(process)
            process.kill()
        elif kind == "resume":
            events = tuple(self.root.machine.log.events)
            self.root.machine.close()
            found = resume(events, machine(keeps=self.keeps), programs={"scout": self.root.program})
            made = {one.old_pid: one.process for one in found if one.process is not None}
            self.at = {(made[pid].pid, node): state for (pid, node), state in self.at.items() if pid in made}
            self.living = [made[one.pid] for one in self.living]
            self.root = self.living[0]

    def check(self) -> None:
        wanted, found = self.wanted(), value(self.process)
        assert wanted is None or found == (str(wanted) if wanted else "None")
        self.at[self.process.pid, self.process.head.id] = wanted if wanted is not None else eval(found) or []


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 50)), max_size=20),
    st.sampled_from([0, 2, 20]),
    st.booleans(),
    st.sampled_from(["fork", "replay", "fresh"]),
)
def test_whatever_people_and_models_do_in_any_order_the_state_is_what_dicts_would_have(
    moves: list[tuple[str, int]], checkpoints: int, keeps: bool, on_fork: Any
) -> None:
    resumed = any(kind == "resume" for kind, _ in moves)
    played = Played(SandboxRules(checkpoints=checkpoints, on_fork=on_fork), keeps=keeps)
    for kind, number in moves:
        played.move("person" if resumed and kind == "put" else kind, number)  # values that were put are in no log
        played.check()
    played.root.machine.close()


def test_a_cell_at_an_earlier_place_changes_nothing_of_what_followed_it_before() -> None:
    scout = start(machine())
    said(scout, "hello")
    scout.goto(scout.path[0].id)
    scout.sandbox.run("x = 1")
    scout.undo()
    assert value(scout) == "None"
    scout.machine.close()


def test_a_path_that_is_shortened_to_what_it_was_shortened_to_before_has_its_latest_state() -> None:
    scout = start(machine())
    for number in (1, 2):
        said(scout, f"run: x = {number}")
        scout.move(shortened(scout, scout.head, 0, 1), "compacted")
    scout.sandbox.run("x += 10")
    scout.move(shortened(scout, scout.head, 0, 1), "compacted")
    scout.move(shortened(scout, scout.head, 0, 1), "compacted")
    assert value(scout) == "12"
    scout.machine.close()
