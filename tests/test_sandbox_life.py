"""The life of a sandbox: cells that are stopped, sessions that die or attack, hosts that are killed; nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ROOT
from sandboxes import CLOSED, EVERY, in_shell, linux_only, only_with, opened, ran, rules, said, text_of

from llmproc_nb.core.errors import ToolError
from llmproc_nb.drivers.sandbox.pool import Pool, pool
from llmproc_nb.inside.zygote import HANG_UPS

pytestmark = linux_only
SIGNALS = [number for number in signal.Signals if number not in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)]
HARMLESS = {signal.SIGINT, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGPIPE, signal.SIGXFSZ}
SOCKET = "import socket; line = get_ipython().outlet.sock"
"""In a cell: the socket to the host, as hostile code finds it."""


@in_shell()
async def test_a_cell_that_takes_too_long_is_stopped_and_the_state_goes_on(shell):
    began = time.monotonic()
    done = await ran(shell, "x = 1\nprint('begun')\nimport time\ntime.sleep(60)", 0.5)
    assert time.monotonic() - began < 6
    assert (done.status, done.notes) == ("timed_out", ("The cell was stopped after 0.5 s.",))
    assert [output.name for output in done.outputs] == ["stdout", "KeyboardInterrupt"]
    assert await said(shell, "x") == "1"


@in_shell(EVERY)
async def test_a_cell_that_does_not_listen_is_killed_and_what_is_lost_is_said(shell):
    code = "import time\nprint('begun')\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass"
    kept = await shell.keep()
    done = await ran(shell, code, 0.3)
    assert done.status == "died" and not shell.alive
    assert text_of(done.outputs) == "begun\n"
    assert done.notes[0] == "The cell was stopped after 0.3 s."
    assert done.notes[1].startswith("The session ended with this cell:")
    again = await ran(shell, "1")
    assert again.status == "died" and "The session is over" in again.notes[0]
    with pytest.raises(ToolError, match="the session is over"):
        await shell.get("x")
    assert await said(await kept.wake(), "2") == "2"


@in_shell(EVERY)
async def test_an_interrupt_stops_the_cell_and_its_subprocesses(shell):
    for code in ("import time; time.sleep(60)", "!sleep 60", "while True: pass", "import asyncio; await asyncio.sleep(60)"):
        running = asyncio.create_task(ran(shell, code))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await shell.interrupt()
        done = await running
        assert done.status == "interrupted" and time.monotonic() - began < 2.8, code
    assert await said(shell, "1") == "1"


@in_shell()
async def test_an_interrupt_right_at_the_start_and_none_after_the_end(shell):
    running = asyncio.create_task(ran(shell, "import time; time.sleep(60)"))
    await shell.interrupt()
    assert (await running).status == "interrupted"
    await shell.interrupt()
    assert (await ran(shell, "2")).status == "ok"


@in_shell()
async def test_a_run_that_is_cancelled_leaves_a_session_that_can_go_on(shell):
    running = asyncio.create_task(ran(shell, "x = 3\nwhile True: pass"))
    await asyncio.sleep(0.2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await said(shell, "x") == "3"


@in_shell()
async def test_whatever_is_cancelled_half_way_leaves_a_session_that_can_go_on(shell):
    await ran(shell, "x = 3; big = 'y' * 20_000_000")
    kept = await shell.keep()
    for work in (shell.keep, kept.wake, lambda: shell.get("big"), lambda: shell.put({"z": "z" * 5_000_000}), shell.look):
        for wait_s in (0, 0.001, 0.01):
            task = asyncio.create_task(work())
            await asyncio.sleep(wait_s)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await said(shell, "x") == "3"
    await asyncio.sleep(0.3)
    assert len(shell._family.shells) <= 4 and await said(await kept.wake(), "x") == "3"


@in_shell(EVERY)
async def test_a_flood_between_the_cells_has_to_wait(shell):
    await ran(shell, "import threading, os\ndef flood():\n    while True: os.write(1, b'x' * 10_000)")
    await ran(shell, "t = threading.Thread(target=flood, daemon=True); t.start()")
    before, began = _memory_mb(), time.process_time()
    await asyncio.sleep(1)
    assert _memory_mb() - before < 20 and time.process_time() - began < 0.3
    await shell.close()


def test_sessions_that_run_at_once_do_not_mix_their_outputs():
    async def look():
        async with opened() as door:
            shells = [await door.start()]
            await ran(shells[0], "import time")
            kept = await shells[0].keep()
            shells += [await kept.wake() for _ in range(3)] + [await door.start()]
            code = "import time\nfor n in range(50):\n    print('{0}'); display('{0}'); time.sleep(0.001)"
            done = await asyncio.gather(*(ran(shell, code.format(letter)) for shell, letter in zip(shells, "abcde", strict=True)))
            assert [text_of(one.outputs) for one in done] == [f"{letter}\n'{letter}'" * 50 for letter in "abcde"]

    asyncio.run(look())


@in_shell()
async def test_interrupts_between_cells_do_nothing(shell):
    for _ in range(20):
        os.killpg(shell.process.pid, signal.SIGINT)
        assert await said(shell, "5") == "5"


@pytest.mark.parametrize("tier", EVERY)
def test_a_session_that_ends_itself_by_any_signal_is_noticed_at_once(tier):
    only_with(tier)

    async def look():
        async with opened(tier=tier) as door:
            kept = await (await door.start()).keep()
            for number in SIGNALS:
                shell = await kept.wake()
                began = time.monotonic()
                code = f"import os, time\nprint('last words', flush=True)\nos.kill(os.getpid(), {int(number)})\ntime.sleep(0.2)\n'alive'"
                done = await ran(shell, code)
                assert time.monotonic() - began < 5, number
                assert text_of(done.outputs).startswith("last words\n"), number
                if number not in HARMLESS:
                    assert done.status == "died" and f"it was ended by {number.name}" in done.notes[0], (number, done)
                await shell.close()

    before = [signal.signal(number, signal.SIG_IGN) for number in HANG_UPS]  # as of a host that nohup started
    try:
        asyncio.run(look())
    finally:
        for number, handler in zip(HANG_UPS, before, strict=True):
            signal.signal(number, handler)


@in_shell()
async def test_a_session_that_exits_or_crashes_says_how(shell):
    kept = await shell.keep()
    assert "exit code 7" in (await ran(shell, "import os; os._exit(7)")).notes[0]
    crashed = await ran(await kept.wake(), "import ctypes; ctypes.string_at(0)")
    assert crashed.status == "died" and "SIGSEGV" in crashed.notes[0]


@in_shell(EVERY, output_mb=5)
async def test_a_flood_of_text_is_stopped_while_the_notebook_stays_quick(shell):
    before, slow, ticking = _memory_mb(), [], True

    async def tick():
        while ticking:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            slow.append(time.monotonic() - began - 0.01)

    task = asyncio.create_task(tick())
    done = await ran(shell, "x = 1\nfor _ in range(1000): print('y' * 1_000_000)", 30)
    ticking = False
    await task
    assert done.notes == ("The cell was stopped: more than 5 MB of output. What came until then is kept.",)
    assert sum(len(output.text) for output in done.outputs if output.kind == "stream") <= 5_000_000
    assert done.status == "interrupted" and await said(shell, "x") == "1"
    assert _memory_mb() - before < 60 and max(slow) < 0.5


@in_shell(output_mb=5)
async def test_floods_of_displays_and_updates_are_stopped(shell):
    done = await ran(shell, "while True: display('x' * 100_000)", 30)
    assert "more than 5 MB of output" in done.notes[0] and len(done.outputs) < 60
    done = await ran(shell, "for n in range(100_000): display(n)", 60)
    assert "more than 10,000 outputs" in done.notes[0]
    assert await said(shell, "1") == "1"


@in_shell(EVERY, output_mb=5)
async def test_a_flood_that_ignores_interrupts_is_killed(shell):
    before = _memory_mb()
    code = "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: os.write(1, b'x' * 65536)"
    done = await ran(shell, code, 30)
    assert done.status == "died" and not shell.alive and _memory_mb() - before < 60


@in_shell()
async def test_a_cell_that_changes_how_signals_are_taken_is_forgotten_by_the_next(shell):
    await ran(shell, "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert (await ran(shell, "time.sleep(60)", 0.2)).status == "timed_out"


FORGE = (
    SOCKET
    + """
import json
def forge(body=b"", **header):
    head = json.dumps(header).encode()
    line.sendall(len(head).to_bytes(4, "big") + len(body).to_bytes(4, "big") + head + body)
"""
)
FORGED = {
    "garbage": ("line.sendall(b'garbage' * 100)", "it announced a message of 3,"),
    "a giant length": ("line.sendall(b'\\xff' * 8)", "it announced a message of 8,589,934,590 bytes"),
    "a giant body": ("line.sendall(b'\\0\\0\\0\\2' + b'\\x7f\\xff\\xff\\xff' + b'{}')", "it announced a message of 2,147,483,649 bytes"),
    "an early end": ("forge(op='done', n=99, status='ok')", "it sent what is no message (the end of a cell that does not run)"),
    "a wrong type": ("forge(op='done', n='x', status='ok')", "it sent what is no message (Expected `int`, got `str`"),
    "an unknown message": ("forge(op='root')", "it sent what is no message (Invalid value 'root'"),
    "an unasked answer": ("forge(op='kept', n=5)", "it sent what is no message (kept was not asked for)"),
    "deep data": (
        "forge(b'{\"a\":' + b'[' * 100_000 + b']' * 100_000 + b'}', op='output', kind='display_data')",
        "it sent what is no message (",
    ),
    "a number for text": (
        "forge(b'{\"text/html\": 5}', op='output', kind='display_data')",
        "it sent what is no message (text/html is no text)",
    ),
    "a closed socket": ("line.close()", "it closed its socket"),
    "its line shut": ("line.shutdown(socket.SHUT_RDWR)", "it closed its socket"),
}


@pytest.mark.parametrize("tier", EVERY)
def test_a_session_that_forges_messages_ends_with_a_word(tier):
    only_with(tier)

    async def look():
        async with opened(tier=tier) as door:
            other = await door.start()
            for name, (code, why) in FORGED.items():
                done = await ran(await door.start(), f"{FORGE}\n{code}\nimport time; time.sleep(30)")
                assert done.status == "died" and done.duration_s < 10, (name, done)
                assert done.notes[0].startswith(f"The session ended with this cell: {why}"), (name, done)
                assert await said(other, "1") == "1"

    asyncio.run(look())


@in_shell()
async def test_descriptors_for_text_that_a_cell_closes_are_open_again_for_the_next(shell):
    done = await ran(shell, "import os\nx = 1\nos.closerange(0, 3)")
    assert done.status == "ok"
    kept = await shell.keep()
    for one in (shell, await kept.wake()):
        assert await said(one, "import sys\nprint(x)\n_ = sys.stderr.write('y'); os.read(0, 1)") == "1\nyb''"


STUCK = {
    "look": "from llmproc_nb.inside import shell\nimport time\nshell.ask = lambda *a: time.sleep(1e6)",
    "keep": "from llmproc_nb.inside import frozen\nimport time\nfrozen.keep = lambda *a: time.sleep(1e6)",
    "copy": "from llmproc_nb.inside import frozen\nimport time\nfrozen.freeze = lambda *a: time.sleep(1e6)",
}


@pytest.mark.parametrize("name", STUCK)
def test_a_session_that_does_not_answer_is_told_soon_and_holds_nobody_up(name):
    async def look():
        async with opened() as door:
            shell, other = await door.start(), await door.start()
            await said(shell, STUCK[name])
            began = time.monotonic()
            asking = asyncio.create_task(shell.look() if name == "look" else shell.keep())
            await asyncio.sleep(0.1)
            assert await said(await (await other.keep()).wake(), "1") == "1"
            assert time.monotonic() - began < 3
            with pytest.raises(ToolError, match=r"did not answer within|does not answer"):
                await asking
            assert time.monotonic() - began < 8

    asyncio.run(look())


@in_shell()
async def test_copies_that_cannot_be_woken_are_given_up_soon_and_are_gone(shell):
    await said(shell, "from llmproc_nb.inside import frozen\nimport time\nfrozen.go_on = lambda *a: time.sleep(1e6)")
    kept = [await shell.keep() for _ in range(3)]
    began = time.monotonic()
    for one in kept:
        with pytest.raises(ToolError, match="the copy cannot be woken: no sign of it in"):
            await one.wake()
        with pytest.raises(ToolError, match="the copy cannot be woken: it was closed"):
            await one.wake()
    assert time.monotonic() - began < 9


@in_shell(EVERY)
async def test_a_forged_end_in_time_harms_only_the_session_itself(shell):
    assert (await ran(shell, f"{FORGE}\nforge(op='done', n=1, status='ok')\nprint('later')")).status == "ok"
    await asyncio.sleep(0.2)
    assert not shell.alive and "what is no message" in (await ran(shell, "1")).notes[0]


@in_shell(EVERY)
async def test_descriptors_that_a_session_sends_stay_outside(shell):
    while not pool().waiting:
        await asyncio.sleep(0.05)
    before = len(os.listdir("/proc/self/fd"))
    code = f"{SOCKET}\nimport os\nfor _ in range(5): socket.send_fds(line, [b'\\0'], [os.open('/dev/null', 0)] * 20)"
    await ran(shell, code, 3)
    await asyncio.sleep(0.1)
    assert len(os.listdir("/proc/self/fd")) <= before


@in_shell(EVERY)
async def test_a_session_that_never_reads_keeps_nobody_waiting(shell):
    await shell.put({"small": 1})
    done = await ran(shell, f"{SOCKET}\nimport os\nos.kill(os.getpid(), 19)", 0.5)
    assert done.status == "died" and done.duration_s < 10


def test_closing_the_door_leaves_nothing():
    async def look():
        async with opened() as door:
            shell = await door.start()
            await ran(shell, "import subprocess; p = subprocess.Popen('setsid sleep 400 &', shell=True); open('x', 'w').write('x')")
            kept = await shell.keep()
            await kept.wake()
            root = shell._family.root
            await door.close()
            assert _state(root) in ("", "Z")
            assert not shell.alive
            with pytest.raises(ToolError):
                await kept.wake()
            await asyncio.sleep(0.3)
            assert _with_words("sleep", "400") == []

    asyncio.run(look())


HOST = """
import asyncio, os, sys
sys.path[:0] = [{tests!r}, {root!r}]
from sandboxes import opened
async def main():
    async with opened(tier={tier!r}) as door:
        shell = await door.start()
        await shell.run("import subprocess; p = subprocess.Popen(['setsid', 'sleep', '401'])", timeout_s=9)
        kept = await shell.keep()
        other = await kept.wake()
        from llmproc_nb.drivers.sandbox.zygote import ZYGOTE
        print(ZYGOTE.pid, shell._family.root, shell.process.pid, other.process.pid, kept.process.pid, flush=True)
        if {forks} and os.fork() == 0:
            __import__("time").sleep(20)
            os._exit(0)
        await other.run("while True: pass", timeout_s=60)
asyncio.run(main())
"""


@pytest.mark.parametrize("forks", [False, True], ids=["", "a fork of it lives on"])
@pytest.mark.parametrize("tier", EVERY)
def test_nothing_is_left_when_the_host_is_killed(tier, forks, tmp_path):
    only_with(tier)
    code = HOST.format(tests=str(ROOT / "tests"), root=str(ROOT), tier=tier, forks=forks)
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    pids = [int(word) for word in host.stdout.readline().split()]
    assert len(pids) == 5
    time.sleep(0.3)
    assert os.listdir(tmp_path) != []
    host.kill()
    host.wait()
    last = time.monotonic() + 12
    while time.monotonic() < last and (
        any(_state(pid) not in ("", "Z") for pid in pids) or os.listdir(tmp_path) or _with_words("sleep", "401")
    ):
        time.sleep(0.05)
    assert [_state(pid) for pid in pids if _state(pid) not in ("", "Z")] == []
    assert _with_words("sleep", "401") == []
    assert os.listdir(tmp_path) == []


def test_a_zygote_that_was_killed_is_started_again():
    from llmproc_nb.drivers.sandbox.zygote import ZYGOTE

    async def look():
        async with opened() as door:
            shell = await door.start()
            before = ZYGOTE.pid
            os.kill(before, signal.SIGKILL)
            for _ in range(500):
                if not shell.alive:
                    break
                await asyncio.sleep(0.02)
            assert "over" in (await ran(shell, "1")).notes[0]
            again = await door.start()
            assert await said(again, "1") == "1"
            assert ZYGOTE.pid != before

    asyncio.run(look())


def test_families_wait_warm_and_are_ended_when_nobody_comes():
    async def look():
        pool = Pool(idle_s=0.5)
        pool.warm(rules())
        while not pool.waiting:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        family, shell = await pool.take(rules())
        assert await said(shell, "1") == "1"
        assert time.monotonic() - began < 2
        await asyncio.sleep(3)
        assert pool.waiting == 0
        await family.close()
        await pool.close()

    asyncio.run(look())


@in_shell(CLOSED, memory_mb=1500)
async def test_what_takes_too_much_memory_is_an_error_or_ends(shell):
    done = await ran(shell, "x = bytearray(3_000_000_000)")
    assert (done.status, done.outputs[-1].name) == ("error", "MemoryError")
    kept = await shell.keep()
    bomb = """
import os, time
ours = []
for _ in range(6):
    if (pid := os.fork()) == 0:
        x = b'x' * 400_000_000
        time.sleep(60)
    ours.append(pid)
os.waitpid(-1, 0)[1]
"""
    done = await ran(shell, bomb, 40)
    assert done.duration_s < 30 and text_of(done.outputs) == "9", done
    assert await said(await kept.wake(), "1") == "1"
    alone = await ran(await kept.wake(), "parts = []\nwhile True: parts.append(bytearray(b'x' * 50_000_000))")
    assert (alone.outputs and alone.outputs[-1].name == "MemoryError") or "of memory" in alone.notes[0]


def _memory_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _with_words(*words: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_text().split("\0")[: len(words)] == list(words):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_a_process_that_is_forked_while_all_are_stopped_comes_to_life_all_the_same():
    done = subprocess.run([sys.executable, str(ROOT / "tests/latefork.py")], capture_output=True, text=True, timeout=60)
    if "unshare" in done.stderr:
        pytest.skip("no namespaces here")
    at_once, later = (int(word) for word in done.stdout.split())
    assert at_once + later == 8, done
