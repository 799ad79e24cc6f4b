"""`uv run python tests/bench/run.py [--quick] [NAMES…]` measures what things cost and prints ratios beside the marks they are held to.

The exit code is 0 whatever the numbers say; a bench that crashes makes it 1. `--quick` shows in seconds that all of them work; its
numbers mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

BENCHES = {
    "turns": "turns",
    "tools": "tools",
    "import": "imports",
    "log": "logs",
    "frames": "framing",
    "stream": "streaming",
    "forks": "forks",
    "fanout": "fanout",
    "fds": "fds",
    "sandbox": "sandbox",
}
"""Name to module."""


def main() -> int:
    parser = argparse.ArgumentParser(description="What things cost, as ratios measured in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works: the numbers mean nothing")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in BENCHES]:
        parser.error(f"there is no bench {unknown[0]!r}; there are {', '.join(BENCHES)}")
    os.environ["LLMPROC_NB_LOG"] = "0"
    if given.quick:
        print("quick: small sizes, the numbers mean nothing\n")
    crashed = []
    for name in given.names or BENCHES:
        try:
            print(importlib.import_module(BENCHES[name]).bench(quick=given.quick).text(judged=not given.quick), flush=True)
        except Exception:  # the others are still worth their while
            traceback.print_exc()
            crashed.append(name)
        print(flush=True)
    if crashed:
        print(f"crashed: {', '.join(crashed)}")
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main())
