"""From the outbox to the bus: what was committed is published, in the order of commits.

One relay works at a time: a new one fences the old. A lot is removed from the outbox after it lies
on the bus, so a crash between the two publishes it again; readers go by position, and the audit by
id. Nothing is published that was not committed, and nothing that was is left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from pydantic import ValidationError

from catalog.relay import told
from catalog.relay.transactions import Stopped, Transactions
from catalog.store.outbox import PUBLISHED, ROWS_AT_ONCE
from catalog.store.store import Store
from infra.bus import Encoded
from infra.provision import make_topics, members
from infra.registry import Registry
from infra.settings import KafkaSettings
from infra.sql import Listener
from infra.telemetry import described, now
from schemas.codec import Codec
from schemas.events import CatalogChanged
from schemas.topics import CATALOG_CHANGED, Outgoing, Topic

log = structlog.get_logger()

TRANSACTIONAL_ID = "tessera-catalog-relay"
CHANNEL = "outbox"

TRANSFER_S = 10.0
# Notifications wake it at once; this is how soon it sees a stop.
POLL_S = 0.2
LOOK_EVERY_S = 5.0


class TopicLost(RuntimeError):
    """The topic was deleted or made anew while the relay ran: the next start fills it."""


class Relay:
    """Publishes the outbox; ``run`` in a thread of its own.

    Args:
        store: Whose outbox it is.
        kafka: Where the broker is.
        codec: Encodes the events.
        registry: Where the schemas of new topics are registered.

    Attributes:
        ready: Set once the topic says what the store says, and the outbox is empty.
    """

    def __init__(
        self, store: Store, kafka: KafkaSettings, codec: Codec, registry: Registry
    ) -> None:
        self.ready = threading.Event()
        self._store = store
        self._kafka = kafka
        self._codec = codec
        self._registry = registry
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        self._made: set[str] = set()
        self._topic_id = ""
        self._looked_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Publishes what there is and what comes until the stop; blocks.

        Raises:
            WriterLost: Another relay has taken over, or the broker refuses this one for good.
            TopicLost: The topic is not the one that it was.
            TopicAhead: The topic tells of changes that the store never made.
            ProvisioningFailed: A topic cannot be made.
            RegistryUnreachable: A schema cannot be registered.
            sqlalchemy.exc.OperationalError: The database is gone.
        """
        listener = Listener(self._store.engine, CHANNEL)
        writer = Transactions(self._kafka, TRANSACTIONAL_ID, stop)
        try:
            self._start(writer, stop)
            while not stop.is_set():
                if not self._publish_next(writer):
                    self.ready.set()
                    self._look()
                    listener.wait(POLL_S)
        except Stopped:
            log.info("relay stopped before the broker answered")
        finally:
            self.ready.clear()
            listener.close()

    def _start(self, writer: Transactions, stop: threading.Event) -> None:
        make_topics(self._admin, list(PUBLISHED))
        writer.begin()
        # What waits is told first, so that only what was lost remains to be told twice.
        while self._publish_next(writer):
            pass
        self._topic_id = self._identity()
        known = told.read(self._kafka, self._codec, self._registry, stop)
        snapshot = self._store.snapshot()
        self._prepare(snapshot.entries)
        missing = list(told.differences(snapshot, known, now()))
        for start in range(0, len(missing), ROWS_AT_ONCE):
            lot = missing[start : start + ROWS_AT_ONCE]
            self._publish(writer, [Outgoing(CATALOG_CHANGED, changed) for changed in lot])
        log.info("topic compared", entries=len(snapshot.entries), published=len(missing))

    def _publish_next(self, writer: Transactions) -> bool:
        """Publishes the oldest lot of the outbox; returns whether there was one."""
        waiting = self._store.waiting()
        if not waiting:
            return False
        lot = [each.outgoing for each in waiting]
        self._prepare(event for _, event in lot if isinstance(event, CatalogChanged))
        self._publish(writer, lot)
        self._store.forget(waiting[-1].id)
        return True

    def _publish(self, writer: Transactions, lot: Sequence[Outgoing]) -> None:
        writer.publish(
            [
                Encoded(topic.name, topic.key(event).encode(), self._codec.encode(event))
                for topic, event in lot
            ]
        )

    def _prepare(self, changes: Iterable[CatalogChanged]) -> None:
        """Makes the topics that entries need, before anybody hears of the entries."""
        needed = {topic.name: topic for changed in changes for topic in _members(changed)}
        missing = [topic for name, topic in needed.items() if name not in self._made]
        if not missing:
            return
        make_topics(self._admin, missing)
        self._registry.register_all(missing)
        self._made.update(needed)

    def _look(self) -> None:
        """Makes sure now and then that the topic is still the one that was compared."""
        if time.monotonic() - self._looked_at > LOOK_EVERY_S:
            self._looked_at = time.monotonic()
            try:
                found = self._identity()
            except (KafkaException, TimeoutError) as problem:
                log.warning("broker awaited", error=described(problem))
                return
            if found != self._topic_id:
                raise TopicLost(f"{CATALOG_CHANGED.name} is not the topic that it was")

    def _identity(self) -> str:
        """Returns the broker's id of the topic, which one made anew does not have."""
        name = CATALOG_CHANGED.name
        asked = self._admin.describe_topics(TopicCollection([name]), request_timeout=TRANSFER_S)
        try:
            return str(asked[name].result(TRANSFER_S).topic_id)
        except KafkaException as problem:
            if problem.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            raise TopicLost(f"there is no {name} any more") from None


def _members(changed: CatalogChanged) -> list[Topic[Any]]:
    try:
        return members(changed)
    except ValidationError:
        # Of another version of this program; readers of this one refuse the entry, too.
        log.error("entry unreadable, its topics are not made", kind=changed.kind, name=changed.name)
        return []
