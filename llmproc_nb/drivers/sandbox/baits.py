"""Baits on the host, for code in a sandbox to find if it can: a secret in a file and in an environment, servers, a process.

The standard library only. A bait's text begins with MARK and goes on with random hexadecimal; nothing else of it is told to a sandbox.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MARK = "llmproc-bait-"
VARIABLE = "LLMPROC_BAIT_TOKEN"
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
HOLDER = """
import json, os, select, socket, sys
folder, name = sys.argv[1:3]
def opened(family, kind, address):
    made = socket.socket(family, kind)
    made.bind(address)
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made
stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
tcp, udp = opened(socket.AF_INET, stream, ("0.0.0.0", 0)), opened(socket.AF_INET, datagram, ("127.0.0.1", 0))
path = os.path.join(folder, "socket")
held = [opened(socket.AF_UNIX, stream, path), opened(socket.AF_UNIX, datagram, path + "-datagram")]
if sys.platform == "linux":
    held += [opened(socket.AF_UNIX, stream, chr(0) + name), opened(socket.AF_UNIX, datagram, chr(0) + name + "-datagram")]
os.chmod(path, 0o777), os.chmod(path + "-datagram", 0o777)
print(json.dumps({"port": tcp.getsockname()[1], "udp_port": udp.getsockname()[1], "socket": path, "abstract": name}), flush=True)
while True:
    ready, _, _ = select.select([udp, sys.stdin], [], [])
    if sys.stdin in ready:
        break
    udp.sendto(b"answer", udp.recvfrom(64)[1])
"""


@contextmanager
def baits() -> Iterator[dict[str, Any]]:
    """The facts that probes need, while the baits are laid out. `alive` in them says afterwards whether the process was left alone."""
    bait = MARK + secrets.token_hex(16)
    home = Path.home() if os.access(Path.home(), os.W_OK) else Path(tempfile.gettempdir())
    file = home / f".llmproc-bait-{os.getpid()}"
    folder = tempfile.mkdtemp(prefix="llmproc-bait-")
    os.chmod(folder, 0o755)
    command = [sys.executable, "-c", HOLDER, folder, f"llmproc-{secrets.token_hex(8)}", bait]
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = bait
    try:
        file.write_text(bait, encoding="utf-8")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None and holder.stdin is not None
            facts = json.loads(holder.stdout.readline()) | _host() | {"bait_file": str(file), "home": str(home), "bait_pid": holder.pid}
            yield facts
            facts["alive"] = holder.poll() is None
            holder.kill()
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
        file.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _host() -> dict[str, Any]:
    found = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS if os.path.exists(f"/proc/self/ns/{kind}")}
    shown = [path for path in ("/lib", "/bin", "/usr/lib", "/usr/local") if os.path.exists(path)]
    ids = {"pid": os.getpid(), "session": os.getsid(0), "group": os.getpgrp()}
    return {**ids, "namespaces": found, "shown": shown, "folder": tempfile.gettempdir(), "address": _address()}


def _address() -> str:
    """An address of this machine that is not its loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            any_socket.connect(("192.0.2.1", 9))  # sends nothing
            return str(any_socket.getsockname()[0])
        except OSError:
            return "127.0.0.2"
