"""Attempts on files: the system, the home of the host's user, its environment, everything outside of the working folder."""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import tempfile

from llmproc_nb.inside.probe.tried import BAIT, MB, Facts, Tried, attempts, fail, make, names, open_to, read, read_if


@attempts
def system(tried: Tried, facts: Facts) -> None:
    for folder in ("/", "/usr", "/usr/bin", "/etc", "/dev", "/var", "/home", "/opt", "/proc", sys.prefix, sys.base_prefix, *facts["shown"]):
        tried.refused(f"make a file in {folder}", make, folder)
    for path in ("/etc/passwd", "/etc/ld.so.cache", os.path.realpath(sys.executable), os.__file__):
        tried.refused(f"open {path} to write", open_to, path, os.O_WRONLY)
        tried.refused(f"change {path}", lambda path: os.chmod(path, stat.S_IMODE(os.stat(path).st_mode)), path)


@attempts
def home(tried: Tried, facts: Facts) -> None:
    tried.refused("read the bait in the host's home", read, facts["bait_file"])
    tried.refused("see the bait in the host's home", lambda: os.path.basename(facts["bait_file"]) in os.listdir(facts["home"]) or fail(2))
    for path in ("/etc/shadow", os.path.expanduser("~root/.ssh/authorized_keys"), "/var/log/syslog"):
        tried.refused(f"read {path}", read, path)
    tried.holds("a home of its own", os.environ["HOME"] != facts["home"], os.environ["HOME"])


@attempts
def environment(tried: Tried, facts: Facts) -> None:
    tried.holds(
        "bait in the environment", not any(BAIT.search(value.encode()) for value in os.environ.values()), f"{len(os.environ)} variables"
    )
    for pid in ("self", "1", str(os.getppid())):
        tried.holds(f"bait in /proc/{pid}/environ", not BAIT.search(read_if(f"/proc/{pid}/environ")), "none")
    found = _baits_in_memory()
    tried.holds("bait in the memory", not found, "could not be looked through" if found is None else f"{found} found")


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
