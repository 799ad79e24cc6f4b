"""System calls that Python does not offer, by ctypes. Each gives its result or raises OSError with its own name in it."""

from __future__ import annotations

import ctypes
import os

NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DETACH = 2
HERE = -100
EMPTY_PATH, RECURSIVE = 0x1000, 0x8000
CLONE_TREE, CLOEXEC_TREE = 1, os.O_CLOEXEC
FROM_EMPTY = 4
PDEATHSIG, DUMPABLE, CAPBSET_DROP, NO_NEW_PRIVS, AMBIENT, AMBIENT_CLEAR = 1, 4, 24, 38, 47, 4
CAP_LAST = 63

MACHINE = os.uname().machine if hasattr(os, "uname") else ""
NUMBERS: dict[str, dict[str, int]] = {
    "pivot_root": {"x86_64": 155, "aarch64": 41},
    "capset": {"x86_64": 126, "aarch64": 91},
    "seccomp": {"x86_64": 317, "aarch64": 277},
    "open_tree": {"x86_64": 428, "aarch64": 428},
    "move_mount": {"x86_64": 429, "aarch64": 429},
    "mount_setattr": {"x86_64": 442, "aarch64": 442},
    "landlock_create_ruleset": {"x86_64": 444, "aarch64": 444},
    "landlock_add_rule": {"x86_64": 445, "aarch64": 445},
    "landlock_restrict_self": {"x86_64": 446, "aarch64": 446},
}

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(done: int, what: str) -> int:
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return done


def syscall(name: str, *arguments: object) -> int:
    """Call the kernel by number: ints and ctypes values as they are, text as bytes."""
    number = NUMBERS[name].get(MACHINE)
    if number is None:
        raise OSError(38, f"{name}: not known for {MACHINE} processors")
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *words), name)


def unshare(flags: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def prctl(option: int, *values: int) -> int:
    words = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    return _checked(_libc.prctl(ctypes.c_int(option), *words), "prctl")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    done = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode() or None)
    _checked(done, f"mount {kind or source} on {target}")


def umount(target: str, flags: int = DETACH) -> None:
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    syscall("pivot_root", os.fsencode(new), os.fsencode(old))


def detached(path: str, *, recursive: bool = False) -> int:
    """A mount of what is at a path, attached nowhere yet, as an fd."""
    flags = CLONE_TREE | CLOEXEC_TREE | (RECURSIVE if recursive else 0)
    return syscall("open_tree", HERE, os.fsencode(path), flags)


def attach(tree: int, target: str) -> None:
    """Put a detached mount at a path."""
    syscall("move_mount", tree, b"", HERE, os.fsencode(target), FROM_EMPTY)


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def restrict(tree: int, flags: int) -> None:
    """Set flags (RDONLY, NOSUID, NODEV) on a detached mount and everything mounted below it."""
    attributes = _MountAttr(flags, 0, 0, 0)
    syscall("mount_setattr", tree, b"", EMPTY_PATH | RECURSIVE, ctypes.byref(attributes), ctypes.sizeof(attributes))


def drop_capabilities() -> None:
    """Give up every capability, and what could bring one back."""
    for capability in range(CAP_LAST + 1):
        try:
            prctl(CAPBSET_DROP, capability)
        except OSError:  # past the last one of this kernel, or none is left to drop
            break
    prctl(AMBIENT, AMBIENT_CLEAR)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    syscall("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def keep_only(capability: int) -> None:
    """Give up every capability but one, which programs that are started keep as well."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    low = 1 << capability
    syscall("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)(low, low, low, 0, 0, 0)))


def scrub(address: int, length: int) -> None:
    """Overwrite memory of this process with zeros."""
    ctypes.memset(address, 0, length)
