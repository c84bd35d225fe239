"""What rows must satisfy, as a tree, and which rows do: SQL's three-valued logic.

Knows neither how conditions are written (``pairs.py``, ``sql.py``) nor where rows are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

ESCAPE = "\\"  # in a pattern, in front of a character that stands for itself


class Op(StrEnum):
    """How a column is compared. What it is compared with, by operator, see ``Compare``."""

    EQ = "="
    NE = "<>"
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IN = "IN"
    LIKE = "LIKE"
    NULL = "IS NULL"


# By type of the column: boolean, long, double, string, date (an instant, in UTC).
Value = bool | int | float | str | datetime


@dataclass(frozen=True, slots=True)
class Compare:
    r"""A column against a value, never against another column.

    Attributes:
        column: Name of the column.
        op: How.
        value: For IN a tuple of values, at least one. For LIKE a pattern: ``%`` any text, ``_`` any
            character, ``\`` in front of one of these three that stands for itself. For NULL whether
            it must be null (True) or must not (False). Else one value.
    """

    column: str
    op: Op
    value: Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; of what is unknown, unknown."""

    part: Condition


@dataclass(frozen=True, slots=True)
class And:
    """All parts; at least two, none of them an ``And`` itself."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One part or more; at least two, none of them an ``Or`` itself."""

    parts: tuple[Condition, ...]


Condition = And | Or | Not | Compare
