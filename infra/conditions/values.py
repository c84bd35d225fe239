"""What columns are compared with: each value as its column's type, or refused.

An error names the place, the column and the types, and quotes no value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from infra.conditions.tree import ESCAPE, Compare, Op, Value
from schemas.binary import LEAST_LONG, MOST_LONG
from schemas.indexes import ColumnType

ColumnTypes = Mapping[str, ColumnType]

MOST_CHARACTERS = 10_000
MOST_LEAVES = 1_000  # each value of a list is one
MOST_LEVELS = 64
MOST_NAMED = 64  # characters of a name, and names, that an error repeats

RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII
)
ORDERED = frozenset({Op.LT, Op.LE, Op.GT, Op.GE})


class FilterInvalid(ValueError):
    """A condition cannot be read: where, and what to write instead. Quotes no value."""


def instant(text: str) -> datetime | None:
    """Returns the instant, in UTC, that RFC 3339 text names; None if it names none.

    A day is its first instant, and a time without a zone is in UTC. What is finer than
    microseconds is cut off.
    """
    if not RFC_3339.fullmatch(text):
        return None
    try:
        return in_utc(datetime.fromisoformat(text.upper()))
    except (OverflowError, ValueError):  # no such day, or beyond the years 1 to 9999
        return None


def rfc3339(moment: datetime) -> str:
    """Returns an instant as text; without a zone it is in UTC.

    >>> rfc3339(datetime(2026, 5, 1, 12, 30))
    '2026-05-01T12:30:00Z'
    """
    return in_utc(moment).isoformat().replace("+00:00", "Z")


def in_utc(moment: datetime) -> datetime:
    """Returns an instant in UTC, where it also is if it names no zone."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def compare(column: str, op: Op, raw: Any, columns: ColumnTypes, place: str) -> Compare:
    """Returns a column compared with a raw value, or with each of a list where ``op`` is IN.

    Raises:
        FilterInvalid: The column is unknown, or the value or the operator not of its type.
    """
    kind = kind_of(column, columns, place)
    if op is Op.NULL:
        return Compare(column, op, bool(raw))
    if op is Op.LIKE and kind != "string":
        raise FilterInvalid(f"{place}: LIKE is for text, and {shown(column)} is a {kind}")
    if op in ORDERED and kind == "boolean":
        raise FilterInvalid(f"{place}: {shown(column)} is a boolean: compare it with = or <>")
    if op is not Op.IN:
        return Compare(column, op, _value(column, kind, raw, place))
    if not raw:
        raise FilterInvalid(f"{place}: the list for {shown(column)} is empty: name a value")
    return Compare(column, op, tuple(_value(column, kind, each, place) for each in raw))


def kind_of(column: str, columns: ColumnTypes, place: str) -> ColumnType:
    """Returns the type of a column.

    Raises:
        FilterInvalid: There is no such column.
    """
    if column not in columns:
        known = ", ".join(shown(each) for each in sorted(columns)[:MOST_NAMED]) or "none"
        raise FilterInvalid(f"{place}: no column {shown(column)} is kept; known: {known}")
    return columns[column]


def pattern(text: str, escape: object, place: str) -> str:
    r"""Returns a pattern with ``\`` as what escapes, and only where it must.

    >>> pattern("100!% of_!x", "!", "at character 1")
    '100\\% of_x'

    Raises:
        FilterInvalid: The escape is not one character, or nothing follows it.
    """
    if not isinstance(escape, str) or len(escape) != 1:
        raise FilterInvalid(f"{place}: ESCAPE takes text of one character")
    written, letters = [], iter(text)
    for letter in letters:
        literal = next(letters, None) if letter == escape else None
        if letter == escape and literal is None:
            raise FilterInvalid(f"{place}: the pattern ends in its escape: write it twice")
        if literal is None:
            written.append(ESCAPE + letter if letter == ESCAPE else letter)
        else:
            written.append(ESCAPE + literal if literal in ("%", "_", ESCAPE) else literal)
    return "".join(written)


def shown(name: str) -> str:
    """Returns a name as errors show it: in quotes, and not too long."""
    return quoted(name if len(name) <= MOST_NAMED else name[:MOST_NAMED] + "...")


def quoted(name: str) -> str:
    """Returns a name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def _value(column: str, kind: ColumnType, raw: Any, place: str) -> Value:
    value = TYPED[kind](raw)
    if value is None:
        raise FilterInvalid(f"{place}: {shown(column)} is a {kind}: {WANTED[kind]}{_hint(raw)}")
    return value


def _hint(raw: Any) -> str:
    return ". For what has no value, write IS NULL" if raw is None else ""


def _boolean(raw: Any) -> Value | None:
    return raw if isinstance(raw, bool) else None


def _date(raw: Any) -> Value | None:
    if isinstance(raw, datetime):
        return in_utc(raw)
    return instant(raw) if isinstance(raw, str) else None


def _double(raw: Any) -> Value | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    try:
        number = float(raw)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _long(raw: Any) -> Value | None:
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        return None
    return raw if LEAST_LONG <= raw <= MOST_LONG else None


def _string(raw: Any) -> Value | None:
    return raw if isinstance(raw, str) else None


TYPED: dict[ColumnType, Callable[[Any], Value | None]] = {
    "boolean": _boolean,
    "date": _date,
    "double": _double,
    "long": _long,
    "string": _string,
}
WANTED: dict[ColumnType, str] = {
    "boolean": "write TRUE or FALSE",
    "date": "write text like '2026-05-01' or '2026-05-01T12:30:00Z'",
    "double": "write a number",
    "long": "write a whole number of at most 64 bits",
    "string": "write text in single quotes",
}
