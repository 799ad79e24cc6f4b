"""Who hears of a call while it runs: the log, the live view, callbacks. One that raises is taken off, and the call goes on.

Here: the base of Run. Not here: the loop itself.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from llmproc_nb.core.errors import LogError
from llmproc_nb.core.event import Event, ReaderFailed
from llmproc_nb.core.log import EventReader
from llmproc_nb.core.message import clean
from llmproc_nb.core.provider import Delta, DeltaReader

if TYPE_CHECKING:
    from llmproc_nb.core.process import Process

E = TypeVar("E", bound=Event)


class Told:
    """A call and those who read along. `notes` are for the person; `unkept` is an event that the log could not take yet."""

    def __init__(
        self,
        process: Process,
        number: int,
        cell: str | None,
        *,
        callbacks: Mapping[str, Callable[..., Any]] | None,
        on_delta: DeltaReader | None,
        on_event: EventReader | None,
    ) -> None:
        self.process, self.machine, self.number, self.cell = process, process.machine, number, cell
        self._callbacks, self._on_delta, self._on_event = dict(callbacks or {}), on_delta, on_event
        self.notes: list[str] = []
        self.unkept: LogError | None = None

    def write(self, kind: type[E], **fields: Any) -> E:
        event = self.machine.log.write(kind, pid=self.process.pid, call=self.number, cell=self.cell, **fields)
        self.unkept = None  # the store writes what waited before anything else
        self._show(self._on_event, event)
        return event

    def keep(self, kind: type[E], **fields: Any) -> int:
        """Write what has happened already, and give its seq; 0 where the log cannot take it now, which ends the call at its next step."""
        try:
            return self.write(kind, **fields).seq
        except LogError as error:
            self.unkept = self.unkept or error
            return 0

    def check_log(self) -> None:
        """Raises LogError where something that happened is not on disk."""
        if self.unkept is not None:
            raise self.unkept

    @property
    def hears(self) -> bool:
        """Whether there is a live view."""
        return self._on_delta is not None

    def delta(self, delta: Delta) -> None:
        """Pass a piece of a reply on to the live view."""
        self._show(self._on_delta, delta)

    def _show(self, reader: Callable[[Any], None] | None, what: Any) -> None:
        if reader is None:
            return
        try:
            reader(what)
        except (
            Exception,
            SystemExit,
            KeyboardInterrupt,
        ) as error:  # the view is a reader like any other: foreign code that must not stop the call
            self._on_delta = self._on_event = None
            self.write(ReaderFailed, reader="live view", error=clean(f"{type(error).__name__}: {error}"))

    async def tell(self, what: str, *values: Any) -> None:
        """Tell the callback of that name, if there is one; one that raises is taken off and the call goes on."""
        for key in (f"on_{what}", what):
            callback = self._callbacks.get(key)
            if callback is None:
                continue
            try:
                told = callback(*values)
                if inspect.isawaitable(told):
                    await told
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # a callback reads events, it does not decide what happens
                del self._callbacks[key]
                words = clean(f"{type(error).__name__}: {error}")
                self.write(ReaderFailed, reader=key, error=words)
                self.notes.append(f"the callback {key} raised {words}; it was not called again")
                if not self.hears and self.cell is None:  # nobody shows the notes
                    with suppress(RuntimeWarning):  # where warnings are errors, this one stops nothing either
                        warnings.warn(f"{self.process.name}: {self.notes[-1]}", RuntimeWarning, stacklevel=2)
