"""What every process must see by itself of the bus: topics read without a group."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from infra.bus import BATCH, POLL_S, TRANSFER_S, BusUnreachable, Record, fetch, partitions
from infra.settings import KafkaSettings

# Topic and number.
Partition = tuple[str, int]

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
        home: Which of so many partitions is of interest; all of them when left out.
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
        home: Callable[[int], int] | None = None,
    ) -> None:
        self._topics = list(topics)
        self._since = since
        self._deliver = deliver
        self._fail = fail
        self._caught_up = caught_up
        self._home = home
        # How far each partition has been read.
        self._read_to: dict[Partition, int] = {}
        # Who is told once all has been delivered that lies there by now.
        self._asking: list[Callable[[], None]] = []
        # The same, and up to where that is.
        self._awaited: list[tuple[Mapping[Partition, int], Callable[[], None]]] = []
        self._broken: BaseException | None = None
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

    async def start(self, at: Mapping[Partition, int] | None = None) -> None:
        """Fixes where reading starts; what is produced after this returns is seen.

        Args:
            at: Offsets to start at on some partitions, however old what lies there is.

        Raises:
            BusUnreachable: No broker answers.
            LookupError: A topic does not exist.
        """
        starts = await asyncio.to_thread(self._starts, at or {})
        self._consumer.assign(starts)
        self._thread.start()

    async def reached(self) -> None:
        """Returns when all has been delivered that lies on the topics by now.

        Raises:
            Exception: What ended the reading, as ``fail`` is told it.
        """
        told = asyncio.Event()
        self._asking.append(told.set)
        if self._broken is None:
            await told.wait()
        if self._broken is not None:
            raise self._broken

    async def close(self) -> None:
        """Stops reading."""
        self._closing.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._consumer.close)

    def _starts(self, at: Mapping[Partition, int]) -> list[TopicPartition]:
        try:
            return self._found_starts(at)
        except KafkaException as problem:
            raise BusUnreachable(f"no broker answers: {problem.args[0].str()}") from None

    def _found_starts(self, at: Mapping[Partition, int]) -> list[TopicPartition]:
        starts = [
            TopicPartition(topic, partition)
            for topic in self._topics
            for partition in self._partitions(topic)
        ]
        if self._since is not None:
            for each in starts:
                each.offset = int(self._since.timestamp() * 1000)
            starts = self._consumer.offsets_for_times(starts, TRANSFER_S)
        # The ends as they are now: "the end" would be asked for when reading begins, too late for
        # what is produced meanwhile.
        ends = self._ends((each.topic, each.partition) for each in starts)
        for each in starts:
            place = each.topic, each.partition
            if self._since is None or each.offset < 0:
                each.offset = ends[place]
            each.offset = at.get(place, each.offset)
        self._read_to = {(each.topic, each.partition): each.offset for each in starts}
        self._awaited.append((ends, self._caught_up))
        return starts

    def _partitions(self, topic: str) -> list[int]:
        found = partitions(self._consumer, topic)
        return found if self._home is None else [self._home(len(found))]

    def _ends(self, several: Iterable[Partition]) -> dict[Partition, int]:
        return {
            each: self._consumer.get_watermark_offsets(TopicPartition(*each), TRANSFER_S)[1]
            for each in several
        }

    def _read(self) -> None:
        try:
            while not self._closing.is_set():
                self._look()
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
        for record in records:
            self._read_to[record.topic, record.partition] = record.offset + 1

    def _look(self) -> None:
        """Tells those who wait that it is there."""
        # Here, for a consumer that another thread polls answers nobody.
        while self._asking:
            self._awaited.append((self._ends([*self._read_to]), self._asking.pop()))
        for each in [each for each in self._awaited if self._is_read_to(each[0])]:
            self._awaited.remove(each)
            self._loop.call_soon_threadsafe(each[1])

    def _at_end(self, message: Message) -> None:
        # Not every end is behind a record: what ends a transaction lies on the topic, too.
        place = message.topic() or "", message.partition() or 0
        self._read_to[place] = max(self._read_to[place], message.offset() or 0)

    def _is_read_to(self, ends: Mapping[Partition, int]) -> bool:
        return all(self._read_to[each] >= end for each, end in ends.items())

    def _break(self, error: BaseException) -> None:
        if self._closing.is_set():
            return
        self._broken = error
        self._loop.call_soon_threadsafe(self._fail, error)
        for told in (*self._asking, *(told for _, told in self._awaited)):
            # Not all that lay there at the start has been delivered.
            if told is not self._caught_up:
                self._loop.call_soon_threadsafe(told)


async def until_now(
    kafka: KafkaSettings,
    topics: Iterable[str],
    since: datetime,
    name: str,
    home: Callable[[int], int] | None = None,
) -> AsyncGenerator[Record, None]:
    """Yields the records that lie on topics by now; arguments are those of ``Tail``.

    Raises:
        BusUnreachable: No broker answers.
        LookupError: A topic does not exist.
        TailBroken: Not all of it can be read.
    """
    arrived: asyncio.Queue[list[Record] | BaseException | None] = asyncio.Queue()
    tail = Tail(
        kafka,
        topics,
        since,
        arrived.put_nowait,
        name,
        fail=arrived.put_nowait,
        caught_up=lambda: arrived.put_nowait(None),
        committed=False,
        home=home,
    )
    await tail.start()
    try:
        while (lot := await arrived.get()) is not None:
            if isinstance(lot, BaseException):
                raise lot
            for record in lot:
                yield record
    finally:
        await tail.close()
