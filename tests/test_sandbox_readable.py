"""Paths of the host that a program shows its sandbox: read-only, where they are, and never the whole home or machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sandboxes import linux_only, opened, ran, said, tiers

from llmproc_nb.api import Program
from llmproc_nb.core.errors import ProgramError, ToolError
from llmproc_nb.core.sandbox import SandboxRules
from llmproc_nb.drivers import files
from llmproc_nb.drivers.sandbox.messages import confined

pytestmark = linux_only
MODEL = '[model]\nname = "m"\nprovider = "scripted"\n[sandbox]\n'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder beside the program's, with something in it, and something beside it."""
    for name in ("program", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "data/a.csv").write_text("a\n1\n")
    (tmp_path / "private.txt").write_text("private")
    return tmp_path / "data"


@pytest.mark.parametrize("where", [{"tier": "namespaces"}, {"tier": "landlock"}, {"kernel": "python3"}], ids=str)
def test_what_is_shown_can_be_read_where_it_is_and_not_written(where: dict[str, str], data: Path) -> None:
    if where.get("tier", tiers()[0]) not in tiers():
        pytest.skip(f"the tier {where['tier']} cannot be had on this machine")

    async def look() -> None:
        async with opened(data.parent / "program", readable=("../data",), **where) as door:
            shell = await door.start()
            assert await said(shell, f"open('{data}/a.csv').read()") == "'a\\n1\\n'"
            for code in (f"open('{data}/b', 'w')", f"open('{data}/a.csv', 'a')", f"open('{data.parent}/private.txt')"):
                failed = await ran(shell, code)
                assert failed.outputs[-1].name in ("OSError", "PermissionError", "FileNotFoundError"), code

    asyncio.run(look())
    assert [path.name for path in data.iterdir()] == ["a.csv"]


REFUSED = {
    "/": "'/' is the whole machine",
    "~": "'~' holds the home, with its keys",
    "~/..": "holds the home, with its keys" if Path.home().parent != Path("/") else "is the whole machine",
    "home": "'home' holds the home, with its keys",
    "/proc/1": "is of the system, of which each sandbox has its own",
    "/run": "holds sockets by which others are reached",
    "nothing": "there is no 'nothing'",
}


@pytest.mark.parametrize("fields", [{}, {"kernel": "python3"}], ids=str)
def test_what_would_show_too_much_is_refused_with_place_and_reason(fields: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "home").symlink_to(Path.home())

    async def look() -> None:
        for name, why in REFUSED.items():
            async with opened(tmp_path, readable=(name,), **fields) as door:
                with pytest.raises(ToolError) as caught:
                    await door.start()
            assert caught.value.place == "[sandbox] readable" and why in caught.value.found

    asyncio.run(look())


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_shows_too_much_is_no_program_and_what_is_missing_is_noted(name: str, tmp_path: Path) -> None:
    (tmp_path / "home").symlink_to(Path.home())
    text = f'{MODEL}readable = ["{name}"]'
    if name == "nothing":
        (note,) = files.from_text(text, "toml", base_dir=tmp_path, source="p.toml").notes
        assert (note.kind, note.place) == ("missing", "p.toml: [sandbox] readable") and REFUSED[name] in note.text
    else:
        with pytest.raises(ProgramError, match="it names only what is needed") as caught:
            files.from_text(text, "toml", base_dir=tmp_path, source="p.toml")
        assert caught.value.place == "p.toml: [sandbox] readable" and REFUSED[name] in caught.value.found


def test_a_key_that_there_is_not_is_an_error_in_python_too() -> None:
    with pytest.raises(ProgramError) as caught:
        Program(name="scout", sandbox={"tierr": "landlock"})  # type: ignore[arg-type]
    assert (caught.value.place, caught.value.found) == ("scout: [sandbox]", "there is no key 'tierr'")
    assert caught.value.step == "Did you mean 'tier'?"
    with pytest.raises(ProgramError, match="there is no key 'colour'"):
        Program(sandbox={"colour": 1})  # type: ignore[arg-type]
    made = Program(sandbox={"tier": "landlock", "readable": ["~/.julia"]})  # type: ignore[arg-type]
    assert made.sandbox == SandboxRules(tier="landlock", readable=("~/.julia",))


def config(said: dict[str, Any], **rules: Any) -> dict[str, Any]:
    spec = {"debugger": True, "kernel_provisioner": {"provisioner_name": "llmproc-sandbox", "config": said}}
    made = confined(spec, SandboxRules(**rules))
    assert made["debugger"] and made["kernel_provisioner"]["provisioner_name"] == "llmproc-sandbox"
    return made["kernel_provisioner"]["config"]  # type: ignore[no-any-return]


def test_what_a_kernelspec_says_is_kept_where_the_rules_say_nothing() -> None:
    said = {"memory_mb": 9000, "cpu_s": 7, "readable": ["/opt/julia"], "env": {"A": "1", "B": "2"}, "tier": "process", "hosts": ["*"]}
    assert config(said, cpu_s=60, readable=("/data",), env={"B": "3"}) == {
        "memory_mb": 9000,
        "disk_mb": 512,
        "cpu_s": 60,
        "processes": 64,
        "readable": ["/opt/julia", "/data"],
        "env": {"A": "1", "B": "3"},
        "tier": "namespaces",
        "hosts": [],  # no spec makes a sandbox weaker than its program says
        "message_mb": 67,  # what is kept of a cell, and what is around it
    }
    other = confined({"kernel_provisioner": {"provisioner_name": "cloud", "config": {"memory_mb": 1}}}, SandboxRules())
    assert other["kernel_provisioner"] == {"provisioner_name": "llmproc-sandbox", "config": config({})}
