"""Holds a group's committed offsets to what its store really has.

A store that keeps offsets beside its rows is the truth. Where the broker's committed offset is
ahead of it, the store was lost, replaced or restored from a backup, and the group must read again.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.bus import BATCH, TRANSFER_S, BusUnreachable, Record, fetch, partitions
from infra.settings import KafkaSettings

log = structlog.get_logger()

SILENCE_S = 10.0


class OffsetsHeld(RuntimeError):
    """Offsets must go back, but members of the group are at work; the message says what to do."""


class TopicReplaced(RuntimeError):
    """The store is ahead of the topic, which was made anew; the message says what to do."""


def rewind(
    kafka: KafkaSettings,
    group: str,
    topic: str,
    stored: Callable[[int], int | None],
    storable: Callable[[Record], bool],
) -> dict[int, int]:
    """Sets a group back to the first record that its store lacks, partition by partition.

    Args:
        kafka: Where the broker is.
        group: The group; it must be empty where something is to be set back.
        topic: What it consumes.
        stored: The last offset of a partition that the store has, or None.
        storable: Whether a record belongs into the store; dead letters, for one, do not.

    Returns:
        The new offset of each partition that was set back.

    Raises:
        BusUnreachable: The broker does not answer.
        LookupError: There is no such topic.
        OffsetsHeld: Other members are at work.
        TopicReplaced: The topic ends before what the store has.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        wanted = [TopicPartition(topic, each) for each in partitions(consumer, topic)]
        back: dict[int, int] = {}
        for each in consumer.committed(wanted, TRANSFER_S):
            begin, end = consumer.get_watermark_offsets(
                TopicPartition(topic, each.partition), TRANSFER_S
            )
            last = stored(each.partition)
            needed = begin if last is None else last + 1
            if needed > end:
                raise TopicReplaced(
                    f"the table has offset {last} of {topic}/{each.partition}, which ends at "
                    f"{end}: the topic was made anew. Move the table away and start again"
                )
            if last is not None and begin > needed:
                log.error(
                    "records are gone before they were stored",
                    topic=topic,
                    partition=each.partition,
                    first=needed,
                    until=begin,
                )
            first = TopicPartition(topic, each.partition, max(needed, begin))
            if _any(consumer, first, each.offset, storable):
                back[each.partition] = first.offset
    except KafkaException as problem:
        raise BusUnreachable(f"no broker answers: {problem.args[0].str()}") from None
    finally:
        consumer.close()
    if back:
        _set(kafka, group, topic, back)
        log.warning("store is behind its offsets: reading again", topic=topic, offsets=back)
    return back


def _any(
    consumer: Consumer, first: TopicPartition, until: int, storable: Callable[[Record], bool]
) -> bool:
    """Returns whether a storable record lies from one offset up to another."""
    if first.offset >= until:
        return False
    consumer.assign([first])
    while consumer.position([first])[0].offset < until:
        records = fetch(consumer, BATCH, SILENCE_S)
        if any(record.offset < until and storable(record) for record in records):
            return True
        # Reading again costs time; not reading what is there would lose rows.
        if not records:
            return True
    return False


def _set(kafka: KafkaSettings, group: str, topic: str, offsets: dict[int, int]) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    wanted = [TopicPartition(topic, each, offset) for each, offset in offsets.items()]
    asked = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)])
    try:
        result = asked[group].result(TRANSFER_S)
        refused = [each for each in result.topic_partitions or [] if each.error]
    except KafkaException:
        refused = wanted
    if refused:
        places = ", ".join(f"{each.topic}/{each.partition}" for each in refused)
        raise OffsetsHeld(
            f"the table lacks records of {places} that group {group} has read, and members of the "
            f"group are at work: stop every {group}, then start one"
        )
