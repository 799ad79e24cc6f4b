"""The forms in which one thing can be written in a program, and which of them counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmproc_nb.core.program import FdRules, McpServer, Program, ToolWish
from llmproc_nb.drivers import files

MODEL = '[model]\nname = "m"\nprovider = "anthropic"\n'


def wish(*names: str) -> tuple[ToolWish, ...]:
    return tuple(ToolWish(name=name) for name in names)


def said(program: Program) -> list[tuple[str, str]]:
    """Kind and place of each note, the file's name left out."""
    return [(note.kind, note.place.partition(": ")[2]) for note in program.notes]


def toml(text: str, folder: Path = Path(".")) -> Program:
    return files.from_text(text, "toml", base_dir=folder, source="p.toml")


@pytest.mark.parametrize(
    ("prompt", "system", "user", "unused"),
    [
        ('system = "a"\nsystem_prompt = "b"', "a", None, ["system_prompt"]),
        ('user = "a"\nuser_prompt = "b"', "", "b", ["user"]),
        ('system_prompt = "a"\nsystem_prompt_file = "s.md"', "from the file", None, ["system_prompt"]),
        ('system = "a"\nsystem_prompt_file = "s.md"', "from the file", None, ["system"]),
        ('system = "a"\nsystem_prompt = "a"', "a", None, []),
        ("", "", None, []),
    ],
)
def test_prompts_take_precedence_as_documented(tmp_path: Path, prompt: str, system: str, user: str | None, unused: list[str]) -> None:
    (tmp_path / "s.md").write_text("from the file")
    program = toml(f"{MODEL}[prompt]\n{prompt}\n", tmp_path)
    assert (program.system, program.user, said(program)) == (system, user, [("unserved", f"[prompt] {key}") for key in unused])


@pytest.mark.parametrize(
    ("text", "fd", "tools"),
    [
        ("", None, ()),
        ("[file_descriptor]\nenabled = true", FdRules(), wish("read_fd")),
        ('[file_descriptor]\nenabled = true\n[tools]\nbuiltin = ["fd_to_file"]', FdRules(), wish("fd_to_file")),
        ('[tools]\nenabled = ["read_fd"]', FdRules(), wish("read_fd")),
        ("[file_descriptor]\nenabled = false", FdRules(enabled=False), ()),
        ("[file_descriptor]\ndefault_page_size = 5", FdRules(enabled=False, default_page_size=5), ()),
        ("[plugins.file_descriptor]", FdRules(), wish("read_fd", "fd_to_file")),
        ("[plugins]\nfile_descriptor = true", FdRules(), wish("read_fd", "fd_to_file")),
        ("[plugins]\nfile_descriptor = false", FdRules(enabled=False), ()),
        ("[plugins.file_descriptor]\nenabled = false", FdRules(enabled=False), ()),
        ('[plugins.file_descriptor]\ntools = ["read_fd"]', FdRules(), wish("read_fd")),
        ('[plugins.file_descriptor]\n[tools]\nbuiltin = ["read_fd"]', FdRules(), wish("read_fd", "fd_to_file")),
        ("[file_descriptor]\nmax_input_chars = 7\n[plugins.file_descriptor]", FdRules(max_input_chars=7), wish("read_fd", "fd_to_file")),
    ],
)
def test_file_descriptors_are_switched_on_by_section_or_tool(text: str, fd: FdRules | None, tools: tuple[ToolWish, ...]) -> None:
    program = toml(MODEL + text)
    assert (program.fd, program.tools) == (fd, tools)


@pytest.mark.parametrize(
    ("wanted", "tools"),
    [
        ('"all"', "all"),
        ('["a", {name = "b", alias = "c", access = "admin"}]', (ToolWish(name="a"), ToolWish(name="b", alias="c", access="admin"))),
        ('{a = "read", b = {alias = "c"}}', (ToolWish(name="a", access="read"), ToolWish(name="b", alias="c"))),
        ("[]", ()),
        ('"a"', (ToolWish(name="a"),)),
    ],
)
def test_tools_of_a_server_are_chosen_in_every_form(wanted: str, tools: Any) -> None:
    program = toml(f'{MODEL}[tools.mcp]\ns = {wanted}\n[mcp.servers.s]\ncommand = "x"\n[mcp.servers.t]\nurl = "http://t/mcp"\n')
    assert program.mcp == {"s": McpServer(command="x", tools=tools), "t": McpServer(type="http", url="http://t/mcp")}
    assert program.notes == ()


def test_an_inline_server_goes_before_one_of_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(
        '{"mcpServers": {"a": {"command": "old"}, "b": {"url": "https://b/sse", "headers": {"X": "${Y}"}, "disabled": true}}}'
    )
    program = toml(MODEL + '[mcp]\nconfig_path = "m.json"\n[mcp.servers.a]\ncommand = "new"\n', tmp_path)
    assert program.mcp == {"a": McpServer(command="new"), "b": McpServer(type="sse", url="https://b/sse", headers={"X": "${Y}"})}
    assert [note.place for note in program.notes] == ["p.toml → m.json: [mcpServers.b] disabled"]


def test_a_server_has_its_own_time_to_start_and_to_answer(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(
        '{"mcpServers": {"a": {"command": "c", "timeout_s": 0.5}, "b": {"command": "c", "connect_timeout": 2, "timeout": 6, "tiemout": 1}}}'
    )
    program = toml(MODEL + '[mcp]\nconfig_path = "m.json"\n[mcp.servers.c]\ncommand = "c"\ntimeout = 90\ntimeout_s = 9\n', tmp_path)
    assert program.mcp == {
        "a": McpServer(command="c", timeout_s=0.5),
        "b": McpServer(command="c", timeout_s=6, connect_timeout_s=2),
        "c": McpServer(command="c", timeout_s=90),
    }
    assert [(note.kind, note.place, note.text) for note in program.notes] == [
        ("unknown", "p.toml → m.json: [mcpServers.b] tiemout", "this key is not known and not used. Did you mean 'timeout'?"),
        ("unserved", "p.toml: [mcp.servers.c] timeout_s", "timeout says the same, and counts"),
    ]


@pytest.mark.parametrize("key", ["region", "project_id"])
@pytest.mark.parametrize("where", ["", "[prompt]\n", "[parameters]\n"])
def test_a_misplaced_region_is_read_and_remarked(key: str, where: str) -> None:
    text = f'{key} = "x"\n{MODEL}' if not where else f'{MODEL}{where}{key} = "x"\n'
    program = toml(text)
    place = f"{where.strip()} {key}".strip()
    assert (getattr(program, key), program.settings.body, said(program)) == ("x", {}, [("superseded", place)])
