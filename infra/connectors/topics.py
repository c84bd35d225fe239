"""The topics of a captured table: made before its connector, for Connect itself makes none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from infra.bus import TRANSFER_S, BusUnreachable
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
CONTENT = frozenset({KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.UNKNOWN_TOPIC_OR_PART})


class Topics:
    """Topics of captured tables; every call blocks and may raise BusUnreachable.

    Args:
        kafka: Where the broker is.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})

    def names(self) -> frozenset[str]:
        """Returns the names of all topics that there are."""
        try:
            return frozenset(self._admin.list_topics(timeout=TRANSFER_S).topics)
        except KafkaException as problem:
            raise _unreachable(problem) from None

    def make(self, changes: str, heartbeats: str) -> None:
        """Makes the two topics of a capture; those that are there stay as they are."""
        wanted = [
            NewTopic(changes, PARTITIONS, config=CHANGES),
            NewTopic(heartbeats, 1, config=BEATS),
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
