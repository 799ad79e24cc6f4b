"""[compaction]: what happens when a dialog nears its model's window, and what a provider's own compaction needs in the request.

Not here: the window's fill, summaries and shorter branches (core's compaction).

[compaction]
policy = "summarise"        # off | warn | summarise | provider
at = 0.8                    # the share of the window at which it acts
keep_last = 6               # messages that stay as they are
window = 32000              # tokens; only where the model's window is not known, or should count as smaller
prompt = "Sum up …"         # asks for the summary
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, get_args

import msgspec

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import Compaction, Policy, Program
from llmproc_nb.core.provider import Settings
from llmproc_nb.drivers.files.table import Table

BETA = "compact-2026-01-12"
LEAST_TRIGGER = 50_000
"""Anthropic's API takes no smaller trigger."""
INSTEAD = 'policy = "summarise" works with every model'


def compaction(table: Table | None, provider: str, base_url: str | None) -> Compaction | None:
    """The rules of a [compaction] table; None where there is none."""
    if table is None:
        return None
    policy, at = table.choice("policy", get_args(Policy)), table.number("at", most=1)
    if at == 0:
        table.error("at", "found the number 0", right="a share of the window is above 0 and at most 1, as in 0.8")
    prompt = table.text("prompt")
    if prompt is not None and not prompt.strip():
        table.error("prompt", "the text is empty", right="it asks the model for the summary; left out, a prompt that ships is used")
    if policy == "provider" and provider and _api(provider, base_url) is None:
        table.error("policy", f"the API of provider {provider!r} has no compaction of its own", right=INSTEAD)
    kept, window = table.integer("keep_last", least=1), table.integer("window", least=1)
    table.finish()
    given = {"policy": policy, "at": at or None, "keep_last": kept, "window": window, "prompt": prompt}
    return Compaction(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def own_compaction(program: Program, window: int | None) -> Settings:
    """The settings with which a program's provider shortens the dialog itself; `window` in tokens, None leaves the moment to the API.

    Raises ProgramError where the API cannot, or was told otherwise already.
    """
    place, rules = f"{program.source or program.name}: [compaction] policy", program.compaction or Compaction()
    api, body = _api(program.provider, program.base_url), program.settings.body
    if api is None:
        raise ProgramError(f"the API of provider {program.provider!r} has no compaction of its own", place=place, right=INSTEAD)
    if "context_management" in body:
        raise ProgramError("[parameters] has a context_management of its own", place=place, right="both say the same: keep one of them")
    at = round(window * rules.at) if window is not None else None
    if api == "openai":
        entry: dict[str, Any] = {"type": "compaction"} | ({"compact_threshold": at} if at is not None else {})
        return msgspec.structs.replace(program.settings, body={**body, "context_management": [entry]})
    edit: dict[str, Any] = {"type": "compact_20260112"}
    if at is not None:
        edit["trigger"] = {"type": "input_tokens", "value": max(at, LEAST_TRIGGER)}
    if rules.prompt is not None:
        edit["instructions"] = rules.prompt
    managed = {**body, "context_management": {"edits": [edit]}}
    return msgspec.structs.replace(program.settings, body=managed, headers=_with_beta(program.settings.headers))


def _api(provider: str, base_url: str | None) -> str | None:
    """The family of an API that shortens dialogs itself; None for all others."""
    if provider in ("anthropic", "anthropic_vertex"):
        return "anthropic"
    if provider in ("openai_response", "openai_responses"):
        return "openai"
    # by name, as the table of drivers does: no driver imports another
    official = import_module("llmproc_nb.drivers.openai.client").official_url
    return "openai" if provider == "openai" and official(base_url) else None


def _with_beta(headers: dict[str, str]) -> dict[str, str]:
    name = next((name for name in headers if name.lower() == "anthropic-beta"), "anthropic-beta")
    known = [word.strip() for word in headers.get(name, "").split(",") if word.strip()]
    return {**headers, name: ",".join(dict.fromkeys((*known, BETA)))}
