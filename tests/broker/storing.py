"""Documents to store: small ones, in places of their own."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from infra.conditions import Condition
from infra.settings import VectorSettings
from infra.stack.local import LocalStack
from infra.vectors import Chunk, Document, Place, Vector, Vectors, document_id
from schemas.indexes import ColumnType, IndexSpec, Kept
from schemas.search import Found, Search

DIMENSIONS = 3
KINDS: dict[str, ColumnType] = {
    "color": "string",
    "made": "date",
    "price": "double",
    "sold": "boolean",
    "stock level": "long",
}
SPEC = IndexSpec(
    source="main.default.docs",
    text="text",
    columns=tuple(Kept(name=name, type=kind) for name, kind in KINDS.items()),
)


def settings_of(stack: LocalStack) -> VectorSettings:
    """Returns how the store of a stack is reached."""
    at = stack.environment()
    return VectorSettings(
        url=at["VECTORS_URL"], grpc_port=int(at["VECTORS_GRPC_PORT"]), key=at["VECTORS_KEY"]
    )


@asynccontextmanager
async def placed(
    vectors: Vectors, spec: IndexSpec = SPEC, dimensions: int = DIMENSIONS
) -> AsyncIterator[Place]:
    """A place for a block."""
    place = Place(f"main.tests.{uuid.uuid4().hex}", 1)
    await vectors.ensure(place, spec, dimensions)
    try:
        yield place
    finally:
        await vectors.drop(place)


def document(
    place: Place,
    number: int,
    *,
    version: str = "1",
    texts: Sequence[str] = ("text",),
    vectors: Sequence[Vector] = (),
    columns: Mapping[str, Any] | None = None,
    deleted: bool = False,
) -> Document:
    """Returns a document with a chunk for each text."""
    key = {"id": number}
    drawn = random.Random(number)
    given = [*vectors, *(somewhere(drawn) for _ in range(len(texts) - len(vectors)))]
    return Document(
        id=document_id(place.index, key),
        key=key,
        version=version,
        columns=columns or {},
        inputs={"text": " ".join(texts)},
        chunks=tuple(
            Chunk(position=position, text=text, digest=f"digest of {text}", vector=vector)
            for position, (text, vector) in enumerate(zip(texts, given, strict=True))
            if not deleted
        ),
        committed_at=1_700_000_000_000 + number,
        deleted=deleted,
    )


def somewhere(drawn: random.Random, dimensions: int = DIMENSIONS) -> tuple[float, ...]:
    """Returns a vector in any direction."""
    return tuple(drawn.gauss(0, 1) for _ in range(dimensions))


async def everything(vectors: Vectors, place: Place, spec: IndexSpec = SPEC) -> Found:
    """Returns all chunks of a small place, by key and position."""
    return await vectors.scan(place, spec, Search(operation="scan", k=1000), where=None)


async def scanned(
    vectors: Vectors, place: Place, k: int, where: Condition | None = None
) -> list[int]:
    """Returns the keys of all chunks, asked for in pages."""
    found: list[int] = []
    after: str | None = None
    while True:
        search = Search(operation="scan", k=k, after=after)
        page = await vectors.scan(place, SPEC, search, where=where)
        found += numbers(page)
        after = page.next
        if after is None:
            return found


def numbers(found: Found) -> list[int]:
    """Returns the keys of hits."""
    return [hit.key["id"] for hit in found.hits]
