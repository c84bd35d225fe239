r"""What rows must satisfy: a dictionary or an SQL condition, read as the same tree.

>>> columns = {"price": "double", "color": "string", "sold": "boolean", "made": "date"}

A dictionary's keys name a column, and behind it an operator: ``<``, ``<=``, ``>``, ``>=``, ``NOT``
or ``LIKE``; without one, it is equal. All keys must hold:

>>> print(to_sql(parse({"price <": 5, "color NOT": "red"}, columns)))
"price" < 5.0 AND "color" <> 'red'

A list stands for any of its values, None for what has no value, and ``OR`` between columns takes a
list with a value for each:

>>> print(to_sql(parse({"color": ["red", "blue"], "made": None}, columns)))
"color" IN ('red', 'blue') AND "made" IS NULL
>>> print(to_sql(parse({"price >= OR color": [100, "gold"]}, columns)))
"price" >= 100.0 OR "color" = 'gold'

Text is a condition as behind WHERE in PostgreSQL: columns compared with values, IN, BETWEEN, LIKE,
IS NULL, AND, OR, NOT and parentheses; names of other characters than letters stand in double
quotes. In a pattern, ``%`` is any text, ``_`` any character, and ``\`` (or what ESCAPE says) takes
them literally. Dates are RFC 3339 text, in UTC if they name no zone:

>>> parse("made >= '2026-05-01' AND NOT sold = TRUE", columns) == parse(
...     {"made >=": "2026-05-01T02:00:00+02:00", "sold NOT": True}, columns
... )
False
>>> without_not(parse("NOT (price < 5 OR sold = TRUE)", columns)) == parse(
...     {"price >=": 5, "sold NOT": True}, columns
... )
True

What is unknown, since a column is null, does not match, and neither does its opposite:

>>> [matches(parse(f"{no} price < 5", columns), {"price": None}) for no in ("", "NOT")]
[False, False]

Functions, casts, queries and columns against columns are refused, with the place:

>>> parse("price < 5 OR lower(color) = 'red'", columns)  # doctest: +ELLIPSIS
Traceback (most recent call last):
infra.conditions.values.FilterInvalid: at character 14: functions are not known: compare a column...
"""

from __future__ import annotations

from typing import Any

from infra.conditions import pairs, sql
from infra.conditions.sql import write as to_sql
from infra.conditions.tree import And, Compare, Condition, Not, Op, Or, Value, without_not
from infra.conditions.truth import like, matches
from infra.conditions.values import ColumnTypes, FilterInvalid, instant, rfc3339

__all__ = [
    "And", "ColumnTypes", "Compare", "Condition", "FilterInvalid", "Not", "Op", "Or", "Value",
    "instant", "like", "matches", "parse", "rfc3339", "to_sql", "without_not",
]  # fmt: skip


def parse(filters: dict[str, Any] | str | None, columns: ColumnTypes) -> Condition | None:
    """Returns what a filter says, as a tree of at most 64 levels and 1,000 values.

    Args:
        filters: A dictionary, or an SQL condition of at most 10,000 characters.
        columns: Types of the columns by which rows are filtered.

    Returns:
        The condition, its values of their columns' types; None where the filter says nothing.

    Raises:
        FilterInvalid: It cannot be read, or a column or value is not as it should be.
    """
    if not filters or (isinstance(filters, str) and not filters.strip()):
        return None
    if isinstance(filters, str):
        return sql.read(filters, columns)
    return pairs.read(filters, columns)
