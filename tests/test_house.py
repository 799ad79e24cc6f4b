"""The house itself: its rooms, its names, what an import costs, what may not be in a commit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest
from paths import ROOT

import llmproc_nb

PUBLIC = [
    "Call",
    "Document",
    "Image",
    "LLMProcess",
    "LLMProgram",
    "Limits",
    "LlmprocError",
    "Machine",
    "Message",
    "Node",
    "Process",
    "Program",
    "Recording",
    "RunResult",
    "Settings",
    "Text",
    "Tool",
    "ToolError",
    "Toolset",
    "Usage",
    "__version__",
    "default_machine",
    "load_ipython_extension",
    "new_machine",
    "read_log",
    "tool",
    "unload_ipython_extension",
]
HEAVY = ("anthropic", "openai", "mcp", "httpx2", "pandas", "ipywidgets", "anywidget", "jupyter_client", "pydantic", "nbformat", "pyarrow")


def run(*command: str, **fields) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **fields)


def tool_command(name: str, *arguments: str) -> None:
    done = run(sys.executable, "-m", name, *arguments)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_lint_is_clean():
    tool_command("ruff", "check", ".")


def test_format_is_kept():
    tool_command("ruff", "format", "--check", ".")


def test_types_hold():
    tool_command("mypy")


def test_rooms_keep_their_contracts():
    done = run(sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


def test_public_names_are_these():
    assert sorted(llmproc_nb.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(llmproc_nb, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        llmproc_nb.nothing  # noqa: B018


LOADED = "import sys, json; print(json.dumps([name for name in {names!r} if name in sys.modules]))"


def test_the_import_loads_nothing_heavy():
    done = run(sys.executable, "-c", "import llmproc_nb;" + LOADED.format(names=HEAVY))
    assert json.loads(done.stdout) == []


def test_loading_the_extension_loads_nothing_heavy():
    code = "from IPython.core.interactiveshell import InteractiveShell as S; ip = S(); ip.run_line_magic('load_ext', 'llmproc_nb');"
    code += "assert 'agent' in ip.magics_manager.magics['cell'];" + LOADED.format(names=HEAVY)
    done = run(sys.executable, "-c", code)
    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr


def tracked() -> list[str]:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard")
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.split()


def test_nothing_of_one_machine_is_committed():
    paths = re.compile(r"(?<![\w.}])/(?:wo" + r"rk|far" + r"m|ro" + r"ot|home/\w+)/|/tmp/ba" + r"sh_")
    hosts = re.compile(r"registry\.np" + r"mjs|pythonhos" + r"ted|py" + r"pi\.org/sim" + r"ple|deb\.deb" + r"ian\.org")
    keys = re.compile(r"sk-(?:ant|proj)-[A-Za-z0-9]{12,}")
    found = []
    for name in tracked():
        if name == "tests/test_house.py" or not (ROOT / name).is_file():
            continue
        text = (ROOT / name).read_text(errors="ignore")
        found += [(name, kind) for kind, pattern in (("path", paths), ("host", hosts), ("key", keys)) if pattern.search(text)]
    assert found == []
    assert "uv.lock" not in tracked()


def test_the_top_level_is_as_it_should_be():
    top = {name.split("/")[0] for name in tracked()}
    fixed = {"pyproject.toml", "llmproc_nb", "notebooks", "programs", "tests", "jupyter-config", "README.md"}
    beside = {"LICENSE", ".gitignore", ".ci", ".pre-commit-config.yaml", "recordings"}
    assert fixed <= top <= fixed | beside


def test_the_tested_versions_cover_the_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[\[><=~! ]", line)[0].replace("_", "-").lower() for line in project["dependencies"]}
    pinned = {line.split("==")[0].lower() for line in (ROOT / "tests/constraints.txt").read_text().splitlines() if "==" in line}
    assert wanted - pinned == set()


def test_no_word_of_the_kept_out_ones_is_in_a_name():
    kept_out = re.compile(r"^\s*(?:def|class)\s+\w*(manager|helper|utils|session|history|hook)\w*", re.IGNORECASE | re.MULTILINE)
    found = [
        (name, match.group(0))
        for name in tracked()
        if name.startswith("llmproc_nb/") and name.endswith(".py")
        for match in kept_out.finditer((ROOT / name).read_text())
    ]
    assert found == []
