"""The benches run, and print their ratios beside the marks. What they measure is no matter of a test: machines differ."""

from __future__ import annotations

import re
import subprocess
import sys

from paths import ROOT
from sandboxes import tiers

RUN = ROOT / "tests/bench/run.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(RUN), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200)


def test_every_bench_runs_and_prints_its_ratios():
    done = run("--quick")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stderr == ""
    titles = re.findall(r"^(\w+): ", done.stdout, re.MULTILINE)
    assert titles == ["quick", "turns", "tools", "import", "log", "frames", "stream", "forks", "fanout", "fds", "sandbox"]
    marks = re.findall(r"^  (.+?)  +[-+.,\de]+(?: \w+)?   mark (.+)$", done.stdout, re.MULTILINE)
    assert [mark for _, mark in marks] == [
        *["≤ 2", "≤ 1/4", "≤ 2", "≤ 1/30", "≤ 2", "≤ 1/30"],
        *["≤ 2"] * 6,
        *["≤ 100 ms", "≤ 100 ms", "none"],
        *["≤ 40 µs", "≤ 40 µs"],
        *["≤ 1 s", "≤ 3 MB"],
        *["≤ 5 µs", "≤ 2 KB", "≤ 1 ms"] * 2,
        *["≤ 1.5", *["≤ 1.1", "≤ 2.2"] * 2, "≤ 1"],
        *["≤ 2", "≤ 64 MB", *["≤ 5 ms"] * 3, *["≤ 1"] * 6] * 3,
        *["≤ 5 µs", "≤ 2000 B"] * 2,
        *["≤ 100 ms", "≤ 3 ms", "≤ 20 ms", "≤ 1", "≤ 50 ms", "≤ 50 ms", "≤ 20 MB", "≤ 20 MB", "≤ 40 MB"] * (tiers() != ()),
    ]


def test_a_bench_that_does_not_exist_is_named():
    done = run("turn")
    assert done.returncode == 2
    assert "there is no bench 'turn'; there are turns, tools, import, log, frames, stream, forks, fanout, fds, sandbox" in done.stderr
