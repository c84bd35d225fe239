"""The comparison of one index with its source, and what it comes to.

The log is the truth of an index, for documents follow from it record by record; the table is the
truth of the log. So every row's version on the log is held against the store's, every chunk is
looked for by its vector, and keys of the table are looked for on the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from time import monotonic

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.addresses import AddressForbidden
from infra.bus import BusUnreachable, Record
from infra.catalog import CatalogView
from infra.changes.source import Source as Topic
from infra.changes.source import source_of
from infra.connectors.counting import Held, held, still
from infra.connectors.database import Database, DatabaseUnreachable, position, session
from infra.connectors.source import CaptureRefused, Source
from infra.health import Member, standing, waits
from infra.health import Place as Stand
from infra.past import stepped, whole
from infra.registry import Plain, Reader, SchemaMissing
from infra.secrets import SecretUnavailable
from infra.settings import KafkaSettings, VectorSettings
from infra.telemetry import now
from infra.vectors import Head, Place, Vectors, document_id
from schemas.codec import Unreadable
from schemas.events import IndexReconciled, IndexReported, RecordDeadLettered, SourceRecord
from schemas.indexes import IndexSpec
from schemas.topics import DEAD_LETTERS
from workers.capturing import reach
from workers.reconciling.comparing import Difference, compare
from workers.reconciling.expected import Log, Where

log = structlog.get_logger()


class Behind(RuntimeError):
    """An index, or its capture, does not come to where a comparison could begin; try it later."""


OUT_OF_REACH = (
    AddressForbidden,
    Behind,
    CaptureRefused,
    DatabaseUnreachable,
    OSError,
    SecretUnavailable,
)
# Of rows that are compared at one go; of more, a share, each time the next one.
MOST_ROWS = 200_000
# Of chunks that are looked for.
MOST_CHUNKS = 20_000
# Of keys that are looked for on the log.
MOST_KEYS = 2_000
MOST_WANTED = 10_000
TURN_S = 60
HEADS = 500
# How long the index, or its capture, may take to come to where the comparison begins.
PATIENCE_S = 90.0
LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Office:
    """What comparisons share.

    Attributes:
        kafka: Where the broker is.
        reader: Decodes records.
        view: The catalog.
        vectors: Where the store is.
        used: Called with table and reference when a secret is used.
    """

    kafka: KafkaSettings
    reader: Reader
    view: CatalogView
    vectors: VectorSettings
    used: Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class _Table:
    database: Database
    source: Source
    held: Held


async def reconcile(office: Office, index: str, last: IndexReported) -> IndexReconciled:
    """Returns how an index compares.

    Args:
        office: What it takes.
        index: Its name.
        last: How it stands: the generation that queries see is compared.

    Raises:
        Behind: It is not complete up to now, and does not come to be.
        Exception: What the broker, the store, the registry or the database raise.
    """
    spec = office.view.indexes[index]
    topic = source_of(spec, office.view)
    async with AsyncExitStack() as opened:
        # What a triggered index has yet to take in says nothing of the capture.
        looks = topic.captured and spec.sync == "continuous"
        table = await _table(office, spec, opened) if looks else None
        return await _compared(office, index, spec, last.generation, topic, table)


async def _table(office: Office, spec: IndexSpec, opened: AsyncExitStack) -> _Table | None:
    """Returns what a captured table holds, once its capture has read that; None out of reach."""
    name = spec.source or ""
    table = office.view.tables[name]
    connection = office.view.connections.get(table.connection or "")
    if table.capture is None or connection is None:
        return None
    # What lay there before is not wanted.
    if table.capture.snapshot == "never" and not table.capture.resnapshot:
        return None
    try:
        source = Source.of(name, table.location, table.capture)
        login = await reach(connection, None)
        office.used(name, login.reference)
        database = await opened.enter_async_context(session(login.place, login.password))
        found = await held(database, source, spec.key_columns, MOST_KEYS)
        await _until(lambda: _has_read(database, source.name, found.lsn))
    # How its source stands tells of it; the log is compared all the same.
    except OUT_OF_REACH as lack:
        log.warning("table not looked into", table=name, reason=type(lack).__name__)
        return None
    return _Table(database, source, found)


async def _compared(  # noqa: PLR0917 - an index, its topic and its table
    office: Office,
    index: str,
    spec: IndexSpec,
    generation: int,
    topic: Topic,
    table: _Table | None,
) -> IndexReconciled:
    began = now()
    place = Place(index, generation)
    group = f"index-{index}-{generation}"
    async with Vectors.open(office.vectors) as vectors:
        counted = await vectors.count(place)
        if spec.sync == "continuous":
            ends = await _taken_in(office, group, topic.topic)
        else:
            stands = await _stands(office, group, topic.topic)
            ends = {each.partition: each.committed for each in stands}
        given_up = await _given_up(office, group, topic.topic)
        share = max(1, -(-counted.rows // MOST_ROWS))
        turn = int(began.timestamp()) // TURN_S % share
        due = Log(index, spec.key_columns, topic.captured, given_up, share, turn)
        async with aclosing(_read(office, topic.topic, ends)) as records:
            async for record, plain in records:
                due.take(record, plain)
        # What is stored meanwhile has newer heads then, and a newer floor.
        unreachable = await vectors.unreachable(place, MOST_CHUNKS)
        heads = await _heads(vectors, place, due)
        floor = await vectors.floor(place)
        counted = await vectors.count(place)
    found = compare(due, heads, floor, unreachable)
    return IndexReconciled(
        index=index,
        generation=generation,
        reconcile=spec.reconcile,
        compared=found.compared,
        missing=found.missing,
        stale=found.stale,
        surplus=found.surplus,
        unreachable=found.unreachable,
        refused=found.refused,
        missed=await _missed(due, table) if table else None,
        table_rows=table.held.rows if table else None,
        indexed_rows=counted.rows,
        wanted=_wanted(found),
        reconciled_at=began,
    )


def _wanted(found: Difference) -> tuple[SourceRecord, ...]:
    first = list(found.wanted)[:MOST_WANTED]
    return tuple(SourceRecord(partition=partition, offset=offset) for partition, offset in first)


async def _heads(vectors: Vectors, place: Place, due: Log) -> Mapping[str, Head]:
    names = list(due.rows)
    found: dict[str, Head] = {}
    for start in range(0, len(names), HEADS):
        heads = await vectors.heads(place, names[start : start + HEADS])
        # The texts of all rows would be too much.
        found |= {name: replace(head, inputs={}) for name, head in heads.items()}
    return found


async def _missed(due: Log, table: _Table) -> int | None:
    """Returns how many of the table's keys never came through its capture; None if not known."""

    def unknown(name: str) -> bool:
        if not due.has(name):
            return False
        row = due.rows.get(name)
        return row is None or not (row.refused or due.is_live(row))

    lacking = [each for each in table.held.keys if unknown(document_id(due.index, each))]
    try:
        return len(await still(table.database, table.source, lacking))
    except OUT_OF_REACH:
        return None


async def _until(there: Callable[[], Awaitable[bool]]) -> None:
    late = monotonic() + PATIENCE_S
    while not await there():
        if monotonic() > late:
            raise Behind(f"it did not catch up within {PATIENCE_S:.0f} s")
        await asyncio.sleep(LOOK_S)


async def _has_read(database: Database, slot: str, lsn: str) -> bool:
    found = await database.slot(slot)
    return found is not None and position(found.confirmed) >= position(lsn)


async def _stands(office: Office, group: str, topic: str) -> list[Stand]:
    """Returns where a group stands.

    Raises:
        BusUnreachable: The broker does not answer, or has no such topic.
    """
    member = Member(group, f"{group}-reconcile", (topic,))
    # One that saw the broker go may wait for it for ever.
    admin = AdminClient({"bootstrap.servers": office.kafka.bootstrap_servers, "log_level": 0})
    try:
        return (await asyncio.to_thread(standing, admin, member))[0]
    except (KafkaException, TimeoutError, ValueError) as problem:
        raise BusUnreachable(f"{topic} is not told of: {type(problem).__name__}") from None


async def _taken_in(office: Office, group: str, topic: str) -> Mapping[int, int]:
    """Returns where the partitions end now, once the index has taken all before that in."""
    ends = {each.partition: each.end for each in await _stands(office, group, topic)}

    async def there() -> bool:
        for each in await _stands(office, group, topic):
            at = (topic, each.partition, each.committed)
            # What has not moved may have only a transaction's marker before it.
            if each.committed < ends.get(each.partition, 0) and await asyncio.to_thread(
                waits, office.kafka, group, *at
            ):
                return False
        return True

    await _until(there)
    return ends


async def _given_up(office: Office, group: str, topic: str) -> frozenset[Where]:
    """Returns the records of a topic that are dead letters of a group."""
    stands = await _stands(office, f"{group}-letters", DEAD_LETTERS.name)
    letters = set()
    batches = whole(office.kafka, DEAD_LETTERS.name, {each.partition: each.end for each in stands})
    async with aclosing(stepped(batches)) as steps:
        async for batch in steps:
            for record in batch:
                # The key says of which topic it is; most are of others.
                if not (record.key or b"").startswith(f"{topic}/".encode()):
                    continue
                try:
                    letter = await office.reader.read(record.value, RecordDeadLettered)
                except (SchemaMissing, Unreadable):
                    continue
                if letter.processor == group and letter.topic == topic:
                    letters.add((letter.partition, letter.offset))
    return frozenset(letters)


async def _read(
    office: Office, topic: str, ends: Mapping[int, int]
) -> AsyncGenerator[tuple[Record, Plain], None]:
    """Yields what lies on a topic before its ends; what cannot be read is a dead letter."""
    async with aclosing(stepped(whole(office.kafka, topic, ends))) as steps:
        async for batch in steps:
            for record in batch:
                try:
                    plain = await office.reader.plain(record.key, record.value)
                except (SchemaMissing, Unreadable):
                    continue
                yield record, plain
