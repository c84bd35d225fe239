"""Documents as the objects that Weaviate stores, and back; what cannot be stored is told apart."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from weaviate.classes.data import DataObject

from infra.vectors.documents import Chunk, Document, Head, Vector, canonical, chunk_id
from infra.vectors.layout import Layout
from infra.vectors.properties import (
    SEPARATOR,
    ValueWrong,
    encoded,
    order_of,
    pattern_property,
    range_property,
    ranged,
    swapped,
)
from schemas.search import Hit

Object = DataObject[Any, Any]

# Of one call: enough to be fast, few enough for its answer to come in time.
MOST_OBJECTS = 500
MOST_CHARACTERS = 4_000_000
MOST_FLOAT = 3.4028234663852886e38
FLOOR_ID = str(uuid5(NAMESPACE_URL, "floor"))
PLACES = 8  # digits of a position
# Properties of a chunk that make a hit.
OF_HIT = ("chunks", "committed_at", "key", "position", "text", "version")


class Unfit(ValueError):
    """A document cannot be stored; the message says why and quotes nothing of it."""


def objects_of(document: Document, layout: Layout) -> tuple[Object, list[Object]]:
    """Returns a document's head and its chunks as objects.

    Raises:
        Unfit: A vector or a value is not what the layout says, or a text is no Unicode.
    """
    try:
        return _head_object(document), _chunk_objects(document, layout)
    except UnicodeEncodeError:
        raise Unfit("a text holds half a character, which is no Unicode") from None


def floor_object(version: str) -> Object:
    """Returns the object that keeps the version of the last truncation."""
    return DataObject(uuid=FLOOR_ID, properties={"deleted": True, "floor": version})


def head_of(properties: Mapping[str, Any]) -> Head:
    """Returns the head that an object holds."""
    return Head(
        version=properties["version"],
        deleted=properties["deleted"],
        inputs=json.loads(properties["inputs"]),
        digests=tuple(properties["digests"] or ()),
    )


def hit_of(
    properties: Mapping[str, Any],
    columns: Mapping[str, Any],
    *,
    source: str | None,
    score: float | None = None,
    vector: Sequence[float] | None = None,
) -> Hit:
    """Returns the hit that a chunk's object is."""
    return Hit(
        key=json.loads(properties["key"]),
        score=score,
        text=properties["text"],
        columns=dict(columns),
        position=properties["position"],
        chunks=properties["chunks"],
        source=source,
        version=properties["version"],
        committed_at=properties["committed_at"],
        vector=None if vector is None else tuple(vector),
    )


def slices(objects: Iterable[Object]) -> Iterator[list[Object]]:
    """Yields objects in batches that one call takes."""
    batch: list[Object] = []
    size = 0
    for each in objects:
        weight = _weight(each)
        if batch and (len(batch) == MOST_OBJECTS or size + weight > MOST_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += weight
    if batch:
        yield batch


def floats(vector: Vector) -> list[float]:
    """Returns a vector as numbers."""
    return array("f", vector).tolist() if isinstance(vector, bytes) else list(vector)


def _head_object(document: Document) -> Object:
    properties = {
        "deleted": document.deleted,
        "digests": [chunk.digest for chunk in document.chunks],
        "inputs": _json(document.inputs),
        "key": _json(document.key),
        "version": document.version,
    }
    return DataObject(uuid=document.id, properties=properties)


def _chunk_objects(document: Document, layout: Layout) -> list[Object]:
    order = order_of(document.key)
    shared = {
        "chunks": len(document.chunks),
        "committed_at": document.committed_at,
        "document": document.id,
        "key": _json(document.key),
        "version": document.version,
        **_columns(document.columns, layout),
    }
    return [_chunk_object(chunk, document.id, shared, order, layout) for chunk in document.chunks]


def _chunk_object(
    chunk: Chunk, document: str, shared: Mapping[str, Any], order: str, layout: Layout
) -> Object:
    vector = floats(chunk.vector)
    if len(vector) != layout.dimensions:
        raise Unfit(
            f"a vector has {len(vector)} dimensions, and those of the index {layout.dimensions}"
        )
    if not all(abs(number) <= MOST_FLOAT for number in vector):
        raise Unfit("a vector holds what is no finite number of 32 bits")
    chunk.text.encode()
    properties = {
        **shared,
        "digest": chunk.digest,
        "order": f"{order}{SEPARATOR}{chunk.position:0{PLACES}d}",
        "position": chunk.position,
        "text": chunk.text,
    }
    return DataObject(uuid=chunk_id(document, chunk.position), properties=properties, vector=vector)


def _columns(columns: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    kinds = layout.kinds
    found: dict[str, Any] = {}
    present: list[str] = []
    for column, value in columns.items():
        if value is None:
            continue
        if column not in kinds:
            raise Unfit(f'no column "{column}" is kept here: ensure the place with it first')
        kind = kinds[column]
        name = layout.properties[column, kind]
        try:
            found[name] = encoded(kind, value)
        except ValueWrong as wrong:
            raise Unfit(f'column "{column}" {wrong}') from None
        if kind == "string":
            found[pattern_property(name)] = swapped(value)
        if (number := ranged(kind, value)) is not None:
            found[range_property(name)] = number
        present.append(name)
    return {**found, "present": present}


def _json(values: Mapping[str, Any]) -> str:
    text = canonical(values)
    text.encode()
    return text


def _weight(each: Object) -> int:
    """Returns about how many bytes an object has."""
    return sum(len(value) for value in chain(each.properties.values()) if isinstance(value, str))
