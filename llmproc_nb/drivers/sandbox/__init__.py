"""Sandboxes: confined Python in processes of its own, whose live state can be kept and woken again.

    zygote (trusted, libraries loaded) ── forks ─→ keeper of a family ── forks ─→ shell ⇄ frozen copies

Here: what stands behind the door. Not here: what runs in these processes (llmproc_nb.inside).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmproc_nb.core.sandbox import SandboxRules
from llmproc_nb.drivers.sandbox.door import make
from llmproc_nb.drivers.sandbox.prove import bounded, prove

__all__ = ["make", "proof"]


async def proof(rules: SandboxRules, *, base_dir: Path, environ: Mapping[str, str]) -> list[tuple[str, bool, str, str]]:
    """Each promise of a sandbox with these rules, tried now in a fresh one of small limits: name, whether kept, what was tried, what came."""
    door = make(bounded(rules), base_dir=base_dir, environ=environ)
    try:
        return [(proof.promise, proof.kept, proof.tried, proof.happened) for proof in await prove(door, rules)]
    finally:
        await door.close()
