"""Nothing of a program is dropped silently: every key has an effect or a remark with its place."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import machine
from paths import ROOT

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import Note, Program
from llmproc_nb.drivers import endpoints, files, table
from llmproc_nb.drivers.files import words

MODEL = '[model]\nname = "m"\nprovider = "anthropic"\n'


def said(program: Program) -> list[tuple[str, str]]:
    """Kind and place of each note, the file's name left out."""
    return [(note.kind, note.place.partition(": ")[2]) for note in program.notes]


def toml(text: str, folder: Path = Path(".")) -> Program:
    return files.from_text(text, "toml", base_dir=folder, source="p.toml")


def refusal(text: str, kind: str = "toml") -> str:
    with pytest.raises(ProgramError) as caught:
        files.from_text(text, kind, source=f"p.{kind}")
    return str(caught.value)


FULL = tomllib.loads(
    """
name = "n"
linked_programs = {a = "a.toml", b = {path = "b.toml", description = "d"}}
prompt = {system = "s", user = "u"}
limits = {steps = 1, tokens = 1, cost_usd = 1, seconds = 1, children = 1, depth = 1}
demo = {prompts = ["p"], display_name = "D"}

[model]
name = "m"
provider = "anthropic"
base_url = "http://x"
api_key_env = "K"
project_id = "p"
region = "r"
disable_automatic_caching = true

[parameters]
max_tokens = 1
temperature = 0.1
top_p = 0.1
top_k = 1
stop = "x"
effort = "low"
tool_choice = "any"
seed = 4
frequency_penalty = 1
presence_penalty = 1
whatever = 1
thinking = {type = "adaptive"}
extra_headers = {h = "v"}
extra_body = {b = 1}
output_schema = {type = "object"}

[tools]
builtin = [{name = "read_file", alias = "a", description = "d", access = "read", param_descriptions = {p = "t"}}]
enabled = ["calculator"]
aliases = {calc = "calculator"}
mcp = {s = "all", t = ["x"]}

[tools.anthropic.web_search]
enabled = true
max_uses = 1
allowed_domains = ["d"]
blocked_domains = ["e"]
user_location = {city = "c"}

[mcp]
tools = {u = "all"}

[mcp.servers]
s = {type = "stdio", command = "c", args = ["a"], env = {E = "e"}, description = "d", timeout = 9, connect_timeout = 8}
t = {type = "sse", url = "http://t", headers = {H = "h"}}
u = {command = "u"}

[plugins]
message_id = {tools = [{name = "goto", alias = "g"}]}
stderr = {tools = [{name = "write_stderr", alias = "w"}]}
preload_files = {files = ["f"], relative_to = "cwd"}

[plugins.file_descriptor]
max_direct_output_chars = 1
default_page_size = 1
max_input_chars = 1
page_user_input = false
enable_references = true
tools = ["read_fd"]

[plugins.spawn]
linked_programs = {c = "c.toml"}
linked_program_descriptions = {c = "d"}
tools = [{name = "spawn", alias = "s"}]

[plugins.env_info]
variables = ["date"]
commands = ["c"]
env_vars = {v = "V"}
file_map_root = "r"
file_map_max_files = 1
file_map_show_size = false
own = "line"

[[script.turns]]
say = "x"
think = "t"
when = "w"
call = [{name = "n", arguments = {}}]
stop = "refusal"
delay_s = 1
"""
)
NEEDED = {("linked_programs", "b", "path"), ("model", "name"), ("model", "provider"), ("model",), ("mcp", "servers")}


def leaves(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(data, dict):
        return [leaf for key, value in data.items() for leaf in leaves(value, (*path, key))]
    return [path]


def without(path: tuple[Any, ...]) -> dict[str, Any]:
    data = copy.deepcopy(FULL)
    at = data
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    return data


EFFECTIVE = [leaf for leaf in leaves(FULL) if leaf not in NEEDED and leaf[-1] not in ("type", "command", "url")]


@pytest.mark.parametrize("leaf", EFFECTIVE, ids=".".join)
def test_every_key_has_an_effect(leaf: tuple[str, ...]) -> None:
    whole, less = files.from_mapping(FULL), files.from_mapping(without(leaf))
    assert whole.replace(notes=()) != less.replace(notes=())


def test_a_timeout_is_no_field_of_a_request() -> None:
    program = toml(MODEL + "[parameters]\ntimeout = 30\nseed = 1")
    assert (program.settings.body, said(program)) == ({"seed": 1}, [("unserved", "[parameters] timeout")])


STRICT = """
    · model · prompt · parameters.thinking · limits · tools · tools.anthropic · tools.anthropic.web_search · mcp · mcp.servers.s
    · mcp.servers.t · linked_programs.b · plugins · plugins.file_descriptor · plugins.message_id · plugins.stderr · plugins.spawn
    · plugins.preload_files · plugins.env_info · parameters · demo · script
"""


@pytest.mark.parametrize("name", [name.strip() for name in STRICT.split("·")])
def test_an_unknown_key_in_any_table_is_remarked_with_its_place(name: str) -> None:
    data = copy.deepcopy(FULL)
    at = data
    for key in name.split(".") if name else ():
        at = at[key]
    at["zzqq"] = [1]
    before, after = files.from_mapping(FULL).notes, files.from_mapping(data).notes
    place = f"<dict>: [{name}] zzqq" if name else "<dict>: zzqq"
    assert [(note.kind, note.place) for note in after if note not in before] == [("unknown", place)]


@pytest.mark.parametrize("at", ["tools.builtin", "plugins.stderr.tools", "script.turns", "script.turns.0.call"])
def test_an_unknown_key_of_a_listed_table_is_remarked(at: str) -> None:
    data = copy.deepcopy(FULL)
    found: Any = data
    for key in at.split("."):
        found = found[int(key) if key.isdigit() else key]
    found[0]["zzqq"] = 1
    place = "<dict>: [script.turns[1].call[1]] zzqq" if at.endswith("call") else f"<dict>: [{at}[1]] zzqq"
    assert ("unknown", place) in [(note.kind, note.place) for note in files.from_mapping(data).notes]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("[modle]\nx = 1", ("unknown", "[modle]", "this key is not known and not used. Did you mean 'model'?")),
        ("[tool]\nx = 1", ("unknown", "[tool]", "this key is not known and not used. Did you mean 'tools'?")),
        ('[prompt]\nsytem = "x"', ("unknown", "[prompt] sytem", "this key is not known and not used. Did you mean 'system'?")),
        (
            "[prompt]\ntemperature = 1",
            ("unknown", "[prompt] temperature", "this key is not known and not used. It would be read in [parameters]."),
        ),
        (
            "[parameters]\ntemprature = 1",
            ("unknown", "[parameters] temprature", "this parameter is not known; it is passed on as it is. Did you mean 'temperature'?"),
        ),
        ('[parameters]\nmodel = "x"', ("unserved", "[parameters] model", "the process writes this field itself; it is not passed on")),
        (
            '[tools]\nbuiltin = ["calculater"]',
            (
                "unknown",
                "[tools] builtin",
                "'calculater' is no builtin tool; a tool of that name is looked for at start. Did you mean 'calculator'?",
            ),
        ),
        (
            '[tools]\naliases = {r = "read_file"}\nbuiltin = ["read_fil"]',
            ("unserved", "[tools.aliases] r", "no tool 'read_file' is asked for, so the alias names nothing. Did you mean 'read_fil'?"),
        ),
        (
            '[preload]\nfiles = ["REDME.md"]',
            ("missing", "[preload] files", "there is no file 'REDME.md'; it is left out. Did you mean 'README.md'?"),
        ),
        (
            '[sandbox]\nfiles = ["REDME.md"]',
            ("missing", "[sandbox] files", "there is no file REDME.md, so the sandbox will not start. Did you mean 'README.md'?"),
        ),
        (
            '[sandbox]\nfiles = ["../x"]',
            ("missing", "[sandbox] files", "there is no file ../x, so the sandbox will not start."),
        ),
        (
            '[env_info]\nvariables = ["datum"]',
            ("unknown", "[env_info] variables", "there is no fact 'datum'; it is left out. Did you mean 'date'?"),
        ),
        (
            '[env_info]\nvariabels = ["date"]',
            ("unknown", "[env_info] variabels", "a line of the program's own is a text; this list is not used. Did you mean 'variables'?"),
        ),
        (
            '[plugins.spawn]\nlinked_programs = {helper = "pyproject.toml"}\nlinked_program_descriptions = {helpr = "x"}',
            (
                "unknown",
                "[plugins.spawn] linked_program_descriptions.helpr",
                "no program is linked under this name. Did you mean 'helper'?",
            ),
        ),
        (
            '[linked_programs]\nenabled = ["x"]',
            ("unserved", "[linked_programs] enabled", 'it has no effect: every linked program can be spawned, if [tools] has "spawn"'),
        ),
        (
            '[tools.mcp]\neverything = ["add"]',
            ("missing", "[tools.mcp] everything", "there is no [mcp] that says how this server is started; its tools are not offered"),
        ),
        (
            "[tools.openai.web_search]\nenabled = true",
            ("unserved", "[tools.openai.web_search]", "the provider is 'anthropic', which does not run it"),
        ),
        ("[plugins.approval]\nx = 1", ("unknown", "[plugins.approval]", "this key is not known and not used.")),
        (
            "[parameters.thinking]\nbudget_tokens = 10",
            ("unserved", "[parameters.thinking] budget_tokens", "10 is passed on, but the API wants at least 1024"),
        ),
        (
            "[parameters]\nmax_tokens_to_sample = 9",
            ("superseded", "[parameters] max_tokens_to_sample", "it is now called max_tokens, and read as that"),
        ),
    ],
)
def test_what_is_not_used_is_remarked_with_a_suggestion(text: str, note: tuple[str, str, str]) -> None:
    kind, place, words_said = note
    assert Note(kind=kind, place=f"p.toml: {place}", text=words_said) in toml(MODEL + text, ROOT).notes  # type: ignore[arg-type]


def test_a_key_in_a_file_is_not_shown_or_passed_on() -> None:
    program = toml(MODEL + '[parameters]\napi_key = "sk-ant-secret"\n')
    assert said(program) == [("unknown", "[parameters] api_key")]
    assert "sk-ant" not in repr(program)
    assert "sk-ant" not in refusal(f'{MODEL}api_key_env = "sk-ant-secret"\n')


def test_a_yaml_key_given_twice_is_remarked() -> None:
    program = files.from_text("model: {name: m, provider: openai}\nprompt:\n  system: a\n  system: b\n", "yaml", source="p.yaml")
    assert program.system == "b"
    assert program.notes == (
        Note(kind="unserved", place="p.yaml: line 4", text="the key 'system' stands twice in its table; the later one counts"),
    )


@pytest.mark.parametrize("provider", sorted(words.REFUSED_PROVIDERS))
def test_a_provider_that_cannot_be_served_loads_with_a_remark(provider: str) -> None:
    program = toml(f'[model]\nname = "m"\nprovider = "{provider}"\n')
    assert (program.provider, said(program)) == (provider, [("unserved", "[model] provider")])


def test_the_known_providers_are_those_of_the_tables() -> None:
    assert set(words.PROVIDERS) == {*table.PROVIDERS, *endpoints.ENDPOINTS, "replay"}
    assert set(words.REFUSED_PROVIDERS) == set(endpoints.REFUSED)


def test_the_known_tools_are_those_that_ship() -> None:
    assert set(words.TOOLS) <= set(table.tool_names())


@pytest.mark.parametrize("key", ["builtin", "enabled"])
def test_every_tool_of_llmproc_is_there_without_a_remark(key: str) -> None:
    names = ("calculator", "read_file", "list_dir", "ast_grep", "copy", "paste", "write_stderr")
    program = toml(f'[model]\nname = "m"\nprovider = "anthropic"\n[tools]\n{key} = {list(names)}\n')
    process = machine().start(program)
    assert ([note.kind for note in program.notes if note.kind != "superseded"], process.notes) == ([], ())
    assert {tool.name for tool in process.tools} == {*names, "read_fd"}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(leaves(FULL) + [(key,) for key in FULL]), JUNK)
def test_any_value_under_any_key_loads_or_is_a_program_error(leaf: tuple[str, ...], value: Any) -> None:
    data = copy.deepcopy(FULL)
    at = data
    for key in leaf[:-1]:
        at = at[key]
    at[leaf[-1]] = value
    try:
        program = files.from_mapping(data)
    except ProgramError as error:
        assert str(error).startswith("<dict>: ")
    else:
        program.declaration()
