"""What rows must satisfy: written as a dictionary or as an SQL condition, one tree for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.conditions.tree import And, Compare, Condition, Not, Op, Or, Value
from schemas.indexes import ColumnType

__all__ = [
    "And", "ColumnTypes", "Compare", "Condition", "FilterInvalid", "Not", "Op", "Or", "Value",
    "matches", "parse", "without_not",
]  # fmt: skip

ColumnTypes = Mapping[str, ColumnType]


class FilterInvalid(ValueError):
    """A condition cannot be read: where, and what to write instead. Quotes no value."""


def parse(filters: dict[str, Any] | str | None, columns: ColumnTypes) -> Condition | None:
    """Returns what a filter says; None where it says nothing."""
    raise NotImplementedError


def matches(condition: Condition, row: Mapping[str, Any]) -> bool:
    """Tells whether a row satisfies a condition; what is unknown does not."""
    raise NotImplementedError


def without_not(condition: Condition) -> Condition:
    """Returns the same condition with NOT only in front of LIKE."""
    raise NotImplementedError
