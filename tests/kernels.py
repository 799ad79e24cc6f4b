"""A real kernel for tests, driven over the wire as a front end does it: cell ids, interrupts, outputs in order."""

from __future__ import annotations

import os
import queue
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.manager import KernelManager
from paths import ROOT


@dataclass
class Ran:
    """What came of a cell. `outputs` are (type, content); `late` came for cells before it; `interrupt_s` from the interrupt to the end."""

    status: str
    outputs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    late: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    interrupt_s: float | None = None
    duration_s: float = 0.0

    def data(self, mime: str = "text/plain") -> list[Any]:
        return [content["data"][mime] for kind, content in self.outputs if "data" in content and mime in content["data"]]

    @property
    def printed(self) -> str:
        return "".join(content["text"] for kind, content in self.outputs if kind == "stream")

    @property
    def error(self) -> dict[str, Any] | None:
        return next((content for kind, content in self.outputs if kind == "error"), None)

    @property
    def bytes(self) -> int:
        return sum(len(str(content)) for _, content in self.outputs)


class Kernel:
    def __init__(self, **environ: str) -> None:
        env = {**os.environ, "LLMPROC_NB_LOG": "0", "PYTHONPATH": str(ROOT), **environ}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env = {name: value for name, value in env.items() if value != ""}
        self._folder = tempfile.TemporaryDirectory(prefix="k")  # short: the path of a socket is
        self.manager = KernelManager(kernel_name="python3", transport="ipc", connection_file=f"{self._folder.name}/k.json")
        self.manager.start_kernel(env=env, cwd=str(ROOT))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        self._folder.cleanup()

    def run(self, source: str, *, cell: str | None = None, interrupt_after_s: float | None = None, timeout_s: float = 30) -> Ran:
        """Run a cell to its end; `cell` is the id a front end would send."""
        content = {
            "code": source,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        message = self.client.session.msg("execute_request", content, metadata={"cellId": cell} if cell else {})
        self.client.shell_channel.send(message)
        own, began, interrupted, ran = message["header"]["msg_id"], time.monotonic(), None, Ran("")
        while True:
            now = time.monotonic()
            if interrupt_after_s is not None and interrupted is None and now - began > interrupt_after_s:
                self.manager.interrupt_kernel()
                interrupted = now
            assert now - began < timeout_s, f"no end after {timeout_s} s: {ran.outputs[-3:]}"
            try:
                got = self.client.get_iopub_msg(timeout=0.05)
            except queue.Empty:
                continue
            mine = got["parent_header"].get("msg_id") == own
            if got["msg_type"] == "status":
                if mine and got["content"]["execution_state"] == "idle":
                    break
            elif got["msg_type"] != "execute_input":
                (ran.outputs if mine else ran.late).append((got["msg_type"], got["content"]))
        ended = time.monotonic()
        while True:
            reply = self.client.get_shell_msg(timeout=10)
            if reply["parent_header"].get("msg_id") == own:
                break
        ran.status, ran.duration_s = reply["content"]["status"], ended - began
        ran.interrupt_s = ended - interrupted if interrupted is not None else None
        return ran

    def complete(self, source: str, at: int | None = None) -> list[str]:
        """What Tab offers."""
        reply = self.client.complete(source, len(source) if at is None else at, reply=True, timeout=20)
        return reply["content"]["matches"]


@contextmanager
def kernel(**environ: str) -> Iterator[Kernel]:
    made = Kernel(**environ)
    try:
        yield made
    finally:
        made.close()


def ok(ran: Ran) -> Ran:
    """The run, which must have gone well."""
    assert ran.status == "ok", ran.error
    return ran


def error(ran: Ran) -> str:
    """What a cell that failed says."""
    assert ran.status == "error" and ran.error is not None
    return ran.error["traceback"][0]  # type: ignore[no-any-return]
