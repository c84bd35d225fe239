"""What is found by score, best first: by vector, by words, or by both.

Of what has the same score, what comes first is told by ids, and the same is found whatever page is
asked for. Weaviate itself finds any of it, another time others.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import mul
from typing import Any

from weaviate.classes.query import MetadataQuery
from weaviate.collections.classes.filters import FilterReturn

from infra.vectors.asking import Asked
from infra.vectors.connection import reaching
from infra.vectors.errors import SearchInvalid
from schemas.search import MOST_HITS, Search

TIERS = (100, 1_000, MOST_HITS)
STEEPEST = 700.0
# Distances that differ by less are of the same object.
ALIKE = 1e-3

# Objects with their scores, or with what else is the greater the better.
Ranked = list[tuple[Any, float]]
# A limit and further options to so many of the best, in any order.
Leg = Callable[..., Awaitable[Ranked]]

# Of Weaviate's distances; that of dot is the product's negative.
SCORES: dict[str, Callable[[float], float]] = {
    "cosine": lambda distance: 1 - distance / 2,
    "dot": lambda distance: 1 / (1 + math.exp(min(distance, STEEPEST))),
    "l2": lambda distance: 1 / (1 + distance),
}
DISTANCES: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "cosine": lambda one, other: (
        1 - _product(one, other) / ((math.hypot(*one) * math.hypot(*other)) or 1)
    ),
    "dot": lambda one, other: -_product(one, other),
    "l2": lambda one, other: math.dist(one, other) ** 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Ranks chunks for a search.

    Attributes:
        asked: What is asked.
        search: How.
        words: What is looked for; empty for nothing.
        vector: What is near; None for nothing.
        where: The store's filter for what holds.
    """

    asked: Asked
    search: Search
    words: str
    vector: Sequence[float] | None
    where: FilterReturn | None

    def check(self) -> None:
        """Returns if there is what the search's mode needs.

        Raises:
            SearchInvalid: There is not.
        """
        mode = self.search.mode
        if mode != "full_text" and self.vector is None:
            raise SearchInvalid(f"a {mode} search takes a vector, and the index has none for it")
        if mode != "vector" and not self.words:
            raise SearchInvalid(f"a {mode} search takes words to look for")

    async def page(self) -> Ranked:
        """Returns the hits from the search's offset on, whole."""
        search, asked = self.search, self.asked
        if search.offset == 0 and search.mode != "hybrid":
            reach = min(search.k + 1, MOST_HITS)
            properties = asked.properties(asked.shown(search.columns))
            found = _ordered(await self._leg(reach, properties, vectors=search.vectors))
            if _is_settled(found, search.k, reach):
                holds = asked.holding()
                return self._scored((each for each in found if holds(each[0])), search.k)
        best = await self.best(search.offset + search.k, [])
        return await read(asked, search, best[search.offset :])

    async def best(self, limit: int, properties: Sequence[str]) -> Ranked:
        """Returns the best chunks with some of their properties, whether or not they still hold."""
        if self.search.mode == "hybrid":
            return (await self._both(limit, properties))[:limit]
        return self._scored(await _top(partial(self._leg, properties=properties), limit), limit)

    @property
    def _leg(self) -> Leg:
        return self._by_vector if self.search.mode == "vector" else self._by_words

    def _scored(self, found: Iterable[tuple[Any, float]], limit: int) -> Ranked:
        ranked = list(found)[:limit]
        if self.search.mode == "full_text":
            return [(each, score / (1 + score)) for each, score in ranked]
        score = SCORES[self.asked.layout.distance]
        return [(each, min(max(score(-near), 0.0), 1.0)) for each, near in ranked]

    async def _both(self, limit: int, properties: Sequence[str]) -> Ranked:
        """Returns all that is considered: it decides on scores, and is the same for near pages."""
        tier = next(tier for tier in TIERS if tier >= limit)
        alpha = self.search.alpha
        legs = [(self._by_words, 1 - alpha), (self._by_vector, alpha)]
        found = await asyncio.gather(*(leg(tier, properties) for leg, weight in legs if weight))
        return fused(zip(found, (weight for _, weight in legs if weight), strict=True))

    async def _by_words(
        self, limit: int, properties: Sequence[str], *, vectors: bool = False
    ) -> Ranked:
        """Returns chunks with their BM25 scores."""
        ask = partial(
            self._found,
            self.asked.chunks.query.bm25,
            properties,
            vectors=vectors,
            query=self.words,
            query_properties=["text"],
            return_metadata=MetadataQuery(score=True),
        )
        found = await ask(limit)
        if len(found) < limit:
            found = await _filled(ask, limit, len(found))
        return [(each, each.metadata.score) for each in found]

    async def _by_vector(
        self, limit: int, properties: Sequence[str], *, vectors: bool = False
    ) -> Ranked:
        """Returns chunks with the negatives of their distances."""
        vector = list(self.vector or ())
        ask = partial(
            self._found,
            self.asked.chunks.query.near_vector,
            properties,
            near_vector=vector,
            return_metadata=MetadataQuery(distance=True),
        )
        found = await ask(limit, vectors=vectors)
        if len(found) == limit:
            return [(each, -each.metadata.distance) for each in found]
        found = await _filled(partial(ask, vectors=True), limit, len(found))
        return [(each, -far) for each, far in _distances(found, vector, self.asked.layout.distance)]

    async def _found(
        self,
        way: Callable[..., Awaitable[Any]],
        properties: Sequence[str],
        limit: int,
        *,
        vectors: bool,
        **how: Any,
    ) -> list[Any]:
        with reaching():
            answer = await way(
                limit=limit,
                filters=self.where,
                include_vector=vectors,
                return_properties=list(properties) or False,
                **how,
            )
        return list(answer.objects)


def fused(legs: Iterable[tuple[Ranked, float]]) -> Ranked:
    """Returns what any leg has found, in order: each leg from 0 to 1, weighed, together."""
    scores: dict[Any, float] = defaultdict(float)
    objects: dict[Any, Any] = {}
    for found, weight in legs:
        worst = min((score for _, score in found), default=0.0)
        range_ = max((score for _, score in found), default=0.0) - worst
        for each, score in found:
            scores[each.uuid] += weight * ((score - worst) / range_ if range_ else 1.0)
            objects[each.uuid] = each
    return _ordered((objects[name], min(score, 1.0)) for name, score in scores.items())


async def read(asked: Asked, search: Search, page: Ranked) -> Ranked:
    """Returns the chunks of a page whole, save those that hold no more."""
    ids = [each.uuid for each, _ in page]
    if not ids:
        return []
    with reaching():
        answer = await asked.chunks.query.fetch_objects_by_ids(
            ids,
            limit=len(ids),
            include_vector=search.vectors,
            return_properties=asked.properties(asked.shown(search.columns)),
        )
    whole = {each.uuid: each for each in filter(asked.holding(), answer.objects)}
    return [(whole[each.uuid], score) for each, score in page if each.uuid in whole]


async def _top(leg: Leg, limit: int) -> Ranked:
    """Returns the best of a leg in order, the same whatever the limit."""
    reach = min(limit + 1, MOST_HITS)
    while True:
        found = _ordered(await leg(reach))
        if reach == MOST_HITS or _is_settled(found, limit, reach):
            return found[:limit]
        reach = next(tier for tier in TIERS if tier > reach)


async def _filled(ask: Callable[[int], Awaitable[list[Any]]], limit: int, known: int) -> list[Any]:
    """Returns as many of the best as are wanted, if there are.

    Weaviate passes over what its index leads to and is not there, since it is written just now or
    a crash has lost it, and gives fewer then though more would follow.

    Args:
        ask: For so many.
        limit: How many are wanted.
        known: How many there were when so many were asked for.
    """
    reach = limit
    while True:
        reach = min(2 * reach, MOST_HITS)
        found = await ask(reach)
        if len(found) >= limit or len(found) <= known or reach == MOST_HITS:
            return found[:limit]
        known = len(found)


def _distances(found: Sequence[Any], vector: Sequence[float], kind: str) -> list[tuple[Any, float]]:
    """Returns how far objects are: as Weaviate tells, unless it tells that of others.

    What it passes over, it leaves in its list of distances, so that those behind are shifted.
    """
    told = [each.metadata.distance for each in found]
    own = [DISTANCES[kind](vector, each.vector["default"]) for each in found]
    sound = all(
        math.isclose(one, other, rel_tol=ALIKE, abs_tol=ALIKE)
        for one, other in zip(told, own, strict=True)
    )
    return list(zip(found, told if sound else own, strict=True))


def _is_settled(found: Ranked, limit: int, reach: int) -> bool:
    """Returns whether what is next to the best is worse, or nothing."""
    return len(found) < reach or found[limit - 1][1] > found[-1][1]


def _ordered(found: Iterable[tuple[Any, float]]) -> Ranked:
    return sorted(found, key=lambda each: (-each[1], each[0].uuid))


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return float(sum(map(mul, one, other)))
