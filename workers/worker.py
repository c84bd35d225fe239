"""The worker: the one loop that runs heavy work, on confluent-kafka.

The event loop works on many records at a time; ``intake.py`` brings them, and commits what is
finished. Deadlines and cancellations end work early, and whatever happens, something concludes it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

import structlog

from infra.bus import Encoded, Publisher, PublishFailed, Record
from infra.deadletters import bury
from infra.health import Health, Member
from infra.registry import Reader, SchemaMissing
from infra.settings import HealthSettings, KafkaSettings
from infra.tail import Tail
from infra.telemetry import RECORDS, Headers, consuming, described, now
from schemas.codec import Unreadable
from schemas.events import DeadLetterCause, Event, Reason, Refusal, RequestCancelled
from schemas.topics import LONGEST_DEADLINE_MS, REQUEST_CANCELLED, Outgoing, Topic
from workers.ending import Ending
from workers.intake import Intake, Taken

E = TypeVar("E", bound=Event)
E_contra = TypeVar("E_contra", bound=Event, contravariant=True)

log = structlog.get_logger()

# Work that fails by surprise is tried once more before its record becomes a dead letter.
TRIES = 2
# How far back cancellations are read at start.
REMEMBER = timedelta(milliseconds=LONGEST_DEADLINE_MS)

Emit = Callable[[Outgoing], None]


class WorkerBroken(RuntimeError):
    """The process cannot go on (its engine died): it must end, and be started anew."""


@dataclass(slots=True, frozen=True)
class Subject:
    """Whose request a job serves and how long anybody waits for it."""

    request_id: str
    tenant: str
    deadline: datetime


class Job(Protocol):
    """One try at the work on one event."""

    subject: Subject

    async def perform(self, emit: Emit) -> Iterable[Outgoing]:
        """Does the work; returns what concludes it.

        Cancelled when the caller cancels, the deadline passes, or the partition goes to another:
        it must then free what it holds at once.

        Args:
            emit: Publishes something on the way, such as a part; does not wait.

        Raises:
            WorkerBroken: The process cannot go on.
        """

    def give_up(self, refusal: Refusal) -> Iterable[Outgoing]:
        """Returns what concludes the job when it will not be performed to its end."""


class Work(Protocol[E_contra]):
    """What a worker does."""

    def begin(self, event: E_contra, now: datetime) -> Job:
        """Returns a fresh try at the work on an event."""

    async def close(self) -> None:
        """Gives back what the work holds."""


class Worker(Generic[E]):
    """A consumer group member that works on many records of one topic at a time.

    Args:
        name: The worker's name: its group, its process, its log field.
        topic: What it consumes.
        work: What it does.
        most: Records under way at once.
        drain_s: How long they may go on after SIGTERM.
        kafka: Where the broker is.
        health: Where to answer about health.
        publisher: Takes what comes of the work.
        reader: Decodes.
    """

    def __init__(
        self,
        *,
        name: str,
        topic: Topic[E],
        work: Work[E],
        most: int,
        drain_s: float,
        kafka: KafkaSettings,
        health: HealthSettings,
        publisher: Publisher,
        reader: Reader,
    ) -> None:
        self._name = name
        self._topic = topic
        self._work = work
        self._most = most
        self._drain_s = drain_s
        self._publisher = publisher
        self._reader = reader
        self._ending = Ending()
        client_id = f"{name}-{os.uname().nodename}-{os.getpid()}"
        self._intake = Intake(
            name=name,
            client_id=client_id,
            topic=topic.name,
            most=most,
            drain_s=drain_s,
            kafka=kafka,
            start=self._start,
            abandon=self._abandon,
            fail=self.fail,
        )
        self._health = Health(health, kafka, Member(name, client_id, (topic.name,)))
        self._cancellations = Tail(
            kafka,
            [REQUEST_CANCELLED.name],
            now() - REMEMBER,
            self._hear,
            f"{client_id}-control",
            fail=self.fail,
            committed=False,
        )
        self._tasks: dict[asyncio.Task[None], int] = {}
        self._running: dict[asyncio.Task[Iterable[Outgoing]], tuple[str, str]] = {}
        self._cancelled: dict[tuple[str, str], datetime] = {}
        self._hearing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Works until SIGTERM or SIGINT, then drains.

        Raises:
            Exception: What ended the work early; the process must end non-zero.
        """
        self._ending.listen()
        await self._cancellations.start()
        await self._intake.start()
        self._health.start()
        log.info("worker started", topic=self._topic.name, most=self._most)
        await self._ending.come()
        self._health.drain()
        self._intake.drain()
        log.info("worker drains", under_way=len(self._tasks))
        if not self._ending.failed:
            await self._drained()
        for task in self._tasks:
            task.cancel()
        await self._intake.closed()
        await self._cancellations.close()
        await self._work.close()
        self._health.close()
        self._ending.check()

    def fail(self, error: BaseException) -> None:
        """Ends the process: what is unfinished will be delivered to another."""
        self._ending.fail(error)

    async def _drained(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._drain_s)

    def _start(self, taken: Taken) -> None:
        task = asyncio.create_task(self._process(taken))
        self._tasks[task] = taken.record.partition
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def _abandon(self, partitions: set[int]) -> None:
        """Stops the work on partitions that another member has now."""
        for task, partition in self._tasks.items():
            if partition in partitions:
                task.cancel()

    async def _process(self, taken: Taken) -> None:
        record = taken.record
        try:
            with consuming(self._name, record.topic, record.headers) as headers:
                concluded = await self._outcome(record, headers)
                # The conclusion is published whole even when a cancellation comes meanwhile.
                await self._publisher.publish(concluded, headers)
            taken.done = True
        except asyncio.CancelledError:
            RECORDS.labels("abandoned").inc()
        # A surprise ends the process: the record stays uncommitted and is delivered again.
        except Exception as error:  # noqa: BLE001
            self.fail(error)
        finally:
            self._intake.take_back(taken)

    async def _outcome(self, record: Record, headers: Headers) -> list[Encoded]:
        encode = self._publisher.encode
        try:
            event = await self._reader.read(record.value, self._topic.event)
        except Unreadable as problem:
            return encode([bury(record, self._name, DeadLetterCause.UNREADABLE, str(problem))])
        except SchemaMissing as problem:
            return encode([bury(record, self._name, DeadLetterCause.SCHEMA_UNKNOWN, str(problem))])
        for _ in range(TRIES):
            job = self._work.begin(event, now())
            try:
                return encode(await self._conclude(job, headers))
            except (PublishFailed, WorkerBroken):
                raise
            # The one broad catch of the work: a surprise becomes a dead letter and a reply.
            except Exception as error:  # noqa: BLE001
                said = described(error)
                log.warning("work failed", error=said)
        letter = bury(record, self._name, DeadLetterCause.STEP_FAILED, said)
        return encode([letter, *job.give_up(_FAILED)])

    async def _conclude(self, job: Job, headers: Headers) -> Iterable[Outgoing]:
        """Performs a job unless, or until, nobody waits for it."""
        subject = job.subject
        key = (subject.tenant, subject.request_id)
        left = (subject.deadline - now()).total_seconds()
        if key in self._cancelled:
            return job.give_up(_CANCELLED)
        if left <= 0:
            return job.give_up(_EXPIRED)
        task = asyncio.ensure_future(job.perform(lambda part: self._emit(part, headers)))
        self._running[task] = key
        try:
            async with asyncio.timeout(left) as limit:
                concluded = await task
        except TimeoutError:
            if not limit.expired():
                raise
            RECORDS.labels("expired").inc()
            return job.give_up(_EXPIRED)
        except asyncio.CancelledError:
            if _being_cancelled():
                raise
            if key not in self._cancelled:
                raise RuntimeError("the work cancelled itself") from None
            RECORDS.labels("cancelled").inc()
            return job.give_up(_CANCELLED)
        finally:
            del self._running[task]
        RECORDS.labels("performed").inc()
        return concluded

    def _emit(self, part: Outgoing, headers: Headers) -> None:
        def done(failed: PublishFailed | None) -> None:
            if failed is not None:
                self.fail(failed)

        try:
            self._publisher.post(self._publisher.encode([part]), headers, done)
        except PublishFailed as failed:
            self.fail(failed)

    def _hear(self, records: list[Record]) -> None:
        task = asyncio.create_task(self._heed(records))
        self._hearing.add(task)
        task.add_done_callback(self._hearing.discard)

    async def _heed(self, records: list[Record]) -> None:
        """Stops what callers no longer want, and remembers it until their deadlines."""
        instant = now()
        for record in records:
            try:
                cancelled = await self._reader.read(record.value, RequestCancelled)
            except (Unreadable, SchemaMissing) as problem:
                log.warning("cancellation unreadable", offset=record.offset, error=str(problem))
                continue
            key = (cancelled.tenant, cancelled.request_id)
            self._cancelled[key] = min(cancelled.deadline, instant + REMEMBER)
            # Delivered twice, a request can be under way twice.
            for task in [task for task, whose in self._running.items() if whose == key]:
                task.cancel()
        running = set(self._running.values())
        for key in [key for key, until in self._cancelled.items() if until < instant]:
            if key not in running:
                del self._cancelled[key]


_CANCELLED = Refusal(reason=Reason.CANCELLED, message="the caller cancelled the request")
_EXPIRED = Refusal(
    reason=Reason.DEADLINE_EXPIRED,
    message="the deadline passed before the completion was whole",
    field="deadline",
)
_FAILED = Refusal(
    reason=Reason.PROVIDER_FAILED,
    message="the worker failed on this request; the operators find it among the dead letters",
)


def _being_cancelled() -> bool:
    task: asyncio.Task[Any] | None = asyncio.current_task()
    return task is not None and task.cancelling() > 0
