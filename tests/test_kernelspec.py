"""What an installation brings: the kernel `Python 3 (agents)`, and a wheel that holds what it should and nothing else."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from paths import ROOT

SPEC = ROOT / "jupyter-config" / "kernels" / "llmproc" / "kernel.json"
installed = pytest.mark.skipif("llmproc" not in KernelSpecManager().find_kernel_specs(), reason="the package is not installed here")


@installed
def test_the_kernel_is_listed_after_the_installation():
    listed = subprocess.run([sys.executable, "-m", "jupyter", "kernelspec", "list", "--json"], capture_output=True, text=True, check=True)
    found = json.loads(listed.stdout)["kernelspecs"]["llmproc"]
    assert found["spec"]["display_name"] == "Python 3 (agents)"
    assert "llmproc_nb" in " ".join(found["spec"]["argv"])
    assert Path(found["resource_dir"]).is_relative_to(sys.prefix)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Any]:
    """A client of a kernel that was started from the kernelspec."""
    specs = KernelSpecManager(kernel_dirs=[str(SPEC.parent.parent)], ensure_native_kernel=False)
    manager = KernelManager(kernel_name="llmproc", kernel_spec_manager=specs)
    manager.start_kernel(env={**os.environ, "IPYTHONDIR": str(tmp_path)}, cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def printed(client: Any, code: str) -> str:
    """What a cell prints; an error in it is raised."""
    text: list[str] = []

    def read(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            text.append(content["text"])
        if message["msg_type"] == "error":
            raise AssertionError("\n".join(content["traceback"]))

    try:
        client.execute_interactive(code, timeout=30, output_hook=read)
    except queue.Empty:
        raise AssertionError(f"no answer to {code!r}; so far {text}") from None
    return "".join(text)


def test_its_kernel_knows_the_agent_magics_from_the_start(kernel: Any):
    code = (
        "magics = get_ipython().magics_manager.magics; print('agent' in magics['cell'], 'agent' in magics['line'], 'ps' in magics['line'])"
    )
    assert printed(kernel, code) == "True True True\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("uv") is None:
        pytest.skip("uv is not here to build a wheel")
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(["uv", "build", "--wheel", "--out-dir", str(folder)], cwd=ROOT, capture_output=True, text=True)
    if built.returncode and ("Failed to fetch" in built.stderr or "Could not connect" in built.stderr):
        pytest.skip("the build backend cannot be fetched here")
    assert built.returncode == 0, built.stderr[-3000:]
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_the_package_the_programs_and_the_kernel(wheel: Path):
    name = f"llmproc_nb-{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}"
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "llmproc_nb").rglob("*.py")}
    found = (path.relative_to(ROOT).as_posix() for path in (ROOT / "programs").rglob("*.*") if "__pycache__" not in path.parts)
    programs = {f"llmproc_nb/{name}" for name in found}
    share = f"{name}.data/data/share/jupyter/kernels"
    kernels = {f"{share}/{path.parent.name}/{path.name}" for path in SPEC.parent.parent.glob("*/*")}
    assert f"{share}/llmproc-sandbox/kernel.json" in kernels
    assert sources | programs | kernels <= names
    about = {f"{name}.dist-info/{file}" for file in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert names == {name for name in names if name.startswith("llmproc_nb/")} | kernels | about
    assert not [name for name in names if "tests/" in name or "cache" in name or name.endswith((".lock", ".pyc", ".jsonl"))]


def test_the_wheel_brings_the_command(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "jupyter-llmproc = llmproc_nb.cli:main" in entry_points
    assert "llmproc-sandbox = llmproc_nb.drivers.sandbox.provisioner:SandboxProvisioner" in entry_points


def test_the_programs_of_the_wheel_are_offered_where_there_is_no_checkout(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "llmproc_nb.cli", "chat", "--log", "0"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, input="quickstart\nWhich of the columns?\n", capture_output=True, text=True)
    assert done.stdout.startswith("Two columns deserve a look"), done.stderr
    assert [path.name for path in (ROOT / "programs").glob("*.toml") if path.name not in done.stderr] == []
