"""States of a sandbox that are kept and woken: each copy has the variables, files and open things of its moment, none sees another's."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandboxes import in_shell, linux_only, opened, ran, said, tiers

from llmproc_nb.core.errors import ToolError

pytestmark = linux_only
MOVES = ("set", "file", "keep", "wake", "switch")


@in_shell()
async def test_a_woken_copy_goes_on_where_it_was_kept(shell):
    await ran(shell, "x = [1]; import math; f = lambda: x")
    kept = await shell.keep()
    await ran(shell, "x.append(2); y = 1")
    first = await kept.wake()
    assert await said(first, "x, f() is x, math.pi > 3, 'y' in globals()") == "([1], True, True, False)"
    await ran(first, "x.append(3)")
    second = await kept.wake()
    assert [await said(one, "x") for one in (shell, first, second)] == ["[1, 2]", "[1, 3]", "[1]"]


@in_shell()
async def test_copies_of_copies_and_their_ends_disturb_nobody(shell):
    states = [await shell.keep()]
    for n in range(1, 6):
        await ran(shell, f"n = {n}")
        states.append(await shell.keep())
        shell = await states[-1].wake()
    await states[2].close()
    with pytest.raises(ToolError, match="the copy cannot be woken: it was closed"):
        await states[2].wake()
    assert await said(shell, "n") == "5"
    for n in (1, 3, 5):
        woken = await states[n].wake()
        assert await said(woken, "n") == str(n)
        await woken.close()
    assert await said(shell, "n") == "5"


@pytest.mark.parametrize("tier", ["namespaces", "landlock", "process"])
def test_a_copy_outlives_the_session_it_was_kept_of(tier):
    if tier not in tiers():
        pytest.skip(f"the tier {tier} cannot be had on this machine")

    async def look():
        async with opened(tier=tier) as door:
            shell = await door.start()
            await ran(shell, "x = 'a'; import os; os.mkdir('d'); os.chdir('d'); open('f', 'w').write('a')")
            first = await shell.keep()
            await ran(shell, "x = 'b'; open('f', 'w').write('b')")
            second = await shell.keep()
            await shell.close()
            woken = [await first.wake(), await second.wake()]
            assert [await said(one, "x, open('f').read()") for one in woken] == ["('a', 'a')", "('b', 'b')"]
            for one in woken:
                await one.close()
            await second.close()
            assert await said(await first.wake(), "x, open('f').read(), os.path.basename(os.getcwd())") == "('a', 'a', 'd')"

    asyncio.run(look())


@pytest.mark.parametrize("tier", ["namespaces", "landlock", "process"])
def test_files_go_along_and_are_apart(tier):
    if tier not in tiers():
        pytest.skip(f"the tier {tier} cannot be had on this machine")

    async def look():
        async with opened(tier=tier) as door:
            shell = await door.start()
            await ran(
                shell,
                "import os; os.makedirs('deep/er'); open('deep/er/a', 'w').write('1')\n"
                "os.symlink('deep', 'link'); os.chmod('deep/er/a', 0o400)",
            )
            kept = await shell.keep()
            await ran(shell, "os.chmod('deep/er/a', 0o600); open('deep/er/a', 'w').write('2'); open('new', 'w').close()")
            again = await shell.keep()
            woken = await kept.wake()
            look = "sorted(os.listdir()), open('link/er/a').read(), oct(os.stat('deep/er/a').st_mode)[-3:]"
            kept_mode = "600" if tier == "landlock" and os.getuid() else "400"  # an ordinary user's session changes no modes there
            assert await said(woken, look) == f"(['deep', 'link'], '1', '{kept_mode}')"
            await ran(woken, "open('other', 'w').close()")
            assert await said(shell, look) == "(['deep', 'link', 'new'], '2', '600')"
            assert await said(await again.wake(), look) == "(['deep', 'link', 'new'], '2', '600')"
            await ran(woken, "import tempfile; name = tempfile.mkdtemp(); open('rel', 'w').close()")
            assert await said(woken, "name.startswith(os.environ['TMPDIR']), os.path.exists(os.environ['HOME'])") == "(True, True)"

    asyncio.run(look())


@pytest.mark.parametrize("tier", ["namespaces", "landlock", "process"])
def test_open_files_are_opened_again_where_they_stood(tier):
    if tier not in tiers():
        pytest.skip(f"the tier {tier} cannot be had on this machine")

    async def look():
        async with opened(tier=tier) as door:
            shell = await door.start()
            await shell.write_file("in.txt", b"one\ntwo\nthree\n")
            await ran(shell, "f = open('in.txt'); line = f.readline(); out = open('log', 'w'); out.write('a'); out.flush()")
            await ran(
                shell,
                "import tempfile; t = tempfile.TemporaryFile(); t.write(b'temp'); t.flush(); import os; os.chdir(os.environ['TMPDIR'])",
            )
            kept = await shell.keep()
            await ran(shell, "f.read(); out.write('b'); out.close(); t.seek(0); t.write(b'TEMP'); t.flush()")
            woken = await kept.wake()
            assert await said(woken, "f.readline()") == "'two\\n'"
            await ran(woken, "out.write('c'); out.close(); t.write(b'!'); t.seek(0)")
            assert (
                await said(woken, "open(os.path.join(os.environ['HOME'], os.pardir, 'work', 'log')).read(), t.read()") == "('ac', b'temp!')"
            )
            assert await said(shell, "open(os.path.join(os.environ['HOME'], os.pardir, 'work', 'log')).read()") == "'ab'"
            assert await said(woken, "os.getcwd() == os.path.realpath(os.environ['TMPDIR'])") == "True"

    asyncio.run(look())


@in_shell()
async def test_what_a_copy_does_not_have_is_said_after_the_cell(shell):
    done = await ran(
        shell, "import threading, time\nt = threading.Thread(target=time.sleep, args=(60,), name='ticker', daemon=True)\nt.start()"
    )
    without = "forks of this state, and gotos back to it, go on without."
    assert done.notes == (f"1 thread (ticker): {without}",)
    assert (await ran(shell, "1")).notes == ()
    done = await ran(shell, "import subprocess, socket; p = subprocess.Popen(['sleep', '60']); a, b = socket.socketpair()")
    assert done.notes == (f"1 thread (ticker), 1 subprocess, 2 open sockets: {without}",)
    woken = await (await shell.keep()).wake()
    assert await said(woken, "threading.active_count(), a.fileno() > 2") == "(1, True)"
    assert (await ran(woken, "a.send(b'x')")).status == "error"


@in_shell()
async def test_loops_and_libraries_go_on_in_a_copy(shell):
    await ran(
        shell,
        "import asyncio, numpy as np, pandas as pd\nawait asyncio.sleep(0)\na = np.ones((300, 300)); b = a @ a\nlock = asyncio.Lock()",
    )
    woken = await (await shell.keep()).wake()
    for one in (shell, woken):
        assert (
            await said(one, "await asyncio.sleep(0.01)\n(a @ a)[0, 0], pd.DataFrame(a).sum().sum()")
            == "(np.float64(300.0), np.float64(90000.0))"
        )


@in_shell()
async def test_chance_goes_on_with_the_same_state_in_every_copy(shell):
    await ran(shell, "import random, numpy as np; random.seed(5); np.random.seed(5)")
    kept = await shell.keep()
    drawn = [await said(one, "random.random(), np.random.rand()") for one in (shell, await kept.wake(), await kept.wake())]
    assert len(set(drawn)) == 1


def test_two_first_sessions_do_not_draw_the_same():
    async def look():
        async with opened() as door:
            shells = [await door.start(), await door.start()]
            drawn = [await said(shell, "import random, numpy as np; random.random(), np.random.rand()") for shell in shells]
            assert drawn[0] != drawn[1]

    asyncio.run(look())


@in_shell()
async def test_a_large_state_costs_little_to_keep_and_to_wake(shell):
    await ran(shell, "import numpy as np, pandas as pd; df = pd.DataFrame({str(n): np.random.rand(6_250_000) for n in range(10)})", 60)
    kept = await shell.keep()
    woken = await kept.wake()
    assert await said(woken, "round(df['3'].mean(), 1)") == "np.float64(0.5)"
    for _ in range(100):
        if kept.memory_mb:
            break
        await asyncio.sleep(0.02)
    assert 0 < kept.memory_mb < 20


@in_shell(disk_mb=20)
async def test_a_folder_whose_copy_has_no_room_is_said_and_the_session_goes_on(shell):
    await ran(shell, "open('a', 'wb').write(b'x' * 12_000_000); x = 1")
    if tiers()[0] == "namespaces":
        with pytest.raises(ToolError, match="no room in 20 MB"):
            await shell.keep()
    assert await said(shell, "x, len(open('a').read())") == "(1, 12000000)"
    await ran(shell, "import os; os.remove('a')")
    assert await said(await (await shell.keep()).wake(), "x") == "1"


@in_shell()
async def test_files_that_did_not_change_are_kept_once(shell):
    if tiers()[0] != "namespaces":
        pytest.skip("only the tier namespaces has a folder of limited size")
    await ran(shell, "open('big', 'wb').write(b'x' * 100_000_000)")
    kept = [await shell.keep() for _ in range(6)]  # 512 MB would not hold six more
    await ran(shell, "open('big', 'r+b').write(b'y')")
    kept.append(await shell.keep())
    assert await said(await kept[0].wake(), "open('big').read(1)") == "'x'"


@in_shell()
async def test_ending_a_session_ends_what_it_started_and_nothing_else(shell):
    start = "import subprocess; p = subprocess.Popen(['sleep', '300'])\n!setsid sh -c 'sleep 301 & sleep 302' &"
    await ran(shell, start)
    kept = await shell.keep()
    woken = await kept.wake()
    await ran(woken, "import subprocess; q = subprocess.Popen(['setsid', 'sleep', '303'])")
    await shell.close()
    assert not shell.alive and woken.alive
    assert await said(woken, "q.poll()") == ""
    assert _sleepers() == {"303"}
    assert await said(await kept.wake(), "1") == "1"


def _sleepers() -> set[str]:
    import pathlib

    found = set()
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if words[0] == "sleep" and words[1].startswith("30"):
            found.add(words[1])
    return found


class Model:
    """What a state must be: variables and files as plain dicts."""

    def __init__(self, variables=None, files=None):
        self.variables, self.files = dict(variables or {}), dict(files or {})

    def copy(self):
        return Model(self.variables, self.files)


@settings(max_examples=15)
@given(moves=st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 4), st.integers(0, 99)), max_size=25))
def test_whatever_is_kept_and_woken_states_are_as_a_model_of_dicts_says(moves):
    async def play():
        async with opened() as door:
            live = [(await door.start(), Model())]
            kept = []
            for move, which, value in moves:
                shell, model = live[which % len(live)]
                if move == "set":
                    await ran(shell, f"v{which} = {value}")
                    model.variables[f"v{which}"] = value
                elif move == "file":
                    await ran(shell, f"_ = open('f{which}', 'w').write('{value}')")
                    model.files[f"f{which}"] = str(value)
                elif move == "keep":
                    kept.append((await shell.keep(), model.copy()))
                elif move == "wake" and kept and len(live) < 6:
                    checkpoint, state = kept[value % len(kept)]
                    live.append((await checkpoint.wake(), state.copy()))
                elif move == "switch" and len(live) > 1:
                    await live.pop(which % len(live))[0].close()
            look = "import os; variables = {n: v for n, v in globals().items() if n[0] == 'v' and n[1:].isdigit()}\n"
            look += "variables, {n: open(n).read() for n in sorted(os.listdir())}"
            for shell, model in live:
                assert eval(await said(shell, look)) == (model.variables, model.files)

    asyncio.run(play())
