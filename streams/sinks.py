"""Sinks: events of a topic become rows of a table.

Rows are gathered for a moment and stored together with their log positions in one commit; only then
are the records settled. A record that comes again adds no row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from infra.bus import Record
from infra.lake import TABLES, EventTable, Row
from infra.offsets import rewind
from infra.settings import LakeSettings
from infra.telemetry import RECORDS, trace_id
from schemas.codec import Codec, SchemaUnlearned, Unreadable
from schemas.topics import Topic
from streams.steps import Fail, Runtime, Taken, Work

log = structlog.get_logger()

COMPACT_EVERY = 200
# Of one commit's records; in memory they are several times as large.
MOST_BYTES = 32 * 1024 * 1024


class Sink:
    """Work that stores: gathers rows and commits them with their offsets.

    Args:
        table: Where the rows go.
        settings: How long and how many rows are gathered.
        fail: Told what ended the work.
    """

    def __init__(self, table: EventTable, settings: LakeSettings, fail: Fail) -> None:
        self._table = table
        self._settings = settings
        self._fail = fail
        self._gathered: list[Taken] = []
        self._bytes = 0
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = asyncio.Event()
        self._commits = 0
        self._storing = asyncio.create_task(self._store_all())

    async def take(self, taken: Taken) -> None:
        """Gathers a row; waits while as many are gathered as one commit may carry."""
        await self._room.wait()
        self._gathered.append(taken)
        self._bytes += len(taken.record.value or b"")
        self._some.set()
        if len(self._gathered) >= self._settings.flush_rows or self._bytes > MOST_BYTES:
            self._room.clear()

    async def close(self) -> None:
        """Stores what is gathered."""
        self._closing.set()
        self._some.set()
        await self._storing

    async def _store_all(self) -> None:
        try:
            while not self._closing.is_set() or self._gathered:
                await self._some.wait()
                if self._room.is_set():
                    # Whoever is told to stop is killed if it takes its time.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._settings.flush_ms / 1000):
                            await self._closing.wait()
                await self._store()
        # Whatever the disk says ends the process: the records are delivered again.
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    async def _store(self) -> None:
        # After a rebalance records may come again before their first coming is stored.
        batch = sorted(
            self._gathered, key=lambda taken: (taken.record.partition, taken.record.offset)
        )
        self._gathered, self._bytes = [], 0
        self._some.clear()
        self._room.set()
        rows = [
            Row(
                taken.event,
                taken.record.topic,
                taken.record.partition,
                taken.record.offset,
                trace_id(taken.headers),
            )
            for taken in batch
        ]
        stored = await asyncio.to_thread(self._table.append, rows)
        RECORDS.labels("stored").inc(stored)
        RECORDS.labels("known").inc(len(rows) - stored)
        for taken in batch:
            taken.settle()
        self._commits += 1
        if self._commits % COMPACT_EVERY == 0:
            await asyncio.to_thread(self._table.compact)
            log.info("table compacted", table=self._table.name)


def open_recorder(runtime: Runtime, fail: Fail) -> Mapping[Topic[Any], Work]:
    """Returns a sink for each table of the lake, whose offsets are held to what it has.

    Raises:
        OffsetsHeld: A table was lost while other recorders are at work.
        TopicReplaced: A topic was made anew behind its table.
    """
    sinks: dict[Topic[Any], Work] = {}
    for name, spec in TABLES.items():
        table = EventTable.of(runtime.lake.root, name, group=runtime.name)
        stored = partial(table.offset, spec.topic.name)
        storable = partial(_readable, runtime.codec, spec.topic)
        rewind(runtime.kafka, runtime.name, spec.topic.name, stored, storable)
        sinks[spec.topic] = Sink(table, runtime.lake, fail)
    return sinks


def _readable(codec: Codec, topic: Topic[Any], record: Record) -> bool:
    try:
        codec.decode(record.value, topic.event)
    except Unreadable:
        return False
    except SchemaUnlearned:
        return True
    return True
