"""The table of promises: tried through the door that programs use, in every tier that this machine has."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from plainshell import PlainDoor
from sandboxes import linux_only, opened, ran, said, tiers

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import Output, Ran, SandboxRules
from llmproc_nb.drivers.sandbox.prove import PROMISES, Promise, Proof, bounded, found, lacking, prove, read
from llmproc_nb.inside import landlock

pytestmark = linux_only


def table(tier: str) -> tuple[Proof, ...]:
    if tier not in tiers():
        pytest.skip(f"no tier {tier} here")
    rules = bounded(SandboxRules(tier=tier))

    async def run() -> tuple[Proof, ...]:
        async with opened(**msgspec.structs.asdict(rules)) as door:
            return await prove(door, rules)

    return asyncio.run(run())


@pytest.mark.parametrize("tier", ["namespaces", "landlock", "process"])
def test_every_promise_of_a_tier_is_kept(tier: str):
    proofs = table(tier)
    assert [proof.promise for proof in proofs] == [promise.says for promise in PROMISES]
    assert [(proof.promise, proof.happened) for proof in proofs if proof.promised and not proof.kept] == []
    assert [proof.promise for proof in proofs if proof.promised] == [
        promise.says for promise in PROMISES if not promise.missing(tier, asyncio.run(lacking()))
    ]


def test_a_session_that_does_not_answer_has_proved_nothing():
    promise = PROMISES[0]
    for done in (
        Ran(status="died"),
        Ran(status="ok", outputs=(Output(kind="stream", name="stdout", text="all is well"),)),
        Ran(status="ok", outputs=(Output(kind="stream", name="stdout", text='{"held": [], "broken": []}'),)),
        Ran(status="error", outputs=(Output(kind="error", name="OSError", text="no"),)),
    ):
        assert not read(promise, done).kept
    kept = Ran(status="ok", outputs=(Output(kind="stream", name="stdout", text='{"held": ["a: EPERM"], "broken": []}'),))
    assert read(promise, kept).kept
    through = Ran(status="ok", outputs=(Output(kind="stream", name="stdout", text='{"held": ["a: EPERM"], "broken": ["b: it worked"]}'),))
    assert read(promise, through).happened == "got through: b: it worked"


def test_what_is_not_tried_is_not_promised():
    """Kernels of other kernelspecs cannot be forked, so nothing can be said of their forks."""
    between = [promise for promise in PROMISES if promise.by]
    proofs = asyncio.run(prove(PlainDoor(keeps=False), SandboxRules(kernel="python3"), between))
    assert [(proof.promised, proof.kept, proof.tried, proof.happened) for proof in proofs] == [
        (False, False, "not tried", "sessions of this kind cannot be forked")
    ] * 4
    assert [proof.promised for promise in PROMISES if not promise.tiers for proof in asyncio.run(_all(promise))] == [False, False]


async def _all(promise: Promise) -> tuple[Proof, ...]:
    return await prove(PlainDoor(), SandboxRules(), [promise])


def test_without_the_landlock_that_keeps_signals_apart_nothing_of_it_is_promised(monkeypatch):
    monkeypatch.setattr(landlock, "NEEDED", 99)
    why = landlock.lacking()
    assert why == f"only Landlock 99 (Linux 6.12) could keep it, this kernel has {landlock.version() or 'none'}"
    assert [promise.probe for promise in PROMISES if promise.missing("namespaces", {"landlock": why}) == why] == ["kin_processes"] * 2
    assert not landlock.part(files=False)  # and it changed nothing


@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
def test_what_a_session_started_before_a_fork_can_end_it_as_the_table_says(tier: str):
    if tier not in tiers():
        pytest.skip(f"no tier {tier} here")
    wait = "import os, time\nwhile not os.path.exists('pid'): time.sleep(0.01)\ntime.sleep(0.1)\nos.kill(int(open('pid').read()), 9)"

    async def run() -> Ran:
        async with opened(tier=tier) as door:
            older = await door.start()
            await said(older, f"import subprocess, sys; before = subprocess.Popen([sys.executable, '-c', {wait!r}])")
            fork = await (await older.keep()).wake()
            pid = int(await said(fork, "import os; os.getpid()"))
            after = await ran(older, f"import os; os.kill({pid}, 0)")
            assert [output.name for output in after.outputs] in (["PermissionError"], ["ProcessLookupError"])
            running = asyncio.create_task(ran(fork, "import time; time.sleep(20)"))
            await older.write_file("pid", str(pid).encode())
            return await running

    assert asyncio.run(run()).status == "died"
    assert _named("what was started or changed before a fork does not reach it").missing(tier, {})


SERVER = """
import ctypes, socket
server = socket.create_server(("127.0.0.1", 0)); queue = ctypes.CDLL(None).msgget(1234, 0o1600)
server.getsockname()[1], queue >= 0
"""


def test_forks_reach_each_others_servers_and_queues_as_the_table_says():
    if "namespaces" not in tiers():
        pytest.skip("no tier namespaces here")

    async def run() -> str:
        async with opened(tier="namespaces") as door:
            older = await door.start()
            fork = await (await older.keep()).wake()
            port = (await said(older, SERVER)).strip("()").partition(",")[0]
            reach = f"import ctypes, socket; socket.create_connection(('127.0.0.1', {port})), ctypes.CDLL(None).msgget(1234, 0) >= 0"
            return await said(fork, reach)

    assert asyncio.run(run()).endswith("True)")
    assert _named("forks do not reach each other's servers and queues").missing("namespaces", {})


def _named(says: str) -> Promise:
    return next(promise for promise in PROMISES if promise.says == says)


def test_it_is_said_which_tiers_can_be_had():
    assert {tier for tier, why in asyncio.run(found()).items() if not why} == set(tiers())


@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
def test_where_forks_of_forks_cannot_be_kept_apart_any_more_they_are_refused(tier: str):
    """The kernel has so many layers; the state can then be had by running its cells again."""
    if tier not in tiers():
        pytest.skip(f"no tier {tier} here")

    async def run() -> str:
        async with opened(tier=tier) as door:
            shell = await door.start()
            for generation in range(20):
                checkpoint = await shell.keep()
                assert checkpoint is not None
                try:
                    fork = await checkpoint.wake()
                except ToolError as error:
                    assert generation >= 12
                    assert shell.alive
                    return str(error)
                await shell.close()
                await checkpoint.close()
                shell = fork
        return "never"

    assert "this session was forked too often from forks" in asyncio.run(run())
