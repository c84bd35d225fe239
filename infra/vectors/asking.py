"""What is asked of a place, whatever for: what holds, and what is read of an object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weaviate.collections.classes.filters import FilterReturn

from infra.conditions import Condition, matches
from infra.conditions.tree import columns_of
from infra.vectors.documents import Place
from infra.vectors.errors import SearchInvalid
from infra.vectors.filters import filter_of
from infra.vectors.layout import Layout
from infra.vectors.objects import OF_HIT, hit_of
from infra.vectors.properties import decoded
from infra.vectors.writing import Collection
from schemas.indexes import ColumnType, IndexSpec, Kept
from schemas.search import Hit, Search

# Of columns, their types and properties.
Shown = Mapping[str, tuple[ColumnType, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked, whatever for.

    Attributes:
        place: Where.
        spec: The index.
        layout: How the place was made.
        chunks: Its collection.
        where: All that holds.
    """

    place: Place
    spec: IndexSpec
    layout: Layout
    chunks: Collection
    where: Condition | None

    def filter(self) -> FilterReturn | None:
        """Returns the store's filter for what holds."""
        kinds = {column.name: column.type for column in self.spec.columns}
        return filter_of(self.where, kinds, self.layout)

    def column(self, name: str) -> tuple[ColumnType, str]:
        """Returns the type and the property of a column.

        Raises:
            SearchInvalid: The index does not keep it.
        """
        for column in self.spec.columns:
            if column.name == name:
                return column.type, self.layout.property(column)
        raise SearchInvalid(f'no column "{name}" is kept by the index')

    def shown(self, names: Sequence[str] | None) -> dict[str, tuple[ColumnType, str]]:
        """Returns the columns that are returned: those that are named, or all."""
        if names is not None:
            return {name: self.column(name) for name in names}
        kept = ((column, self._kept(column)) for column in self.spec.columns)
        return {column.name: (column.type, name) for column, name in kept if name}

    def _kept(self, column: Kept) -> str | None:
        # A column that was added a moment ago may not be there yet.
        return self.layout.properties.get((column.name, column.type))

    def properties(self, shown: Shown) -> list[str]:
        """Returns the properties of which a hit is made and its conditions are looked at."""
        return list(dict.fromkeys([*OF_HIT, *names(shown), *names(self._looked_at())]))

    def holding(self) -> Callable[[Any], bool]:
        """Returns what tells whether an object satisfies what holds, as it was read.

        Weaviate looks first for what satisfies a filter and reads that later: what is written in
        between may satisfy it no more. Nor may what was written when it crashed, until that is
        stored again.
        """
        where, columns = self.where, self._looked_at()
        return lambda found: where is None or matches(where, _values(found, columns))

    def hit(self, found: Any, shown: Shown, score: float | None, search: Search) -> Hit:
        """Returns the hit that an object is."""
        return hit_of(
            found.properties,
            _values(found, shown),
            source=self.spec.source,
            score=score,
            vector=found.vector["default"] if search.vectors else None,
        )

    def _looked_at(self) -> Shown:
        return {} if self.where is None else self.shown(sorted(columns_of(self.where)))


def names(columns: Shown) -> Iterable[str]:
    """Returns the properties of columns."""
    return (name for _, name in columns.values())


def _values(found: Any, columns: Shown) -> dict[str, Any]:
    texts = {column: (kind, found.properties.get(name)) for column, (kind, name) in columns.items()}
    return {
        column: None if text is None else decoded(kind, text)
        for column, (kind, text) in texts.items()
    }
