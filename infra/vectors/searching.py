"""Searching, scanning and fetching chunks.

Conditions are part of what the store is asked, so that whoever may not see what is nearest finds
what is nearest of the rest; and what it answers is held to them once more, for it may have been
written meanwhile.

Scores lie from 0 to 1. By ``vector``: (1 + cosine) / 2 for cosine; 1 / (1 + squared distance) for
l2; 1 / (1 + e^-product) for dot. By ``full_text``: s / (1 + s) of the
BM25 score s. By ``hybrid``: both, each stretched from 0 to 1 over what was considered, and weighed
by ``alpha``; so such a score compares hits of one search, and pages agree with one another up to
the hundredth hit, the thousandth and the last that paging reaches. Other pages agree as far as the
graph leads to the same, which is nearly always, and where no more than 10,000 are equally good.

A search that says neither what is near nor what words are looked for lists all that satisfies its
conditions, without scores. Hits that are sorted by columns are first found by score: those among
the first 10,000. Text is sorted by its code points; null comes first, and last when descending.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from weaviate.classes.aggregate import Metrics
from weaviate.classes.query import Filter, Sort
from weaviate.collections.classes.filters import FilterReturn

from infra.vectors.asking import Asked
from infra.vectors.connection import abreast, reaching
from infra.vectors.documents import Head, chunk_id, document_id
from infra.vectors.errors import SearchInvalid
from infra.vectors.filters import both, followed
from infra.vectors.graph import stored
from infra.vectors.properties import decoded
from infra.vectors.ranking import Ranked, Ranking, read
from schemas.indexes import ColumnType
from schemas.search import MOST_HITS, Count, Found, Search

MOST_VALUES = 100  # of a facet
FEW_COLUMNS = 2
AT_ONCE = 8
CURSOR = re.compile(r"[0-9a-z!]+")

# Ids of documents to the heads that there are.
Heads = Callable[[Iterable[str]], Awaitable[Mapping[str, Head]]]


async def search(asked: Asked, search: Search, query: str, vector: Sequence[float] | None) -> Found:
    """Returns hits by score, or in the order that is asked for, and counts of columns."""
    where = asked.filter()
    words = query.strip()
    if vector is None and not words:
        objects = await _listed(asked, search, where)
    else:
        ranking = Ranking(asked=asked, search=search, words=words, vector=vector, where=where)
        ranking.check()
        found = _sorted(asked, search, ranking) if search.sort else ranking.page()
        objects = [*_good(await found, search)]
    shown = asked.shown(search.columns)
    return Found(
        hits=tuple(asked.hit(each, shown, score, search) for each, score in objects),
        facets=await _counts(asked, search.facets, where),
        generation=asked.place.generation,
    )


async def scan(asked: Asked, search: Search) -> Found:
    """Returns a page of chunks by key and position."""
    if search.after is not None and not CURSOR.fullmatch(search.after):
        raise SearchInvalid("after is the next of the page before, as it was given")
    where, shown, holds = asked.filter(), asked.shown(search.columns), asked.holding()
    objects: list[Any] = []
    after, whole = search.after, where is not None
    while len(objects) < search.k:
        with reaching():
            answer = await asked.chunks.query.fetch_objects(
                limit=search.k - len(objects),
                filters=_beyond(after, where, whole=whole),
                sort=Sort.by_property("order"),
                include_vector=search.vectors,
                return_properties=[*asked.properties(shown), "order"],
            )
        # Not all of a page may come at once though more follow: see ``followed``.
        if whole and not answer.objects:
            break
        objects += filter(holds, answer.objects)
        after, whole = (_order(answer.objects[-1]) if answer.objects else after), True
    return Found(
        hits=tuple(asked.hit(each, shown, None, search) for each in objects),
        next=_order(objects[-1]) if len(objects) == search.k else None,
        generation=asked.place.generation,
    )


def _beyond(after: str | None, where: FilterReturn | None, *, whole: bool) -> FilterReturn | None:
    """Returns what a page goes on with; quickly, or the whole of it."""
    beyond = None if after is None else Filter.by_property("order").greater_than(after)
    if beyond is not None and where is not None:
        return both(beyond, where)
    alone = where if beyond is None else beyond
    return followed(alone) if whole and alone is not None else alone


def _order(found: Any) -> str:
    return str(found.properties["order"])


async def fetch(asked: Asked, search: Search, heads: Heads) -> Found:
    """Returns the chunks of rows.

    Args:
        asked: What is asked.
        search: How; names the rows by their keys.
        heads: Returns the heads that there are of rows.
    """
    ids = [document_id(asked.place.index, key) for key in search.keys]
    shown, holds = asked.shown(search.columns), asked.holding()
    objects = await _of_rows(asked, search, ids, asked.filter())
    if len(objects) == MOST_HITS:
        raise SearchInvalid(f"these rows have {MOST_HITS:,} chunks and more: ask for fewer of them")
    rows = _by_row(ids, objects)
    if left := _in_part(rows):
        # Most of them may not be seen, or are not there; the others are written just now.
        rows |= _by_row(left, await _of_rows(asked, search, left, None))
    if left := _in_part(rows):
        known = await heads(left)
        alive = [each for each in left if each in known and not known[each].deleted]
        rows |= await _looked_up(asked, alive)
    ordered = (
        chunk for each in rows.values() for chunk in sorted(each, key=_position) if holds(chunk)
    )
    return Found(
        hits=tuple(asked.hit(each, shown, None, search) for each in ordered),
        generation=asked.place.generation,
    )


async def _of_rows(
    asked: Asked, search: Search, rows: Sequence[str], where: FilterReturn | None
) -> list[Any]:
    """Returns the chunks of rows to which filters lead."""
    with reaching():
        answer = await asked.chunks.query.fetch_objects(
            limit=MOST_HITS,
            filters=both(Filter.by_property("document").contains_any(rows), where),
            include_vector=search.vectors,
            return_properties=[*asked.properties(asked.shown(search.columns)), "document"],
        )
    return answer.objects


def _by_row(rows: Iterable[str], objects: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {each: [] for each in rows}
    for each in objects:
        found[each.properties["document"]].append(each)
    return found


def _in_part(rows: Mapping[str, Sequence[Any]]) -> list[str]:
    """Returns the rows that are not there whole."""
    return [row for row, chunks in rows.items() if not _is_whole(chunks)]


async def _looked_up(asked: Asked, rows: Iterable[str]) -> dict[str, list[Any]]:
    """Returns the chunks of rows as their ids lead to them.

    No filter leads to a chunk in the moment in which it gets another vector.
    """

    async def found(row: str) -> tuple[str, list[Any]]:
        first = await stored(asked.chunks, chunk_id(row, 0))
        many = first.properties["chunks"] if first else 0
        rest = [await stored(asked.chunks, chunk_id(row, each)) for each in range(1, many)]
        return row, [each for each in (first, *rest) if each]

    return dict(await abreast(found, rows, AT_ONCE))


def _is_whole(chunks: Sequence[Any]) -> bool:
    return bool(chunks) and len(chunks) == chunks[0].properties["chunks"]


def _position(chunk: Any) -> int:
    return int(chunk.properties["position"])


Listed = list[tuple[Any, float | None]]


async def _sorted(asked: Asked, search: Search, ranking: Ranking) -> Ranked:
    orders = [(asked.column(each.column)[1], each.descending) for each in search.sort]
    found = await ranking.best(MOST_HITS, [name for name, _ in orders])
    good = _good(found, search)
    for name, descending in reversed(orders):
        good.sort(key=lambda each: each[0].properties.get(name) or "", reverse=descending)
    return await read(asked, search, good[search.offset : search.offset + search.k])


async def _listed(asked: Asked, search: Search, where: FilterReturn | None) -> Listed:
    sort: Any = None
    for each in search.sort:
        name = asked.column(each.column)[1]
        ascending = not each.descending
        sort = sort.by_property(name, ascending) if sort else Sort.by_property(name, ascending)
    with reaching():
        answer = await asked.chunks.query.fetch_objects(
            limit=search.k,
            offset=search.offset,
            filters=followed(where) if where else None,
            sort=sort or Sort.by_property("order"),
            include_vector=search.vectors,
            return_properties=asked.properties(asked.shown(search.columns)),
        )
    return [(each, None) for each in filter(asked.holding(), answer.objects)]


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
                limit=1, filters=followed(position.greater_than(0)), return_properties=["position"]
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


def _good(found: Ranked, search: Search) -> Ranked:
    least = search.score_threshold
    return [each for each in found if least is None or each[1] >= least]
