"""The README's code runs as written, and its command is what CI calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from paths import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_python_example_runs_as_written(tmp_path):
    (tmp_path / "programs").symlink_to(ROOT / "programs")
    (code,) = blocks("python")
    environ = {name: value for name, value in os.environ.items() if name != "LLMPROC_NB_LOG"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert "Two columns deserve a look" in done.stdout
    assert "end_turn" in done.stdout
    assert list((tmp_path / ".llmproc").glob("*.jsonl"))


def test_the_programs_load_without_a_note(tmp_path):
    from llmproc_nb import Program

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ices.csv").write_text("day,sold\n")
    for number, text in enumerate(blocks("toml")):
        path = tmp_path / f"p{number}.toml"
        path.write_text(text)
        assert Program.from_file(path).notes == ()


def test_the_scripted_program_says_its_lines(tmp_path):
    from machines import machine

    from llmproc_nb import Program

    path = tmp_path / "demo.toml"
    path.write_text(blocks("toml")[1])
    process = Program.from_file(path).start(machine=machine())
    assert process.run("what is the sum?").result().text == "It is 3."


def test_ci_calls_the_test_command_of_the_readme():
    command = re.search(r"<!-- tests -->\n```sh\n(.+?)\n```", README).group(1)
    assert command.endswith("uv run pytest -n 2")
    found = subprocess.run(
        ["awk", re.search(r"awk '(.+?)' README", (ROOT / ".ci/run").read_text()).group(1), "README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == command
