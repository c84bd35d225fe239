"""The journal of runs as this process keeps it: what came for each run of late, as the log has it.

What a run takes in counts once it has come back from the log as the run's next entry. Of two that
two processes wrote under one number, the first on the log is that; who wrote the other has decided
by what is no longer so, and must begin anew. So nobody owns a run but by what the log says.

Every process has the entries of all runs that can still go on; no run outlives its deadline, so
they are read from as far back as deadlines reach, or from where a snapshot tells of the rest. Runs
themselves are folded where they go on. Of a run that is over it has no more than where its entries
lie: whoever needs them reads them again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

import structlog
from confluent_kafka import TopicPartition

from infra.bus import TRANSFER_S, Record
from infra.past import looking_back, stepped, those, written
from infra.registry import Reader, SchemaMissing
from infra.tail import BEGINNING, Tail
from infra.telemetry import Headers, now
from schemas.codec import Unreadable
from schemas.events import AgentJournaled
from schemas.topics import AGENT_JOURNALED, Outgoing
from streams.agents.folding import JournalUnsound
from streams.agents.kept import BACK, KNOWN, SKEW, Kept
from streams.agents.snapshots import Snapshots, Standing
from streams.steps import Fail, Runtime, vital

log = structlog.get_logger()

SNAPSHOT_S = 60.0
SWEEP_S = 60.0
READ_S = 10.0


class JournalLost(RuntimeError):
    """Another process goes on with a run that this one decided on."""


class Journal:
    """All runs of late; made inside the running loop.

    Args:
        runtime: What the process has at hand.
        fail: Ends the process.
        forget: Told of each run for which nothing can come any more.
    """

    def __init__(self, runtime: Runtime, fail: Fail, forget: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._forget = forget
        self._reader = Reader(runtime.codec, runtime.registry)
        self._runs: dict[str, Kept] = {}
        # What this process wrote and has not read yet, by its bytes.
        self._own: dict[bytes | None, asyncio.Future[None]] = {}
        self._began = now()
        self._since = self._began - BACK
        self._snapshots = Snapshots(runtime, self._reader)
        self._arrived: asyncio.Queue[list[Record] | None] = asyncio.Queue()
        self._complete = asyncio.Event()
        # By partition: up to where entries are known.
        self._known: dict[int, int] = {}
        # Partitions of which no snapshot can tell: an entry could not be read, but may be another
        # time; or a run has entries elsewhere, too.
        self._unsure: set[int] = set()
        # Partitions whose last entry this process wrote: it goes on with their runs.
        self._mine: set[int] = set()
        self._grown = asyncio.Condition()
        self._tail = Tail(
            runtime.kafka,
            [AGENT_JOURNALED.name],
            self._since,
            self._arrived.put_nowait,
            f"{runtime.name}-journal",
            fail=fail,
            caught_up=lambda: self._arrived.put_nowait(None),
            # Strangers' open transactions must hold no run up.
            committed=False,
        )
        self._tasks = [
            asyncio.create_task(vital(self._follow(), fail)),
            asyncio.create_task(self._sweep()),
            asyncio.create_task(vital(self._snapshot(), fail)),
        ]

    async def complete(self) -> None:
        """Returns when all is known that lay on the log when this process began."""
        await self._complete.wait()

    async def reached(self, partition: int, dated: int) -> None:
        """Returns when all is known that lies on a partition by now, for a record and all later.

        Whoever went on with its runs before may have written until a moment ago; and where nobody
        did for long, what comes first may have been taken in before longer ago than is read.

        Args:
            partition: Where the record lies.
            dated: When it was written, in milliseconds since 1970.

        Raises:
            BusUnreachable: No broker answers.
        """
        await self.complete()
        written = datetime.fromtimestamp(max(dated, 0) / 1000, UTC)
        if written < now() - KNOWN:
            await self._recall(partition, max(written - KNOWN - SKEW, BEGINNING))
        end = await asyncio.to_thread(self._end, partition)
        try:
            async with asyncio.timeout(READ_S), self._grown:
                await self._grown.wait_for(lambda: self._known.get(partition, 0) >= end)
        except TimeoutError:
            # What a stranger's transaction left behind the last record is never read.
            log.warning("journal not read to its end", partition=partition)

    def overdue(self, now: datetime) -> list[str]:
        """Returns runs whose time is over and that do not know it."""
        return [run_id for run_id, kept in self._runs.items() if kept.goes_on and kept.until <= now]

    def kept(self, run_id: str) -> Kept:
        """Returns what is known of a run."""
        return self._runs.get(run_id) or Kept()

    async def entries(self, run_id: str, count: int) -> list[AgentJournaled]:
        """Returns the first entries of a run; those of one that is over come from the log again.

        Raises:
            BusUnreachable: No broker answers.
            JournalUnsound: They are on the log no more.
        """
        kept = self.kept(run_id)
        if kept.goes_on:
            return kept.entries[:count]
        places = [(kept.partition, offset) for offset in islice(kept.causes.values(), count)]
        kafka = self._runtime.kafka
        found = await asyncio.to_thread(lambda: [*those(kafka, AGENT_JOURNALED.name, places)])
        if len(found) < count:
            raise JournalUnsound(f"of the entries of {run_id} some are on the log no more")
        return [await self._reader.read(each.value, AgentJournaled) for each in found]

    async def append(self, entry: AgentJournaled, headers: Headers) -> None:
        """Writes an entry; returns when it stands.

        Raises:
            JournalLost: Another stands in its place.
            PublishFailed: The broker does not take it.
        """
        publisher = self._runtime.publisher
        [encoded] = publisher.encode([Outgoing(AGENT_JOURNALED, entry)])
        stands: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._own[encoded.value] = stands
        try:
            await publisher.publish([encoded], headers)
            await stands
        finally:
            self._own.pop(encoded.value, None)

    async def close(self) -> None:
        """Stops following."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._tail.close()

    async def _follow(self) -> None:
        began = time.monotonic()
        for partition, place in (await self._snapshots.restored()).items():
            self._runs.update(place.runs)
            self._known[partition] = place.offset
        await self._tail.start({(AGENT_JOURNALED.name, p): at for p, at in self._known.items()})
        while True:
            lot = await self._arrived.get()
            for record in lot or ():
                await self._take(record)
                self._known[record.partition] = record.offset + 1
            async with self._grown:
                self._grown.notify_all()
            if lot is None:
                self._complete.set()
                elapsed_ms = round(1000 * (time.monotonic() - began))
                log.info("runs known", runs=len(self._runs), elapsed_ms=elapsed_ms)

    async def _recall(self, partition: int, since: datetime) -> None:
        """Takes in what was written on a partition since a moment of long ago."""
        found: dict[str, Kept] = {}
        name = f"{self._runtime.name}-recall"
        lots = written(self._runtime.kafka, AGENT_JOURNALED.name, partition, since, name)
        async for lot in stepped(lots):
            for record in lot:
                with suppress(Unreadable, SchemaMissing):
                    entry = await self._reader.read(record.value, AgentJournaled)
                    found.setdefault(entry.run_id, Kept()).take(entry, record)
        for run_id, kept in found.items():
            if len(kept.causes) > len(self.kept(run_id).causes):
                self._runs[run_id] = kept
        log.info("runs recalled", partition=partition, runs=len(found), since=since.isoformat())

    async def _take(self, record: Record) -> None:
        stands = self._own.pop(record.value, None)
        if stands is None:
            self._mine.discard(record.partition)
        else:
            self._mine.add(record.partition)
        try:
            entry = await self._reader.read(record.value, AgentJournaled)
        except (Unreadable, SchemaMissing) as problem:
            log.warning("entry unreadable", offset=record.offset, error=str(problem))
            if isinstance(problem, SchemaMissing):
                self._unsure.add(record.partition)
            if stands is not None and not stands.done():
                stands.set_exception(problem)
            return
        kept = self._runs.setdefault(entry.run_id, Kept())
        next_one = kept.take(entry, record)
        if next_one and kept.partition != record.partition:
            self._unsure |= {kept.partition, record.partition}
        if stands is None or stands.done():
            return
        if next_one:
            stands.set_result(None)
        else:
            stands.set_exception(JournalLost(f"another process goes on with {entry.run_id}"))

    async def _sweep(self) -> None:
        """Forgets runs for which nothing can come any more."""
        while True:
            await asyncio.sleep(SWEEP_S)
            old = now() - KNOWN
            # Records of before this process began may come late.
            if self._began >= old:
                continue
            for run_id in [each for each, kept in self._runs.items() if kept.is_past(old)]:
                del self._runs[run_id]
                self._forget(run_id)

    async def _snapshot(self) -> None:
        """Writes down now and then what is known, where no other process does."""
        await self.complete()
        while True:
            await asyncio.sleep(SNAPSHOT_S)
            for partition in sorted(self._mine & self._known.keys() - self._unsure):
                place = Standing(self._known[partition], self._runs)
                await self._snapshots.write(partition, place)

    def _end(self, partition: int) -> int:
        """Returns the end of a partition, if this process has anything of it to read."""
        since = int(self._since.timestamp() * 1000)
        place = TopicPartition(AGENT_JOURNALED.name, partition, since)
        with looking_back(self._runtime.kafka, f"{self._runtime.name}-ends") as consumer:
            end = consumer.get_watermark_offsets(place, TRANSFER_S)[1]
            [start] = consumer.offsets_for_times([place], TRANSFER_S)
        return int(end) if 0 <= start.offset < end else 0
