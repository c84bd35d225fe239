"""Searching an index as somebody may: the query's vector, all conditions, masks, and ranking."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import structlog

from infra.conditions import And, Condition, FilterInvalid, Or, parse
from infra.conditions.tree import joined
from infra.documents.content import RowInvalid
from infra.embedding import Embedder
from infra.vectors import DimensionsWrong, Place, PlaceUnknown, Vectors
from schemas.indexes import IndexSpec
from schemas.search import Access, Found, Search
from workers.indexes.keys import key_of, types_of
from workers.indexes.masks import MaskHides, check, masked
from workers.indexes.ranking import Ranker
from workers.indexes.refusals import invalid, told, unfit

log = structlog.get_logger()

# Of what is embedded for a search, for cost and limits.
TAG = "index"


class Question(NamedTuple):
    """What is asked of an index, by somebody who may see some of it.

    Attributes:
        place: The generation that queries see.
        spec: The index.
        search: How it is asked.
        query: What for.
        access: What may be seen.
        deadline: Until when an answer is of use.
    """

    place: Place
    spec: IndexSpec
    search: Search
    query: str
    access: Access
    deadline: datetime


class Reading:
    """Answers searches.

    Args:
        vectors: The store.
        embedder: Embeds queries.
        ranker: Ranks hits anew.
    """

    def __init__(self, vectors: Vectors, embedder: Embedder, ranker: Ranker) -> None:
        self._vectors = vectors
        self._embedder = embedder
        self._ranker = ranker

    async def find(self, question: Question) -> Found:
        """Returns what is found.

        Raises:
            ProviderBroken: Replies can be heard no more.
            ProviderRefused: It cannot be answered.
        """
        place, spec, search, _, access, _ = question
        empty = Found(generation=place.generation)
        with told(place.index):
            filters = parse(search.filters, types_of(spec))
            _require_asked_well(search)
            try:
                check(search, filters, spec, access.masks)
                if () in access.where:
                    return empty
                where = _all(filters, _seen(question))
                found = masked(await self._found(question, where), spec, access.masks)
            except MaskHides as hidden:
                raise invalid(f"search.{hidden}") from None
            except PlaceUnknown:
                if spec.source is None:
                    return empty  # Nobody has written to it yet.
                raise
            return await self._ranker.ranked(found, question) if search.rerank else found

    async def _found(self, question: Question, where: Condition | None) -> Found:
        place, spec, search = question.place, question.spec, question.search
        if search.operation == "scan":
            return await self._vectors.scan(place, spec, search, where=where)
        if search.operation == "fetch":
            search = _with_keys(search, spec)
            return await self._vectors.fetch(place, spec, search, where=where)
        if search.rerank:
            search = search.model_copy(update={"k": search.rerank.top, "offset": 0})
        vector = search.vector
        if vector is None and search.mode != "full_text":
            vector = await self._embedded(question)
        try:
            return await self._vectors.search(
                place, spec, search, query=question.query, vector=vector, where=where
            )
        except DimensionsWrong as wrong:
            if search.vector is not None:
                raise
            raise unfit(
                f"{spec.endpoint} does not embed as it did when {place.index} was built: {wrong}; "
                "raise the index's generation to build it anew"
            ) from None

    async def _embedded(self, question: Question) -> tuple[float, ...]:
        spec, index = question.spec, question.place.index
        if spec.endpoint is None:
            raise invalid(
                f"{index} has no embedding endpoint: give a vector, or search with mode full_text"
            )
        [vector] = await self._embedder.embed(
            spec.endpoint, spec.query_prefix, [question.query], tags={TAG: index}
        )
        return vector


def _with_keys(search: Search, spec: IndexSpec) -> Search:
    """Returns a fetch with its keys in the types in which they were written."""
    if spec.source is not None:
        return search
    keys = []
    for at, given in enumerate(search.keys):
        try:
            keys.append(key_of(given, spec))
        except RowInvalid as problem:
            raise invalid(f"search.keys[{at}]: {problem}") from None
    return search.model_copy(update={"keys": tuple(keys)})


def _require_asked_well(search: Search) -> None:
    if search.rerank is None:
        return
    if search.operation != "search" or search.sort:
        raise invalid("search.rerank: only hits of a search by score are ranked anew")
    if search.k + search.offset > search.rerank.top:
        raise invalid(
            f"search.rerank.top: it reads {search.rerank.top} hits, and k and offset reach for "
            f"{search.k + search.offset}: raise top, or ask for fewer"
        )


def _seen(question: Question) -> Iterable[Condition]:
    """Yields what rows must satisfy to be seen.

    Raises:
        ProviderRefused: A row filter cannot be applied, so nothing may be shown.
    """
    types = types_of(question.spec)
    for group in question.access.where:
        try:
            parts = [parse(each, types) for each in group]
        except FilterInvalid as problem:
            log.warning("row filter invalid", index=question.place.index, error=str(problem))
            raise _unapplied(question) from None
        readable = [each for each in parts if each is not None]
        if len(readable) < len(parts):
            raise _unapplied(question)
        yield joined(Or, readable)


def _unapplied(question: Question) -> Exception:
    index, source = question.place.index, question.spec.source
    of_table = f" or of its table {source}" if source else ""
    return unfit(
        f"a row filter of {index}{of_table} cannot be applied, so nothing of it is shown: its "
        "owner must keep all columns in the index that row filters name"
    )


def _all(filters: Condition | None, seen: Iterable[Condition]) -> Condition | None:
    parts = [*([] if filters is None else [filters]), *seen]
    return joined(And, parts) if parts else None
