"""What is kept of a row: its text in chunks, and the columns, in their types.

The same row is always kept the same. Vectors are put in by who asks for them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any

from infra.conditions import instant, rfc3339
from infra.documents.chunks import pieces
from infra.documents.texts import as_text, columns_of_text, text_of
from infra.vectors import Chunk
from schemas.binary import LEAST_LONG, MOST_LONG
from schemas.indexes import ColumnType, IndexSpec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# In milliseconds, the year 5138; in microseconds, 1973: numbers from here on count microseconds.
MICROSECONDS_FROM = 10**14
# As PostgreSQL tells a day in a zone: Debezium writes days with the zone behind.
DAY_IN_UTC = re.compile(r"(\d{4}-\d\d-\d\d)Z", re.ASCII)

# How errors call what came.
CALLED: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    ((int, float, Decimal), "a number"),
    (str, "text"),
    ((datetime, date), "a date"),
    (bytes, "bytes"),
    ((list, tuple), "a list"),
    (dict, "a record"),
)


class RowInvalid(ValueError):
    """A row cannot be stored; the message names the column and the types, never the value."""


def chunks_of(spec: IndexSpec, row: Mapping[str, Any]) -> tuple[Chunk, ...]:
    """Returns the chunks of a row's text, without vectors; what is blank is none.

    Raises:
        RowInvalid: A column of the text is of a type that is no text.
    """
    if not spec.text:
        return ()
    whole = text_of(spec.text, {name: _text(name, row.get(name)) for name in texts_of(spec)})
    texts = [piece.text.strip() for piece in pieces(whole, spec.chunking) if not _blank(piece.body)]
    return tuple(
        Chunk(position=position, text=text, digest=digest_of(spec, text), vector=())
        for position, text in enumerate(texts)
    )


def digest_of(spec: IndexSpec, text: str) -> str:
    """Returns what tells whether a chunk must be embedded anew: SHA-256 of what is embedded."""
    return sha256((spec.document_prefix + text).encode("utf-8", "surrogatepass")).hexdigest()


def kept(name: str, kind: ColumnType, value: object) -> bool | float | int | str | None:
    """Returns a value of a column in the type in which it is kept; None is null in all of them.

    >>> kept("price", "double", "1.50"), kept("made", "date", 1_767_225_600_000)
    (1.5, '2026-01-01T00:00:00Z')
    >>> kept("tags", "string", ["a", "b"])
    '["a","b"]'

    Raises:
        RowInvalid: It is of another type.
    """
    if value is None:
        return None
    try:
        found = CONVERTED[kind](value)
    except (InvalidOperation, OverflowError, TypeError, ValueError):
        found = None
    if found is None:
        raise RowInvalid(f'column "{name}" is kept as {kind}, which {_called(value)} here is not')
    return found


def columns_of(spec: IndexSpec, row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what an index keeps beside the text of a row; what is missing is null.

    Raises:
        RowInvalid: A value is not of its column's type.
    """
    return {each.name: kept(each.name, each.type, row.get(each.name)) for each in spec.columns}


def inputs_of(spec: IndexSpec, row: Mapping[str, Any]) -> dict[str, str | None]:
    """Returns the values that a later change of a row may leave out.

    Raises:
        RowInvalid: A value is of a type that no column has.
    """
    # Large values that are only kept are left out of later changes, too, and all of them are text.
    names = [*texts_of(spec), *(each.name for each in spec.columns if each.type == "string")]
    return {name: _text(name, row.get(name)) for name in names}


def texts_of(spec: IndexSpec) -> tuple[str, ...]:
    """Returns the columns that the text of an index is made of."""
    return columns_of_text(spec.text) if spec.text else ()


def _text(name: str, value: object) -> str | None:
    try:
        return as_text(value)
    except TypeError as wrong:
        raise RowInvalid(f'column "{name}" is no text: {wrong}') from wrong


def _blank(text: str) -> bool:
    return not text or text.isspace()


def _called(value: object) -> str:
    return next((called for kinds, called in CALLED if isinstance(value, kinds)), "what came")


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _date(value: object) -> str | None:
    moment: datetime | None = None
    if isinstance(value, str):
        day = DAY_IN_UTC.fullmatch(value)
        moment = instant(day[1] if day else value)
    elif isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif isinstance(value, int) and not isinstance(value, bool):
        micros = value if abs(value) >= MICROSECONDS_FROM else value * 1000
        moment = EPOCH + timedelta(microseconds=micros)
    return rfc3339(moment) if moment else None


def _double(value: object) -> float | None:
    # Decimals come as text where their precision is to be kept.
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _long(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    number = Decimal(value)
    whole = number.is_finite() and number == number.to_integral_value()
    return int(number) if whole and LEAST_LONG <= number <= MOST_LONG else None


CONVERTED: dict[ColumnType, Callable[[object], bool | float | int | str | None]] = {
    "boolean": _boolean,
    "date": _date,
    "double": _double,
    "long": _long,
    "string": as_text,
}
