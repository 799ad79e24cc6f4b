"""What `%load_ext llmproc_nb` does, and undoes: magics, `await` cells, views of results, completion. Imports no SDK and no pandas."""

from __future__ import annotations

import re
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

ATTRIBUTE, KEPT = "llmproc", "llmproc_kept"
MAGICS = (
    "llmproc_nb.notebook.magics:AgentMagics",
    "llmproc_nb.notebook.syscalls:SyscallMagics",
    "llmproc_nb.notebook.sandboxmagics:SandboxMagics",
)
"""The classes of magics, each made with the shell and its notebook. The first one holds the options."""
_CELL = re.compile(r"get_ipython\(\)\.run_cell_magic\((['\"])(agent|fork)\1,")
_RUNS = {"agent": "agent_cells", "fork": "fork_cells"}


def load(ip: InteractiveShell) -> None:
    """Load into a shell; loading twice is loading once, and a load after an unload takes up what was there."""
    if getattr(ip, ATTRIBUTE, None) is not None:
        return
    from llmproc_nb import api
    from llmproc_nb.drivers.table import load as named
    from llmproc_nb.notebook import sdk
    from llmproc_nb.notebook.notebook import Notebook

    kept = getattr(ip, KEPT, None)
    if kept is None:
        notebook = Notebook(ip)
        made = [named(name)(ip, notebook) for name in MAGICS]
        notebook.settings = made[0]
    else:
        notebook, made = kept
        notebook.settings.read_environment()
    setattr(ip, ATTRIBUTE, notebook)
    setattr(ip, KEPT, (notebook, made))
    notebook.undo = [
        api.make_default_with(lambda: notebook.machine),
        _magics(ip, made),
        _transform(ip, notebook),
        _watch_cells(ip, notebook),
        _show_results(ip),
        _complete(ip, notebook, made),
    ]
    sdk.import_for_keys(notebook)


def unload(ip: InteractiveShell) -> None:
    """Take everything back but the machine and the settings: its processes go on in Python, and the next load takes them up."""
    notebook = getattr(ip, ATTRIBUTE, None)
    if notebook is None:
        return
    for undo in reversed(notebook.undo):
        undo()
    notebook.leave_cell()
    setattr(ip, ATTRIBUTE, None)


def _magics(ip: InteractiveShell, made: list[Any]) -> Any:
    """Register the magics; gives what takes them back."""
    ip.register_magics(*made)
    ip.configurables += [one for one in made if one not in ip.configurables]  # those that are new have done it themselves

    def undo() -> None:
        for kind in ("line", "cell"):
            magics = ip.magics_manager.magics[kind]
            for name in [name for name, function in magics.items() if getattr(function, "__self__", None) in made]:
                del magics[name]
        ip.configurables[:] = [one for one in ip.configurables if one not in made]

    return undo


def _transform(ip: InteractiveShell, notebook: Any) -> Any:
    """Make an outermost `%%agent` or `%%fork` cell an `await` cell, so that the kernel's loop stays free while it runs."""

    def rewrite(lines: list[str]) -> list[str]:
        source = "".join(lines)
        found = _CELL.match(source)
        if notebook.in_cell or not ip.autoawait or found is None:
            return lines
        return [_CELL.sub(f"await get_ipython().{ATTRIBUTE}.{_RUNS[found[2]]}.run(", source, count=1)]

    rewrite.has_side_effects = False  # type: ignore[attr-defined]
    ip.input_transformers_post.append(rewrite)
    return lambda: ip.input_transformers_post.remove(rewrite)


def _watch_cells(ip: InteractiveShell, notebook: Any) -> Any:
    ip.events.register("pre_run_cell", notebook.cell_begins)
    ip.events.register("post_run_cell", notebook.cell_ends)

    def undo() -> None:
        ip.events.unregister("pre_run_cell", notebook.cell_begins)
        ip.events.unregister("post_run_cell", notebook.cell_ends)

    return undo


def _show_results(ip: InteractiveShell) -> Any:
    """Show a RunResult or a Call that is a cell's value as a turn. A Call is waited for: whoever asks to see it wants the answer."""
    from llmproc_nb.core.call import Call
    from llmproc_nb.core.process import Process
    from llmproc_nb.core.result import RunResult

    assert ip.display_formatter is not None
    formatter = ip.display_formatter.mimebundle_formatter

    def show_result(result: RunResult, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmproc_nb.notebook.view import bundle

        return bundle(result)

    def show_call(call: Call, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return show_result(call.result())

    def show_process(process: Process, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmproc_nb.notebook.facts import process_bundle

        return process_bundle(process)

    formatter.for_type(RunResult, show_result)
    formatter.for_type(Call, show_call)
    formatter.for_type(Process, show_process)

    def undo() -> None:
        for kind in (RunResult, Call, Process):
            formatter.pop(kind, None)

    return undo


def _complete(ip: InteractiveShell, notebook: Any, made: list[Any]) -> Any:
    from llmproc_nb.notebook.completion import install, known_of

    return install(ip, lambda: known_of(ip, notebook, made))
