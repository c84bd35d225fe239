"""What the topic of the catalog says, and how it differs from the store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from catalog.relay.transactions import Stopped
from catalog.store.store import Snapshot
from infra.bus import BATCH, POLL_S
from infra.registry import Registry, SchemaMissing
from infra.settings import KafkaSettings
from schemas.codec import Codec, SchemaUnlearned, Unreadable
from schemas.events import CatalogChanged
from schemas.topics import CATALOG_CHANGED

log = structlog.get_logger()


class TopicAhead(RuntimeError):
    """The topic tells of changes that the store never made, as after a restore of an older one."""


@dataclass(slots=True)
class Told:
    """The last word of the topic on each entry, by record key.

    Attributes:
        position: The highest that was read.
    """

    entries: dict[str, CatalogChanged] = field(default_factory=dict)
    position: int = 0

    def hear(self, key: str, changed: CatalogChanged | None) -> None:
        """Takes in the next record; None for one that cannot be read."""
        if changed is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = changed
            self.position = max(self.position, changed.position)


def differences(snapshot: Snapshot, told: Told, now: datetime) -> Iterator[CatalogChanged]:
    """Yields what must be published for the topic to say what the store says.

    Raises:
        TopicAhead: No publication can make them agree: readers keep the higher position.
    """
    if told.position > snapshot.position:
        raise _ahead(f"it is at {told.position}, the store at {snapshot.position}")
    live = set()
    for entry in snapshot.entries:
        key = CATALOG_CHANGED.key(entry)
        live.add(key)
        known = told.entries.get(key)
        if known is None or known.position < entry.position:
            yield entry
        elif (known.position, known.body) != (entry.position, entry.body):
            raise _ahead(f"it differs on {key} at {known.position}")
    for key, known in told.entries.items():
        if key not in live and known.body is not None:
            if known.position >= snapshot.position:
                raise _ahead(f"it has {key} at {known.position}")
            yield CatalogChanged(
                position=snapshot.position, kind=known.kind, name=known.name, changed_at=now
            )


def _ahead(how: str) -> TopicAhead:
    return TopicAhead(
        f"{CATALOG_CHANGED.name} and the store are not of one history: {how}. If this is the right "
        "database, delete the topic: it is made anew from the store at the next start"
    )


def read(kafka: KafkaSettings, codec: Codec, registry: Registry, stop: threading.Event) -> Told:
    """Returns what the topic says up to its end; blocks.

    Raises:
        Stopped: The broker did not answer before the stop.
        KafkaException: The broker does not answer, or there is no such topic.
        RegistryUnreachable: A writer's schema is not known here, and the registry is silent.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "catalog-relay",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    told = Told()
    try:
        consumer.assign([TopicPartition(CATALOG_CHANGED.name, 0, OFFSET_BEGINNING)])
        while _read_on(consumer, told, codec, registry):
            if stop.is_set():
                raise Stopped
    finally:
        consumer.close()
    return told


def _read_on(consumer: Consumer, told: Told, codec: Codec, registry: Registry) -> bool:
    """Hears the records that are there; returns whether the end is yet to come."""
    for message in consumer.consume(BATCH, POLL_S):
        error = message.error()
        if error is None:
            key = (message.key() or b"").decode(errors="replace")
            told.hear(key, _decoded(message.value(), codec, registry))
        elif error.code() == KafkaError._PARTITION_EOF:
            return False
        elif error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(error)
    return True


def _decoded(value: bytes | None, codec: Codec, registry: Registry) -> CatalogChanged | None:
    try:
        return _learning(value, codec, registry)
    except (SchemaMissing, Unreadable) as problem:
        log.error("record of the catalog cannot be read", error=str(problem))
        return None


def _learning(value: bytes | None, codec: Codec, registry: Registry) -> CatalogChanged:
    try:
        return codec.decode(value, CatalogChanged)
    except SchemaUnlearned as unlearned:
        codec.learn(unlearned.schema_id, registry.schema(unlearned.schema_id))
    return codec.decode(value, CatalogChanged)
