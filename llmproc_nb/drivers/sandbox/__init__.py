"""Sandboxes: confined Python in processes of its own, whose live state can be kept and woken again.

    zygote (trusted, libraries loaded) ── forks ─→ keeper of a family ── forks ─→ shell ⇄ frozen copies

Here: what stands behind the door. Not here: what runs in these processes (llmproc_nb.inside).
"""

from __future__ import annotations

from llmproc_nb.drivers.sandbox.door import make

__all__ = ["make"]
