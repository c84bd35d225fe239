"""The bus: records in, events out. Wraps confluent-kafka once for streams, workers and clients.

Every producer of ours partitions by murmur2, as Java's and aiokafka's do, so that one key has one
partition whoever writes it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, NamedTuple

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
)

from infra.settings import KafkaSettings
from infra.telemetry import Headers
from schemas.codec import Codec
from schemas.topics import MAX_LETTER_BYTES, Outgoing

log = structlog.get_logger()

POLL_S = 0.1
BATCH = 500
TRANSFER_S = 30.0
ASK_AGAIN_S = 60.0
# The partition of a record that goes where its key belongs.
ITS_KEYS = -1

# Publishing waits while more than this is under way, so that memory stays bounded.
MAX_UNSETTLED_RECORDS = 20_000
MAX_UNSETTLED_BYTES = 128 * 1024 * 1024


class PublishFailed(RuntimeError):
    """The broker did not take an event within the delivery timeout, or never will."""


class RecordTooLarge(PublishFailed):
    """A record is larger than its topic takes: the broker never will take it."""


class BusUnreachable(RuntimeError):
    """No broker answers under the given address."""


@dataclass(slots=True, frozen=True)
class Record:
    """A record as it lies on the log.

    To Kafka a header's name is bytes, but confluent-kafka gives no header of a record of which one
    name is not UTF-8: such a record is here without headers.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    # Milliseconds since 1970, of whoever dates the records of its topic; -1 where nobody does.
    dated: int = -1

    @classmethod
    def of(cls, message: Message) -> Record:
        """Returns the record in a message that carries no error."""
        return cls(
            message.topic(),  # type: ignore[arg-type]
            message.partition(),  # type: ignore[arg-type]
            message.offset(),  # type: ignore[arg-type]
            message.key(),
            message.value(),
            _headers(message),
            message.timestamp()[1],
        )


# As a method call this would not do: confluent-kafka lets the error of a name out beside a result,
# CPython checks for that here, but no more in a method call that has become hot.
_ask_for_headers = methodcaller("headers")


def _headers(message: Message) -> Headers:
    try:
        return tuple(_ask_for_headers(message) or ())
    # Not to be asked again: the answer would be tuples without names, which crash the interpreter.
    except (SystemError, UnicodeDecodeError):
        log.warning(
            "header name is not UTF-8",
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
        )
        return ()


class Encoded(NamedTuple):
    """A record on its way: bytes already."""

    topic: str
    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class _Batch:
    """Events that are published together, and what is to be told when all have settled."""

    records: int
    size: int
    done: Callable[[PublishFailed | None], None]
    left: int
    failed: PublishFailed | None = None


class Publisher:
    """Publishes events for one event loop; made inside the running loop.

    Args:
        kafka: Where the broker is.
        codec: Encodes the events.
        name: Client id.
    """

    def __init__(self, kafka: KafkaSettings, codec: Codec, name: str) -> None:
        self._codec = codec
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "client.id": name,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 2,
                "message.max.bytes": MAX_LETTER_BYTES,
                "queue.buffering.max.kbytes": 4 * MAX_UNSETTLED_BYTES // 1024,
                "queue.buffering.max.messages": 4 * MAX_UNSETTLED_RECORDS,
                "delivery.timeout.ms": kafka.delivery_timeout_ms,
                "log_level": 0,
            }
        )
        self._settled: deque[_Batch] = deque()
        self._waking = False
        self._partitions: dict[str, tuple[int, float]] = {}
        self._records = self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="publisher", daemon=True)
        self._thread.start()

    def encode(self, outgoing: Iterable[Outgoing]) -> list[Encoded]:
        """Returns events as the records that they become.

        Raises:
            SchemaUnregistered: An event is not registered.
            Unencodable: An event holds what its schema cannot say.
        """
        return [
            Encoded(topic.name, topic.key(event).encode(), self._codec.encode(event))
            for topic, event in outgoing
        ]

    def post(
        self,
        records: Sequence[Encoded],
        headers: Headers,
        done: Callable[[PublishFailed | None], None],
        partition: int = ITS_KEYS,
    ) -> None:
        """Hands records to the producer and returns.

        ``done`` is called in the loop when all of them lie on the log, or with the reason why one
        never will.

        Raises:
            PublishFailed: The producer's queue is full, a record is too large, or this is closed.
        """
        if self._closing.is_set():
            raise PublishFailed("the publisher is closed")
        size = sum(len(record.value or b"") for record in records)
        batch = _Batch(len(records), size, done, left=len(records))
        self._hold(batch.records, size)

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                batch.failed = _failure(message.topic(), error)
            batch.left -= 1
            if not batch.left:
                self._settle(batch)

        if not records:
            self._settle(batch)
        given: list[tuple[str, str | bytes | None]] = list(headers)
        for topic, key, value in records:
            try:
                self._producer.produce(topic, value, key, partition, delivered, headers=given)
            except (BufferError, KafkaException) as problem:
                # Its batch never settles.
                self._hold(-batch.records, -batch.size)
                raise PublishFailed(f"{topic}: {problem}") from None

    async def publish(
        self, records: Sequence[Encoded], headers: Headers = (), partition: int = ITS_KEYS
    ) -> None:
        """Publishes records and returns when all of them lie on the log.

        Raises:
            PublishFailed: The broker did not take one of them.
        """
        await self.room()
        settled: asyncio.Future[PublishFailed | None] = self._loop.create_future()

        def done(failed: PublishFailed | None) -> None:
            if not settled.done():
                settled.set_result(failed)

        self.post(records, headers, done, partition)
        failed = await settled
        if failed is not None:
            raise failed

    async def room(self) -> None:
        """Returns when there is room for more events; the bound keeps memory flat."""
        await self._room.wait()

    async def partitions(self, topic: str) -> int:
        """Returns how many partitions a topic has; asks the broker at most once a minute.

        Raises:
            BusUnreachable: No broker answers.
            LookupError: There is no such topic.
        """
        count, asked_at = self._partitions.get(topic, (0, float("-inf")))
        if time.monotonic() - asked_at > ASK_AGAIN_S:
            try:
                count = len(await asyncio.to_thread(partitions, self._producer, topic))
            except BusUnreachable:
                if not count:
                    raise
            self._partitions[topic] = (count, time.monotonic())
        return count

    async def close(self) -> None:
        """Waits for what is under way, then ends."""
        await asyncio.to_thread(self._producer.flush, TRANSFER_S)
        self._closing.set()
        await asyncio.to_thread(self._thread.join)
        self._wake()

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(POLL_S)

    def _settle(self, batch: _Batch) -> None:
        """Notes a batch as settled; from any thread."""
        self._settled.append(batch)
        # One wake-up of the loop serves all that settles before it runs.
        if not self._waking:
            self._waking = True
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._waking = False
        while self._settled:
            batch = self._settled.popleft()
            self._hold(-batch.records, -batch.size)
            batch.done(batch.failed)

    def _hold(self, records: int, size: int) -> None:
        self._records += records
        self._bytes += size
        full = self._records > MAX_UNSETTLED_RECORDS or self._bytes > MAX_UNSETTLED_BYTES
        if full:
            self._room.clear()
        elif not self._room.is_set():
            self._room.set()


def _failure(topic: str | None, error: KafkaError) -> PublishFailed:
    large = error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    return (RecordTooLarge if large else PublishFailed)(f"{topic}: {error.str()}")


def membership(
    kafka: KafkaSettings, group: str, client_id: str, *, committed: bool = True
) -> dict[str, Any]:
    """Returns the settings of a group's member that commits by itself, for ``Consumer``.

    Args:
        kafka: Where the broker is.
        group: The group.
        client_id: The member.
        committed: Whether it waits for open transactions. Where strangers may write, one that they
            leave open must not hold up what lies behind.
    """
    settings: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": group,
        "group.protocol": kafka.group_protocol,
        "client.id": client_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed" if committed else "read_uncommitted",
        "max.poll.interval.ms": kafka.max_poll_interval_ms,
        "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": 16 * 1024,
        "log_level": 0,
    }
    if kafka.group_protocol == "classic":
        settings["session.timeout.ms"] = kafka.session_timeout_ms
        settings["partition.assignment.strategy"] = "cooperative-sticky"
    return settings


def fetch(
    consumer: Consumer,
    most: int,
    timeout: float,
    at_end: Callable[[Message], object] = lambda message: None,
) -> list[Record]:
    """Returns the records that are there, waiting only for the first.

    Args:
        consumer: An assigned consumer.
        most: How many to return at most.
        timeout: Seconds to wait for the first.
        at_end: Called with topic, partition and offset where a partition ends, if the consumer is
            set to tell (``enable.partition.eof``).

    Raises:
        KafkaException: The consumer cannot go on. What passes by itself is only logged.
    """
    first = consumer.poll(timeout)
    if first is None:
        return []
    records = []
    for message in (first, *(consumer.consume(most - 1, 0) if most > 1 else [])):
        error = message.error()
        if error is None:
            records.append(Record.of(message))
        elif error.code() == KafkaError._PARTITION_EOF:
            at_end(message)
        # Where a consumer is set to fail there, records are gone that it has not seen.
        elif error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise KafkaException(error)
        else:
            log.warning("broker trouble", error=error.name())
    return records


def partitions(client: Consumer | Producer, topic: str) -> list[int]:
    """Returns the partitions of a topic.

    Raises:
        BusUnreachable: No broker answers.
        LookupError: There is no such topic.
    """
    try:
        found = client.list_topics(topic, timeout=TRANSFER_S).topics[topic]
    except KafkaException as problem:
        raise BusUnreachable(f"no broker answers: {problem.args[0].str()}") from None
    if found.error is not None or not found.partitions:
        raise LookupError(f"there is no topic {topic}: run provisioning first")
    return sorted(found.partitions)
