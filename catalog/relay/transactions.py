"""Lots of events on the bus, each whole or not at all, by one writer at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from infra.bus import Encoded
from infra.settings import KafkaSettings
from schemas.topics import MAX_LETTER_BYTES

log = structlog.get_logger()

TRANSFER_S = 10.0
# How long the readers wait at most for the end of a lot whose writer was killed.
OPEN_MS = 30_000
WAIT_S = 0.2


class WriterLost(RuntimeError):
    """This writer cannot go on: another one has taken over, or the broker refuses it for good."""


class Stopped(Exception):
    """It was told to stop while it waited for the broker; the lot does not lie on the bus."""


class Transactions:
    """A transactional producer; the latest under one id fences all before it.

    Args:
        kafka: Where the broker is.
        transactional_id: Whose lots these are.
        stop: Ends every wait for the broker.
    """

    def __init__(self, kafka: KafkaSettings, transactional_id: str, stop: threading.Event) -> None:
        self._stop = stop
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "client.id": transactional_id,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": OPEN_MS,
                "delivery.timeout.ms": OPEN_MS,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 0,
                "message.max.bytes": MAX_LETTER_BYTES,
                "log_level": 0,
            }
        )

    def begin(self) -> None:
        """Fences every writer before this one and ends what it left open.

        Raises:
            WriterLost: The broker refuses it for good.
            Stopped: The broker did not answer before the stop.
        """
        self._insist(lambda: self._producer.init_transactions(TRANSFER_S))

    def publish(self, lot: Sequence[Encoded]) -> None:
        """Publishes a lot; returns when it is committed, which readers see a moment later.

        Raises:
            WriterLost: Another writer has taken over, or the broker refuses a record for good.
            Stopped: The broker did not answer before the stop.
        """
        while not self._tried(lot):
            if self._stop.wait(WAIT_S):
                raise Stopped

    def _tried(self, lot: Sequence[Encoded]) -> bool:
        """Returns whether the lot lies on the bus; False after it was taken back."""
        try:
            self._producer.begin_transaction()
            for topic, key, value in lot:
                self._produce(topic, key, value)
            self._insist(lambda: self._producer.commit_transaction(TRANSFER_S))
        except KafkaException as problem:
            error = problem.args[0]
            if error.fatal() or not error.txn_requires_abort():
                raise _lost(error) from None
            log.warning("lot taken back", error=error.name(), events=len(lot))
            self._insist(lambda: self._producer.abort_transaction(TRANSFER_S))
            return False
        return True

    def _produce(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key)
            except BufferError:
                self._producer.poll(WAIT_S)
            else:
                return

    def _insist(self, call: Callable[[], None]) -> None:
        """Calls again what the broker did not answer, until the stop."""
        while True:
            try:
                call()
            except KafkaException as problem:
                error = problem.args[0]
                if error.txn_requires_abort():
                    raise
                if not error.retriable():
                    raise _lost(error) from None
                log.warning("broker awaited", error=error.name())
                if self._stop.wait(WAIT_S):
                    raise Stopped from None
            else:
                return


def _lost(error: KafkaError) -> WriterLost:
    return WriterLost(f"{error.name()}: {error.str()}")
