"""What runs in the child: it confines itself, then reads a function, calls it, says what came.

Started by ``sandbox.py`` as a script of a bare interpreter (``-I -S``), so it imports nothing of
ours. Standard input brings two parts of JSON: a line with the bounds, and what is to be called.
Standard output takes a line that says that it is confined, then the outcome; before any source
runs both are moved out of the way, so that what a function prints goes nowhere.
Sources: landlock(7), seccomp(2), user_namespaces(7), prctl(2), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import errno
import inspect
import json
import os
import resource
import struct
import sys
import types

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

SPENT = {errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}
REFUSED = {errno.EACCES, errno.EPERM}
MOST_WORDS = 300
MISSING = "missing"  # of the fault that the source is, the kind that a caller may expect

libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """This machine lacks a part of the sandbox."""


class Failed(Exception):
    """The call came to no result: a fault, and why."""


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


def outcome(request: dict[str, Any], bounds: dict[str, Any]) -> bytes:
    """Returns what calling came to, as JSON."""
    try:
        answer = json.dumps(called(request), allow_nan=False, ensure_ascii=False).encode()
    except Failed as failed:
        return faulted(*failed.args)
    except (RecursionError, TypeError, ValueError) as error:
        return faulted("raised", f"what it returned is not JSON: {words(error)}")
    # What is returned may run code of the function while it is written.
    except BaseException as error:  # noqa: BLE001
        return faulted(*failure(error, bounds))
    if len(answer) > bounds["output_bytes"]:
        return faulted("limit", f"its result is larger than {bounds['output_bytes']} bytes")
    return b'{"result": ' + answer + b"}"


def faulted(fault: str, message: str) -> bytes:
    """Returns a failure as JSON."""
    return json.dumps({"fault": fault, "message": message}).encode()


def called(request: dict[str, Any]) -> Any:
    """Returns what the function returns.

    Raises:
        Failed: It raised, or could not be called.
    """
    function = loaded(request["source"], request["name"], request["bounds"])
    given = fitted(function, request["arguments"], request["key"])
    try:
        answer = function(**given)
        if inspect.isawaitable(answer):
            import asyncio  # noqa: PLC0415 - it takes longer than all else here

            answer = asyncio.run(awaited(answer))
    # All that a function raises is an outcome of the call, also what would end the process.
    except BaseException as error:  # noqa: BLE001
        raise Failed(*failure(error, request["bounds"])) from None
    return answer


async def awaited(answer: Any) -> Any:
    """Returns what an awaitable comes to."""
    return await answer


def loaded(source: str, name: str, bounds: dict[str, Any]) -> Any:
    """Returns the function of that name that the source defines.

    Raises:
        Failed: It defines none.
    """
    module = sys.modules["function"] = types.ModuleType("function")
    try:
        exec(compile(source, "<function>", "exec"), module.__dict__)
    # As where it is called.
    except BaseException as error:  # noqa: BLE001
        fault, message = failure(error, bounds)
        if fault != "raised":
            raise Failed(fault, message) from None
        kind = type(error).__name__
        raise Failed("source", f"it does not import: {kind} at line {line_of(error)}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise Failed(MISSING, f"its source defines no function {name}")
    return function


def line_of(error: BaseException) -> int | None:
    """Returns the line of the source where it stopped."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<function>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def fitted(function: Any, arguments: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns what to call it with: the arguments, and the key where it takes one.

    Raises:
        Failed: They do not fit.
    """
    try:
        signature = inspect.signature(function)
        if "idempotency_key" in signature.parameters:
            arguments = {**arguments, "idempotency_key": key}
        signature.bind(**arguments)
    except (TypeError, ValueError) as error:
        raise Failed("arguments", f"its arguments do not fit: {words(error)}") from None
    return arguments


def failure(error: BaseException, bounds: dict[str, Any]) -> tuple[str, str]:
    """Returns the fault behind what was raised, and what to say of it."""
    cause: BaseException | None = error
    while cause is not None:
        said = words(cause)
        number = cause.errno if isinstance(cause, OSError) else None
        if isinstance(cause, MemoryError):
            return "limit", f"it wanted more memory than {bounds['memory_mib']} MiB"
        if number in SPENT:
            return "limit", f"it went past a bound on files, disk or memory: {said}"
        if number in REFUSED:
            return "forbidden", f"it tried what it may not: {said}"
        if type(cause).__name__ == "gaierror" and not bounds["network"]:
            return "forbidden", f"it may not reach the network: {said}"
        cause = cause.__cause__ or cause.__context__
    return "raised", words(error)


def words(error: BaseException) -> str:
    """Returns an exception in one short line."""
    try:
        said = " ".join(str(error).split())
    # What a function raises may fail in telling what it is.
    except BaseException:  # noqa: BLE001
        said = ""
    return f"{type(error).__name__}: {said}".removesuffix(": ")[:MOST_WORDS]


def channel() -> int:
    """Returns where to write; from now on what is printed goes nowhere."""
    os.closerange(3, 2**31 - 1)
    out, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return out


def write(out: int, what: bytes) -> None:
    """Writes all of it."""
    while what:
        what = what[os.write(out, what) :]


def main() -> None:
    """Runs one call."""
    out = channel()
    with open(0, "rb", closefd=False) as told:
        bounds = json.loads(told.readline())
        try:
            confine(bounds)
        except (OSError, Unavailable) as error:
            write(out, json.dumps({"unavailable": str(error)}).encode() + b"\n")
            return
        write(out, b'{"confined": true}\n')
        request = json.loads(told.read())
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    write(out, outcome({**request, "bounds": bounds}, bounds))
    os._exit(0)  # whatever threads it left


if __name__ == "__main__":
    main()
