"""A family without a notebook: probes in sessions of it, and in forks of sessions. Run as a script, it is what happens in there.

It needs the standard library only, so an ordinary user who may not read this project's environment can run a copy of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

from llmproc_nb.drivers.sandbox.baits import VARIABLE, baits
from llmproc_nb.inside import confine, kin, probe
from llmproc_nb.inside.rules import Refused, Rules, environment, load
from llmproc_nb.inside.watch import Watch

SOURCE = compile(probe.text(), "probe", "exec")


def tried(rules: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """For each probe what held and what broke, in a family that is started here and now."""
    with baits() as facts, tempfile.TemporaryDirectory() as outer:
        assert VARIABLE in os.environ
        os.chmod(outer, 0o711)
        ruled = Rules(**rules, folder=tempfile.mkdtemp(dir=outer))
        told = facts | {key: getattr(ruled, key) for key in ("tier", "memory_mb", "disk_mb", "cpu_s", "processes")}
        command = [sys.executable, __file__, "inside", ruled.dump(), json.dumps(names), json.dumps(told)]
        env = environment(os.environ, {}) | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, start_new_session=True)
    found: dict[str, Any] = {name: {"held": [], "broken": [f"no answer: {done.stdout[-500:]}{done.stderr[-2000:]}"]} for name in names}
    found["alive"] = facts["alive"]
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


def keeper(rules: Rules, names: list[str], facts: dict[str, Any]) -> None:
    """In the keeper: a session for each probe. One of kin runs in a fork against what it was forked from, or, `older:`, there."""
    kin.take_orphans()
    for name in names:
        paths = [f"{confine.areas()}/{name}-{number}" for number in (1, 2)]
        for path in paths:
            confine.make_area(path)
        mounts = [confine.attach(path) for path in paths]
        wait_for(lambda: session(rules, name, facts, paths, mounts), Watch(rules))  # noqa: B023
        for mount in mounts:
            if mount is not None:
                os.close(mount)


def wait_for(work: Callable[[], None], watch: Watch | None = None) -> None:
    """Do it in a fork that leads a session of its own, and is watched as a keeper does."""
    if (child := os.fork()) == 0:
        try:
            os.setsid()
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    if watch is not None:
        watch.sessions = watch.running = [child]
        while not os.waitpid(child, os.WNOHANG)[0]:
            watch.hold(lambda _: None)
            time.sleep(0.1)
        return
    os.waitpid(child, 0)


def session(rules: Rules, name: str, facts: dict[str, Any], paths: list[str], mounts: list[int | None]) -> None:
    scope: dict[str, Any] = {}
    exec(SOURCE, scope)
    confine.settle(mounts[0], paths[0], rules)
    if name.startswith("older:"):
        older(rules, name, facts, paths, mounts, scope["probe"])
        return
    if not name.startswith("kin"):
        print(json.dumps({name: scope["probe"](name, facts)}), flush=True)
        return
    with open("marker", "w", encoding="utf-8") as file:
        file.write("only here")
    started = subprocess.Popen(["sleep", "100"])
    told = facts | {"siblings": [os.getpid(), started.pid], "marker": "marker"}

    def fork() -> None:
        confine.settle(mounts[1], paths[1], rules)
        print(json.dumps({name: scope["probe"](name, told)}), flush=True)

    wait_for(fork)
    started.kill()
    started.wait()


def older(rules: Rules, name: str, facts: dict[str, Any], paths: list[str], mounts: list[int | None], probe: Any) -> None:
    """A session tries it on a fork of it, which has come to live beside it."""
    told, tell = os.pipe()
    over, ended = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.close(ended)
            os.setsid()
            confine.settle(mounts[1], paths[1], rules)
            with open("marker", "w", encoding="utf-8") as file:
                file.write("only here")
            started = subprocess.Popen(["sleep", "100"])
            os.write(tell, json.dumps([os.getpid(), started.pid]).encode())
            os.read(over, 1)
            started.kill()
        finally:
            os._exit(0)
    siblings = json.loads(os.read(told, 100))
    confine.part()
    print(json.dumps({name: probe(name.removeprefix("older:"), facts | {"siblings": siblings, "marker": "marker"})}), flush=True)
    os.close(ended)
    os.waitpid(child, 0)


def inside(rules: Rules, names: list[str], facts: dict[str, Any]) -> None:
    try:
        confine.enter(rules, lambda: keeper(rules, names, facts))
    except Refused as refusal:
        print(json.dumps({name: {"held": [], "broken": [f"refused: {refusal}"]} for name in names}))


if __name__ == "__main__":
    if sys.argv[1] == "inside":
        inside(load(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4]))
    else:
        print(json.dumps(tried(json.loads(sys.argv[1]), json.loads(sys.argv[2]))))
