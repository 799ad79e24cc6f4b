"""Any kernel in a sandbox: the launcher, the provisioner and the kernelspec, as a user of plain Jupyter has them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from paths import ROOT
from sandboxes import linux_only, tiers

from llmproc_nb.core.errors import PersonError
from llmproc_nb.inside.rules import Rules, environment

pytestmark = linux_only
SPEC = ROOT / "jupyter-config" / "kernels" / "llmproc-sandbox"
TIERS = ("namespaces", "landlock", "process")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="llmproc-") as path:
        yield Path(path)


def launched(folder: Path, *command: str, **rules: Any) -> subprocess.Popen[str]:
    """A command in a sandbox."""
    if rules.get("tier", "namespaces") not in tiers():
        pytest.skip("this machine has no such tier")
    words = [sys.executable, "-m", "llmproc_nb.inside.launch", Rules(folder=str(folder), **rules).dump(), "--", *command]
    env = environment(os.environ, {}) | {"SECRET_TOKEN": "of the host"}
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("tier", TIERS)
def test_a_command_runs_in_a_folder_of_its_own_and_ends_as_it_ends(folder: Path, tier: str):
    code = "import os, sys; print(os.path.basename(os.getcwd()), os.listdir(), 'SECRET_TOKEN' in os.environ); sys.exit(7)"
    running = launched(folder, "python", "-c", code, tier=tier)
    assert running.communicate(timeout=60)[0] == "work [] False\n"
    assert running.returncode == 7


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_command(folder: Path, tier: str, number: int):
    code = "import signal, sys, time; signal.signal(int(sys.argv[1]), lambda *_: sys.exit(9)); print('ready', flush=True); time.sleep(60)"
    running = launched(folder, "python", "-c", code, str(int(number)), tier=tier)
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    running.send_signal(number)
    assert running.wait(timeout=20) == 9


@pytest.mark.parametrize("tier", TIERS)
def test_nothing_is_left_when_who_started_it_is_killed(folder: Path, tier: str):
    """The sandbox's command holds a pipe open: its end is the command's."""
    rules = Rules(folder=str(folder), tier=tier).dump()
    code = "import time; print('ready', flush=True); time.sleep(60)"
    command = [sys.executable, "-m", "llmproc_nb.inside.launch", rules, "--", "python", "-c", code]
    starter = f"import subprocess; subprocess.run({command!r})"
    if tier not in tiers():
        pytest.skip("this machine has no such tier")
    host = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None and host.stdout.readline() == "ready\n"
    host.kill()
    host.wait()
    began = time.monotonic()
    assert host.stdout.read() == ""
    assert time.monotonic() - began < 5


def test_no_sandbox_is_made_inside_a_sandbox(folder: Path):
    """What cannot be had is refused with its reason, not lowered."""
    inner = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from llmproc_nb.inside import launch; "
    inner += "sys.exit(launch.main([launch.Rules(folder='/agent/tmp').dump(), '--', 'true']))"
    running = launched(folder, "python", "-c", inner, readable=(str(ROOT / "llmproc_nb"),))
    _, said = running.communicate(timeout=60)
    assert running.returncode == 125, said
    assert "no namespaces of its own: [Errno 1] unshare: Operation not permitted" in said


def test_the_whole_machine_is_not_shown(folder: Path):
    running = launched(folder, "true", readable=("/",))
    _, said = running.communicate(timeout=60)
    assert running.returncode == 125
    assert "a sandbox does not see the whole machine" in said


def manager(folder: Path, **config: Any) -> KernelManager:
    """A manager as any client makes one, for the kernelspec with these fields changed."""
    shutil.copytree(SPEC, folder / "llmproc-sandbox")
    path = folder / "llmproc-sandbox" / "kernel.json"
    spec = json.loads(path.read_text())
    spec["metadata"]["kernel_provisioner"]["config"] |= config
    path.write_text(json.dumps(spec))
    specs = KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)
    return KernelManager(kernel_name="llmproc-sandbox", kernel_spec_manager=specs)


@pytest.fixture(params=["namespaces", "landlock"])
def kernel(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[KernelManager, Any]]:
    """A kernel of each tier, and a client of it."""
    if request.param not in tiers():
        pytest.skip("this machine has no such tier")
    made = manager(folder, tier=request.param)
    made.start_kernel(env={**os.environ, "SECRET_TOKEN": "of the host"})
    client = made.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield made, client
    client.stop_channels()
    made.shutdown_kernel(now=True)


def said(client: Any, code: str, timeout: float = 30) -> str:
    text: list[str] = []

    def read(message: dict[str, Any]) -> None:
        text.append(message["content"].get("text") or message["content"].get("ename") or "")

    client.execute_interactive(code, timeout=timeout, output_hook=read)
    return "".join(text)


def kernels_end(made: KernelManager) -> Path:
    """Where the kernel makes its sockets, on the host."""
    return Path(made.ip).parent.parent / "s"


def test_a_plain_client_has_a_kernel_that_is_confined(kernel: tuple[KernelManager, Any]):
    made, client = kernel
    code = "import os, socket, subprocess; print(os.path.basename(os.getcwd()), 'SECRET_TOKEN' in os.environ)"
    assert said(client, code) == "work False\n"
    assert said(client, f"open({str(ROOT / 'README.md')!r})") in ("FileNotFoundError", "PermissionError")
    assert said(client, "socket.create_connection(('1.1.1.1', 80), 2)") in ("OSError", "PermissionError")
    assert said(client, "print(subprocess.run(['echo', 'hello'], capture_output=True).stdout)") == "b'hello\\n'\n"
    assert made.transport == "ipc"


def test_it_is_interrupted_and_restarted_for_the_same_client(kernel: tuple[KernelManager, Any]):
    made, client = kernel
    timer = threading.Timer(0.5, made.interrupt_kernel)
    timer.start()
    assert said(client, "kept = 1\nimport time; time.sleep(20)") == "KeyboardInterrupt"
    assert said(client, "print(kept)") == "1\n"
    made.restart_kernel()
    client.wait_for_ready(timeout=60)
    assert said(client, "print('kept' in globals())") == "False\n"


def test_where_client_and_kernel_meet_there_is_nothing_but_sockets(kernel: tuple[KernelManager, Any]):
    """It is a folder of the host: no file fills its disk, no link leads the host to another file."""
    made, client = kernel
    place = kernels_end(made)
    inside = json.loads((place / "connection.json").read_text())["ip"].removesuffix("/k")
    for attempt in ("open(p + '/file', 'w')", "os.symlink('/etc/passwd', p + '/link')", "os.mkdir(p + '/folder')",
                    "open(p + '/connection.json', 'a')", "os.link(p + '/connection.json', p + '/again')",
                    "os.rename('made', p + '/moved')"):  # fmt: skip
        assert said(client, f"import os; p = {inside!r}; open('made', 'w').close()\n{attempt}") in ("PermissionError", "OSError"), attempt
    assert said(client, "os.makedirs('a/b'); os.rename('made', 'a/b/made'); os.symlink('a', 'c'); print(os.listdir('c/b'))") == "['made']\n"
    assert sorted(path.name for path in place.iterdir()) == ["connection.json", *(f"k-{number}" for number in range(1, 6))]
    assert said(client, f"os.unlink({inside!r} + '/connection.json')") == ""
    made.restart_kernel()
    client.wait_for_ready(timeout=60)
    assert said(client, "print('again')") == "again\n"


def test_a_kernel_that_floods_that_place_with_sockets_is_ended(kernel: tuple[KernelManager, Any]):
    made, client = kernel
    inside = json.loads((kernels_end(made) / "connection.json").read_text())["ip"]
    client.execute(f"import socket\nfor n in range(200): socket.socket(socket.AF_UNIX).bind({inside!r} + f'{{n}}x')")
    until = time.monotonic() + 20
    while made.is_alive() and time.monotonic() < until:
        time.sleep(0.1)
    assert not made.is_alive()


def test_a_message_that_is_too_large_is_cut_and_the_connection_makes_itself_again(folder: Path, capfd: pytest.CaptureFixture[str]):
    made = manager(folder, tier=tiers()[0], message_mb=3)
    made.start_kernel()
    client = made.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    assert len(said(client, "print('x' * 2_900_000)")) == 2_900_001
    client.execute("print('x' * 3_100_000)")
    assert client.get_shell_msg(timeout=10)["content"]["status"] == "ok"
    soon(lambda: heard(client, "print('next')") == "next\n", 60)
    client.stop_channels()
    made.shutdown_kernel(now=True)
    assert capfd.readouterr().err == "the kernel sent a message of more than 3 MB; the connection was cut\n"


def heard(client: Any, code: str) -> str:
    """What comes of it; messages before client and kernel meet again are lost."""
    try:
        return said(client, code, timeout=5)
    except TimeoutError:
        return ""


def soon(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def processes_with(word: str) -> list[int]:
    """The processes of this machine that have it in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word in path.read_bytes().decode(errors="replace"):
                found.append(int(path.parent.name))
    return found


def meters(place: Path) -> list[int]:
    return [pid for pid in processes_with(str(place / "c")) if "meter.py" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_a_kernel_that_nobody_can_hear_any_more_is_ended_and_can_be_started_again(folder: Path):
    made = manager(folder, tier=tiers()[0])
    made.start_kernel()
    client = made.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    place = Path(made.ip).parent.parent
    (meter,) = meters(place)
    os.kill(meter, signal.SIGKILL)
    soon(lambda: not made.is_alive() and set(processes_with(str(place))) <= {meter})
    made.restart_kernel(now=True)
    client.wait_for_ready(timeout=60)
    assert said(client, "print('again')") == "again\n" and made.is_alive()
    client.stop_channels()
    made.shutdown_kernel(now=True)
    soon(lambda: processes_with(str(place)) == [] and not place.exists())


CLIENT = """
import sys
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
made = KernelManager(kernel_name="llmproc-sandbox", kernel_spec_manager=KernelSpecManager(kernel_dirs=sys.argv[1:]))
made.start_kernel()
client = made.client()
client.start_channels()
client.wait_for_ready(timeout=60)
print(made.ip, flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_when_the_client_is_killed(folder: Path):
    specs, pipe = str(Path(manager(folder, tier=tiers()[0]).kernel_spec.resource_dir).parent), subprocess.PIPE
    client = subprocess.Popen([sys.executable, "-c", CLIENT, specs], stdin=pipe, stdout=pipe, text=True)
    assert client.stdout is not None
    place = Path(client.stdout.readline().strip()).parent.parent
    assert len(meters(place)) == 1
    client.kill()
    client.communicate()
    soon(lambda: processes_with(str(place)) == [] and not place.exists())


def test_a_shut_down_kernel_leaves_nothing(folder: Path):
    if "namespaces" not in tiers():
        pytest.skip("this machine has no such tier")
    made = manager(folder)
    made.start_kernel()
    place = Path(made.ip).parent.parent
    assert place.is_dir()
    made.shutdown_kernel(now=True)
    assert not place.exists()
    assert not made.is_alive()


def test_a_kernel_that_cannot_be_confined_is_not_started(folder: Path):
    """The reason is in the error that the client's user sees."""
    made = manager(folder, tier="landlock", hosts=["a.example"])
    with pytest.raises(
        PersonError, match=r"a sandbox of tier landlock cannot be had here: .*hosts can only be allowed in the tier namespaces"
    ):
        made.start_kernel()
    assert not made.is_alive()


def test_a_kernelspec_cannot_show_the_whole_machine(folder: Path):
    with pytest.raises(PersonError, match="readable: '/' is the whole machine"):
        manager(folder, readable=["/"]).start_kernel()


def test_a_host_with_very_many_open_files_can_start_one(folder: Path):
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        manager = KernelManager(kernel_name="llmproc-sandbox", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(SPEC.parent)]))
        manager.start_kernel()
        manager.shutdown_kernel(now=True)
    finally:
        for fd in opened:
            os.close(fd)
