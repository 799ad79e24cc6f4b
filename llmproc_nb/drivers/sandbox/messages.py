"""Messages of other kernels, read as outputs of a cell; and the kernelspecs that there are, confined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import SandboxRules
from llmproc_nb.drivers.sandbox.outputs import Outputs
from llmproc_nb.drivers.sandbox.said import Shown

PROVISIONER = "llmproc-sandbox"
LIMITS = ("memory_mb", "disk_mb", "cpu_s", "processes")
KINDS = {"display_data", "update_display_data", "execute_result"}


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
    config = {**said, **limits, "tier": rules.tier, "hosts": list(rules.hosts), "readable": readable, "env": env}
    return {**metadata, "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": config}}


async def next_message(get: Any, timeout_s: float) -> dict[str, Any] | None:
    """The next message; None where none came, or none that can be read."""
    from queue import Empty

    try:
        found: dict[str, Any] = await get(timeout=timeout_s)
        return found if all(isinstance(found[part], dict) for part in ("header", "parent_header", "content")) else None
    except (Empty, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def take(outputs: Outputs, kind: str, content: dict[str, Any]) -> None:
    """An output of a kernel, as one of the cell's."""
    if kind == "stream" and content["name"] in ("stdout", "stderr"):
        outputs.text(content["name"], content["text"].encode("utf-8", "replace"))
    elif kind == "clear_output":
        outputs.clear(wait=bool(content.get("wait")))
    elif kind == "error":
        shown = {"name": content["ename"], "text": content["evalue"], "trace": content["traceback"]}
        outputs.shown(Shown(kind="error"), msgspec.json.encode(shown))
    elif kind in KINDS:
        name = str(content.get("transient", {}).get("display_id") or "")[:200]
        said = Shown(
            kind="execute_result" if kind == "execute_result" else "display_data", display_id=name, update=kind.startswith("update")
        )
        outputs.shown(said, msgspec.json.encode(content["data"]))
