"""The topics of a captured table: made before its connector, for Connect itself makes none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from itertools import chain
from typing import Any

from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from infra.bus import TRANSFER_S, BusUnreachable, Record
from infra.connectors.source import Source
from infra.past import whole
from infra.settings import KafkaSettings
from schemas.topics import MAX_RECORD_BYTES

PARTITIONS = 6
# All of it, for as long as the table is captured: an index is built anew from its beginning. Not
# compacted: a TRUNCATE has no key, which the broker takes on no compacted topic.
CHANGES = {
    "cleanup.policy": "delete",
    "max.message.bytes": str(MAX_RECORD_BYTES),
    "retention.bytes": "-1",
    "retention.ms": "-1",
}
BEATS = {"cleanup.policy": "compact"}
# Asked again, should one be gone before it is read.
TOLD = {"cleanup.policy": "delete", "retention.ms": str(7 * 24 * 3600 * 1000)}
CONTENT = frozenset({KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.UNKNOWN_TOPIC_OR_PART})


class Topics:
    """Topics of captured tables; every call blocks and may raise BusUnreachable.

    Args:
        kafka: Where the broker is.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})

    def names(self) -> frozenset[str]:
        """Returns the names of all topics that there are."""
        try:
            return frozenset(self._admin.list_topics(timeout=TRANSFER_S).topics)
        except KafkaException as problem:
            raise _unreachable(problem) from None

    def make(self, source: Source) -> None:
        """Makes the topics of a capture; those that are there stay as they are."""
        wanted = [
            NewTopic(source.topic, PARTITIONS, config=CHANGES),
            NewTopic(source.heartbeats, 1, config=BEATS),
            NewTopic(source.notices, 1, config=TOLD),
        ]
        _wait(self._admin.create_topics(wanted))

    def empty(self, name: str) -> None:
        """Deletes what lies on a topic."""
        try:
            places = self._admin.list_topics(name, timeout=TRANSFER_S).topics[name].partitions
        except KafkaException as problem:
            raise _unreachable(problem) from None
        ends = [TopicPartition(name, place, OFFSET_END) for place in places]
        _wait(self._admin.delete_records(ends))

    def notices(self, source: Source) -> list[Record]:
        """Returns all that a connector has told of itself, the oldest first."""
        place = TopicPartition(source.notices, 0)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        try:
            # A client that looked before there was a leader finds none ever after, unless it is
            # told to look again.
            self._admin.list_topics(source.notices, timeout=TRANSFER_S)
            [end] = self._admin.list_offsets({place: latest}).values()
            ends = {0: end.result(TRANSFER_S).offset}
        except KafkaException as problem:
            raise _unreachable(problem) from None
        return list(chain.from_iterable(whole(self._kafka, source.notices, ends)))

    def delete(self, names: Iterable[str]) -> None:
        """Deletes topics; those that are not there are fine."""
        if listed := list(names):
            _wait(self._admin.delete_topics(listed))


def _wait(futures: Mapping[Any, Future[Any]]) -> None:
    for future in futures.values():
        try:
            future.result(TRANSFER_S)
        except KafkaException as problem:
            if problem.args[0].code() not in CONTENT:
                raise _unreachable(problem) from None


def _unreachable(problem: KafkaException) -> BusUnreachable:
    return BusUnreachable(f"the broker: {problem.args[0].str()}")
