"""What rows must satisfy, as a tree.

Knows neither how it is written (``pairs.py``, ``sql.py``) nor how rows are held to it
(``truth.py``, or a store).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


OPPOSITES = {
    Op.EQ: Op.NE,
    Op.GE: Op.LT,
    Op.GT: Op.LE,
    Op.LE: Op.GT,
    Op.LT: Op.GE,
    Op.NE: Op.EQ,
}


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


def without_not(condition: Condition) -> Condition:
    """Returns a condition that holds for the same rows, with NOT in front of nothing but LIKE.

    NOT IN becomes an ``And`` of NE. ``Not`` of a LIKE does not match null, like all others.
    """
    return _pushed(condition, negated=False)


def joined(kind: type[And | Or], parts: Iterable[Condition]) -> Condition:
    """Returns parts as one condition, flat: those of a part of the same kind become its own."""
    flat: list[Condition] = []
    for part in parts:
        flat += part.parts if isinstance(part, kind) else (part,)
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def columns_of(condition: Condition) -> frozenset[str]:
    """Returns the columns that a condition looks at."""
    return frozenset(_columns(condition))


def _columns(condition: Condition) -> Iterator[str]:
    match condition:
        case And(parts) | Or(parts):
            for part in parts:
                yield from _columns(part)
        case Not(part):
            yield from _columns(part)
        case _:
            yield condition.column


def _pushed(condition: Condition, *, negated: bool) -> Condition:
    match condition:
        case Not(part):
            return _pushed(part, negated=not negated)
        case And(parts) | Or(parts):
            kind = type(condition)
            if negated:
                kind = Or if kind is And else And
            return joined(kind, [_pushed(part, negated=negated) for part in parts])
    return _negated(condition) if negated else condition


def _negated(compare: Compare) -> Condition:
    column, op, value = compare.column, compare.op, compare.value
    if op is Op.LIKE:
        return Not(compare)
    if op is Op.NULL:
        return Compare(column, op, not value)
    if isinstance(value, tuple):
        return joined(And, [Compare(column, Op.NE, each) for each in value])
    return Compare(column, OPPOSITES[op], value)
