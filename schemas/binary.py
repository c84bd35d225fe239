"""Avro's binary encoding of plain values (https://avro.apache.org/docs/1.12.0/specification).

What ``events.py`` is encoded with. Fastavro does the same for any schema, but looks into each value
to see which branch of a union it is; a generated event knows. It stays the measure: every event is
the same bytes either way.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum

# Numbers of so few bytes are looked up: most lengths and counts are.
SMALL = 2048
# What an event can say, and no more.
LEAST_LONG, MOST_LONG = -(2**63), 2**63 - 1

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.toordinal()
DAY_S = 24 * 60 * 60
THOUSAND, MILLION = 1000, 1_000_000

ABSENT, PRESENT = b"\x00", b"\x02"
BOOLEANS = (b"\x00", b"\x01")
END = b"\x00"

double = struct.Struct("<d").pack
single = struct.Struct("<f").pack


def long(value: int) -> bytes:
    """Returns an integer: zigzag, seven bits a byte.

    As one of 32 bits it may have more, too, as fastavro reads them: what came in must go out again.

    Raises:
        OverflowError: It has more than 64 bits.
    """
    return _LONGS[value] if 0 <= value < SMALL else _long(value)


def _long(value: int) -> bytes:
    if not LEAST_LONG <= value <= MOST_LONG:
        raise OverflowError("more than 64 bits")
    left = value << 1 ^ value >> 63
    encoded = bytearray()
    while left > 0x7F:  # noqa: PLR2004 - seven bits.
        encoded.append(left & 0x7F | 0x80)
        left >>= 7
    encoded.append(left)
    return bytes(encoded)


_LONGS = tuple(_long(value) for value in range(SMALL))


def raw(value: bytes) -> bytes:
    """Returns bytes behind their length."""
    return long(len(value)) + value


def text(value: str) -> bytes:
    """Returns a text behind its length.

    Raises:
        UnicodeEncodeError: It has halves of surrogate pairs.
    """
    encoded = value.encode()
    size = len(encoded)
    # As ``long``, without another call: most of an event is texts.
    return (_LONGS[size] if size < SMALL else _long(size)) + encoded


def items(encoded: Sequence[bytes]) -> bytes:
    """Returns an array, or a map whose keys and values are joined, in one block."""
    return b"".join((long(len(encoded)), *encoded, END)) if encoded else END


def symbols(enum: type[Enum]) -> dict[str, bytes]:
    """Returns each symbol's encoding, in the order of the schema."""
    return {symbol.value: long(number) for number, symbol in enumerate(enum)}


def millis(instant: datetime) -> bytes:
    """Returns an instant in milliseconds since 1970."""
    since = instant - EPOCH
    return _long((since.days * DAY_S + since.seconds) * THOUSAND + since.microseconds // 1000)


def micros(instant: datetime) -> bytes:
    """Returns an instant in microseconds since 1970."""
    since = instant - EPOCH
    return _long((since.days * DAY_S + since.seconds) * MILLION + since.microseconds)


def days(day: date) -> bytes:
    """Returns a day in days since 1970."""
    return long(day.toordinal() - EPOCH_DAY)


def decimal(value: Decimal, precision: int, scale: int) -> bytes:
    """Returns a decimal as its unscaled number, of as few bytes as hold it.

    Raises:
        ValueError: It has more digits than the schema lets it have.
    """
    sign, digits, exponent = value.as_tuple()
    missing = int(exponent) + scale
    if missing < 0 or len(digits) > precision:
        raise ValueError("too many digits")
    unscaled = int("".join(map(str, digits))) * 10**missing
    size = (unscaled.bit_length() + 8) // 8
    return raw((-unscaled if sign else unscaled).to_bytes(size, "big", signed=True))
