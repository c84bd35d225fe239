"""The control socket: one line of JSON to the supervisor, one line back.

A unix socket's path may have 107 bytes and a home may be deeper than that, so both sides name it
through an open descriptor of its folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

NAME = "control.sock"
TIMEOUT_S = 60.0

Answer = Callable[[bytes], Awaitable[bytes]]


class Refused(Exception):
    """The supervisor did not do what was asked; the message is its reason."""


class NotRunning(Exception):
    """No supervisor listens in this home."""


@contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)


@asynccontextmanager
async def listen(folder: Path, answer: Answer) -> AsyncIterator[None]:
    """Answer requests in ``folder`` while the block runs."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await answer(await reader.readline()))
            await writer.drain()
        finally:
            writer.close()

    with _short_path(folder) as path:
        server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()
        (folder / NAME).unlink(missing_ok=True)


def ask(folder: Path, verb: str, name: str | None = None) -> None:
    """Make one request and wait until it is carried out; blocks.

    Raises:
        NotRunning: nobody listens.
        Refused: the supervisor would not.
    """
    try:
        with _short_path(folder) as path, socket.socket(socket.AF_UNIX) as link:
            link.settimeout(TIMEOUT_S)
            link.connect(path)
            link.sendall(json.dumps({"verb": verb, "name": name}).encode() + b"\n")
            reply = link.makefile().readline()
    except PermissionError as failure:
        raise _of_another(folder) from failure
    except (FileNotFoundError, ConnectionRefusedError) as failure:
        raise NotRunning(f"no stack is running in {folder.parent}") from failure
    if error := json.loads(reply or "{}").get("error"):
        raise Refused(error)


def listening(folder: Path) -> bool:
    """Whether a supervisor listens in ``folder``.

    Raises:
        Refused: it is another user's.
    """
    try:
        with _short_path(folder) as path, socket.socket(socket.AF_UNIX) as link:
            link.settimeout(TIMEOUT_S)
            link.connect(path)
    except PermissionError as failure:
        raise _of_another(folder) from failure
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def _of_another(folder: Path) -> Refused:
    return Refused(
        f"the stack in {folder.parent} is another user's; choose a STACK_HOME of your own"
    )
