"""Calls Python functions of the catalog in processes of their own that may do next to nothing.

The child confines itself before it reads any source; see ``confining.py`` for how, ``seccomp.py``
for what it may ask of the kernel, and the README of this folder for what that covers.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workers.tools import Checkpoint, Fault, ToolFailed
from workers.tools.seccomp import UnknownArchitecture, program

INSIDE = Path(__file__).with_name("inside.py")
COMMAND = (sys.executable, "-I", "-S", "-B", str(INSIDE))

# systemd keeps these for users that exist for a while only, so they own nothing anywhere.
USERS = range(61184, 65520)
_lent: set[int] = set()

# Faults that a child may claim: the others are ours to find.
CLAIMS = {Fault.ARGUMENTS, Fault.FORBIDDEN, Fault.LIMIT, Fault.RAISED, Fault.SOURCE}
MISSING = "missing"  # and this, which is a fault of the source
MOST_WORDS = 500
FRAME = 2048  # what an outcome takes beside the result: a few names, or a fault and its words
PACE_S = 0.05  # from one checkpoint to the next of a call, so that none keeps the journal busy
LAST_BREATH_S = 2.0  # how long a child may take to be gone that has closed its channel

SPENT = {
    signal.SIGKILL: "it was killed: the CPU time or the memory of the machine was spent",
    signal.SIGXCPU: "it used up its CPU time",
    signal.SIGXFSZ: "it wrote a larger file than it may",  # Python ignores it, C need not
}


class SandboxUnavailable(Exception):
    """This machine cannot confine a function as its bounds ask; says what is missing."""


class FunctionMissing(ToolFailed):
    """The source imports, and defines no function of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a call may take.

    Attributes:
        wall_s: Seconds from its start, that of its process included.
        cpu_s: Seconds of CPU, of all threads together.
        memory_mib: Address space, beside what the interpreter takes and what ``disk_mib`` does.
        disk_mib: All files together; they lie in memory. With 0 it has no folder to write to, and
            the machine needs no namespaces.
        file_mib: The largest file.
        open_files: Files open at once.
        threads: How many, the first one included; counted only where workers run as root.
        output_bytes: Its result, as JSON.
        checkpoint_bytes: Each checkpoint, as JSON.
        network: Whether it may reach the network, all that this machine reaches.
    """

    wall_s: float = 10.0
    cpu_s: int = 10
    memory_mib: int = 256
    disk_mib: int = 64
    file_mib: int = 32
    open_files: int = 64
    threads: int = 16
    output_bytes: int = 256 * 1024
    checkpoint_bytes: int = 64 * 1024
    network: bool = False


async def check(bounds: Bounds) -> None:
    """Calls a function that returns at once.

    Raises:
        SandboxUnavailable: This machine cannot do what the bounds ask.
        ToolFailed: It is too slow for them.
    """
    await run("def nothing(): return None", "nothing", {}, bounds, "")


async def run(
    source: str,
    function: str,
    arguments: Mapping[str, Any],
    bounds: Bounds,
    key: str,
    *,
    checkpoint: Checkpoint | None = None,
) -> Any:
    """Returns what a function returns: a JSON value.

    Args:
        source: Text of a module; it has the standard library and nothing else.
        function: Name in the catalog; the module's function has its last segment.
        arguments: By parameter.
        bounds: What it may take.
        key: Handed over where it has a parameter ``idempotency_key``.
        checkpoint: Handed over where it has a parameter ``checkpoint``, unless there is none.

    Raises:
        FunctionMissing: The source does not define it.
        SandboxUnavailable: This machine cannot do what the bounds ask.
        ToolFailed: It comes to no result.
    """
    request = {
        "source": source,
        "name": function.rpartition(".")[2],
        "arguments": dict(arguments),
        "key": key,
        "checkpoint": checkpoint and {"last": checkpoint.last},
    }
    with _user() as uid:
        try:
            async with asyncio.timeout(bounds.wall_s):
                return await _ask(request, bounds, uid, checkpoint)
        except TimeoutError:
            late = f"it took longer than {bounds.wall_s:g} s"
            raise ToolFailed(Fault.LIMIT, late) from None


async def _ask(
    request: dict[str, Any], bounds: Bounds, uid: int | None, checkpoint: Checkpoint | None
) -> Any:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        limit=max(bounds.output_bytes, bounds.checkpoint_bytes) + FRAME,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        cwd="/",
        env=_surroundings(bounds),
        start_new_session=True,
    )
    try:
        _tell(process, _orders(process.pid, bounds, uid), request)
        if checkpoint is None:
            _hang_up(process)
        await _confined(process)
        return await _answer(process, bounds, checkpoint)
    finally:
        # Nothing it started can be left: it may start threads only, and they end with it.
        await _end(process)


def _surroundings(bounds: Bounds) -> dict[str, str]:
    return {
        "HOME": "/tmp" if bounds.disk_mib else "/nonexistent",
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "1",  # others would take address space for each thread
        "PATH": "/usr/bin:/bin",
    }


def _orders(pid: int, bounds: Bounds, uid: int | None) -> dict[str, Any]:
    try:
        allowed = program(os.uname().machine, pid=pid, network=bounds.network)
    except UnknownArchitecture as error:
        raise SandboxUnavailable(str(error)) from None
    return {
        **asdict(bounds),
        "filter": allowed.hex(),
        "parent": os.getpid(),
        "uid": uid,
    }


def _tell(process: Process, *parts: dict[str, Any]) -> None:
    """Hands all over and goes on: a child that does not read ends for another reason."""
    assert process.stdin is not None
    process.stdin.write(b"".join(json.dumps(part).encode() + b"\n" for part in parts))


def _hang_up(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()


async def _confined(process: Process) -> None:
    """Returns once the child is confined; what it says later may be the function's own words.

    Raises:
        SandboxUnavailable: It cannot be.
        ToolFailed: It ended before it was.
    """
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        # The memory of the machine may be short for a moment, or somebody may have killed it.
        raise ToolFailed(Fault.RAISED, "its process ended early, before anything of it was run")
    said = json.loads(line)
    if "unavailable" in said:
        raise SandboxUnavailable(str(said["unavailable"]))


async def _answer(process: Process, bounds: Bounds, checkpoint: Checkpoint | None) -> Any:
    """Returns the result; saves each checkpoint that comes before it."""
    due = 0.0
    while (said := await _said(process, bounds)).endswith(b"\n"):
        number, text = _checkpoint(said, bounds)
        if checkpoint is None:
            raise _unreadable()
        await asyncio.sleep(due - time.monotonic())
        await checkpoint.save(text)
        due = time.monotonic() + PACE_S
        await _acknowledge(process, number)
    return _result(said) if said else await _silence(process)


async def _said(process: Process, bounds: Bounds) -> bytes:
    """Returns a line, or what comes last, which has no end of line; nothing at the end."""
    assert process.stdout is not None
    try:
        said = await process.stdout.readline()
    except ValueError:
        raise _too_large(bounds) from None
    if not said.endswith(b"\n") and len(said) > bounds.output_bytes + FRAME:
        raise _too_large(bounds)
    return said


def _too_large(bounds: Bounds) -> ToolFailed:
    return ToolFailed(Fault.LIMIT, f"its result is larger than {bounds.output_bytes} bytes")


def _checkpoint(said: bytes, bounds: Bounds) -> tuple[int, str]:
    """Returns the number of a checkpoint and its JSON; a function could have written anything."""
    try:
        line = json.loads(said)
        number, value = line["number"], line["checkpoint"]
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (KeyError, RecursionError, TypeError, ValueError):
        raise _unreadable() from None
    if not isinstance(number, int):
        raise _unreadable()
    if size > bounds.checkpoint_bytes:
        most = bounds.checkpoint_bytes
        raise ToolFailed(Fault.LIMIT, f"its checkpoint is larger than {most} bytes")
    return number, text


async def _acknowledge(process: Process, number: int) -> None:
    assert process.stdin is not None
    # One that is gone, or has closed its end, wants to hear nothing.
    with suppress(ConnectionError):
        if not process.stdin.is_closing():
            process.stdin.write(b"%d\n" % number)
            await process.stdin.drain()


def _result(said: bytes) -> Any:
    """Returns the result; a function could have written anything itself."""
    try:
        outcome = json.loads(said)
        # Refuses what no JSON has: numbers that are none, and halves of characters.
        json.dumps(outcome, allow_nan=False, ensure_ascii=False).encode()
        if "result" in outcome:
            return outcome["result"]
        claimed, message = outcome["fault"], str(outcome["message"])[:MOST_WORDS]
        fault = Fault.SOURCE if claimed == MISSING else Fault(claimed)
    except (KeyError, RecursionError, TypeError, ValueError):
        raise _unreadable() from None
    if claimed == MISSING:
        raise FunctionMissing(fault, message)
    raise ToolFailed(fault, message) if fault in CLAIMS else _unreadable()


def _unreadable() -> ToolFailed:
    return ToolFailed(
        Fault.RAISED, "it wrote what is no result: it returns one, and prints nothing"
    )


async def _silence(process: Process) -> Any:
    """Tells why a child that said nothing ended."""
    try:
        code = await asyncio.wait_for(process.wait(), LAST_BREATH_S)
    except TimeoutError:
        raise ToolFailed(Fault.RAISED, "it closed the channel for its result") from None
    if code >= 0:
        raise ToolFailed(Fault.RAISED, f"it ended its process (status {code}), with no result")
    ended = signal.Signals(-code)
    if ended in SPENT:
        raise ToolFailed(Fault.LIMIT, SPENT[ended])
    if ended is signal.SIGSYS:
        raise ToolFailed(Fault.FORBIDDEN, "it called the system as another processor would")
    raise ToolFailed(Fault.RAISED, f"its process crashed ({ended.name}), with no result")


async def _end(process: Process) -> None:
    if process.returncode is None:
        # Not `process.kill()`: that takes its status from whoever waits for it.
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    _hang_up(process)
    assert process.stdout is not None
    while await process.stdout.read(64 * 1024):
        pass  # a pipe that nobody reads to its end is never closed
    await process.wait()


@contextmanager
def _user() -> Iterator[int | None]:
    """Lends a user that no other call of this process has; None where only root could."""
    if os.geteuid() != 0:
        yield None
        return
    uid = random.choice([uid for uid in USERS if uid not in _lent])
    _lent.add(uid)
    try:
        yield uid
    finally:
        _lent.discard(uid)
