"""Attacks by the code in a sandbox on what reads its messages, keeps its files and counts its memory; and stops at bad moments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from paths import ROOT
from sandboxes import CLOSED, EVERY, in_shell, linux_only, only_with, opened, ran, said, text_of, tiers

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.message import Text
from llmproc_nb.core.output import FRAME, shown
from llmproc_nb.core.sandbox import Output, Ran
from llmproc_nb.core.tool import Paged
from llmproc_nb.drivers.arrow import unpacked
from llmproc_nb.drivers.sandbox.outputs import Outputs
from llmproc_nb.drivers.sandbox.pool import pool
from llmproc_nb.drivers.sandbox.proxy import Proxy, may_be_reached
from llmproc_nb.inside import area, cgroup
from llmproc_nb.notebook.celloutput import bundle, text

pytestmark = linux_only
FORGE = """
import json, threading, time
line = get_ipython().outlet.sock
def forge(body=b"", **header):
    head = json.dumps(header).encode()
    line.sendall(len(head).to_bytes(4, "big") + len(body).to_bytes(4, "big") + head + body)
def later(message):
    def flood():
        time.sleep(0.2)
        while True:
            message()
    threading.Thread(target=flood, daemon=True).start()
"""
ANSWER = """
from llmproc_nb.inside import shell as inside
def instead(state, work, header, body):
    forge({body}, op={op!r}, n=header["n"], **{fields!r})
inside.ask = instead
"""


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


async def host_cpu_s(while_s: float = 1.0) -> float:
    """What this process uses of its processor meanwhile, where it should have nothing to do."""
    await asyncio.sleep(0.5)
    before = time.process_time()
    await asyncio.sleep(while_s)
    return time.process_time() - before


# messages


FLOODS = {
    "clearing": "later(lambda: forge(op='clear', wait=False))",
    "clearing later": "later(lambda: forge(op='clear', wait=True))",
    "an update of the same": (
        "show = dict(op='output', kind='display_data', display_id='d')\n"
        'text = b\'{"text/plain": "x"}\'\n'
        "forge(text, **show); later(lambda: forge(text, **show, update=True))"
    ),
}


@pytest.mark.parametrize("tier", EVERY)
def test_floods_between_the_cells_cost_the_notebook_nothing(tier: str) -> None:
    only_with(tier)

    async def look() -> None:
        async with opened(tier=tier) as door:
            for code in FLOODS.values():
                assert (await ran(await door.start(), f"{FORGE}\n{code}")).status == "ok"
            assert await host_cpu_s() < 0.6

    asyncio.run(look())


@in_shell(EVERY)
async def test_a_copy_that_floods_is_ended(shell: Any) -> None:
    code = """
import json
from llmproc_nb.inside import channel, frozen
def flood(sock):
    head = json.dumps({"op": "size", "mb": 1.0}).encode()
    message = (len(head).to_bytes(4, "big") + bytes(4) + head) * 1000
    while True: sock.sendall(message)
frozen.channel = type("Channel", (), {"receive": staticmethod(flood), "close_all": channel.close_all})
"""
    assert (await ran(shell, code)).status == "ok"
    try:
        kept = await shell.keep()
    except ToolError:
        kept = None
    assert await host_cpu_s() < 0.3
    assert kept is None or kept.why == "it sent what was not asked for"
    assert await said(shell, "1") == "1"


@in_shell()
async def test_data_that_takes_far_more_memory_than_bytes_is_left_out(shell: Any) -> None:
    before = memory_mb()
    lists = "b'{\"application/json\": [' + b'[],' * 8_000_000 + b'[]]}'"
    done = await ran(shell, f"{FORGE}\nforge({lists}, op='output', kind='display_data')")
    assert (done.status, [list(output.data) for output in done.outputs]) == ("ok", [["text/plain"]])
    assert "too much to be kept" in done.outputs[0].data["text/plain"]
    assert memory_mb() - before < 150


@in_shell()
async def test_data_for_which_there_is_no_room_is_not_read(shell: Any) -> None:
    """While an answer is awaited the largest of all messages may come."""
    before = memory_mb()
    flood = "forge(b'{\"application/json\": [' + b'1.5,' * 20_000_000 + b'1]}', op='output', kind='display_data')"
    code = ANSWER.format(body="b'1'", op="answer", fields={"kind": "json"}).replace("forge(b'1'", f"{flood}; forge(b'1'")
    await ran(shell, f"{FORGE}\n{code}")
    assert await shell.get("x") == 1
    assert memory_mb() - before < 300


DEEP = "b'[' * 900 + b']' * 900"


@in_shell()
async def test_data_that_could_be_read_but_not_written_down_is_no_message(shell: Any) -> None:
    done = await ran(shell, f"{FORGE}\nforge(b'{{\"application/json\": ' + {DEEP} + b'}}', op='output', kind='display_data')")
    assert done.status == "died" and "nested more than 200 deep" in done.notes[0]


TAKEN = {
    "deep": (DEEP, "answer", "nested more than 200 deep"),
    "many parts": ("b'[' + b'[],' * 6_000_000 + b'1]'", "answer", "too much"),
    "no data": ("b'[1, NaN]'", "answer", "cannot be taken"),
    "another answer": ("b''", "kept", "another thing"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_variable_that_is_a_trap_is_not_taken(name: str) -> None:
    body, op, why = TAKEN[name]

    async def look() -> None:
        async with opened() as door:
            shell = await door.start()
            fields = {"kind": "json"} if op == "answer" else {}
            await ran(shell, FORGE + ANSWER.format(body=body, op=op, fields=fields))
            with pytest.raises(ToolError, match=why):
                await shell.get("x")
            assert await said(await door.start(), "1") == "1"

    asyncio.run(look())


@in_shell()
async def test_a_list_of_variables_without_end_is_none(shell: Any) -> None:
    body = "b'{\"files\": [' + b'[\"\", 0],' * 5_000_000 + b'[\"\", 0]]}'"
    await ran(shell, FORGE + ANSWER.format(body=body, op="answer", fields={}))
    with pytest.raises(ToolError, match="no list of what it has"):
        await shell.look()


def test_what_is_cleared_counts_as_well() -> None:
    """Whoever reads the outputs as they come has them all in a queue."""
    came = list[Output]()
    outputs = Outputs(1_000_000, came.append)
    while not outputs.full:
        outputs.text("stdout", b"x" * 1000)
        outputs.clear(wait=False)
    assert sum(len(output.text) for output in came) < 4_000_000
    assert outputs.full == "more than 1 MB of output"


@in_shell()
async def test_a_reader_of_outputs_that_fails_disturbs_no_cell(shell: Any) -> None:
    def fails(output: Output) -> None:
        raise KeyError("reader")

    done = await shell.run("print(1)\ndisplay(2)\nprint(3)", timeout_s=10, on_output=fails)
    assert (done.status, text_of(done.outputs)) == ("ok", "1\n23\n")
    assert done.notes == ("on_output raised KeyError and was told no more: 'reader'",)


# frames


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def described(**fields: Any) -> bytes:
    column = {"name": "a", "field_name": "a", "pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    said = {"index_columns": [], "column_indexes": [], "columns": [column | fields.pop("column", {})], "pandas_version": "3"} | fields
    return stream(pa.table({"a": [1]}).replace_schema_metadata({"pandas": json.dumps(said)}))


BOMBS = {
    "compressed": lambda: stream(pa.table({"a": [0.0] * 1000}), compression="zstd"),
    "compressed words": lambda: stream(pa.table({"a": pa.array(["x" * 1000] * 3).dictionary_encode()}), compression="lz4"),
    "nothing, very often": lambda: stream(pa.table({"a": pa.ListArray.from_arrays([0, 1 << 30], pa.nulls(1 << 30))})),
    "one run": lambda: stream(pa.table({"a": pa.RunEndEncodedArray.from_arrays([1 << 30], [1])})),
    "an index without kind": lambda: described(index_columns=[{}]),
    "no columns": lambda: stream(pa.table({"a": [1]}).replace_schema_metadata({"pandas": "{}"})),
    "a type that is not its": lambda: described(column={"numpy_type": "interval[int64]"}),
    "names that are no numbers": lambda: described(
        column_indexes=[{"name": None, "field_name": None, "pandas_type": "decimal", "numpy_type": "object", "metadata": None}]
    ),
    "names that are code": lambda: stream(
        pa.table({"__import__('os').getcwd()": [1]}).replace_schema_metadata(
            {"pandas": json.dumps({"index_columns": [], "columns": [], "column_indexes": [{"pandas_type": "unicode"}] * 2})}
        )
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_frame_that_is_a_trap_is_told_and_takes_no_memory(name: str) -> None:
    made = BOMBS[name]()
    before = memory_mb()
    with pytest.raises(ToolError, match="no whole frame"):
        unpacked(made)
    assert memory_mb() - before < 600


def test_frames_of_all_kinds_still_come_out() -> None:
    table = pa.table(
        {
            "number": [1, None],
            "text": ["a", None],
            "list": [[1], []],
            "record": [{"a": [None]}, None],
            "word": pa.array(["x", "x"]).dictionary_encode(),
            "nothing": pa.nulls(2),
            "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
        }
    )
    assert unpacked(stream(table)).shape == (2, 7)


# files


@pytest.mark.parametrize("tier", EVERY)
def test_folders_in_folders_in_folders_end_nothing_and_are_removed(tier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_with(tier)
    code = (
        "import os\nopen('x', 'w').write('here')\nfor at in range(1500): os.mkdir('d'); os.chdir('d')\n"
        "os.chdir(os.path.expanduser('~/../work'))\nos.mkdir('closed'); open('closed/y', 'w').close(); os.chmod('closed', 0)"
    )

    async def look() -> int:
        async with opened(tier=tier) as door:
            shell = await door.start()
            assert (await ran(shell, code)).status == "ok"
            kept = await shell.keep()
            assert await said(await kept.wake(), "open('x').read()") == "'here'"
            await shell.close()
            assert await said(await door.start(), "1") == "1"
            from llmproc_nb.drivers.sandbox.zygote import ZYGOTE

            return ZYGOTE.pid

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    zygote = asyncio.run(look())
    last = time.monotonic() + 10
    while os.listdir(tmp_path) and time.monotonic() < last:
        time.sleep(0.05)
    assert os.listdir(tmp_path) == []
    assert os.path.exists(f"/proc/{zygote}")


@in_shell()
async def test_what_is_written_through_a_map_is_in_the_next_copy(shell: Any) -> None:
    """A write through a map leaves no mark on its file, here or when the map is gone again."""
    code = "import mmap\nwith open('x', 'r+b') as file, mmap.mmap(file.fileno(), 4096) as whole: whole[0] = ord('{letter}')"
    await said(shell, "_ = open('x', 'w').write('-' * 4096)")
    for letter in "AB":
        await said(shell, code.format(letter=letter))
        kept = await shell.keep()
    assert await said(await kept.wake(), "open('x').read(1)") == "'B'"


SWAP = """
import ctypes, sys
one, two = (path.encode() for path in sys.argv[1:])
print(flush=True)
while True: ctypes.CDLL(None).renameat2(-100, one, -100, two, 2)
"""


def test_a_folder_that_becomes_a_link_while_it_is_removed_leads_nowhere(tmp_path: Path) -> None:
    """In the tier landlock a session reaches the folders of its siblings, also while the keeper removes them."""
    outside, top = tmp_path / "outside", tmp_path / "top"
    outside.touch(0o644)
    top.mkdir()
    command = [sys.executable, "-I", "-S", "-c", SWAP, str(top / "folder"), str(top / "link")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapping:
        assert swapping.stdout is not None and swapping.stdout.readline()
        last = time.monotonic() + 3
        while time.monotonic() < last:
            with contextlib.suppress(FileExistsError):
                (top / "folder").mkdir(0)
            with contextlib.suppress(FileExistsError):
                (top / "link").symlink_to(outside)
            area.clear(str(top))
        swapping.kill()
    assert oct(outside.stat().st_mode)[-3:] == "644"


def test_a_snapshot_that_became_a_link_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    source, before = tmp_path / "source", tmp_path / "before"
    source.mkdir()
    (source / "x").write_text("known")
    copied = area.copy(str(source), str(before))
    before.rename(tmp_path / "elsewhere")
    before.symlink_to(tmp_path / "elsewhere")
    area.copy(str(source), str(tmp_path / "after"), copied, str(before))
    assert (tmp_path / "after/x").read_text() == "known"
    assert (tmp_path / "after/x").stat().st_ino != (tmp_path / "elsewhere/x").stat().st_ino


# memory


BOMB = """
import mmap, os, time
def bomb():
    for _ in range(5):
        if os.fork() == 0:
            whole = mmap.mmap(-1, 100 << 20, {flags})
            for at in range(0, 100 << 20, 4096): whole[at] = 1
            time.sleep({sleep_s})
            os._exit(0)
"""
SHARED, PRIVATE = "mmap.MAP_SHARED | mmap.MAP_ANONYMOUS", "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS"


@in_shell(CLOSED, memory_mb=256)
async def test_memory_that_is_shared_counts(shell: Any) -> None:
    code = (
        BOMB.format(flags=SHARED, sleep_s=20)
        + "bomb()\ntime.sleep(3)\nends = [os.waitpid(-1, os.WNOHANG)[1] for _ in range(5)]\nends.count(9) > 1"
    )
    done = await ran(shell, code)
    assert done.status == "died" or text_of(done.outputs) == "True"


@in_shell(CLOSED, memory_mb=256)
async def test_memory_that_is_taken_between_the_cells_counts(shell: Any) -> None:
    await ran(shell, BOMB.format(flags=PRIVATE, sleep_s=30) + "bomb()")
    await asyncio.sleep(6)
    done = await ran(shell, "[os.waitpid(-1, os.WNOHANG)[1] for _ in range(5)].count(9) > 1")
    assert done.status == "died" or text_of(done.outputs) == "True"


FORKS = """
import mmap, os, socket, time, warnings
warnings.simplefilter("ignore")  # since Python 3.12 a fork of a process with threads is warned of, as a kernel is one
def hidden(mb):
    whole = mmap.mmap(-1, mb << 20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    for at in range(0, mb << 20, 4096):
        whole[at] = 1
        if at % (1 << 20) == 0: whole.madvise(mmap.MADV_DONTNEED, 0, at + 4096)
    return whole
def anew(mb):
    for at in range(0, len(data), 4096): data[at] = 1
def sockets(mb):
    kept, sent = [], 0
    while sent < mb << 20 and len(kept) < 900:
        kept += socket.socketpair()
        for one in kept[-2:]:
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
            try:
                while True: sent += one.send(bytes(32768))
            except BlockingIOError: pass
    return kept
def plain(mb): return bytearray(b"x") * (mb << 20)
def forks(take, mb, count=6):
    pids = []
    for _ in range(count):
        if (pid := os.fork()) == 0:
            try:
                kept = take(mb)
                time.sleep(6)
                os._exit(0)
            finally:
                os._exit(3)
        pids.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in pids]
"""
TAKES = {"shared and left": "hidden", "written anew": "anew", "in sockets": "sockets"}


def each_tier(test: Any) -> Any:
    return pytest.mark.parametrize("tier", [tier for tier in ("namespaces", "landlock") if tier in tiers()])(test)


def was_stopped(done: Ran) -> bool:
    """Whether some of what would take too much was ended, or refused by the kernel itself."""
    said = text_of(done.outputs)
    if done.status == "died" or "Cannot allocate memory" in said:
        return True
    ends = json.loads(said)
    return any(ends) and (9 not in ends or any("more than 256 MB of memory" in note for note in done.notes))


@each_tier
@pytest.mark.parametrize("name", TAKES)
def test_memory_that_no_process_seems_to_have_counts(name: str, tier: str) -> None:
    async def look() -> None:
        async with opened(tier=tier, memory_mb=256) as door:
            shell = await door.start()
            code = f"{FORKS}\ndata = bytearray(b'x') * (100 << 20)\nprint(forks({TAKES[name]}, 120))"
            done = await ran(shell, code)
            assert was_stopped(done), done

    asyncio.run(look())


RICH = """
import mmap, socket, sys
both = mmap.mmap(-1, 1200 << 20), bytearray(b"x") * (1200 << 20)
for at in range(0, 1200 << 20, 4096): both[0][at] = 1
kept = []
while len(kept) < 900:
    kept += socket.socketpair()
    kept[-1].setblocking(False)
    try:
        while True: kept[-1].send(bytes(32768))
    except BlockingIOError: pass
print("rich", flush=True)
sys.stdin.readline()
"""


async def while_others_give_back(code: str, tier: str) -> Ran:
    """The code in a session of little memory, which begins while another process has much, and goes on when it has given that back."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", RICH], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "rich\n"
        async with opened(tier=tier, memory_mb=256) as door:
            running = asyncio.create_task(ran(await door.start(), code))
            await asyncio.sleep(1)
            other.communicate("\n")
            return await running


LACKING = cgroup.lacking()
counted = pytest.mark.skipif(bool(LACKING), reason=LACKING or "-")


@counted
@each_tier
@pytest.mark.parametrize("name", TAKES)
def test_memory_counts_also_while_others_give_theirs_back(name: str, tier: str) -> None:
    take = f"lambda mb: time.sleep(1.5) or {TAKES[name]}(mb)"
    code = f"{FORKS}\ndata = bytearray(b'x') * (100 << 20)\nprint(forks({take}, 120))"
    done = asyncio.run(while_others_give_back(code, tier))
    assert was_stopped(done), done


@counted
@each_tier
def test_where_copies_are_too_large_they_go_and_the_session_goes_on(tier: str) -> None:
    async def look() -> None:
        async with opened(tier=tier, memory_mb=600, checkpoints_mb=100) as door:
            shell, kept = await door.start(), []
            await ran(shell, "import numpy, time; x = numpy.ones(40_000_000)")
            for number in (2, 3):
                kept.append(await shell.keep())
                done = await ran(shell, "x += 1\ntime.sleep(1.5)\nint(x[-1])")
                assert (done.status, text_of(done.outputs), done.notes) == ("ok", str(number), ())
            with pytest.raises(ToolError):
                await kept[0].wake()

    asyncio.run(look())


@each_tier
def test_a_session_whose_forks_take_little_goes_on_while_others_give_much_back(tier: str) -> None:
    done = asyncio.run(while_others_give_back(f"{FORKS}\ndata = bytearray(b'x') * (100 << 20)\nprint(forks(lambda mb: True, 0))", tier))
    assert (done.status, text_of(done.outputs), done.notes) == ("ok", "[0, 0, 0, 0, 0, 0]\n", ()), done


@each_tier
def test_what_the_processes_of_a_kernel_have_together_counts(tier: str) -> None:
    async def look() -> None:
        async with opened(tier=tier, kernel="python3", memory_mb=1500, processes=20) as door:
            shell = await door.start()
            done = await ran(shell, f"{FORKS}\nprint(forks(plain, 400).count(9) > 1)")
            assert text_of(done.outputs) == "True\n", done
            done = await ran(shell, f"{FORKS}\nprint(forks(lambda mb: 1, 0, 25).count(9) > 1)")
            assert text_of(done.outputs) == "True\n", done

    asyncio.run(look())


@each_tier
def test_cpu_time_of_what_a_session_started_counts(tier: str) -> None:
    code = "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        while True: pass\ntime.sleep(9)"

    async def look() -> None:
        async with opened(tier=tier, cpu_s=2) as door:
            shell = await door.start()
            done = await ran(shell, code)
            assert done.status == "died" and "more than 2 s of CPU time" in done.notes[0], done

    asyncio.run(look())


# processes

FORK_BOMB = """
import os, signal, time
for number in (signal.SIGINT, signal.SIGCHLD, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)
end = time.monotonic() + 20
while time.monotonic() < end:
    try:
        if os.fork() == 0: os.setsid()
    except OSError: pass
os._exit(0)
"""


@each_tier
@pytest.mark.parametrize("processes", [4, 64, 200])
def test_a_live_fork_bomb_ends_with_its_cell_and_hurts_no_other_session(processes: int, tier: str) -> None:
    async def look() -> float:
        async with opened(tier=tier, processes=processes) as door:
            shell = await door.start()
            await said(shell, "x = 5")
            kept, other = await shell.keep(), await door.start()
            assert kept is not None
            done = await ran(shell, FORK_BOMB, 1)
            assert done.status == "died" and done.duration_s < 12, done
            began = time.monotonic()
            assert (await said(await kept.wake(), "x"), await said(other, "1")) == ("5", "1")
            assert time.monotonic() - began < 3
            await ran(other, f"import os\nif os.fork() == 0:\n    exec({FORK_BOMB!r})")
            began = time.monotonic()
        return time.monotonic() - began

    assert asyncio.run(look()) < 5


@each_tier
def test_there_are_as_many_processes_as_was_asked_for(tier: str) -> None:
    code = "import subprocess\nall = [subprocess.Popen(['sleep', '4']) for _ in range({})]\nprint([one.wait() for one in all].count(-9))"

    async def look() -> None:
        async with opened(tier=tier, processes=4) as door:
            shell = await door.start()
            done = await ran(shell, code.format(3))
            assert (text_of(done.outputs), done.notes) == ("0\n", ())
            done = await ran(shell, code.format(30))
            assert int(text_of(done.outputs)) > 4
            assert done.notes == ("What the code had started was ended: it had more than 4 processes at once.",)

    asyncio.run(look())


# beginnings and ends


def test_a_start_that_is_stopped_at_any_moment_leaves_nothing() -> None:
    async def look() -> None:
        async with opened() as door:
            await door.start()
            while not pool().waiting or pool()._making:
                await asyncio.sleep(0.02)
        for pause_s in (0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03):
            async with opened(processes=20 + int(pause_s * 1000)) as door:
                await pool().close()
                before = len(os.listdir("/proc/self/fd"))
                starting = asyncio.create_task(door.start())
                await asyncio.sleep(pause_s)
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                await door.close()
                await pool().close()
            await asyncio.sleep(0.2)
            assert len(os.listdir("/proc/self/fd")) <= before, pause_s

    asyncio.run(look())


HOST = """
import asyncio, os, resource, sys
sys.path[:0] = [{tests!r}, {root!r}]
from sandboxes import opened, said, tiers
tier = tiers()[0]
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(2000)]
async def main():
    async with opened(tier=tier) as door:
        print(await said(await door.start(), "1 + 1"))
asyncio.run(main())
"""


def test_a_notebook_with_very_many_open_files_has_sandboxes() -> None:
    code = HOST.format(tests=str(ROOT / "tests"), root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("2", 0), done.stderr[-2000:]


# what people and models are shown


def test_elements_in_elements_without_end_hold_nobody_up() -> None:
    began = time.monotonic()
    shown = bundle(Output(kind="display_data", data={"text/plain": "a frame", "text/html": "<div>" * 40_000}))
    assert shown["text/plain"].startswith("a frame\n[HTML is not shown") and len(shown) == 1 and time.monotonic() - began < 5
    rows = "<table>" + "<tr><td>1<td>2" * 2000 + "</table>"
    assert "<table>" in bundle(Output(kind="display_data", data={"text/html": rows}))["text/html"]


def test_text_without_end_is_cut_before_it_is_made_safe() -> None:
    began = time.monotonic()
    shown = text("\u202e\x1b]0;x" * 5_000_000)
    assert len(shown) < 1_100_000 and "of 30,000,000 characters only the first 1,000,000" in shown
    assert time.monotonic() - began < 3


def test_what_a_session_says_of_itself_is_made_plain_for_the_model() -> None:
    ran = Ran(status="ok", notes=("\x1b[8mhidden\x1b[0m",))
    assert shown(ran) == (Text(text="[hidden]"),)


@pytest.mark.parametrize("lines", [True, 10**15, -1, "5", None])
def test_a_table_says_how_many_rows_a_page_has_only_within_reason(lines: Any) -> None:
    data = {FRAME: {"said": "a frame", "rows": "a\n1\n", "page_lines": lines}}
    (paged,) = shown(Ran(status="ok", outputs=(Output(kind="execute_result", data=data),)))
    assert isinstance(paged, Paged) and paged.page_lines == 50


# kernels, the way out


MESSAGES = {
    "content of another kind": ("status", "b'[1]'"),
    "content that is nested too deep": ("display_data", "b'{\"data\": {\"a\": ' + b'[' * 100_000 + b']' * 100_000 + b'}}'"),
    "content that is nested deep": ("display_data", "b'{\"data\": {\"application/json\": ' + b'[' * 900 + b']' * 900 + b'}}'"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_kernel_that_forges_messages_goes_on(name: str) -> None:
    kind, content = MESSAGES[name]

    async def look() -> None:
        async with opened(kernel="python3") as door:
            shell = await door.start()
            code = (
                "kernel = get_ipython().kernel; session, parent = kernel.session, kernel.get_parent()\n"
                f"parts = [session.pack(one) for one in (session.msg({kind!r})['header'], parent['header'], {{}})]\n"
                f"parts.append({content})\n"
                "kernel.iopub_socket.send_multipart([b'x', b'<IDS|MSG>', session.sign(parts), *parts])"
            )
            assert (await ran(shell, code)).status == "ok"
            assert await said(shell, "print(1 + 1)") == "2\n"

    asyncio.run(look())


ENDLESS = """
import json, os, socket, struct, threading, time
from ipykernel.connect import get_connection_file
info = json.loads(open(get_connection_file()).read())
path = f"{info['ip']}-{info[CHANNEL + '_port']}"
os.unlink(path)
own = socket.socket(socket.AF_UNIX)
own.bind(path)
own.listen()

def cut_off():
    for fd in range(3, 300):
        try:
            one = socket.socket(fileno=os.dup(fd))
            if one.getsockname() == path and one.getpeername() is not None:
                one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

def frame(flags, body):
    return bytes([flags | 2]) + struct.pack("!Q", len(body)) + body

sent = 0
def endless(there):
    global sent
    try:
        there.sendall(b"\\xff" + bytes(8) + b"\\x7f\\x03\\x01" + b"NULL".ljust(20, b"\\0") + bytes(32))
        there.sendall(frame(4, b"\\x05READY\\x0bSocket-Type" + struct.pack("!I", len(KIND)) + KIND))
        while sent < 600_000_000:
            there.sendall(frame(FLAGS, bytes(SIZE)) + frame(4, b"\\x04PONG"))
            sent += SIZE
        time.sleep(60)
    except OSError:
        sent += 50_000_000

def meet():
    while sent < 600_000_000:
        there, _ = own.accept()
        threading.Thread(target=endless, args=[there], daemon=True).start()

threading.Thread(target=meet, daemon=True).start()
cut_off()
"""


WITHOUT_END = {
    "parts of what is shown": ("iopub", b"PUB", 1, 1_000_000),
    "small parts of what is shown": ("iopub", b"PUB", 1, 10_000),
    "parts of an answer": ("shell", b"ROUTER", 1, 1_000_000),
    "answers": ("shell", b"ROUTER", 0, 30_000_000),
    "answers to what only Jupyter asks": ("control", b"ROUTER", 0, 30_000_000),
    "questions": ("stdin", b"ROUTER", 0, 30_000_000),
}


@each_tier
@pytest.mark.parametrize("name", WITHOUT_END)
def test_messages_without_end_of_a_kernel_take_no_memory(name: str, tier: str) -> None:
    """ZeroMQ gathers all parts before anybody sees one; so a kernel that speaks its protocol itself sends ever more."""
    values = "CHANNEL, KIND, FLAGS, SIZE = {!r}, {!r}, {}, {}".format(*WITHOUT_END[name])

    async def look() -> None:
        async with opened(tier=tier, kernel="python3", output_mb=20) as door:
            shell, other = await door.start(), await door.start()
            before, most, running = memory_mb(), 0.0, asyncio.create_task(ran(shell, f"{values}\n{ENDLESS}", 3))
            until = time.monotonic() + 4
            while time.monotonic() < until:
                most = max(most, memory_mb() - before)
                await asyncio.sleep(0.01)
            await running
            assert most < 150, most
            assert await said(other, "1") == "1"

    asyncio.run(look())


def test_a_name_that_is_none_is_answered(tmp_path: Path) -> None:
    async def look() -> bytes:
        proxy = Proxy(["*.example"], str(tmp_path / "out"))
        await proxy.start()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "out"))
        writer.write(b"CONNECT " + b"x" * 70 + b".example:443 HTTP/1.1\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await proxy.close()
        return answer

    assert asyncio.run(look()).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("address", ["2002:7f00:1::", "2002:a00:1::", "fec0::1"])
def test_no_name_leads_inside_by_an_address_that_stands_for_another(address: str) -> None:
    assert not may_be_reached(ip_address(address), "a.example", exact=False)


def test_the_folder_of_a_family_is_removed_when_the_zygote_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmproc_nb.drivers.sandbox.zygote import ZYGOTE

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def look() -> None:
        async with opened() as door:
            shell = await door.start()
            os.kill(ZYGOTE.pid, signal.SIGKILL)
            assert (await ran(shell, "import time; time.sleep(9)")).status == "died"

    asyncio.run(look())
    assert os.listdir(tmp_path) == []


# states


@pytest.mark.parametrize("tier", CLOSED)
def test_a_session_can_be_taken_back_any_number_of_times(tier: str) -> None:
    """One taken out of the other, only so many could be kept apart."""
    only_with(tier)

    async def look() -> None:
        async with opened(tier=tier) as door:
            shell = await door.start()
            for number in range(40):
                assert await said(shell, f"_ = open('x', 'a').write('{number},')\nfile = open('x'); number = {number}") == ""
                kept = await shell.keep()
                assert kept is not None
                await said(shell, "_ = open('x', 'w').write('spoilt'); _ = open('y', 'w').write('spoilt'); number = 'spoilt'")
                await shell.close()
                shell = await kept.wake()
                found = await said(shell, "import os; number, file.read().count(','), os.listdir(), os.getcwd().endswith('/work')")
                assert found == f"({number}, {number + 1}, ['x'], True)"

    asyncio.run(look())


@pytest.mark.parametrize("tier", CLOSED)
def test_of_two_that_go_on_from_the_same_copy_each_has_a_folder_of_its_own(tier: str) -> None:
    only_with(tier)

    async def look() -> None:
        async with opened(tier=tier) as door:
            shell = await door.start()
            await said(shell, "import os, signal; _ = open('x', 'w').write('first')")
            kept = await shell.keep()
            assert kept is not None
            await shell.close()
            two = await asyncio.gather(kept.wake(), kept.wake())
            for number, one in enumerate(two):
                await said(one, f"_ = open('x', 'a').write('{number}')")
            assert [await said(one, "open('x').read()") for one in two] == ["'first0'", "'first1'"]
            pids = [int(await said(one, "os.getpid()")) for one in two]
            for one, other in zip(two, reversed(pids), strict=True):
                done = await ran(one, f"os.kill({other}, 0)")
                assert [output.name for output in done.outputs] in (["PermissionError"], ["ProcessLookupError"])

    asyncio.run(look())


@in_shell(CLOSED)
async def test_who_runs_a_cell_while_a_copy_of_it_wakes_cannot_signal_it_afterwards(shell: Any) -> None:
    kept = await shell.keep()
    running = asyncio.create_task(ran(shell, "import os, time; time.sleep(1)"))
    await asyncio.sleep(0.2)
    other = int(await said(await kept.wake(), "import os; os.getpid()"))
    assert (await running).status == "ok"
    done = await ran(shell, f"os.kill({other}, 0)")
    assert [output.name for output in done.outputs] in (["PermissionError"], ["ProcessLookupError"])


@in_shell()
async def test_what_a_session_wrote_before_its_death_is_not_lost_on_a_busy_notebook(shell: Any) -> None:
    async def busy() -> None:
        for _ in range(20):
            time.sleep(0.02)
            await asyncio.sleep(0)

    other = asyncio.create_task(busy())
    done = await ran(shell, "import os\nprint('a' * 100_000)\nos.write(2, b'last words')\nos.kill(os.getpid(), 9)")
    assert (done.status, text_of(done.outputs)) == ("died", "a" * 100_000 + "\nlast words")
    await other
