"""Sessions of any other kernelspec: confined by the provisioner, spoken to over jupyter_client. They cannot be copied.

Not here: variables and files (codequestions), the native sandbox (door, live).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from llmproc_nb.core.errors import PersonError, ToolError
from llmproc_nb.core.sandbox import Checkpoint, OutputReader, Ran, SandboxRules, Shell
from llmproc_nb.core.tail import Tail
from llmproc_nb.drivers.sandbox.codequestions import CodeQuestions
from llmproc_nb.drivers.sandbox.files import program_files, with_readable
from llmproc_nb.drivers.sandbox.messages import Failure, confined, find_spec, next_message, read_reply, read_status, take
from llmproc_nb.drivers.sandbox.outputs import Outputs
from llmproc_nb.drivers.sandbox.used import spent, used

START_S = 60.0
GRACE_S = 5.0
FLOOD_GRACE_S = 20.0
"""A kernel that was stopped in a flood first sends what it has gathered."""
BEAT_S = 0.2
QUIET_S = 1.0
AT_ONCE = 1 << 16
DROPPED = "aborted"
SAID_CHARS = 300
MOST_WAITING = 8
"""Messages that wait to be read; each may be as large as all that is kept of a cell."""
SETTLES_S = 0.2
PAUSE_S, BETWEEN_BYTES_S = 0.0005, 100_000_000
"""How fast what nobody asked for is read between the cells."""
DRAIN_S = 2.0
LOST = "The kernel showed more at once than could be taken: outputs of this cell may be missing."


class KernelDoor:
    """Sessions of one kernelspec."""

    def __init__(self, rules: SandboxRules, base_dir: Path) -> None:
        self._rules, self._base_dir = rules, base_dir
        self._shells: set[KernelShell] = set()

    def warm(self) -> None:
        """Nothing can be got ready."""

    async def start(self) -> Shell:
        """A fresh kernel."""
        files = await asyncio.to_thread(lambda: list(program_files(self._base_dir, self._rules.files)))
        shell = KernelShell(await asyncio.to_thread(with_readable, self._rules, self._base_dir))
        self._shells.add(shell)
        await shell.begin()
        for name, path in files:
            await shell.write_file(name, await asyncio.to_thread(path.read_bytes))
        return shell

    async def close(self) -> None:
        """End all kernels."""
        for shell in tuple(self._shells):
            await shell.close()
        self._shells.clear()


class KernelShell(CodeQuestions):
    """A kernel. It implements the door's Shell."""

    def __init__(self, rules: SandboxRules) -> None:
        super().__init__()
        self._rules = rules
        self._kernel: Any = None
        self._client: Any = None
        self._halt: asyncio.Event | None = None
        self._resting: asyncio.Future[None] | None = None
        self._cuts: Any = None
        self._settles = 0.0
        self._words, self._reading = Tail(), -1
        self.why = ""

    async def begin(self) -> None:
        """Start the kernel and wait until it answers. Raises ToolError."""
        client = await asyncio.to_thread(import_module, "jupyter_client")
        spec = await asyncio.to_thread(find_spec, self._rules.kernel)
        self._language = str(spec.language).lower()
        rules = self._rules
        spec.metadata = confined(spec.metadata, rules)
        self._kernel = client.AsyncKernelManager(kernel_name=rules.kernel)
        self._kernel._kernel_spec = spec
        self._kernel.context.setsockopt(import_module("zmq").RCVHWM, MOST_WAITING)  # it has a socket besides those of its clients
        writing = self._listen()
        try:
            try:
                await self._kernel.start_kernel(stdout=writing, stderr=writing)
            finally:
                os.close(writing)
            self._client = self._connected()
            await self._answering()
        except (PersonError, OSError, RuntimeError, TimeoutError, ValueError) as error:
            self._heard()
            await self.close()
            found = f"the kernel {rules.kernel} did not start: {error}"
            raise ToolError(found, place="sandbox", step=self._words.last_words()) from error

    def _listen(self) -> int:
        """A pipe for what it writes besides its messages: nothing for this notebook's own output, its last words are kept for errors."""
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        asyncio.get_running_loop().add_reader(self._reading, self._heard)
        return writing

    def _heard(self) -> None:
        if self._reading < 0:
            return
        try:
            data = os.read(self._reading, AT_ONCE)
        except BlockingIOError:
            return
        if data:
            self._words.add(data)
        else:
            self._stop_listening()

    def _stop_listening(self) -> None:
        if self._reading >= 0:
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)
            self._reading = -1

    async def _answering(self) -> None:
        """Wait until it answers on both ways: what a kernel shows before somebody listens is lost."""
        last, heard, answered = time.monotonic() + START_S, False, False
        while not (heard and answered):
            if time.monotonic() > last:
                raise TimeoutError(f"no answer within {START_S:g} s")
            if not await self._kernel.is_alive():
                raise RuntimeError("its process ended")
            self._client.kernel_info()
            answered = answered or await next_message(self._client.shell_channel, BEAT_S) is not None
            heard = heard or await next_message(self._client.iopub_channel, BEAT_S) is not None
        while await next_message(self._client.shell_channel, 0.05) is not None:
            continue
        self._rest()

    def _connected(self) -> Any:
        """A client; no message to it is beyond what may be kept (meter)."""
        zmq, client = import_module("zmq"), self._kernel.client()
        client.context.setsockopt(zmq.RCVHWM, MOST_WAITING)
        client.start_channels(hb=False)
        self._cuts = client.iopub_channel.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        return client

    async def _cut_off(self) -> bool:
        """Whether the connection was cut since the last time, as it is where a message is too large; it makes itself again."""
        if not await self._cuts.poll(0):
            return False
        await self._cuts.recv_multipart()
        self._settles = time.monotonic() + SETTLES_S
        return True

    def _rest(self) -> None:
        """Read and forget what is shown between the cells, not too fast: a kernel drops what nobody reads, and with it later outputs."""
        self._resting = asyncio.ensure_future(self._drained(self._client.iopub_channel))

    async def _drained(self, channel: Any) -> None:
        while True:
            message = await next_message(channel, QUIET_S)
            if message is not None and message.kind != "status":
                self._settles = time.monotonic() + SETTLES_S
            await asyncio.sleep(PAUSE_S + (message.size / BETWEEN_BYTES_S if message is not None else 0.0))

    async def _woken(self) -> None:
        """Between cells no more: what is left from then is read at once, as far as that ends."""
        if self._resting is not None:
            self._resting.cancel()
            await asyncio.gather(self._resting, return_exceptions=True)
            self._resting, last = None, time.monotonic() + DRAIN_S
            await self._cut_off()
            while (now := time.monotonic()) < last:
                if await next_message(self._client.iopub_channel, max(0.0, self._settles - now)) is None:
                    return
                if self._settles > now:
                    self._settles = now + SETTLES_S

    @property
    def alive(self) -> bool:
        """Whether cells can be run."""
        return self._client is not None and not self.why

    async def run(self, code: str, *, timeout_s: float, on_output: OutputReader | None = None) -> Ran:
        """Run a cell."""
        async with self._lock:
            outputs = Outputs(self._rules.output_mb * 1_000_000, on_output)
            return await self._run(code, timeout_s, outputs, silent=False)

    async def _run(self, code: str, timeout_s: float, outputs: Outputs, *, silent: bool) -> Ran:
        if not self.alive:
            return Ran(status="died", notes=(f"The session is over: {self.why or 'it was closed'}.",))
        await self._woken()
        began, self._halt = time.monotonic(), asyncio.Event()
        halt, before, pid = self._halt, used(self._pid), self._pid
        running = asyncio.ensure_future(self._taken(code, outputs, silent=silent))
        try:
            status, notes = await self._watched(running, halt, outputs, timeout_s)
        except asyncio.CancelledError:
            await asyncio.shield(self._stop(running))
            raise
        finally:
            self._halt = None
            if self.alive:
                self._rest()
        took = round(time.monotonic() - began, 6)
        return Ran(status=status, outputs=outputs.kept(), notes=(*notes, *outputs.notes), duration_s=took, **spent(before, used(pid)))

    @property
    def _pid(self) -> int:
        """The process that stands before the kernel's; 0 where none is known."""
        return getattr(self._kernel.provisioner, "pid", None) or 0

    async def _watched(
        self, running: asyncio.Future[str], halt: asyncio.Event, outputs: Outputs, timeout_s: float
    ) -> tuple[Any, list[str]]:
        """Status and notes of a cell, whether it ends by itself or is stopped, or the kernel ends."""
        last, asked, notes = time.monotonic() + timeout_s, False, list[str]()
        while not running.done():
            await asyncio.wait({running}, timeout=min(BEAT_S, max(0.0, last - time.monotonic())))
            if running.done():
                break
            if not await self._kernel.is_alive():
                self._heard()
                self.why = f"its process ended. {self._words.last_words(SAID_CHARS)}".strip(". ")
                running.cancel()
                return "died", [f"The session ended with this cell: {self.why}."]
            asked = halt.is_set()
            if outputs.full:
                notes = [f"The cell was stopped: {outputs.full}. What came until then is kept."]
            elif time.monotonic() >= last and not asked:
                notes = [f"The cell was stopped after {timeout_s:g} s."]
            if asked or notes:
                if not await self._stop(running, FLOOD_GRACE_S if outputs.full else GRACE_S):
                    return "died", [*notes, f"The session ended with this cell: {self.why}."]
                return ("interrupted" if asked or outputs.full else "timed_out"), notes
        status = running.result()
        return status, [f"The session ended with this cell: {self.why}."] if status == "died" else notes

    async def _taken(self, code: str, outputs: Outputs, *, silent: bool) -> str:
        """Have the kernel run a cell: how it ended. Just after an error some kernels drop what is asked of them; they are asked again."""
        while True:
            request = self._client.execute(code, silent=silent, store_history=not silent, allow_stdin=False, stop_on_error=False)
            if (status := await self._through(request, outputs)) != DROPPED:
                return status
            await asyncio.sleep(BEAT_S)

    async def _through(self, request: str, outputs: Outputs) -> str:
        """Take what comes for a cell until it is over: how it ended. It is over with its reply; that it is idle a kernel may say early.

        A kernel drops what it shows where it shows too much, also that it is idle; then its reply says that the cell is over.
        """
        status, idle, reply = "ok", False, asyncio.ensure_future(self._replied(request))
        try:
            while True:
                if idle and not reply.done():
                    await asyncio.wait({reply}, timeout=BEAT_S)
                message = await next_message(self._client.iopub_channel, 0 if idle else QUIET_S)
                if await self._cut_off():
                    outputs.cut_off()
                if message is None and reply.done():
                    if not idle and not reply.result():
                        outputs.missed(LOST)
                    return reply.result() or status
                if message is None:
                    continue
                if message.parent != request:
                    outputs.passed(message.size)
                elif message.kind == "error":
                    status = self._failed(message.content)
                try:
                    if message.parent == request and message.kind == "status":
                        idle = idle or read_status(message.content) == "idle"
                    elif message.parent == request:
                        take(outputs, message.kind, message.content)
                except (ValueError, RecursionError):  # it is no such message
                    outputs.passed(message.size)
        finally:
            reply.cancel()

    def _failed(self, content: bytes) -> str:
        with contextlib.suppress(ValueError, RecursionError):
            if self._asked and msgspec.json.decode(content, type=Failure).ename == "KeyboardInterrupt":
                return "interrupted"
        return "error"

    async def _replied(self, request: str) -> str:
        """Wait for the reply to a cell: died where the kernel ends with it, as `exit()` asks, or whether it was dropped."""
        while True:
            message = await next_message(self._client.shell_channel, QUIET_S)
            if message is not None and message.parent == request:
                reply = read_reply(message.content)
                if any(one.source == "ask_exit" and not one.keepkernel for one in reply.payload):
                    self.why = "it was told to exit"
                    return "died"
                return DROPPED if reply.status == DROPPED else ""

    @property
    def _asked(self) -> bool:
        return self._halt is not None and self._halt.is_set()

    async def _stop(self, running: asyncio.Future[str], grace_s: float = GRACE_S) -> bool:
        """Interrupt; what does not listen is killed. Whether the session goes on."""
        await self._kernel.interrupt_kernel()
        await asyncio.wait({running}, timeout=grace_s)
        if running.done():
            return True
        running.cancel()
        self.why = f"it did not stop within {grace_s:g} s when it was interrupted, and was killed"
        await self._end()
        return False

    async def interrupt(self) -> None:
        """Stop the cell that runs, or is about to."""
        if self._halt is None:
            await asyncio.sleep(0)
        if self._halt is not None:
            self._halt.set()

    async def keep(self) -> Checkpoint | None:
        """None: a kernel cannot be copied."""
        return None

    async def close(self) -> None:
        """End the kernel."""
        self.why = self.why or "it was closed"
        await self._end()

    async def _end(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
        client, kernel, self._client = self._client, self._kernel, None
        self._stop_listening()
        if client is not None:
            client.stop_channels()
        if kernel is not None and kernel.has_kernel:
            await kernel.shutdown_kernel(now=True)
