"""Program files on disk: paths, links, the report of a check, and the programs that ship."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import Link, McpServer, Program
from llmproc_nb.core.provider import Settings
from llmproc_nb.drivers import files

MODEL = '[model]\nname = "m"\nprovider = "anthropic"\n'


def said(program: Program) -> list[tuple[str, str]]:
    """Kind and place of each note, the file's name left out."""
    return [(note.kind, note.place.partition(": ")[2]) for note in program.notes]


def toml(text: str, folder: Path = Path(".")) -> Program:
    return files.from_text(text, "toml", base_dir=folder, source="p.toml")


def test_a_path_that_is_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.toml").write_text(MODEL)
    (tmp_path / "main.json").write_text("{}")
    (tmp_path / "latin.toml").write_bytes('[model]\nname = "é"'.encode("latin-1"))
    cases = {
        "mian.toml": "there is no such file; a program is a TOML or YAML file. Did you mean 'main.toml'?",
        "main.yaml": "there is no such file; a program is a TOML or YAML file. Did you mean 'main.json'?",
        "": "this is a folder; a program is a TOML or YAML file.",
        "main.json": "the suffix .json is not that of a program; programs end in .toml, .yaml or .yml.",
        "latin.toml": "latin.toml is not UTF-8 (byte 16); text files are read as UTF-8.",
    }
    for name, text in cases.items():
        with pytest.raises(ProgramError) as caught:
            files.load(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {text}"[: -len(".")])


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.TOML"
    path.write_bytes(b"\xef\xbb\xbf" + (MODEL + '[prompt]\nsystem = """a\nb"""\n').replace("\n", "\r\n").encode())
    assert files.load(path).system == "a\nb"


def test_paths_are_relative_to_the_program_and_edits_are_seen_at_the_next_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "s.md").write_text("one")
    (tmp_path / "p" / "p.toml").write_text(MODEL + '[prompt]\nsystem_prompt_file = "s.md"\n')
    monkeypatch.chdir(tmp_path)
    first = files.load("p/p.toml")
    (tmp_path / "p" / "s.md").write_text("two")
    assert (first.system, files.load("p/p.toml").system, first.base_dir) == ("one", "two", str((tmp_path / "p").resolve()))


def test_no_value_of_the_environment_gets_into_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2")
    program = toml(
        MODEL + 'api_key_env = "MY_SECRET"\n[mcp.servers.s]\ncommand = "c"\nenv = {A = "${MY_SECRET}"}\n'
        '[env_info]\nenv_vars = {a = "MY_SECRET"}\n'
    )
    assert "hunter2" not in repr(program)


def linking(folder: Path, links: dict[str, list[str]]) -> None:
    for name, targets in links.items():
        table_lines = "".join(f'{Path(target).stem} = "{target}"\n' for target in targets)
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{MODEL}[plugins.spawn.linked_programs]\n{table_lines}")


def test_linked_programs_are_loaded_once_each_through_cycles_and_chains(tmp_path: Path) -> None:
    linking(
        tmp_path, {"a.toml": ["b.toml", "x/c.toml"], "b.toml": ["a.toml", "b.toml"], "x/c.toml": ["../b.toml", "d.toml"], "x/d.toml": []}
    )
    program = files.load(tmp_path / "a.toml")
    table_found = files.load_linked(program)
    root = tmp_path.resolve()
    assert {str(Path(path).relative_to(root)): found.name for path, found in table_found.items()} == {
        "a.toml": "a", "b.toml": "b", "x/c.toml": "c", "x/d.toml": "d",
    }  # fmt: skip
    assert table_found[str(root / "a.toml")] is program
    b = table_found[files.link_path(program, program.linked["b"])]
    assert table_found[files.link_path(b, b.linked["a"])] is program


def test_a_chain_of_a_thousand_links_is_followed(tmp_path: Path) -> None:
    linking(tmp_path, {f"p{number}.toml": [f"p{number + 1}.toml"] if number < 999 else [] for number in range(1000)})
    assert len(files.load_linked(files.load(tmp_path / "p0.toml"))) == 1000


def test_links_of_a_program_made_in_python_are_followed(tmp_path: Path) -> None:
    linking(tmp_path, {"a.toml": []})
    inner = Program(name="inner", linked={"a": Link(path="a.toml")}, base_dir=str(tmp_path))
    program = Program(name="outer", linked={"inner": Link(program=inner)})
    assert list(files.load_linked(program)) == [str((tmp_path / "a.toml").resolve())]


def test_a_link_that_leads_nowhere_loads_with_a_remark_and_does_not_link(tmp_path: Path) -> None:
    linking(tmp_path, {"a.toml": ["expert.toml"], "expert.yaml": []})
    program = files.load(tmp_path / "a.toml")
    assert said(program) == [("missing", "[plugins.spawn.linked_programs] expert")]
    with pytest.raises(ProgramError) as caught:
        files.load_linked(program)
    assert str(caught.value) == (
        f"{tmp_path / 'a.toml'}: [plugins.spawn.linked_programs] expert: there is no file 'expert.toml'; paths are relative to the "
        "program's folder. Did you mean 'expert.yaml'?"
    )


def test_a_fault_in_a_linked_program_is_reported_at_its_own_place(tmp_path: Path) -> None:
    linking(tmp_path, {"a.toml": ["b.toml"]})
    (tmp_path / "b.toml").write_text("[model]\nname = 1\n")
    with pytest.raises(ProgramError) as caught:
        files.load_linked(files.load(tmp_path / "a.toml"))
    assert str(caught.value).startswith(f"{(tmp_path / 'b.toml').resolve()}: [model] provider: no provider is named")


def test_check_reports_program_notes_errors_and_links_as_lines(tmp_path: Path) -> None:
    linking(tmp_path, {"a.toml": ["b.toml"]})
    path = tmp_path / "a.toml"
    path.write_text(path.read_text() + '[tools]\nenabled = ["calculator"]\n')
    report = files.check(path)
    assert (report.ok, report.program is not None, len(report.notes)) == (False, True, 1)
    assert report.lines() == [
        f"{path}: the program 'a': anthropic m, 2 tools, 1 linked program",
        f"  error       {path}: [plugins.spawn.linked_programs] b: there is no file 'b.toml'; paths are relative to the program's folder. "
        "Did you mean 'a.toml'?",
        f"  superseded  {path}: [tools] enabled: it is now called builtin, and read as that",
        f"{path}: 1 error, 1 note",
    ]


def test_check_does_not_raise_where_nothing_can_be_read(tmp_path: Path) -> None:
    report = files.check(tmp_path / "no.toml")
    assert (report.ok, report.program, len(report.errors)) == (False, None, 1)
    assert files.check("a\0b.toml").ok is False
    assert files.check("x" * 5000 + ".toml").ok is False


@pytest.mark.parametrize("path", sorted((ROOT / "programs").glob("*.*")), ids=lambda path: path.name)
def test_the_programs_that_ship_load_without_a_remark(path: Path) -> None:
    report = files.check(path)
    assert (report.errors, report.notes) == ((), ())
    assert path.read_text().startswith("# ")


def test_the_reference_shows_every_field_of_a_program() -> None:
    program, default = files.load(ROOT / "programs" / "reference.toml"), Program()
    # A script belongs to another provider, caching is on, and the limits and fds shown are what holds anyway.
    same = {name for name in program.__struct_fields__ if getattr(program, name) == getattr(default, name)}
    assert same == {"script", "prompt_caching", "notes"}
    assert {name for name in Settings.__struct_fields__ if getattr(program.settings, name) == getattr(Settings(), name)} == set()
    servers = program.mcp.values()
    shown = {name for name in McpServer.__struct_fields__ if any(getattr(server, name) != getattr(McpServer(), name) for server in servers)}
    assert shown == set(McpServer.__struct_fields__)


def test_importing_the_loader_loads_no_yaml() -> None:
    names = "('yaml', 'anthropic', 'openai', 'mcp', 'pandas', 'IPython')"
    code = f"import sys, llmproc_nb.drivers.files; sys.exit(any(name in sys.modules for name in {names}))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
