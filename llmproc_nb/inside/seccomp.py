"""The filter of system calls: what no code of a model needs is refused by the kernel. A small assembler of its own, and the lists.

It is a list of what is denied, not of what is allowed: unknown programs must go on working. What it is for is named beside each group.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from llmproc_nb.inside import linux

ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
KILL, ALLOW, ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
LOAD, JEQ, JGE, JSET, AND, RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NR, ARCH, ARGS = 0, 4, 16
X32 = 0x40000000

NAMESPACES = linux.NEWTIME | linux.NEWNS | linux.NEWCGROUP | linux.NEWUTS | linux.NEWIPC | linux.NEWUSER | linux.NEWPID | linux.NEWNET
IN_CLONE = NAMESPACES & ~linux.NEWTIME  # in clone that bit belongs to the number of the signal
FORK = linux.NEWUSER | linux.NEWNS
"""The one way to namespaces that stays open: a forked session takes its own folder that way."""

UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
STREAM, SEQPACKET = 1, 5
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
FASTOPEN = 0x20000000

Line = tuple[int, int, int, int]

# name: (x86_64, aarch64); -1 where a processor does not have it
NUMBERS = {
    "clone": (56, 220), "unshare": (272, 97), "ioctl": (16, 29), "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203),
    "personality": (135, 92), "setsockopt": (54, 208), "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269),
}  # fmt: skip

OTHERS = {  # other processes: their memory, their files, their namespaces
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448), "setns": (308, 268),
    "perf_event_open": (298, 241), "migrate_pages": (256, 238), "move_pages": (279, 239),
}  # fmt: skip
MOUNTS = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "nfsservctl": (180, 42),
}  # fmt: skip
MOVE = {"move_mount": (429, 429)}
KERNEL = {  # the machine itself, and parts of the kernel known for their faults
    "bpf": (321, 280), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "syslog": (103, 116), "lookup_dcookie": (212, 18), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
    "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "vhangup": (153, 58), "uselib": (134, -1),
    "ustat": (136, -1), "sysfs": (139, -1), "_sysctl": (156, -1),
}  # fmt: skip
UNCOUNTED = {  # memory that no limit of a process counts
    "shmget": (29, 194), "memfd_secret": (447, 447),
}  # fmt: skip
ABSENT = {  # programs take another way where these are not there
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "memfd_create": (319, 279),
}  # fmt: skip
OF_ITSELF = {  # limits and priorities, of no process but the one that calls: which argument names it
    "prlimit64": (302, 261, 0), "setpriority": (141, 140, 1), "ioprio_set": (251, 30, 1),
}  # fmt: skip
HINTS = {  # how threads are scheduled: for any pid but 0 nothing is done and it is said to be; libraries abort where it is refused
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
}  # fmt: skip
SIZES = (7, 8, 32, 33)
"""The options that set the size of a socket's buffers (SO_SNDBUF, SO_RCVBUF, and by force): it stays as it is, and nobody is told."""
SOL_SOCKET = 1
BY_USER = {"setpriority": 2, "ioprio_set": 3}
"""With this as their first argument they mean all processes of a user."""
SHARED = {  # what only namespaces of its own would keep apart from the host's
    "semget": (64, 190), "msgget": (68, 186), "shmat": (30, 196), "mq_open": (240, 180), "mq_unlink": (241, 181),
}  # fmt: skip

MARKS = {  # what Landlock does not ask about: modes, owners and times of any file of the user's; they are said to be changed
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1), "fchown": (93, 55),
    "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
}  # fmt: skip
ATTRIBUTES = {  # as where a file system has none
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469),
}  # fmt: skip


def give(code: int) -> Line:
    return (RET, 0, 0, code)


def refuse(number: int = errno.EPERM) -> Line:
    return give(ERRNO | number)


def when(number: int, lines: list[Line]) -> list[Line]:
    """Lines for one system call; they must end in an answer."""
    return [] if number < 0 else [(JEQ, 0, len(lines), number), *lines]


def argument(index: int) -> Line:
    """Load the lower half of an argument."""
    return (LOAD, 0, 0, ARGS + 8 * index)


def one_of(values: tuple[int, ...], otherwise: Line) -> list[Line]:
    """Allow these values of what is loaded, answer anything else with `otherwise`."""
    tests = [(JEQ, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [*tests, otherwise, give(ALLOW)]


def unless_set(bits: int) -> list[Line]:
    return [(JSET, 0, 1, bits), refuse(), give(ALLOW)]


def program(machine: str, *, forks: bool, apart: bool, alone: bool) -> list[Line]:
    """The filter for a processor. `forks`: a session may take a folder of its own by unshare; `apart`: it has namespaces of its own.

    Without them neither connecting nor sending to an address is possible at all: path sockets of the host would be open to it. `alone`:
    no file of the host is its user's; where one is, nobody's mode, owner, times or attributes can be changed.
    """
    column = list(ARCHES).index(machine)
    lines: list[Line] = [(LOAD, 0, 0, ARCH), (JEQ, 1, 0, ARCHES[machine]), give(KILL), (LOAD, 0, 0, NR)]
    if machine == "x86_64":
        lines += [(JGE, 0, 1, X32), refuse(errno.ENOSYS)]
    groups = [OTHERS, MOUNTS, KERNEL, UNCOUNTED] + ([] if forks else [MOVE]) + ([] if apart else [SHARED])
    for numbers in groups:
        for pair in numbers.values():
            lines += when(pair[column], [refuse()])
    for pair in ABSENT.values():
        lines += when(pair[column], [refuse(errno.ENOSYS)])
    number = {name: pair[column] for name, pair in NUMBERS.items()}
    exact = [argument(0), (JEQ, 0, 1, FORK), give(ALLOW)] if forks else [argument(0)]
    lines += when(number["unshare"], [*exact, *unless_set(NAMESPACES)])
    lines += when(number["clone"], [argument(0), *unless_set(IN_CLONE)])
    lines += when(number["ioctl"], [argument(1), (JEQ, 1, 0, TIOCSTI), (JEQ, 0, 1, TIOCLINUX), refuse(), give(ALLOW)])
    lines += when(number["personality"], [argument(0), *one_of((0, 8, 0xFFFFFFFF), refuse())])
    for name, (*numbers_of, index) in OF_ITSELF.items():
        user = [argument(0), (JEQ, 0, 1, BY_USER[name]), refuse()] if name in BY_USER else []
        lines += when(numbers_of[column], [*user, argument(index), (JEQ, 1, 0, 0), refuse(), give(ALLOW)])
    for pair in HINTS.values():
        lines += when(pair[column], [argument(0), (JEQ, 1, 0, 0), refuse(0), give(ALLOW)])
    for numbers, answer in () if alone else ((MARKS, refuse(0)), (ATTRIBUTES, refuse(errno.EOPNOTSUPP))):
        for pair in numbers.values():
            lines += when(pair[column], [answer])
    sizes = [(JEQ, len(SIZES) - at, 0, value) for at, value in enumerate(SIZES)]
    lines += when(number["setsockopt"], [argument(1), (JEQ, 1, 0, SOL_SOCKET), give(ALLOW), argument(2), *sizes, give(ALLOW), refuse(0)])
    lines += _sockets(number, apart)
    return [*lines, give(ALLOW)]


def _sockets(number: dict[str, int], apart: bool) -> list[Line]:
    """Sockets of the usual families. Of netlink only what lists interfaces, without which libraries abort."""
    no_family = refuse(errno.EAFNOSUPPORT)
    listing = [argument(0), (JEQ, 0, 4, NETLINK), argument(2), (JEQ, 0, 1, 0), give(ALLOW), no_family]
    if apart:
        families = when(number["socket"], [*listing, *one_of((UNIX, INET, INET6), no_family)])
        return families + when(number["socketpair"], [argument(0), *one_of((UNIX,), no_family)])
    kinds = [argument(1), (AND, 0, 0, 0xF), *one_of((STREAM, SEQPACKET), refuse(errno.EACCES))]  # a datagram could name any address
    family = [*listing, (JEQ, 3, 0, UNIX), (JEQ, 2, 0, INET), (JEQ, 1, 0, INET6), no_family]
    pair = [argument(0), (JEQ, 1, 0, UNIX), no_family]
    lines = when(number["socket"], [*family, *kinds]) + when(number["socketpair"], [*pair, *kinds])
    lines += when(number["connect"], [refuse(errno.EACCES)])
    for name, flags in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):  # with this flag sending connects
        lines += when(number[name], [argument(flags), *unless_set(FASTOPEN)])
    return lines


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]


def confine(*, forks: bool, apart: bool, alone: bool) -> None:
    """Put the filter on this process, for good. Needs no_new_privs. Raises OSError."""
    if linux.MACHINE not in ARCHES:
        raise OSError(errno.ENOSYS, f"seccomp: no list of system calls for {linux.MACHINE} processors")
    lines = program(linux.MACHINE, forks=forks, apart=apart, alone=alone)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    filled = _Program(len(lines), ctypes.addressof(code))
    linux.syscall("seccomp", 1, 0, ctypes.byref(filled))
