"""What stands in a row of PostgreSQL, as JSON.

Numbers stay numbers where nothing of them is lost, and are texts elsewhere; times are as in ISO
8601, in UTC; bytes are base64, arrays lists, JSON what it is; everything else is as PostgreSQL
writes it.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection
from psycopg.abc import Buffer
from psycopg.adapt import Loader, Transformer
from psycopg.pq.abc import PGresult
from psycopg.types.string import TextLoader

# Whole numbers beyond are not the same to everyone who reads JSON.
EXACT = 2**53
# A row as JSON is at least so many times smaller than as it travels; but for JSON with much space.
MOST_SHRINKING = 2


class Bytes(Loader):
    """bytea."""

    def load(self, data: Buffer) -> str:
        """Returns base64 of what stands there in hexadecimal digits."""
        return b64encode(bytes.fromhex(_text(data)[2:])).decode()


class Document(Loader):
    """json and jsonb."""

    def load(self, data: Buffer) -> Any:
        """Returns what it says; its text where Python cannot hold that."""
        text = _text(data)
        try:
            found = json.loads(text)
            json.dumps(found, allow_nan=False).encode()
        except (RecursionError, ValueError):
            return text
        return found


class Float(Loader):
    """float4 and float8."""

    def load(self, data: Buffer) -> float | str:
        """Returns the number; text for what is none."""
        found = float(_text(data))
        return found if math.isfinite(found) else _text(data)


class Moment(Loader):
    """timestamp and timestamptz."""

    def load(self, data: Buffer) -> str:
        """Returns it with T before its time and the minutes of its offset."""
        text = _text(data).replace(" ", "T", 1)
        return text + ":00" if text.endswith("+00") else text


class Number(Loader):
    """numeric."""

    def load(self, data: Buffer) -> float | int | str:
        """Returns the number; its text where a float would be another one."""
        text = _text(data)
        exact = Decimal(text)
        if not exact.is_finite():
            return text
        if exact == exact.to_integral_value():
            return int(exact) if abs(exact) <= EXACT else text
        near = float(text)
        return near if Decimal(repr(near)) == exact else text


class Whole(Loader):
    """int8."""

    def load(self, data: Buffer) -> int | str:
        """Returns the number; its text where not everyone reads that number."""
        found = int(_text(data))
        return found if abs(found) <= EXACT else str(found)


LOADERS: dict[str, type[Loader]] = {
    "bytea": Bytes,
    "cidr": TextLoader,
    "date": TextLoader,
    "datemultirange": TextLoader,
    "daterange": TextLoader,
    "float4": Float,
    "float8": Float,
    "inet": TextLoader,
    "int4multirange": TextLoader,
    "int4range": TextLoader,
    "int8": Whole,
    "int8multirange": TextLoader,
    "int8range": TextLoader,
    "interval": TextLoader,
    "json": Document,
    "jsonb": Document,
    "numeric": Number,
    "nummultirange": TextLoader,
    "numrange": TextLoader,
    "time": TextLoader,
    "timestamp": Moment,
    "timestamptz": Moment,
    "timetz": TextLoader,
    "tsmultirange": TextLoader,
    "tsrange": TextLoader,
    "tstzmultirange": TextLoader,
    "tstzrange": TextLoader,
    "uuid": TextLoader,
}


def load_as_json(session: AsyncConnection[Any]) -> None:
    """Lets a session give JSON values."""
    for name, loader in LOADERS.items():
        session.adapters.register_loader(name, loader)


class Rows:
    """Rows as far as they may be kept, and whether that is all.

    Args:
        columns: Their names.
        most: Rows that may be kept.
        most_bytes: UTF-8 bytes of all that is kept, as JSON.
    """

    def __init__(self, columns: Sequence[str], *, most: int, most_bytes: int) -> None:
        self.columns = list(columns)
        self.rows: list[list[Any]] = []
        self.truncated = False
        self._most = most
        self._left = most_bytes - _size(self.columns)

    def read(self, session: AsyncConnection[Any], answer: PGresult) -> bool:
        """Keeps the rows of an answer; returns False at the first that has no room.

        It may take a second of processor time, so never in a loop.

        Args:
            session: Says how cells are loaded.
            answer: As it came, nothing of it loaded.
        """
        loading = Transformer(session)
        loading.set_pgresult(answer)
        for number in range(answer.ntuples):
            # Loading is what takes time, so what cannot have room is not loaded.
            travelled = sum(
                len(answer.get_value(number, column) or b"") for column in range(answer.nfields)
            )
            if travelled > MOST_SHRINKING * self._left:
                self.truncated = True
            elif self.take(loading.load_row(number, tuple)):
                continue
            return False
        return True

    def take(self, row: Sequence[Any]) -> bool:
        """Keeps a row; returns False where it is the first that has no room."""
        cells = [_cell(each) for each in row]
        self._left -= _size(cells) + 2
        if self._left < 0 or len(self.rows) == self._most:
            self.truncated = True
            return False
        self.rows.append(cells)
        return True

    def told(self, count: int | None = None) -> dict[str, Any]:
        """Returns what was found.

        Args:
            count: Rows that were touched, where those are more than are kept.
        """
        return {
            "columns": self.columns,
            "rows": self.rows,
            "row_count": len(self.rows) if count is None else count,
            "truncated": self.truncated,
        }


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_cell(each) for each in value]
    return (
        value if value is None or isinstance(value, bool | dict | float | int | str) else str(value)
    )


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _text(data: Buffer) -> str:
    return bytes(data).decode()
