"""What a captured table holds by its own word: how many rows, and keys of some of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from infra.connectors.database import Database
from infra.connectors.source import Source

# Keys of other types read differently here and in a change of the row.
PLAIN = frozenset({"bool", "bpchar", "int2", "int4", "int8", "text", "uuid", "varchar"})
# And so do columns of other names.
SAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Key = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """What a table held at a moment.

    Attributes:
        rows: How many.
        keys: Of some, drawn by chance; none where keys cannot be compared.
        lsn: A place in the database's log behind all that was counted.
    """

    rows: int
    keys: Sequence[Key]
    lsn: str


async def held(database: Database, source: Source, columns: Sequence[str], most: int) -> Held:
    """Returns what a table holds now.

    Args:
        database: Its database.
        source: The table.
        columns: What tells its rows apart; its primary key if there are none.
        most: About how many keys to return at most.

    Raises:
        CaptureRefused: It may not be read.
        DatabaseUnreachable: The database does not answer.
    """
    table = sql.Identifier(source.schema, source.relation)
    found = await database.columns(source)
    names = tuple(columns) or tuple(each["name"] for each in found if each["keyed"])
    plain = {
        each["name"] for each in found if each["type"] in PLAIN and SAME.fullmatch(each["name"])
    }
    [counted] = await database.read(sql.SQL("SELECT count(*) AS rows FROM ONLY {}").format(table))
    rows: int = counted["rows"]
    keys: Sequence[Key] = ()
    if rows and names and plain.issuperset(names):
        drawn = sql.SQL("SELECT {} FROM ONLY {} TABLESAMPLE BERNOULLI ({})").format(
            _listed(names), table, sql.Literal(min(100.0, 100.0 * most / rows))
        )
        keys = [_plain(each) for each in await database.read(drawn)]
    [at] = await database.read("SELECT pg_current_wal_insert_lsn()::text AS lsn")
    return Held(rows, keys, at["lsn"])


async def still(database: Database, source: Source, keys: Iterable[Key]) -> list[Key]:
    """Returns those of some keys that a table has now; errors are those of ``held``."""
    wanted = list(keys)
    if not wanted:
        return []
    names = tuple(wanted[0])
    tuples = sql.SQL(", ").join(
        sql.SQL("({})").format(sql.SQL(", ").join(sql.Literal(each[name]) for name in names))
        for each in wanted
    )
    asked = sql.SQL("SELECT {} FROM ONLY {} WHERE ({}) IN ({})").format(
        _listed(names), sql.Identifier(source.schema, source.relation), _listed(names), tuples
    )
    return [_plain(each) for each in await database.read(asked)]


def _listed(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _plain(row: Mapping[str, Any]) -> Key:
    """Returns a key with its values as changes have them."""
    return {
        name: value if isinstance(value, bool | int | str) else str(value)
        for name, value in row.items()
    }
