"""Which rows of a table are picked to be read again: a condition, held against its database.

It is of our own language, so it runs nothing there and reads no other table; and it is tried first,
for whoever reads the rows only logs what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from datetime import datetime, time
from typing import Any

from psycopg import sql

from infra.conditions import Compare, Condition, FilterInvalid, Not, parse, to_sql
from infra.connectors.database import Database, QueryRefused
from infra.connectors.source import CaptureRefused, Source
from schemas.indexes import ColumnType

# Else a backslash in a text would mean something.
QUOTES = "SELECT current_setting('standard_conforming_strings') AS plain"
MOST_EXACT = 2**53
INTEGERS = frozenset({"int2", "int4", "int8"})
DATES = frozenset({"date", "timestamp", "timestamptz"})
LANGUAGE = (
    "say columns compared with values, joined by AND, OR and NOT, as in \"id > 7 AND lang = 'de'\";"
    " or leave the condition out"
)


async def picked(database: Database, source: Source) -> str | None:
    """Returns the condition for rows that are read again, as SQL; None for all rows.

    Raises:
        CaptureRefused: It is none over this table.
        DatabaseUnreachable: The database does not answer.
    """
    table = sql.Identifier(source.schema, source.relation)
    found = await database.columns(source)
    columns = {each["name"]: _kind(each) for each in found}
    try:
        condition = parse(source.capture.resnapshot_where, columns)
    except FilterInvalid as invalid:
        raise CaptureRefused(f"its condition cannot be read: {invalid}", LANGUAGE) from None
    if condition is None:
        return None
    days = {each["name"] for each in found if each["type"] == "date"}
    for compare in _leaves(condition):
        if problem := _inexact(compare, days):
            raise CaptureRefused(f"its condition cannot be held exactly: {problem}", LANGUAGE)
    [quotes] = await database.read(QUOTES)
    if quotes["plain"] != "on":
        raise CaptureRefused(
            "standard_conforming_strings is off in its database", "set it on, or pick all rows"
        )
    written = f"({to_sql(condition)})"
    tried = sql.SQL("SELECT FROM {} WHERE {} LIMIT 0")
    try:
        # `SQL`: made of a tree, its names and texts quoted.
        await database.read(tried.format(table, sql.SQL(written)))
    except QueryRefused as problem:
        raise CaptureRefused(f"its condition does not fit: {problem}", LANGUAGE) from None
    return written


def _leaves(condition: Condition) -> Iterator[Compare]:
    if isinstance(condition, Compare):
        yield condition
        return
    parts = (condition.part,) if isinstance(condition, Not) else condition.parts
    for part in parts:
        yield from _leaves(part)


def _inexact(compare: Compare, days: Set[str]) -> str | None:
    """Returns why a value would not be compared as it was written."""
    values = compare.value if isinstance(compare.value, tuple) else (compare.value,)
    for value in values:
        if isinstance(value, float) and abs(value) > MOST_EXACT:
            return f'"{compare.column}" is compared with a number beyond 2 to the 53rd'
        if isinstance(value, datetime) and compare.column in days and value.time() != time():
            return f'"{compare.column}" is a day, and compared with a time of day'
    return None


def _kind(column: Mapping[str, Any]) -> ColumnType:
    """Returns as what a column is compared; PostgreSQL reads text as most of its types."""
    if column["category"] == "B":
        return "boolean"
    if column["category"] == "N":
        return "long" if column["type"] in INTEGERS else "double"
    return "date" if column["type"] in DATES else "string"
