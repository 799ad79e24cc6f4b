"""JupyterLab in a real browser, for tests: a server in a folder, notebooks in tabs, cells run, outputs read, buttons clicked.

    with lab(folder) as page_of:
        write_notebook(folder / "nb.ipynb", ["1 + 1", "%%agent …"])
        page = page_of("nb.ipynb")
        run_all(page)
        assert "2" in wait_output(page, 0, "2")

`page` is a page of playwright, so `cell(page, n).get_by_role("button", name="Allow").click()` and `page.screenshot(path=…)` work.
Skips where playwright, chromium or jupyterlab is absent. While a lab is open its thread has a running event loop: no `asyncio.run`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
START_S, OPEN_S, RUN_S = 60.0, 60.0, 60.0


def chromium() -> str | None:
    """The path of a chromium, or None."""
    return next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


def missing() -> str:
    """What a browser test lacks here; empty where it can run."""
    for module in ("playwright", "jupyterlab"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    return "" if chromium() else "there is no chromium"


needs_lab = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


def write_notebook(path: Path, sources: Sequence[str]) -> None:
    """Write a notebook of code cells; the id of cell n is `cell-n`, n from 0."""
    cells = [
        {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for number, source in enumerate(sources)
    ]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": spec, "cells": cells}))


@contextmanager
def lab(folder: Path, **environ: str) -> Iterator[Callable[[str], Any]]:
    """A lab server on `folder` and a browser: gives a function that opens a notebook of the folder in a page of its own.

    `environ` is added to the environment of the server and its kernels; an empty value takes a variable away.
    """
    if missing():
        pytest.skip(missing())
    from playwright.sync_api import sync_playwright

    with _server(folder, environ) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=list(CHROMIUM_FLAGS))
        try:
            yield lambda name: _open(browser, address, name)
        finally:
            browser.close()


@contextmanager
def _server(folder: Path, environ: dict[str, str]) -> Iterator[str]:
    own = folder / ".lab"
    for name, values in SETTINGS.items():
        path = own / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    flags += ["--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
    homes = {"HOME": "home", "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    homes |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython"}
    env = {**os.environ, "LLMPROC_NB_LOG": "0", "LLMPROC_NB_STREAM": "", "PYTHONPATH": str(ROOT), **environ}
    env = {name: value for name, value in env.items() if value != ""} | {name: str(own / below) for name, below in homes.items()}
    for name in homes:
        Path(env[name]).mkdir(parents=True, exist_ok=True)
    with (own / "server.log").open("wb") as output:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *flags], env=env, cwd=folder, stdout=output, stderr=output)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status", server, own / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()  # the server ends its kernels first
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert server.poll() is None, f"the server ended: {log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"no server after {START_S} s: {log.read_text()[-2000:]}")


def _open(browser: Any, address: str, name: str) -> Any:
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(RUN_S * 1000)
    workspace = "".join(char for char in name if char.isalnum())
    page.goto(f"{address}/lab/workspaces/auto-{workspace}/tree/{name}?reset", timeout=OPEN_S * 1000)
    page.wait_for_function(f"() => {_KERNEL}?.status === 'idle'", timeout=OPEN_S * 1000)
    return page


_NOTEBOOK = "window.jupyterapp?.shell?.currentWidget"
_KERNEL = f"{_NOTEBOOK}?.sessionContext?.session?.kernel"


def command(page: Any, name: str, *, wait: bool = False) -> None:
    """Run a command of the lab, such as `notebook:run-all-cells`. It goes on by itself unless `wait`."""
    call = f"window.jupyterapp.commands.execute({json.dumps(name)})"
    page.evaluate(f"async () => {{ await {call}; }}" if wait else f"() => {{ void {call}; }}")


def run_all(page: Any, *, wait: bool = False) -> None:
    """Run all cells, from the first one; with `wait`, to the end of the last one."""
    page.evaluate(f"() => {{ const n = {_NOTEBOOK}.content; n.deselectAll(); n.activeCellIndex = 0; }}")
    command(page, "notebook:run-all-cells", wait=wait)


def run_cell(page: Any, number: int, *, wait: bool = False) -> None:
    """Run one cell, counted from 0."""
    page.evaluate(f"() => {{ const n = {_NOTEBOOK}.content; n.deselectAll(); n.activeCellIndex = {number}; }}")
    command(page, "notebook:run-cell", wait=wait)


def interrupt(page: Any) -> None:
    """Press the kernel's stop button."""
    command(page, "notebook:interrupt-kernel")


def save(page: Any) -> None:
    """Save the notebook."""
    command(page, "docmanager:save", wait=True)


def cell(page: Any, number: int) -> Any:
    """The locator of a cell, counted from 0."""
    return page.locator(".jp-Notebook .jp-Cell").nth(number)


def cell_output(page: Any, number: int) -> str:
    """The visible text of a cell's outputs, without prompts such as [1]."""
    areas = cell(page, number).locator(".jp-OutputArea-output")
    return "\n".join(text for text in areas.all_inner_texts())


def wait_output(page: Any, number: int, text: str, *, timeout_s: float = RUN_S) -> str:
    """Wait until a cell's outputs show a text, and give all they show."""
    end = time.monotonic() + timeout_s
    while text not in (shown := cell_output(page, number)):
        assert time.monotonic() < end, f"no {text!r} after {timeout_s} s; cell {number} shows: {shown!r}"
        page.wait_for_timeout(50)
    return shown


def wait_idle(page: Any, *, timeout_s: float = RUN_S) -> None:
    """Wait until the kernel has nothing to do and no cell waits for it."""
    waits = "[...document.querySelectorAll('.jp-Notebook .jp-InputPrompt')].some(one => one.textContent.includes('*'))"
    page.wait_for_function(f"() => {_KERNEL}?.status === 'idle' && !({waits})", timeout=timeout_s * 1000)
