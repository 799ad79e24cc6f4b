"""Folders among the temporary files: none is left, however whoever made it ended, and nobody else's is touched."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT
from sandboxes import linux_only, opened, ran, said, tiers

from llmproc_nb.core.errors import ToolError
from llmproc_nb.drivers.sandbox.live import LiveShell
from llmproc_nb.inside import folder

pytestmark = linux_only

PLAIN = """
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
specs = KernelSpecManager(kernel_dirs=[{kernels!r}], ensure_native_kernel=False)
made = KernelManager(kernel_name="llmproc-sandbox", kernel_spec_manager=specs)
made.start_kernel()
"""
NAMED = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from sandboxes import rules
from llmproc_nb.drivers.sandbox import make
from pathlib import Path
import os
async def main():
    shell = await make(rules(kernel="python3"), base_dir=Path("."), environ=os.environ).start()
    assert (await shell.run("1", timeout_s=20)).status == "ok"
asyncio.run(main())
"""
NATIVE = NAMED.replace('kernel="python3"', "")
JUST_MADE = NATIVE + "from llmproc_nb.inside import folder\nfolder.make()\n"
ENDS = {
    "by itself": "",
    "by SIGTERM": "os.kill(os.getpid(), 15)",
    "by an error": "raise SystemExit(3)",
    "by SIGKILL": "os.kill(os.getpid(), 9)",
}


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for temporary files that is short enough for sockets in it, as those of tests are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


def waited_for(path: Path, wanted: list[str], timeout_s: float = 12.0) -> list[str]:
    """What is in a folder when it has what is wanted, or after so long."""
    last = time.monotonic() + timeout_s
    while (found := sorted(os.listdir(path))) != wanted and time.monotonic() < last:
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", [PLAIN, NAMED, NATIVE, JUST_MADE], ids=["a kernelspec", "a named kernel", "the native one", "just made"])
def test_nothing_is_left_by_a_script_however_it_ends(kind: str, end: str, short_path: Path) -> None:
    if "namespaces" not in tiers():
        pytest.skip("this machine has no such tier")
    code = kind.format(kernels=str(ROOT / "jupyter-config" / "kernels"), tests=str(ROOT / "tests"))
    code += f"import os, tempfile\nprint(len(os.listdir(tempfile.gettempdir())), flush=True)\n{ENDS[end]}"
    env = {**os.environ, "TMPDIR": str(short_path), "JUPYTER_RUNTIME_DIR": str(short_path / "runtime")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100)
    assert int(done.stdout.split()[-1]) > 0, done.stderr
    assert [name for name in waited_for(short_path, []) if name != "runtime"] == []


def of(path: Path, pid: int, began: str, pids: str | None = None) -> Path:
    made = path / f"llmproc-{pid}{began}"
    (made / "deep").mkdir(parents=True)
    (made / "owner").write_text(json.dumps([pid, began, folder._pids() if pids is None else pids]))
    return made


def test_the_next_who_makes_a_folder_removes_those_of_the_dead_and_no_others(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    mine = folder.started(os.getpid())
    dead = [of(tmp_path, gone.pid, "1"), of(tmp_path, os.getpid(), mine + "1")]
    kept = [of(tmp_path, os.getpid(), mine), of(tmp_path, gone.pid, "2", "of another machine"), of(tmp_path, gone.pid, "")]
    (tmp_path / "llmproc-silent").mkdir()
    (tmp_path / "llmproc-odd").mkdir()
    (tmp_path / "llmproc-odd" / "owner").write_text("[1")
    (tmp_path / "llmproc-link").symlink_to(tmp_path / "other")
    os.mkfifo(tmp_path / "llmproc-silent" / "owner")
    other = tmp_path / "other"
    other.mkdir()
    (other / "owner").write_text((dead[0] / "owner").read_text())
    made = Path(folder.make(str(tmp_path)))
    assert [path for path in dead if path.exists()] == [] and all(path.exists() for path in (*kept, made, other))
    assert {"llmproc-silent", "llmproc-odd", "llmproc-link"} < set(os.listdir(tmp_path))


def test_a_folder_that_was_never_signed_goes_after_a_while_if_it_is_empty(tmp_path: Path) -> None:
    for name, mode in (("llmproc-old", 0o700), ("llmproc-new", 0o700), ("llmproc-full", 0o700), ("llmproc-mine", 0o755)):
        (tmp_path / name).mkdir(mode)
    (tmp_path / "llmproc-full" / "notes").write_text("mine")
    for name in ("llmproc-old", "llmproc-full", "llmproc-mine"):
        os.utime(tmp_path / name, (0, 0))
    folder.sweep(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llmproc-full", "llmproc-mine", "llmproc-new"]


def test_a_folder_whose_owner_and_keeper_were_killed_goes_at_the_next_start(tmp_path: Path) -> None:
    code = "import os, signal\nfrom llmproc_nb.inside import folder\nprint(folder.make())\nos.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-uc", code], env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL)
    assert len(os.listdir(tmp_path)) == 1
    made = folder.make(str(tmp_path))
    assert os.listdir(tmp_path) == [os.path.basename(made)]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("whom", ["the zygote", "what waits for the keeper", "both"])
def test_when_the_zygote_or_what_it_started_is_killed_another_family_is_started(whom: str, tmp_path: Path, monkeypatch) -> None:
    from llmproc_nb.drivers.sandbox.zygote import ZYGOTE

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def look() -> None:
        async with opened() as door:
            shell = await door.start()
            family, zygote = shell._family, ZYGOTE.pid
            await asyncio.sleep(1)
            for pid in {"the zygote": [zygote], "both": [*children(zygote), zygote]}.get(whom, [family.root]):
                os.kill(pid, signal.SIGKILL)
            last = time.monotonic() + 10
            again = None
            while (again is None or again._family is family) and time.monotonic() < last:  # it may not be quite over yet
                with contextlib.suppress(ToolError):
                    again = await door.start()  # before anything was heard of it
            assert again is not None
            assert await said(again, "1") == "1" and again._family is not family
            assert (await ran(shell, "1")).status == "died"
            last = time.monotonic() + 5
            while os.path.exists(family._folder) and time.monotonic() < last:
                await asyncio.sleep(0.05)
            assert not os.path.exists(family._folder)

    asyncio.run(look())
    assert waited_for(tmp_path, []) == []


def test_a_family_that_ends_while_a_session_begins_in_it_is_noticed_at_once(monkeypatch) -> None:
    greeted, killed = LiveShell.greeted, list[int]()

    async def late(self: LiveShell, timeout_s: float, what: str) -> None:
        if not killed:
            killed.append(self._family.root)
            os.kill(self._family.root, signal.SIGKILL)
        await greeted(self, timeout_s, what)

    async def look() -> None:
        async with opened() as door:
            await door.start()
            monkeypatch.setattr(LiveShell, "greeted", late)
            began = time.monotonic()
            assert await said(await door.start(), "1") == "1"
            assert killed and time.monotonic() - began < 20  # who heard nothing waited 30 s

    asyncio.run(look())


def test_a_zygote_that_is_killed_while_a_family_is_made_costs_nobody_a_session() -> None:
    from llmproc_nb.drivers.sandbox.zygote import ZYGOTE

    async def look() -> None:
        async with opened() as door:
            await door.start()
        for delay_s in (0.0, 0.01, 0.05, 0.1):
            async with opened() as door:
                starting = asyncio.ensure_future(door.start())
                await asyncio.sleep(delay_s)
                os.kill(ZYGOTE.pid, signal.SIGKILL)
                shell = await starting
                status = (await ran(shell, "1")).status
                assert status == "ok" or await said(await door.start(), "1") == "1"

    asyncio.run(look())
