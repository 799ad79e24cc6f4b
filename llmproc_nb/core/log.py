"""The log: all events of one machine in order, and who reads them. What it looks like on disk is a driver's matter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, TypeVar

from llmproc_nb.core.event import AnyEvent, Event, ReaderFailed
from llmproc_nb.core.message import clean

EventReader: TypeAlias = Callable[[AnyEvent], None]
E = TypeVar("E", bound=Event)


class Store(Protocol):
    """Keeps events beyond the process's life. The log calls it before anyone else sees an event."""

    def write(self, event: AnyEvent) -> None:
        """Keep the event, or raise LogError and keep it for the next try: no event may be lost or written twice."""
        ...

    def close(self) -> None: ...


class Log:
    """All events so far, oldest first. Events may come from any thread; each reader sees each event once, in order."""

    def __init__(self, now_ns: Callable[[], int], store: Store | None = None) -> None:
        self.events: list[AnyEvent] = []
        self.store = store
        self.now_ns = now_ns
        self._readers: list[EventReader] = []
        self._lock = threading.RLock()

    def write(self, kind: type[E], **fields: Any) -> E:
        """Make an event, keep it, tell the readers. Raises LogError when the store cannot keep it."""
        with self._lock:
            return self.put(kind(seq=self.next_seq, time_ns=self.now_ns(), **fields))

    def put(self, event: E) -> E:
        """The same for an event that was made `alone` with `next_seq` and `now_ns`: cheaper, for what happens by the thousand."""
        self.events.append(event)  # type: ignore[arg-type]
        if self.store is not None:
            self.store.write(event)  # type: ignore[arg-type]
        if self._readers:
            for reader in tuple(self._readers):
                self._tell(reader, event)  # type: ignore[arg-type]
        return event

    @property
    def next_seq(self) -> int:
        return len(self.events) + 1

    def alone(self) -> AbstractContextManager[Any]:
        """While one thread does several things of which the others may see all or nothing: nobody else writes meanwhile."""
        return self._lock

    def _tell(self, reader: EventReader, event: AnyEvent) -> None:
        try:
            reader(event)
        except (
            Exception,
            SystemExit,
            KeyboardInterrupt,
        ) as error:  # a reader is foreign code: it must stop neither the call nor the other readers
            self.remove(reader)
            name = getattr(reader, "__qualname__", type(reader).__name__)
            self.write(ReaderFailed, pid=event.pid, call=event.call, reader=name, error=clean(f"{type(error).__name__}: {error}"))

    def add(self, reader: EventReader) -> None:
        """Let a reader see all events from now on; one that raises is taken off and the fact is logged."""
        with self._lock:
            self._readers.append(reader)

    def remove(self, reader: EventReader) -> None:
        with self._lock:
            if reader in self._readers:
                self._readers.remove(reader)
