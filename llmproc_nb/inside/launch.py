"""`python -m llmproc_nb.inside.launch RULES [--tell FD] -- command…`: a program in a sandbox of its own, for kernels that are commands.

RULES is the JSON of `Rules.dump`. It ends as the program ends; SIGINT and SIGTERM reach the program and what it started. FD is a pipe on
which whoever starts it hears why it was refused, or its end when the program runs. With `--found` alone it says as JSON which tiers can be
had here: for each why not, or nothing; with `--lacking` why what some promises need cannot be had (see landlock, cgroup).
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time

from llmproc_nb.inside import cgroup, confine, kin, landlock, linux
from llmproc_nb.inside.confined import NOW
from llmproc_nb.inside.rules import Refused, Rules, load
from llmproc_nb.inside.watch import Greedy, Watch

REFUSED = 125
"""The exit status where the confinement cannot be had; the reason is on stderr."""


WATCH_S = 0.2
MOST_SOCKETS = 100
LAID, LAID_BYTES = 4, 1 << 20
FORWARDED = (signal.SIGINT, signal.SIGTERM)


def main(arguments: list[str]) -> int:
    if arguments == ["--found"]:
        print(json.dumps(confine.found()))
        return 0
    if arguments == ["--lacking"]:
        print(json.dumps({"landlock": landlock.lacking(), "cgroup": cgroup.lacking()}))
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
    kin.take_orphans()
    area = os.path.join(confine.areas(), "one")
    confine.make_area(area)
    mount = confine.attach(area)
    keeper = os.getpid()
    if (child := os.fork()) == 0:
        _become(mount, area, rules, command, tell, keeper)
    confine.close_others(NOW.group.fds if NOW.group is not None else (), low=tell)
    for number in FORWARDED:
        signal.signal(number, lambda number, _: os.killpg(child, number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    watch, looked = Watch(rules), time.monotonic()
    watch.sessions = watch.running = [child]
    while True:
        signal.sigtimedwait([signal.SIGCHLD], WATCH_S)
        if time.monotonic() - looked > WATCH_S / 2:
            watch.hold(_say)
            looked = time.monotonic()
        if rules.sockets and _misused(rules.sockets_inside):
            print(f"the kernel made files, or more than {MOST_SOCKETS} sockets, where its clients meet it; it was ended", file=sys.stderr)
            os.kill(child, signal.SIGKILL)
        while (reaped := _reaped()) is not None:
            ended, status = reaped
            if ended != child:
                continue
            code = os.waitstatus_to_exitcode(status)
            raise SystemExit(code if code >= 0 else 128 - code)


def _say(found: Greedy) -> None:
    """To whoever reads what the program says besides its messages."""
    print(f"{'the kernel' if found.itself else 'what the kernel had started'} was ended: {found.why}", file=sys.stderr, flush=True)


def _misused(folder: str) -> bool:
    """Whether there is more than sockets and what the host laid there, where nothing limits the disk."""
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.lstat(os.path.join(folder, name)))
        except FileNotFoundError:
            continue
    others = [kind.st_size for kind in found if not stat.S_ISSOCK(kind.st_mode)]
    return len(found) > MOST_SOCKETS or len(others) > LAID or sum(others) > LAID_BYTES


def _reaped() -> tuple[int, int] | None:
    """A process that has ended and its status, if there is one."""
    ended, status = os.waitpid(-1, os.WNOHANG)
    return (ended, status) if ended else None


def _become(mount: int | None, area: str, rules: Rules, command: list[str], tell: int, keeper: int) -> None:
    try:
        os.setsid()
        for number in (*FORWARDED, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
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
