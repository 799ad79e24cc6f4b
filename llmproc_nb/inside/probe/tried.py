"""What is tried and what came of it; what the attempts have in common."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Callable
from typing import Any, NoReturn

Facts = dict[str, Any]
MB = 1024 * 1024
BAIT = re.compile(b"llmproc" + b"-bait-[0-9a-f]{16}")
SEIZE = 0x4206
"""ptrace that does not stop what it traces."""
CALLS = {  # x86_64, aarch64
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "pidfd_getfd": (438, 438), "setns": (308, 268), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "keyctl": (250, 219), "kcmp": (312, 272),
    "init_module": (175, 105), "kexec_load": (246, 104), "open_by_handle_at": (304, 265), "clone3": (435, 435), "capget": (125, 90),
    "memfd_create": (319, 279), "shmget": (29, 194), "open_tree": (428, 428), "fsopen": (430, 430), "move_mount": (429, 429),
    "mount_setattr": (442, 442), "pivot_root": (155, 41), "unshare": (272, 97), "chroot": (161, 51), "mount": (165, 40),
    "umount2": (166, 39), "clone": (56, 220),
}  # fmt: skip
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.ENOENT, errno.EROFS, errno.ENOSPC, errno.EUSERS)


class Tried:
    """What was tried: `held` are attempts that came to nothing, `broken` those that got through."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.broken: list[str] = []

    def holds(self, what: str, kept: object, seen: object = "") -> None:
        (self.held if kept else self.broken).append(f"{what}: {seen}"[:160])

    def refused(self, what: str, attempt: Callable[..., object], *values: object) -> None:
        """The attempt must fail, and at once: what only gets no answer was sent."""
        try:
            got = attempt(*values)
        except TimeoutError:
            self.broken.append(f"{what}: it was sent")
        except (OSError, MemoryError) as error:
            self.held.append(f"{what}: {errno.errorcode.get(getattr(error, 'errno', None) or 0, type(error).__name__)}")
        else:
            self.broken.append(f"{what}: it worked {str(got)[:60]}".strip())

    def refused_in_child(self, what: str, attempt: Callable[..., object], *values: object) -> None:
        """The same in a process of its own, for what could change this one. Only the kernel's own refusals count."""
        status = in_child(attempt, *values)
        self.holds(what, status in REFUSALS, errno.errorcode.get(status, status))


PROBES: dict[str, Callable[[Tried, Facts], None]] = {}


def attempts(function: Callable[[Tried, Facts], None]) -> Callable[[Tried, Facts], None]:
    PROBES[function.__name__] = function
    return function


def probe(name: str, facts: Facts) -> dict[str, list[str]]:
    """Make the attempts of this name: those that came to nothing, and those that got through."""
    tried = Tried()
    PROBES[name](tried, facts)
    return {"held": tried.held, "broken": tried.broken}


def call(name: str, *values: object) -> int:
    """A system call by number; raises OSError as the kernel answers."""
    number = CALLS[name][os.uname().machine == "aarch64"]
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in values]
    got = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *words))
    if got < 0:
        raise OSError(ctypes.get_errno(), name)
    return got


def fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


def in_child(work: Callable[..., object], *values: object) -> int:
    """Do it in a forked process; gives its exit status, 0 where nothing was raised."""
    if (child := os.fork()) == 0:
        try:
            work(*values)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 255)
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(4096)


def read_if(path: str) -> bytes:
    try:
        return read(path)
    except OSError:
        return b""


def names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def make(folder: str) -> str:
    """A new file in a folder, which is removed again."""
    path = os.path.join(folder, f"probe-{os.getpid()}")
    with open(path, "x", encoding="utf-8"):
        os.unlink(path)
    return path


def open_to(path: str, flags: int) -> None:
    """Only open it: nothing is written where that works."""
    os.close(os.open(path, flags))
