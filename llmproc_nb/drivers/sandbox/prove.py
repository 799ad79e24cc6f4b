"""Every promise of a sandbox, tried here and now: code in a fresh sandbox does its best to break it.

Here: which promise holds in which tier, and the rows of the table. The attempts are in inside/probe, what they are after in baits.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from llmproc_nb.core.sandbox import Ran, SandboxDoor, SandboxRules, Shell, Tier
from llmproc_nb.drivers.sandbox.baits import baits
from llmproc_nb.inside import probe

ALL: tuple[Tier, ...] = ("namespaces", "landlock", "process")
CLOSED: tuple[Tier, ...] = ("namespaces", "landlock")
OWN: tuple[Tier, ...] = ("namespaces",)
TIMEOUT_S = 120.0


class Promise(msgspec.Struct, frozen=True):
    """What is promised, in which tiers; `probe` is the name of its attempts. `between` sessions that were forked from one another."""

    says: str
    probe: str
    tiers: tuple[Tier, ...]
    between: bool = False


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table: a promise, whether this tier makes it, whether it is kept, how that was tried and what happened.

    What is not promised is not tried: `kept` is False then.
    """

    promise: str
    promised: bool
    kept: bool
    tried: str
    happened: str


PROMISES = (
    Promise("a session and process group of its own", "group", ALL),
    Promise("user, pid, ipc, network, mount, uts and cgroup namespaces of its own", "namespaces", OWN),
    Promise("the system is read-only", "system", CLOSED),
    Promise("the host's home cannot be read", "home", CLOSED),
    Promise("no variable of the host's environment but those on the list", "environment", ALL),
    Promise("only its own folders can be written", "folders", CLOSED),
    Promise("links and .. lead nowhere", "links", CLOSED),
    Promise("no server on the host's loopback", "loopback", CLOSED),
    Promise("no unix socket of the host", "unix", CLOSED),
    Promise("no network", "network", CLOSED),
    Promise("no process of the host can be signalled, traced or read", "processes", CLOSED),
    Promise("no process of the host can be seen", "hidden", CLOSED),
    Promise("no privileges, and no way to new ones", "privileges", CLOSED),
    Promise("processes are limited", "forks", CLOSED),
    Promise("memory is limited", "memory", CLOSED),
    Promise("no memory that is not counted", "uncounted", CLOSED),
    Promise("CPU time is limited", "cpu", CLOSED),
    Promise("the disk is limited", "disk", OWN),
    Promise("the size of files is limited", "file_size", CLOSED),
    Promise("no other namespaces", "nested", CLOSED),
    Promise("nothing can be mounted or unmounted", "mounts", CLOSED),
    Promise("/proc, /sys and /dev lead nowhere", "proc", CLOSED),
    Promise("system calls are filtered", "calls", CLOSED),
    Promise("between forks: not the folder of another", "kin_files", OWN, between=True),
    Promise("between forks: no process of another can be signalled, traced or read", "kin_processes", CLOSED, between=True),
)


def bounded(rules: SandboxRules) -> SandboxRules:
    """The rules with little disk and few processes: what a proof fills must not hurt the machine."""
    return msgspec.structs.replace(rules, disk_mb=min(rules.disk_mb, 32), processes=min(rules.processes, 16))


async def prove(door: SandboxDoor, rules: SandboxRules) -> tuple[Proof, ...]:
    """The table, by sandboxes of this door, which was made with these rules (see `bounded`). Raises ToolError where none can be had."""
    proofs = []
    with baits() as facts:
        facts |= {name: getattr(rules, name) for name in ("tier", "memory_mb", "disk_mb", "cpu_s", "processes")}
        for promise in PROMISES:
            proofs.append(await _proof(door, promise, facts) if rules.tier in promise.tiers else _not_made(promise, rules))
    if not facts["alive"]:
        proofs = [_undone(proof) if proof.promise == _named("processes").says else proof for proof in proofs]
    return tuple(proofs)


def _named(name: str) -> Promise:
    return next(promise for promise in PROMISES if promise.probe == name)


def _not_made(promise: Promise, rules: SandboxRules) -> Proof:
    return Proof(promise=promise.says, promised=False, kept=False, tried="not tried", happened=f"the tier {rules.tier} does not promise it")


def _undone(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, kept=False, happened="a process of the host was ended")


async def _proof(door: SandboxDoor, promise: Promise, facts: dict[str, Any]) -> Proof:
    """Each promise is tried in a session of its own, so that no attempt is in the way of another."""
    first = await door.start()
    try:
        shell, more = (await _forked(first)) if promise.between else (first, {})
        try:
            ran = await shell.run(probe.text() + _ask(promise.probe, facts | more), timeout_s=TIMEOUT_S)
        finally:
            if shell is not first:
                await shell.close()
    finally:
        await first.close()
    return read(promise, ran)


async def _forked(first: Shell) -> tuple[Shell, dict[str, Any]]:
    """A fork of a session that goes on, and what the fork is told about it."""
    ran = await first.run("import os; print(os.getpid())", timeout_s=TIMEOUT_S)
    checkpoint = await first.keep()
    if checkpoint is None:
        return first, {"sibling": int(printed(ran)), "marker": "marker"}
    fork = await checkpoint.wake()
    await checkpoint.close()
    await first.write_file("marker", b"only here")
    return fork, {"sibling": int(printed(ran)), "marker": "marker"}


def _ask(name: str, facts: dict[str, Any]) -> str:
    return f"\nimport json\nprint(json.dumps(probe({name!r}, json.loads({json.dumps(facts)!r}))))\n"


def printed(ran: Ran) -> str:
    return "".join(output.text for output in ran.outputs if output.kind == "stream" and output.name == "stdout")


def read(promise: Promise, ran: Ran) -> Proof:
    """The row that a session's answer makes. A session that did not answer as it should has proved nothing."""
    try:
        lines = printed(ran).strip().splitlines()
        found = json.loads(lines[-1])
        held, broken = [str(line) for line in found["held"]], [str(line) for line in found["broken"]]
    except (IndexError, ValueError, KeyError, TypeError):
        error = next((output for output in ran.outputs if output.kind == "error"), None)
        happened = f"no answer ({ran.status}{f', {error.name}: {error.text}' if error else ''})"
        return Proof(promise=promise.says, promised=True, kept=False, tried="could not be tried", happened=happened)
    tried = f"{len(held) + len(broken)} attempts: {', '.join(line.partition(':')[0] for line in (*held, *broken))}"
    happened = f"got through: {'; '.join(broken)}" if broken else f"nothing got through: {'; '.join(held)}"
    return Proof(promise=promise.says, promised=True, kept=bool(held) and not broken, tried=tried, happened=happened)
