"""What lies on the log already, read once more and without a group."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from typing import TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from infra.bus import BATCH, TRANSFER_S, BusUnreachable, Record, fetch
from infra.settings import KafkaSettings

T = TypeVar("T")

SILENCE_S = 1.0


@contextmanager
def looking_back(
    kafka: KafkaSettings, name: str, *, tells_ends: bool = False
) -> Iterator[Consumer]:
    """Gives a consumer to be assigned, and closes it; what it takes need not be committed.

    Args:
        kafka: Where the broker is.
        name: Names a group that the consumer does not join.
        tells_ends: Whether it says where a partition ends.

    Raises:
        BusUnreachable: No broker answers.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": name,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            # As the gateway's own consumers: it takes what lies there, committed or not.
            "isolation.level": "read_uncommitted",
            # What lies behind the last record of interest is read ahead in vain.
            "queued.max.messages.kbytes": 16 * 1024,
            "fetch.queue.backoff.ms": 5,
            # What is asked next must not wait behind a fetch that finds nothing.
            "fetch.wait.max.ms": 10,
            "enable.partition.eof": tells_ends,
            "log_level": 0,
        }
    )
    with closing(consumer):
        try:
            yield consumer
        except KafkaException as problem:
            raise BusUnreachable(f"no broker answers: {problem.args[0].str()}") from None


def written(
    kafka: KafkaSettings, topic: str, partition: int, since: datetime, name: str
) -> Generator[list[Record], None, None]:
    """Yields what lies on a partition since a moment; blocks.

    Args:
        kafka: Where the broker is.
        topic: What is read.
        partition: Of the topic.
        since: The moment, by the time that records carry.
        name: Names a group that nobody joins.

    Raises:
        BusUnreachable: No broker answers, or not to the end.
    """
    place = TopicPartition(topic, partition, int(since.timestamp() * 1000))
    ended: list[Message] = []
    with looking_back(kafka, name, tells_ends=True) as consumer:
        consumer.assign(consumer.offsets_for_times([place], TRANSFER_S))
        while not ended:
            records = fetch(consumer, BATCH, TRANSFER_S, ended.append)
            if not records and not ended:
                raise BusUnreachable(f"{topic} is not read to its end")
            yield records


def before(
    kafka: KafkaSettings, record: Record, since_ms: int, known: int
) -> Generator[Record, None, None]:
    """Yields the records before one on its partition; blocks. To be closed when read in part.

    Args:
        kafka: Where the broker is.
        record: The first that is not of interest.
        since_ms: The first instant of interest, in milliseconds since 1970.
        known: The first offset of interest.

    Raises:
        BusUnreachable: No broker answers.
    """
    place = TopicPartition(record.topic, record.partition, since_ms)
    with looking_back(kafka, f"recall-{record.topic}") as consumer:
        [start] = consumer.offsets_for_times([place], TRANSFER_S)
        if 0 <= start.offset < record.offset and known < record.offset:
            start.offset = max(start.offset, known)
            consumer.assign([start])
            yield from _up_to(consumer, record)


def whole(
    kafka: KafkaSettings, topic: str, ends: Mapping[int, int]
) -> Generator[list[Record], None, None]:
    """Yields what lies on a topic from its beginning on; blocks. To be closed when read in part.

    Args:
        kafka: Where the broker is.
        topic: What is read.
        ends: By partition, the first offset that is not of interest.

    Raises:
        BusUnreachable: No broker answers, or not to the end.
    """
    left = {partition for partition, end in ends.items() if end > 0}
    told: list[Message] = []

    with looking_back(kafka, f"whole-{topic}", tells_ends=True) as consumer:
        consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in left])
        while left:
            told.clear()
            records = fetch(consumer, BATCH, TRANSFER_S, told.append)
            if not records and not told:
                raise BusUnreachable(f"{topic} is not read to its end")
            left -= {each.partition() or 0 for each in told}
            left -= {each.partition for each in records if each.offset + 1 >= ends[each.partition]}
            yield [each for each in records if each.offset < ends[each.partition]]


def those(
    kafka: KafkaSettings, topic: str, wanted: Iterable[tuple[int, int]]
) -> Generator[Record, None, None]:
    """Yields some records, by partition and offset; blocks. Those that are gone are left out.

    Args:
        kafka: Where the broker is.
        topic: Where they lie.
        wanted: Partitions and offsets.

    Raises:
        BusUnreachable: No broker answers.
    """
    offsets: defaultdict[int, list[int]] = defaultdict(list)
    for partition, offset in sorted(set(wanted)):
        offsets[partition].append(offset)
    with looking_back(kafka, f"those-{topic}", tells_ends=True) as consumer:
        for partition, several in offsets.items():
            yield from _of_partition(consumer, TopicPartition(topic, partition), several)


async def stepped(made: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """Yields what a generator does that blocks, which goes on in a thread.

    Where this is left amid a step, the generator is closed once that is over.
    """
    step: asyncio.Future[T | None] | None = None
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, made, None))
            found = await asyncio.shield(step)
            if found is None:
                return
            yield found
    finally:
        if step is None or step.done():
            made.close()
        else:
            step.add_done_callback(lambda _: made.close())


def _of_partition(consumer: Consumer, place: TopicPartition, wanted: list[int]) -> Iterator[Record]:
    """Yields the records of a partition at offsets that are sorted."""
    following = wanted[0]
    ended: list[Message] = []
    consumer.assign([TopicPartition(place.topic, place.partition, following)])
    while following <= wanted[-1] and not ended:
        records = fetch(consumer, BATCH, TRANSFER_S, ended.append)
        if not records and not ended:
            raise BusUnreachable(f"{place.topic} is not read on")
        for each in records:
            if each.partition == place.partition:
                at = bisect_left(wanted, each.offset)
                if at < len(wanted) and wanted[at] == each.offset:
                    yield each
                following = each.offset + 1
        at = bisect_left(wanted, following)
        # What lies between is read over where it is little.
        if at < len(wanted) and wanted[at] - following > BATCH:
            following = wanted[at]
            consumer.seek(TopicPartition(place.topic, place.partition, following))


def _up_to(consumer: Consumer, record: Record) -> Iterator[Record]:
    """Yields the records before one; it lies on the log itself, unless it was just deleted."""
    place = TopicPartition(record.topic, record.partition)
    while True:
        for each in (records := fetch(consumer, BATCH, SILENCE_S)):
            if each.offset >= record.offset:
                return
            yield each
        if not records and consumer.get_watermark_offsets(place, TRANSFER_S)[0] >= record.offset:
            return
