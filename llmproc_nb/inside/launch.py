"""`python -m llmproc_nb.inside.launch RULES [--tell FD] -- command…`: a program in a sandbox of its own, for kernels that are commands.

RULES is the JSON of `Rules.dump`. It ends as the program ends; SIGINT and SIGTERM reach the program and what it started. FD is a pipe on
which whoever starts it hears why it was refused, or its end when the program runs. With `--found` alone it says as JSON which tiers can be
had here: for each why not, or nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from llmproc_nb.inside import confine, linux
from llmproc_nb.inside.rules import Refused, Rules, load

REFUSED = 125
"""The exit status where the confinement cannot be had; the reason is on stderr."""


FORWARDED = (signal.SIGINT, signal.SIGTERM)


def main(arguments: list[str]) -> int:
    if arguments == ["--found"]:
        print(json.dumps(confine.found()))
        return 0
    try:
        place = arguments.index("--")
        rules, command = load(arguments[0]), arguments[place + 1 :]
        tell = int(arguments[2]) if arguments[1:place] else 2
    except (IndexError, ValueError, TypeError) as error:
        print(f"launch: {error}; it is called as: launch RULES [--tell FD] -- command…", file=sys.stderr)
        return 2
    os.set_inheritable(tell, tell == 2)
    try:
        confine.enter(rules, lambda: _run(rules, command, tell), forwarded=FORWARDED)
    except Refused as refusal:
        os.write(tell, str(refusal).encode())
    return REFUSED


def _run(rules: Rules, command: list[str], tell: int) -> None:
    """In the keeper: run the command in one area, reap what it leaves, end as it ends."""
    area = os.path.join(confine.areas(), "one")
    confine.make_area(area)
    mount = confine.attach(area)
    keeper = os.getpid()
    if (child := os.fork()) == 0:
        _become(mount, area, rules, command, tell, keeper)
    os.closerange(2 if tell == 2 else tell, 1024)
    for number in FORWARDED:
        signal.signal(number, lambda number, _: os.killpg(child, number))
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            raise SystemExit(code if code >= 0 else 128 - code)


def _become(mount: int | None, area: str, rules: Rules, command: list[str], tell: int, keeper: int) -> None:
    try:
        os.setsid()
        for number in (*FORWARDED, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        confine.settle(mount, area, rules, forks=False)
        linux.prctl(linux.PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper and rules.tier != "namespaces":
            os._exit(REFUSED)
        os.execvp(command[0], command)
    except (Refused, OSError) as error:
        os.write(tell, f"{command[0]}: {error}".encode())
    finally:
        os._exit(REFUSED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
