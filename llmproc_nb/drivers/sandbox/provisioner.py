"""Any kernel in a sandbox, for any Jupyter client: a kernelspec names this provisioner, and the kernel's command runs confined.

The kernel has no network: it makes its sockets in a folder of the host, and a process between them and the clients bounds what comes
(meter). Of the host's files the kernel gets only a copy of its connection file. A confinement that cannot be had is an error of the start,
never a weaker one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_client.provisioning import LocalProvisioner
from traitlets import Dict, Int, List, Unicode

from llmproc_nb.core.errors import PersonError
from llmproc_nb.drivers.sandbox import meter
from llmproc_nb.drivers.sandbox.files import too_much
from llmproc_nb.inside import cgroup, folder
from llmproc_nb.inside.area import remove
from llmproc_nb.inside.rules import Rules, environment

LONGEST = 70
"""What the folder for temporary files may have, of the 108 bytes that the path of a socket can have."""
CONNECTION = "connection.json"
CHANNELS = ("iopub", "shell", "control", "stdin", "hb")
PLACE = "kernel llmproc-sandbox"
NO_PARENT = "1"
"""ipykernel watches no parent then, and says nothing on stdout: it ends with the sandbox, not by looking for a pid it cannot see."""


class SandboxProvisioner(LocalProvisioner):
    """Starts a kernel in a sandbox. Its fields can be set in the kernelspec, under `metadata.kernel_provisioner.config`."""

    tier = Unicode("namespaces", config=True, help="Which confinement there must be: namespaces, landlock or process.")
    memory_mb = Int(4096, config=True, help="Memory of each process, and of all together.")
    disk_mb = Int(512, config=True, help="Size of the kernel's own folders, and of each file.")
    cpu_s = Int(3600, config=True, help="CPU time of all processes together.")
    processes = Int(64, config=True, help="How many processes there may be.")
    readable = List(Unicode(), config=True, help="More host paths that are shown, read-only.")
    hosts = List(Unicode(), config=True, help="Hosts that may be reached, through a proxy: name, *.name, each with :port or without.")
    message_mb = Int(256, config=True, help="Size of a message of the kernel, at which the connection is cut.")
    env = Dict(config=True, help="Variables besides the allow-list.")

    _folder = ""
    _remove: Callable[[], Any]
    _proxy: subprocess.Popen[str] | None = None
    _meter: subprocess.Popen[bytes] | None = None

    @property
    def _sockets(self) -> str:
        """Where the kernel makes its sockets."""
        return os.path.join(self._folder, "s")

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        for path in self.readable:
            if why := too_much(path):
                raise PersonError(f"readable: {path!r} {why}", place=PLACE, right="it names only what is needed")
        self._make_folder()
        made: dict[str, Any] = await super().pre_launch(**kwargs)
        given = {**{str(name): str(value) for name, value in self.env.items()}, **self.kernel_spec.env, "JPY_PARENT_PID": NO_PARENT}
        resources = self.kernel_spec.resource_dir
        rules = Rules(
            tier=self.tier,
            folder=self._new_folder("f"),
            last=self._folder,
            readable=(*self.readable, *([resources] if any(resources in word for word in made["cmd"]) else [])),
            sockets=self._sockets,
            memory_mb=self.memory_mb,
            disk_mb=self.disk_mb,
            cpu_s=self.cpu_s,
            processes=self.processes,
            env=given,
            relay=await asyncio.to_thread(self._way_out) if self.hosts else "",
        )
        self._show_connection_file(rules)
        self._measure(kwargs.get("stderr"))
        original, shown = os.path.realpath(self.parent.connection_file), os.path.join(rules.sockets_inside, CONNECTION)
        command = [shown if word == original else word for word in made["cmd"]]
        made["cmd"] = [sys.executable, "-P", "-m", "llmproc_nb.inside.launch", rules.dump(), "--", *command]
        path = {name: value for name, value in made["env"].items() if name == "PYTHONPATH"}  # for the launcher; the kernel does not get it
        made["env"] = environment(made["env"], given) | path
        return made

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start it, and wait until it is confined. Raises PersonError where it cannot be."""
        reading, writing = os.pipe()
        try:
            place = cmd.index("--")
            told = [*cmd[:place], "--tell", str(writing), *cmd[place:]]
            info = await super().launch_kernel(told, pass_fds=(writing,), **kwargs)
        finally:
            os.close(writing)
        with open(reading, encoding="utf-8", errors="replace") as answer:
            why = await asyncio.to_thread(answer.read)
        if why:
            await self.wait()
            await self.cleanup()
            raise PersonError(
                f"a sandbox of tier {self.tier} cannot be had here: {why}",
                place=PLACE,
                right="it is never started with less than what is asked for",
                step="Ask for another tier in its kernelspec, or use another machine.",
            )
        return info

    async def poll(self) -> int | None:
        """None while it runs. A kernel that nobody can hear any more is ended."""
        if self._meter is not None and self._meter.poll() is not None and await super().poll() is None:
            await self.kill()
        status: int | None = await super().poll()
        return status

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart=restart)
        await asyncio.to_thread(cgroup.sweep, cgroup.REMOVE_S)  # the launcher may have been killed
        self._end_meter()
        if self._proxy is not None and not restart:
            self._proxy.communicate()
            self._proxy = None
        if self._folder and not restart:
            self._remove()
            if self.parent.connection_file.startswith(self._folder):
                self.parent.connection_file = ""  # a kernel that is started again has another
            self._folder = ""

    def _make_folder(self) -> None:
        """The places of client and kernel. After a restart the same, since clients know theirs, but with nothing left in the kernel's."""
        if not self._folder:
            base = tempfile.gettempdir() if len(tempfile.gettempdir()) < LONGEST else "/tmp"
            self._folder = folder.make(base)
            os.chmod(self._folder, 0o711)  # started by root, the kernel is another user
            self._remove = weakref.finalize(self, _remove, self._folder, os.getpid())  # whoever started it may end without a word
            if not self.parent.connection_file:
                self.parent.connection_file = os.path.join(self._folder, CONNECTION)
        self._new_folder("s")
        self.parent.transport, self.parent.ip = "ipc", os.path.join(self._folder, "c", "k")

    def _measure(self, words: Any) -> None:
        """Have a process pass on and count what is said. It is at work long before the kernel is, so nobody waits for it.

        Each kernel has one of its own: at a restart clients remove the sockets that they know.
        """
        self._end_meter()
        names = [f"k-{self.connection_info[f'{name}_port']}" for name in CHANNELS]
        command = [sys.executable, "-IS", meter.__file__, self._new_folder("c"), self._sockets, str(self.message_mb), *names]
        pipe, none = subprocess.PIPE, subprocess.DEVNULL  # run by its path: -m would take twice the time, for what it does not need
        self._meter = subprocess.Popen(command, stdin=pipe, stdout=none, stderr=words, start_new_session=True)

    def _end_meter(self) -> None:
        if self._meter is not None:
            self._meter.kill()
            self._meter.communicate()
            self._meter = None

    def _way_out(self) -> str:
        """The socket of a proxy for its hosts, in a process of its own: a client need not have a loop that goes on. Raises PersonError."""
        path = os.path.join(self._folder, "out")
        if self._proxy is None or self._proxy.poll() is not None:
            command = [sys.executable, "-P", "-m", "llmproc_nb.drivers.sandbox.proxy", path, *self.hosts]
            pipe = subprocess.PIPE
            self._proxy = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
            assert self._proxy.stdout is not None
            if not self._proxy.stdout.readline():
                said = self._proxy.communicate()[1].strip().splitlines()
                raise PersonError(f"the proxy for its hosts did not start: {said[-1] if said else 'it said nothing'}", place=PLACE)
        return path

    def _new_folder(self, name: str) -> str:
        """An empty folder. What was there before may have been made by the kernel, so nothing of it is followed or kept."""
        path = os.path.join(self._folder, name)
        if os.path.lexists(path):
            shutil.rmtree(path)
        os.mkdir(path, 0o700)
        return path

    def _show_connection_file(self, rules: Rules) -> None:
        """A copy of the connection file where the kernel can read it, with the sockets where the kernel sees them."""
        info = json.loads(Path(self.parent.connection_file).read_text(encoding="utf-8"))
        path = os.path.join(self._sockets, CONNECTION)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as copy:
            json.dump({**info, "ip": os.path.join(rules.sockets_inside, "k")}, copy)


def _remove(folder: str, owner: int) -> None:
    """Remove a folder at the end of the process that made it; a fork of it ends without a matter of its own."""
    if os.getpid() == owner:
        remove(folder)
