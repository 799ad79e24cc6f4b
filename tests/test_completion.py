"""What Tab offers."""

import argparse
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from llmproc_nb.drivers.mcp import PromptInfo, Resource
from llmproc_nb.notebook.completion import Known, complete_body, complete_code, complete_line, install, known_of
from llmproc_nb.notebook.offer import Named, files, model_names, readable, tool_names


def parser():
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("name", nargs="?")
    made.add_argument("-m", "--model")
    made.add_argument("-p", "--program")
    made.add_argument("-t", "--tools")
    made.add_argument("--mode", choices=["live", "replay"])
    made.add_argument("--dry-run", action="store_true")
    made.add_argument("--hidden", help=argparse.SUPPRESS)
    return made


def many(dest):
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument(dest, nargs="*")
    return made


def own(name):
    """A function as a notebook's cell makes it."""
    namespace = {"__name__": "__main__"}
    exec(f"def {name}(x): return x", namespace)
    return namespace[name]


NAMES = {
    "search": own("search"),
    "plot": own("plot"),
    "_private": own("_private"),
    "Path": Path,
    "join": Path.joinpath,
    "sys": sys,
    "df": [1],
}
KNOWN = Known(
    namespace=NAMES,
    processes=("scout", "critic"),
    tools=("read_file",),
    parsers={"agent": parser(), "kill": many("names"), "ps": many("names"), "%log": many("frame")},
)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%agent --", ["--dry-run", "--mode", "--model", "--program", "--tools"]),
        ("%%agent scout --mo", ["--mode", "--model"]),
        ("%%agent scout --mode live --mo", ["--model"]),
        ("%%agent sc", ["scout"]),
        ("%%agent scout ", []),
        ("%%agent --model x sc", ["scout"]),
        ("%%agent --tools ", ["plot", "search", "read_file"]),
        ("%%agent -t search,", ["plot", "read_file"]),
        ("%%agent --tools search,pl", ["plot"]),
        ("%%agent --tools=search,pl", ["plot"]),
        ("%agent --mode ", ["live", "replay"]),
        ("%agent --mode=re", ["replay"]),
        ("%kill scout ", ["critic"]),
        ("%log m", ["messages"]),
        ("  %kill c", ["critic"]),
        ("%time sc", []),
        ("%%agent", []),
        ("agent --", []),
    ],
)
def test_flags_values_and_names_on_a_magic_line(line, offered):
    assert complete_line(line, len(line), KNOWN) == offered


def test_only_what_stands_before_the_cursor_counts():
    assert complete_line("%agent --mo --tools x", len("%agent --mo"), KNOWN) == ["--mode", "--model"]


def test_models_are_named_with_and_without_their_provider():
    assert "claude-sonnet-5-5" in model_names() and "ollama:" in model_names()
    assert complete_line("%agent --model claude-sonnet-5-", 31, KNOWN) == ["claude-sonnet-5-5"]
    assert "anthropic:claude-opus-5-5" in model_names("anthropic:")
    assert not [name for name in model_names("openai:") if "whisper" in name or "embedding" in name]
    assert complete_line("%agent --model oll", 18, KNOWN) == ["ollama:"]


def test_program_files_are_found_beside_the_notebook_and_where_the_path_leads(tmp_path):
    for name in ("a.toml", "notes.txt", "pyproject.toml", ".hidden.yaml", "programs/b.yaml", "programs/deep/c.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    known = Known(parsers={"agent": parser()}, folder=str(tmp_path))
    assert complete_line("%agent --program ", 17, known) == ["a.toml", "programs/b.yaml"]
    assert complete_line("%agent -p programs/", 19, known) == ["programs/b.yaml", "programs/deep/"]
    assert complete_line("%agent -p nowhere/", 18, known) == []
    assert files(str(tmp_path), "programs/deep/", (), (".yml",)) == ["programs/deep/c.yml"]


def test_tools_are_functions_of_the_notebook_and_nothing_imported():
    assert tool_names({**NAMES, "Made": type("Made", (), {}), "print": print, "joined": types.MethodType(own("f"), 1)}) == [
        "plot",
        "search",
    ]


@pytest.mark.parametrize(
    ("before", "fragment", "offered"),
    [
        ("look at @d", "d", ["df"]),
        ("@", "", ["Path", "df", "join", "plot", "search", "sys"]),
        ("@_p", "_p", ["_private"]),
        ("@df.app", "df.app", ["df.append"]),
        ("@nothing.x", "nothing.x", []),
        ("mail ann@d", "", []),
        ("@df and more d", "", []),
        ("{{d", "d", ["df"]),
        ("{{len(d", "d", ["df"]),
        ("{{ df.app", "df.app", ["df.append"]),
        ("a\n{{df}} and d", "", []),
        ("a\n{{\nse", "se", ["search"]),
        ("plain se", "", []),
        ("", "", []),
    ],
)
def test_references_are_completed_in_the_body(before, fragment, offered):
    assert complete_body(before, NAMES) == (fragment, offered)


READABLE = (
    Resource(uri="note://today", name="today", description="What is on."),
    Resource(uri="note://two words", name="two words"),
    Resource(uri="note://day/{day}", name="day", template=True),
    PromptInfo(name="review", description="Ask for a review.", arguments=("code", "style"), required=("code",)),
    PromptInfo(name="plan"),
)


@pytest.mark.parametrize(
    ("before", "fragment", "offered"),
    [
        ("see @t:", "", ["note://day/", "plan", "review", "today"]),
        ("see (@t:to", "to", ["today"]),
        ("@t:note://d", "note://d", ["note://day/"]),
        ("@t:today and", "", []),
        ("ann@t:to", "", []),
        ("@u:", "", []),
    ],
)
def test_what_can_be_read_of_a_server_is_completed_in_the_body(before, fragment, offered):
    assert complete_body(before, NAMES, lambda server: readable(READABLE if server == "t" else ())) == (fragment, offered)


def test_what_can_be_read_is_offered_with_what_it_is():
    assert {one: one.words for one in readable(READABLE)} == {
        "today": "resource: What is on.",
        "note://day/": "resource: note://day/{day}",
        "review": "prompt, needs code: Ask for a review.",
        "plan": "prompt",
    }


@pytest.fixture
def shell():
    ip = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    ip.run_cell("def search(q): ...\nfrom os.path import join\nimport math\ntable = [1]")
    return ip


def offers(ip, text):
    with provisionalcompleter():
        return [text[: made.start] + made.text for made in ip.Completer.completions(text, len(text))]


def test_a_real_shell_offers_all_this_and_nothing_else(shell):
    uninstall = install(shell, lambda: KNOWN)
    assert offers(shell, "%%agent scout --mo") == ["%%agent scout --mode", "%%agent scout --model"]
    assert offers(shell, "x = 1\n%agent --dr") == ["x = 1\n%agent --dry-run"]
    assert offers(shell, "%%agent scout\nlook at @ta") == ["%%agent scout\nlook at @table"]
    assert offers(shell, "%%agent scout\n{{len(tab") == ["%%agent scout\n{{len(table"]
    assert offers(shell, "tabl") == ["table"]
    uninstall()
    uninstall()
    assert offers(shell, "%%agent scout --mo") == []


def test_names_a_shell_is_born_with_are_not_offered(shell):
    install(shell, Known)
    offered = offers(shell, "%%agent scout\n@")
    assert {"%%agent scout\n@search", "%%agent scout\n@table", "%%agent scout\n@math"} <= set(offered)
    assert not {"%%agent scout\n@In", "%%agent scout\n@get_ipython", "%%agent scout\n@quit"} & set(offered)


def test_a_shell_without_a_machine_offers_the_flags_of_its_own_magics(shell):
    from IPython.core.magic import Magics, line_magic, magics_class
    from IPython.core.magic_arguments import argument, magic_arguments

    @magics_class
    class Own(Magics):
        @line_magic
        @magic_arguments()
        @argument("--resume", nargs="?")
        def agent(self, line):
            """Choose."""

    own = Own(shell)
    shell.register_magics(own)
    install(shell, lambda: known_of(shell, SimpleNamespace(machine_if_made=None), [own]))
    assert offers(shell, "%agent --") == ["%agent --resume"]


@pytest.fixture(scope="module")
def loaded():
    """A shell with the extension, a process that went back once and has a long text, and one that is linked to another program."""
    from llmproc_nb import api
    from llmproc_nb.notebook import extension

    ip = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    api.set_default_machine(None)
    environ = pytest.MonkeyPatch()
    environ.setenv("LLMPROC_NB_LOG", "0")
    extension.load(ip)
    made = ip.run_cell(
        "from llmproc_nb.api import Program\nfrom llmproc_nb.core.program import Link\n"
        "expert = Program(name='expert', provider='scripted', model='s', script=({'say': 'yes'},))\n"
        "boss = expert.replace(name='boss', linked={'helper': Link(program=expert)}).start()\n"
        "scout = expert.replace(name='scout', script=lambda request: 'fine').start()\n"
        "scout.run('first words').result(); scout.run('second words').result(); scout.goto('msg_1')\n"
        "scout.open_fd('x' * 9000, 'a long text')"
    )
    made.raise_error()
    yield ip
    extension.unload(ip)
    environ.undo()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%goto sc", ["scout"]),
        ("%goto scout ", ["msg_1", "msg_0", "msg_3", "msg_2"]),
        ("%goto scout msg_2", ["msg_2"]),
        ("%goto scout --", ["--undo"]),
        ("%goto nobody ", []),
        ("%fork ", ["boss", "scout"]),
        ("%fork scout ", []),
        ("%fork scout --at ", ["msg_1", "msg_0", "msg_3", "msg_2"]),
        ("%fork scout --at=msg_3", ["msg_3"]),
        ("%%fork scout --", ["--at", "--first-k", "--last-n", "--max-steps", "--model", "--number"]),
        ("%merge s", ["scout"]),
        ("%merge scout ", ["into"]),
        ("%merge scout into ", ["boss"]),
        ("%diff scout ", ["boss"]),
        ("%fd scout ", ["1"]),
        ("%fd boss ", []),
        ("%send b", ["boss"]),
        ("%tree boss s", ["scout"]),
        ("%spawn ", []),
        ("%spawn x ", ["from"]),
        ("%spawn x from ex", ["expert"]),
        ("%spawn x --by ", ["boss", "scout"]),
        ("%spawn x --by boss from h", ["helper"]),
        ("%spawn x --access ", ["read", "write", "admin"]),
        ("%spawn x --access read from ex", ["expert"]),
        ("%spawn x from expert ", []),
    ],
)
def test_the_magics_of_system_calls_offer_what_there_is(loaded, line, offered):
    assert loaded_offers(loaded, line) == offered


INSIDE = Known(
    namespace={"df": 1, "data": 2},
    processes=("scout", "critic"),
    parsers={"%sandbox": many("names"), "%%sandbox": many("process")},
    inside=lambda name: {"scout": ["numbers", "names", "_x", "price"], None: ["notes"]}.get(name, []),
)
for one in INSIDE.parsers.values():
    one.add_argument("-p", "--process")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%sandbox push d", ["df", "data"]),
        ("%sandbox push df, d", ["data"]),
        ("%sandbox scout push d", ["df", "data"]),
        ("%sandbox scout pu", ["push", "pull"]),
        ("%sandbox sc", ["scout"]),
        ("%sandbox pull n", ["notes"]),
        ("%sandbox scout pull n", ["numbers", "names"]),
        ("%sandbox pull -p scout n", ["numbers", "names"]),
        ("%sandbox --process=scout pull numbers n", ["names"]),
        ("%sandbox critic pull n", []),
        ("%sandbox nobody pull n", []),
        ("%%sandbox sc", ["scout"]),
    ],
)
def test_names_of_a_sandbox_and_for_it_are_offered(line, offered):
    assert complete_line(line, len(line), INSIDE) == offered


@pytest.mark.parametrize(
    ("first", "before", "offered"),
    [
        ("%%sandbox scout", "num", ("num", ["numbers"])),
        ("%%sandbox -p scout", "x = [1]\nprint(na", ("na", ["names"])),
        ("%%sandbox scout --timeout 3", "pri", ("pri", ["price", "print"])),
        ("%%sandbox", "no", ("no", ["nonlocal", "not", "notes"])),
        ("%%sandbox critic", "no", ("no", [])),
        ("%%sandbox scout", "numbers.no", ("", [])),
        ("%%sandbox scout", "3n", ("", [])),
    ],
)
def test_the_code_of_a_sandbox_is_completed_from_what_is_in_it(first, before, offered):
    assert complete_code(first, before, INSIDE) == offered


@pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")
def test_a_sandbox_is_asked_where_one_lives_and_is_free_and_never_for_long(loaded):
    code = "coder = expert.replace(name='coder', tools=('run_python',)).start()"
    loaded.run_cell(code).raise_error()
    assert "%sandbox coder pull not" in offers(loaded, "%sandbox coder pull n")  # IPython's own
    assert not loaded.user_ns["coder"].sandbox.live
    loaded.run_cell("%%sandbox coder\nnumbers = [1]; names = 2").raise_error()
    assert offers(loaded, "%sandbox coder pull n") == ["%sandbox coder pull names", "%sandbox coder pull numbers"]
    assert offers(loaded, "%sandbox pull nu") == ["%sandbox pull numbers"]
    assert offers(loaded, "%%sandbox coder\nx = num") == ["%%sandbox coder\nx = numbers"]
    assert offers(loaded, "%%sandbox coder\n%sandbox push exp") == ["%%sandbox coder\n%sandbox push expert"]
    busy = threading.Thread(target=loaded.user_ns["coder"].sandbox.run, args=("import time; time.sleep(3)",))
    busy.start()
    time.sleep(0.5)
    began = time.monotonic()
    assert loaded.user_ns["coder"].sandbox.names(0.3) == () and time.monotonic() - began < 2
    busy.join()
    loaded.run_cell("%kill coder").raise_error()


def test_addresses_and_fds_are_offered_with_their_first_words(loaded):
    with provisionalcompleter():
        made = {one.text: one.type for one in loaded.Completer.completions("%goto scout ", 12)}
        assert made == {
            "msg_1": "assistant: fine",
            "msg_0": "user: first words",
            "msg_3": "assistant, left: fine",
            "msg_2": "user, left: second words",
        }
        assert [one.type for one in loaded.Completer.completions("%fd scout ", 10)] == ["a long text"]
    assert Named("a", "b") == "a"


def test_nodes_are_offered_by_the_first_characters_of_their_ids(loaded):
    scout = loaded.user_ns["scout"]
    said, left = scout.path[-1].id, scout.labels.get(2).id
    with provisionalcompleter():
        for node, words in ((said, "assistant: fine"), (left, "user, left: second words")):
            line = f"%goto scout {node[:3]}"
            assert [(one.text, one.type) for one in loaded.Completer.completions(line, len(line))] == [(node[:7], words)]
    assert scout.at(said[:7]).id == said
    for typed, offered in ((said[:2], []), (said[:12], [said[:12]]), ("ffff", []), (f"--at={said[:5]}", [said[:7]])):
        magic = "%fork scout " if typed.startswith("--") else "%goto scout "
        assert loaded_offers(loaded, magic + typed) == offered


def loaded_offers(loaded, line):
    owners = {getattr(function, "__self__", None) for function in loaded.magics_manager.magics["line"].values()}
    return complete_line(line, len(line), known_of(loaded, loaded.llmproc, owners))


def test_completion_loads_no_price_list_before_it_is_asked_for_models():
    code = "import llmproc_nb.notebook.completion, sys; print([m for m in ('genai_prices', 'pydantic', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_real_kernel_completes_over_the_wire():
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute(
            "from llmproc_nb.notebook.completion import Known, install\ntable = [1]\n"
            "install(get_ipython(), lambda: Known(processes=('scout',)))",
            reply=True,
            timeout=30,
        )
        code = "%%agent scout\nlook at @ta"
        content = client.complete(code, reply=True, timeout=30)["content"]
        assert (content["matches"], content["cursor_start"], content["cursor_end"]) == (["table"], len(code) - 2, len(code))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
