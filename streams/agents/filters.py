"""How a model may filter a search: by which columns, compared how, and with what.

What keeps to this ``infra.conditions`` reads, unless a value is beyond what JSON Schema says of it:
a text that is no date, a number of more than 64 bits, a pattern that ends in its escape, more than
1,000 values, more than 10,000 characters. That reads more: OR between columns, which no list of
names can say; null, by which models mean that a column does not matter; and operators in small
letters or behind more than one space, which are the same ones again.

Providers that take letters and digits alone in the names of parameters let any stand within one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from infra.conditions.pairs import EITHER, NOT, OPERATORS
from schemas.indexes import ColumnType, Kept

# Of a schema: a thousand tokens and more, which the model reads each turn. Longer ones are told in
# words.
MOST_CHARACTERS = 4_000
# Of JSON Schema, by our names of types.
TYPES: dict[ColumnType, str] = {
    "boolean": "boolean",
    "date": "string",
    "double": "number",
    "long": "integer",
    "string": "string",
}
# What goes with some types alone.
LIKE = "LIKE"
UNORDERED: frozenset[ColumnType] = frozenset({"boolean"})
BEHIND = {
    "date": " Dates are text like 2026-05-01 or 2026-05-01T12:30:00Z.",
    "string": " In LIKE, % is any text and _ any character.",
}


def by_name(columns: Sequence[Kept]) -> dict[str, Any] | None:
    """Returns the JSON Schema of filters that names what they may be by; None if that is long.

    Args:
        columns: What the index keeps, at least one.
    """
    # What is a column is never another one with an operator.
    properties = {each.name: _any_of(each.type) for each in columns}
    for column in columns:
        for key, value in _compared(column):
            properties.setdefault(key, value)
    types = {each.type for each in columns}
    said = "Values that rows must have, a list for any of them. Leave out what does not matter."
    schema = {
        "type": "object",
        "description": said + "".join(BEHIND[each] for each in sorted(types & BEHIND.keys())),
        "properties": properties,
        "additionalProperties": False,
    }
    return schema if len(json.dumps(schema)) <= MOST_CHARACTERS else None


def in_words(columns: Sequence[Kept]) -> dict[str, Any]:
    """Returns the JSON Schema of filters that takes every name, and says which there are.

    Args:
        columns: What the index keeps, at least one.
    """
    known = ", ".join(f"{each.name} ({each.type})" for each in columns)
    signs = " ".join(OPERATORS)
    said = f"Values that rows must have, by column: {known}. Behind a name may stand one of {signs}"
    return {"type": "object", "description": said}


def _compared(column: Kept) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what stands for a column with an operator, and what it is compared with."""
    for sign in OPERATORS:
        key = f"{column.name} {sign}"
        if EITHER in key or column.name != column.name.rstrip():
            # Read as another column's, or as those of several.
            continue
        if sign == NOT:
            yield key, _any_of(column.type)
        elif column.type not in UNORDERED and (sign != LIKE or column.type == "string"):
            yield key, {"type": TYPES[column.type]}


def _any_of(kind: ColumnType) -> dict[str, Any]:
    """Returns the schema of a value, or of some."""
    one = {"type": TYPES[kind]}
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
