"""Ingest: what the bus says of where things come from becomes edges.

At least once: a batch's edges and the positions behind it are one transaction, and telling an edge
again changes nothing. The positions in the database are the truth, so a restored backup is caught
up from where it stood; what is committed on the broker only tells of the lag. A record that cannot
be read, or whose edges cannot be kept, goes to the dead letters whole: all edges of it or none.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection

from catalog.lineage.edges import tell
from catalog.lineage.lineage import edges_of_change, edges_of_row, unfit
from infra.bus import POLL_S, Publisher, Record, fetch, membership
from infra.deadletters import bury
from infra.registry import Reader, Registry, SchemaMissing
from infra.settings import KafkaSettings
from schemas.codec import Codec, Unreadable
from schemas.events import DeadLetterCause, LineageRecorded
from schemas.topics import (
    CATALOG_CHANGED,
    INFERENCE_RECORDED,
    LINEAGE_RECORDED,
    Outgoing,
    Topic,
)

log = structlog.get_logger()

GROUP = "catalog-lineage"
MOST_RECORDS = 2000


class Source(NamedTuple):
    """A topic, and what its events say."""

    topic: Topic[Any]
    edges_of: Callable[[Any], LineageRecorded]


def _as_told(recorded: LineageRecorded) -> LineageRecorded:
    return recorded


SOURCES: dict[str, Source] = {
    CATALOG_CHANGED.name: Source(CATALOG_CHANGED, edges_of_change),
    INFERENCE_RECORDED.name: Source(INFERENCE_RECORDED, edges_of_row),
    LINEAGE_RECORDED.name: Source(LINEAGE_RECORDED, _as_told),
}


class Ingest:
    """One member of the group; any number of them share the work.

    Args:
        engine: The catalog's database.
        kafka: Where the broker is.
        registry: Schemas of what is read and of dead letters.
    """

    def __init__(self, engine: Engine, kafka: KafkaSettings, registry: Registry) -> None:
        self._engine = engine
        self._kafka = kafka
        self._registry = registry

    def run(self, stop: threading.Event) -> None:
        """Works until told to stop; blocks, in a thread without an event loop.

        Raises:
            KafkaException: The consumer cannot go on.
            PublishFailed: The broker does not take a dead letter.
            RegistryUnreachable: The registry does not answer at the start.
            SchemaMissing: Provisioning has not run.
            SQLAlchemyError: The database does not take the edges; they are read again next time.
        """
        asyncio.run(self._run(stop))

    async def _run(self, stop: threading.Event) -> None:
        codec = Codec(self._registry.ids())
        reader = Reader(codec, self._registry)
        publisher = Publisher(self._kafka, codec, GROUP)
        # What the relay aborts was committed in the database before, and is told again.
        consumer = Consumer(membership(self._kafka, GROUP, GROUP, committed=False))
        consumer.subscribe(list(SOURCES), on_assign=self._assigned)
        try:
            while not stop.is_set():
                if records := fetch(consumer, MOST_RECORDS, POLL_S):
                    await self._take(records, reader, publisher)
                    _commit(consumer, records)
        finally:
            consumer.close()
            await publisher.close()

    async def _take(self, records: Sequence[Record], reader: Reader, publisher: Publisher) -> None:
        told: list[LineageRecorded] = []
        letters: list[Outgoing] = []
        for record in records:
            said = await _said(record, reader)
            if isinstance(said, LineageRecorded):
                told.append(said)
            else:
                letters.append(said)
        if letters:
            await publisher.publish(publisher.encode(letters))
        with self._engine.begin() as connection:
            count = tell(connection, told)
            _advance(connection, records)
        log.debug("edges told", records=len(records), edges=count)

    def _assigned(self, consumer: Consumer, new: list[TopicPartition]) -> None:
        with self._engine.begin() as connection:
            known = _positions(connection)
        for each in new:
            # Never told of here: from the beginning, whatever the broker remembers of the group.
            each.offset = known.get((each.topic, each.partition), 0)
        consumer.incremental_assign(new)


async def _said(record: Record, reader: Reader) -> LineageRecorded | Outgoing:
    source = SOURCES[record.topic]
    try:
        told = source.edges_of(await reader.read(record.value, source.topic.event))
    except Unreadable as problem:
        return bury(record, GROUP, DeadLetterCause.UNREADABLE, str(problem))
    except SchemaMissing as problem:
        return bury(record, GROUP, DeadLetterCause.SCHEMA_UNKNOWN, str(problem))
    wrong = unfit(told)
    return bury(record, GROUP, DeadLetterCause.STEP_FAILED, wrong) if wrong else told


_POSITIONS = text("SELECT topic, partition, next FROM lineage_position")
_ADVANCE = text("""
INSERT INTO lineage_position (topic, partition, next) VALUES (:topic, :partition, :next)
ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next
""")


def _positions(connection: Connection) -> dict[tuple[str, int], int]:
    rows = connection.execute(_POSITIONS)
    return {(topic, partition): offset for topic, partition, offset in rows}


def _advance(connection: Connection, records: Iterable[Record]) -> None:
    behind = [
        {"topic": topic, "partition": partition, "next": offset}
        for (topic, partition), offset in sorted(_behind(records).items())
    ]
    connection.execute(_ADVANCE, behind)


def _behind(records: Iterable[Record]) -> dict[tuple[str, int], int]:
    """Returns the offset behind the last record of each partition."""
    return {(each.topic, each.partition): each.offset + 1 for each in records}


def _commit(consumer: Consumer, records: Iterable[Record]) -> None:
    offsets = [TopicPartition(*place, offset) for place, offset in _behind(records).items()]
    try:
        consumer.commit(offsets=offsets, asynchronous=True)
    except KafkaException as problem:
        log.warning("commit failed", error=problem.args[0].name())
