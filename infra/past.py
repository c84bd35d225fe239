"""What lies on the log already, read once more and without a group."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.bus import BATCH, TRANSFER_S, BusUnreachable, Record, fetch
from infra.settings import KafkaSettings

SILENCE_S = 1.0


@contextmanager
def looking_back(kafka: KafkaSettings, name: str) -> Iterator[Consumer]:
    """Gives a consumer to be assigned, and closes it; what it takes need not be committed.

    Args:
        kafka: Where the broker is.
        name: Names a group that the consumer does not join.

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
            "log_level": 0,
        }
    )
    with closing(consumer):
        try:
            yield consumer
        except KafkaException as problem:
            raise BusUnreachable(f"no broker answers: {problem.args[0].str()}") from None


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
