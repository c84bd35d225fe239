"""Keys: what tells rows apart of an index that callers write to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.conditions import ColumnTypes
from infra.documents.content import RowInvalid, kept
from schemas.indexes import IndexSpec


def types_of(spec: IndexSpec) -> ColumnTypes:
    """Returns the types of the columns that an index keeps."""
    return {column.name: column.type for column in spec.columns}


def key_in(row: Mapping[str, Any], spec: IndexSpec) -> dict[str, Any]:
    """Returns the key of a row, in the types of the columns that are kept.

    Raises:
        RowInvalid: A part of it is missing, or is neither text nor a whole number.
    """
    types = types_of(spec)
    found: dict[str, Any] = {}
    for name in spec.key_columns:
        value = row.get(name)
        if name in types:
            value = kept(name, types[name], value)
        if value is None or not isinstance(value, bool | int | str):
            raise RowInvalid(f'key column "{name}" takes text or a whole number')
        found[name] = value
    return found


def key_of(given: Mapping[str, Any], spec: IndexSpec) -> dict[str, Any]:
    """Returns a key that was given by itself, as ``key_in`` does.

    Raises:
        RowInvalid: It is none, or more than a key.
    """
    if unknown := sorted(given.keys() - set(spec.key_columns)):
        raise RowInvalid(f'column "{unknown[0]}" is no key column')
    return key_in(given, spec)
