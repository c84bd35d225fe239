"""Following the topic of kept answers: every gateway process has them all, within its bounds.

The topic is read from as far back as any endpoint keeps an answer, and only while one does. A cache
is never needed, so nothing that goes wrong here ends the process, and no answer waits for it: what
cannot be read is passed over, what comes faster than it is taken in pushes out what came before it,
and reading that breaks begins anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from datetime import timedelta

import structlog

from infra.bus import Record
from infra.catalog import CatalogView
from infra.registry import Reader, SchemaMissing
from infra.settings import KafkaSettings
from infra.tail import Tail
from infra.telemetry import described, now
from schemas.codec import Unreadable
from schemas.events import CompletionCached
from schemas.shapes import length
from schemas.topics import COMPLETION_CACHED
from streams.gateway.cache import Cache

log = structlog.get_logger()

RETENTION = timedelta(milliseconds=COMPLETION_CACHED.retention_ms)
LOOK_S = 1.0
PAUSE_S = 10.0
# Bytes of records that wait to be taken in.
MOST_WAITING = 64 * 1024 * 1024
# Records after which others have their turn.
LOT = 100


class Waiting:
    """Records that wait to be taken in; beyond a bound, the oldest are let go."""

    def __init__(self, most_bytes: int = MOST_WAITING) -> None:
        self._most_bytes = most_bytes
        self._records: deque[Record] = deque()
        self._bytes = 0
        self._there = asyncio.Event()

    def put(self, records: list[Record]) -> None:
        """Takes records."""
        self._records.extend(records)
        self._bytes += sum(len(record.value or b"") for record in records)
        while self._bytes > self._most_bytes:
            self._pop()
        if self._records:
            self._there.set()

    async def get(self) -> Record:
        """Returns the next record; waits until there is one."""
        while not self._records:
            self._there.clear()
            await self._there.wait()
        return self._pop()

    def _pop(self) -> Record:
        record = self._records.popleft()
        self._bytes -= len(record.value or b"")
        return record


class Following:
    """Keeps a cache filled while some endpoint keeps answers. Made inside the running loop.

    Args:
        kafka: Where the broker is.
        reader: Decodes the records.
        view: The catalog.
        cache: What is filled; emptied when no endpoint keeps answers any more.
        name: Client id.
    """

    def __init__(
        self, kafka: KafkaSettings, reader: Reader, view: CatalogView, cache: Cache, name: str
    ) -> None:
        self._kafka = kafka
        self._reader = reader
        self._view = view
        self._cache = cache
        self._name = f"{name}-cached"
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stops following."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _follow(self) -> None:
        while True:
            if reach(self._view) is not None:
                try:
                    await self._fill()
                # Whatever it is: without a cache all goes on as well, only dearer.
                except Exception as error:  # noqa: BLE001
                    log.warning("cached answers not followed", error=described(error))
                    await asyncio.sleep(PAUSE_S)
                self._cache.clear()
            await asyncio.sleep(LOOK_S)

    async def _fill(self) -> None:
        """Fills the cache until no endpoint keeps answers any more, or reading breaks."""
        waiting = Waiting()
        broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end(error: BaseException) -> None:
            if not broken.done():
                broken.set_exception(error)

        since = now() - (reach(self._view) or timedelta(0))
        tail = Tail(
            self._kafka,
            [COMPLETION_CACHED.name],
            since,
            waiting.put,
            self._name,
            fail=end,
        )
        taking = asyncio.create_task(self._take(waiting))
        try:
            await tail.start()
            log.info("cached answers followed", since=since.isoformat())
            while reach(self._view) is not None:
                await asyncio.wait([broken, taking], timeout=LOOK_S)
                if broken.done() or taking.done():
                    await (broken if broken.done() else taking)
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            await tail.close()

    async def _take(self, waiting: Waiting) -> None:
        count = 0
        while True:
            record = await waiting.get()
            try:
                cached = await self._reader.read(record.value, CompletionCached)
            except (Unreadable, SchemaMissing) as problem:
                log.warning("cached answer unreadable", offset=record.offset, error=str(problem))
            else:
                self._cache.take(cached, now())
            count += 1
            if count % LOT == 0:
                await asyncio.sleep(0)


def reach(view: CatalogView) -> timedelta | None:
    """Returns how far back kept answers are good for some endpoint; None where none keeps any."""
    caches = [each.spec.cache for each in view.endpoints.values() if each.spec.cache]
    return min(RETENTION, max(length(cache.lasts) for cache in caches)) if caches else None
