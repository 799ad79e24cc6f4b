"""The widget of an ask: buttons that let a tool call run or not. It only shows and sends; what is decided is said in ask.py, how it is
drawn in askwidget.js.

Every text is put in as text, never as HTML. The view says `shown` when it stands in a page, so that the kernel knows that somebody can
see it; the buttons take no click in the first moment, so that a click meant for something else decides nothing.
"""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets


class AskWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """Shows one ask. Sends {"kind": "shown" | "allow" | "always" | "refuse" | "edit", "text": …}; is told {"text": …} of a wrong edit."""

    _esm = Path(__file__).with_name("askwidget.js").read_text(encoding="utf-8")
    title = traitlets.Unicode().tag(sync=True)
    description = traitlets.Unicode().tag(sync=True)
    arguments = traitlets.Unicode().tag(sync=True)
    json = traitlets.Unicode().tag(sync=True)
    waiting = traitlets.Unicode().tag(sync=True)
    once = traitlets.Bool().tag(sync=True)
