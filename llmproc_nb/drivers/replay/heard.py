"""What was sent to processes while their calls ran, at the places where they read it. Not here: the question of a call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmproc_nb.core.dialog import Dialog
from llmproc_nb.core.event import AnyEvent, Called, Moved
from llmproc_nb.core.manual import PARAMETERS
from llmproc_nb.core.record import steps


@dataclass
class Heard:
    """One recorded call: the node its process stood on when it began, and the texts it read, by the node it stood on then."""

    origin: str
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)


def heard(events: Iterable[AnyEvent], dialog: Dialog) -> dict[int, Heard]:
    """What each call of a log heard, by number."""
    events = tuple(events)
    questions = {event.call: event.node for event in events if isinstance(event, Called)}
    found: dict[int, Heard] = {}
    starts: dict[str, str] = {}
    noted: set[int] = set()
    for event, nodes in steps(events):
        if event.call is None or event.call not in questions:
            continue
        for node_id in nodes:
            node = dialog.find(node_id)
            above = node.parent.id if node.parent is not None else ""
            one = found.setdefault(event.call, Heard(above))
            if node.message.role != "user" or node_id == questions[event.call] or event.pid in noted:
                noted.discard(event.pid)
                continue
            starts[node_id] = start = starts.get(above, above)
            one.texts[start] = (*one.texts.get(start, ()), node.message.text)
        if isinstance(event, Moved):
            noted.add(event.pid)  # what comes next is its own note
    return found


class Reader:
    """Goes before a Process among the bases of a class: it reads what was sent where it was read when it was recorded."""

    texts: Mapping[str, tuple[str, ...]] = {}
    head: Any
    running: Any

    @property
    def reads_fds(self) -> bool:
        """Whether its model could read on in an fd: its own tools are none, but they are in its requests."""
        return self.running is not None and any(
            spec.parameters.get("properties", {}).keys() == PARAMETERS["read_fd"].keys() for spec in self.running.config.tools
        )

    @property
    def inbox(self) -> tuple[str, ...]:
        """What is to be read where the process stands now."""
        return self.texts.get(self.head.id, ()) if self.texts else ()

    @inbox.setter
    def inbox(self, texts: tuple[str, ...]) -> None:
        """What is sent now was sent when it was recorded, and is read then."""
