"""An MCP server as a process of this machine, asked over its pipes (the transport ``stdio``).

The SDK's own way to start one hands it parts of the environment, and reads lines of any length.
Here it has none, a folder of its own that goes with it, bounds (``launch.py``), and a group of
processes that is killed at the end.

Covered: what it and what it starts leave behind, unless that leaves its group; time, memory and
size of files, of each process. Not covered: it is a program of this machine, run by the user that
starts it: it reads what that user may read, key files and the environment of that user's other
processes among it unless they hide (prctl(2), PR_SET_DUMPABLE), and reaches the network.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

LAUNCH = Path(__file__).with_name("launch.py")
# Where it finds the secret of its connection.
SECRET = "MCP_SECRET"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How long it may take to end by itself when nobody asks any more, and to be gone when it is killed.
CLOSE_S = 1.0

Told = MemoryObjectReceiveStream[SessionMessage | Exception]
Telling = MemoryObjectSendStream[SessionMessage | Exception]
Asked = MemoryObjectReceiveStream[SessionMessage]
Asking = MemoryObjectSendStream[SessionMessage]


class LineTooLong(Exception):
    """A server wrote a longer line than anybody reads."""


@asynccontextmanager
async def piped(
    command: Sequence[str], secret: str | None, most_bytes: int
) -> AsyncIterator[tuple[Told, Asking]]:
    """Runs a server for a block, and gives what it says and what takes what it is asked.

    Args:
        command: The program and its arguments.
        secret: Is in its environment, as ``MCP_SECRET``.
        most_bytes: Of one line that it writes.

    Raises:
        ExceptionGroup: Of LineTooLong, or of what the block raised.
        OSError: No process can be started.
    """
    telling, told = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    asking, asked = anyio.create_memory_object_stream[SessionMessage](0)
    with TemporaryDirectory(prefix="tessera-mcp-", ignore_cleanup_errors=True) as folder:
        process = await _started(command, secret, folder, most_bytes)
        try:
            async with telling, told, asking, asked, anyio.create_task_group() as group:
                group.start_soon(_listen, process, telling)
                group.start_soon(_speak, process, asked)
                yield told, asking
                group.cancel_scope.cancel()
        finally:
            await _end(process)


async def _started(
    command: Sequence[str], secret: str | None, folder: str, most_bytes: int
) -> Process:
    surroundings = {"HOME": folder, "LANG": "C.UTF-8", "PATH": PATH, "TMPDIR": folder}
    if secret is not None:
        surroundings[SECRET] = secret
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-B", str(LAUNCH), str(os.getpid()), *command),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        cwd=folder,
        env=surroundings,
        start_new_session=True,
        limit=most_bytes,
    )


async def _listen(process: Process, telling: Telling) -> None:
    """Passes on what a server says, until it says no more."""
    assert process.stdout is not None
    async with telling:
        with suppress(anyio.BrokenResourceError, ConnectionError):
            while line := await _line(process.stdout):
                # A library may print what is no message; that says nothing to anybody.
                if line.startswith(b"{"):
                    await telling.send(_message(line))


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:
        raise LineTooLong from None


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as problem:
        return problem


async def _speak(process: Process, asked: Asked) -> None:
    """Passes on what a server is asked; what it cannot be told any more it is not told."""
    assert process.stdin is not None
    with suppress(ConnectionError):
        async for each in asked:
            text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(text.encode() + b"\n")
            await process.stdin.drain()


async def _end(process: Process) -> None:
    """Lets a server end, then kills what is left of it and of what it started."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await _gone(process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await _gone(process)


async def _gone(process: Process) -> None:
    """Returns when a process has ended and nobody can write for it any more, or after a while."""
    assert process.stdout is not None
    # In a task that was cut off before, asyncio's own timeout ends as if it were cut off once more,
    # in the first releases of Python 3.11.
    with anyio.move_on_after(CLOSE_S, shield=True):
        # A pipe that nobody reads to its end is never closed.
        while await process.stdout.read(64 * 1024):
            pass
        await process.wait()
