"""Sandboxes of another kernelspec, over jupyter_client: everything but copies."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from sandboxes import in_shell, linux_only, opened, ran, said, text_of

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.sandbox import Output
from llmproc_nb.drivers.arrow import packed, unpacked
from llmproc_nb.drivers.sandbox.used import spent, used

pytestmark = linux_only


@in_shell(kernel="python3")
async def test_a_cell_gives_its_outputs_from_the_first_one_on(shell):
    done = await ran(shell, "print('hello')\ndisplay('shown')\n6 * 7")
    assert done.status == "ok"
    assert done.outputs == (
        Output(kind="stream", name="stdout", text="hello\n"),
        Output(kind="display_data", data={"text/plain": "'shown'"}),
        Output(kind="execute_result", data={"text/plain": "42"}),
    )
    failed = await ran(shell, "1 / 0")
    assert (failed.status, failed.outputs[-1].name) == ("error", "ZeroDivisionError")
    assert await shell.keep() is None


@in_shell(kernel="python3")
async def test_what_a_cell_used_is_that_of_the_kernel_and_what_it_started(shell):
    idle = await ran(shell, "import time; time.sleep(0.4)")
    busy = await ran(shell, "x = b'x' * 200_000_000\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass")
    child = "import subprocess, sys; _ = subprocess.run([sys.executable, '-c', 'for n in range(20_000_000): pass'])"
    below = await ran(shell, child)
    assert idle.cpu_s < 0.3 and 0.4 <= busy.cpu_s < 2 and below.cpu_s > 0.2, (idle, busy, below)
    assert 20 < idle.memory_mb < 200 <= busy.memory_mb < 500


def test_of_processes_that_are_gone_nothing_is_known():
    assert (used(0), used(2**31), spent({1: (1.0, 5.0)}, {})) == ({}, {}, {})


@in_shell(kernel="python3")
async def test_cells_are_stopped_by_time_and_by_hand(shell):
    done = await ran(shell, "x = 1\nimport time; time.sleep(60)", 0.5)
    assert (done.status, done.notes) == ("timed_out", ("The cell was stopped after 0.5 s.",))
    running = asyncio.create_task(ran(shell, "time.sleep(60)"))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await shell.interrupt()
    assert (await running).status == "interrupted" and time.monotonic() - began < 2
    assert await said(shell, "x") == "1"


@in_shell(kernel="python3")
async def test_a_kernel_that_dies_is_noticed(shell):
    began = time.monotonic()
    done = await ran(shell, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert done.status == "died" and time.monotonic() - began < 3 and not shell.alive
    assert "The session is over" in (await ran(shell, "1")).notes[0]


@in_shell(kernel="python3", output_mb=5)
async def test_a_flood_is_stopped(shell):
    done = await ran(shell, "while True: print('x' * 100_000)", 30)
    assert "more than 5 MB of output" in done.notes[0]
    assert len(text_of(done.outputs)) < 5_200_000 and await said(shell, "1") == "1"


@in_shell(kernel="python3")
async def test_variables_and_files_go_in_and_out(shell):
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    table = pa.Table.from_pandas(frame)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    await shell.put({"df": sink.getvalue().to_pybytes(), "plain": {"deep": [1, "é"]}})
    assert await said(shell, "df.shape, plain") == "((2, 2), {'deep': [1, 'é']})"
    with pa.ipc.open_stream(await shell.get("df")) as stream:
        pd.testing.assert_frame_equal(stream.read_all().to_pandas(), frame)
    assert await shell.get("plain") == {"deep": [1, "é"]}
    series = pd.Series([1, None], dtype=object, name=2023)
    await shell.put({"row": packed(series, "row")})
    assert await said(shell, "row.name, list(row)") == "(2023, [1, None])"
    pd.testing.assert_series_equal(unpacked(await shell.get("row")), series)
    await ran(shell, "bad = {1, 2}")
    with pytest.raises(ToolError, match=r"^sandbox: bad is a set, which would not arrive as it is; a list can pass"):
        await shell.get("bad")
    await ran(shell, "del row, bad")
    await shell.write_file("deep/a.bin", bytes(range(256)))
    assert await shell.read_file("deep/a.bin") == bytes(range(256))
    look = await shell.look()
    assert {one.name for one in look.variables} == {"df", "plain"} and look.files == (("deep/a.bin", 256),)
    with pytest.raises(ToolError, match="there is no variable 'nothing'"):
        await shell.get("nothing")
    with pytest.raises(ToolError):
        await shell.read_file("../../etc/passwd")
    assert await said(shell, "len(In)") == "6"


def test_a_kernel_that_is_not_there_is_named(tmp_path):
    async def look():
        async with opened(tmp_path, kernel="nosuchkernel") as door:
            with pytest.raises(ToolError, match="there is no kernel nosuchkernel"):
                await door.start()

    asyncio.run(look())


@pytest.fixture
def kernelspec(tmp_path, monkeypatch):
    """Makes kernelspecs that jupyter_client finds."""

    def make(name: str, *argv: str, language: str) -> None:
        folder = tmp_path / "kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": language}))

    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    return make


def test_a_kernel_that_does_not_start_has_its_last_words_in_the_error(kernelspec, capfd):
    kernelspec("broken", "/bin/sh", "-c", "echo starting; echo no libfoo.so >&2; exit 3", language="x")

    async def look():
        async with opened(kernel="broken") as door:
            with pytest.raises(ToolError, match=r"its process ended. It said last: starting \| no libfoo.so"):
                await door.start()

    asyncio.run(look())
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/usr/lib/R/site-library/IRkernel").exists(), reason="R and its kernel are not installed")
def test_another_language_runs_confined(kernelspec):
    kernelspec("ir", "R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}", language="R")

    async def look():
        async with opened(kernel="ir") as door:
            shell = await door.start()
            assert await said(shell, "x <- c(1, 2, 3); mean(x)") == "[1] 2"
            plot = await ran(shell, "plot(x)")
            assert "image/png" in plot.outputs[0].data
            assert "a b\n1 1 x" in await said(shell, "data.frame(a = 1, b = 'x')")
            failed = await ran(shell, "readLines('/etc/shadow')")
            assert failed.status == "error" and "No such file" in text_of(failed.outputs)
            assert (await ran(shell, "repeat{}", 1)).status == "timed_out"
            assert await said(shell, "length(x)") == "[1] 3"
            with pytest.raises(ToolError, match="a kernel of Python can do it"):
                await shell.put({"y": 1})

    asyncio.run(look())


def test_a_kernel_has_the_files_of_the_program(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")

    async def look():
        async with opened(tmp_path, kernel="python3", files=("*.csv",)) as door:
            shell = await door.start()
            assert await said(shell, "open('a.csv').read()") == "'a\\n1\\n'"

    asyncio.run(look())


KERNEL = """
import threading, time, os, signal
kernel = get_ipython().kernel
session, parent = kernel.session, kernel.get_parent()
def forge(kind, content, count=1, parent=parent):
    parts = [session.pack(one) for one in (session.msg(kind)["header"], parent["header"], {})] + [content]
    for _ in range(count): kernel.iopub_socket.send_multipart([b"x", b"<IDS|MSG>", session.sign(parts), *parts])
def later(*what):
    threading.Thread(target=lambda: (time.sleep(0.3), forge(*what)), daemon=True).start()
"""


def _memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


async def _slowest(work) -> tuple[Any, float]:
    """What it gave, and how long this loop was held up at most."""
    task, slowest = asyncio.ensure_future(work), 0.0
    while not task.done():
        began = time.monotonic()
        await asyncio.sleep(0.01)
        slowest = max(slowest, time.monotonic() - began)
    return await task, slowest


@in_shell(kernel="python3")
async def test_a_flood_between_the_cells_takes_no_memory_and_no_outputs_of_the_next_one(shell):
    before = _memory_mb()
    assert (await ran(shell, f"{KERNEL}\nlater('stream', bytes(1_000_000), 600)")).status == "ok"
    await asyncio.sleep(3)
    assert _memory_mb() - before < 150
    assert await said(shell, "print('here'); 1 + 1") == "here\n2"


BIG = {
    "one message": ("forge('display_data', bytes(300_000_000))", "more than 50 MB of output at once"),
    "very many parts": ("forge('display_data', b'{\"data\": {\"application/json\": [' + b'[],' * 10_000_000 + b'[]]}}')", ""),
    "very many numbers": ("forge('display_data', b'{\"data\": {\"application/json\": [' + b'1,' * 15_000_000 + b'1]}}')", ""),
}


@pytest.mark.parametrize("name", BIG)
def test_a_message_that_is_too_large_is_not_taken_and_holds_nobody_up(name):
    code, why = BIG[name]

    async def look():
        async with opened(kernel="python3") as door:
            shell, before = await door.start(), _memory_mb()
            done, slowest = await _slowest(ran(shell, f"{KERNEL}\n{code}\ntime.sleep(1); print('x')"))
            assert slowest < 2 and _memory_mb() - before < 400, (slowest, _memory_mb() - before)
            assert any(why in note for note in done.notes) if why else "x" in text_of(done.outputs), done
            assert await said(shell, "print('next')") == "next\n"

    asyncio.run(look())


@in_shell(kernel="python3")
async def test_a_kernel_that_says_too_early_that_it_is_idle_ends_no_cell(shell):
    done = await ran(shell, f"{KERNEL}\nforge('status', b'{{\"execution_state\": \"idle\"}}')\ntime.sleep(2.5); print('late')")
    assert (done.status, text_of(done.outputs)) == ("ok", "late\n")
    assert await said(shell, "print('second')") == "second\n"


DEAF = {
    "interrupts": "import time\nwhile True:\n    try: time.sleep(60)\n    except KeyboardInterrupt: pass",
    "anything": "import os\nos.kill(os.getpid(), 19)",
    "its own sockets": "import os\nos.closerange(3, 1000)",
}


@pytest.mark.parametrize("to", DEAF)
def test_a_kernel_that_is_deaf_is_ended_and_that_is_said(to):
    async def look():
        async with opened(kernel="python3") as door:
            shell = await door.start()
            done = await ran(shell, DEAF[to], 1)
            assert done.status == "died" and done.duration_s < 10, done
            assert "The session ended with this cell:" in done.notes[-1]
            assert await said(await door.start(), "1") == "1"

    asyncio.run(look())
