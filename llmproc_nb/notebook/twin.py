"""Views that live while their kernel does and are static in the saved notebook.

A live view publishes two outputs: its static twin, which is what the file keeps, and a widget. Where the front end is JupyterLab the widget
moves into the place of the twin and its own output is emptied, so that the file holds no widget whose kernel is gone; elsewhere the widget
stands below. Here: how views are published, and the timer of what is shown while calls run. Not here: what any view shows.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmproc_nb.core.machine import Machine

VIEW_TYPE = "application/vnd.jupyter.widget-view+json"
TWIN = "llmproc-twin"
EVERY_S = 0.25


def is_live_here() -> bool:
    """Whether the running cell is shown by a front end that also takes what comes later: updates and widgets."""
    from IPython.core.getipython import get_ipython

    ip = get_ipython()
    notebook = getattr(ip, "llmproc", None)
    if notebook is None or not hasattr(ip, "kernel"):
        return False
    settings = notebook.settings
    replays = settings.mode == "replay" and settings.stream == "auto" and "LLMPROC_NB_STREAM" not in os.environ
    return bool(settings.streams or (replays and notebook.cell is not None))


class TwinView:
    """A view with a static twin. Subclasses say what the twin is and make the widget."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        raise NotImplementedError

    def widget(self) -> Any:
        """A new widget of this view."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        if not is_live_here():
            raise NotImplementedError  # IPython then shows the twin, and nothing else
        publish(self._repr_mimebundle_(), self.widget())


def twin_html(inner: str) -> str:
    """The HTML of a static twin, in whose place its widget may stand."""
    return f'<div class="{TWIN}">\n{inner}\n</div>'


def publish(bundle: dict[str, Any], widget: Any) -> None:
    """Show a static twin and the widget that takes its place."""
    from IPython.display import DisplayHandle, display

    display(bundle, raw=True)  # type: ignore[no-untyped-call]
    handle = DisplayHandle()  # type: ignore[no-untyped-call]
    handle.display({VIEW_TYPE: _view(widget.model_id)}, raw=True)  # type: ignore[no-untyped-call]
    widget.when_placed = lambda: handle.update({VIEW_TYPE: _view("")}, raw=True)  # type: ignore[no-untyped-call]


def _view(model_id: str) -> dict[str, Any]:
    return {"version_major": 2, "version_minor": 0, "model_id": model_id}


@cache
def widget_type() -> type[Any]:
    """The base of our widgets: `take(kind, message)` gets what the front end asks for, one thing at a time."""
    import anywidget
    import traitlets

    class Widget(anywidget.AnyWidget):  # type: ignore[misc]
        """`note` is one line about the last thing asked for."""

        _css = source("widget.css")
        note = traitlets.Dict().tag(sync=True)

        def __init__(self, **traits: Any) -> None:
            self.when_placed: Callable[[], Any] = lambda: None
            super().__init__(note={"text": "", "bad": False}, **traits)
            self.on_msg(self._asked)

        def _asked(self, _: Any, message: Any, buffers: Any) -> None:
            kind = message.get("kind") if isinstance(message, dict) else None
            if kind == "placed":
                self.when_placed()
            elif kind == "gone":
                self.close()
            elif isinstance(kind, str):
                self.take(kind, message)

        def take(self, kind: str, message: dict[str, Any]) -> None:
            raise NotImplementedError

        def tell(self, text: str = "", *, bad: bool = False) -> None:
            """Show a line below; an empty one takes it away."""
            self.note = {"text": text, "bad": bad}

    return Widget


@cache
def source(name: str) -> str:
    """A file beside this one, as text."""
    return Path(__file__).with_name(name).read_text("utf-8")


def pulse(machine: Machine, show: Callable[[], Any], every_s: float = EVERY_S) -> None:
    """Call `show` again and again while a process runs, and once more when none does any longer. It finds the caller's cell."""
    where = contextvars.copy_context()
    loop = machine.owner.loop

    def beat() -> None:
        runs = is_running(machine)
        show()
        if runs:
            loop.call_later(every_s, beat, context=where)

    asyncio.run_coroutine_threadsafe(_at(loop, every_s, beat, where), loop)


async def _at(loop: asyncio.AbstractEventLoop, wait_s: float, function: Callable[[], Any], where: contextvars.Context) -> None:
    loop.call_later(wait_s, function, context=where)


def is_running(machine: Machine) -> bool:
    """Whether a call runs on the machine, or waits for its turn."""
    return any(not call.done() for process in tuple(machine.processes.values()) for call in process.calls)
