"""A wire to a database that lets only so much through, and only for so long.

PostgreSQL sends a row whole, up to a gigabyte, and its driver keeps it until it is complete:
neither can be told to stop. So the driver is connected here, and what comes in is counted before it
gets there. TLS is between the driver and the database, as without it.

Covered: addresses are dialled as they were judged; a server that never stops sending, or never says
anything, is cut off. Not covered: while a call lasts, another program of this machine can get
through here as far as the database's own login.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from types import TracebackType

LOOPBACK = "127.0.0.1"
PIECE = 64 * 1024
DIAL_S = 5.0


class Cut(StrEnum):
    """Why a wire was cut."""

    DEAD = "dead"  # no address answers
    FULL = "full"  # too much came in
    LATE = "late"  # its time is over


class Wire:
    """A port of this machine that leads to one server, until the block ends.

    Args:
        addresses: Where the server is; tried in this order.
        port: Its port.
        most: Bytes that may come in, over all connections.
        seconds: How long it holds.

    Attributes:
        port: The port of this machine.
        cut: Why it was cut; None while it was not.
    """

    def __init__(self, addresses: Sequence[str], port: int, *, most: int, seconds: float) -> None:
        self._addresses = addresses
        self._there = port
        self._left = most
        self._seconds = seconds
        self._ends: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self.port = 0
        self.cut: Cut | None = None

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._joined, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        later = asyncio.get_running_loop().call_later
        self._ending = later(self._seconds, self._cut_for, Cut.LATE)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.cancel()
        self._server.close()
        self._hang_up()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        task = asyncio.create_task(self._lead(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled = None if self.cut else await self._dial()
        if dialled is None:
            self._cut_for(Cut.DEAD)
            return
        answers, there = dialled
        self._ends.add(there)
        if self.cut:
            self._hang_up()
        await asyncio.gather(self._carry(reader, there), self._count(answers, writer))

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for address in self._addresses:
            try:
                async with asyncio.timeout(DIAL_S):
                    return await asyncio.open_connection(address, self._there)
            except (OSError, TimeoutError):
                continue
        return None

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while piece := await source.read(PIECE):
                target.write(piece)
                await target.drain()
        except OSError:
            pass
        target.close()

    async def _count(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while piece := await source.read(PIECE):
                self._left -= len(piece)
                if self._left < 0:
                    self._cut_for(Cut.FULL)
                    return
                target.write(piece)
                await target.drain()
        except OSError:
            pass
        target.close()

    def _cut_for(self, why: Cut) -> None:
        self.cut = self.cut or why
        self._hang_up()

    def _hang_up(self) -> None:
        for end in self._ends:
            end.transport.abort()
