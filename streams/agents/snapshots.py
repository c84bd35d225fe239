"""Snapshots of what is known of runs, so that a start need not read two hours of their journal.

A snapshot says what the journal of a partition comes to up to an offset. Who starts takes the
latest, reads the entries of runs that go on, and the journal from that offset. A snapshot counts
only where all of it is there and it is of the journal that lies there now; where none does, the
journal is read as if there were none. So of a run whose deadline is not an hour past, the same is
known after a start with and without; who wrote the snapshot may have forgotten others. A snapshot
is believed in what it says of runs that are over, and in which there are: whoever may write one
can hide a run.

Whoever wrote the last entry of a partition writes its snapshots: parts that two processes write at
a time lie under the same keys, and once they are compacted neither may be whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple
from uuid import uuid4

import structlog
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from infra.bus import TRANSFER_S, BusUnreachable, Encoded, PublishFailed, Record, partitions
from infra.follow import topic_id
from infra.past import looking_back, those
from infra.registry import Reader, SchemaMissing
from infra.tail import TailBroken
from infra.telemetry import now
from infra.told import told
from schemas.codec import Unreadable
from schemas.events import AgentJournaled, AgentsSnapshotted, KnownRun
from schemas.topics import AGENT_JOURNALED, AGENT_SNAPSHOTTED, Outgoing
from streams.agents.kept import BACK, SKEW, Kept
from streams.steps import Runtime

log = structlog.get_logger()

# Entries that must have come since the last snapshot of a partition.
LEAST = 1000
# The same as a part of what that one knew: writing costs little beside what it tells of.
SHARE = 8
MOST_PART_BYTES = 4 * 1024 * 1024
# How long snapshots are looked for: without, the journal tells as much.
READ_S = 30.0


class SnapshotUnsound(ValueError):
    """A snapshot says other than the journal does; the message names the run."""


@dataclass(frozen=True, slots=True)
class Lying:
    """The journal as it lies on the broker at a moment.

    Attributes:
        topic_id: What tells it from a later topic of its name.
        ends: By partition: its first offset, and the one behind its last.
        at: The moment.
    """

    topic_id: str
    ends: Mapping[int, tuple[int, int]]
    at: datetime

    def fits(self, snapshot: AgentsSnapshotted) -> bool:
        """Returns whether a snapshot is of this journal, and all lies there that came after it."""
        first, end = self.ends.get(snapshot.partition, (0, -1))
        return (
            snapshot.topic_id == self.topic_id
            and first <= snapshot.offset <= end
            # What an older one spares is less than reading on from it costs.
            and self.at - BACK < snapshot.taken_at < self.at + SKEW
        )


class Standing(NamedTuple):
    """The runs of a partition as they are known up to an offset, exclusive."""

    offset: int
    runs: dict[str, Kept]


class Gathered:
    """Snapshots out of the parts that lie on their topic.

    Args:
        lying: What they must fit.

    Attributes:
        latest: By partition: the one that reaches furthest.
    """

    def __init__(self, lying: Lying) -> None:
        self._lying = lying
        self._parts: dict[str, dict[int, AgentsSnapshotted]] = {}
        self.latest: dict[int, AgentsSnapshotted] = {}

    def take(self, part: AgentsSnapshotted) -> None:
        """Takes a part in; a snapshot of which one is missing is none."""
        if not self._lying.fits(part):
            return
        parts = self._parts.setdefault(part.snapshot_id, {})
        parts[part.part] = part
        if len(parts) < part.parts or parts.keys() != set(range(part.parts)):
            return
        del self._parts[part.snapshot_id]
        last = self.latest.get(part.partition)
        if last is None or last.offset <= part.offset:
            runs = tuple(run for number in range(part.parts) for run in parts[number].runs)
            self.latest[part.partition] = replace(part, part=0, parts=1, runs=runs)


def taken(place: Standing, partition: int, topic: str, at: datetime) -> AgentsSnapshotted:
    """Returns a snapshot of a partition, whole.

    Args:
        place: What is known there, maybe beside runs of other partitions.
        partition: Of the journal.
        topic: Id of the journal's topic.
        at: The moment.
    """
    runs = tuple(
        KnownRun(
            run_id=run_id,
            causes=tuple(kept.causes),
            offsets=tuple(kept.causes.values()),
            until=kept.until,
            ended=kept.ended,
            heard_at=kept.heard,
        )
        for run_id, kept in place.runs.items()
        if kept.causes and kept.partition == partition and not kept.is_past(at - BACK)
    )
    return AgentsSnapshotted(
        partition=partition,
        snapshot_id=str(uuid4()),
        topic_id=topic,
        offset=place.offset,
        runs=runs,
        taken_at=at,
    )


def parted(snapshot: AgentsSnapshotted, most: int = MOST_PART_BYTES) -> Iterator[AgentsSnapshotted]:
    """Yields a snapshot in parts that each fit into a record.

    Args:
        snapshot: A whole one.
        most: How many bytes the runs of a part may have; a run is never parted.
    """
    lots: list[list[KnownRun]] = [[]]
    room = most
    for run in snapshot.runs:
        size = len(run.to_bytes())
        if size > room and lots[-1]:
            lots.append([])
            room = most
        lots[-1].append(run)
        room -= size
    for number, lot in enumerate(lots):
        yield replace(snapshot, part=number, parts=len(lots), runs=tuple(lot))


def places(snapshot: AgentsSnapshotted) -> list[tuple[int, int]]:
    """Returns where the entries of runs lie that go on: partitions and offsets."""
    going = [run for run in snapshot.runs if not run.ended]
    return [(snapshot.partition, offset) for run in going for offset in run.offsets]


def known(
    snapshot: AgentsSnapshotted, entries: Iterable[tuple[AgentJournaled, Record]]
) -> dict[str, Kept]:
    """Returns the runs of a snapshot.

    Args:
        snapshot: A whole one.
        entries: What lies at its ``places``, in that order.

    Raises:
        SnapshotUnsound: Something else lies there.
    """
    runs = {run.run_id: _begun(run, snapshot.partition) for run in snapshot.runs}
    for entry, record in entries:
        if entry.run_id in runs:
            runs[entry.run_id].take(entry, record)
    for run in snapshot.runs:
        kept = runs[run.run_id]
        lies = tuple(kept.causes), tuple(kept.causes.values()), kept.until, kept.ended
        if lies != (run.causes, run.offsets, run.until, run.ended):
            raise SnapshotUnsound(f"the journal says something else of {run.run_id}")
    return runs


class Snapshots:
    """The snapshots of all partitions: reads them at the start, and writes new ones.

    Args:
        runtime: What the process has at hand.
        reader: Decodes records.
    """

    def __init__(self, runtime: Runtime, reader: Reader) -> None:
        self._runtime = runtime
        self._reader = reader
        self._topic_id = ""
        # By partition: up to where the last one goes that is known, and how many entries it knows.
        self._last: dict[int, tuple[int, int]] = {}

    async def restored(self) -> dict[int, Standing]:
        """Returns what is known by snapshots, by partition; to be asked once, at the start.

        Raises:
            BusUnreachable: No broker answers of those that have the journal.
        """
        try:
            lying = await asyncio.to_thread(self._lying)
        except LookupError as problem:
            log.warning("snapshots not read", error=str(problem))
            return {}
        self._topic_id = lying.topic_id
        latest = await self._latest(lying)
        entries = await self._entries(latest.values())
        found: dict[int, Standing] = {}
        for partition, snapshot in latest.items():
            try:
                runs = known(snapshot, entries[partition])
            except SnapshotUnsound as problem:
                log.warning("snapshot passed over", partition=partition, error=str(problem))
                continue
            found[partition] = Standing(snapshot.offset, runs)
            self._last[partition] = snapshot.offset, _size(snapshot)
            log.info("runs restored", partition=partition, offset=snapshot.offset, runs=len(runs))
        return found

    async def write(self, partition: int, place: Standing) -> None:
        """Writes a snapshot where enough has come since the last; looks at it before it waits."""
        last, size = self._last.get(partition, (0, 0))
        if not self._topic_id or place.offset - last < max(LEAST, size // SHARE):
            return
        snapshot = taken(place, partition, self._topic_id, now())
        records = await asyncio.to_thread(self._encoded, snapshot)
        try:
            await self._runtime.publisher.publish(records)
        # A start takes longer without, and that is all.
        except PublishFailed as failed:
            log.warning("snapshot not written", partition=partition, error=str(failed))
            return
        self._last[partition] = snapshot.offset, _size(snapshot)
        log.info(
            "snapshot written",
            partition=partition,
            offset=snapshot.offset,
            runs=len(snapshot.runs),
            parts=len(records),
        )

    def _lying(self) -> Lying:
        kafka, name = self._runtime.kafka, AGENT_JOURNALED.name
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        found = topic_id(admin, name)
        if found is None:
            raise LookupError(f"there is no topic {name}: run provisioning first")
        with looking_back(kafka, f"{self._runtime.name}-ends") as consumer:
            ends = {
                each: consumer.get_watermark_offsets(TopicPartition(name, each), TRANSFER_S)
                for each in partitions(consumer, name)
            }
        return Lying(found, ends, now())

    async def _latest(self, lying: Lying) -> dict[int, AgentsSnapshotted]:
        """Returns the latest snapshots by partition; none where they cannot be read in time."""
        gathered = Gathered(lying)
        try:
            async with asyncio.timeout(READ_S):
                await self._gather(gathered)
        # A start takes longer without, and that is all.
        except (BusUnreachable, LookupError, TailBroken, TimeoutError) as problem:
            log.warning("snapshots not read", error=repr(problem))
            return {}
        return gathered.latest

    async def _gather(self, gathered: Gathered) -> None:
        kafka, name = self._runtime.kafka, f"{self._runtime.name}-snapshots"
        async with aclosing(told(kafka, self._reader, AGENT_SNAPSHOTTED, name)) as parts:
            async for part in parts:
                if part is None:
                    break
                gathered.take(part)

    async def _entries(
        self, snapshots: Iterable[AgentsSnapshotted]
    ) -> dict[int, list[tuple[AgentJournaled, Record]]]:
        """Returns the entries of runs that go on, by partition; those that are gone are missing."""
        entries: dict[int, list[tuple[AgentJournaled, Record]]] = {}
        wanted: list[tuple[int, int]] = []
        for snapshot in snapshots:
            entries[snapshot.partition] = []
            wanted += places(snapshot)
        kafka, name = self._runtime.kafka, AGENT_JOURNALED.name
        for record in await asyncio.to_thread(lambda: [*those(kafka, name, wanted)]):
            with suppress(Unreadable, SchemaMissing):
                entry = await self._reader.read(record.value, AgentJournaled)
                entries[record.partition].append((entry, record))
        return entries

    def _encoded(self, snapshot: AgentsSnapshotted) -> list[Encoded]:
        outgoing = (Outgoing(AGENT_SNAPSHOTTED, part) for part in parted(snapshot))
        return self._runtime.publisher.encode(outgoing)


def _begun(run: KnownRun, partition: int) -> Kept:
    """Returns a run without what its entries are to say."""
    if not run.ended:
        return Kept(heard=run.heard_at)
    # Of different length they are unsound, and then this has other than they say.
    causes = dict(zip(run.causes, run.offsets, strict=False))
    return Kept(partition, causes, until=run.until, ended=True, heard=run.heard_at)


def _size(snapshot: AgentsSnapshotted) -> int:
    return sum(len(run.causes) for run in snapshot.runs)
