"""The intake of a worker: brings records and commits the finished prefix, in a thread of its own.

The thread polls all the time, so that membership never depends on how long the work takes. When as
many records are under way as allowed, a few more wait here and the partitions are paused: the log
holds the rest.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.bus import Record, fetch, membership, partitions
from infra.prefix import Prefix
from infra.settings import KafkaSettings
from infra.telemetry import IN_FLIGHT, SECONDS

log = structlog.get_logger()

POLL_S = 0.05
# How soon a free place is given to a record that waits.
SOON_S = 0.005
COMMIT_EVERY_S = 1.0

# Read ahead of the work, because a paused consumer needs up to a second to get going again.
AHEAD_RECORDS = 256
AHEAD_BYTES = 16 * 1024 * 1024
RESUME_AT = 0.5


@dataclass(slots=True)
class Taken:
    """A record under way: in which prefix it counts, and whether it is done."""

    record: Record
    prefix: Prefix[int]
    since: float = field(default_factory=time.monotonic)
    done: bool = False


class Intake:
    """Reads one topic as a member of a group. Made inside the running loop.

    Args:
        name: The group.
        client_id: This process's id in it.
        topic: Name of the topic.
        most: Records under way at once.
        drain_s: How long a drain may take.
        kafka: Where the broker is.
        start: Called in the loop with each record.
        abandon: Called in the loop with partitions that another member has now.
        fail: Called in the loop when the thread cannot go on.
    """

    def __init__(
        self,
        *,
        name: str,
        client_id: str,
        topic: str,
        most: int,
        drain_s: float,
        kafka: KafkaSettings,
        start: Callable[[Taken], None],
        abandon: Callable[[set[int]], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._topic = topic
        self._most = most
        self._drain_s = drain_s
        self._give = start
        self._abandon = abandon
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._consumer = Consumer(
            {**membership(kafka, name, client_id), "on_commit": self._committed}
        )
        # One for each partition that is assigned.
        self._prefixes: dict[int, Prefix[int]] = {}
        self._waiting: deque[Record] = deque()
        self._uncommitted: dict[int, int] = {}
        self._under_way = 0
        self._paused = False
        # The only way from the loop to the thread, besides the event.
        self._returned: deque[Taken] = deque()
        self._draining = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="poll", daemon=True)

    async def start(self) -> None:
        """Joins the group.

        Raises:
            BusUnreachable: No broker answers.
            LookupError: There is no such topic.
        """
        await asyncio.to_thread(partitions, self._consumer, self._topic)
        self._thread.start()

    def take_back(self, taken: Taken) -> None:
        """Takes a record back, done or not; from the loop."""
        self._returned.append(taken)

    def drain(self) -> None:
        """Brings nothing new from now on and leaves when nothing is under way, or in time."""
        self._draining.set()

    async def closed(self) -> None:
        """Returns when the group is left and the last commit made."""
        await asyncio.to_thread(self._thread.join)

    def _poll(self) -> None:
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )
        committed_at = time.monotonic()
        deadline = float("inf")
        try:
            while True:
                self._reap()
                if time.monotonic() - committed_at > COMMIT_EVERY_S:
                    self._commit(wait=False)
                    committed_at = time.monotonic()
                if self._draining.is_set():
                    deadline = min(deadline, time.monotonic() + self._drain_s)
                    if not self._under_way or time.monotonic() > deadline:
                        break
                self._admit()
            self._commit(wait=True)
            self._consumer.close()
        # Whatever ends this thread must end the process: nobody would poll any more.
        except Exception as error:  # noqa: BLE001
            self._loop.call_soon_threadsafe(self._fail, error)

    def _admit(self) -> None:
        draining = self._draining.is_set()
        if draining:
            self._waiting.clear()
        self._throttle(1.0 if draining else self._ahead())
        # Polling goes on while paused: it is what keeps the membership.
        most = max(AHEAD_RECORDS - len(self._waiting), 1)
        found = fetch(self._consumer, most, SOON_S if self._waiting else POLL_S)
        # A partition can go to another while its records are being fetched.
        self._waiting.extend(record for record in found if record.partition in self._prefixes)
        while self._waiting and self._under_way < self._most and not draining:
            record = self._waiting.popleft()
            prefix = self._prefixes[record.partition]
            prefix.begin(record.offset, record.offset)
            self._under_way += 1
            self._loop.call_soon_threadsafe(self._give, Taken(record, prefix))
        IN_FLIGHT.set(self._under_way)

    def _ahead(self) -> float:
        """Returns how much of what may be read ahead waits: 1 for all of it."""
        size = sum(len(record.value or b"") for record in self._waiting)
        return max(len(self._waiting) / AHEAD_RECORDS, size / AHEAD_BYTES)

    def _throttle(self, ahead: float) -> None:
        """Pauses when enough waits; resumes when much of it is gone."""
        if ahead < RESUME_AT if self._paused else ahead >= 1:
            self._paused = not self._paused
            (self._consumer.pause if self._paused else self._consumer.resume)(
                self._consumer.assignment()
            )

    def _reap(self) -> None:
        while self._returned:
            taken = self._returned.popleft()
            self._under_way -= 1
            SECONDS.observe(time.monotonic() - taken.since)
            partition = taken.record.partition
            if taken.done and self._prefixes.get(partition) is taken.prefix:
                for offset in taken.prefix.finish(taken.record.offset):
                    self._uncommitted[partition] = offset + 1

    def _commit(self, *, wait: bool) -> None:
        if not self._uncommitted:
            return
        offsets = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in self._uncommitted.items()
        ]
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as problem:
            # What is not committed will be delivered again; every effect is keyed by id.
            log.warning("commit failed", error=problem.args[0].name())
        self._uncommitted.clear()

    def _committed(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """Takes back what the broker did not take, unless more has been finished meanwhile."""
        for each in offsets:
            problem = error or each.error
            if problem is not None and each.partition in self._prefixes:
                log.warning("commit failed", partition=each.partition, error=problem.name())
                self._uncommitted.setdefault(each.partition, each.offset)

    def _assigned(self, consumer: Consumer, new: list[TopicPartition]) -> None:
        consumer.incremental_assign(new)
        # What stays keeps its state; what comes must be brought into it before it is read.
        (consumer.pause if self._paused else consumer.resume)(new)
        self._prefixes.update({each.partition: Prefix() for each in new})

    def _revoked(self, consumer: Consumer, gone: list[TopicPartition]) -> None:
        self._reap()
        self._commit(wait=True)
        self._lost(consumer, gone)

    def _lost(self, consumer: Consumer, gone: list[TopicPartition]) -> None:
        partitions = {each.partition for each in gone}
        for partition in partitions:
            self._prefixes.pop(partition, None)
            self._uncommitted.pop(partition, None)
        self._waiting = deque(each for each in self._waiting if each.partition not in partitions)
        self._loop.call_soon_threadsafe(self._abandon, partitions)
