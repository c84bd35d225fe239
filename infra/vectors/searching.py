"""Searching, scanning and fetching chunks.

Conditions are part of what the store is asked, never applied to its answer: whoever may not see
what is nearest finds what is nearest of the rest.

Scores lie from 0 to 1. By ``vector``: (1 + cosine) / 2 for cosine; 1 / (1 + squared distance) for
l2; 1 / (1 + e^-product) for dot. By ``full_text``: s / (1 + s) of the
BM25 score s. By ``hybrid``: both, each stretched from 0 to 1 over what was considered, and weighed
by ``alpha``; so such a score compares hits of one search, and pages agree with one another up to
the hundredth hit, the thousandth and the last that paging reaches.

A search that says neither what is near nor what words are looked for lists all that satisfies its
conditions, without scores. Hits that are sorted by columns are first found by score: those among
the first 10,000. Text is sorted by its code points; null comes first, and last when descending.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weaviate.classes.aggregate import Metrics
from weaviate.classes.query import Filter, HybridFusion, MetadataQuery, Sort
from weaviate.collections.classes.filters import FilterReturn

from infra.conditions import Condition
from infra.vectors.connection import reaching
from infra.vectors.documents import Place, document_id
from infra.vectors.errors import SearchInvalid
from infra.vectors.filters import both, filter_of
from infra.vectors.layout import Layout
from infra.vectors.objects import OF_HIT, hit_of
from infra.vectors.properties import decoded
from infra.vectors.writing import Collection
from schemas.indexes import ColumnType, IndexSpec, Kept
from schemas.search import MOST_HITS, Count, Found, Hit, Search

MOST_VALUES = 100  # of a facet
FEW_COLUMNS = 2
TIERS = (100, 1_000, MOST_HITS)
CURSOR = re.compile(r"[0-9a-z!]+")
STEEPEST = 700.0

# Of Weaviate's distances; that of dot is the product's negative.
SCORES: dict[str, Callable[[float], float]] = {
    "cosine": lambda distance: 1 - distance / 2,
    "dot": lambda distance: 1 / (1 + math.exp(min(distance, STEEPEST))),
    "l2": lambda distance: 1 / (1 + distance),
}


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


async def search(asked: Asked, search: Search, query: str, vector: Sequence[float] | None) -> Found:
    """Returns hits by score, or in the order that is asked for, and counts of columns."""
    where = asked.filter()
    if vector is None and not query.strip():
        objects = await _listed(asked, search, where)
    else:
        rank = _ranking(asked, search, query, vector, where)
        found = _sorted if search.sort else _first
        objects = await found(asked, search, rank)
    shown = asked.shown(search.columns)
    return Found(
        hits=tuple(_hit(each, shown, asked, score, search) for each, score in objects),
        facets=await _counts(asked, search.facets, where),
        generation=asked.place.generation,
    )


async def scan(asked: Asked, search: Search) -> Found:
    """Returns a page of chunks by key and position."""
    where = asked.filter()
    if search.after is not None:
        if not CURSOR.fullmatch(search.after):
            raise SearchInvalid("after is the next of the page before, as it was given")
        where = both(Filter.by_property("order").greater_than(search.after), where)
    shown = asked.shown(search.columns)
    with reaching():
        answer = await asked.chunks.query.fetch_objects(
            limit=search.k,
            filters=where,
            sort=Sort.by_property("order"),
            include_vector=search.vectors,
            return_properties=[*_properties(shown), "order"],
        )
    full = len(answer.objects) == search.k
    return Found(
        hits=tuple(_hit(each, shown, asked, None, search) for each in answer.objects),
        next=str(answer.objects[-1].properties["order"]) if full else None,
        generation=asked.place.generation,
    )


async def fetch(asked: Asked, search: Search) -> Found:
    """Returns the chunks of rows."""
    ids = [document_id(asked.place.index, key) for key in search.keys]
    shown = asked.shown(search.columns)
    with reaching():
        answer = await asked.chunks.query.fetch_objects(
            limit=MOST_HITS,
            filters=both(Filter.by_property("document").contains_any(ids), asked.filter()),
            include_vector=search.vectors,
            return_properties=[*_properties(shown), "document"],
        )
    if len(answer.objects) == MOST_HITS:
        raise SearchInvalid(f"these rows have {MOST_HITS:,} chunks and more: ask for fewer of them")
    places = {each: number for number, each in enumerate(ids)}
    ordered = sorted(
        answer.objects,
        key=lambda each: (places[each.properties["document"]], each.properties["position"]),
    )
    return Found(
        hits=tuple(_hit(each, shown, asked, None, search) for each in ordered),
        generation=asked.place.generation,
    )


Ranked = list[tuple[Any, float | None]]
# Limit, offset and further options to objects with their scores, best first.
Ranking = Callable[..., Any]


def _ranking(
    asked: Asked,
    search: Search,
    query: str,
    vector: Sequence[float] | None,
    where: FilterReturn | None,
) -> Ranking:
    words = query.strip()
    if search.mode != "full_text" and vector is None:
        raise SearchInvalid(f"a {search.mode} search takes a vector, and the index has none for it")
    if search.mode != "vector" and not words:
        raise SearchInvalid(f"a {search.mode} search takes words to look for")
    ask, score = asked.chunks.query, SCORES[asked.layout.distance]

    async def by_vector(limit: int, offset: int, **more: Any) -> Ranked:
        answer = await ask.near_vector(
            list(vector or ()),
            limit=limit,
            offset=offset,
            filters=where,
            return_metadata=MetadataQuery(distance=True),
            **more,
        )
        return [(each, _bounded(score(each.metadata.distance))) for each in answer.objects]

    async def by_words(limit: int, offset: int, **more: Any) -> Ranked:
        answer = await ask.bm25(
            words,
            query_properties=["text"],
            limit=limit,
            offset=offset,
            filters=where,
            return_metadata=MetadataQuery(score=True),
            **more,
        )
        return [(each, each.metadata.score / (1 + each.metadata.score)) for each in answer.objects]

    async def by_both(limit: int, offset: int, **more: Any) -> Ranked:
        last = limit + offset
        answer = await ask.hybrid(
            words,
            query_properties=["text"],
            vector=list(vector or ()),
            alpha=search.alpha,
            fusion_type=HybridFusion.RELATIVE_SCORE,
            # What is considered decides on the scores: it is the same for neighbouring pages.
            limit=next(tier for tier in TIERS if tier >= last),
            filters=where,
            return_metadata=MetadataQuery(score=True),
            **more,
        )
        return [(each, _bounded(each.metadata.score)) for each in answer.objects[offset:last]]

    ways = {"full_text": by_words, "hybrid": by_both, "vector": by_vector}
    return ways[search.mode]


async def _first(asked: Asked, search: Search, rank: Ranking) -> Ranked:
    with reaching():
        found: Ranked = await rank(
            search.k,
            search.offset,
            include_vector=search.vectors,
            return_properties=_properties(asked.shown(search.columns)),
        )
    return _good(found, search)


async def _sorted(asked: Asked, search: Search, rank: Ranking) -> Ranked:
    orders = [(asked.column(each.column)[1], each.descending) for each in search.sort]
    with reaching():
        found: Ranked = await rank(MOST_HITS, 0, return_properties=[name for name, _ in orders])
    good = _good(found, search)
    for name, descending in reversed(orders):
        good.sort(key=lambda each: each[0].properties.get(name) or "", reverse=descending)
    page = good[search.offset : search.offset + search.k]
    ids = [each.uuid for each, _ in page]
    if not ids:
        return []
    with reaching():
        answer = await asked.chunks.query.fetch_objects_by_ids(
            ids,
            limit=len(ids),
            include_vector=search.vectors,
            return_properties=_properties(asked.shown(search.columns)),
        )
    whole = {each.uuid: each for each in answer.objects}
    return [(whole[each.uuid], score) for each, score in page if each.uuid in whole]


async def _listed(asked: Asked, search: Search, where: FilterReturn | None) -> Ranked:
    sort: Any = None
    for each in search.sort:
        name = asked.column(each.column)[1]
        ascending = not each.descending
        sort = sort.by_property(name, ascending) if sort else Sort.by_property(name, ascending)
    with reaching():
        answer = await asked.chunks.query.fetch_objects(
            limit=search.k,
            offset=search.offset,
            filters=where,
            sort=sort or Sort.by_property("order"),
            include_vector=search.vectors,
            return_properties=_properties(asked.shown(search.columns)),
        )
    return [(each, None) for each in answer.objects]


async def _counts(
    asked: Asked, columns: Sequence[str], where: FilterReturn | None
) -> dict[str, tuple[Count, ...]]:
    """Returns how many rows have each value of each column, the most frequent first."""
    kept = {column: asked.column(column) for column in columns}
    if not kept:
        return {}
    first = await _first_chunks(asked, where, len(kept))
    with reaching():
        # To group by a column would read all rows twice, and again for each column.
        answer = await asked.chunks.aggregate.over_all(
            filters=first,
            return_metrics=[
                Metrics(name).text(
                    top_occurrences_count=True, top_occurrences_value=True, limit=MOST_VALUES
                )
                for _, name in kept.values()
            ],
        )
    found = {name: answer.properties.get(name) for _, name in kept.values()}
    return {column: _ranked(kind, found[name]) for column, (kind, name) in kept.items()}


async def _first_chunks(
    asked: Asked, where: FilterReturn | None, columns: int
) -> FilterReturn | None:
    """Returns what leaves one chunk of each row: it has a first one, and all have its columns."""
    position = Filter.by_property("position")
    if where is None and columns <= FEW_COLUMNS:
        # All that there is, is read faster than what satisfies a filter, one column at a time.
        with reaching():
            later = await asked.chunks.query.fetch_objects(
                limit=1, filters=position.greater_than(0), return_properties=["position"]
            )
        if not later.objects:
            return None
    return both(position.equal(0), where)


# `Any`: what Weaviate's client tells of a property.
def _ranked(kind: ColumnType, told: Any) -> tuple[Count, ...]:
    tops = told.top_occurrences if told is not None else ()
    counts = [(top.value, top.count or 0) for top in tops if top.value is not None]
    counts.sort(key=lambda each: (-each[1], each[0]))
    return tuple(Count(value=decoded(kind, text), count=many) for text, many in counts)


def _good(found: Iterable[tuple[Any, float | None]], search: Search) -> Ranked:
    least = search.score_threshold
    return [each for each in found if least is None or (each[1] or 0.0) >= least]


def _properties(shown: Mapping[str, tuple[ColumnType, str]]) -> list[str]:
    return [*OF_HIT, *(name for _, name in shown.values())]


def _hit(
    found: Any,
    shown: Mapping[str, tuple[ColumnType, str]],
    asked: Asked,
    score: float | None,
    search: Search,
) -> Hit:
    texts = {column: (kind, found.properties.get(name)) for column, (kind, name) in shown.items()}
    columns = {
        column: None if text is None else decoded(kind, text)
        for column, (kind, text) in texts.items()
    }
    return hit_of(
        found.properties,
        columns,
        source=asked.spec.source,
        score=score,
        vector=found.vector["default"] if search.vectors else None,
    )


def _bounded(score: float) -> float:
    return min(max(score, 0.0), 1.0)
