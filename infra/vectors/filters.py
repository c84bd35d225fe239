"""Conditions as the store's own filters: the same rows as ``infra.conditions.matches`` tells.

Whether a column is null is kept in a property of its own, ``present``: what Weaviate knows of null
it does not know of objects that are older than the property.
"""

from __future__ import annotations

from collections.abc import Mapping

from weaviate.classes.query import Filter
from weaviate.collections.classes.filters import FilterReturn

from infra.conditions import And, Compare, Condition, Not, Op, Or, without_not
from infra.vectors.errors import SearchInvalid
from infra.vectors.layout import Layout
from infra.vectors.properties import (
    EDGE,
    SWAPPED,
    encoded,
    is_exact,
    pattern_property,
    range_property,
    ranged,
)
from schemas.indexes import ColumnType, Kept

WILDCARDS = {"%": "*", "_": "?"}


def filter_of(
    condition: Condition | None, kinds: Mapping[str, ColumnType], layout: Layout
) -> FilterReturn | None:
    """Returns a filter for the rows that satisfy a condition; None where there is none.

    Args:
        condition: Over columns that the index keeps.
        kinds: Their types.
        layout: Where they lie.

    Raises:
        SearchInvalid: A column is not kept, or a pattern cannot be looked for.
    """
    if condition is None:
        return None

    def made(part: Condition) -> FilterReturn:
        match part:
            case And(parts):
                return Filter.all_of([made(each) for each in parts])
            case Or(parts):
                return Filter.any_of([made(each) for each in parts])
            case Not(Compare() as like):
                name = _named(like.column, kinds, layout)
                return Filter.not_(_like(name, str(like.value))) & present(name)
            case Compare():
                kind = kinds.get(part.column, "string")
                return _leaf(part, _named(part.column, kinds, layout), kind)
        raise AssertionError("NOT stands in front of LIKE alone")

    return made(without_not(condition))


def both(first: FilterReturn, second: FilterReturn | None) -> FilterReturn:
    """Returns a filter for what satisfies both."""
    return first if second is None else first & second


def followed(single: FilterReturn) -> FilterReturn:
    """Returns a filter for the same, all of it.

    Where a comparison stands alone, Weaviate takes no more from its index than are asked for, in
    the order of that index: before it sorts them, and before it drops those that a crash has left
    there though they are gone.
    """
    return single & single


def present(name: str) -> FilterReturn:
    """Returns a filter for the objects whose property is not null."""
    return Filter.by_property("present").contains_any([name])


def _named(column: str, kinds: Mapping[str, ColumnType], layout: Layout) -> str:
    if column not in kinds:
        raise SearchInvalid(f'column "{column}" is not kept by the index')
    return layout.property(Kept(name=column, type=kinds[column]))


def _leaf(leaf: Compare, name: str, kind: ColumnType) -> FilterReturn:
    if leaf.op is Op.NULL:
        return Filter.not_(present(name)) if leaf.value else present(name)
    if leaf.op is Op.LIKE:
        return _like(name, str(leaf.value))
    found = Filter.by_property(name)
    if isinstance(leaf.value, tuple):
        return found.contains_any([encoded(kind, value) for value in leaf.value])
    value = encoded(kind, leaf.value)
    if leaf.op is Op.NE:
        return found.not_equal(value) & present(name)
    if leaf.op is Op.EQ:
        return found.equal(value)
    return _range(leaf, name, kind, value)


def _range(leaf: Compare, name: str, kind: ColumnType, value: str) -> FilterReturn:
    number = ranged(kind, leaf.value)
    if number is not None and is_exact(kind, number):
        return _compared(leaf.op, range_property(name), number)
    return _compared(leaf.op, name, value)


def _compared(op: Op, name: str, value: str | float) -> FilterReturn:
    found = Filter.by_property(name)
    if op is Op.GE:
        return found.greater_or_equal(value)
    if op is Op.GT:
        return found.greater_than(value)
    return found.less_or_equal(value) if op is Op.LE else found.less_than(value)


def _like(name: str, pattern: str) -> FilterReturn:
    letters, written = iter(pattern), []
    for letter in letters:
        if letter in WILDCARDS:
            written.append(WILDCARDS[letter])
            continue
        literal = next(letters, letter) if letter == "\\" else letter
        turned = literal.translate(SWAPPED)
        if turned in WILDCARDS.values():
            raise SearchInvalid("a pattern holds a noncharacter that cannot be looked for")
        written.append(turned)
    return Filter.by_property(pattern_property(name)).like(f"{EDGE}{''.join(written)}{EDGE}")
