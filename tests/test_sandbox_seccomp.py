"""The filter of system calls, run as the kernel runs it, for both processors: a small machine for its lines."""

from __future__ import annotations

import errno
import sys

import pytest

if sys.platform != "linux":
    pytest.skip("system calls of Linux", allow_module_level=True)

from llmproc_nb.inside import seccomp

ALLOWED = "allowed"
PROCESSORS = ("x86_64", "aarch64")
THREAD = 0x3D0F00  # what a new thread is cloned with
FORKED = seccomp.FORK


def answer(lines: list[seccomp.Line], arch: int, number: int, *arguments: int) -> str | int:
    """What a filter says of a system call: allowed, killed, or the error."""
    words = {seccomp.NR: number, seccomp.ARCH: arch}
    words |= {seccomp.ARGS + 8 * at: value & 0xFFFFFFFF for at, value in enumerate((*arguments, *[0] * 6)[:6])}
    at, loaded = 0, 0
    while True:
        code, if_so, if_not, value = lines[at]
        at += 1
        if code == seccomp.RET:
            names = {seccomp.ALLOW: ALLOWED, seccomp.KILL: "killed"}
            return names.get(value, value & 0xFFFF)
        if code == seccomp.LOAD:
            loaded = words[value]
        elif code == seccomp.AND:
            loaded &= value
        else:
            holds = {seccomp.JEQ: loaded == value, seccomp.JGE: loaded >= value, seccomp.JSET: bool(loaded & value)}[code]
            at += if_so if holds else if_not


def asked(machine: str, name: str, *arguments: int, forks: bool = True, apart: bool = True, alone: bool = True) -> str | int:
    tables = (seccomp.NUMBERS, seccomp.OTHERS, seccomp.MOUNTS, seccomp.MOVE, seccomp.KERNEL, seccomp.UNCOUNTED, seccomp.ABSENT)
    tables = (*tables, seccomp.SHARED, seccomp.OF_ITSELF, seccomp.HINTS, seccomp.MARKS, seccomp.ATTRIBUTES)
    number = next(table[name] for table in tables if name in table)[PROCESSORS.index(machine)]
    return answer(seccomp.program(machine, forks=forks, apart=apart, alone=alone), seccomp.ARCHES[machine], number, *arguments)


@pytest.mark.parametrize("machine", PROCESSORS)
@pytest.mark.parametrize("forks", [True, False])
@pytest.mark.parametrize(("apart", "alone"), [(True, True), (False, True), (False, False)])
def test_everything_on_the_lists_is_refused_and_no_jump_leads_astray(machine: str, forks: bool, apart: bool, alone: bool):
    lines = seccomp.program(machine, forks=forks, apart=apart, alone=alone)
    column = PROCESSORS.index(machine)
    refused = {**seccomp.OTHERS, **seccomp.MOUNTS, **seccomp.KERNEL, **seccomp.UNCOUNTED}
    for number in (pair[column] for pair in refused.values() if pair[column] >= 0):
        assert answer(lines, seccomp.ARCHES[machine], number) == errno.EPERM
    for pair in seccomp.ABSENT.values():
        assert answer(lines, seccomp.ARCHES[machine], pair[column]) == errno.ENOSYS
    assert all(0 <= jump <= 255 and at + 1 + jump < len(lines) for at, line in enumerate(lines) for jump in line[1:3] if line[0] & 7 == 5)
    everything = {answer(lines, seccomp.ARCHES[machine], number) for number in range(500)}
    assert everything <= {ALLOWED, 0, errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP}


@pytest.mark.parametrize("machine", PROCESSORS)
def test_other_processors_and_the_x32_kind_are_no_way_around_it(machine: str):
    lines = seccomp.program(machine, forks=True, apart=True, alone=True)
    others = {0x40000003, *seccomp.ARCHES.values()} - {seccomp.ARCHES[machine]}
    assert {answer(lines, arch, 1) for arch in others} == {"killed"}
    if machine == "x86_64":
        assert answer(lines, seccomp.ARCHES[machine], seccomp.X32 | 1) == errno.ENOSYS


@pytest.mark.parametrize("machine", PROCESSORS)
def test_namespaces_are_for_forks_and_only_the_two_that_they_need(machine: str):
    assert asked(machine, "unshare", FORKED) == ALLOWED
    assert asked(machine, "unshare", FORKED, forks=False) == errno.EPERM
    assert asked(machine, "unshare", 0x400) == ALLOWED  # its own open files
    for bit in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert asked(machine, "unshare", bit) == errno.EPERM
        assert asked(machine, "unshare", FORKED | bit) == (ALLOWED if bit & FORKED else errno.EPERM)
        assert asked(machine, "clone", bit | 17) == (ALLOWED if bit == 0x80 else errno.EPERM)
    assert asked(machine, "clone", THREAD) == ALLOWED
    assert asked(machine, "move_mount") == ALLOWED
    assert asked(machine, "move_mount", forks=False) == errno.EPERM


@pytest.mark.parametrize("machine", PROCESSORS)
def test_sockets_are_of_the_usual_families(machine: str):
    def allowed(apart: bool, *arguments: int) -> bool:
        return asked(machine, "socket", *arguments, apart=apart) == ALLOWED

    for family in (seccomp.UNIX, seccomp.INET, seccomp.INET6):
        assert allowed(True, family, 1) and allowed(True, family, 2) and allowed(True, family, 1 | 0o2000000)
        assert allowed(False, family, 1 | 0o2000000) and not allowed(False, family, 2) and not allowed(False, family, 2 | 0o2000000)
    for apart in (True, False):
        assert allowed(apart, seccomp.NETLINK, 3, 0) and not allowed(apart, seccomp.NETLINK, 3, 12)
        assert not any(allowed(apart, family, kind) for family in (0, 3, 17, 29, 31, 38, 40, 44) for kind in (1, 2, 3))
        assert asked(machine, "socketpair", seccomp.UNIX, 1, apart=apart) == ALLOWED
        assert asked(machine, "socketpair", seccomp.INET, 1, apart=apart) == errno.EAFNOSUPPORT
    assert asked(machine, "socketpair", seccomp.UNIX, 2, apart=False) == errno.EACCES
    assert asked(machine, "connect", apart=True) == ALLOWED
    assert asked(machine, "connect", apart=False) == errno.EACCES
    assert asked(machine, "sendto", 1, 0, 0, seccomp.FASTOPEN, apart=False) == errno.EPERM
    assert asked(machine, "sendmsg", 1, 0, 0, apart=False) == ALLOWED


@pytest.mark.parametrize("machine", PROCESSORS)
def test_where_files_of_the_host_are_the_same_users_none_has_its_mode_or_times_changed(machine: str):
    for name in ("fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "utimensat"):
        assert asked(machine, name, apart=False, alone=False) == 0  # said to be done, not done
        assert asked(machine, name, apart=False) == ALLOWED
    assert asked(machine, "fsetxattr", apart=False, alone=False) == errno.EOPNOTSUPP
    assert asked(machine, "fsetxattr") == ALLOWED


@pytest.mark.parametrize("machine", PROCESSORS)
def test_limits_and_priorities_are_ones_own_business(machine: str):
    assert asked(machine, "prlimit64", 0, 7) == ALLOWED
    assert asked(machine, "prlimit64", 1, 7) == errno.EPERM
    assert asked(machine, "setpriority", 0, 0) == ALLOWED
    assert asked(machine, "setpriority", 0, 1) == errno.EPERM
    assert asked(machine, "setpriority", 2, 0) == errno.EPERM
    assert asked(machine, "sched_setscheduler", 0) == ALLOWED
    assert asked(machine, "sched_setscheduler", 99) == 0  # said to be done, not done
    assert asked(machine, "ioctl", 0, seccomp.TIOCSTI) == errno.EPERM
    assert asked(machine, "ioctl", 0, seccomp.TIOCLINUX) == errno.EPERM
    assert asked(machine, "ioctl", 0, 0x5413) == ALLOWED
    assert asked(machine, "personality", 0xFFFFFFFF) == ALLOWED
    assert asked(machine, "personality", 0x0400000) == errno.EPERM
