"""A session gives up what it still could do: it takes its area, its limits, and the filters that nothing undoes.

Here: the order of the steps, for each tier. Not here: how the family is confined that the session is forked from (confine).
"""

from __future__ import annotations

import os
import resource

from llmproc_nb.inside import landlock, linux, seccomp, view
from llmproc_nb.inside.confined import FIRST_UID, INSIDE_ID, NOW, map_ids
from llmproc_nb.inside.rules import Refused, Rules

SPARE = 512
"""Processes beyond those of the code: frozen copies and forks of a session are counted with it. A keeper counts exactly, but later."""
MB = 1024 * 1024


def settle(mount: int | None, area: str, rules: Rules, *, forks: bool = True) -> str:
    """In a new session, forked from the keeper or from another session: take the area, give up everything else. Gives the area's path.

    Without `forks` it can never take another one. Raises Refused.
    """
    try:
        if mount is not None:
            area = _take(mount)
        if not NOW.limited:
            if NOW.group is not None:
                NOW.group.enter()
            _limit(rules)
        _enter_area(area)
        if rules.tier != "process":
            _seal(rules, area, forks)
    except OSError as error:
        raise Refused(f"tier {rules.tier}: a session cannot be confined: {error}") from None
    NOW.area = area
    return area


def _take(mount: int) -> str:
    """A mount namespace of its own, in which the area lies over everything that the keeper or another session has there."""
    linux.prctl(linux.DUMPABLE, 1)
    linux.unshare(seccomp.FORK)
    map_ids(INSIDE_ID, INSIDE_ID)
    linux.attach(mount, view.AGENT)
    os.close(mount)
    linux.drop_capabilities()
    return view.AGENT


def _enter_area(area: str) -> None:
    """Be in the new area where it was in the old one."""
    old = NOW.area
    try:
        within = os.path.relpath(os.getcwd(), old) if old else "work"
    except OSError:
        within = "work"
    inside = os.path.join(area, within)
    os.chdir(inside if not within.startswith("..") and os.path.isdir(inside) else os.path.join(area, "work"))
    os.environ.update(HOME=f"{area}/home", TMPDIR=f"{area}/tmp")


def _limit(rules: Rules) -> None:
    """Limits that only go down; what is there already stays where it is lower."""
    wanted = {
        resource.RLIMIT_AS: rules.memory_mb * MB + _mapped(),
        resource.RLIMIT_CPU: rules.cpu_s,
        resource.RLIMIT_NPROC: rules.processes + SPARE,
        resource.RLIMIT_FSIZE: rules.disk_mb * MB,
        resource.RLIMIT_CORE: 1,  # 0 would still start a host's program that takes cores; 1 is the kernel's word for none at all
        resource.RLIMIT_NOFILE: 1024,
        resource.RLIMIT_MEMLOCK: 64 * MB,
    }
    if rules.tier == "process" or (rules.tier == "landlock" and os.getuid() < FIRST_UID):
        wanted[resource.RLIMIT_NPROC] += _running()
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    NOW.limited = True


def _mapped() -> int:
    """Bytes of addresses that the process has already: libraries that are loaded shall not count as what its code takes."""
    try:
        with open("/proc/self/statm", encoding="utf-8") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _running() -> int:
    """How many tasks this user has already, where the kernel counts them together with a sandbox's."""
    count, user = 0, os.getuid()
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:  # ended meanwhile
            continue
    return count


def _seal(rules: Rules, area: str, forks: bool) -> None:
    linux.prctl(linux.NO_NEW_PRIVS, 1)
    first = not NOW.sealed
    apart = rules.tier == "namespaces"
    if not first:
        landlock.part(files=not apart)
    elif not apart:
        landlock.confine(rules, NOW.areas)
    elif rules.sockets:
        landlock.only_sockets((area, "/dev", "/proc", *rules.writable))
    else:
        landlock.part(files=False)
    if first:
        seccomp.confine(forks=forks and apart, apart=apart, alone=apart or os.getuid() >= FIRST_UID)
        NOW.sealed = True
    linux.prctl(linux.DUMPABLE, 0)


def stay() -> None:
    """In a fork of a session that is over: be in its area, which has other files now. All else is given up already. Raises Refused."""
    try:
        _enter_area(NOW.area)
    except OSError as error:
        raise Refused(f"its area cannot be entered: {error}") from None


def part() -> bool:
    """In a session of which a fork goes on beside it: from here on neither can signal the other or look into it.

    False where this kernel cannot do that (see landlock.part). What the session has started before is not parted: it can signal the fork.
    Nor does any of this undo what code did before the fork, in whose memory and open files it is: a fork of a hostile session is hostile.
    Raises Refused where that was done too often.
    """
    try:
        return landlock.part(files=NOW.tier == "landlock")
    except OSError as error:
        raise Refused(f"a session and its fork cannot be parted: {error}") from None
