"""Conditions written as a dictionary: keys name columns and operators, values what they want."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.conditions.tree import ESCAPE, And, Compare, Condition, Not, Op, Or, joined
from infra.conditions.values import (
    MOST_CHARACTERS,
    MOST_LEAVES,
    ColumnTypes,
    FilterInvalid,
    compare,
    pattern,
    shown,
)

EITHER = " OR "
NOT = "NOT"
# What may stand behind a column, and the operator that it is.
OPERATORS = {
    "<": Op.LT,
    "<=": Op.LE,
    ">": Op.GT,
    ">=": Op.GE,
    "LIKE": Op.LIKE,
    NOT: Op.NE,
}


def read(filters: dict[str, Any], columns: ColumnTypes) -> Condition:
    """Returns what a dictionary of at least one key says; see ``infra.conditions.parse``.

    Raises:
        FilterInvalid: It cannot be read.
    """
    _bounded(filters)
    return joined(And, [_entry(key, value, columns) for key, value in filters.items()])


def _bounded(filters: dict[str, Any]) -> None:
    leaves = [*_leaves(filters)]
    if len(leaves) > MOST_LEAVES:
        raise FilterInvalid(
            f"the filter compares with more than {MOST_LEAVES:,} values: shorten it"
        )
    if sum(map(len, filters)) + sum(len(str(leaf)) for leaf in leaves) > MOST_CHARACTERS:
        raise FilterInvalid(f"the filter is longer than {MOST_CHARACTERS:,} characters: shorten it")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


def _entry(key: str, value: Any, columns: ColumnTypes) -> Condition:
    place = f"in {shown(key)}"
    ways = [key] if key in columns else key.split(EITHER)
    if len(ways) == 1:
        return _way(key, value, columns, place)
    if not isinstance(value, list | tuple) or len(value) != len(ways):
        raise FilterInvalid(f"{place}: OR over {len(ways)} columns takes a list of as many values")
    return joined(
        Or, [_way(way, each, columns, place) for way, each in zip(ways, value, strict=True)]
    )


def _way(key: str, value: Any, columns: ColumnTypes, place: str) -> Condition:
    column, op = _split(key, columns)
    if value is None and op in (Op.EQ, Op.NE):
        return compare(column, Op.NULL, op is Op.EQ, columns, place)
    if isinstance(value, list | tuple):
        return _listed(column, op, value, columns, place)
    if op is Op.LIKE:
        return _like(column, value, columns, place)
    return compare(column, op, value, columns, place)


def _split(key: str, columns: ColumnTypes) -> tuple[str, Op]:
    """Returns the column and the operator of a key: a name of a column is no operator."""
    column, _, sign = key.rpartition(" ")
    if key in columns or sign.upper() not in OPERATORS:
        return key, Op.EQ
    return column.rstrip(), OPERATORS[sign.upper()]


def _listed(
    column: str, op: Op, values: list[Any] | tuple[Any, ...], columns: ColumnTypes, place: str
) -> Condition:
    if op not in (Op.EQ, Op.NE):
        raise FilterInvalid(f"{place}: a list goes with a column alone or with NOT, not with {op}")
    found: Compare = compare(column, Op.IN, values, columns, place)
    return Not(found) if op is Op.NE else found


def _like(column: str, value: Any, columns: ColumnTypes, place: str) -> Compare:
    found = compare(column, Op.LIKE, value, columns, place)
    return Compare(column, Op.LIKE, pattern(str(found.value), ESCAPE, place))
