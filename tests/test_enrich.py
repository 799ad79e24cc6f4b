"""The system prompt with all that a program adds to it, and `.env`: real folders, real commands, a fixed environment and clock."""

import platform
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.program import EnvInfo, Preload, Program
from llmproc_nb.drivers.enrich import enrich, load_env

NOW = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)


def made(folder: Path, environ: dict[str, str] | None = None, **fields: object) -> tuple[str, tuple[str, ...]]:
    program = Program(name="p", system="Be brief.", base_dir=str(folder), **fields)  # type: ignore[arg-type]
    return enrich(program, environ={"USER": "ada", "PATH": "/usr/bin:/bin", **(environ or {})}, cwd=folder, now=NOW)


def test_a_program_that_asks_for_nothing_gets_its_own_text(tmp_path: Path) -> None:
    assert made(tmp_path) == ("Be brief.", ())


def test_all_means_the_six_facts_in_order(tmp_path: Path) -> None:
    text, warnings = made(tmp_path, env_info=EnvInfo(variables=("all",), extra={"app": "1.0"}))
    assert (text, warnings) == (
        f"Be brief.\n\n<env>\nworking_directory: {tmp_path}\nplatform: {platform.system()} {platform.release()}\ndate: 2026-03-04\n"
        f"python_version: {platform.python_version()}\nhostname: {platform.node()}\nusername: ada\napp: 1.0\n</env>",
        (),
    )


def test_own_lines_stand_without_any_variable_and_unknown_names_are_told(tmp_path: Path) -> None:
    assert made(tmp_path, env_info=EnvInfo(variables=("dat",), extra={"team": "blue"})) == (
        "Be brief.\n\n<env>\nteam: blue\n</env>",
        (
            "p: [env_info] variables: unknown name 'dat'; there are working_directory, platform, date, python_version, hostname, username, "
            "file_map and all",
        ),
    )


def test_variables_come_by_name_and_keys_never_do(tmp_path: Path) -> None:
    info = EnvInfo(env_vars={"region": "AWS_REGION", "empty": "EMPTY", "gone": "GONE", "key": "OPENAI_API_KEY"})
    assert made(tmp_path, {"AWS_REGION": "eu-1", "EMPTY": "", "OPENAI_API_KEY": "sk-1"}, env_info=info) == (
        "Be brief.\n\n<env>\nregion: eu-1\nempty: \n</env>",
        ("p: [env_info] env_vars.gone: GONE is not set", "p: [env_info] env_vars.key: OPENAI_API_KEY looks like a secret and is left out"),
    )


def test_commands_run_in_the_working_folder_without_keys_and_say_how_they_ended(tmp_path: Path) -> None:
    info = EnvInfo(commands=("pwd", "echo $REGION,$X_TOKEN,", "echo out; echo err >&2; exit 3"))
    assert made(tmp_path, {"REGION": "eu", "X_TOKEN": "t0k"}, env_info=info) == (
        f"Be brief.\n\n<env>\n> pwd\n{tmp_path}\n> echo $REGION,$X_TOKEN,\neu,,\n"
        "> echo out; echo err >&2; exit 3\nout\nerr\n(ended with code 3)\n</env>",
        ("p: [env_info] commands: 'echo out; echo err >&2; exit 3' ended with code 3",),
    )


def test_a_command_that_does_not_end_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    program = Program(name="p", env_info=EnvInfo(commands=("echo a; sleep 60 | cat",)))
    assert enrich(program, environ={"PATH": "/usr/bin:/bin"}, cwd=tmp_path, now=NOW, command_timeout_s=0.3) == (
        "<env>\n> echo a; sleep 60 | cat\na\n(stopped after 0.3 s)\n</env>",
        ("p: [env_info] commands: 'echo a; sleep 60 | cat' was stopped after 0.3 s",),
    )


def test_the_file_map_lists_so_many_files_and_counts_the_rest(tmp_path: Path) -> None:
    for name, size in (("b.txt", 1_500), ("a/z.py", 3), (".git/x", 1), ("__pycache__/y", 1), ("c.txt", 0), ("d.txt", 0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x" * size)
    info = EnvInfo(variables=("file_map",), file_map_max_files=2)
    assert made(tmp_path, env_info=info)[0] == (
        "Be brief.\n\n<env>\nfile_map: . (without hidden files)\n  b.txt (1.5 kB)\n  c.txt (0 B)\n  … and 2 other files\n</env>"
    )
    plain = EnvInfo(file_map_root="a", file_map_show_size=False)
    assert made(tmp_path, env_info=plain)[0] == "Be brief.\n\n<env>\nfile_map: a (without hidden files)\n  z.py\n</env>"
    assert made(tmp_path, env_info=EnvInfo(file_map_root="nope"))[1] == ("p: [env_info] file_map_root: 'nope' is no folder",)


def test_preloaded_files_keep_apart_and_missing_ones_are_told(tmp_path: Path) -> None:
    for name, text in (("one/a.md", "first\n"), ("two/a.md", "second"), ("bin", "a\0b")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "old.txt").write_bytes(b"caf\xe9\r\n")
    files = ("one/a.md", "two/a.md", str(tmp_path / "one" / "a.md"), "gone.md", "bin", "old.txt", "one")
    text, warnings = made(tmp_path, preload=Preload(files=files[:2] + files[3:]))
    assert text == (
        'Be brief.\n\n<preload>\n<file path="one/a.md">\nfirst\n</file>\n<file path="two/a.md">\nsecond\n</file>\n'
        '<file path="old.txt">\ncaf\ufffd\r\n</file>\n</preload>'
    )
    assert warnings == (
        f"p: [preload] files: 'gone.md' cannot be read (No such file or directory), looked for in {tmp_path}",
        "p: [preload] files: 'bin' is no text; left out",
        "p: [preload] files: 'old.txt' is not UTF-8 throughout; what cannot be read stands as \ufffd",
        f"p: [preload] files: 'one' cannot be read (Is a directory), looked for in {tmp_path}",
    )


def test_preload_can_be_relative_to_the_working_folder_and_quotes_names(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "cwd").mkdir()
    (tmp_path / 'a"<b.md').write_text("up")
    program = Program(base_dir=str(tmp_path / "base"), preload=Preload(files=('../a"<b.md',), relative_to="cwd"))
    assert enrich(program, environ={}, cwd=tmp_path / "cwd", now=NOW) == (
        "<preload>\n<file path='../a\"&lt;b.md'>\nup\n</file>\n</preload>",
        (),
    )


def test_the_order_is_own_text_facts_files(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    text, _ = made(tmp_path, env_info=EnvInfo(variables=("date",)), preload=Preload(files=("a.md",)))
    assert text == 'Be brief.\n\n<env>\ndate: 2026-03-04\n</env>\n\n<preload>\n<file path="a.md">\ntext\n</file>\n</preload>'


def test_the_nearest_env_file_counts_and_what_is_set_stays(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / ".env").write_text("FAR=1\n")
    (tmp_path / "a" / ".env").write_text('\ufeffKEY="sk 1" # mine\nexport SET=file\nBARE\nURL=http://${HOST:-h}/${KEY}/${SET}\n\n=bad\n')
    (deep / ".env").mkdir()
    environ = {"SET": "shell"}
    assert load_env(deep, environ) == {"KEY": "sk 1", "URL": "http://h/sk 1/shell"}
    assert environ == {"SET": "shell"}


def test_no_env_file_gives_nothing_and_a_broken_one_is_named_without_its_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"KEY=\xff\xfe-secret\n")
    with pytest.raises(PersonError) as caught:
        load_env(tmp_path, {})
    assert str(caught.value) == f"{tmp_path / '.env'}: it is not UTF-8; save it as UTF-8."
    (tmp_path / ".env").write_text("")
    assert load_env(tmp_path, {}) == {}
