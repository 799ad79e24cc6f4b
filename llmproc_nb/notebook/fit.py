"""How much of a value a prompt takes, and what happens with the rest: the one place that decides it.

Here: the budget and the cut. Not here: which form a value takes (values) and how a frame is sampled (sample).
"""

from __future__ import annotations

from llmproc_nb.inside.sample import cut_text

VALUE_TOKENS = 10_000
SAMPLE_TOKENS = 2_000


class Fit:
    """One prompt's room: each value goes whole up to `limit_tokens`, whatever its type; a frame or array as a sample of `sample_tokens`.

    `notes` say to the person what was cut. For a process that pages what it is told, `paged_chars` is the length from which a text becomes
    an fd: a longer one stays whole and a part of its own, so that the words around it are not paged with it.
    """

    def __init__(self, limit_tokens: int = VALUE_TOKENS, paged_chars: int | None = None) -> None:
        self.limit_tokens, self.sample_tokens = limit_tokens, min(SAMPLE_TOKENS, limit_tokens)
        self.paged_chars = paged_chars
        self.notes: list[str] = []

    def is_paged(self, text: str) -> bool:
        """Whether the process will page this text."""
        return self.paged_chars is not None and len(text) > self.paged_chars

    def text(self, text: str, label: str) -> str:
        """The text as the prompt has it: whole, or its beginning and a line that says how much was left out."""
        if self.is_paged(text):
            return text
        shown = cut_text(text, self.limit_tokens)
        if shown is not text:
            kept = shown.rindex("\n[")
            self.notes.append(
                f"{label}: the first {kept:,} of {len(text):,} characters; a value takes at most {self.limit_tokens:,} tokens"
                " (`%config AgentMagics.value_tokens`)"
            )
        return shown
