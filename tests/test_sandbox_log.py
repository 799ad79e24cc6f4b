"""Real sandboxes and the log: a killed kernel's state comes back; a recorded notebook replays without a sandbox, and goes on with one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kernels import Kernel, Ran, ok

from llmproc_nb import Program, new_machine
from llmproc_nb.core.errors import ToolError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")

SETUP = """
%load_ext llmproc_nb
from llmproc_nb import Program

def script(request):
    last = request.path[-1].message
    if last.role == "tool":
        return "It says: " + " / ".join(result.text for result in last.tool_results)
    return {"call": [{"name": "run_python", "arguments": {"code": last.text}}]}

coder = Program(name="coder", provider="scripted", model="m", script=script, tools=("run_python",))
"""


def test_the_state_of_a_killed_kernel_comes_back_by_running_its_cells_again(tmp_path: Path) -> None:
    first = Kernel(LLMPROC_NB_STREAM="0", LLMPROC_NB_LOG=str(tmp_path))
    ok(first.run(SETUP))
    ok(first.run("%%agent scout -p coder\nx = [1]; open('f.txt', 'w').write('kept')", timeout_s=60))
    ok(first.run("%%sandbox scout\nx.append(2)"))
    ok(first.run("%fork scout twin"))
    ok(first.run("%%sandbox twin\nx.append(3)"))
    first.manager.kernel_pid = None
    first.manager.provisioner.process.kill()
    first.close()
    again = Kernel(LLMPROC_NB_STREAM="0", LLMPROC_NB_LOG=str(tmp_path))
    try:
        ok(again.run(SETUP))
        ok(again.run("%agent --resume", timeout_s=60))
        assert ok(again.run("%%sandbox scout\nx, open('f.txt').read()", timeout_s=60)).data() == ["([1, 2], 'kept')"]
        assert ok(again.run("%%sandbox twin\nx")).data() == ["[1, 2, 3]"]
    finally:
        again.close()


def test_a_recorded_notebook_replays_without_a_sandbox_and_auto_goes_on_with_one(tmp_path: Path) -> None:
    recording = tmp_path / "demo.jsonl"
    cells = [
        "%%agent scout -p coder\nx = 20; x",
        "seed = 7\n%sandbox push seed",
        "%%sandbox scout\nimport pandas as pd\nprint('x is', x)\nframe = pd.DataFrame({'a': [x, seed]}); x + 1",
        "%sandbox pull frame\nframe",
    ]

    def play(mode: str, *more: str) -> list[list[Any]]:
        kernel = Kernel(LLMPROC_NB_STREAM="0", LLMPROC_NB_LOG="0", LLMPROC_NB_MODE=mode, LLMPROC_NB_RECORDING=str(recording))
        try:
            ok(kernel.run(SETUP))
            made = [_shown(ok(kernel.run(cell, timeout_s=60))) for cell in (*cells, *more)]
            if mode == "replay":
                assert ok(kernel.run("import psutil; [c.cmdline() for c in psutil.Process().children()]")).data() == ["[]"]
            return made
        finally:
            kernel.close()

    recorded = play("record")
    assert play("replay") == recorded
    again = "[the state was made again by running 3 earlier cells]\n"
    assert play("auto", "%%sandbox scout\nx * 2 + seed")[-1] == [("display_data", {"text/plain": "47"}), ("stream", again)]


def _shown(ran: Ran) -> list[Any]:
    return [(kind, content.get("data", content.get("text"))) for kind, content in ran.outputs]


def test_a_closed_machine_leaves_nothing_waiting() -> None:
    def used() -> int:
        made = new_machine()
        process = Program(name="scout", provider="scripted", model="m", script=({"say": "x"},), tools=("run_python",)).start(machine=made)
        process.sandbox.run("x = 1")
        made.close()
        return len(os.listdir("/proc/self/fd"))

    assert used() == used() == used()


def test_values_pass_as_they_are_or_not_at_all() -> None:
    made = new_machine()
    process = Program(name="scout", provider="scripted", model="m", script=({"say": "x"},), tools=("run_python",)).start(machine=made)
    sandbox = process.sandbox
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    sandbox.put(array=array, facts={"a": [1, None, True, "x"]}, frame=pd.DataFrame({"a": [1.5, None]}))
    assert np.array_equal(sandbox.get("array"), array) and sandbox.get("facts") == {"a": [1, None, True, "x"]}
    pd.testing.assert_frame_equal(sandbox.get("frame"), pd.DataFrame({"a": [1.5, None]}))
    for value in (float("nan"), (1, 2), {1, 2}, b"ab", {1: "a"}, [float("inf")], np.array([object()])):
        with pytest.raises(ToolError, match="value"):
            sandbox.put(value=value)
    sandbox.run("pair, keyed, odd = (1, 2), {2: 3}, [float('nan')]")
    for name in ("pair", "keyed", "odd"):
        with pytest.raises(ToolError, match=name):
            sandbox.get(name)
    made.close()
