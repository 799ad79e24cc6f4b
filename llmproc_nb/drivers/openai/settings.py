"""Settings in the words of OpenAI's two APIs: what both share. Not here: the fields that differ (responses, chat)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from llmproc_nb.core.dialog import Node
from llmproc_nb.core.provider import Config, Settings

# the families that think before they answer and take no sampling parameters; their chat-tuned siblings do not
_REASONING = re.compile(r"^(o[1-9]\d*|gpt-(?:[5-9]|[1-9]\d)(?:\.\d+)?|codex|computer-use)(?=$|[-@:])")
_VERSION = re.compile(r"gpt-(\d+)(?:\.(\d+))?(?=$|[-@:])")
_CHOICES = {"auto": "auto", "none": "none", "required": "required", "any": "required"}


def is_reasoning(model: str) -> bool:
    """Whether a model is one of OpenAI's reasoning models, by its name: `gpt-5.5`, `o3-mini`, `openai/gpt-6-astra`, `ft:o4-mini:…`."""
    name = model.rpartition("/")[2].removeprefix("ft:")
    return bool(_REASONING.match(name)) and "-chat" not in name


def has_breakpoints(model: str) -> bool:
    """Whether a model reads and writes its prompt cache at breakpoints only: GPT-5.6 and later."""
    version = _VERSION.match(model.rpartition("/")[2].removeprefix("ft:"))
    return version is not None and (int(version[1]), int(version[2] or 0)) >= (5, 6)


def shared_place(shared: Node | None, path: Sequence[Node]) -> tuple[int, ...]:
    """Where a breakpoint goes so that siblings read what they share: at the last message before its end that is not the model's own.

    The API places one by itself at the last message of the request, which each sibling has for itself.
    """
    if shared is None or shared.depth >= len(path) or path[shared.depth] is not shared:
        return ()
    return next(((at,) for at in range(shared.depth, -1, -1) if path[at].message.role in ("user", "tool")), ())


def with_breakpoint(item: dict[str, Any], kind: str) -> dict[str, Any]:
    """An input item or message with a cache breakpoint at its end; `kind` is the type of its texts."""
    field = "output" if "output" in item else "content"
    pieces = item.get(field)
    if isinstance(pieces, str) and pieces:
        pieces = [{"type": kind, "text": pieces}]
    if not isinstance(pieces, list) or not pieces:
        return item
    return {**item, field: [*pieces[:-1], {**pieces[-1], "prompt_cache_breakpoint": {"mode": "explicit"}}]}


def wants_thoughts(settings: Settings) -> bool:
    """Whether thinking is asked for in the form all providers share."""
    return bool(settings.thinking) and (settings.thinking or {}).get("type") in ("enabled", "adaptive")


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    """Name, schema and strictness of a wanted answer. Strict only where the schema keeps the rules of strict ones."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(schema.get("title") or "answer"))[:64] or "answer"
    return {"name": name, "schema": schema, "strict": is_strict(schema)}


def is_strict(schema: Any) -> bool:
    """Whether every object in a schema is closed and requires all of its properties."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if "properties" in schema and isinstance(schema["properties"], dict):
        names = set(schema["properties"])
        if schema.get("additionalProperties") is not False or set(schema.get("required") or ()) != names:
            return False
    elif schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return False
    return all(map(is_strict, schema.values()))


def tool_choice(config: Config) -> str | None:
    """`auto`, `none`, `required`, or the name of a tool; None where there is nothing to choose."""
    choice = config.settings.tool_choice
    return _CHOICES.get(choice, choice) if choice and config.tools else None


def is_choice_word(choice: str) -> bool:
    return choice in _CHOICES.values()


def merged(body: dict[str, Any], more: Mapping[str, Any], *, but: str) -> dict[str, Any]:
    """A body with a person's own fields: objects and lists are joined with ours, anything else takes its place.

    `but` is the field that holds the dialog; it cannot be replaced.
    """
    out = dict(body)
    for name, value in more.items():
        ours = out.get(name)
        if name == but:
            continue
        if isinstance(ours, dict) and isinstance(value, dict):
            out[name] = {**ours, **value}
        elif isinstance(ours, list) and isinstance(value, list):
            out[name] = [*ours, *(item for item in value if item not in ours)]
        else:
            out[name] = value
    return out


def data_url(media_type: str, data: bytes) -> str:
    """Bytes as a `data:` URL."""
    return f"data:{media_type};base64,{b64encode(data).decode()}"
