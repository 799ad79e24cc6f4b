"""Messages of other kernels, read as outputs of a cell; and the kernelspecs that there are, confined.

All of them are hostile, also in their form: nothing is decoded before it is known to be of the cell, and of its data only what is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import SandboxRules
from llmproc_nb.drivers.sandbox.outputs import Outputs
from llmproc_nb.drivers.sandbox.said import Shown

PROVISIONER = "llmproc-sandbox"
LIMITS = ("memory_mb", "disk_mb", "cpu_s", "processes")
DELIMITER = b"<IDS|MSG>"
MOST_HEADER = 1 << 16
MOST_REPLY = 1 << 20
AROUND_MB = 17
"""What a message may have besides the most that may be kept of it."""
KINDS = {"display_data", "update_display_data", "execute_result"}


class Message(msgspec.Struct, frozen=True):
    """A message: its kind, the request that it is for, its content as it came, and its size. One that cannot be read has no kind."""

    kind: str = ""
    parent: str = ""
    content: bytes = b""
    size: int = 0


class _Header(msgspec.Struct, frozen=True):
    msg_type: str = ""
    msg_id: str = ""


class Status(msgspec.Struct, frozen=True):
    execution_state: str = ""


class Payload(msgspec.Struct, frozen=True):
    source: str = ""
    keepkernel: bool = False


class Reply(msgspec.Struct, frozen=True):
    status: str = ""
    payload: list[Payload] = []


class Failure(msgspec.Struct, frozen=True):
    ename: str
    evalue: str
    traceback: list[str]


class _Text(msgspec.Struct, frozen=True):
    name: Literal["stdout", "stderr"]
    text: str


class _Clear(msgspec.Struct, frozen=True):
    wait: bool = False


class _Transient(msgspec.Struct, frozen=True):
    display_id: str | int | None = None


class _Display(msgspec.Struct, frozen=True):
    data: msgspec.Raw
    transient: _Transient | None = None


def find_spec(name: str) -> Any:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        return KernelSpecManager().get_kernel_spec(name)
    except NoSuchKernel as error:
        known = ", ".join(sorted(KernelSpecManager().find_kernel_specs())) or "none"
        raise ToolError(f"there is no kernel {name}", place="[sandbox] kernel", right=f"there are: {known}") from error


def confined(metadata: Mapping[str, Any], rules: SandboxRules) -> dict[str, Any]:
    """The metadata of a kernelspec whose kernel is confined by these rules.

    What it says itself for the same provisioner is kept where the rules have their defaults; but tier and hosts are those of the rules,
    so that no spec makes a sandbox weaker than its program says.
    """
    own = metadata.get("kernel_provisioner", {})
    said = own.get("config", {}) if own.get("provisioner_name") == PROVISIONER else {}
    limits = {name: getattr(rules, name) for name in LIMITS if name not in said or getattr(rules, name) != getattr(SandboxRules(), name)}
    readable, env = [*said.get("readable", ()), *rules.readable], {**said.get("env", {}), **rules.env}
    limits["message_mb"] = rules.output_mb + AROUND_MB
    config = {**said, **limits, "tier": rules.tier, "hosts": list(rules.hosts), "readable": readable, "env": env}
    return {**metadata, "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": config}}


async def next_message(channel: Any, timeout_s: float) -> Message | None:
    """The next message of a channel; None where none came."""
    if not await channel.socket.poll(int(timeout_s * 1000)):
        return None
    return read(await channel.socket.recv_multipart())


def read(parts: list[bytes]) -> Message:
    """A message from its parts."""
    size = sum(map(len, parts))
    try:
        _, header, parent, _, content, *_ = parts[parts.index(DELIMITER) + 1 :]
        if max(len(header), len(parent)) > MOST_HEADER:
            return Message(size=size)
        kind, request = msgspec.json.decode(header, type=_Header).msg_type, msgspec.json.decode(parent, type=_Header).msg_id
        return Message(kind, request, content, size)
    except (ValueError, RecursionError):  # also what msgspec raises
        return Message(size=size)


def read_status(content: bytes) -> str:
    """What a kernel says that it does."""
    return msgspec.json.decode(content, type=Status).execution_state


def read_reply(content: bytes) -> Reply:
    """The reply to a cell; one that is no such thing, or is far too long, says nothing."""
    try:
        return msgspec.json.decode(content, type=Reply) if len(content) <= MOST_REPLY else Reply()
    except (ValueError, RecursionError):
        return Reply()


def take(outputs: Outputs, kind: str, content: bytes) -> None:
    """An output of a kernel, as one of the cell's. Raises ValueError where it is none."""
    if kind == "stream":
        text = msgspec.json.decode(content, type=_Text)
        outputs.text(text.name, text.text.encode("utf-8", "replace"))
    elif kind == "clear_output":
        outputs.clear(wait=msgspec.json.decode(content, type=_Clear).wait)
    elif kind == "error":
        error = msgspec.json.decode(content, type=Failure)
        outputs.shown(Shown(kind="error"), msgspec.json.encode({"name": error.ename, "text": error.evalue, "trace": error.traceback}))
    elif kind in KINDS:
        shown = msgspec.json.decode(content, type=_Display)
        name = str((shown.transient and shown.transient.display_id) or "")[:200]
        what: Literal["execute_result", "display_data"] = "execute_result" if kind == "execute_result" else "display_data"
        outputs.shown(Shown(kind=what, display_id=name, update=kind.startswith("update")), bytes(shown.data))
