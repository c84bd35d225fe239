"""Which rows satisfy a condition: SQL's three-valued logic, where null makes things unknown."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from infra.conditions.tree import ESCAPE, And, Compare, Condition, Not, Op, Or, Value
from infra.conditions.values import in_utc, instant

ORDERS: dict[Op, Callable[[Any, Any], Any]] = {
    Op.EQ: operator.eq,
    Op.GE: operator.ge,
    Op.GT: operator.gt,
    Op.LE: operator.le,
    Op.LT: operator.lt,
    Op.NE: operator.ne,
}
KEPT_PATTERNS = 1_000


def matches(condition: Condition, row: Mapping[str, Any]) -> bool:
    """Tells whether a row satisfies a condition; what is unknown does not.

    Args:
        condition: The condition.
        row: Values by column, as the tree has them, or dates as RFC 3339 text. A column that is
            None or missing is null; a value of another type is treated like null.
    """
    return _truth(condition, row) is True


def _truth(condition: Condition, row: Mapping[str, Any]) -> bool | None:
    match condition:
        case And(parts):
            return _all(_truth(part, row) for part in parts)
        case Or(parts):
            return _opposite(_all(_opposite(_truth(part, row)) for part in parts))
        case Not(part):
            return _opposite(_truth(part, row))
    return _compared(condition, row.get(condition.column))


def _all(truths: Iterable[bool | None]) -> bool | None:
    result: bool | None = True
    for truth in truths:
        if truth is False:
            return False
        if truth is None:
            result = None
    return result


def _opposite(truth: bool | None) -> bool | None:
    return None if truth is None else not truth


def _compared(compare: Compare, found: Any) -> bool | None:
    if compare.op is Op.NULL:
        return (found is None) is compare.value
    values = compare.value if isinstance(compare.value, tuple) else (compare.value,)
    known = _alike(found, values[0])
    if known is None:
        return None
    if compare.op is Op.LIKE:
        return like(str(values[0]), str(known))
    if compare.op is Op.IN:
        return any(known == _sortable(value) for value in values)
    return bool(ORDERS[compare.op](known, _sortable(values[0])))


def _alike(found: Any, value: Value) -> Any:
    """Returns a row's value in the form in which it compares with another; None if it does not."""
    if isinstance(value, datetime):
        moment = instant(found) if isinstance(found, str) else found
        return in_utc(moment) if isinstance(moment, datetime) else None
    alike = isinstance(found, int | float if isinstance(value, int | float) else str)
    if isinstance(value, bool) != isinstance(found, bool):  # which is an int to Python
        alike = False
    return _sortable(found) if alike else None


def _sortable(value: Value) -> Any:
    # As in PostgreSQL, what is not a number equals itself and is above all others.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (1, 0) if value != value else (0, value)  # noqa: PLR0124
    return value


def like(pattern: str, text: str) -> bool:
    r"""Tells whether a text, as a whole, is like a pattern of LIKE; ``\`` escapes.

    Takes time in proportion to the product of their lengths at most.

    >>> like(r"1_0\% %", "100% sure")
    True
    """
    first, *others = _segments(pattern)
    if not others:
        return first.fullmatch(text) is not None
    found = first.match(text)
    for segment in others[:-1]:
        found = found and segment.search(text, found.end())
    # The last one holds no more than single characters, so it has but one place at the end.
    return found is not None and others[-1].search(text, found.end()) is not None


@lru_cache(KEPT_PATTERNS)
def _segments(pattern: str) -> tuple[re.Pattern[str], ...]:
    """Returns what stands between the ``%`` of a pattern; the last one ends with the text."""
    segments = [""]
    letters = iter(pattern)
    for letter in letters:
        if letter == "%":
            segments.append("")
        elif letter == "_":
            segments[-1] += "."
        else:
            segments[-1] += re.escape(next(letters) if letter == ESCAPE else letter)
    segments[-1] += r"\Z"
    return tuple(re.compile(segment, re.DOTALL) for segment in segments)
