"""The work of one topic for one generation: records in batches, until all of a batch is stored.

While one batch is stored, the next is gathered and its texts are embedded. What does not answer is
waited for, with nothing settled; what cannot be stored becomes a dead letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import structlog

from infra.changes.rows import Change, ChangeUnreadable, change_of
from infra.deadletters import bury
from infra.embedding import Vector
from infra.registry import Plain
from infra.telemetry import FRESHNESS, RECORDS, now
from infra.vectors import VectorsUnreachable
from schemas.events import DeadLetterCause
from streams.index.definition import Definition
from streams.index.indexing import Failed, Indexing, Told
from streams.index.standing import LACKS, Standing
from streams.steps import Fail, Runtime, Taken

log = structlog.get_logger()

MOST_RECORDS = 256
# Of the values of a batch: what is embedded at one go should take seconds, not minutes.
MOST_BYTES = 256 * 1024
# How long records are gathered once there is one.
GATHER_S = 0.005
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Mended(Taken):
    """A record that is taken in once more since what is stored of it is not as it says."""


@dataclass(frozen=True, slots=True)
class _Batch:
    taken: Sequence[Taken]
    told: Sequence[Told[Taken]]
    unreadable: Sequence[Failed[Taken]]
    epoch: int


class Batches:
    """Work that keeps a place.

    Args:
        runtime: What the process has at hand.
        index: What is kept.
        group: Names the work in dead letters.
        indexing: Stores changes.
        definition: Asked about each schema.
        key_columns: What tells rows apart.
        captured: Whether a connector of ours writes the topic.
        standing: Told how it goes.
        fail: Told what ended the work.
    """

    def __init__(
        self,
        runtime: Runtime,
        index: str,
        group: str,
        indexing: Indexing[Taken],
        definition: Definition,
        *,
        key_columns: tuple[str, ...],
        captured: bool,
        standing: Standing,
        fail: Fail,
    ) -> None:
        self._publisher = runtime.publisher
        self._group = group
        self._indexing = indexing
        self._definition = definition
        self._key_columns = key_columns
        self._captured = captured
        self._standing = standing
        self._freshness = FRESHNESS.labels(index)
        self._fail = fail
        self._gathered: list[Taken] = []
        self._bytes = 0
        self._some, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        # Raised when partitions go: what was taken up before counts no more.
        self._epoch = 0
        self._lost = asyncio.Event()
        self._closed = False
        self._storing = asyncio.Lock()
        # What was stored last: the store may lose of it what it has said to have, if it crashes.
        self._latest: Sequence[Told[Taken]] = ()
        self._task = asyncio.create_task(self._run())

    async def take(self, taken: Taken) -> None:
        """Gathers a record; waits while there are as many as one batch may have."""
        epoch = self._epoch
        await self._room.wait()
        if epoch != self._epoch or self._closed:
            return
        self._gathered.append(taken)
        self._bytes += len(taken.record.value or b"")
        self._some.set()
        if len(self._gathered) >= MOST_RECORDS or self._bytes >= MOST_BYTES:
            self._room.clear()

    async def drop(self) -> None:
        """Forgets what is not being stored at this moment, and returns when that is stored."""
        self._epoch += 1
        self._lost.set()
        self._lost = asyncio.Event()
        self._forget()
        async with self._storing:
            self._latest = ()

    async def close(self) -> None:
        """Ends the work; what is not stored will be delivered to another."""
        self._closed = True
        await self.drop()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _forget(self) -> None:
        self._gathered, self._bytes = [], 0
        self._some.clear()
        self._room.set()

    async def _run(self) -> None:
        finishing: asyncio.Task[None] | None = None
        try:
            while True:
                batch = await self._gather()
                vectors = await self._prepared(batch)
                if finishing is not None:
                    await finishing
                finishing = asyncio.create_task(self._finish(batch, vectors))
        # A surprise ends the process; what is unsettled is delivered again.
        except Exception as error:  # noqa: BLE001
            self._fail(error)
        finally:
            if finishing is not None:
                finishing.cancel()

    async def _gather(self) -> _Batch:
        await self._some.wait()
        if self._room.is_set():
            await asyncio.sleep(GATHER_S)
        epoch, taken = self._epoch, self._gathered
        self._forget()
        told: list[Told[Taken]] = []
        unreadable: list[Failed[Taken]] = []
        for each in taken:
            try:
                change = self._change(each)
            except ChangeUnreadable as problem:
                unreadable.append(Failed(each, str(problem)))
            else:
                if change is not None:
                    told.append(Told(change, each, each.again))
        return _Batch(taken, told, unreadable, epoch)

    def _change(self, taken: Taken) -> Change | None:
        plain = cast(Plain, cast(object, taken.event))
        return change_of(taken.record, plain, self._key_columns, captured=self._captured)

    async def _prepared(self, batch: _Batch) -> Mapping[str, Vector]:
        try:
            return await self._indexing.prepare(batch.told)
        # Storing the batch will meet it again, and wait.
        except LACKS:
            return {}

    async def _finish(self, batch: _Batch, vectors: Mapping[str, Vector]) -> None:
        try:
            await self._persist(batch, vectors)
        # It must not wait to be noticed until the next batch comes.
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    async def _persist(self, batch: _Batch, vectors: Mapping[str, Vector]) -> None:
        """Stores a batch and settles it, however long that takes, unless its partitions go."""
        wait, again = FIRST_WAIT_S, False
        while True:
            async with self._storing:
                if batch.epoch != self._epoch:
                    return
                try:
                    failed = await self._stored(batch, vectors, again=again)
                except LACKS as lack:
                    # What was stored before it is not sure to be found either.
                    again |= isinstance(lack, VectorsUnreachable)
                    self._complain(lack)
                    lost = self._lost
                else:
                    await self._settle(batch, failed)
                    return
            await _either(lost, wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    async def _stored(
        self, batch: _Batch, vectors: Mapping[str, Vector], *, again: bool
    ) -> list[Failed[Taken]]:
        for schema_id in {cast(Plain, cast(object, each.event)).schema_id for each in batch.taken}:
            if schema_id is not None:
                await self._definition.check(schema_id)
        if not batch.told:
            return []
        if again:
            await self._indexing.take(self._latest, again=True)
        return await self._indexing.take(batch.told, vectors, again=again)

    async def _settle(self, batch: _Batch, failed: Sequence[Failed[Taken]]) -> None:
        letters = [
            bury(each.by.record, self._group, DeadLetterCause.STEP_FAILED, each.reason)
            for each in (*batch.unreadable, *failed)
            # What comes again was given up before, save what was stored once.
            if isinstance(each.by, Mended) or not each.by.again
        ]
        if letters:
            await self._publisher.publish(self._publisher.encode(letters))
        for taken in batch.taken:
            taken.settle()
        RECORDS.labels("stored").inc(len(batch.told) - len(failed))
        self._latest = batch.told
        self._standing.well()
        fresh = [each.change.committed_at for each in batch.told if not each.again]
        instant = int(now().timestamp() * 1000)
        ages = [max(0, instant - at) for at in fresh if at is not None]
        for age in ages:
            self._freshness.observe(age / 1000)
        if ages:
            self._standing.freshness_ms = min(ages)

    def _complain(self, lack: Exception) -> None:
        before = self._standing.reason
        self._standing.complain(lack)
        if self._standing.reason != before:
            log.warning("index waits", group=self._group, reason=type(lack).__name__)


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Returns when an event happens or a time is over."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
