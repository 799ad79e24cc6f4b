"""Confinement: how a fresh process becomes the keeper of a family, which is confined as all that is forked from it will be.

Here: the order of the steps, for each tier. Not here: the file system view (view), Landlock's rules (landlock), what each session gives
up besides (settle). Every step that fails is a Refused; nothing is ever left out because it could not be had.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Collection
from typing import NoReturn

from llmproc_nb.inside import area, cgroup, landlock, linux, relay, view
from llmproc_nb.inside.confined import FIRST_UID, NOW, map_ids
from llmproc_nb.inside.rules import TIERS, Rules, environment, proxied
from llmproc_nb.inside.rules import Refused as Refused
from llmproc_nb.inside.settle import part as part
from llmproc_nb.inside.settle import settle as settle
from llmproc_nb.inside.settle import stay as stay

FAMILY = linux.NEWNS | linux.NEWNET | linux.NEWIPC | linux.NEWUTS | linux.NEWCGROUP
BELOW = {"user": 2000, "mnt": 2000, "net": 0, "pid": 0, "ipc": 0, "uts": 0, "cgroup": 0, "time": 0}
"""How many namespaces may be made inside a family: those that forked sessions need, no others."""


def found() -> dict[str, str]:
    """For each tier why it cannot be had here; "" where it can. Each is tried for real, in a process of its own."""
    return {tier: _tried(tier) for tier in TIERS}


def _tried(tier: str) -> str:
    import tempfile  # only a host asks this

    with tempfile.TemporaryDirectory() as folder:
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reading)
            try:
                enter(Rules(tier=tier, folder=folder), _settled_once)
            except Refused as refusal:
                os.write(writing, str(refusal).encode())
            finally:
                os._exit(1)
        os.close(writing)
        with open(reading, encoding="utf-8") as answer:
            why = answer.read()
        _, status = os.waitpid(child, 0)
    return why or ("" if status == 0 else f"a session in it ended with status {status}")


def _settled_once() -> None:
    area = f"{areas()}/try"
    make_area(area)
    rules = Rules(tier=NOW.tier)
    mount = attach(area)
    if (child := os.fork()) == 0:
        try:
            settle(mount, area, rules)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status))


def enter(rules: Rules, main: Callable[[], object], *, forwarded: tuple[int, ...] = ()) -> NoReturn:
    """Confine a fresh, single-threaded process and call `main` in the keeper of a new family.

    The calling process stays outside: it ends with the keeper's status, or when its own parent is gone; it passes `forwarded` signals on
    to the keeper. Raises Refused in it, before `main` is called, where something cannot be had.
    """
    if sys.platform != "linux" and rules.tier != "process":
        raise Refused(f"tier {rules.tier} needs Linux, this is {sys.platform}")
    parent = os.getppid()
    apart, root = rules.tier == "namespaces", os.getuid() == 0
    owner = FIRST_UID + os.getpid() if root and rules.tier != "process" else os.getuid()
    NOW.group = cgroup.make(rules)
    try:
        if apart:
            _leave_pids(root, owner)
        reading, writing = os.pipe()
        keeper = os.fork()
    except OSError as error:
        _remove_group()
        raise Refused(f"no namespaces of its own: {error}") from None
    if keeper == 0:
        os.close(reading)
        _keep(rules, owner, writing, main)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as answer:
        why = answer.read()
    if why:
        os.waitpid(keeper, 0)
        _remove_group()
        raise Refused(why)
    _wait_outside(keeper, parent, forwarded, rules.last)


def _remove_group() -> None:
    if NOW.group is not None:
        NOW.group.remove()


def _leave_pids(root: bool, owner: int) -> None:
    """What the next child starts in: a pid namespace of its own; for an ordinary user a user namespace comes first."""
    if root:
        return linux.unshare(linux.NEWPID)
    group = os.getgid()
    linux.unshare(linux.NEWUSER | linux.NEWPID)
    return map_ids(owner, group)


def _keep(rules: Rules, owner: int, writing: int, main: Callable[[], object]) -> NoReturn:
    """The keeper: confine, say so by closing the pipe, do its work."""
    status = 1
    try:
        try:
            _become_keeper(rules, owner)
        except (Refused, OSError) as error:
            os.write(writing, f"tier {rules.tier}: {error}".encode())
            os._exit(1)
        os.close(writing)
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        if (fault := sys.exc_info()[1]) is not None and not isinstance(fault, SystemExit):
            sys.excepthook(type(fault), fault, fault.__traceback__)
        os._exit(status & 0xFF)


def _become_keeper(rules: Rules, owner: int) -> None:
    os.setsid()
    os.umask(0o077)
    if rules.tier == "namespaces":
        _into_namespaces(rules, owner)
        NOW.areas = view.AREAS
    else:
        NOW.areas = os.path.join(rules.folder, "areas")
        _own_folder(rules, owner)
    NOW.tier = rules.tier
    if sys.platform == "linux":
        linux.prctl(linux.DUMPABLE, 1)  # else its own files in /proc are not its own
        linux.prctl(linux.PDEATHSIG, signal.SIGKILL)  # a change of ids clears it, so it comes after
        _first_to_go()
        linux.prctl(linux.NO_NEW_PRIVS, 1)
        linux.prctl(linux.DUMPABLE, 0)  # nobody of the same uid may look into it
    _new_environment(rules)
    if rules.tier == "landlock":
        landlock.confine(rules, rules.folder, keeper=True)
    if rules.relay:
        NOW.relay = relay.start(view.RELAY)
    if NOW.group is not None and not NOW.group.can_be_entered():
        NOW.group.forget()
        NOW.group = None


def _into_namespaces(rules: Rules, owner: int) -> None:
    os.umask(0o022)
    linux.unshare(FAMILY)
    if owner >= FIRST_UID:
        give(owner, *_given(rules))
    view.build(rules, owner if owner >= FIRST_UID else None)
    os.umask(0o077)
    socket.sethostname("sandbox")
    _raise_loopback()
    if owner >= FIRST_UID:
        _drop_root(owner)
        linux.unshare(linux.NEWUSER | linux.NEWNS)
        map_ids(owner, owner)
    for kind, count in BELOW.items():
        if os.path.exists(path := f"/proc/sys/user/max_{kind}_namespaces"):
            with open(path, "w", encoding="utf-8") as file:
                file.write(str(count))
    view.guard_proc()


def _drop_root(owner: int) -> None:
    os.setgroups([])
    os.setresgid(owner, owner, owner)
    os.setresuid(owner, owner, owner)
    linux.prctl(linux.DUMPABLE, 1)  # else its own /proc files are root's


def _own_folder(rules: Rules, owner: int) -> None:
    """Tiers without a file system of their own: the areas are a folder of the host."""
    if rules.relay:
        raise Refused("hosts can only be allowed in the tier namespaces: without a network of its own nothing keeps to a list of names")
    os.mkdir(NOW.areas, 0o700)
    if rules.tier == "landlock" and os.getuid() == 0:
        give(owner, rules.folder, *_given(rules))
        landlock.drop_root(owner, rules)


def _given(rules: Rules) -> list[str]:
    return [*rules.writable, *([rules.sockets] if rules.sockets else [])]


def give(owner: int, *paths: str) -> None:
    """Make paths, and what is in them, a family's own. No link is followed."""
    for path in paths:
        os.chown(path, owner, owner)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(os.path.join(folder, name), owner, owner, follow_symlinks=False)


def _raise_loopback() -> None:
    """Bring up lo in the empty network, so that a family's own servers work. Nothing else is reached by it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))


def _first_to_go() -> None:
    """Where the machine runs out of memory, the kernel takes a sandbox first."""
    with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
        file.write("1000")


def _new_environment(rules: Rules) -> None:
    """Only what is allowed stays; what the kernel laid into this process's memory when it was started goes as well."""
    new = environment(os.environ, rules.env) | proxied(rules)
    os.environ.clear()
    os.environ.update(new)
    if sys.platform == "linux":
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        start, end = int(fields[47]), int(fields[48])
        linux.scrub(start, end - start)


def _wait_outside(keeper: int, parent: int, forwarded: tuple[int, ...], last: str) -> NoReturn:
    """The thin parent: holds nothing open, ends with the keeper, ends it when its own parent is gone, and then removes what that left."""
    for number in forwarded:
        signal.signal(number, lambda number, _: os.kill(keeper, number))
    watched, gone = os.pidfd_open(keeper), -1
    try:
        gone = os.pidfd_open(parent)
    except OSError:  # already gone, or of another pid namespace
        gone = -1
    kept = {watched, gone} - {-1}
    close_others(kept)
    poll = select.poll()
    for fd in kept:
        poll.register(fd, select.POLLIN)
    if gone == -1 or os.getppid() != parent or watched not in {fd for fd, _ in poll.poll()}:
        os.kill(keeper, signal.SIGKILL)
    _, status = os.waitpid(keeper, 0)
    _remove_group()
    if last and os.getppid() != parent:
        area.remove(last)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def close_others(kept: Collection[int], *, low: int = 0) -> None:
    """Close all descriptors from `low` on that are not kept."""
    for fd in (*sorted(fd for fd in kept if fd >= low), 1 << 20):
        os.closerange(low, fd)
        low = fd + 1


def areas() -> str:
    """In the keeper: the folder that holds the areas."""
    return NOW.areas


def proc() -> str:
    """In the keeper: a /proc that shows every process of the family; the one at /proc hides sessions from each other."""
    return view.PROC if NOW.tier == "namespaces" else "/proc"


def own() -> set[int]:
    """In the keeper: the pids of trusted processes beside it, which are no session's."""
    return {NOW.relay} - {0}


def make_area(area: str) -> None:
    """An empty area: where a session works, its home, its temporary files."""
    for name in ("", "work", "home", "tmp"):
        os.mkdir(os.path.join(area, name), 0o700)


def attach(area: str) -> int | None:
    """In the keeper: a detached mount of an area; None in tiers where an area is used by its path."""
    return linux.detached(area) if NOW.tier == "namespaces" else None
