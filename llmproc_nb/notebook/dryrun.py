"""`--dry-run`: the exact request that a cell would send, how long it is, and what it would cost at least."""

from __future__ import annotations

import json
from typing import Any

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.message import Message
from llmproc_nb.core.process import Process
from llmproc_nb.core.provider import Request
from llmproc_nb.core.usage import Usage

CHARS_PER_TOKEN = 4


class DryRun:
    """A request that was not sent.

    `body` is what would go over the wire, whole; `tokens` an estimate (4 characters a token); `cost_usd` the price of reading it.
    """

    def __init__(self, body: dict[str, Any], tokens: int, cost_usd: float | None, target: str, notes: tuple[str, ...] = ()) -> None:
        self.body, self.tokens, self.cost_usd, self.target, self.notes = body, tokens, cost_usd, target, notes

    @classmethod
    def of(cls, process: Process, start: Node, prompt: Any, notes: tuple[str, ...] = ()) -> DryRun:
        """The request of a prompt from a node. Nothing is appended, logged or sent."""
        head = Node(process.as_sent(Message(role="user", parts=tuple(prompt))), start)
        body = process.provider.preview(Request(path=head.path(), config=process.config, lineage=process.lineage))
        tokens = len(json.dumps(body, ensure_ascii=False, default=str)) // CHARS_PER_TOKEN
        usage = Usage(requests=1, input_tokens=tokens)
        cost = process.machine.price(process.program.model, process, usage)
        return cls(body, tokens, cost, f"{process.provider.name}:{process.program.model}", notes)

    def __repr__(self) -> str:
        return str(self._repr_mimebundle_()["text/plain"])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmproc_nb.notebook.table import dry_run_bundle

        return dry_run_bundle(self.body, self.tokens, self.cost_usd, target=self.target, notes=self.notes)
