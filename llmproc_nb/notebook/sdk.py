"""The SDK that the next cell needs, imported quietly and a little before: that cell would wait a second for it.

Here: which one, and when. Not here: what is spoken through it (drivers).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llmproc_nb.core.errors import PersonError
from llmproc_nb.drivers.table import load, sdk_of, sdks_with_key

if TYPE_CHECKING:
    from llmproc_nb.notebook.notebook import Notebook

DELAY_S = 0.5


def import_for_keys(notebook: Notebook) -> None:
    """Those whose key is set or stands in `.env`, of which nothing is set for it."""
    folder = Path.cwd()

    def wanted() -> Iterable[str]:
        return sdks_with_key({**load("llmproc_nb.drivers.enrich:load_env")(folder, os.environ), **os.environ})

    _later(notebook, wanted)


def import_for(notebook: Notebook, provider: str) -> None:
    """The one through which a provider is asked that was chosen for processes to come."""
    if (sdk := sdk_of(provider)) is not None:
        _later(notebook, lambda: (sdk,))


def _later(notebook: Notebook, wanted: Callable[[], Iterable[str]]) -> None:
    def run() -> None:
        if notebook.settings.mode == "replay":  # no model is asked
            return
        with suppress(PersonError, ImportError):  # whoever needs it is told
            for name in wanted():
                __import__(name)

    timer = threading.Timer(DELAY_S, run)
    timer.daemon = True
    timer.start()
