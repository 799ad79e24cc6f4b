"""Landlock: what a process without namespaces of its own may open, and whom any session may signal. System calls by number.

A layer can only narrow what is there, and what is forked keeps all layers: sessions that were forked from one another can open what the
first of them can, all areas of the family; only signals and abstract sockets are kept apart between them.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable

from llmproc_nb.inside import linux, view
from llmproc_nb.inside.rules import Refused, Rules

NEEDED = 6
"""The version that keeps signals and abstract sockets inside (Linux 6.12)."""
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
MAKE_DEVICES = 1 << 6 | 1 << 11
REMOVE_FILE, MAKE_SOCK, REFER = 1 << 5, 1 << 9, 1 << 13
MAKE_OTHERS = 1 << 7 | 1 << 8 | 1 << 10 | 1 << 12
ALL = (1 << 16) - 1
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = ALL & ~MAKE_DEVICES & ~IOCTL
TCP, TCP_BIND = 3, 1
APART = 3  # abstract sockets and signals
ETC = ("passwd", "group", "nsswitch.conf", "hosts")
FACTS = [
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
]
KEEPCAPS, DAC_READ_SEARCH, AMBIENT_RAISE = 8, 2, 2


class _Ruleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "net", "scoped")]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


class _Port(ctypes.Structure):
    _fields_ = [("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def version() -> int:
    """The version of Landlock of this kernel; 0 where there is none."""
    try:
        return linux.syscall("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def lacking() -> str:
    """Why sessions of a family cannot be kept from signals of each other on this kernel; "" where they can."""
    found = version()
    return "" if found >= NEEDED else f"only Landlock {NEEDED} (Linux 6.12) could keep it, this kernel has {found or 'none'}"


def confine(rules: Rules, folder: str, *, keeper: bool = False) -> None:
    """Open nothing from here on but the system to read and the folder to write; no TCP connections; signals only among its own.

    A keeper also reads /proc. It handles files that sessions make, so it must not be led to others by them.
    """
    if version() < NEEDED:
        raise Refused(f"Landlock {NEEDED} (Linux 6.12) is needed to keep files and signals apart, this kernel has {version() or 'none'}")
    ruleset = _made(_Ruleset(ALL, TCP, APART))
    facts = ["/proc", *FACTS] if keeper else FACTS
    for path in (*view.shown(rules), *view.links(), *facts, *(f"/etc/{name}" for name in (*view.ETC, *ETC))):
        _allow(ruleset, path, READ)
    for name in view.DEVICES:
        _allow(ruleset, f"/dev/{name}", READ_FILE | WRITE_FILE)
    for path in (folder, *rules.writable):
        _allow(ruleset, path, WRITE)
    if rules.sockets:
        _allow(ruleset, rules.sockets, WRITE if keeper else READ | MAKE_SOCK | REMOVE_FILE)
    port = _Port(TCP_BIND, 0)  # a port the kernel chooses
    linux.syscall("landlock_add_rule", ruleset, 2, ctypes.byref(port), 0)
    _restrict(ruleset)


def only_sockets(elsewhere: Iterable[str]) -> None:
    """Make and write nothing but in these places; sockets can be made, and files removed, wherever else that is possible. And `part`.

    Where client and kernel meet is a folder of the host's disk, which nothing limits.
    """
    if version() >= 3:
        kinds = WRITE_FILE | TRUNCATE | REFER | MAKE_OTHERS
        ruleset = _made(_Ruleset(kinds, 0, APART if version() >= NEEDED else 0))
        for path in elsewhere:
            _allow(ruleset, path, kinds)
        _restrict(ruleset)


def part(*, files: bool) -> bool:
    """A layer of its own: from here on this process can signal nobody who is there already and not below it, nor look into them.

    False where this kernel has no Landlock that could do it: nothing keeps sessions of a family from signals of each other then. `files`:
    there is a layer with rules for files. Then one that does not speak of it forbids to move files between folders; but where there is
    none, one that does forbids to take a mount.
    """
    if version() < NEEDED and not files:
        return False
    try:
        ruleset = _made(_Ruleset(REFER if files else 0, 0, APART))
        if files:
            _allow(ruleset, "/", REFER)
        _restrict(ruleset)
        return True
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        raise Refused("this session was forked too often from forks; the kernel keeps no more than 16 apart") from None


def _made(rules: _Ruleset) -> int:
    return linux.syscall("landlock_create_ruleset", ctypes.byref(rules), ctypes.sizeof(rules), 0)


def _allow(ruleset: int, path: str, allowed: int) -> None:
    """Allow this below a path; one that is not there needs no permission."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    beneath = _Beneath(allowed if os.path.isdir(path) else allowed & ON_FILES, fd)
    linux.syscall("landlock_add_rule", ruleset, 1, ctypes.byref(beneath), 0)
    os.close(fd)


def _restrict(ruleset: int) -> None:
    linux.prctl(linux.NO_NEW_PRIVS, 1)
    try:
        linux.syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def drop_root(owner: int, rules: Rules) -> None:
    """Be an ordinary user of one's own. Where Python lies in a folder that only root may enter, one capability stays: to read there.

    It opens nothing that Landlock's rules do not allow as well.
    """
    wanted = [*view.shown(rules), rules.folder]
    linux.prctl(KEEPCAPS, 1)
    for capability in range(linux.CAP_LAST + 1):
        if capability != DAC_READ_SEARCH:
            try:
                linux.prctl(linux.CAPBSET_DROP, capability)
            except OSError:  # past the last one of this kernel
                break
    os.setgroups([])
    os.setresgid(owner, owner, owner)
    os.setresuid(owner, owner, owner)
    linux.prctl(linux.DUMPABLE, 1)
    if all(os.access(path, os.R_OK | os.X_OK) for path in wanted):
        return linux.drop_capabilities()
    linux.keep_only(DAC_READ_SEARCH)
    linux.prctl(linux.AMBIENT, AMBIENT_RAISE, DAC_READ_SEARCH)
    return None
