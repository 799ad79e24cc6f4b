"""What stands around the dialog: [plugins] and the older tables of the same meaning, links, [demo] and [script].

Every section has two places, the present one under [plugins] and an older one at the top; both are read, the older one with a note.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmproc_nb.core import errors
from llmproc_nb.core.program import EnvInfo, FdRules, Link, Preload, ToolWish
from llmproc_nb.drivers.files import words
from llmproc_nb.drivers.files.offer import wishes
from llmproc_nb.drivers.files.path import is_file, near_file, place_of
from llmproc_nb.drivers.files.table import Table, closest, meant

_TURN_TEXTS = ("say", "reply", "think", "error")


def either(root: Table, plugins: Table, old: str, new: str) -> Table | None:
    """The table of a section from its present place, or from its older one with a note."""
    now = plugin(plugins, new)
    older = root.table(old)
    if older is None:
        return now
    root.findings.note("superseded", f"[{old}]", f"it is now [plugins.{new}], and read as that")
    if now is None:
        return older
    root.findings.note("unserved", f"[{old}]", f"its keys count only where [plugins.{new}] does not have them too")
    return Table({**older.data, **now.data}, now.name, now.findings)


def preload(table: Table | None, folder: Path) -> Preload:
    """[plugins.preload_files]; each file that is not there is noted."""
    if table is None:
        return Preload()
    files, relative_to = table.texts("files"), table.choice("relative_to", ("program", "cwd")) or "program"
    base = folder if relative_to == "program" else Path.cwd()
    for name in files:
        path = place_of(name, base)
        if not is_file(path):
            table.note("missing", "files", f"there is no file {name[:200]!r}; it is left out. {near_file(path)}".strip())
    table.finish()
    return Preload(files=files, relative_to=relative_to)  # type: ignore[arg-type]


def env_info(table: Table | None) -> EnvInfo:
    """[plugins.env_info]: names of facts, commands, variables, a file map, and lines of the program's own."""
    if table is None:
        return EnvInfo()
    info = EnvInfo(
        variables=_variables(table),
        commands=table.texts("commands"),
        env_vars=_env_vars(table),
        file_map_root=table.text("file_map_root"),
        file_map_max_files=_or(table.integer("file_map_max_files", least=1), 50),
        file_map_show_size=table.flag("file_map_show_size", True),
    )
    known = tuple(table.asked)
    extra: dict[str, str] = {}
    for key in [key for key in table.names() if key not in known]:
        value = table.take(key)
        near = closest(key, known, 0.8)
        if isinstance(value, list | tuple | Mapping):
            hint = f"Did you mean {near!r}?" if near else ""
            table.note(
                "unknown",
                key,
                f"a line of the program's own is a text; this {table.findings.describe(value)[2:]} is not used. {hint}".strip(),
            )
        elif value is not None:
            extra[key] = _line(value)
            if near:
                table.note("unknown", key, f"it becomes a line of the system prompt. Did you mean {near!r}?")
    return EnvInfo(**{**{name: getattr(info, name) for name in info.__struct_fields__}, "extra": extra})


def _line(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _variables(table: Table) -> tuple[str, ...]:
    known = (*words.ENV_VARIABLES, "file_map")
    chosen: list[str] = []
    for name in table.texts("variables"):
        if name == "all":
            chosen += words.ENV_VARIABLES
        elif name in known:
            chosen.append(name)
        else:
            table.note("unknown", "variables", f"there is no fact {name[:40]!r}; it is left out. {meant(name, known)}".strip())
    return tuple(dict.fromkeys(chosen))


def _env_vars(table: Table) -> dict[str, str]:
    value = table.data.get("env_vars")
    if isinstance(value, list):
        return {name: name for name in table.texts("env_vars")}
    return table.text_map("env_vars", secret=True)


def file_descriptors(table: Table | None, tools: tuple[ToolWish, ...]) -> tuple[FdRules | None, tuple[ToolWish, ...]]:
    """When texts become fds, and the fd tools to add. On by the plugin, by `enabled = true`, or by an fd tool in [tools]."""
    asked = any(wish.name in words.FD_TOOLS for wish in tools)
    if table is None:
        return (FdRules() if asked else None), ()
    present = table.name.startswith("plugins.")
    enabled = table.flag("enabled", present)
    rules = FdRules(
        max_direct_output_chars=_or(table.integer("max_direct_output_chars", least=1), 8000),
        default_page_size=_or(table.integer("default_page_size", least=1), 4000),
        max_input_chars=_or(table.integer("max_input_chars", least=1), 8000),
        page_user_input=table.flag("page_user_input", True),
        enable_references=table.flag("enable_references", False),
    )
    default = words.FD_TOOLS if present else () if asked else words.FD_TOOLS[:1]
    added = _brought(table, default, tools)
    table.finish()
    if not enabled and not asked:
        if "enabled" not in table and table.data:
            table.findings.note("unserved", f"[{table.name}]", "fds stay off: there is neither `enabled = true` nor an fd tool")
        return msgspec.structs.replace(rules, enabled=False), ()
    return rules, added


def plugin_tools(plugins: Table, tools: tuple[ToolWish, ...]) -> tuple[ToolWish, ...]:
    """The tools that message_id, stderr and spawn bring with them, unless they are asked for already."""
    added: tuple[ToolWish, ...] = ()
    for key, tool in (("message_id", "goto"), ("stderr", "write_stderr"), ("spawn", "spawn")):
        below = plugin(plugins, key)
        if below is None:
            continue
        brought = _brought(below, (tool,), tools + added)
        if key == "message_id" and not below.flag("enable_goto", True):
            below.note("unserved", "enable_goto", "without goto the ids of messages are not shown to the model")
        else:
            added += brought
        if key != "spawn":
            below.finish()
    return added


def _brought(table: Table, default: tuple[str, ...], tools: tuple[ToolWish, ...]) -> tuple[ToolWish, ...]:
    """The tools of a plugin: those it lists, or its own; without those that are asked for already."""
    listed = wishes(table, "tools")
    asked = {wish.name: wish for wish in tools}
    for wish in listed:
        if asked.get(wish.name, wish) != wish:
            table.note("unserved", "tools", f"{wish.name!r} is asked for in [tools] too; what is said there counts")
    return tuple(wish for wish in listed or tuple(ToolWish(name=name) for name in default) if wish.name not in asked)


def plugin(plugins: Table, key: str) -> Table | None:
    """A plugin's table; `true` stands for an empty one, `false` and null for none."""
    value = plugins.take(key)
    if value is True:
        return plugins.below(key, {})
    if value is None and key in plugins.data:
        plugins.note("unserved", key, "nothing stands here, so it is off; write {} to switch it on")
    return None if value is False else plugins.table(key)


def linked(root: Table, plugins: Table, folder: Path) -> dict[str, Link]:
    """The linked programs of [plugins.spawn], and of [linked_programs] in older files. Missing files are noted, and refused at start."""
    links: dict[str, Link] = {}
    older = root.table("linked_programs")
    if older is not None:
        root.findings.note("superseded", "[linked_programs]", "it is now [plugins.spawn.linked_programs], and read as that")
        links.update(_links(older, {}, folder))
    spawn = plugins.table("spawn") if isinstance(plugins.data.get("spawn"), Mapping) else None
    if spawn is None:
        return links
    described = spawn.text_map("linked_program_descriptions")
    below = spawn.table("linked_programs")
    if below is not None:
        links.update(_links(below, described, folder))
    for name in described:
        if name not in links:
            spawn.note(
                "unknown", f"linked_program_descriptions.{name}", f"no program is linked under this name. {meant(name, links)}".strip()
            )
    spawn.take("tools")
    spawn.finish()
    return links


def _links(table: Table, described: dict[str, str], folder: Path) -> dict[str, Link]:
    links: dict[str, Link] = {}
    for name in table.names():
        value = table.take(name)
        if name == "enabled" and isinstance(value, list | bool):
            table.note("unserved", "enabled", 'it has no effect: every linked program can be spawned, if [tools] has "spawn"')
            continue
        below = table.below(name, value) if isinstance(value, Mapping) else None
        path = below.text("path") if below is not None else table.text(name)
        if path is None:
            if below is not None and "path" not in below:
                below.error("path", "no file is named", right='a link is a path, or {path = "…", description = "…"}')
            continue
        said = (below.text("description") if below is not None else None) or described.get(name, "")
        if below is not None:
            below.finish()
        links[name] = Link(path=path, description=said)
        where = place_of(path, folder)
        if not is_file(where):
            table.note("missing", name, f"there is no file {path[:200]!r}, so this program does not start. {near_file(where)}".strip())
    return links


def demo(table: Table) -> dict[str, Any]:
    """[demo]: the prompts, whether to pause before each, and the name shown."""
    return {
        "demo_prompts": table.texts("prompts"),
        "demo_pause": table.flag("pause_between_prompts", True),
        "display_name": table.text("display_name"),
    }


def script(table: Table) -> tuple[dict[str, Any], ...]:
    """[[script.turns]]: what the scripted provider answers, as data."""
    turns = []
    for place, item in table.items("turns"):
        if isinstance(item, Mapping):
            turns.append(_turn(table.below(place, item)))
        else:
            table.wrong(place, item, "a turn is a table", "")
    return tuple(turns)


def _turn(table: Table) -> dict[str, Any]:
    for key in _TURN_TEXTS:
        table.text(key)
    if "say" in table and "reply" in table:
        table.error("reply", "there is `say` too", right="both mean the same: keep one of them")
    table.choice("stop", words.STOPS)
    table.number("delay_s")
    table.integer("fail", least=1)
    kind = table.data.get("error")
    known = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.ProviderError)]
    if isinstance(kind, str) and kind not in known:
        table.error("error", f"there is no error {kind[:40]!r}", right=f"it is one of {', '.join(known)}", step=meant(kind, known))
    pattern = table.text("when")
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            table.error("when", f"no valid regular expression: {error}", right="a pattern as Python's re reads it is needed")
    _calls(table)
    asked = tuple(table.asked)
    table.finish()
    return {key: table.plain(key) for key in asked if key in table}


def _calls(table: Table) -> None:
    value = table.take("call")
    if value is None:
        return
    if not isinstance(value, list | tuple):
        table.wrong("call", value, 'a list is needed: call = [{name = "add", arguments = {a = 1}}]', "")
        return
    for place, item in enumerate(value, 1):
        if not isinstance(item, Mapping):
            table.wrong(f"call[{place}]", item, 'a call is a table such as {name = "add", arguments = {a = 1}}', "")
            continue
        call = table.below(f"call[{place}]", item)
        if call.text("name") is None and "name" not in call:
            call.error("name", "no tool is named", right='a call has at least name = "…"')
        if "arguments" in call and not isinstance(call.take("arguments"), str):
            call.table("arguments")
        call.text("id")
        call.take("arguments")
        call.finish()


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
