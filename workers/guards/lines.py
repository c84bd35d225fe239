"""Lines to services behind connections: one client each, opened when it is needed.

A connection that changes gets a new client; what is under way on the old one ends as it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

from infra.dialling import open_client
from schemas.kinds import ConnectionSpec


@dataclass(slots=True)
class _Line:
    spec: ConnectionSpec
    client: httpx2.AsyncClient
    under_way: int = 0


class Lines:
    """Clients of connections, by name."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def lent(self, name: str, spec: ConnectionSpec) -> Iterator[httpx2.AsyncClient]:
        """Lends the client of a connection.

        Raises:
            ValueError: The connection's address is none, or would show its key to others.
        """
        line = self._lines.get(name)
        if line is None or line.spec != spec:
            if line is not None and not line.under_way:
                self._hang_up(line)
            line = self._lines[name] = _Line(spec, open_client(spec))
        line.under_way += 1
        try:
            yield line.client
        finally:
            line.under_way -= 1
            if not line.under_way and self._lines.get(name) is not line:
                self._hang_up(line)

    async def close(self) -> None:
        """Closes all clients."""
        for name in list(self._lines):
            self._hang_up(self._lines.pop(name))
        await asyncio.gather(*self._closing)

    def _hang_up(self, line: _Line) -> None:
        task = asyncio.create_task(line.client.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
