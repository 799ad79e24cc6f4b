"""Attempts on other processes, and on what makes a process more than it is."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import subprocess

from llmproc_nb.inside.probe.tried import BAIT, SEIZE, Facts, Tried, attempts, call, fail, names, open_to, read_if

DAC_READ_SEARCH = 1 << 2


@attempts
def group(tried: Tried, facts: Facts) -> None:
    tried.holds("session", os.getsid(0) not in (0, facts["session"]), os.getsid(0))
    tried.holds("process group", os.getpgrp() not in (0, facts["group"]), os.getpgrp())


@attempts
def namespaces(tried: Tried, facts: Facts) -> None:
    for kind, host in facts["namespaces"].items():
        own = os.readlink(f"/proc/self/ns/{kind}")
        tried.holds(f"{kind} namespace", own != host, own)


@attempts
def processes(tried: Tried, facts: Facts) -> None:
    bait = facts["bait_pid"]
    tried.refused("signal the host's process", os.kill, facts["pid"], 0)
    tried.refused("signal the host's process group", os.killpg, facts["group"], 0)
    tried.refused("end a process of the host", os.kill, bait, signal.SIGTERM)
    tried.refused("end it by a pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open(bait), signal.SIGTERM))
    tried.refused("ptrace it", call, "ptrace", SEIZE, bait, 0, 0)
    tried.refused("open its memory", open_to, f"/proc/{bait}/mem", os.O_RDONLY)
    tried.refused("read its environment", open_to, f"/proc/{bait}/environ", os.O_RDONLY)
    tried.refused("list its root", os.listdir, f"/proc/{bait}/root/")
    tried.refused("list its open files", os.listdir, f"/proc/{bait}/fd")
    _squeeze(tried, bait)


def _squeeze(tried: Tried, pid: int) -> None:
    """Slow another process down, or let its limits end it."""
    tried.refused("change its priority", os.setpriority, os.PRIO_PROCESS, pid, 19)
    tried.refused("change its limits", resource.prlimit, pid, resource.RLIMIT_CORE, (0, 0))
    tried.refused("change how it is scheduled", _slow_down, pid)


def _slow_down(pid: int) -> None:
    """It may be said to be done without being done."""
    os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    if os.sched_getscheduler(pid) != os.SCHED_BATCH:
        fail(errno.EPERM)


@attempts
def hidden(tried: Tried, facts: Facts) -> None:
    seen = [pid for pid in names("/proc") if pid.isdigit() and BAIT.search(read_if(f"/proc/{pid}/cmdline"))]
    tried.holds("find the bait among the processes", not seen, f"{len(seen)} found")


@attempts
def privileges(tried: Tried, facts: Facts) -> None:
    sets = (ctypes.c_uint32 * 6)()
    call("capget", ctypes.byref((ctypes.c_uint32 * 2)(0x20080522, 0)), ctypes.byref(sets))
    allowed = 0 if facts["tier"] == "namespaces" else DAC_READ_SEARCH  # see inside/landlock
    tried.holds("capabilities", not any(one & ~allowed for one in sets), f"{sets[0]:x}")
    tried.holds("no new privileges", ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) == 1, "set")
    tried.refused("setuid", os.setuid, 0)
    tried.refused("setgid", os.setgid, 0)
    tried.refused("setgroups", os.setgroups, [0])
    for path in ("/usr/bin/su", "/usr/bin/passwd", "/usr/bin/mount", "/usr/bin/newgrp"):
        if os.path.exists(path):
            tried.holds(f"be root by {path}", _same_user(path), "the same user")


def _same_user(path: str) -> bool:
    """Whether a setuid program starts as who called it. The loader tells it only where it does."""
    done = subprocess.run(
        [path, "--version"], env={"LD_SHOW_AUXV": "1"}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
    )
    lines = [line.split(":") for line in done.stdout.splitlines() if line.startswith("AT_EUID")]
    return [int(value) for _, value in lines] == [os.getuid()]
