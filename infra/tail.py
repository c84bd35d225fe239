"""What every process must see by itself of the bus: topics read without a group."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.bus import BATCH, POLL_S, TRANSFER_S, BusUnreachable, Record, fetch, partitions
from infra.settings import KafkaSettings

log = structlog.get_logger()


class Tail:
    """Reads topics without a group, from a moment on, in a thread of its own.

    For what every process must see by itself: replies, cancellations, the catalog. Made inside the
    running loop; records reach ``deliver`` there, in the order of their partitions.

    Args:
        kafka: Where the broker is.
        topics: Names of the topics.
        since: The first instant of interest; None for what is yet to come.
        deliver: Called in the loop with each lot of records.
        name: Client id.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Iterable[str],
        since: datetime | None,
        deliver: Callable[[list[Record]], None],
        name: str,
    ) -> None:
        self._topics = list(topics)
        self._since = since
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "client.id": name,
                "group.id": f"{name}-tail",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
                "log_level": 0,
            }
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, name="tail", daemon=True)

    async def start(self) -> None:
        """Fixes where reading starts; what is produced after this returns is seen.

        Raises:
            BusUnreachable: No broker answers.
            LookupError: A topic does not exist.
        """
        starts = await asyncio.to_thread(self._starts)
        self._consumer.assign(starts)
        self._thread.start()

    async def close(self) -> None:
        """Stops reading."""
        self._closing.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._consumer.close)

    def _starts(self) -> list[TopicPartition]:
        try:
            return self._found_starts()
        except KafkaException as problem:
            raise BusUnreachable(f"no broker answers: {problem.args[0].str()}") from None

    def _found_starts(self) -> list[TopicPartition]:
        starts = [
            TopicPartition(topic, partition)
            for topic in self._topics
            for partition in partitions(self._consumer, topic)
        ]
        if self._since is not None:
            for each in starts:
                each.offset = int(self._since.timestamp() * 1000)
            starts = self._consumer.offsets_for_times(starts, TRANSFER_S)
        for each in starts:
            # The end as it is now: "the end" would be asked for when reading begins, too late for
            # what is produced meanwhile.
            if self._since is None or each.offset < 0:
                each.offset = self._consumer.get_watermark_offsets(each, TRANSFER_S)[1]
        return starts

    def _read(self) -> None:
        try:
            while not self._closing.is_set():
                records = fetch(self._consumer, BATCH, POLL_S)
                if records and not self._closing.is_set():
                    self._loop.call_soon_threadsafe(self._deliver, records)
        except KafkaException as problem:
            log.error("tail ended", topics=self._topics, error=problem.args[0].name())
