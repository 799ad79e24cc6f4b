"""Attacks on a sandbox, on every tier that promises to stand them, as root and as an ordinary user: what gets through fails a test.

What an attack does is in llmproc_nb/inside/probe; each is made by code inside, in a process confined as sessions are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from llmproc_nb.drivers.sandbox.prove import PROMISES, Promise

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes of these tiers need Linux")

SMALL = {"processes": 16, "disk_mb": 32, "memory_mb": 1024}
ORDINARY = 54321
"""A uid that nobody has: root's tests become it."""
USERS = ("root", "ordinary")


def python() -> str:
    """A Python that an ordinary user may run; this one may lie in a folder of root's."""
    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        command = [path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if os.path.exists(path) and _runs(command):
            return path
    pytest.skip("no Python of 3.11 or newer that an ordinary user may run")


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, **ids()).returncode == 0
    except OSError:
        return False


def ids() -> dict[str, Any]:
    return {"user": ORDINARY, "group": ORDINARY, "extra_groups": [], "cwd": "/"} if os.getuid() == 0 else {"cwd": "/"}


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """What runs inside, where an ordinary user can read it."""
    with tempfile.TemporaryDirectory(prefix="llmproc-copy-") as folder:
        os.chmod(folder, 0o755)
        for name in ("llmproc_nb/__init__.py", "llmproc_nb/drivers/__init__.py", "llmproc_nb/drivers/sandbox/__init__.py"):
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        shutil.copytree(ROOT / "llmproc_nb/inside", Path(folder, "llmproc_nb/inside"), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "llmproc_nb/drivers/sandbox/baits.py", Path(folder, "llmproc_nb/drivers/sandbox"))
        shutil.copy(ROOT / "tests/confined.py", folder)
        home = Path(folder, "home")
        home.mkdir()
        if os.getuid() == 0:
            os.chown(home, ORDINARY, ORDINARY)
        yield Path(folder)


def inside(copy: Path, user: str, rules: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What the probes of these names found."""
    if user == "root" and os.getuid() != 0:
        pytest.skip("these tests do not run as root")
    command = [sys.executable if user == "root" else python(), str(copy / "confined.py"), json.dumps(SMALL | rules), json.dumps(names)]
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"} | ({} if user == "root" else {"HOME": f"{copy}/home"})
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, **(ids() if user == "ordinary" else {"cwd": "/"}))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@cache
def lacking(copy: Path, user: str) -> dict[str, str]:
    """What this machine does not have for such a user."""
    command = [sys.executable if user == "root" else python(), "-m", "llmproc_nb.inside.launch", "--lacking"]
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, **(ids() if user == "ordinary" else {"cwd": "/"}))
    return json.loads(done.stdout)


@cache
def attacked(copy: Path, user: str, tier: str) -> dict[str, Any]:
    """All attacks that a tier promises to stand, made once."""
    without = lacking(copy, user)
    return inside(copy, user, {"tier": tier}, [named(promise) for promise in PROMISES if not promise.missing(tier, without)])


def named(promise: Promise) -> str:
    """The name by which tests/confined.py knows its attempts."""
    return f"older:{promise.probe}" if promise.by == "older" else promise.probe


CASES = [(promise, tier) for promise in PROMISES for tier in promise.tiers]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(("promise", "tier"), CASES, ids=[f"{named(promise)}-{tier}" for promise, tier in CASES])
def test_nothing_gets_through(copy: Path, promise: Promise, tier: str, user: str):
    if why := promise.missing(tier, lacking(copy, user)):
        pytest.skip(why)
    found = attacked(copy, user, tier)[named(promise)]
    if any(line.startswith("refused: tier") for line in found["broken"]):
        pytest.skip(f"this machine has no tier {tier}: {found['broken'][0]}")
    assert found["broken"] == []
    assert found["held"] != []


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
def test_the_process_that_was_attacked_lives_on(copy: Path, tier: str, user: str):
    assert attacked(copy, user, tier)["alive"]


THROUGH = ("environment", "home", "links", "loopback", "unix", "hidden", "processes", "uncounted", "folders", "proc")


def test_without_confinement_the_same_attacks_get_through(copy: Path):
    """So that a probe which could not find anything does not count as a promise kept."""
    found = inside(copy, "ordinary", {"tier": "process"}, list(THROUGH))
    assert [name for name in THROUGH if not found[name]["broken"]] == []
    assert not found["alive"]
