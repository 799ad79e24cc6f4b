"""What a model saw: the exact messages of one request, read from a log, whatever became of the dialog afterwards.

`seen(log)` lists the requests, `seen(log, 7)` gives the messages of the seventh. Not here: the frames of a whole log (frames).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.event import AnyEvent, Asked, Replied
from llmproc_nb.core.message import Message
from llmproc_nb.core.record import Kinds, declared, processes
from llmproc_nb.notebook.frames import INT, TEXT, WORD, frame, read_log
from llmproc_nb.notebook.pasttree import Table, Tree, columns_of, message_text

if TYPE_CHECKING:
    import pandas as pd

REQUESTS: dict[str, tuple[str, str]] = {
    "step": (INT, "number of the request, from 1"),
    "process": (WORD, "who asked"),
    "call": (INT, "the call it belongs to"),
    "messages": (INT, "how many messages went out, the system prompt included"),
    "last": (TEXT, "the words of the last one"),
    "input_tokens": (INT, "what they came to; missing where no reply came"),
    "model": (WORD, "who was asked"),
    "cell": (TEXT, "the cell it came from"),
    "node": (TEXT, "the last message"),
    "seq": (INT, "the event"),
}
MESSAGES: dict[str, tuple[str, str]] = {
    "depth": (INT, "how many messages are before it"),
    "role": (WORD, "system, user, assistant or tool"),
    "text": (TEXT, "its words; of tool results: theirs"),
    "parts": (TEXT, "kinds of its parts, in order, joined by commas"),
    "number": (INT, "its number, as in msg_7; missing for the system prompt and what an older log had"),
    "process": (WORD, "the process that brought it"),
    "call": (INT, "the call that brought it"),
    "node": (TEXT, "its id"),
    "content": (TEXT, "all of it, as JSON"),
}


def seen(log: Any, step: int | None = None, *, process: str | None = None, call: int | None = None) -> pd.DataFrame:
    """The messages that went out with request number `step`, or a list of all requests where none is named.

    `log` is a machine, a process, a log on disk or its path, or events. Requests are counted from 1 in the order in which they went out,
    -1 is the last; of one process or one call only, where that is named. An attempt that was repeated counts once, and so does what a
    process asked beside its dialog (summaries). `attrs` of the frame hold model, tools and settings. Raises PersonError.
    """
    events, process = _events(log, process)
    kinds = Kinds(events)
    names = {pid: one.name for pid, one in processes(kinds).items()}
    if process is not None and process not in names.values():
        raise PersonError(f"there is no process {process!r} in the log", place="seen", right=f"there are {', '.join(names.values())}")
    asked = [
        event
        for event in kinds.of(Asked)
        if event.attempt == 1 and (process is None or names.get(event.pid) == process) and (call is None or event.call == call)
    ]
    tree = Tree(kinds)
    if step is None:
        return frame(_requests(asked, kinds, tree, names), REQUESTS)
    made = frame(_messages(_chosen(asked, step), tree, names), MESSAGES)
    made.attrs.update(_how(_chosen(asked, step), kinds, names))
    return made


def _events(log: Any, process: str | None) -> tuple[Iterable[AnyEvent], str | None]:
    """The events behind whatever was given, and the process that was meant."""
    if isinstance(log, str | Path):
        return read_log(log).events, process
    if hasattr(log, "machine"):
        return tuple(log.machine.log.events), process or log.name
    log = getattr(log, "log", log)
    return tuple(getattr(log, "events", log)), process


def _chosen(asked: list[Asked], step: int) -> Asked:
    at = step - 1 if step > 0 else step + len(asked)
    if step == 0 or not 0 <= at < len(asked):
        right = f"requests 1 to {len(asked)} went out" if asked else "no request went out"
        raise PersonError(f"there is no step {step}", place="seen", right=right)
    return asked[at]


def _path(node: str | None, tree: Tree) -> list[tuple[Any, Message]]:
    """The events and messages from the root to a node. Raises PersonError where the log does not have them all."""
    path = []
    while node is not None:
        if node not in tree.found:
            raise PersonError(f"node {node[:8]} is missing in the log", place="seen", right="a log holds all messages of its requests")
        path.append(tree.found[node])
        node = tree.found[node][0].parent
    path.reverse()
    return path


def _messages(asked: Asked, tree: Tree, names: dict[int, str]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for event, message in _path(asked.node, tree):
        kinds = ", ".join(str(part.__struct_config__.tag) for part in message.parts)
        brought = names.get(event.pid), event.call
        content = msgspec.json.encode(message).decode()
        rows.append((len(rows), message.role, message_text(message), kinds, event.number, *brought, event.node, content))
    return columns_of(" ".join(MESSAGES), rows)


def _requests(asked: list[Asked], kinds: Kinds, tree: Tree, names: dict[int, str]) -> Table:
    replies = {(event.lineage, event.digest, event.sibling): event for event in kinds.of(Replied)}
    models = {config: event.model for config, event in declared(kinds).items()}
    rows = []
    for number, event in enumerate(asked, 1):
        reply = replies.get((event.lineage, event.digest, event.sibling))
        depth = tree.depth.get(event.node)
        rows.append(
            (
                number,
                names.get(event.pid),
                event.call,
                None if depth is None else depth + 1,
                tree.text(event.node),
                reply.usage.input_tokens if reply else None,
                models.get(event.config),
                event.cell,
                event.node,
                event.seq,
            )
        )
    return columns_of(" ".join(REQUESTS), rows)


def _how(asked: Asked, kinds: Kinds, names: dict[int, str]) -> dict[str, Any]:
    """How it was asked: by whom, which model, with which tools and settings."""
    config = declared(kinds).get(asked.config)
    settings = msgspec.to_builtins(config.settings) if config is not None else {}
    tools = [tool.name for tool in config.tools] if config is not None else []
    return {
        "process": names.get(asked.pid),
        "call": asked.call,
        "model": config.model if config else None,
        "tools": tools,
        "settings": settings,
    }
