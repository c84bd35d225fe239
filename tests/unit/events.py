"""Strategies for events, derived from the types of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints
from uuid import UUID

from hypothesis import strategies as st

from schemas.avro import definitions
from schemas.events import Event

E = TypeVar("E", bound=Event)

# What Avro text can hold: everything but halves of surrogate pairs.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=24)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Milliseconds up to the year 8307.
INSTANTS = st.integers(0, 200_000_000_000_000).map(lambda ms: EPOCH + timedelta(milliseconds=ms))

PLAIN: dict[object, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    bytes: st.binary(max_size=24),
    date: st.dates(),
    datetime: INSTANTS,
    Decimal: st.decimals(-1000, 1000, places=2),
    # What a 32-bit float holds, a double holds, too.
    float: st.floats(allow_nan=False, width=32),
    str: TEXT,
    UUID: st.uuids(),
}
INTEGERS = {"int": st.integers(-(2**31), 2**31 - 1), "long": st.integers(-(2**63), 2**63 - 1)}


_made: dict[str, st.SearchStrategy[Any]] = {}


def events(kind: type[E]) -> st.SearchStrategy[E]:
    """Returns a strategy for all values that an event's schema allows."""
    if kind.SCHEMA not in _made:
        _made[kind.SCHEMA] = _built(kind)
    return _made[kind.SCHEMA]


def _built(kind: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    avro = {each["name"]: each["type"] for each in definitions()[kind.SCHEMA]["fields"]}  # type: ignore[attr-defined]
    return st.builds(
        kind, **{each.name: _values(hints[each.name], avro[each.name]) for each in fields(kind)}
    )


def _values(hint: Any, avro: Any) -> st.SearchStrategy[Any]:
    arguments = get_args(hint)
    if get_origin(hint) is UnionType:
        [inner] = [each for each in arguments if each is not NoneType]
        return st.none() | _values(inner, avro[1])
    if get_origin(hint) is tuple:
        return st.lists(_values(arguments[0], avro["items"]), max_size=3).map(tuple)
    if get_origin(hint) is Mapping:
        return st.dictionaries(TEXT, _values(arguments[1], avro["values"]), max_size=3)
    if hint is int:
        return INTEGERS[avro if isinstance(avro, str) else avro["type"]]
    if issubclass(hint, Event):
        return events(hint)
    return st.sampled_from(list(hint)) if issubclass(hint, Enum) else PLAIN[hint]
