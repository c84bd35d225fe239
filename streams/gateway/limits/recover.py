"""Recovery: the counters of a partition as they stand when somebody takes it over.

Counters are summed up now and then, so only the end of the ledger must be read: from where all were
summed up last to the entry by which the partition is taken over. What lies behind that entry by
somebody who decided before is void, so nothing is missed. A little more is read for decisions on
records that will be read again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import structlog
from confluent_kafka import Consumer, TopicPartition

from infra.bus import BATCH, TRANSFER_S, BusUnreachable, Record, fetch
from infra.past import SILENCE_S, looking_back
from infra.registry import Registry, SchemaMissing
from infra.settings import KafkaSettings
from schemas.codec import Codec, SchemaUnlearned, Unreadable
from schemas.events import Event, UsageCounted, UsageSummed
from schemas.topics import USAGE_COUNTED, USAGE_SUMMED
from streams.gateway.limits.counters import DECISIONS, Counters, dated, milliseconds, summary_of

log = structlog.get_logger()

E = TypeVar("E", bound=Event)

# Entries of the ledger that are looked through at once, backwards, for earlier decisions.
LOOK_BACK = 5000
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """Who takes over what.

    Attributes:
        partition: Of the ledger.
        shared: Whether it is the counters that tenants share.
        taken_id: Id of the entry that lies on the ledger for it.
        place: Offset of the first record that is decided on now.
        since: No earlier decision is asked for again.
    """

    partition: int
    shared: bool
    taken_id: str
    place: int
    since: datetime


def recover(kafka: KafkaSettings, codec: Codec, registry: Registry, takeover: Takeover) -> Counters:
    """Returns the counters of a partition up to its takeover; blocks.

    Args:
        kafka: Where the broker is.
        codec: Decodes values.
        registry: Knows the schemas of other writers.
        takeover: Who takes over what; its entry lies on the ledger.

    Raises:
        BusUnreachable: No broker answers.
    """
    with _reading(kafka, codec, registry, takeover.partition, shared=takeover.shared) as reading:
        return reading.taken_over(takeover)


def standing(
    kafka: KafkaSettings, codec: Codec, registry: Registry, partition: int, *, shared: bool
) -> Counters:
    """Returns the counters of a partition as the ledger has them now; blocks.

    Nothing is taken over: whoever decides there goes on. Arguments and errors are those of
    ``recover``.
    """
    with _reading(kafka, codec, registry, partition, shared=shared) as reading:
        return reading.standing()


@contextmanager
def _reading(
    kafka: KafkaSettings, codec: Codec, registry: Registry, partition: int, *, shared: bool
) -> Iterator[_Reading]:
    with looking_back(kafka, f"recover-{USAGE_COUNTED.name}") as consumer:
        yield _Reading(consumer, codec, registry, partition, shared=shared)


class _Reading:
    """What is read of one partition."""

    def __init__(
        self,
        consumer: Consumer,
        codec: Codec,
        registry: Registry,
        partition: int,
        *,
        shared: bool,
    ) -> None:
        self._consumer = consumer
        self._codec = codec
        self._registry = registry
        self._partition = partition
        self._shared = shared
        self._ledger = TopicPartition(USAGE_COUNTED.name, partition)

    def taken_over(self, takeover: Takeover) -> Counters:
        """Returns the counters up to a takeover."""
        counters = self._counters(takeover.place)
        low, start, _ = self._restore(counters)
        for offset, entry in self._asked_again(takeover, low, start):
            counters.recall(entry, offset)
        for offset, entry in self._entries(start, None):
            counters.apply(entry, offset)
            if entry.charge_id == takeover.taken_id:
                break
        return counters

    def standing(self) -> Counters:
        """Returns the counters up to where the ledger ends now."""
        counters = self._counters(0)
        _, start, high = self._restore(counters)
        for offset, entry in self._entries(start, high):
            counters.apply(entry, offset)
        return counters

    def _counters(self, place: int) -> Counters:
        return Counters(shared=self._shared, partition=self._partition, place=place)

    def _restore(self, counters: Counters) -> tuple[int, int, int]:
        """Takes the counters as they were summed up last.

        Returns where the ledger begins, up to where it is summed, and where it ends.
        """
        sums = self._sums()
        low, high = self._consumer.get_watermark_offsets(self._ledger, TRANSFER_S)
        summary = sums.pop(summary_of(self._partition, shared=self._shared), None)
        start = low
        # A ledger that ends before is another one: it was made anew.
        if summary is not None and summary.ledger_offset <= high:
            start = max(low, summary.ledger_offset)
            counters.start(start, summary.fence)
            for summed in sums.values():
                counters.restore(summed)
        return low, start, high

    def _sums(self) -> dict[str, UsageSummed]:
        """Returns the counters of the partition as they were summed up last, by name."""
        place = TopicPartition(USAGE_SUMMED.name, 0)
        low, high = self._consumer.get_watermark_offsets(place, TRANSFER_S)
        values: dict[bytes | None, bytes | None] = {}
        for record in self._records(place, low, high):
            values[record.key] = record.value
        found: dict[str, UsageSummed] = {}
        for value in values.values():
            summed = self._read(value, UsageSummed) if value else None
            if (
                summed is not None
                and summed.shared == self._shared
                and summed.ledger_partition == self._partition
            ):
                found[summed.counter] = summed
        return found

    def _asked_again(
        self, takeover: Takeover, low: int, start: int
    ) -> Iterator[tuple[int, UsageCounted]]:
        """Yields entries that are summed up already, back to where no record is read again.

        A tenant's decisions lie on the ledger in the order of their records: looking back ends with
        the first on a record that will not be read again.
        """
        moment = milliseconds(takeover.since)
        begin = TopicPartition(self._ledger.topic, self._ledger.partition, moment)
        [since] = self._consumer.offsets_for_times([begin], TRANSFER_S)
        floor = max(low, since.offset if since.offset >= 0 else start)
        passed, lots = False, []
        while start > floor and not passed:
            end, start = start, max(floor, start - LOOK_BACK)
            lot = [each for each in self._entries(start, end) if each[1].shared == self._shared]
            lots.append(lot)
            passed = not self._shared and any(
                entry.place < takeover.place for _, entry in lot if entry.entry in DECISIONS
            )
        for lot in reversed(lots):
            yield from lot

    def _entries(self, start: int, end: int | None) -> Iterator[tuple[int, UsageCounted]]:
        """Yields a part of the ledger, with offsets."""
        for record in self._records(self._ledger, start, end):
            if entry := self._read(record.value, UsageCounted):
                yield record.offset, dated(entry, record.dated)

    def _records(self, place: TopicPartition, start: int, end: int | None) -> Iterator[Record]:
        """Yields a part of a partition; it goes on for ever where no end is given.

        Raises:
            BusUnreachable: The broker is silent for long.
        """
        place = TopicPartition(place.topic, place.partition, start)
        self._consumer.assign([place])
        silent_since, at = time.monotonic(), start
        while end is None or at < end:
            for record in (found := fetch(self._consumer, BATCH, SILENCE_S)):
                at = record.offset + 1
                if end is None or record.offset < end:
                    yield record
            if found:
                silent_since = time.monotonic()
            # Where the last records were compacted away, the position tells.
            elif end is not None:
                at = max(at, self._consumer.position([place])[0].offset)
            if time.monotonic() - silent_since > PATIENCE_S:
                raise BusUnreachable(f"{place.topic} is silent")

    def _read(self, value: bytes | None, expected: type[E]) -> E | None:
        while True:
            try:
                return self._codec.decode(value, expected)
            except SchemaUnlearned as unlearned:
                try:
                    schema = self._registry.schema(unlearned.schema_id)
                except SchemaMissing as problem:
                    return _skip(expected, problem)
                self._codec.learn(unlearned.schema_id, schema)
            except Unreadable as problem:
                return _skip(expected, problem)


def _skip(expected: type[E], problem: Exception) -> E | None:
    # Whoever may write here may write garbage; it counts for nothing.
    log.warning("ledger entry unreadable", event=expected.SCHEMA, error=str(problem))
    return None
