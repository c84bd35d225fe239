"""Reading Avro's binary encoding, value by value, as ``binary`` writes it.

What ``events.py`` is decoded with where the writer's schema is its own; another writer's is
fastavro's business. Bytes from the bus may be anything: whatever they are, this ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Context, Decimal
from uuid import UUID

from schemas.binary import EPOCH, EPOCH_DAY

_double = struct.Struct("<d").unpack_from
_single = struct.Struct("<f").unpack_from

BITS = 64
# In a byte of an integer: whether another follows, and what it says.
MORE, SEVEN = 0x80, 0x7F


class Reading:
    """A place in some bytes, behind what was read.

    Every method raises an EOFError or an IndexError where the bytes end, and a ValueError where
    they are not what is asked for.
    """

    __slots__ = ("_at", "_value")

    def __init__(self, value: bytes, at: int) -> None:
        self._value = value
        self._at = at

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._value) - self._at

    def long(self) -> int:
        """Returns an integer."""
        byte = self._value[self._at]
        self._at += 1
        if byte & MORE:
            return self._longer(byte & SEVEN)
        return byte >> 1 ^ -(byte & 1)

    def _longer(self, read: int) -> int:
        value, at = self._value, self._at
        for shift in range(7, BITS, 7):
            byte = value[at]
            at += 1
            read |= (byte & SEVEN) << shift
            if not byte & MORE:
                break
        else:
            raise ValueError("an integer without end")
        if read >> BITS:
            raise ValueError("an integer of too many bits")
        self._at = at
        return read >> 1 ^ -(read & 1)

    def raw(self) -> bytes:
        """Returns bytes."""
        size = self.long()
        start = self._at
        end = start + size
        if size < 0 or end > len(self._value):
            raise EOFError
        self._at = end
        return self._value[start:end]

    def text(self) -> str:
        """Returns a text."""
        return self.raw().decode()

    def boolean(self) -> bool:
        """Returns a truth value."""
        byte = self._value[self._at]
        self._at += 1
        return byte != 0

    def absent(self) -> bool:
        """Returns whether null stands for the value."""
        byte = self._value[self._at]
        self._at += 1
        if byte == 0:
            return True
        if byte == 2:  # noqa: PLR2004 - the second branch of two.
            return False
        raise ValueError("there is no such branch")

    def index(self) -> int:
        """Returns the number of a symbol."""
        number = self.long()
        if number < 0:
            raise ValueError("there is no such symbol")
        return number

    def each(self) -> Iterator[None]:
        """Yields once before each item of an array, or each pair of a map."""
        while count := self.long():
            if count < 0:
                # The block's length in bytes follows, for those who want to skip it.
                count = -count
                self.long()
            for _ in range(count):
                yield

    def double(self) -> float:
        """Returns a number of 64 bits."""
        at = self._at
        if at + 8 > len(self._value):
            raise EOFError
        self._at = at + 8
        return float(_double(self._value, at)[0])

    def single(self) -> float:
        """Returns a number of 32 bits."""
        at = self._at
        if at + 4 > len(self._value):
            raise EOFError
        self._at = at + 4
        return float(_single(self._value, at)[0])

    def millis(self) -> datetime:
        """Returns an instant in milliseconds since 1970."""
        return EPOCH + timedelta(milliseconds=self.long())

    def micros(self) -> datetime:
        """Returns an instant in microseconds since 1970."""
        return EPOCH + timedelta(microseconds=self.long())

    def days(self) -> date:
        """Returns a day in days since 1970."""
        return date.fromordinal(EPOCH_DAY + self.long())

    def decimal(self, precision: int, scale: int) -> Decimal:
        """Returns a decimal."""
        unscaled = Decimal(int.from_bytes(self.raw(), "big", signed=True))
        return unscaled.scaleb(-scale, Context(prec=precision))

    def uuid(self) -> UUID:
        """Returns a UUID."""
        return UUID(self.text())
