"""What a record of a table says of a row: one change, whoever wrote the record.

Debezium's envelope is read as such; any other Avro record is a row as it now is, and a record
without a value says that the row of its key is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from infra.bus import Record
from infra.registry import Plain

# Debezium's word for a large value that the database's log leaves out since it did not change.
UNAVAILABLE = "__debezium_unavailable_value"

ENVELOPE = frozenset({"after", "op", "source"})

# A row as it came: its columns by name.
Row = Mapping[str, Any]


class Op(StrEnum):
    """What happened.

    A row was written (UPSERT) or deleted (DELETE) at a place of its database's log; all rows were
    deleted (TRUNCATE); or the topic says without such a place that a row is no more (GONE).
    """

    DELETE = "DELETE"
    GONE = "GONE"
    TRUNCATE = "TRUNCATE"
    UPSERT = "UPSERT"


class ChangeUnreadable(ValueError):
    """A record tells of no row; the message says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a row.

    Attributes:
        op: What happened.
        key: Values of the key columns; empty where all rows are meant.
        row: All columns as they came, the key's among them; empty unless it was written.
        version: Sorts as the table's log does.
        committed_at: When it was committed, in milliseconds since 1970; None where nobody says.
        unavailable: Columns whose values did not change and were left out.
    """

    op: Op
    key: Row
    row: Row
    version: str
    committed_at: int | None = None
    unavailable: frozenset[str] = frozenset()


def version_of(lsn: int, offset: int) -> str:
    """Returns the version of a change: text that sorts by place in the log, then by offset."""
    return f"{lsn:020d}.{offset:020d}"


def change_of(record: Record, plain: Plain, key_columns: tuple[str, ...] = ()) -> Change | None:
    """Returns what a record says; None where it says nothing of any row.

    Args:
        record: Where it lies.
        plain: Its key and value as they were decoded.
        key_columns: What tells rows apart; the fields of the record's key if there are none.

    Raises:
        ChangeUnreadable: It is not known of which row it tells.
    """
    dated = record.dated if record.dated >= 0 else None
    value = plain.value
    if value is None:
        key = _key(plain.key, {}, key_columns)
        version = version_of(0, record.offset)
        return Change(op=Op.GONE, key=key, row={}, version=version, committed_at=dated)
    if ENVELOPE.issubset(value):
        return _captured(record, plain, value, key_columns)
    return Change(
        op=Op.UPSERT,
        key=_key(plain.key, value, key_columns),
        row=value,
        version=version_of(0, record.offset),
        committed_at=dated,
    )


def _captured(
    record: Record, plain: Plain, value: Row, key_columns: tuple[str, ...]
) -> Change | None:
    source = value["source"] or {}
    version = version_of(int(source.get("lsn") or 0), record.offset)
    committed_at = source.get("ts_ms")
    op, after, before = value["op"], value["after"] or {}, value.get("before") or {}
    if op == "t":
        return Change(op=Op.TRUNCATE, key={}, row={}, version=version, committed_at=committed_at)
    if op == "d":
        key = _key(plain.key, before, key_columns)
        return Change(op=Op.DELETE, key=key, row={}, version=version, committed_at=committed_at)
    if op not in {"c", "r", "u"}:
        return None
    return Change(
        op=Op.UPSERT,
        key=_key(plain.key, after, key_columns),
        row=after,
        version=version,
        committed_at=committed_at,
        unavailable=frozenset(name for name, each in after.items() if _left_out(each)),
    )


def _left_out(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 1 and value[0] == UNAVAILABLE
    return value in (UNAVAILABLE, UNAVAILABLE.encode())


def _key(key: object, row: Row, columns: tuple[str, ...]) -> Row:
    """Returns the key columns' values: of the record's key, or else of the row."""
    fields = key if isinstance(key, Mapping) else {}
    if not columns and not fields:
        raise ChangeUnreadable("the record has no key, and the index names no key columns")
    if not columns:
        return dict(fields)
    if len(columns) == 1 and not row and not fields and key is not None:
        return {columns[0]: key}
    found = {**row, **fields}
    if missing := sorted(set(columns) - found.keys()):
        raise ChangeUnreadable(f"key columns are missing in the record: {', '.join(missing)}")
    if nulls := [each for each in columns if found[each] is None]:
        raise ChangeUnreadable(f"key columns are null in the record: {', '.join(nulls)}")
    return {each: found[each] for each in columns}
