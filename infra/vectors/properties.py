"""How values lie in the store: as text whose order, byte by byte, is that of the values.

Weaviate trims text, orders it without regard to case, keeps whole numbers only up to 2^53 and takes
what is empty for null. So each column that is kept is one property of digits and small letters,
and for ``LIKE`` a second one with the text itself. Dates and numbers have a double beside it, which
is faster for ranges and used as far as it tells their values apart. All names follow from the
column and its type.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from infra.conditions.values import in_utc, instant, rfc3339
from schemas.indexes import ColumnType, Kept

LONGEST_READABLE = 40
LEAST_LONG, MOST_LONG = -(2**63), 2**63 - 1
SIGN = 1 << 63
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Weaviate knows no escape for its wildcards, and its wildcards match no end of line. Each changes
# places with a noncharacter, which no text holds.
SWAPPED = str.maketrans("*?\n\ufdd0\ufdd1\ufdd2", "\ufdd0\ufdd1\ufdd2*?\n")
# Around text, so that it is neither trimmed nor empty.
EDGE = "\x00"
SEPARATOR = "!"


class ValueWrong(ValueError):
    """A value is not of its column's type; the message names both types and not the value."""


def property_of(column: Kept) -> str:
    """Returns the name of a column's property: another one for each name and type."""
    readable = re.sub(r"[^a-z0-9]+", "_", column.name.lower())[:LONGEST_READABLE]
    return f"{column.type}_{readable}_{sha256(column.name.encode()).hexdigest()[:16]}"


def pattern_property(name: str) -> str:
    """Returns the name of the property that ``LIKE`` looks at, beside a column's own."""
    return f"like_{name}"


def range_property(name: str) -> str:
    """Returns the name of the property that ranges look at, beside a column's own."""
    return f"range_{name}"


def ranged(kind: ColumnType, value: Any) -> float | None:
    """Returns a value of its type as a number for ranges, at most the type's bound.

    None where the type has no ranges of numbers.
    """
    if kind not in BOUNDS:
        return None
    bound = BOUNDS[kind]
    if kind == "date":
        value = (_moment(value) - EPOCH) // MICROSECOND
    # What is not a number is above all others.
    return bound if value != value else float(max(-bound, min(bound, value)))  # noqa: PLR0124


def is_exact(kind: ColumnType, number: float) -> bool:
    """Returns whether a number for ranges stands for one value alone."""
    return abs(number) < BOUNDS[kind]


def encoded(kind: ColumnType, value: Any) -> str:
    """Returns a value as text that sorts as it does.

    Raises:
        ValueWrong: It is not of the type.
    """
    text = ENCODERS[kind](value)
    if text is None:
        raise ValueWrong(f"is a {kind}, and the value a {type(value).__name__} that is none")
    return text


def decoded(kind: ColumnType, text: str) -> Any:
    """Returns the value that ``encoded`` made text of; a date as RFC 3339 in UTC."""
    return DECODERS[kind](text)


def swapped(text: str) -> str:
    """Returns text as ``LIKE`` looks at it."""
    return f"{EDGE}{text.translate(SWAPPED)}{EDGE}"


def order_of(key: Mapping[str, Any]) -> str:
    """Returns text that sorts as keys do, by their columns in the order of their names.

    Numbers are in front of text; what is neither is sorted by its JSON.
    """
    return SEPARATOR.join(_part(key[name]) for name in sorted(key))


def _part(value: Any) -> str:
    if value is None:
        return "0"
    if isinstance(value, bool):
        return f"1{int(value)}"
    if isinstance(value, int):
        return f"2{_whole(value)}"
    if isinstance(value, float):
        return f"3{_real(value)}"
    return f"4{str(value).encode().hex()}"


def _whole(value: int) -> str:
    digits = str(abs(value))
    if value >= 0:
        return f"p{len(digits):04d}{digits}"
    turned = digits.translate(str.maketrans("0123456789", "9876543210"))
    return f"n{9999 - len(digits):04d}{turned}"


def _boolean(value: Any) -> str | None:
    return str(int(value)) if isinstance(value, bool) else None


def _moment(value: Any) -> Any:
    """Returns the instant that a value is or names; None where it names none."""
    moment = instant(value) if isinstance(value, str) else value
    return in_utc(moment) if isinstance(moment, datetime) else None


def _date(value: Any) -> str | None:
    moment = _moment(value)
    if moment is None:
        return None
    text = moment.replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"{text}z".lower()


def _double(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return _real(float(value))
    except OverflowError:
        return None


def _real(value: float) -> str:
    # There is one zero and, above all others, one that is not a number.
    known = abs(value) if value == 0 or math.isnan(value) else value
    [bits] = struct.unpack(">Q", struct.pack(">d", known))
    return f"{bits ^ (2 * SIGN - 1) if bits & SIGN else bits | SIGN:016x}"


def _unreal(text: str) -> float:
    bits = int(text, 16)
    bits = bits ^ SIGN if bits & SIGN else bits ^ (2 * SIGN - 1)
    return float(struct.unpack(">d", struct.pack(">Q", bits))[0])


def _long(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return f"{value + SIGN:016x}" if LEAST_LONG <= value <= MOST_LONG else None


def _string(value: Any) -> str | None:
    return f"s{value.encode().hex()}" if isinstance(value, str) else None


# From here on, values are not told apart.
BOUNDS: dict[ColumnType, float] = {
    "date": float(2**53),
    "double": sys.float_info.max,
    "long": float(2**53),
}
ENCODERS: dict[ColumnType, Callable[[Any], str | None]] = {
    "boolean": _boolean,
    "date": _date,
    "double": _double,
    "long": _long,
    "string": _string,
}
DECODERS: dict[ColumnType, Callable[[str], Any]] = {
    "boolean": lambda text: text == "1",
    "date": lambda text: rfc3339(datetime.fromisoformat(text.upper())),
    "double": _unreal,
    "long": lambda text: int(text, 16) - SIGN,
    "string": lambda text: bytes.fromhex(text[1:]).decode(),
}
