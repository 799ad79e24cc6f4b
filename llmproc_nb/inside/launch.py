"""`python -m llmproc_nb.inside.launch RULES -- command…`: a program in a sandbox of its own, for kernels that are started by a command.

The rules are the JSON of `Rules.dump`, or `@` and the path of a file that holds it. It ends as the program ends.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from llmproc_nb.inside import confine
from llmproc_nb.inside.rules import Refused, Rules, load

REFUSED = 125
"""The exit status where the confinement cannot be had; the reason is on stderr."""


def main(arguments: list[str]) -> int:
    try:
        rules = load(Path(arguments[0][1:]).read_text(encoding="utf-8") if arguments[0].startswith("@") else arguments[0])
        command = arguments[arguments.index("--") + 1 :]
    except (IndexError, ValueError, TypeError, OSError) as error:
        print(f"launch: {error}; it is called as: launch RULES -- command…", file=sys.stderr)
        return 2
    try:
        confine.enter(rules, lambda: _run(rules, command))
    except Refused as refusal:
        print(f"sandbox refused: {refusal}", file=sys.stderr)
    return REFUSED


def _run(rules: Rules, command: list[str]) -> None:
    """In the keeper: run the command in one area, reap what it leaves, end as it ends."""
    area = os.path.join(confine.areas(), "one")
    confine.make_area(area)
    mount = confine.attach(area)
    if (child := os.fork()) == 0:
        _become(mount, area, rules, command)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            raise SystemExit(code if code >= 0 else 128 - code)


def _become(mount: int | None, area: str, rules: Rules, command: list[str]) -> None:
    try:
        os.setsid()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        confine.settle(mount, area, rules, forks=False)
        os.execvp(command[0], command)
    except (Refused, OSError) as error:
        print(f"sandbox refused: {error}", file=sys.stderr)
        sys.stderr.flush()
    finally:
        os._exit(REFUSED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
