"""Searches of an index that is filled by its store's own interface, with vectors that are made up.

The vectors lie in clusters, with noise, as embeddings do; queries are drawn as they are. What is
found is held against all vectors, compared one by one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.conditions import parse
from infra.vectors import Chunk, Document, Place, Vectors, document_id
from schemas.indexes import IndexSpec
from schemas.search import Found, Search
from streams.client import Client
from tests.bench.figures import millis

DIMENSIONS = 384
CLUSTERS, NOISE = 200, 0.8
BATCH = 500
NEAREST = 10
COLORS = ("blue", "brown", "green", "grey", "pink", "red", "white", "yellow")
WORDS = [f"word{number}" for number in range(3000)]
# So that few words are frequent and most are rare.
WEIGHTS = [1 / (1 + number) for number in range(len(WORDS))]
SPEC: dict[str, Any] = {
    "key_columns": ["id"],
    "text": "text",
    "columns": [
        {"name": "color"},
        {"name": "maker"},
        {"name": "price", "type": "long"},
    ],
    "dimensions": DIMENSIONS,
}
# What they leave of all rows: a tenth, and a hundredth.
FILTERS: Mapping[str, dict[str, Any]] = {"a tenth": {"price <": 100}, "1 %": {"price <": 10}}

Floats = NDArray[np.float32]


@dataclass
class Made:
    """What is in the index: a vector, a color, a maker and a price for each row."""

    place: Place
    drawn: random.Random = field(default_factory=lambda: random.Random(7))
    noise: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    vectors: Floats = field(default_factory=lambda: np.zeros((0, DIMENSIONS), np.float32))
    prices: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._centers = self.noise.normal(size=(CLUSTERS, DIMENSIONS)).astype(np.float32)

    def points(self, many: int) -> Floats:
        """Returns vectors of length one."""
        near = self._centers[self.noise.integers(CLUSTERS, size=many)]
        made = near + NOISE * self.noise.normal(size=near.shape).astype(np.float32)
        return _units(made)

    def documents(self, many: int) -> Iterator[list[Document]]:
        """Yields that many documents more, in batches."""
        for start in range(0, many, BATCH):
            fresh = self.points(min(BATCH, many - start))
            yield [self._document(vector) for vector in fresh]
            self.vectors = np.concatenate([self.vectors, fresh])

    def text(self, words: int) -> str:
        """Returns a text of so many words."""
        return " ".join(self.drawn.choices(WORDS, WEIGHTS, k=words))

    def nearest(self, query: Floats, below: int | None = None) -> set[int]:
        """Returns the ids of the rows that are nearest, of those with a price below a bound."""
        scores = self.vectors @ query
        if below is not None:
            scores[np.array(self.prices) >= below] = -2
        return set(np.argpartition(-scores, NEAREST)[:NEAREST].tolist())

    def _document(self, vector: Floats) -> Document:
        number, key = len(self.prices), {"id": len(self.prices)}
        self.prices.append(self.drawn.randrange(1000))
        columns = {
            "color": self.drawn.choice(COLORS),
            "maker": f"maker {self.drawn.randrange(2000)}",
            "price": self.prices[-1],
        }
        text = self.text(self.drawn.randint(8, 40))
        chunk = Chunk(position=0, text=text, digest=str(number), vector=vector.tobytes())
        name = document_id(self.place.index, key)
        return Document(id=name, key=key, version="1", columns=columns, chunks=(chunk,))


async def fill(vectors: Vectors, spec: IndexSpec, made: Made, size: int) -> None:
    """Brings an index to a size."""
    await vectors.ensure(made.place, spec, DIMENSIONS)
    lacking, began = size - len(made.prices), time.perf_counter()
    for batch in made.documents(lacking):
        failed = await vectors.store(made.place, batch)
        assert not failed, failed
        if not len(made.prices) % 10_000:
            print(f"  {len(made.prices):,} rows stored", flush=True)
    print(f"{size:,} rows: stored {lacking / (time.perf_counter() - began):,.0f}/s", flush=True)


async def store(vectors: Vectors, spec: IndexSpec, made: Made, queries: int) -> None:
    """Prints what searches take that are asked of the store."""

    def asking(**options: Any) -> Callable[[Floats], Awaitable[Found]]:
        search = Search.model_validate({"k": NEAREST, **options})
        kinds = {column.name: column.type for column in spec.columns}
        where, words = parse(search.filters, kinds), count()

        async def ask(query: Floats) -> Found:
            # The same words for the same query, whatever else is asked.
            text = random.Random(next(words)).choices(WORDS[:300], k=3)
            return await vectors.search(
                made.place, spec, search, query=" ".join(text), vector=query.tobytes(), where=where
            )

        return ask

    drawn = made.points(queries)
    await _measured("vector", made, drawn, asking())
    for name, filters in FILTERS.items():
        bound = next(iter(filters.values()))
        await _measured(f"vector, {name} of the rows", made, drawn, asking(filters=filters), bound)
    await _measured("words", None, drawn, asking(mode="full_text"))
    await _measured("hybrid", None, drawn, asking(mode="hybrid"))
    tenth = FILTERS["a tenth"]
    await _measured(
        "hybrid, a tenth of the rows", None, drawn, asking(mode="hybrid", filters=tenth)
    )
    few = drawn[: max(5, queries // 20)]
    for facets in (["color"], ["color", "maker"], ["maker"]):
        told = f"vector, counts of {' and '.join(facets)}"
        await _measured(told, None, few, asking(facets=facets))
    told = "vector, counts of color in a tenth of the rows"
    await _measured(told, None, few, asking(facets=["color"], filters=tenth))


async def over_the_bus(client: Client, made: Made, queries: int) -> None:
    """Prints what whole requests take, with a vector and with words that are embedded first."""
    index, drawn = made.place.index, made.points(queries)

    async def by_vector(query: Floats) -> Found:
        return await client.search(index, vector=query.tolist(), k=NEAREST)

    async def by_text(query: Floats) -> Found:
        return await client.search(index, made.text(6), k=NEAREST)

    async def by_both(query: Floats) -> Found:
        return await client.search(index, made.text(6), mode="hybrid", k=NEAREST)

    await _measured("request with a vector", made, drawn, by_vector)
    await _measured("request with words, embedded", None, drawn, by_text)
    await _measured("request with words, hybrid", None, drawn, by_both)


async def _measured(
    what: str,
    made: Made | None,
    queries: Floats,
    ask: Callable[[Floats], Awaitable[Found]],
    below: int | None = None,
) -> None:
    """Prints what searches take, one after the other, and how much of the nearest they find."""
    for query in queries[:5]:
        await ask(query)
    taken, found = [], []
    for query in queries:
        began = time.perf_counter()
        answer = await ask(query)
        taken.append(time.perf_counter() - began)
        assert answer.hits
        found.append({hit.key["id"] for hit in answer.hits})
    line = f"  {what}: {millis(taken)}"
    if made is not None:
        line += f", recall@{NEAREST} {_recall(made, queries, found, below):.3f}"
    print(line, flush=True)


def _recall(made: Made, queries: Floats, found: Sequence[set[int]], below: int | None) -> float:
    pairs = zip(queries, found, strict=True)
    return float(np.mean([len(made.nearest(q, below) & ids) / NEAREST for q, ids in pairs]))


def _units(made: Floats) -> Floats:
    units: Floats = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return units
