"""Whatever people and models do with processes, each real sandbox has the variables and files that plain dicts would have."""

from __future__ import annotations

import copy
import json
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machines import machine
from sandboxes import linux_only, rules
from test_state import coder, said

from llmproc_nb.api import Process, Program
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.sandbox import OnFork

pytestmark = linux_only
MOVES = ("person", "person", "model", "error", "say", "fork", "fork", "goto", "goto", "switch", "die", "restart", "put")
CODE = """
import os
x = globals().get('x', []); x.append({n}); last{odd} = {n}
os.makedirs('d', exist_ok=True)
_ = open('f', 'a').write('{n},'), open('d/{odd}', 'w').write('{n}')
"""
LOOK = """
import json, os
print(json.dumps([{name: globals()[name] for name in ('x', 'last0', 'last1') if name in globals()},
                  {path: open(path).read() for path in ('f', 'd/0', 'd/1') if os.path.exists(path)}]))
"""
World = tuple[dict[str, Any], dict[str, str]]
"""Variables and files."""


def grown(world: World, n: int) -> World:
    """What CODE makes of a world."""
    variables, files = world
    return (
        {**variables, "x": [*variables.get("x", []), n], f"last{n % 2}": n},
        {**files, "f": f"{files.get('f', '')}{n},", f"d/{n % 2}": str(n)},
    )


class Played:
    """Real processes, and by hand what each has at the places where it stood."""

    def __init__(self, on_fork: OnFork, checkpoints: int) -> None:
        program = Program(
            name="scout",
            provider="scripted",
            model="script",
            script=coder,
            tools=("run_python",),
            sandbox=rules(on_fork=on_fork, checkpoints=checkpoints),
        )
        root = program.start(machine=machine())
        assert isinstance(root, Process)
        self.living, self.current, self.count, self.on_fork = [root], 0, 0, on_fork
        self.worlds: dict[tuple[int, str], World] = {(root.pid, root.head.id): ({}, {})}
        self.shared: World = {}, {}

    @property
    def process(self) -> Process:
        return self.living[self.current % len(self.living)]

    @property
    def world(self) -> World:
        """What the process has where it stands: that of the nearest place that is known."""
        if self.on_fork == "share":
            return self.shared
        return next(self.worlds[self.process.pid, node.id] for node in self.process.head.up() if self._known(node))

    @world.setter
    def world(self, world: World) -> None:
        self.shared = self.worlds[self.process.pid, self.process.head.id] = copy.deepcopy(world)

    def _known(self, node: Node) -> bool:
        return (self.process.pid, node.id) in self.worlds

    def move(self, kind: str, number: int) -> None:
        process, before, n = self.process, self.world, (count := self.count + 1)
        self.count, code = count, CODE.format(n=n, odd=n % 2)
        if kind == "person":
            assert process.sandbox.run(code).status == "ok"
            self.world = grown(before, n)
        elif kind == "die":
            assert process.sandbox.run(f"{code}\nos._exit(1)").status == "died"
        elif kind in ("model", "error"):
            said(process, f"run: {code}" + "\n1 / 0" * (kind == "error"))
            self.world = grown(before, n)
        elif kind == "say":
            said(process, f"hello {n}")
            self.world = before
        elif kind == "restart":
            process.sandbox.restart()
            self.world = {}, {}
        elif kind == "put":
            variables, files = before
            process.sandbox.put(x=[*variables.get("x", []), n])
            process.sandbox.write_file("f", f"{n},")
            self.world = {**variables, "x": [*variables.get("x", []), n]}, {**files, "f": f"{n},"}
        elif kind == "goto":
            places = [node for node in process.path if self._known(node)]
            process.goto(places[number % len(places)].id)
        elif kind == "fork":
            self._fork(process)
        elif kind == "switch":
            self.current = number

    def _fork(self, process: Process) -> None:
        child = process.fork()
        assert isinstance(child, Process)
        for node in [node for node in process.path if self._known(node)]:
            self.worlds[child.pid, node.id] = ({}, {}) if self.on_fork == "fresh" else copy.deepcopy(self.worlds[process.pid, node.id])
        self.living.append(child)
        self.current = len(self.living) - 1

    def check(self) -> None:
        ran = self.process.sandbox.run(LOOK)
        assert json.loads(ran.text) == list(self.world), ran


@pytest.mark.parametrize("on_fork", get_args(OnFork))
@settings(max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 50)), min_size=8, max_size=16), st.sampled_from([20, 0]))
def test_real_sandboxes_have_what_dicts_would_have(on_fork: OnFork, moves: list[tuple[str, int]], checkpoints: int) -> None:
    played = Played(on_fork, checkpoints)
    try:
        for kind, number in moves:
            played.move(kind, number)
            played.check()
    finally:
        played.living[0].machine.close()
