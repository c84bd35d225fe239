"""What a record of a table says of a row: one change, whoever wrote the record.

Debezium's envelope is read as such; any other Avro record is a row as it now is, and a record
without a value says that the row of its key is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from infra.bus import Record
from infra.registry import Plain

# Debezium's word for a large value that the database's log leaves out since it did not change. In
# a list of texts it is the only one; in a list of numbers it stands as its characters' codes.
UNAVAILABLE = "__debezium_unavailable_value"
_LEFT_OUT = (UNAVAILABLE, UNAVAILABLE.encode(), [UNAVAILABLE], list(UNAVAILABLE.encode()))

ENVELOPE = frozenset({"after", "op", "source"})
WRITTEN = frozenset({"c", "r", "u"})

# A row as it came: its columns by name.
Row = Mapping[str, Any]


class Op(StrEnum):
    """What happened: a row was written or deleted, or all rows of the table were deleted."""

    DELETE = "DELETE"
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
        version: Sorts as the table's log does; see ``version_of``.
        committed_at: When it was committed, in milliseconds since 1970; None where nobody says.
        unavailable: Columns whose values did not change and were left out.
        after_snapshot: Whether it follows the snapshot rows that lie before it on its partition,
            though its place in the database's log may be before theirs.
        after_all: Whether it follows whatever lies before it on its partition.
    """

    op: Op
    key: Row
    row: Row
    version: str
    committed_at: int | None = None
    unavailable: frozenset[str] = frozenset()
    after_snapshot: bool = False
    after_all: bool = False


def version_of(number: int, offset: int, *, snapshot: bool = False) -> str:
    """Returns the version of a change: text that sorts by place in the log, then by offset.

    Example:
        >>> version_of(7, 3)
        '00000000000000000007.00000000000000000003'

    Args:
        number: Place in the database's log; 0 where there is none.
        offset: On the topic's partition.
        snapshot: Whether it is of a row that was read, not of a change that was logged.
    """
    return f"{number:020d}.{offset:020d}{'r' if snapshot else ''}"


def parts(version: str) -> tuple[int, int, bool]:
    """Returns what a version was made of."""
    number, _, offset = version.partition(".")
    return int(number), int(offset.rstrip("r")), offset.endswith("r")


def change_of(
    record: Record, plain: Plain, key_columns: tuple[str, ...] = (), *, captured: bool = False
) -> Change | None:
    """Returns what a record says; None where it says nothing of any row.

    Args:
        record: Where it lies.
        plain: Its key and value as they were decoded.
        key_columns: What tells rows apart; the fields of the record's key if there are none.
        captured: Whether a connector of ours wrote it: then what has no value only repeats what
            the record before it says.

    Raises:
        ChangeUnreadable: It is not known of which row it tells.
    """
    value = plain.value
    if value is None and captured:
        return None
    if value is not None and ENVELOPE.issubset(value):
        return _logged(record, plain, value, key_columns)
    return Change(
        op=Op.DELETE if value is None else Op.UPSERT,
        key=_key(plain.key, value or {}, key_columns),
        row=value or {},
        version=version_of(0, record.offset),
        committed_at=record.dated if record.dated >= 0 else None,
        after_all=value is None,
    )


def _logged(
    record: Record, plain: Plain, value: Row, key_columns: tuple[str, ...]
) -> Change | None:
    op, source = value["op"], value["source"] or {}
    if op not in WRITTEN and op not in {"d", "t"}:
        return None
    snapshot = op == "r"
    # What a transaction wrote before the last commit before its own became visible only after it.
    before = _last_commit(source.get("sequence"))
    # Of a row that is read again while changes flow on, that is all that is told of its place.
    number = max(source.get("lsn") or 0, before or 0)
    version = version_of(number, record.offset, snapshot=snapshot)
    committed_at = source.get("ts_ms")
    if op == "t":
        return Change(op=Op.TRUNCATE, key={}, row={}, version=version, committed_at=committed_at)
    written = op in WRITTEN
    row = (value["after"] if written else None) or {}
    return Change(
        op=Op.UPSERT if written else Op.DELETE,
        key=_key(plain.key, row or value.get("before") or {}, key_columns),
        row=row,
        version=version,
        committed_at=committed_at,
        unavailable=frozenset(name for name, each in row.items() if each in _LEFT_OUT),
        # The first transaction after a snapshot does not say what was committed before it.
        after_snapshot=not snapshot and before is None,
    )


def _last_commit(sequence: str | None) -> int | None:
    """Returns the place of the commit before a change, of what Debezium calls its sequence."""
    try:
        last = json.loads(sequence or "null")
        return int(last[0]) if isinstance(last, list) and last and last[0] is not None else None
    except ValueError:
        return None


def _key(key: object, row: Row, columns: tuple[str, ...]) -> Row:
    """Returns the key columns' values: of the record's key, or else of the row."""
    fields = key if isinstance(key, Mapping) else {}
    if not columns and not fields:
        raise ChangeUnreadable("the record has no key, and the index names no key columns")
    if len(columns) == 1 and not row and isinstance(key, str):
        fields = {columns[0]: key}
    found = {**row, **fields}
    wanted = columns or tuple(fields)
    if missing := [each for each in wanted if found.get(each) is None]:
        raise ChangeUnreadable(f"key columns that the record lacks: {', '.join(sorted(missing))}")
    return {each: _plain(found[each]) for each in wanted}


# `Any`: JSON's values.
def _plain(value: object) -> Any:
    """Returns a key's value as JSON has it: the same for the same row, whoever reads it."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    raise ChangeUnreadable("a key column is neither text, number, date nor bytes")
