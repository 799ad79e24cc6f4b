"""What a sandbox with namespaces of its own sees of the file system: built from nothing in a new root, host paths read-only.

`build` runs in the first process of the family, with the capabilities to mount. What is not listed here is not there.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from llmproc_nb.inside import linux
from llmproc_nb.inside.rules import SOCKETS, Refused, Rules

AGENT = "/agent"
"""Where each session sees its own area. Below it, and so covered by it for every session, the keeper has what only it may see."""
AREAS, PROC, RELAY = f"{AGENT}/areas", f"{AGENT}/proc", f"{AGENT}/relay"

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = [
    "R",
    "alternatives",
    "ca-certificates",
    "fonts",
    "julia",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "pki/tls/certs",
    "pki/ca-trust",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
]
DEVICES = ("null", "zero", "full", "random", "urandom")
PROC_READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "timer_list", "keys")
MADE_UP = {
    "passwd": "root:x:0:0:root:/nowhere:/usr/sbin/nologin\nsandbox:x:1000:1000:sandbox:/agent/home:/bin/sh\n",
    "group": "root:x:0:\nsandbox:x:1000:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "hostname": "sandbox\n",
}
LINKS = {"tmp": f"{AGENT}/tmp", "var/tmp": f"{AGENT}/tmp", "dev/shm": f"{AGENT}/tmp",
         "dev/fd": "/proc/self/fd", "dev/stdin": "/proc/self/fd/0",
         "dev/stdout": "/proc/self/fd/1", "dev/stderr": "/proc/self/fd/2"}  # fmt: skip


def python_folders() -> list[str]:
    """The folders that this Python imports from, wherever they are."""
    found = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    return found + [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]


def shown(rules: Rules) -> list[str]:
    """The host folders that are shown read-only, none of them inside another."""
    wanted = [path for path in SYSTEM if os.path.exists(path) and not os.path.islink(path)]
    wanted += [os.path.abspath(path) for path in (*python_folders(), *rules.readable) if os.path.exists(path)]
    if "/" in wanted:
        raise Refused("readable holds /; a sandbox does not see the whole machine")
    return outermost(wanted)


def outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda path: len(Path(path).parts)):
        if not any(Path(path).is_relative_to(one) for one in kept):
            kept.append(path)
    return kept


def build(rules: Rules, owner: int | None) -> None:
    """Make the new root and go there. Needs a mount namespace of its own; the areas belong to the uid `owner`, if another is wanted."""
    linux.mount("", "/", "", linux.REC | linux.PRIVATE)
    read_only = {path: _tree(path, linux.RDONLY | linux.NOSUID | linux.NODEV) for path in (*shown(rules), *_etc())}
    devices = {f"/dev/{name}": _tree(f"/dev/{name}", linux.NOSUID) for name in DEVICES}
    writable = {os.path.abspath(path): _tree(path, linux.NOSUID | linux.NODEV) for path in rules.writable}
    for path, place in ((rules.relay, RELAY), (rules.sockets, SOCKETS)):
        if path:
            writable[place] = _tree(path, linux.NOSUID | linux.NODEV)
    trees = read_only | devices | writable
    root = rules.folder
    linux.mount("tmpfs", root, "tmpfs", linux.NOSUID | linux.NODEV, "mode=755,size=1m")
    for folder in ("etc", "dev", "proc", "var", "agent", "run", "home"):
        os.mkdir(f"{root}/{folder}", 0o755)
    areas = f"size={rules.disk_mb}m,nr_inodes={max(10_000, rules.disk_mb * 200)},mode=711"
    linux.mount("tmpfs", f"{root}{AGENT}", "tmpfs", linux.NOSUID | linux.NODEV, areas)
    _fill(root, trees)
    for path, tree in trees.items():
        _place(tree, path, root)
    if owner is not None:
        os.chown(f"{root}{AREAS}", owner, owner)
    _proc(root)
    if rules.sockets:  # a kernel that no session is forked from: terminals would be shared between those
        os.mkdir(f"{root}/dev/pts")
        linux.mount("devpts", f"{root}/dev/pts", "devpts", linux.NOSUID | linux.NOEXEC, "newinstance,ptmxmode=0666,mode=600")
        os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    linux.mount("", root, "", linux.REMOUNT | linux.BIND | linux.RDONLY | linux.NOSUID | linux.NODEV)
    os.chdir(root)
    linux.pivot_root(".", ".")
    linux.umount(".")
    os.chdir("/")


def guard_proc() -> None:
    """Make what /proc says of the whole machine read-only. After the limits below /proc/sys are written."""
    for name in PROC_READ_ONLY:
        if os.path.exists(path := f"/proc/{name}"):
            tree = _tree(path, linux.RDONLY | linux.NOSUID | linux.NODEV)
            linux.attach(tree, path)
            os.close(tree)


def _tree(path: str, flags: int) -> int:
    tree = linux.detached(path, recursive=True)
    linux.restrict(tree, flags)
    return tree


def links() -> list[str]:
    """The places of the system that are links on this host."""
    return [path for path in (*SYSTEM, *(f"/etc/{name}" for name in ETC)) if os.path.islink(path)]


def _etc() -> list[str]:
    """What of /etc is shown; links are made again, what they lead to is elsewhere."""
    return [path for name in ETC if os.path.exists(path := f"/etc/{name}") and not os.path.islink(path)]


def _fill(root: str, shown: Iterable[str]) -> None:
    for name, text in MADE_UP.items():
        Path(root, "etc", name).write_text(text, encoding="utf-8")
    for name, to in LINKS.items():
        if not any(Path(path).is_relative_to(f"/{name}") for path in shown):  # else it is a folder, with only what is shown in it
            os.symlink(to, f"{root}/{name}")
    for path in links():
        os.makedirs(os.path.dirname(f"{root}{path}"), exist_ok=True)
        os.symlink(os.readlink(path), f"{root}{path}")
    for path in (AREAS, PROC):
        os.mkdir(f"{root}{path}", 0o700)


def _place(tree: int, path: str, root: str) -> None:
    """Attach a tree at the same path in the new root, which gets an empty file or folder to attach it to."""
    target = f"{root}{path}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.realpath(target) != os.path.realpath(root) + path:
        raise Refused(f"{path} cannot be shown: a part of it is a link")
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    linux.attach(tree, target)
    os.close(tree)


def _proc(root: str) -> None:
    """Two views of the processes: the keeper's, and that of a session, in which what it may not look into is not there."""
    flags = linux.NOSUID | linux.NODEV | linux.NOEXEC
    try:
        linux.mount("proc", f"{root}/proc", "proc", flags, "hidepid=2")
        linux.mount("proc", f"{root}{PROC}", "proc", flags)
    except PermissionError as error:
        raise Refused(f"no /proc of its own ({error}); the container this runs in hides parts of /proc") from None
