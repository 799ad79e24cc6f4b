"""A sandbox without a notebook: probes in a confined process, and in a fork of it. Run as a script, it is what happens in there.

It needs the standard library only, so an ordinary user who may not read this project's environment can run a copy of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from typing import Any

from llmproc_nb.drivers.sandbox.baits import VARIABLE, baits
from llmproc_nb.inside import confine, probe
from llmproc_nb.inside.rules import Refused, Rules, environment, load

SOURCE = compile(probe.text(), "probe", "exec")


def tried(rules: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """For each probe what held and what broke. A probe of kin runs in a fork, against what it was forked from."""
    found: dict[str, Any] = {}
    with baits() as facts, tempfile.TemporaryDirectory() as outer:
        for name in names:
            folder = tempfile.mkdtemp(dir=outer)
            ruled = Rules(**rules, folder=folder)
            told = facts | {key: getattr(ruled, key) for key in ("tier", "memory_mb", "disk_mb", "cpu_s", "processes")}
            assert VARIABLE in os.environ
            os.chmod(outer, 0o711)
            command = [sys.executable, __file__, "inside", ruled.dump(), name, json.dumps(told)]
            env = environment(os.environ, {}) | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, start_new_session=True)
            try:
                found[name] = json.loads(done.stdout.splitlines()[-1])
            except (IndexError, ValueError):
                found[name] = {"held": [], "broken": [f"no answer: {done.returncode} {done.stdout} {done.stderr}"]}
        alive = facts
    found["alive"] = alive["alive"]
    return found


def keeper(rules: Rules, name: str, facts: dict[str, Any]) -> None:
    """In the keeper: a session, and for probes of kin a fork of it, each with an area of its own."""
    paths = [f"{confine.areas()}/{number}" for number in (1, 2)]
    for path in paths:
        confine.make_area(path)
    mounts = [confine.attach(path) for path in paths]
    if (child := os.fork()) == 0:
        try:
            session(rules, name, facts, paths, mounts)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.waitpid(child, 0)


def session(rules: Rules, name: str, facts: dict[str, Any], paths: list[str], mounts: list[int | None]) -> None:
    os.setsid()
    scope: dict[str, Any] = {}
    exec(SOURCE, scope)
    confine.settle(mounts[0], paths[0], rules)
    if not name.startswith("kin"):
        os.close(mounts[1]) if mounts[1] is not None else None
        print(json.dumps(scope["probe"](name, facts)), flush=True)
        return
    with open("marker", "w", encoding="utf-8") as file:
        file.write("only here")
    told = facts | {"sibling": os.getpid(), "marker": "marker"}
    if (fork := os.fork()) == 0:
        try:
            os.setsid()
            confine.settle(mounts[1], paths[1], rules)
            print(json.dumps(scope["probe"](name, told)), flush=True)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.waitpid(fork, 0)


if __name__ == "__main__":
    if sys.argv[1] == "inside":
        rules = load(sys.argv[2])
        try:
            confine.enter(rules, lambda: keeper(rules, sys.argv[3], json.loads(sys.argv[4])))
        except Refused as refusal:
            print(json.dumps({"held": [], "broken": [f"refused: {refusal}"]}))
    else:
        print(json.dumps(tried(json.loads(sys.argv[1]), json.loads(sys.argv[2]))))
