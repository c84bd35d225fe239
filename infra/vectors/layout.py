"""The two collections of a place: what they are called, and what is in them.

``chunks`` are searched; ``heads`` have no vector. What a place is, is written in the collections'
descriptions, and the column of a property in the property's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from weaviate.classes.config import (
    Configure,
    DataType,
    Property,
    StopwordsPreset,
    Tokenization,
    VectorDistances,
)

from infra.vectors.documents import Place
from infra.vectors.errors import SearchInvalid
from infra.vectors.properties import BOUNDS, pattern_property, property_of, range_property
from schemas.indexes import ColumnType, IndexSpec, Kept

LONGEST_READABLE = 100
DISTANCES = {
    "cosine": VectorDistances.COSINE,
    "dot": VectorDistances.DOT,
    "l2": VectorDistances.L2_SQUARED,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What a place was made with.

    Attributes:
        dimensions: Length of its vectors.
        distance: How they are compared.
        properties: By column and type, the property that it lies in.
        kinds: Types of the columns; of one that had another type before, the last.
    """

    dimensions: int
    distance: str
    properties: Mapping[tuple[str, ColumnType], str] = field(default_factory=dict)
    kinds: Mapping[str, ColumnType] = field(default_factory=dict)

    def property(self, column: Kept) -> str:
        """Returns the property of a column.

        Raises:
            SearchInvalid: It is not kept.
        """
        found = self.properties.get((column.name, column.type))
        if found is None:
            raise SearchInvalid(f'column "{column.name}" is not kept as {column.type} yet')
        return found


def chunks_of(place: Place) -> str:
    """Returns the name of the collection of a place's chunks."""
    return f"Chunks_{_name(place)}"


def heads_of(place: Place) -> str:
    """Returns the name of the collection of a place's heads."""
    return f"Heads_{_name(place)}"


def _name(place: Place) -> str:
    # Names that differ in capitals alone are one to Weaviate; the hash tells them apart.
    readable = re.sub(r"[^a-z0-9]", "_", place.index.lower())[:LONGEST_READABLE]
    digest = sha256(f"{place.index}/{place.generation}".encode()).hexdigest()[:16]
    return f"{readable}_{place.generation}_{digest}"


def description(place: Place, dimensions: int) -> str:
    """Returns what is written down of a place."""
    return json.dumps(
        {"dimensions": dimensions, "generation": place.generation, "index": place.index}
    )


def read(text: str | None) -> tuple[Place, int] | None:
    """Returns the place and its dimensions, or None where the collection is not ours."""
    try:
        found = json.loads(text or "")
        return Place(found["index"], found["generation"]), found["dimensions"]
    except (KeyError, TypeError, ValueError):
        return None


def layout_of(config: Any) -> Layout:
    """Returns the layout that a collection of chunks was made with.

    Args:
        config: As Weaviate tells it.
    """
    known = read(config.description)
    assert known is not None
    properties = {
        (column.name, column.type): each.name
        for each in config.properties
        if (column := _column(each.description))
    }
    distances = {distance.value: name for name, distance in DISTANCES.items()}
    return Layout(
        dimensions=known[1],
        distance=distances[config.vector_config["default"].vector_index_config.distance_metric],
        properties=properties,
        kinds=dict(properties.keys()),
    )


def chunks(place: Place, spec: IndexSpec, dimensions: int) -> dict[str, Any]:
    """Returns what the collection of chunks is made with."""
    return {
        "name": chunks_of(place),
        "description": description(place, dimensions),
        "inverted_index_config": Configure.inverted_index(stopwords_preset=StopwordsPreset.NONE),
        "properties": [
            Property(
                name="text",
                data_type=DataType.TEXT,
                tokenization=Tokenization.WORD,
                index_filterable=False,
                index_searchable=True,
            ),
            *(_filtered(name) for name in ("document", "order", "version")),
            _filtered("present", DataType.TEXT_ARRAY),
            Property(name="position", data_type=DataType.INT, index_filterable=True),
            *(_plain(name, DataType.INT) for name in ("chunks", "committed_at")),
            *(_plain(name) for name in ("digest", "key")),
            *columns(spec),
        ],
        "vector_config": Configure.Vectors.self_provided(
            vector_index_config=Configure.VectorIndex.hnsw(distance_metric=DISTANCES[spec.distance])
        ),
    }


def heads(place: Place, dimensions: int) -> dict[str, Any]:
    """Returns what the collection of heads is made with."""
    return {
        "name": heads_of(place),
        "description": description(place, dimensions),
        "properties": [
            *(_filtered(name) for name in ("note", "version")),
            Property(name="deleted", data_type=DataType.BOOL, index_filterable=True),
            *(_plain(name) for name in ("floor", "inputs", "key")),
            _plain("digests", DataType.TEXT_ARRAY),
        ],
    }


def columns(spec: IndexSpec) -> Iterator[Property]:
    """Yields the properties of an index's columns."""
    for column in spec.columns:
        name = property_of(column)
        written = json.dumps({"column": column.name, "type": column.type})
        yield _filtered(name, written=written)
        if column.type == "string":
            yield _filtered(pattern_property(name))
        if column.type in BOUNDS:
            yield Property(
                name=range_property(name),
                data_type=DataType.NUMBER,
                index_filterable=False,
                index_range_filters=True,
            )


def _column(written: str | None) -> Kept | None:
    if not written:
        return None
    found = json.loads(written)
    return Kept(name=found["column"], type=found["type"])


def _filtered(name: str, kind: DataType = DataType.TEXT, written: str | None = None) -> Property:
    """Text that is compared as it stands."""
    return Property(
        name=name,
        data_type=kind,
        description=written,
        tokenization=Tokenization.FIELD,
        index_filterable=True,
        index_searchable=False,
    )


def _plain(name: str, kind: DataType = DataType.TEXT) -> Property:
    """What is only read back."""
    searchable = False if kind in (DataType.TEXT, DataType.TEXT_ARRAY) else None
    return Property(name=name, data_type=kind, index_filterable=False, index_searchable=searchable)
