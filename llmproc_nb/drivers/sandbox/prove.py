"""Every promise of a sandbox, tried here and now: code in a fresh sandbox does its best to break it.

Here: which promise holds in which tier, and the rows of the table. The attempts are in inside/probe, what they are after in baits.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from llmproc_nb.core.sandbox import Ran, SandboxDoor, SandboxRules, Shell, Tier
from llmproc_nb.drivers.sandbox.baits import baits
from llmproc_nb.inside import probe

ALL: tuple[Tier, ...] = ("namespaces", "landlock", "process")
CLOSED: tuple[Tier, ...] = ("namespaces", "landlock")
OWN: tuple[Tier, ...] = ("namespaces",)
TIMEOUT_S = 120.0
MARKER = "marker"
OLD = """
import os, subprocess
held, child = os.open(".", os.O_RDONLY), subprocess.Popen(["sleep", "100"])
print(os.getpid(), child.pid)
"""
"""What the one that is attacked has: its folder open, and a process that it started."""


class Promise(msgspec.Struct, frozen=True):
    """What is promised, in which tiers; `probe` is the name of its attempts.

    `by`: between a session and its fork, who makes them, against the other. `needs`: what not every machine has to keep it. `why` no tier
    promises it.
    """

    says: str
    probe: str
    tiers: tuple[Tier, ...]
    by: Literal["", "fork", "older"] = ""
    needs: Literal["", "landlock", "cgroup"] = ""
    why: str = ""

    def missing(self, tier: Tier, lacking: Mapping[str, str]) -> str:
        """Why this tier does not make the promise on this machine, of which is known what it lacks; "" where it does."""
        if tier not in self.tiers:
            return self.why or f"the tier {tier} does not promise it"
        return lacking.get(self.needs, "")


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
    Promise("it is given no variable of the host's environment but those on the list", "own_environment", ALL),
    Promise("the environment of no process of the host can be read", "environment", CLOSED),
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
    Promise("the kernel counts memory, also in sockets and while others give theirs back", "sockets", CLOSED, needs="cgroup"),
    Promise("CPU time is limited", "cpu", CLOSED),
    Promise("the disk is limited", "disk", OWN),
    Promise("the size of files is limited", "file_size", CLOSED),
    Promise("no other namespaces", "nested", CLOSED),
    Promise("nothing can be mounted or unmounted", "mounts", CLOSED),
    Promise("/proc, /sys and /dev lead nowhere", "proc", CLOSED),
    Promise("system calls are filtered", "calls", CLOSED),
    Promise("what a fork runs does not reach the folder of what it was forked from", "kin_files", OWN, by="fork"),
    Promise("nor does it signal, trace or read a process of it", "kin_processes", CLOSED, by="fork", needs="landlock"),
    Promise("cells that begin after a fork, in what it was forked from, do not reach the fork's folder", "kin_files", OWN, by="older"),
    Promise("nor do they signal, trace or read a process of the fork", "kin_processes", CLOSED, by="older", needs="landlock"),
    Promise("what was started or changed before a fork does not reach it", "", (), why="a fork begins with all that, hostile code as well"),
    Promise("forks do not reach each other's servers and queues", "", (), why="what is forked from one another shares them"),
)


def bounded(rules: SandboxRules) -> SandboxRules:
    """The rules with less of everything: what a proof fills must not hurt the machine."""
    most = {"disk_mb": 32, "processes": 16, "memory_mb": 1024, "cpu_s": 1800}
    return msgspec.structs.replace(rules, **{name: min(value, getattr(rules, name)) for name, value in most.items()})


async def prove(door: SandboxDoor, rules: SandboxRules, promises: Iterable[Promise] = PROMISES) -> tuple[Proof, ...]:
    """The table, by sandboxes of this door, which was made with these rules (see `bounded`). Raises ToolError where none can be had."""
    proofs, without = [], await lacking()
    with baits() as facts:
        facts |= {name: getattr(rules, name) for name in ("tier", "memory_mb", "disk_mb", "cpu_s", "processes")}
        facts["shown"] += rules.readable
        for promise in promises:
            why = promise.missing(rules.tier, without)
            proofs.append(_not_made(promise, why) if why else await _proof(door, promise, facts))
    if not facts["alive"]:
        proofs = [_undone(proof) if proof.promise == _named("processes").says else proof for proof in proofs]
    return tuple(proofs)


async def found() -> dict[Tier, str]:
    """For each tier why it cannot be had on this machine; "" where it can. Tried for real, in a process of its own."""
    said, fault = await _launched("--found")
    try:
        return {tier: str(json.loads(said)[tier]) for tier in ALL}
    except (ValueError, KeyError, TypeError):
        return dict.fromkeys(ALL, fault)


async def lacking() -> dict[str, str]:
    """Why this machine does not have what some promises need; "" for what it has."""
    said, fault = await _launched("--lacking")
    try:
        return {str(name): str(why) for name, why in json.loads(said).items()}
    except (ValueError, AttributeError):
        return dict.fromkeys(("landlock", "cgroup"), fault)


async def _launched(what: str) -> tuple[bytes, str]:
    """What the launcher says when it is asked, and its last words if that is nothing."""
    command = (sys.executable, "-P", "-m", "llmproc_nb.inside.launch", what)
    asked = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    said, fault = await asked.communicate()
    words = fault.decode("utf-8", "replace").strip().splitlines()
    return said, words[-1] if words else "it could not be tried"


def _named(name: str) -> Promise:
    return next(promise for promise in PROMISES if promise.probe == name)


def _not_made(promise: Promise, why: str) -> Proof:
    return Proof(promise=promise.says, promised=False, kept=False, tried="not tried", happened=why)


def _undone(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, kept=False, happened="a process of the host was ended")


async def _proof(door: SandboxDoor, promise: Promise, facts: dict[str, Any]) -> Proof:
    """Each promise is tried in a session of its own, so that no attempt is in the way of another."""
    first = await door.start()
    if not promise.by:
        return await _asked(promise, first, facts, [first])
    ran = await first.run(OLD, timeout_s=TIMEOUT_S)
    checkpoint = await first.keep()
    if checkpoint is None:
        await first.close()
        return _not_made(promise, "sessions of this kind cannot be forked")
    fork = await checkpoint.wake()
    both = [fork, first]
    attacker, victim = both if promise.by == "fork" else reversed(both)
    if promise.by == "older":
        ran = await fork.run(OLD, timeout_s=TIMEOUT_S)
    await victim.write_file(MARKER, b"only here")
    told = {"siblings": [int(word) for word in printed(ran).split()], "marker": MARKER}
    proof = await _asked(promise, attacker, facts | told, both)
    await checkpoint.close()
    return proof


async def _asked(promise: Promise, shell: Shell, facts: dict[str, Any], used: list[Shell]) -> Proof:
    try:
        return read(promise, await shell.run(probe.text() + _ask(promise.probe, facts), timeout_s=TIMEOUT_S))
    finally:
        for one in used:
            await one.close()


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
    count = len(held) + len(broken)
    tried = f"{count} attempt{'' if count == 1 else 's'}: {', '.join(line.partition(':')[0] for line in (*held, *broken))}"
    happened = f"got through: {'; '.join(broken)}" if broken else f"nothing got through: {'; '.join(held)}"
    return Proof(promise=promise.says, promised=True, kept=bool(held) and not broken, tried=tried, happened=happened)
