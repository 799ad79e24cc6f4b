"""Files, texts and dicts → Programs, and the programs that a program links to.

Not here: what the single sections mean (settings, offer, surroundings). Nothing is kept between two loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import FdRules, Link, Program
from llmproc_nb.drivers.files import compaction, offer, sandboxed, settings, surroundings, words
from llmproc_nb.drivers.files.approval import approval
from llmproc_nb.drivers.files.path import is_file, near_file, place_of
from llmproc_nb.drivers.files.table import Findings, Table, closest
from llmproc_nb.drivers.files.text import format_of, parse, read


def load(path: str | Path) -> Program:
    """The program of a TOML or YAML file. Raises ProgramError: the first fault, and where the others are."""
    findings = Findings(str(path))
    return _whole(of_file(Path(path), findings), findings)


def from_text(text: str, kind: str, *, base_dir: str | Path = ".", source: str = "<text>") -> Program:
    """The program of a text, `kind` being toml or yaml. Paths in it are relative to `base_dir`."""
    findings = Findings(source)
    return _whole(_program(parse(text, kind, findings), Path(base_dir), findings, name="agent", source=source), findings)


def from_mapping(data: Mapping[str, Any], *, base_dir: str | Path = ".", source: str = "<dict>") -> Program:
    """The program of a dict with the tables and keys of a file. Paths in it are relative to `base_dir`."""
    findings = Findings(source)
    return _whole(_program(data, Path(base_dir), findings, name="agent", source=source), findings)


def of_file(path: Path, findings: Findings) -> Program | None:
    """The program of a file as far as it can be read; what is wrong is in `findings`."""
    try:
        if not is_file(path):
            found = "this is a folder" if path.is_dir() else "there is no such file"
            raise ProgramError(found, place=findings.file, right="a program is a TOML or YAML file", step=near_file(path))
        kind = format_of(path, findings.file)
        data = parse(read(path, findings.file), kind, findings)
        full = path.resolve()
    except ProgramError as error:
        findings.errors.append(error)
        return None
    except (OSError, ValueError) as error:
        findings.error("", f"this path cannot be followed: {error}")
        return None
    return _program(data, full.parent, findings, name=full.stem, source=str(full))


def _whole(program: Program | None, findings: Findings) -> Program:
    if findings.errors or program is None:
        raise together(findings.errors)
    return program


def together(errors: list[ProgramError]) -> ProgramError:
    """One error that says the first fault whole, and where the others are."""
    first, others = errors[0], [error.place.split(": ", 1)[-1] for error in errors[1:]]
    if not others:
        return first
    shown = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
    step = f"{first.step} {len(others)} more fault{'s' if len(others) > 1 else ''}: {shown}.".strip()
    return ProgramError(first.found, place=first.place, right=first.right, step=step)


def _program(data: Mapping[str, Any], folder: Path, findings: Findings, *, name: str, source: str) -> Program:
    root = Table(data, "", findings)
    model = _section(root, "model")
    if "model" not in root:
        _no_model(root)
        return Program(source=source)
    prompt, parameters, limits = _section(root, "prompt"), _section(root, "parameters"), _section(root, "limits")
    tools, mcp, plugins = _section(root, "tools"), _section(root, "mcp"), _section(root, "plugins")
    demo, script = _section(root, "demo"), _section(root, "script")
    rules = root.table("approval")

    fields = settings.model(model, (root, prompt, parameters))
    fields |= settings.prompt(prompt, folder)
    fields["settings"] = settings.parameters(parameters)
    fields["limits"] = settings.limits(limits, model)
    wishes, servers = offer.rename(tools, offer.tools(tools), offer.mcp(mcp, tools, folder))
    wishes += surroundings.plugin_tools(plugins, wishes)
    fd_table = surroundings.either(root, plugins, "file_descriptor", "file_descriptor")
    fields["fd"], fd_wishes = surroundings.file_descriptors(fd_table, wishes)
    if fields["fd"] is None and plugins.data.get("file_descriptor") is False:
        fields["fd"] = FdRules(enabled=False)
    fields |= {"tools": offer.unique(tools, "builtin", wishes + fd_wishes), "mcp": servers}
    fields["hosted"] = offer.hosted(tools, fields["provider"])
    fields["sandbox"] = sandboxed.sandbox(root.table("sandbox"), folder)
    fields["compaction"] = compaction.compaction(root.table("compaction"), fields["provider"], fields["base_url"])
    fields["linked"] = surroundings.linked(root, plugins, folder)
    fields["preload"] = surroundings.preload(surroundings.either(root, plugins, "preload", "preload_files"), folder)
    fields["env_info"] = surroundings.env_info(surroundings.either(root, plugins, "env_info", "env_info"))
    fields["approval"] = approval(rules)
    fields |= surroundings.demo(demo)
    fields["display_name"] = _display_name(model, fields["display_name"])
    fields["script"] = _script(script, fields["provider"])
    fields["name"] = _name(root) or name

    for table in (root, model, prompt, parameters, limits, tools, mcp, plugins, demo, script):
        table.finish()
    return Program(base_dir=str(folder.resolve()), source=source, notes=tuple(findings.notes), **fields)


def _section(root: Table, key: str) -> Table:
    found = root.table(key)
    return root.below(key, {}) if found is None else found


def _no_model(root: Table) -> None:
    keys = {key for key in root.data if isinstance(key, str)}
    right = 'a program has a table [model] with name = "…" and provider = "…"'
    if keys & {"package", "dependencies"}:
        root.findings.error("", "this is the manifest of a package, not a program", right=right)
    elif keys & {"agent_configs", "agent_group_configs"}:
        root.findings.error("", "this is an agent configuration of a package, not a program", right=right)
    else:
        near = closest("model", keys, 0.75)
        root.error("[model]", "there is no such table", right=right, step=f"There is a key {near!r}: is that it?" if near else "")


def _name(root: Table) -> str | None:
    own, below = root.text("name"), root.table("program")
    inner = below.text("name") if below is not None else None
    if below is not None:
        below.finish()
    if own is not None and inner is not None and own != inner:
        root.error("name", f"found {own[:40]!r}, and {inner[:40]!r} as [program] name", right="both mean the same: keep one of them")
    return (own or inner or "").strip() or None


def _display_name(model: Table, shown: str | None) -> str | None:
    older = model.text("display_name")
    if older is None:
        return shown
    used = "read as that" if shown is None else "what is said there counts"
    model.note("superseded", "display_name", f"it is now [demo] display_name, and {used}")
    return older if shown is None else shown


def _script(table: Table, provider: str) -> tuple[dict[str, Any], ...]:
    turns = surroundings.script(table)
    if turns and provider and provider not in words.OFFLINE:
        table.findings.note("unserved", "[script]", f'it is used with provider = "scripted" only; here it is {provider!r}')
    return turns


def link_path(program: Program, link: Link) -> str:
    """The resolved path of a link that names a file: the key under which `load_linked` keeps its program."""
    where = place_of(link.path or "", Path(program.base_dir))
    return str(where.resolve()) if where is not None else ""


def load_linked(program: Program) -> dict[str, Program]:
    """Every program that can be reached by links, by resolved path, each loaded once; the program itself too, if it is a file's.

    Cycles are fine. Raises ProgramError naming file, table and key of a link that leads nowhere.
    """
    found, errors = linked_programs(program)
    if errors:
        raise together(errors)
    return found


def linked_programs(program: Program) -> tuple[dict[str, Program], list[ProgramError]]:
    """What `load_linked` gives, and what is wrong on the way."""
    found: dict[str, Program] = {program.source: program} if is_file(Path(program.source or ".")) else {}
    errors: list[ProgramError] = []
    waiting, seen = [program], {id(program)}
    while waiting:
        parent = waiting.pop()
        for name, link in parent.linked.items():
            child = link.program or found.get(link_path(parent, link))
            if child is None:
                child = _linked(parent, name, link, errors)
                if child is None:
                    continue
                found[child.source] = child
            if id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)
    return found, errors


def _linked(parent: Program, name: str, link: Link, errors: list[ProgramError]) -> Program | None:
    path = place_of(link.path or "", Path(parent.base_dir))
    if path is None or not is_file(path):
        known = [note.place for note in parent.notes if note.kind == "missing" and note.place.endswith(f"linked_programs] {name}")]
        place = known[0] if known else f"{parent.source}: [linked_programs] {name}"
        found = f"there is no file {(link.path or '')[:200]!r}"
        errors.append(ProgramError(found, place=place, right="paths are relative to the program's folder", step=near_file(path)))
        return None
    findings = Findings(link_path(parent, link))
    program = of_file(path, findings)
    errors += findings.errors
    return None if findings.errors else program
