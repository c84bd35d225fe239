"""How the child gives up, for good, nearly all that a process may do, before it reads any source.

Loaded by ``inside.py`` in a bare interpreter, so it imports nothing of ours.
Sources: landlock(7), seccomp(2), user_namespaces(7), prctl(2), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

TYPE_CHECKING = False  # as in typing, whose import would take a tenth of all that a call takes
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SCRATCH = "/tmp"  # within a mount namespace of its own
MIB = 1024 * 1024

# Versions of Landlock: before the first of these nothing keeps a function from truncating files.
LEAST_LANDLOCK, KNOWS_NETWORK, KNOWS_SCOPES = 3, 4, 6
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_ALL_OF_FILES = {3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}  # by version; then as 5
_READS = _READ_FILE | _READ_DIR
# To remove, and to make folders, files, fifos, links; not devices, not sockets.
_KEEPS = _READS | _WRITE_FILE | _TRUNCATE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 10
_KEEPS |= 1 << 12 | 1 << 13
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_SCOPED = 1 << 0 | 1 << 1  # abstract sockets, signals

_NEW_FOLDERS, _NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
_PRIVATE = 0x44000  # MS_REC | MS_PRIVATE
_PLAIN = 0xE  # MS_NOSUID | MS_NODEV | MS_NOEXEC
_DEATH_SIGNAL, _DUMPABLE, _SECCOMP, _NO_NEW_PRIVILEGES = 1, 4, 22, 38
_FILTER = 2  # SECCOMP_MODE_FILTER

READABLE = ("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")
READABLE_FOR_NETWORK = (
    "/etc/gai.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/pki/tls",
    "/etc/resolv.conf",
    "/etc/ssl",
    "/usr/share/ca-certificates",
)
DEVICES = {
    "/dev/null": _READ_FILE | _WRITE_FILE | _TRUNCATE,
    "/dev/urandom": _READ_FILE,
    "/dev/zero": _READ_FILE,
}

libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """This machine lacks a part of the sandbox."""


def asked(what: str, answer: int) -> int:
    """Returns what the kernel answered.

    Raises:
        Unavailable: It refused.
    """
    if answer < 0:
        raise Unavailable(f"{what}: {os.strerror(ctypes.get_errno())}")
    return answer


def confine(wanted: dict[str, Any]) -> None:
    """Gives up, for good, all that a function is not to have.

    Raises:
        Unavailable: This machine cannot do a part of it.
    """
    anchor_imports()
    if wanted["disk_mib"]:
        make_scratch(wanted["uid"], wanted["disk_mib"])
    rules = ruleset(wanted)
    become(wanted["uid"])
    limit(wanted)
    asked("no_new_privs", libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    asked("Landlock", libc.syscall(_RESTRICT_SELF, rules, 0))
    os.close(rules)
    asked("PR_SET_DUMPABLE", libc.prctl(_DUMPABLE, 0, 0, 0, 0))
    # After the change of user, which clears it.
    asked("PR_SET_PDEATHSIG", libc.prctl(_DEATH_SIGNAL, 9, 0, 0, 0))
    if os.getppid() != wanted["parent"]:
        raise Unavailable("the worker that asked is gone")
    install(bytes.fromhex(wanted["filter"]))


def anchor_imports() -> None:
    """Has imports go through open folders: their paths may lie where only the worker may go."""
    anchors = {}
    for place in sys.path:
        if os.path.exists(place):
            anchors[place] = f"/proc/self/fd/{os.open(place, os.O_PATH)}"
    sys.path[:] = anchors.values()
    for module in list(sys.modules.values()):
        for at, place in enumerate(folders := getattr(module, "__path__", [])):
            top = next((top for top in anchors if place.startswith(f"{top}/")), None)
            if top is not None:
                folders[at] = anchors[top] + place.removeprefix(top)


def make_scratch(uid: int | None, size_mib: int) -> None:
    """Puts an empty folder in memory over /tmp, seen by this process alone, gone with it."""
    mine, group = os.geteuid(), os.getegid()
    if uid is None:
        asked("a user namespace of its own", libc.unshare(_NEW_USERS | _NEW_FOLDERS))
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", f"{mine} {mine} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(line)
    else:
        asked("a mount namespace of its own", libc.unshare(_NEW_FOLDERS))
        mine = group = uid
    asked("private mounts", libc.mount(None, b"/", None, _PRIVATE, None))
    options = f"size={size_mib}m,nr_inodes=4096,mode=700,uid={mine},gid={group}".encode()
    scratch = SCRATCH.encode()
    asked("a folder in memory", libc.mount(b"tmpfs", scratch, b"tmpfs", _PLAIN, options))
    os.chdir(SCRATCH)


def ruleset(wanted: dict[str, Any]) -> int:
    """Returns the Landlock rules, open: what may be read, what written, no network."""
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < LEAST_LANDLOCK:
        raise Unavailable(
            f"Landlock of version {LEAST_LANDLOCK} (Linux 6.2, with landlock among its security "
            f"modules), found {max(version, 0) or 'none'}"
        )
    files = _ALL_OF_FILES.get(version, _ALL_OF_FILES[5])
    network = _BIND_TCP if wanted["network"] else _BIND_TCP | _CONNECT_TCP
    parts = (files, network, _SCOPED)[: 1 + (version >= KNOWS_NETWORK) + (version >= KNOWS_SCOPES)]
    layout = struct.pack(f"={len(parts)}Q", *parts)
    rules = asked("Landlock", libc.syscall(_CREATE_RULESET, layout, len(layout), 0))
    for path, rights in allowed(wanted):
        allow(rules, path, rights & files)
    return rules


def allowed(wanted: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yields what may be touched, and how."""
    # Where extensions of Python find the libraries that they are linked to.
    with open("/proc/self/maps", encoding="utf-8") as maps:
        libraries = {os.path.dirname(line.split()[-1]) for line in maps if ".so" in line}
    network = READABLE_FOR_NETWORK if wanted["network"] else ()
    for path in (*sys.path, *libraries, *READABLE, *network):
        yield path, _READS
    yield from DEVICES.items()
    if wanted["disk_mib"]:
        yield SCRATCH, _KEEPS


def allow(rules: int, path: str, rights: int) -> None:
    """Adds a path to the rules; what is not there, or not for this user, needs none."""
    try:
        opened = os.open(path, os.O_PATH)
    except (FileNotFoundError, PermissionError):
        return
    if not os.path.isdir(path):
        rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE
    rule = struct.pack("=Qi", rights, opened)
    asked(f"Landlock for {path}", libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0))
    os.close(opened)


def become(uid: int | None) -> None:
    """Becomes a user whom nobody else is, and keeps no capability."""
    if uid is not None:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        except OSError as error:
            raise Unavailable(f"a user of its own: {error.strerror}") from error
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    asked("no capabilities", libc.capset(header, none))


def limit(wanted: dict[str, Any]) -> None:
    """Sets what the kernel counts; memory is on top of what the interpreter has already."""
    with open("/proc/self/statm", encoding="ascii") as sizes:
        taken = int(sizes.read().split()[0]) * resource.getpagesize()
    cpu, memory = wanted["cpu_s"], taken + wanted["memory_mib"] * MIB
    bounds = {
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_CPU: (cpu, cpu + 1),
        resource.RLIMIT_FSIZE: (wanted["file_mib"] * MIB,) * 2,
        resource.RLIMIT_NOFILE: (wanted["open_files"],) * 2,
    }
    if wanted["uid"] is not None:
        # Counted by user: a user of its own is needed for this to mean anything.
        bounds[resource.RLIMIT_NPROC] = (wanted["threads"],) * 2
    for what, values in bounds.items():
        resource.setrlimit(what, values)


def install(program: bytes) -> None:
    """Puts a seccomp filter on this process."""
    lines = ctypes.create_string_buffer(program, len(program))
    layout = struct.pack("@HP", len(program) // 8, ctypes.addressof(lines))
    asked("seccomp", libc.prctl(_SECCOMP, _FILTER, layout, 0, 0))
