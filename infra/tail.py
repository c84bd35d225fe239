"""What every process must see by itself of the bus: topics read without a group."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from infra.bus import BATCH, POLL_S, TRANSFER_S, BusUnreachable, Record, fetch, partitions
from infra.settings import KafkaSettings

# No record is older.
BEGINNING = datetime.fromtimestamp(0, UTC)


class TailBroken(RuntimeError):
    """Reading cannot go on, or records are gone that have not been seen; the message says why."""


def _ignore() -> None:
    pass


class Tail:
    """Reads topics without a group, from a moment on, in a thread of its own.

    For what every process must see by itself: replies, cancellations, the catalog. Made inside the
    running loop; records reach ``deliver`` there, in the order of their partitions. Records that
    were deleted before they were seen end it, and so does a topic that begins anew.

    Args:
        kafka: Where the broker is.
        topics: Names of the topics.
        since: The first instant of interest; None for what is yet to come.
        deliver: Called in the loop with each lot of records.
        name: Client id.
        fail: Called in the loop, once, with what ended the reading.
        caught_up: Called in the loop, once, when all has been delivered that lay on the topics at
            the start.
        committed: Whether what a transaction wrote counts only once it is committed. Not for topics
            that others write to: one open transaction would hold up all that lies behind it.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Iterable[str],
        since: datetime | None,
        deliver: Callable[[list[Record]], None],
        name: str,
        *,
        fail: Callable[[BaseException], None],
        caught_up: Callable[[], None] = _ignore,
        committed: bool = True,
    ) -> None:
        self._topics = list(topics)
        self._since = since
        self._deliver = deliver
        self._fail = fail
        self._caught_up = caught_up
        # The ends of partitions that have not been reached yet; None once that has been told.
        self._ends: dict[tuple[str, int], int] | None = {}
        self._loop = asyncio.get_running_loop()
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "client.id": name,
                "group.id": f"{name}-tail",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": "read_committed" if committed else "read_uncommitted",
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
        ends: dict[tuple[str, int], int] = {}
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
            end = self._consumer.get_watermark_offsets(each, TRANSFER_S)[1]
            ends[each.topic, each.partition] = end
            if self._since is None or each.offset < 0:
                each.offset = end
        self._ends = ends
        return starts

    def _read(self) -> None:
        try:
            while not self._closing.is_set():
                self._pass_on(fetch(self._consumer, BATCH, POLL_S, self._at_end))
        except KafkaException as problem:
            self._break(TailBroken(f"{', '.join(self._topics)}: {problem.args[0].str()}"))
        # A thread that ended unseen would leave others waiting for ever.
        except Exception as error:  # noqa: BLE001
            self._break(error)

    def _pass_on(self, records: list[Record]) -> None:
        if self._closing.is_set():
            return
        if records:
            self._loop.call_soon_threadsafe(self._deliver, records)
        if self._ends is not None:
            for record in records:
                self._reach(record.topic, record.partition, record.offset + 1)
            if not self._ends:
                self._ends = None
                self._loop.call_soon_threadsafe(self._caught_up)

    def _at_end(self, message: Message) -> None:
        # Not every end is behind a record: what ends a transaction lies on the topic, too.
        self._reach(message.topic() or "", message.partition() or 0, message.offset() or 0)

    def _reach(self, topic: str, partition: int, offset: int) -> None:
        if self._ends and offset >= self._ends.get((topic, partition), offset + 1):
            del self._ends[topic, partition]

    def _break(self, error: BaseException) -> None:
        if not self._closing.is_set():
            self._loop.call_soon_threadsafe(self._fail, error)
