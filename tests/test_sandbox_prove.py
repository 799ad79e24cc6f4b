"""The table of promises: tried through the door that programs use, in every tier that this machine has."""

from __future__ import annotations

import asyncio

import pytest
from sandboxes import linux_only, opened, tiers

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import Output, Ran, SandboxRules
from llmproc_nb.drivers.sandbox.prove import PROMISES, Proof, bounded, found, prove, read

pytestmark = linux_only


def table(tier: str) -> tuple[Proof, ...]:
    if tier not in tiers():
        pytest.skip(f"no tier {tier} here")
    rules = bounded(SandboxRules(tier=tier))

    async def run() -> tuple[Proof, ...]:
        async with opened(tier=tier, disk_mb=rules.disk_mb, memory_mb=rules.memory_mb, processes=rules.processes) as door:
            return await prove(door, rules)

    return asyncio.run(run())


@pytest.mark.parametrize("tier", ["namespaces", "landlock", "process"])
def test_every_promise_of_a_tier_is_kept(tier: str):
    proofs = table(tier)
    assert [proof.promise for proof in proofs] == [promise.says for promise in PROMISES]
    assert [(proof.promise, proof.happened) for proof in proofs if proof.promised and not proof.kept] == []
    assert [proof.promise for proof in proofs if proof.promised] == [promise.says for promise in PROMISES if tier in promise.tiers]


def test_a_session_that_does_not_answer_has_proved_nothing():
    promise = PROMISES[0]
    for ran in (
        Ran(status="died"),
        Ran(status="ok", outputs=(Output(kind="stream", name="stdout", text="all is well"),)),
        Ran(status="ok", outputs=(Output(kind="stream", name="stdout", text='{"held": [], "broken": []}'),)),
        Ran(status="error", outputs=(Output(kind="error", name="OSError", text="no"),)),
    ):
        assert not read(promise, ran).kept
    kept = Ran(status="ok", outputs=(Output(kind="stream", name="stdout", text='{"held": ["a: EPERM"], "broken": []}'),))
    assert read(promise, kept).kept
    through = Ran(status="ok", outputs=(Output(kind="stream", name="stdout", text='{"held": ["a: EPERM"], "broken": ["b: it worked"]}'),))
    assert read(promise, through).happened == "got through: b: it worked"


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
