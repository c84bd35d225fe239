"""A member of a consumer group, on Faust: takes records up, and commits what is done.

Faust brings membership, assignment, fetching and commits; decoding, and the decision when a record
counts as done, are ours. A record is acknowledged when all that came of it lies on the log, and
never before a record that precedes it.

Records do not pass through Faust's channels, streams and agents, which cost more than all the
decisions on them: they go from its consumer to our lanes, a batch at a time (``_Consumer``).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import faust
import structlog
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers import aiokafka
from faust.types import TP

from infra.bus import Record
from infra.deadletters import bury
from infra.health import Member
from infra.prefix import Prefix
from infra.registry import SchemaMissing
from infra.settings import KafkaSettings
from infra.telemetry import SECONDS
from schemas.codec import Unreadable
from schemas.events import DeadLetterCause
from streams.lanes import Lane
from streams.lenient import read_leniently
from streams.steps import Fail, Runtime, Taken, Work, too_large

log = structlog.get_logger()

STOP_S = 20.0
# How long what is full is left alone.
BRIEFLY_S = 0.01
# aiokafka has one question open at a broker, and leaves out of it the partitions that have records
# which nobody took yet: for so long what comes on those may have to wait. Faust's own is 1.5 s.
LONGEST_FETCH_MS = 100


class SettingRefused(ValueError):
    """A setting asks for something that does not hold."""


# `Any`: what a record is decoded to is between a topic and its work.
@dataclass(frozen=True, slots=True)
class Feed:
    """What becomes of the records of one topic.

    Attributes:
        read: Decodes a record; may raise ``Unreadable`` or ``SchemaMissing``.
        work: Given what it was decoded to.
    """

    read: Callable[[Record], Awaitable[Any]]
    work: Work


class Group:
    """A consumer group's member that takes up records of several topics.

    Args:
        runtime: What the process has at hand.
        name: The group.
        feeds: What becomes of the records of each topic, by its name.
        fail: Told what ends the work early; the process must end.
        reread: How many offsets before the committed one are read once more, on each partition,
            when it first comes to this member.
        lost: Awaited when partitions go, before others may have them.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        feeds: Mapping[str, Feed],
        fail: Fail,
        *,
        reread: int = 0,
        lost: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        client_id = f"{name}-{os.uname().nodename}-{os.getpid()}"
        self.member = Member(name, client_id, tuple(feeds))
        self._runtime = runtime
        self._feeds = feeds
        self._fail = fail
        self._prefixes: dict[tuple[str, int], tuple[int, Prefix[int]]] = {}
        self._app = _app(name, client_id, runtime.kafka)
        consumer = self._app.consumer
        assert isinstance(consumer, _Consumer)
        self._consumer: _Consumer = consumer
        consumer.reread = reread
        for topic, feed in feeds.items():
            self._app.topics.add(self._app.topic(topic))
            consumer.lanes[topic] = Lane(partial(self._take, feed))
        self._lost = lost
        if lost is not None:
            self._app.on_partitions_revoked.connect(self._revoked)
        self._tasks: list[asyncio.Future[None]] = []

    @property
    def in_flight(self) -> int:
        """How many records are taken up; may be asked from another thread."""
        current = self._app.consumer_generation_id
        held = tuple(self._prefixes.values())
        return sum(len(prefix) for generation, prefix in held if generation == current)

    @property
    def assigned(self) -> frozenset[tuple[str, int]]:
        """The partitions that are this member's now."""
        return frozenset((each.topic, each.partition) for each in self._consumer.assigned)

    async def start(self) -> None:
        """Joins the group and works from now on."""
        await self._app.start()
        lanes = self._consumer.lanes.values()
        self._tasks = [
            asyncio.ensure_future(self._crashed()),
            *(asyncio.ensure_future(self._run(each)) for each in lanes),
        ]

    async def stop(self) -> None:
        """Settles what is taken up, as far as it can be, and leaves the group."""
        self._consumer.stop_flow()
        for feed in self._feeds.values():
            await feed.work.close()
        # It stops now because it is told to.
        watch, *_ = self._tasks
        watch.cancel()
        await asyncio.wait_for(self._app.stop(), STOP_S)
        self.cancel()

    def cancel(self) -> None:
        """Takes up nothing more, and settles nothing."""
        for task in self._tasks:
            task.cancel()

    # `Any`: Faust's signals say more than is of interest.
    async def _revoked(self, *_: Any, **__: Any) -> None:
        if self._lost is not None:
            await self._lost()

    async def _crashed(self) -> None:
        """Waits until Faust stops by itself, which it should not."""
        try:
            await self._app.wait_until_stopped()
        except Exception as error:  # noqa: BLE001 - Faust raises here whatever crashed it.
            self._fail(error)
        self._fail(self._app.crash_reason or RuntimeError("Faust has stopped by itself"))

    async def _run(self, lane: Lane[Any]) -> None:
        try:
            await lane.run()
        # A surprise ends the process.
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    # `Any`: aiokafka's records are untyped.
    async def _take(self, feed: Feed, read: Any, generation: int) -> None:
        record = Record(
            read.topic,
            read.partition,
            read.offset,
            read.key,
            read.value,
            tuple(read.headers),
            read.timestamp,
        )
        prefix = self._prefix(record, generation)
        prefix.begin(record.offset, record.offset)
        settle = partial(self._settle, prefix, record, generation, time.monotonic())
        if problem := too_large(record):
            await self._bury(record, DeadLetterCause.UNREADABLE, problem, settle)
            return
        try:
            event = await feed.read(record)
        except Unreadable as error:
            await self._bury(record, DeadLetterCause.UNREADABLE, str(error), settle)
        except SchemaMissing as error:
            await self._bury(record, DeadLetterCause.SCHEMA_UNKNOWN, str(error), settle)
        else:
            again = self._consumer.is_reread(record.topic, record.partition, record.offset)
            await feed.work.take(
                Taken(record, event, record.headers, settle, generation, again=again)
            )

    async def _bury(
        self, record: Record, cause: DeadLetterCause, message: str, settle: Callable[[], None]
    ) -> None:
        letter = bury(record, self.member.group, cause, message)
        publisher = self._runtime.publisher
        await publisher.publish(publisher.encode([letter]))
        settle()

    def _prefix(self, record: Record, generation: int) -> Prefix[int]:
        key = (record.topic, record.partition)
        known, prefix = self._prefixes.get(key, (None, None))
        if prefix is None or known != generation:
            # After a rebalance Faust reads on from the committed offset: what was under way
            # before counts no more.
            prefix = Prefix()
            self._prefixes[key] = (generation, prefix)
        return prefix

    def _settle(
        self, prefix: Prefix[int], record: Record, generation: int, taken_at: float
    ) -> None:
        SECONDS.observe(time.monotonic() - taken_at)
        finished = prefix.finish(record.offset)
        if finished and generation == self._app.consumer_generation_id:
            self._consumer.acknowledge(record.topic, record.partition, finished[-1])


class _Consumer(aiokafka.Consumer):
    """Faust's consumer, which hands what it fetches to lanes.

    What is pinned here of Faust 0.15 is its inside, so whoever raises its version reads
    ``faust/transport/consumer.py`` again: the broker's tests of the processor tell the rest.
    """

    _thread: _Thread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.lanes: dict[str, Lane[Any]] = {}
        self.reread = 0
        self._reread_until: dict[TP, int] = {}
        super().__init__(*args, **kwargs)
        # Faust resumes it once it stands, for the first time too, at what is committed.
        self.stop_flow()

    def _new_consumer_thread(self) -> aiokafka.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetches once and fills the lanes; what it would yield is all there."""
        await self._fill(timeout)
        nothing: tuple[tuple[TP, Any], ...] = ()
        for each in nothing:
            yield each

    async def _fill(self, timeout: float) -> None:
        if self.suspend_flow.is_set():
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
            return
        active = self._get_active_partitions()
        roomy = {place for place in active if not self.lanes[place.topic].full}
        if not roomy:
            await self.sleep(BRIEFLY_S if active else timeout)
            return
        records = await self._getmany(roomy, timeout if roomy == active else BRIEFLY_S)
        # What was fetched before a rebalance is void: all is read on from what is committed.
        if not self.suspend_flow.is_set() and self._thread.fetched_in == self._generation:
            for place, batch in records.items():
                self.lanes[place.topic].put(batch, self._generation)

    @property
    def _generation(self) -> int:
        return self.app.consumer_generation_id

    def stop_flow(self) -> None:
        """Takes nothing more up until the flow is resumed."""
        super().stop_flow()
        for lane in self.lanes.values():
            lane.clear()

    @property
    def assigned(self) -> frozenset[TP]:
        """The partitions that are this member's, once what it does with them is clear."""
        return frozenset(self._active_partitions or ())

    def is_reread(self, topic: str, partition: int, offset: int) -> bool:
        """Returns whether a record lies before what was committed when its partition came."""
        return offset < self._reread_until.get(TP(topic, partition), 0)

    async def perform_seek(self) -> None:
        """Starts at what is committed; a little before it where a partition is new here."""
        await super().perform_seek()
        assigned = self.assignment()
        self._reread_until = {
            place: until for place, until in self._reread_until.items() if place in assigned
        }
        for place, committed in tuple(self._committed_offset.items()):
            if not self.reread or place not in assigned or place in self._reread_until:
                continue
            self._reread_until[place] = until = committed or 0
            if until:
                # What lies there no more is passed over: reading then starts at the first record.
                await self.seek(place, max(until - self.reread, 0))

    def acknowledge(self, topic: str, partition: int, offset: int) -> None:
        """Notes that a partition is done up to an offset; it is committed within a second."""
        self._acked[TP(topic, partition)] = [offset]

    def _new_offset(self, tp: TP) -> int:
        # No gaps are looked for: what was never read, because it is compacted or a transaction's
        # marker, is not waited for either.
        return self._acked.pop(tp)[0] + 1

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Complains where nothing is fetched; of streams that stand still, for there are none."""
        self.verify_recovery_event_path(now, tp)


class _Thread(aiokafka.AIOKafkaConsumerThread):
    """Faust's thread around aiokafka's consumer; what it fetches moves the position on.

    So nothing may be fetched between a rebalance and the moment at which the flow is resumed: it
    would have to be dropped, and nobody would read it again. aiokafka's own fetch waits through a
    rebalance and then takes what is there, so the waiting is done out here.
    """

    fetched_in = 0

    # `Any`: aiokafka is untyped.
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = min(consumer._fetch_max_wait_ms, LONGEST_FETCH_MS)
        return consumer

    # `Any`: aiokafka is untyped.
    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: Any = None, max_records: Any = None
    ) -> Any:
        fetcher = consumer._fetcher
        records = await self._taken(fetcher, active_partitions, max_records)
        if not records:
            with suppress(TimeoutError):
                await asyncio.wait_for(fetcher._create_fetch_waiter(), timeout)
            records = await self._taken(fetcher, active_partitions, max_records)
        return records

    async def _taken(self, fetcher: Any, active: Any, max_records: Any) -> Any:
        # Between this look and the last record taken, this thread does nothing else.
        if not self.consumer.flow_active or fetcher._subscriptions.reassignment_in_progress:
            return {}
        if fetcher._closed:
            raise ConsumerStoppedError
        self.fetched_in = self.app.consumer_generation_id
        with fetcher._subscriptions.fetch_context():
            return await fetcher.fetched_records(active, timeout=0, max_records=max_records)


class _Transport(aiokafka.Transport):
    Consumer = _Consumer


def _app(name: str, client_id: str, kafka: KafkaSettings) -> faust.App:
    if kafka.processing_guarantee != "at_least_once":
        raise SettingRefused(
            f"KAFKA_PROCESSING_GUARANTEE={kafka.processing_guarantee} is refused: Faust's "
            "exactly_once loses no record but doubles some when a process is killed. Use "
            "at_least_once: every effect here is keyed by id, so a record read twice counts once"
        )
    read_leniently()
    app = faust.App(
        id=name,
        broker=f"kafka://{kafka.bootstrap_servers.replace(',', ';')}",
        broker_client_id=client_id,
        broker_commit_interval=1.0,
        broker_heartbeat_interval=kafka.session_timeout_ms / 1000 / 4,
        broker_max_poll_records=500,
        broker_session_timeout=kafka.session_timeout_ms / 1000,
        consumer_auto_offset_reset="earliest",
        datadir=tempfile.gettempdir(),
        loop=asyncio.get_running_loop(),
        processing_guarantee="at_least_once",
        producer_request_timeout=60.0,
        store="memory://",
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    app.transport = _Transport(app.conf.broker_consumer, app)
    return app
