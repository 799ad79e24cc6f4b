"""Attempts on files: the system, the home of the host's user, its environment, everything outside of the working folder."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
import tempfile
from collections.abc import Callable

from llmproc_nb.inside.probe.tried import BAIT, MB, Facts, Tried, attempts, fail, make, names, open_to, read


@attempts
def system(tried: Tried, facts: Facts) -> None:
    for folder in ("/", "/usr", "/usr/bin", "/etc", "/dev", "/var", "/home", "/opt", "/proc", sys.prefix, sys.base_prefix, *facts["shown"]):
        tried.refused(f"make a file in {folder}", make, folder)
    for path in ("/etc/passwd", "/etc/ld.so.cache", os.path.realpath(sys.executable), os.__file__):
        tried.refused(f"open {path} to write", open_to, path, os.O_WRONLY)
        tried.refused(f"change {path}", _changed, os.chmod, path, stat.S_IMODE(os.stat(path).st_mode))


@attempts
def home(tried: Tried, facts: Facts) -> None:
    tried.refused("read the bait in the host's home", read, facts["bait_file"])
    tried.refused("see the bait in the host's home", lambda: os.path.basename(facts["bait_file"]) in os.listdir(facts["home"]) or fail(2))
    for path in ("/etc/shadow", os.path.expanduser("~root/.ssh/authorized_keys"), "/var/log/syslog"):
        tried.refused(f"read {path}", read, path)
    tried.holds("a home of its own", os.environ["HOME"] != facts["home"], os.environ["HOME"])


@attempts
def own_environment(tried: Tried, facts: Facts) -> None:
    tried.holds(
        "bait in the environment", not any(BAIT.search(value.encode()) for value in os.environ.values()), f"{len(os.environ)} variables"
    )
    tried.holds("bait in /proc/self/environ", not BAIT.search(_environment("self")), "none")
    found = _baits_in_memory()
    tried.holds("bait in the memory", not found, "could not be looked through" if found is None else f"{found} found")


@attempts
def environment(tried: Tried, facts: Facts) -> None:
    """Of every process that can be seen, and of those that are there, seen or not."""
    pids = {str(facts["bait_pid"]), str(facts["pid"]), str(os.getppid()), "1", *(name for name in names("/proc") if name.isdigit())}
    found = [pid for pid in sorted(pids) if BAIT.search(_environment(pid))]
    tried.holds(f"bait in /proc/*/environ of {len(pids)} processes", not found, ", ".join(found) or "none")


def _environment(pid: str) -> bytes:
    """All of it: a bait may be far from its beginning."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _baits_in_memory() -> int | None:
    """How many baits are anywhere in the memory of this process; None where nobody tells what it has."""
    found = 0
    try:
        with open("/proc/self/maps", encoding="utf-8") as file:
            lines = file.readlines()
    except OSError:
        return None
    for line in lines:
        place, rights, *rest = line.split()
        start, end = (int(part, 16) for part in place.split("-"))
        if rights.startswith("rw") and end - start < 256 * MB and (len(rest) < 4 or not rest[3].startswith("/dev")):
            found += len(BAIT.findall(ctypes.string_at(start, end - start)))
    return found


@attempts
def folders(tried: Tried, facts: Facts) -> None:
    area = os.path.dirname(os.path.realpath(os.environ["HOME"]))
    for folder in (os.getcwd(), os.environ["HOME"], tempfile.gettempdir()):
        _make_and_move(folder)
        tried.holds("its own folder can be written", os.path.realpath(folder).startswith(area), folder)
    for folder in sorted(
        {"/", *(f"/{name}" for name in names("/")), "/var/lib", "/run/lock", "/dev/mqueue", facts["home"], facts["folder"]}
    ):
        if not os.path.realpath(folder).startswith(area):
            tried.refused(f"write in {folder}", make, folder)
    bait = facts["bait_file"]
    tried.refused("change the mode of a file of the host", _changed, os.chmod, bait, 0o640)
    tried.refused("change the times of a file of the host", _changed, os.utime, bait)
    tried.refused("give a file of the host an attribute", os.setxattr, bait, "user.probe", b"x")


def _changed(change: Callable[..., None], path: str, *values: int) -> None:
    """It may be said to be done without being done."""
    before = os.stat(path)
    change(path, *values)
    after = os.stat(path)
    if (after.st_mode, after.st_mtime_ns, after.st_ctime_ns) == (before.st_mode, before.st_mtime_ns, before.st_ctime_ns):
        fail(errno.EPERM)


def _make_and_move(folder: str) -> None:
    """What must work in one's own folder."""
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        for name in ("one", "two"):
            os.mkdir(os.path.join(inner, name))
        with open(os.path.join(inner, "one", "file"), "w", encoding="utf-8") as file:
            file.write("x")
        os.rename(os.path.join(inner, "one", "file"), os.path.join(inner, "two", "file"))
        os.link(os.path.join(inner, "two", "file"), os.path.join(inner, "one", "again"))


@attempts
def links(tried: Tried, facts: Facts) -> None:
    bait = facts["bait_file"]
    up = "../" * 40 + bait.lstrip("/")
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as folder:
        link = os.path.join(folder, "link")
        os.symlink(bait, link)
        tried.refused("read by a link to the host", read, link)
        tried.refused("write by a link to the host", open_to, link, os.O_WRONLY)
        tried.refused("make a hard link to the host", os.link, bait, os.path.join(folder, "hard"))
        tried.refused("rename into the host", os.rename, link, os.path.join(facts["home"], f".renamed-{os.getpid()}"))
        for path in (
            f"{folder}/{up}",
            f"/proc/self/cwd/{up}",
            f"/proc/self/root{bait}",
            f"/dev/fd/../root{bait}",
            f"/proc/thread-self/root{bait}",
        ):
            tried.refused(f"read by {path[:30]}…", read, path)
        at = os.open(folder, os.O_RDONLY)
        tried.refused("read by openat and ..", lambda: os.open(up, os.O_RDONLY, dir_fd=at))
        os.close(at)
