"""Real programs of other projects: which load, with which remarks, and which are refused, each by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from paths import SHARED, needs_shared

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import EnvInfo, FdRules, Link, McpServer, Preload, Program, ToolWish
from llmproc_nb.core.provider import Settings
from llmproc_nb.drivers import files

REAL = SHARED / "programs-real"
OLD, NEW, LLLM = "cccntu__llmproc/examples", "changjonathanc__llmproc/examples", "Productive-Superintelligence__lllm"
PACKAGES = f"{LLLM}/tests/test_cases/packages"

PRELOAD = ("superseded", "[preload]")
FDS = ("superseded", "[file_descriptor]")
LINKS = ("superseded", "[linked_programs]")
ENV = ("superseded", "[env_info]")
MISSING_OLD = ("missing", "[preload] files")
MISSING_NEW = ("missing", "[plugins.preload_files] files")

LOADS: dict[str, list[tuple[str, str]]] = {
    f"{OLD}/anthropic.toml": [],
    f"{OLD}/basic-features.toml": [PRELOAD, MISSING_OLD, MISSING_OLD, ENV],
    f"{OLD}/env-info-test.yaml": [ENV],
    f"{OLD}/file-descriptor/references.toml": [FDS],
    f"{OLD}/goto.toml": [],
    f"{OLD}/program-linking/main.toml": [LINKS],
    f"{OLD}/program-linking/repo_expert.toml": [PRELOAD, MISSING_OLD, MISSING_OLD, MISSING_OLD],
    f"{NEW}/anthropic.yaml": [],
    f"{NEW}/basic-features.yaml": [MISSING_NEW, MISSING_NEW],
    f"{NEW}/builtin-tools.yaml": [],
    f"{NEW}/file-descriptor/analyzer.yaml": [],
    f"{NEW}/file-descriptor/main.yaml": [],
    f"{NEW}/file-descriptor/user_input.yaml": [],
    f"{NEW}/fork.yaml": [],
    f"{NEW}/goto.yaml": [],
    f"{NEW}/mcp.yaml": [],
    f"{NEW}/openai.yaml": [],
    f"{NEW}/program-linking/main.yaml": [
        ("missing", "[plugins.spawn.linked_programs] repo_expert"),
        ("missing", "[plugins.spawn.linked_programs] thinking_expert"),
    ],
    f"{NEW}/program-linking/repo_expert.yaml": [PRELOAD, MISSING_OLD, MISSING_OLD, MISSING_OLD],
}

PROMPT = "[prompt] system_prompt_file: there is no file"
CONFIG = "[mcp] config_path: there is no file 'config/mcp_servers.json'"
MANIFEST = "this is the manifest of a package, not a program"
AGENTS = "this is an agent configuration of a package, not a program"
NO_MODEL = "[model]: there is no such table"
SUFFIX = "the suffix .json is not that of a program"

REFUSED: dict[str, list[str]] = {
    f"{OLD}/claude-code.toml": [PROMPT, CONFIG],
    f"{OLD}/dispatch_agent.toml": [PROMPT, CONFIG],
    f"{NEW}/claude-code.yaml": [PROMPT],
    f"{NEW}/config/mcp_servers.json": [SUFFIX],
    "changjonathanc__llmproc/docs/yaml_config_schema.yaml": [NO_MODEL],
    f"{LLLM}/examples/code_review_service/configs/default.yaml": [AGENTS],
    f"{LLLM}/examples/code_review_service/lllm.toml": [MANIFEST],
    f"{PACKAGES}/pkg_alpha/configs/default.yaml": [AGENTS],
    f"{PACKAGES}/pkg_alpha/configs/development.yaml": [AGENTS],
    f"{PACKAGES}/pkg_alpha/configs/production.yaml": [AGENTS],
    f"{PACKAGES}/pkg_alpha/lllm.toml": [MANIFEST],
    f"{PACKAGES}/pkg_bad_toml/lllm.toml": ["line 1, column 6: no valid TOML: Expected '=' after a key in a key/value pair"],
    f"{PACKAGES}/pkg_beta/configs/beta_default.yaml": [AGENTS],
    f"{PACKAGES}/pkg_beta/lllm.toml": [MANIFEST],
    f"{PACKAGES}/pkg_chain_a/configs/chain_config.yaml": [AGENTS],
    f"{PACKAGES}/pkg_chain_a/lllm.toml": [MANIFEST],
    f"{PACKAGES}/pkg_chain_b/lllm.toml": [MANIFEST],
    f"{PACKAGES}/pkg_chain_c/lllm.toml": [MANIFEST],
    f"{PACKAGES}/pkg_chain_d/lllm.toml": [MANIFEST],
    f"{PACKAGES}/pkg_cycle_a/lllm.toml": [MANIFEST],
    f"{PACKAGES}/pkg_cycle_b/lllm.toml": [MANIFEST],
    f"{PACKAGES}/pkg_empty/lllm.toml": [MANIFEST],
    f"{PACKAGES}/pkg_gamma/assets/models/config.yaml": [NO_MODEL],
    f"{PACKAGES}/pkg_gamma/assets/schema.json": [SUFFIX],
    f"{PACKAGES}/pkg_gamma/data/sample.json": [SUFFIX],
    f"{PACKAGES}/pkg_gamma/data/training/examples.json": [SUFFIX],
    f"{PACKAGES}/pkg_gamma/lllm.toml": [MANIFEST],
}

pytestmark = needs_shared


def bare(program: Program) -> Program:
    """A program without what depends on the machine, and without its long prompts."""
    return program.replace(base_dir=".", source="", system="", user=None, notes=())


def tools(*names: str) -> tuple[ToolWish, ...]:
    return tuple(ToolWish(name=name) for name in names)


def test_every_real_file_is_expected_to_load_or_to_be_refused() -> None:
    found = {str(path.relative_to(REAL)) for path in REAL.glob("*/**/*") if path.is_file() and path.parent.name != "licences"}
    assert found == LOADS.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", LOADS)
def test_a_real_program_loads_with_these_remarks(name: str) -> None:
    path = REAL / name
    program = files.load(path)
    assert [(note.kind, note.place.removeprefix(f"{path}: ")) for note in program.notes] == LOADS[name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_real_file_is_refused_for_these_reasons(name: str) -> None:
    path = REAL / name
    report = files.check(path)
    assert report.program is None
    assert [str(error)[: len(f"{path}: {found}")] for error, found in zip(report.errors, REFUSED[name], strict=True)] == [
        f"{path}: {found}" for found in REFUSED[name]
    ]
    with pytest.raises(ProgramError):
        files.load(path)


WHOLE = {
    f"{OLD}/anthropic.toml": Program(
        name="anthropic",
        model="claude-3-5-haiku@20241022",
        provider="anthropic_vertex",
        settings=Settings(max_tokens=4096),
        display_name="Claude",
    ),
    f"{OLD}/basic-features.toml": Program(
        name="basic-features",
        model="claude-3-5-haiku-20241022",
        provider="anthropic",
        settings=Settings(max_tokens=1000),
        tools=(
            ToolWish(name="read_file", alias="read"),
            ToolWish(name="calculator", alias="calc"),
            ToolWish(name="list_dir", alias="dir"),
        ),
        preload=Preload(files=("../README.md", "../pyproject.toml")),
        env_info=EnvInfo(
            variables=("working_directory", "platform", "date"), commands=("echo example",), env_vars={"region": "MY_ENV_INFO"}
        ),
        display_name="Basic Features Demo",
    ),
    f"{OLD}/file-descriptor/references.toml": Program(
        name="references",
        model="claude-3-5-sonnet-20240620",
        provider="anthropic",
        settings=Settings(max_tokens=4000, temperature=0.7),
        tools=tools("read_fd", "fd_to_file"),
        fd=FdRules(max_direct_output_chars=4000, default_page_size=2000, enable_references=True),
        display_name="Claude with References",
    ),
    f"{OLD}/program-linking/main.toml": Program(
        name="main",
        model="claude-3-5-haiku@20241022",
        provider="anthropic_vertex",
        region="us-east5",
        settings=Settings(max_tokens=1000),
        tools=tools("spawn"),
        linked={
            "repo_expert": Link(path="./repo_expert.toml", description="Expert on the LLMProc project codebase and documentation"),
            "thinking_expert": Link(path="../anthropic.toml", description="Claude model as expert for complex reasoning"),
        },
        display_name="Claude with Experts",
    ),
    f"{NEW}/file-descriptor/user_input.yaml": Program(
        name="user_input",
        model="claude-3-5-sonnet-20240620",
        provider="anthropic",
        settings=Settings(max_tokens=4000, temperature=0.7),
        tools=tools("read_fd", "fd_to_file"),
        fd=FdRules(max_direct_output_chars=2000, default_page_size=1000, max_input_chars=2000),
        display_name="Claude with User Input FD",
    ),
    f"{NEW}/goto.yaml": Program(
        name="goto",
        model="claude-3-7-sonnet-20250219",
        provider="anthropic",
        settings=Settings(max_tokens=1000, temperature=0.3),
        tools=tools("read_file", "calculator", "goto"),
        display_name="Claude 3.7 with GOTO",
    ),
    f"{NEW}/mcp.yaml": Program(
        name="mcp",
        model="claude-3-5-haiku-20241022",
        provider="anthropic",
        settings=Settings(max_tokens=300, temperature=0.7),
        mcp={
            "sequential-thinking": McpServer(
                command="/bin/zsh", args=("-c", "npx -y @modelcontextprotocol/server-sequential-thinking ")
            ),
            "everything": McpServer(
                command="/bin/zsh", args=("-c", "npx -y @modelcontextprotocol/server-everything "), tools=tools("add")
            ),
        },
        display_name="Claude MCP Assistant",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_real_program_loads_as_this_value(name: str) -> None:
    program = files.load(REAL / name)
    assert bare(program) == WHOLE[name]
    assert program.system


def test_real_environment_info_loads_whole() -> None:
    assert files.load(REAL / OLD / "env-info-test.yaml").env_info == EnvInfo(
        variables=("working_directory", "platform", "date", "python_version", "hostname", "username", "file_map"),
        commands=("git rev-parse --short HEAD 2>/dev/null || echo 'not a git repo'", "date +%H:%M:%S", "pwd"),
        env_vars={"region": "AWS_REGION", "project": "PROJECT_NAME"},
        file_map_root=".",
        file_map_max_files=15,
        extra={"custom_var": "This is a custom value", "app_version": "1.0.3"},
    )


def test_the_refused_ones_load_where_their_files_are_put_beside_them(tmp_path: Path) -> None:
    for source in (OLD, NEW):
        shutil.copytree(REAL / source, tmp_path, dirs_exist_ok=True, copy_function=shutil.copyfile)
    (tmp_path / "prompts").mkdir()
    for name in ("claude-code-system-prompt", "claude-code-dispatch-agent-system-prompt"):
        (tmp_path / "prompts" / f"{name}.md").write_text(name)
    program = files.load(tmp_path / "claude-code.toml")
    assert (program.system, program.linked) == (
        "claude-code-system-prompt",
        {"dispatch_agent": Link(path="dispatch_agent.toml", description="Agent for exploring codebases efficiently")},
    )
    assert {name: server.tools for name, server in program.mcp.items()} == {"sequential-thinking": "all", "everything": tools("add")}
    linked = files.load_linked(program)
    assert sorted(Path(path).name for path in linked) == ["claude-code.toml", "dispatch_agent.toml"]
    assert linked[files.link_path(program, program.linked["dispatch_agent"])].settings == Settings(
        max_tokens=20000,
        temperature=1.0,
        thinking={"type": "enabled", "budget_tokens": 4000},
        headers={"anthropic-beta": "token-efficient-tools-2025-02-19"},
    )


def test_links_to_renamed_files_name_the_file_that_is_there() -> None:
    with pytest.raises(ProgramError) as caught:
        files.load_linked(files.load(REAL / NEW / "program-linking" / "main.yaml"))
    assert "[plugins.spawn.linked_programs] repo_expert: there is no file './repo_expert.toml'" in str(caught.value)
    assert "Did you mean 'repo_expert.yaml'?" in str(caught.value)


def test_real_links_are_followed() -> None:
    linked = files.load_linked(files.load(REAL / OLD / "program-linking" / "main.toml"))
    assert sorted(Path(path).name for path in linked) == ["anthropic.toml", "main.toml", "repo_expert.toml"]


@pytest.mark.parametrize("suffix", [".toml", ".yaml"])
def test_every_hostile_file_taken_for_a_program_is_a_report(tmp_path: Path, suffix: str) -> None:
    hostile = sorted(path for path in (SHARED / "hostile").glob("**/*") if path.is_file())
    assert hostile
    for number, source in enumerate(hostile):
        path = tmp_path / f"{number}{suffix}"
        shutil.copyfile(source, path)
        assert not files.check(path).ok, source.name
