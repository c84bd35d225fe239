"""The lake: Delta tables of events, one row for each key, and SQL over them.

What it knows: how an event becomes a row, how rows and the log positions that they came from go
into one commit, and how a question is kept from doing anything but reading. What it does not know:
Kafka, and when to flush.

Each effect happens once. A commit carries the last offset of every partition in it as a Delta
application transaction, so a redelivered record is skipped; a key that the table already holds is
dropped, so a duplicate at another offset adds no row. Both are decided on one version of the table
and the commit is refused unless it becomes the very next one (optimistic concurrency control,
https://github.com/delta-io/delta/blob/master/PROTOCOL.md), which makes it safe beside others.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    Field,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import PrimitiveType
from pyarrow import fs

from infra.columns import arrow_schema
from infra.keymemory import KeyMemory
from infra.views import VIEWS
from schemas import topics
from schemas.events import Event

WEEK = timedelta(days=7)
# Below this a data file is worth merging; above it compaction leaves it alone.
FILE_BYTES = 128 * 1024 * 1024

DATE = "date"
STATS = "delta.dataSkippingStatsColumns"
LOG_COLUMNS = (
    pa.field("log_topic", pa.string(), nullable=False),
    pa.field("log_partition", pa.int32(), nullable=False),
    pa.field("log_offset", pa.int64(), nullable=False),
    pa.field("trace_id", pa.string()),
    pa.field(DATE, pa.date32(), nullable=False),
)

WRITER = WriterProperties(compression="ZSTD", compression_level=1)

READ_ONLY: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "enable_external_access": False,
    # Otherwise a name in SQL may be a variable of this process.
    "python_enable_replacements": False,
    # Otherwise a large sort writes to the working directory.
    "temp_directory": "",
}


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """A table of the lake.

    Attributes:
        topic: Where its rows come from.
        key: Column that is unique in the table.
        at: Instant column whose UTC date is the partition.
        older_key: Column that was unique before there was ``key``, and names a row without it.
    """

    topic: topics.Topic[Any]
    key: str
    at: str
    older_key: str | None = None


TABLES: dict[str, TableSpec] = {
    "attempts": TableSpec(topic=topics.INFERENCE_ATTEMPTED, key="attempt_id", at="started_at"),
    "audits": TableSpec(topic=topics.AUDIT_RECORDED, key="audit_id", at="at"),
    "inferences": TableSpec(
        topic=topics.INFERENCE_RECORDED, key="row_id", at="requested_at", older_key="request_id"
    ),
}


class Row(NamedTuple):
    """An event and where in the log it stood.

    Attributes:
        event: The event.
        topic: Topic of its record.
        partition: Partition of its record.
        offset: Offset of its record.
        trace_id: W3C trace id out of the record's ``traceparent`` header.
    """

    event: Event
    topic: str
    partition: int
    offset: int
    trace_id: str | None = None


class LakeContended(RuntimeError):
    """Other writers got in before every attempt to commit; nothing of the batch was stored."""


class QueryInvalid(ValueError):
    """A question that the lake does not answer; the message says why and what it does know."""


class EventTable:
    """A Delta table with one row for each key of an event.

    Every call blocks on the disk. An instance serves one thread at a time; any number of them, in
    any processes, may write to one table.

    Args:
        root: The lake.
        name: Name of the table and of its folder.
        event: What a row holds.
        key: Column that is unique in the table.
        at: Instant column whose UTC date is the partition.
        group: Who writes: offsets are kept for each group, as a broker does.
        attempts: How often a commit is tried while others get in before it.
        older_key: Column that was unique before there was ``key``, and names a row without it.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        event: type[Event],
        key: str,
        at: str,
        *,
        group: str,
        attempts: int = 100,
        older_key: str | None = None,
    ) -> None:
        self.name = name
        self._key = key
        self._older_key = older_key
        self._at = at
        self._group = group
        self._attempts = attempts
        self._schema = _columns(event)
        self._path = root / name
        self._bounding = [key, older_key] if older_key else [key]
        self._table = _open(self._path, self._schema, [*self._bounding, at])
        self._keys = KeyMemory(key, older=older_key)

    @classmethod
    def of(cls, root: Path, name: str, *, group: str, attempts: int = 100) -> EventTable:
        """Returns a table that ``TABLES`` names."""
        spec = TABLES[name]
        return cls(
            root,
            name,
            spec.topic.event,
            spec.key,
            spec.at,
            group=group,
            attempts=attempts,
            older_key=spec.older_key,
        )

    def offset(self, topic: str, partition: int) -> int | None:
        """Returns the last offset of a partition that is accounted for, null before the first."""
        self._table.update_incremental()
        return self._offset(topic, partition)

    def append(self, rows: Sequence[Row]) -> int:
        """Stores what is new among rows, and their offsets, in one commit.

        Rows of a partition come in the order of their offsets. A row is dropped where its offset
        was accounted for, or where a row with its key and date is stored or stands before it.
        Offsets advance even if every row is dropped.

        Returns:
            How many rows were stored.

        Raises:
            LakeContended: Other writers were faster at every attempt.
        """
        for _ in range(self._attempts):
            self._table.update_incremental()
            undelivered = self._undelivered(rows)
            if not undelivered:
                return 0
            fresh = self._fresh(undelivered)
            with suppress(CommitFailedError):
                self._commit(fresh, undelivered)
                return len(fresh)
        raise LakeContended(f"{self.name}: {self._attempts} commits lost to other writers")

    def compact(self, retention: timedelta = WEEK) -> None:
        """Merges small files, writes a checkpoint, and deletes files unused for ``retention``.

        Safe beside writers: an append that it overtakes is tried again, and where another
        compaction is under way this one leaves the work to it. No reader may hold a version of
        the table for longer than ``retention``.
        """
        hours = int(retention / timedelta(hours=1))
        with _only(self._path / ".compacting") as alone:
            if not alone:
                return
            self._table.update_incremental()
            # A new column got in before it: the next compaction will do.
            with suppress(CommitFailedError):
                self._table.optimize.compact(target_size=FILE_BYTES, writer_properties=WRITER)
            self._table.create_checkpoint()
            # Full: commits that lost to others leave files behind that no version ever named.
            if self._table.vacuum(hours, enforce_retention_duration=False, full=True):
                self._table.vacuum(
                    hours, dry_run=False, enforce_retention_duration=False, full=True
                )

    def _offset(self, topic: str, partition: int) -> int | None:
        return self._table.transaction_version(self._app(topic, partition))

    def _app(self, topic: str, partition: int) -> str:
        return f"{self._group}/{topic}/{partition}"

    def _undelivered(self, rows: Sequence[Row]) -> list[Row]:
        seen = {
            source: self._offset(*source) for source in {(row.topic, row.partition) for row in rows}
        }
        return [
            row
            for row in rows
            if (last := seen[row.topic, row.partition]) is None or row.offset > last
        ]

    def _fresh(self, rows: Sequence[Row]) -> list[Row]:
        first: dict[tuple[date, str], Row] = {}
        for row in rows:
            first.setdefault((self._date(row), self._named(row)), row)
        for day, group in groupby(sorted(first), key=lambda place: place[0]):
            for key in self._stored(day, [key for _, key in group]):
                del first[day, key]
        return list(first.values())

    def _stored(self, day: date, keys: list[str]) -> set[str]:
        """Returns which of some sorted keys are in the table."""
        # Delta takes an empty string for null, so it bounds nothing.
        ends = [(op, end) for op, end in ((">=", keys[0]), ("<=", keys[-1])) if end]
        # A merged file may hold rows that either column names.
        places = [
            [(DATE, "=", day), *((column, op, end) for op, end in ends)]
            for column in self._bounding
        ]
        return self._keys.among(keys, self._table.file_uris(file_pruning_predicate=places))

    def _named(self, row: Row) -> str:
        """Returns what is unique of a row in the table."""
        key: str = getattr(row.event, self._key)
        if not key and self._older_key:
            key = getattr(row.event, self._older_key)
        return key

    def _date(self, row: Row) -> date:
        at: datetime = getattr(row.event, self._at)
        return at.astimezone(UTC).date()

    def _commit(self, fresh: Sequence[Row], accounted: Sequence[Row]) -> None:
        last: dict[str, int] = {}
        for row in accounted:
            app = self._app(row.topic, row.partition)
            last[app] = max(row.offset, last.get(app, row.offset))
        write_deltalake(
            self._table,
            pa.Table.from_pylist([self._record(row) for row in fresh], self._schema),
            mode="append",
            schema_mode="merge",
            writer_properties=WRITER,
            commit_properties=CommitProperties(
                app_transactions=[Transaction(*entry) for entry in last.items()],
                # None: Delta's own retry knows of no duplicate keys and would add ours to theirs.
                max_commit_retries=0,
            ),
        )

    def _record(self, row: Row) -> dict[str, Any]:
        event = row.event.to_avro()
        return {
            **event,
            self._key: self._named(row),
            "log_topic": row.topic,
            "log_partition": row.partition,
            "log_offset": row.offset,
            "trace_id": event.get("trace_id") or row.trace_id,
            DATE: self._date(row),
        }


def _columns(event: type[Event]) -> pa.Schema:
    own = arrow_schema(event)
    return pa.schema([*own, *(column for column in LOG_COLUMNS if column.name not in own.names)])


def _open(path: Path, schema: pa.Schema, bounding: Sequence[str]) -> DeltaTable:
    """Returns a table, made if it is new; of its event, only ``bounding`` show ends in the log."""
    stats = {STATS: ",".join([*bounding, "log_partition", "log_offset"])}
    if not DeltaTable.is_deltatable(str(path)):
        path.mkdir(parents=True, exist_ok=True)
        # Another process may be making it: then theirs is as good.
        with suppress(DeltaError):
            DeltaTable.create(path, schema, partition_by=[DATE], configuration=stats)
    table = DeltaTable(path)
    known = {field.name for field in table.schema().fields}
    if lacking := [name for name in bounding if name not in known]:
        # Another process may be at it: then theirs are as good.
        with suppress(DeltaError):
            table.alter.add_columns([Field(name, PrimitiveType("string")) for name in lacking])
            table.alter.set_table_properties(stats)
    return DeltaTable(path)


@contextmanager
def _only(path: Path) -> Iterator[bool]:
    """Yields whether no other process holds the lock at ``path``; a dead process holds none.

    Delta would let two compactions of the same files both commit and double their rows: its
    conflict check passes over removals that change no data (measured with deltalake 1.6.6).
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def is_table(path: Path) -> bool:
    """Returns whether a table lies there, of one event at least."""
    return path.is_dir() and DeltaTable.is_deltatable(str(path))


def query(root: Path, sql: str, values: Mapping[str, object] | None = None) -> pa.Table:
    """Answers one SELECT over the tables of a lake; only the columns and files it needs are read.

    Over the table of inferences stand views (``infra/views.py``), which are asked like tables.
    Nothing else can run: DuckDB may touch no file, load no extension and change no setting.
    ``values`` stand where the statement says ``$name``.

    Raises:
        QueryInvalid: The SQL is wrong, names no table of the lake, or does not only read.
    """
    # One whose first event is not written yet, or never was, is none.
    found = {path.name: path for path in sorted(root.glob("*")) if is_table(path)}
    if not found:
        raise QueryInvalid(f"there is no table in {root} yet: one appears with its first event")
    views = [name for name in VIEWS if "inferences" in found and name not in found]
    with duckdb.connect(config=READ_ONLY) as connection:
        try:
            connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
            statements = connection.extract_statements(sql)
            if [statement.type.name for statement in statements] not in (["SELECT"], ["EXPLAIN"]):
                raise QueryInvalid("only one SELECT or EXPLAIN can be asked at a time")
            for name, path in found.items():
                connection.register(name, _dataset(name, path))
            for name in views:
                connection.execute(f"CREATE TEMP VIEW {name} AS {VIEWS[name]}")
            return connection.sql(sql, params=values).to_arrow_table()
        except duckdb.CatalogException as problem:
            known = f"The tables of the lake: {', '.join([*found, *views])}"
            raise QueryInvalid(f"{problem}\n\n{known}") from None
        except duckdb.Error as problem:
            raise QueryInvalid(str(problem)) from None


def _dataset(name: str, path: Path) -> Any:
    files = fs.SubTreeFileSystem(str(path.absolute()), fs.LocalFileSystem())
    dataset = DeltaTable(path).to_pyarrow_dataset(filesystem=files)
    if name not in TABLES:
        return dataset
    # A table that nobody has written to since its event got a new field has no column of it yet.
    known = _columns(TABLES[name].topic.event)
    lacking = [
        column.with_nullable(True) for column in known if column.name not in dataset.schema.names
    ]
    return dataset.replace_schema(pa.schema([*dataset.schema, *lacking])) if lacking else dataset
