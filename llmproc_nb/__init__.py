"""Agents as processes, inside a Jupyter notebook.

    %load_ext llmproc_nb

    %%agent scout --program programs/quickstart.toml
    Which of the columns in {{df}} look wrong?

In Python: `from llmproc_nb import Process; print(Process.from_toml("program.toml").run("Hello"))`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> where it lives; imported with its first use, so that `import llmproc_nb` costs next to nothing
_NAMES = {
    "Process": "api:Process",
    "LLMProcess": "api:Process",
    "Program": "api:Program",
    "LLMProgram": "api:Program",
    "Machine": "api:Machine",
    "default_machine": "api:default_machine",
    "new_machine": "api:new_machine",
    "Call": "core.call:Call",
    "RunResult": "core.result:RunResult",
    "Usage": "core.usage:Usage",
    "Limits": "core.usage:Limits",
    "Settings": "core.provider:Settings",
    "Tool": "core.tool:Tool",
    "Toolset": "core.tool:Toolset",
    "tool": "drivers.schema:tool",
    "Message": "core.message:Message",
    "Text": "core.message:Text",
    "Image": "core.message:Image",
    "Document": "core.message:Document",
    "Node": "core.dialog:Node",
    "LlmprocError": "core.errors:LlmprocError",
    "ToolError": "core.errors:ToolError",
    "Recording": "drivers.replay:Recording",
    "read_log": "notebook.frames:read_log",
}
__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension", *_NAMES]

if TYPE_CHECKING:
    from llmproc_nb.api import Machine, Process, Program, default_machine, new_machine
    from llmproc_nb.core.call import Call
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.errors import LlmprocError, ToolError
    from llmproc_nb.core.message import Document, Image, Message, Text
    from llmproc_nb.core.provider import Settings
    from llmproc_nb.core.result import RunResult
    from llmproc_nb.core.tool import Tool, Toolset
    from llmproc_nb.core.usage import Limits, Usage
    from llmproc_nb.drivers.replay import Recording
    from llmproc_nb.drivers.schema import tool
    from llmproc_nb.notebook.frames import read_log

    LLMProcess, LLMProgram = Process, Program


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _NAMES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(ip: Any) -> None:
    """`%load_ext llmproc_nb`: the magics, the views of results, completion."""
    from llmproc_nb.notebook.extension import load

    load(ip)


def unload_ipython_extension(ip: Any) -> None:
    from llmproc_nb.notebook.extension import unload

    unload(ip)
