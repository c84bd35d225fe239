"""Topics on which the last word of each key holds: what stands there, and what comes after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

import structlog

from infra.bus import Record
from infra.registry import Reader, SchemaMissing
from infra.settings import KafkaSettings
from infra.tail import BEGINNING, Tail
from schemas.codec import Unreadable
from schemas.events import Event
from schemas.topics import Topic

E = TypeVar("E", bound=Event)

log = structlog.get_logger()


async def told(
    kafka: KafkaSettings, reader: Reader, topic: Topic[E], name: str
) -> AsyncGenerator[E | None, None]:
    """Yields every event of a topic from its beginning on, without end.

    None comes once: behind all that lay on the topic at the start. What is no event is passed over.

    Args:
        kafka: Where the broker is.
        reader: Decodes the records.
        topic: A topic that is compacted.
        name: Client id.

    Raises:
        BusUnreachable: No broker answers.
        LookupError: There is no such topic.
        TailBroken: It cannot be read on.
    """
    arrived: asyncio.Queue[list[Record] | BaseException | None] = asyncio.Queue()
    tail = Tail(
        kafka,
        [topic.name],
        BEGINNING,
        arrived.put_nowait,
        name,
        fail=arrived.put_nowait,
        caught_up=lambda: arrived.put_nowait(None),
        committed=False,
    )
    await tail.start()
    try:
        while True:
            lot = await arrived.get()
            if isinstance(lot, BaseException):
                raise lot
            if lot is None:
                yield None
            for record in lot or ():
                try:
                    yield await reader.read(record.value, topic.event)
                except (Unreadable, SchemaMissing) as problem:
                    log.warning("report unreadable", offset=record.offset, error=str(problem))
    finally:
        await tail.close()


async def last_told(
    kafka: KafkaSettings, reader: Reader, topic: Topic[E], name: str
) -> dict[str, E]:
    """Returns the last event of each key; errors and arguments are those of ``told``."""
    known: dict[str, E] = {}
    async with aclosing(told(kafka, reader, topic, name)) as events:
        async for event in events:
            if event is None:
                break
            known[topic.key(event)] = event
    return known
