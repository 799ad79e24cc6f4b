"""How long a path is for a model, in tokens: as its replies were counted, and an estimate of the rest.

No vocabulary is at hand offline, so bytes are divided by four. Not here: what is done about it (compaction).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.event import Replied
from llmproc_nb.core.message import AnyPart, Document, Image, Message, Text, Thinking, ToolCall, parts_of
from llmproc_nb.core.provider import Config
from llmproc_nb.core.usage import Usage

if TYPE_CHECKING:
    from llmproc_nb.core.loop import Run

BYTES_PER_TOKEN = 4
IMAGE_TOKENS = 1600
MESSAGE_TOKENS = 4


def path_tokens(run: Run, node: Node, *, thorough: bool = True) -> int:
    """How long the path to a node is, in tokens: as its last reply was counted, and an estimate of what came after it.

    Where that reply was not counted, the messages before it are estimated as well; 0 if that is not to be done (`thorough`): on a long
    path it costs more than the request.
    """
    later, last = 0, last_reply(node)
    for one in node.up():
        if one is last:
            break
        later += message_tokens(one.message)
    if last is None:
        return later + config_tokens(run.config)
    usage = _usage(run, last)
    if usage is not None:
        return usage.total_tokens + later
    return later + _estimated(run, last) if thorough else 0


def _usage(run: Run, reply: Node) -> Usage | None:
    """What the request took whose reply a node is, if it was counted."""
    known = run.process.counted
    if known is not None and known[0] == reply.id:  # the usual case; the log may be long
        return known[1] if known[1].input_tokens else None
    for call in reversed(run.api_calls):
        if call.node == reply.id and call.usage.input_tokens:
            return call.usage
    for event in reversed(run.machine.log.events):
        if isinstance(event, Replied) and event.node == reply.id and event.usage.input_tokens:
            return event.usage
    return None


def _estimated(run: Run, node: Node) -> int:
    """The length of a path whose last reply was not counted: that of the last counted one on it, and an estimate of the rest."""
    replies = {one.id for one in node.up() if one.message.role == "assistant"}
    counted = {event.node: event.usage for event in run.machine.log.events if isinstance(event, Replied) and event.node in replies}
    later = 0
    for one in node.up():
        if one.id in counted and counted[one.id].input_tokens:
            return counted[one.id].total_tokens + later
        later += message_tokens(one.message)
    return later + config_tokens(run.config)


def message_tokens(message: Message) -> int:
    """An estimate of the tokens of a message."""
    return MESSAGE_TOKENS + sum(map(_part_tokens, parts_of(message)))


def _part_tokens(part: AnyPart) -> int:
    if isinstance(part, Text | Thinking):
        return _bytes(part.text) // BYTES_PER_TOKEN + 1
    if isinstance(part, ToolCall):
        return (_bytes(part.arguments) + _bytes(part.name)) // BYTES_PER_TOKEN + 1
    if isinstance(part, Image):
        return IMAGE_TOKENS
    if isinstance(part, Document):
        return (_bytes(part.text) if part.text is not None else len(part.data or b"")) // BYTES_PER_TOKEN + 1
    return len(msgspec.json.encode(part)) // BYTES_PER_TOKEN + 1


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def config_tokens(config: Config) -> int:
    return len(msgspec.json.encode(config.tools)) // BYTES_PER_TOKEN


def last_reply(node: Node) -> Node | None:
    """The last reply on the path to a node."""
    return next((one for one in node.up() if one.message.role == "assistant"), None)
