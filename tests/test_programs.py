"""Programs of every generation, as the values they load as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paths import ROOT

from llmproc_nb.core.program import EnvInfo, FdRules, Link, McpServer, Note, Preload, Program, ToolWish
from llmproc_nb.core.provider import Settings
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers import files
from llmproc_nb.drivers.files import words

MODEL = '[model]\nname = "m"\nprovider = "anthropic"\n'


def wish(*names: str) -> tuple[ToolWish, ...]:
    return tuple(ToolWish(name=name) for name in names)


def said(program: Program) -> list[tuple[str, str]]:
    """Kind and place of each note, the file's name left out."""
    return [(note.kind, note.place.partition(": ")[2]) for note in program.notes]


def toml(text: str, folder: Path = Path(".")) -> Program:
    return files.from_text(text, "toml", base_dir=folder, source="p.toml")


def test_the_first_generation_loads(tmp_path: Path) -> None:
    """0.1 to 0.5: `enabled`, `aliases`, `mcp.tools`, `preload`, `linked_programs` by path, `display_name` in [model]."""
    (tmp_path / "notes.md").write_text("notes")
    (tmp_path / "expert.toml").write_text(MODEL)
    (tmp_path / "mcp.json").write_text(
        '{"mcpServers": {"calc": {"type": "stdio", "command": "calc", "args": ["-x"], "env": {"K": "${K}"}}}}'
    )
    path = tmp_path / "main.toml"
    path.write_text(
        """
[model]
name = "claude-3-haiku"
provider = "vertex"
display_name = "Haiku"

[prompt]
system_prompt = "Help."

[parameters]
temperature = 0.7
max_tokens = 150
debug_tools = true

[tools]
enabled = ["spawn", "read_file"]
aliases = { read = "read_file", sum = "calc__add" }

[mcp]
config_path = "mcp.json"
tools = { calc = ["add", "sub"] }

[preload]
files = ["notes.md"]

[env_info]
variables = ["platform", "date"]
motto = "onward"

[linked_programs]
expert = "expert.toml"

[file_descriptor]
enabled = true
default_page_size = 1000
"""
    )
    program = files.load(path)
    place = str(path)
    assert program == Program(
        name="main",
        model="claude-3-haiku",
        provider="anthropic_vertex",
        display_name="Haiku",
        system="Help.",
        settings=Settings(temperature=0.7, max_tokens=150),
        tools=(ToolWish(name="spawn"), ToolWish(name="read_file", alias="read"), ToolWish(name="read_fd")),
        mcp={
            "calc": McpServer(
                command="calc", args=("-x",), env={"K": "${K}"}, tools=(ToolWish(name="add", alias="sum"), ToolWish(name="sub"))
            )
        },
        preload=Preload(files=("notes.md",)),
        env_info=EnvInfo(variables=("platform", "date"), extra={"motto": "onward"}),
        linked={"expert": Link(path="expert.toml")},
        fd=FdRules(default_page_size=1000),
        base_dir=str(tmp_path.resolve()),
        source=str(path.resolve()),
        notes=(
            Note(kind="superseded", place=f"{place}: [model] provider", text="'vertex' is now called 'anthropic_vertex', and read as that"),
            Note(kind="unserved", place=f"{place}: [parameters] debug_tools", text="it has no effect; the log holds every tool call"),
            Note(kind="superseded", place=f"{place}: [tools] enabled", text="it is now called builtin, and read as that"),
            Note(kind="superseded", place=f"{place}: [mcp] tools", text="it is now [tools.mcp], and read as that"),
            Note(
                kind="superseded",
                place=f"{place}: [tools] aliases",
                text='an alias now stands with its tool: builtin = [{name = "read_file", alias = "read"}]; read as that',
            ),
            Note(kind="superseded", place=f"{place}: [file_descriptor]", text="it is now [plugins.file_descriptor], and read as that"),
            Note(
                kind="superseded",
                place=f"{place}: [linked_programs]",
                text="it is now [plugins.spawn.linked_programs], and read as that",
            ),
            Note(kind="superseded", place=f"{place}: [preload]", text="it is now [plugins.preload_files], and read as that"),
            Note(kind="superseded", place=f"{place}: [env_info]", text="it is now [plugins.env_info], and read as that"),
            Note(kind="superseded", place=f"{place}: [model] display_name", text="it is now [demo] display_name, and read as that"),
        ),
    )


def test_the_second_generation_loads() -> None:
    """0.6 and 0.7: `tools.mcp`, `prompt.user`, `max_iterations`, [demo]; `enabled` may name the alias."""
    program = toml(
        """
[model]
name = "claude-3-7-sonnet"
provider = "anthropic"
max_iterations = 20
disable_automatic_caching = true

[prompt]
system_prompt = "Help."
user = "Begin."

[parameters]
max_tokens = 20000
extra_headers = { anthropic-beta = "token-efficient-tools-2025-02-19" }
thinking = { budget_tokens = 4000 }

[tools]
enabled = ["calc", "goto"]
aliases = { calc = "calculator" }

[tools.mcp]
everything = "all"

[mcp.servers.everything]
type = "sse"
url = "http://localhost:1/sse"

[demo]
prompts = ["One?", "Two?"]
pause_between_prompts = false
display_name = "Demo"
"""
    )
    assert program.replace(notes=()) == Program(
        model="claude-3-7-sonnet",
        provider="anthropic",
        limits=Limits(max_iterations=20),
        prompt_caching=False,
        system="Help.",
        user="Begin.",
        settings=Settings(
            max_tokens=20000,
            headers={"anthropic-beta": "token-efficient-tools-2025-02-19"},
            thinking={"type": "enabled", "budget_tokens": 4000},
        ),
        tools=(ToolWish(name="calculator", alias="calc"), ToolWish(name="goto")),
        mcp={"everything": McpServer(type="sse", url="http://localhost:1/sse", tools="all")},
        demo_prompts=("One?", "Two?"),
        demo_pause=False,
        display_name="Demo",
        base_dir=str(Path(".").resolve()),
        source="p.toml",
    )
    assert said(program) == [
        ("superseded", "[tools] enabled"),
        ("superseded", "[tools] aliases"),
    ]


def test_the_third_generation_loads() -> None:
    """0.8 to 0.9.5: `builtin` with tool objects, `system`, links with descriptions, commands and file maps."""
    program = files.from_text(
        """
model: {name: gpt-4o-mini, provider: openai_chat}
prompt: {system: Help.}
parameters: {max_completion_tokens: 100, stop: END, reasoning_effort: minimal, top_p: 1, presence_penalty: 0.5}
tools:
  builtin:
    - spawn
    - {name: read_file, alias: read, description: Read., access: READ, param_descriptions: {file_path: Where.}}
    - read_fd
linked_programs:
  self: {path: pyproject.toml, description: Me}
env_info:
  variables: all
  commands: [pwd]
  env_vars: {region: AWS_REGION}
  file_map_root: .
  file_map_max_files: 15
  file_map_show_size: false
  app_version: 1.5
  released: 2024-01-01
file_descriptor: {enable_references: true}
""",
        "yaml",
        base_dir=ROOT,
        source="p.yaml",
    )
    assert program == Program(
        model="gpt-4o-mini",
        provider="openai_chat",
        system="Help.",
        settings=Settings(max_tokens=100, stop=("END",), effort="minimal", top_p=1.0, body={"presence_penalty": 0.5}),
        tools=(
            ToolWish(name="spawn"),
            ToolWish(name="read_file", alias="read", description="Read.", access="read", param_descriptions={"file_path": "Where."}),
            ToolWish(name="read_fd"),
        ),
        linked={"self": Link(path="pyproject.toml", description="Me")},
        env_info=EnvInfo(
            variables=words.ENV_VARIABLES,
            commands=("pwd",),
            env_vars={"region": "AWS_REGION"},
            file_map_root=".",
            file_map_max_files=15,
            file_map_show_size=False,
            extra={"app_version": "1.5", "released": "2024-01-01"},
        ),
        fd=FdRules(enable_references=True),
        base_dir=str(ROOT),
        source="p.yaml",
        notes=program.notes,
    )
    assert said(program) == [
        ("superseded", "[file_descriptor]"),
        ("superseded", "[linked_programs]"),
        ("superseded", "[env_info]"),
    ]


def test_the_fourth_generation_loads_without_a_remark(tmp_path: Path) -> None:
    """1.0: everything under plugins, hosted web search, null lists."""
    (tmp_path / "e.yaml").write_text("model: {name: m, provider: anthropic}")
    program = files.from_text(
        """
model: {name: claude-sonnet-4, provider: anthropic, region: null}
prompt: {system_prompt: Help., user_prompt: Begin.}
parameters: {max_tokens: 1000, temperature: null, stop_sequences: [A, B]}
tools:
  builtin: null
  mcp: {}
  anthropic: {web_search: {enabled: true, max_uses: 3, allowed_domains: [a.org], blocked_domains: null}}
  openai: null
plugins:
  file_descriptor: {max_direct_output_chars: 2000}
  message_id: {enable_goto: true}
  stderr: {tools: [{name: write_stderr, alias: log}]}
  spawn: {linked_programs: {e: e.yaml}, linked_program_descriptions: {e: Expert}}
  preload_files: {files: [e.yaml]}
  env_info: {variables: [date]}
""",
        "yaml",
        base_dir=tmp_path,
    )
    assert program == Program(
        model="claude-sonnet-4",
        provider="anthropic",
        system="Help.",
        user="Begin.",
        settings=Settings(max_tokens=1000, stop=("A", "B")),
        tools=(*wish("goto"), ToolWish(name="write_stderr", alias="log"), *wish("spawn", "read_fd", "fd_to_file")),
        hosted={"web_search": {"max_uses": 3, "allowed_domains": ["a.org"]}},
        fd=FdRules(max_direct_output_chars=2000),
        linked={"e": Link(path="e.yaml", description="Expert")},
        preload=Preload(files=("e.yaml",)),
        env_info=EnvInfo(variables=("date",)),
        base_dir=str(tmp_path.resolve()),
        source="<text>",
    )


def test_our_own_keys_load() -> None:
    program = files.from_mapping(
        {
            "name": "scout",
            "model": {"provider": "scripted", "base_url": "http://localhost:1", "api_key_env": "MY_KEY"},
            "limits": {"steps": 3, "tokens": 9, "cost_usd": 0.5, "seconds": 60, "children": 0, "depth": 1},
            "script": {
                "turns": [
                    {"say": "Hi", "when": "^hi", "think": "…", "delay_s": 0.1, "stop": "end_turn"},
                    {"call": [{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": "{not json"}]},
                    {"error": "Overloaded", "fail": 2, "reply": "Done"},
                ]
            },
        }
    )
    assert program == Program(
        name="scout",
        provider="scripted",
        base_url="http://localhost:1",
        api_key_env="MY_KEY",
        limits=Limits(steps=3, tokens=9, cost_usd=0.5, seconds=60.0, children=0, depth=1),
        script=(
            {"say": "Hi", "think": "…", "stop": "end_turn", "delay_s": 0.1, "when": "^hi"},
            {"call": [{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": "{not json"}]},
            {"reply": "Done", "error": "Overloaded", "fail": 2},
        ),
        base_dir=str(Path(".").resolve()),
        source="<dict>",
    )


def test_a_program_does_not_share_values_with_the_dict_it_came_from() -> None:
    data: dict[str, Any] = {"model": {"name": "m", "provider": "openai"}, "parameters": {"metadata": {"a": 1}}}
    program = files.from_mapping(data)
    data["parameters"]["metadata"]["a"] = 2
    assert program.settings.body == {"metadata": {"a": 1}}
