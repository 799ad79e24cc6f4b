"""Attempts on the kernel: namespaces, mounts, /proc, system calls that no code of a model needs."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

from llmproc_nb.inside.probe.tried import BAIT, Facts, Tried, attempts, call, in_child, open_to, read_if

MOUNT_AND_USER = 0x10000000 | 0x20000
OTHERS = {"time": 0x80, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "pid": 0x20000000, "net": 0x40000000}
NO_SUCH = b"no-such-file-system"
"""Who may mount is told that it does not exist; who may not is told so before."""


@attempts
def nested(tried: Tried, facts: Facts) -> None:
    for name, flag in OTHERS.items():
        tried.refused_in_child(f"a new {name} namespace", call, "unshare", flag | 0x10000000)
        tried.refused_in_child(f"a new {name} namespace in a new mount namespace", _call_after, _unshare, "unshare", flag)
    tried.holds("a new user namespace by clone", in_child(_clone), "refused")
    if facts["tier"] != "namespaces":
        tried.refused_in_child("a new mount namespace", call, "unshare", MOUNT_AND_USER)


def _clone() -> None:
    if call("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)


def _call_after(first: Callable[[], None], name: str, *values: object) -> None:
    first()
    call(name, *values)


def _unshare() -> None:
    try:
        call("unshare", MOUNT_AND_USER)
    except OSError:  # refused altogether in some tiers
        return


@attempts
def mounts(tried: Tried, facts: Facts) -> None:
    """As it is, and with all capabilities in a mount namespace of its own, which a session may take."""
    below = os.environ["TMPDIR"].encode()
    for before, first in (("", lambda: None), ("after unshare: ", _unshare)):
        for name, *values in (
            ("mount", b"none", below, NO_SUCH, 0, None),
            ("mount", b"/", below, None, 4096, None),
            ("mount", b"none", b"/", None, 32 | 4096, None),
            ("umount2", b"/agent", 2),
            ("umount2", b"/proc/sys", 2),
            ("open_tree", -100, b"/", 1),
            ("fsopen", b"tmpfs", 0),
            ("mount_setattr", -100, b"/", 0, (ctypes.c_uint64 * 4)(0, 1, 0, 0), 32),
            ("move_mount", -100, b"/agent", -100, below, 0),
            ("move_mount", -100, b"/proc/sys", -100, below, 0),
            ("pivot_root", b".", b"."),
            ("chroot", b"."),
            ("setns", 0, 0),
        ):
            tried.refused_in_child(f"{before}{name} {values[0]!r}", _call_after, first, name, *values)


@attempts
def proc(tried: Tried, facts: Facts) -> None:
    tried.holds("the bait by /proc/1/root", not BAIT.search(read_if(f"/proc/1/root{facts['bait_file']}")), "none")
    for pid in ("1", str(os.getppid())):
        tried.refused(f"read /proc/{pid}/environ", open_to, f"/proc/{pid}/environ", os.O_RDONLY)
        tried.refused(f"list /proc/{pid}/root", os.listdir, os.path.join(f"/proc/{pid}/root", ""))
        tried.refused(f"open /proc/{pid}/mem", open_to, f"/proc/{pid}/mem", os.O_RDWR)
    for name in (
        "kernel/core_pattern",
        "kernel/hostname",
        "kernel/modprobe",
        "vm/overcommit_memory",
        "user/max_user_namespaces",
        "fs/file-max",
    ):
        tried.refused(f"write /proc/sys/{name}", open_to, f"/proc/sys/{name}", os.O_WRONLY)
    for path in ("/proc/sysrq-trigger", "/proc/kcore", "/proc/kmsg", "/dev/kmsg", "/dev/mem", "/dev/sda", "/dev/vda", "/dev/fuse",
                 "/dev/net/tun", "/sys/power/state", "/sys/fs/cgroup/cgroup.procs"):  # fmt: skip
        tried.refused(f"open {path}", open_to, path, os.O_RDWR)
    tried.refused("be spared when memory runs out", _spared)


def _spared() -> None:
    with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
        file.write("-900")


@attempts
def calls(tried: Tried, facts: Facts) -> None:
    for name in ("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "keyctl", "init_module", "kexec_load", "open_by_handle_at",
                 "clone3", "kcmp", "process_vm_readv", "pidfd_getfd", "ptrace"):  # fmt: skip
        tried.refused_in_child(name, call, name, 0, 0, 0, 0, 0)
    if os.uname().machine == "x86_64":
        tried.holds("a call of the x32 kind", ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 | 39)) == -1, "refused")
