"""[model], [prompt], [parameters] and [limits]: the fields of a Program that say whom to ask, what and how.

Not here: what the model may call (offer) and what stands around it (surroundings).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from llmproc_nb.core.provider import Settings
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers.files import words
from llmproc_nb.drivers.files.path import read_named
from llmproc_nb.drivers.files.table import Table, closest, meant

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def model(table: Table, strays: Sequence[Table]) -> dict[str, Any]:
    """The fields of [model]. `strays` are tables in which project_id and region were found in real files."""
    provider = _provider(table)
    name = table.text("name")
    if "name" not in table and provider not in words.OFFLINE:
        table.error("name", "no model is named", right='write e.g. name = "claude-sonnet-5-5"', step=similar_key(table, "name"))
    elif name is not None and not name.strip() and provider not in words.OFFLINE:
        table.error("name", "the name is empty", right='write e.g. name = "claude-sonnet-5-5"')
    return {
        "model": name or "",
        "provider": provider or "",
        "base_url": _base_url(table),
        "api_key_env": _api_key_env(table),
        "project_id": _or_stray(table, "project_id", strays),
        "region": _or_stray(table, "region", strays),
        "prompt_caching": not table.flag("disable_automatic_caching", False),
    }


def similar_key(table: Table, key: str) -> str:
    """What to say of a key that is missing, where another looks like it."""
    near = closest(key, [name for name in table.data if isinstance(name, str) and name != key])
    return f"There is a key {near!r}: is that it?" if near else ""


def _provider(table: Table) -> str | None:
    value = table.text("provider")
    one_of = f"it is one of {', '.join(words.DRIVERS)}, or a named endpoint ({', '.join(words.ENDPOINTS)})"
    if value is None:
        if "provider" not in table:
            table.error("provider", "no provider is named", right=one_of, step=similar_key(table, "provider"))
        return None
    if value in words.RENAMED_PROVIDERS:
        now = words.RENAMED_PROVIDERS[value]
        table.note("superseded", "provider", f"{value!r} is now called {now!r}, and read as that")
        return now
    if value in words.REFUSED_PROVIDERS:
        table.note("unserved", "provider", f"{value!r} cannot be started here: {words.REFUSED_PROVIDERS[value]}")
    elif value not in words.PROVIDERS and value not in metadata.entry_points(group="llmproc_nb.providers").names:
        known = (*words.PROVIDERS, *words.RENAMED_PROVIDERS, *words.REFUSED_PROVIDERS)
        table.error("provider", f"there is no provider {value[:40]!r}", right=one_of, step=meant(value, known))
    return value


def _base_url(table: Table) -> str | None:
    value = table.text("base_url")
    if value is not None and not re.match(r"https?://[^\s/]", value):
        table.error("base_url", f"found {table.findings.describe(value)}", right='an address such as "http://localhost:11434/v1" is needed')
    return value


def _api_key_env(table: Table) -> str | None:
    value = table.text("api_key_env", secret=True)
    if value is not None and not _ENV_NAME.fullmatch(value):
        # The value is not shown: somebody may have put the key itself here.
        table.error("api_key_env", "that is no name of a variable", right='an environment variable is named, e.g. "ANTHROPIC_API_KEY"')
        return None
    return value


def _or_stray(table: Table, key: str, strays: Sequence[Table]) -> str | None:
    value = table.text(key)
    for stray in strays:
        if key in stray:
            found = stray.text(key)
            stray.note("superseded", key, f"it belongs into [model]; {'it is read from here' if value is None else 'another one counts'}")
            value = found if value is None else value
    return value


def prompt(table: Table, folder: Path) -> dict[str, Any]:
    """The fields `system` and `user`. A file beats inline text, `system` beats `system_prompt`, `user_prompt` beats `user`."""
    short, long = table.text("system"), table.text("system_prompt")
    system = _first(table, ("system", short), ("system_prompt", long))
    text = read_named(table, "system_prompt_file", folder)
    if text is not None:
        if system and system != text:
            loser = "system_prompt" if short is None else "system"
            table.note("unserved", loser, "it is not used, because `system_prompt_file` is given too")
        system = text
    user = _first(table, ("user_prompt", table.text("user_prompt")), ("user", table.text("user")))
    return {"system": system or "", "user": user}


def _first(table: Table, winner: tuple[str, str | None], loser: tuple[str, str | None]) -> str | None:
    if winner[1] is None:
        return loser[1]
    if loser[1] is not None and loser[1] != winner[1]:
        table.note("unserved", loser[0], f"it is not used, because `{winner[0]}` is given too")
    return winner[1]


def limits(own: Table, model_table: Table) -> Limits:
    """[limits], and `max_iterations` in [model], which counts for each call alone."""
    return Limits(
        max_iterations=model_table.integer("max_iterations", least=1),
        steps=own.integer("steps", least=1),
        tokens=own.integer("tokens", least=1),
        cost_usd=own.number("cost_usd"),
        seconds=own.number("seconds"),
        children=own.integer("children"),
        depth=own.integer("depth"),
    )


def parameters(table: Table) -> Settings:
    """[parameters]: what every provider understands under its own name; every other field of a request goes into `body`."""
    return Settings(
        max_tokens=_max_tokens(table),
        temperature=table.number("temperature"),
        top_p=table.number("top_p", most=1),
        top_k=table.integer("top_k"),
        stop=tuple(dict.fromkeys(table.texts("stop") + table.texts("stop_sequences"))),
        effort=_effort(table),
        thinking=_thinking(table),
        output_schema=table.plain("output_schema") if table.table("output_schema") is not None else None,
        # a table is the API's own form and goes into the body
        tool_choice=None if isinstance(table.take("tool_choice"), Mapping) else table.text("tool_choice"),
        headers=table.text_map("extra_headers", secret=True),
        body=_body(table),
    )


def _max_tokens(table: Table) -> int | None:
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample")
    found = {name: table.integer(name, least=1) for name in names if name in table}
    if len(found) > 1:
        table.error(" and ".join(found), "both are given", right="they mean the same: keep one of them")
    if "max_tokens_to_sample" in found:
        table.note("superseded", "max_tokens_to_sample", "it is now called max_tokens, and read as that")
    return next(iter(found.values()), None)


def _effort(table: Table) -> str | None:
    effort, own = table.choice("reasoning_effort", words.EFFORTS), table.choice("effort", words.EFFORTS)
    if effort and own and effort != own:
        table.error("effort", f"found {own!r}, and {effort!r} as reasoning_effort", right="both mean the same: keep one of them")
    return effort or own


def _thinking(table: Table) -> dict[str, Any] | None:
    below = table.table("thinking")
    if below is None:
        return None
    kind = below.choice("type", words.THINKING) or "enabled"
    thinking: dict[str, Any] = {"type": kind}
    budget = below.integer("budget_tokens")
    if budget is not None:
        thinking["budget_tokens"] = budget
        if kind == "enabled" and budget < 1024:
            below.note("unserved", "budget_tokens", f"{budget} is passed on, but the API wants at least 1024")
    for key in below.names():
        if key not in ("type", "budget_tokens"):
            thinking[key] = below.plain(key)
            if key != "display":
                below.note(
                    "unknown",
                    key,
                    f"this key is not known; it is passed on as it is. {meant(key, ('type', 'budget_tokens', 'display'))}".strip(),
                )
    return thinking


def _body(table: Table) -> dict[str, Any]:
    """Every field that is left, for the request's body: those not known with a note, those of the process not at all."""
    body: dict[str, Any] = {}
    if "debug_tools" in table:
        table.flag("debug_tools", False)
        table.note("unserved", "debug_tools", "it has no effect; the log holds every tool call")
    if "timeout" in table:
        table.number("timeout")
        table.note("unserved", "timeout", "it is no field of a request; [limits] seconds is the time of a call")
    extra = table.plain("extra_body") if table.table("extra_body") is not None else {}
    known = tuple(table.asked)
    for key in table.names():
        if (key in known and not (key == "tool_choice" and isinstance(table.data[key], Mapping))) or key.lower() in words.SECRETS:
            continue
        value = table.plain(key)
        if key in words.OWN_FIELDS:
            table.note("unserved", key, "the process writes this field itself; it is not passed on")
        elif value is not None:
            body[key] = value
            if key not in words.REQUEST_FIELDS and key != "tool_choice":
                hint = meant(key, (*known, *words.REQUEST_FIELDS))
                table.note("unknown", key, f"this parameter is not known; it is passed on as it is. {hint}".strip())
    return {**body, **(extra or {})}
