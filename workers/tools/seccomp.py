"""What a sandboxed function may ask of the kernel, as a seccomp-BPF filter.

Numbers are those of Linux's ``unistd.h`` (x86_64, then aarch64; None where there is no such call).
A call that is newer than this table does not exist for a sandboxed function.
Source: seccomp(2), and Documentation/userspace-api/seccomp_filter.rst of Linux.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Numbers = tuple[int | None, int | None]

# Refused with EPERM, by reason.
FORBIDDEN: dict[str, dict[str, Numbers]] = {
    "acts on other processes": {
        "get_robust_list": (274, 100),
        "kcmp": (312, 272),
        "kill": (62, 129),
        "migrate_pages": (256, 238),
        "move_pages": (279, 239),
        "pidfd_getfd": (438, 438),
        "pidfd_open": (434, 434),
        "pidfd_send_signal": (424, 424),
        "process_madvise": (440, 440),
        "process_mrelease": (448, 448),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "ptrace": (101, 117),
        "rt_sigqueueinfo": (129, 138),
        "rt_tgsigqueueinfo": (297, 240),
        "tkill": (200, 130),
    },
    "becomes somebody else": {
        "capset": (126, 91),
        "setfsgid": (123, 152),
        "setfsuid": (122, 151),
        "setgid": (106, 144),
        "setgroups": (116, 159),
        "setregid": (114, 143),
        "setresgid": (119, 149),
        "setresuid": (117, 147),
        "setreuid": (113, 145),
        "setuid": (105, 146),
    },
    "changes files that another may hold": {
        "chown": (92, None),
        "fchown": (93, 55),
        "fchownat": (260, 54),
        "fremovexattr": (199, 16),
        "fsetxattr": (190, 7),
        "lchown": (94, None),
        "lremovexattr": (198, 15),
        "lsetxattr": (189, 6),
        "removexattr": (197, 14),
        "setxattr": (188, 5),
    },
    "changes its place in the system": {
        "chroot": (161, 51),
        "fsconfig": (431, 431),
        "fsmount": (432, 432),
        "fsopen": (430, 430),
        "fspick": (433, 433),
        "mount": (165, 40),
        "mount_setattr": (442, 442),
        "move_mount": (429, 429),
        "open_tree": (428, 428),
        "pivot_root": (155, 41),
        "setns": (308, 268),
        "setpgid": (109, 154),
        "setsid": (112, 157),
        "umount2": (166, 39),
        "unshare": (272, 97),
    },
    "changes or stops the machine": {
        "acct": (163, 89),
        "adjtimex": (159, 171),
        "clock_adjtime": (305, 266),
        "clock_settime": (227, 112),
        "delete_module": (176, 106),
        "finit_module": (313, 273),
        "init_module": (175, 105),
        "ioperm": (173, None),
        "iopl": (172, None),
        "kexec_file_load": (320, 294),
        "kexec_load": (246, 104),
        "nfsservctl": (180, 42),
        "quotactl": (179, 60),
        "quotactl_fd": (443, 443),
        "reboot": (169, 142),
        "setdomainname": (171, 162),
        "sethostname": (170, 161),
        "settimeofday": (164, 170),
        "swapoff": (168, 225),
        "swapon": (167, 224),
        "vhangup": (153, 58),
    },
    "goes past the bounds on memory or outlives the call": {
        "memfd_create": (319, 279),
        "memfd_secret": (447, 447),
        "mq_open": (240, 180),
        "mq_unlink": (241, 181),
        "msgctl": (71, 187),
        "msgget": (68, 186),
        "msgrcv": (70, 188),
        "msgsnd": (69, 189),
        "semctl": (66, 191),
        "semget": (64, 190),
        "semop": (65, 193),
        "semtimedop": (220, 192),
        "shmat": (30, 196),
        "shmctl": (31, 195),
        "shmget": (29, 194),
    },
    "has had too many holes": {
        "bpf": (321, 280),
        "io_setup": (206, 0),
        "io_submit": (209, 2),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
        "io_uring_setup": (425, 425),
        "modify_ldt": (154, None),
        "perf_event_open": (298, 241),
        "personality": (135, 92),
        "uselib": (134, None),
        "userfaultfd": (323, 282),
    },
    "reads what is not its own": {
        "add_key": (248, 217),
        "fanotify_init": (300, 262),
        "inotify_init": (253, None),
        "inotify_init1": (294, 26),
        "keyctl": (250, 219),
        "lookup_dcookie": (212, 18),
        "name_to_handle_at": (303, 264),
        "open_by_handle_at": (304, 265),
        "request_key": (249, 218),
        "syslog": (103, 116),
    },
    "starts a process or a program": {
        "execve": (59, 221),
        "execveat": (322, 281),
        "fork": (57, None),
        "vfork": (58, None),
    },
    "takes time from the others": {
        "ioprio_set": (251, 30),
        "sched_setaffinity": (203, 122),
        "sched_setattr": (314, 274),
        "sched_setparam": (142, 118),
        "sched_setscheduler": (144, 119),
        "setpriority": (141, 140),
        "sync": (162, 81),
        "syncfs": (306, 267),
    },
    "waits for callers": {
        "accept": (43, 202),
        "accept4": (288, 242),
        "listen": (50, 201),
    },
}

# Refused with EPERM unless the network is granted; then `socket` is, within SOCKETS.
NETWORK: dict[str, Numbers] = {
    "bind": (49, 200),
    "connect": (42, 203),
    "socket": (41, 198),
}

# Answered as if done: copying a file asks for them, and they could reach files of others.
PRETENDED: dict[str, Numbers] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "futimesat": (261, None),
    "utime": (132, None),
    "utimensat": (280, 88),
    "utimes": (235, None),
}

# The C library starts threads by the older `clone` where this does not exist; its flags lie in
# memory, where a filter cannot see them.
ABSENT: dict[str, Numbers] = {"clone3": (435, 435)}

LAST = 450  # the newest call that these tables were made for

AUDIT_ARCHITECTURES = {"aarch64": 0xC00000B7, "x86_64": 0xC000003E}

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
KILL_PROCESS = 0x80000000
REFUSE = ERRNO | errno.EPERM
ANY_BIT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What an argument must be, or must not be, for a call to go on.

    Attributes:
        argument: Which one, from 0.
        mask: Bits of it that are looked at.
        values: What those may be; or, with ``never``, may not be.
        never: See ``values``.
    """

    argument: int
    values: tuple[int, ...]
    mask: int = ANY_BIT
    never: bool = False


# `fcntl` and `ioctl` can have signals sent to others, and pipes grow.
_OWNERS = (8, 10, 15, 1026, 1031)  # F_SETOWN F_SETSIG F_SETOWN_EX F_NOTIFY F_SETPIPE_SZ
_SOCKET_OWNERS = (0x8901, 0x8902)  # FIOSETOWN SIOCSPGRP
_THREAD = 0x10000  # CLONE_THREAD
_NAMES = (15, 16)  # PR_SET_NAME PR_GET_NAME
_LOCAL, _INTERNET = (1,), (2, 10)  # AF_UNIX; AF_INET AF_INET6
_STREAM = 1  # SOCK_STREAM: a datagram could be sent to another's address

CONDITIONS: dict[str, tuple[Numbers, tuple[Condition, ...]]] = {
    "clone": ((56, 220), (Condition(argument=0, mask=_THREAD, values=(_THREAD,)),)),
    "fcntl": ((72, 25), (Condition(argument=1, values=_OWNERS, never=True),)),
    "ioctl": ((16, 29), (Condition(argument=1, values=_SOCKET_OWNERS, never=True),)),
    "prctl": ((157, 167), (Condition(argument=0, values=_NAMES),)),
    "prlimit64": ((302, 261), (Condition(argument=0, values=(0,)),)),
    "socketpair": (
        (53, 199),
        (
            Condition(argument=0, values=_LOCAL),
            Condition(argument=1, mask=0xF, values=(_STREAM,)),
        ),
    ),
}
SOCKETS = (Condition(argument=0, values=_INTERNET),)
TGKILL: Numbers = (234, 131)

# Instructions of classic BPF, and where struct seccomp_data has its parts.
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _GREATER = 0x15, 0x25
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16


class UnknownArchitecture(Exception):
    """There is no table for this kind of processor."""


def program(architecture: str, *, pid: int, network: bool) -> bytes:
    """Returns the filter for process ``pid``, an array of struct sock_filter.

    Args:
        architecture: As ``os.uname().machine`` has it.
        pid: The process itself, which alone it may send signals to.
        network: Whether it may have sockets of the Internet.

    Raises:
        UnknownArchitecture: It is neither x86_64 nor aarch64.
    """
    if architecture not in AUDIT_ARCHITECTURES:
        raise UnknownArchitecture(f"no table of system calls for {architecture}")
    column = 0 if architecture == "x86_64" else 1
    lines = [
        _line(_LOAD, _ARCHITECTURE_AT),
        _line(_EQUAL, AUDIT_ARCHITECTURES[architecture], then=1),
        _line(_RETURN, KILL_PROCESS),
        _line(_LOAD, _NUMBER_AT),
        _line(_GREATER, LAST, otherwise=1),
        _line(_RETURN, ERRNO | errno.ENOSYS),
    ]
    for number, conditions in _conditions(column, pid, network):
        lines += _held_to(number, conditions)
    for numbers, answer in _answers(network):
        for pair in numbers:
            if (refused := pair[column]) is not None:
                lines += [_line(_EQUAL, refused, otherwise=1), _line(_RETURN, answer)]
    return b"".join([*lines, _line(_RETURN, ALLOW)])


def _answers(network: bool) -> Iterator[tuple[Iterable[Numbers], int]]:
    for calls in FORBIDDEN.values():
        yield calls.values(), REFUSE
    if not network:
        yield NETWORK.values(), REFUSE
    yield PRETENDED.values(), ERRNO
    yield ABSENT.values(), ERRNO | errno.ENOSYS


def _conditions(
    column: int, pid: int, network: bool
) -> Iterator[tuple[int, tuple[Condition, ...]]]:
    wanted = [*CONDITIONS.values(), (TGKILL, (Condition(argument=0, values=(pid,)),))]
    if network:
        wanted.append((NETWORK["socket"], SOCKETS))
    for numbers, conditions in wanted:
        if (number := numbers[column]) is not None:
            yield number, conditions


def _held_to(number: int, conditions: Iterable[Condition]) -> list[bytes]:
    body = [line for condition in conditions for line in _test(condition)]
    body.append(_line(_RETURN, ALLOW))
    return [_line(_EQUAL, number, otherwise=len(body)), *body]


def _test(condition: Condition) -> Iterator[bytes]:
    """Yields what ends in a refusal where the condition fails, else falls through."""
    yield _line(_LOAD, _ARGUMENTS_AT + 8 * condition.argument)
    yield _line(_AND, condition.mask)
    left = len(condition.values)
    for value in condition.values:
        left -= 1
        if condition.never:
            yield _line(_EQUAL, value, then=left, otherwise=0 if left else 1)
        else:
            yield _line(_EQUAL, value, then=left + 1)
    yield _line(_RETURN, REFUSE)


def _line(code: int, operand: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, operand)
