"""Writing to an index that has no source: rows as callers give them, each for itself.

A row's version is when it was asked for, so that what is sent again changes nothing and what was
asked for before never overwrites what was asked for later. Of two writes of one row that are under
way in two workers at the same moment, either may be last.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from infra import tokens
from infra.documents.content import RowInvalid, chunks_of, columns_of, inputs_of, texts_of
from infra.documents.texts import text_of
from infra.embedding import Embedder, TextsRefused
from infra.vectors import (
    Chunk,
    DimensionsWrong,
    Document,
    Place,
    PlaceUnknown,
    Vectors,
    VectorsUnreachable,
    document_id,
    supersedes,
)
from schemas.events import InferenceRouted
from schemas.indexes import IndexSpec
from schemas.search import Failure, Write, Written
from workers.indexes.keys import key_in, key_of
from workers.indexes.reading import TAG
from workers.indexes.refusals import told, unfit

VECTOR = "vector"
# Documents of which it is not known whether they were stored.
MOST_DOUBTFUL = 100_000


@dataclass(slots=True)
class Draft:
    """What is to become of the rows of one write.

    Attributes:
        documents: By id; a row that comes twice is as it came last.
        rows: How many rows are in each document.
        failed: Rows that cannot be written, and why.
        texts: What is to be embedded: document id and position of each.
    """

    documents: dict[str, Document] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: list[Failure] = field(default_factory=list)

    def take(self, document: Document) -> None:
        """Takes a document in."""
        self.documents[document.id] = document
        self.rows[document.id] += 1

    def fail(self, document_id: str, reason: str) -> None:
        """Notes that a document is not written."""
        failure = Failure(key=dict(self.documents.pop(document_id).key), reason=reason)
        self.failed += [failure] * self.rows.pop(document_id)

    def written(self) -> Written:
        """Returns what came of the rows."""
        count = sum(self.rows.values())
        status = "SUCCESS" if not self.failed else "PARTIAL" if count else "FAILURE"
        return Written(status=status, written=count, failed=tuple(self.failed))  # type: ignore[arg-type]


class Writing:
    """Writes rows.

    Args:
        vectors: The store.
        embedder: Embeds texts.
    """

    def __init__(self, vectors: Vectors, embedder: Embedder) -> None:
        self._vectors = vectors
        self._embedder = embedder
        # Versions are compared and stored by one write at a time.
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._doubtful: set[str] = set()

    async def write(
        self, place: Place, spec: IndexSpec, write: Write, routed: InferenceRouted
    ) -> tuple[Written, int]:
        """Returns what came of each row, and how many tokens were to be embedded.

        Raises:
            ProviderBroken: Replies can be heard no more.
            ProviderRefused: No row can be written; of some it may not be known.
        """
        if not spec.key_columns:
            raise unfit(f"{place.index} names no key_columns, by which rows are told apart")
        state = (version_of(routed), routed.routed_at)
        # Texts are cut here, which takes long for long ones.
        draft = await asyncio.to_thread(_drafted, place.index, spec, write, state)
        with told(place.index):
            read = await self._embed(draft, place.index, spec)
            async with self._locks[place.index]:
                await self._store(draft, place, spec)
        return draft.written(), read

    async def _embed(self, draft: Draft, index: str, spec: IndexSpec) -> int:
        """Puts vectors in where there are none; returns how many tokens that took."""
        wanted = [
            (each.id, chunk)
            for each in draft.documents.values()
            for chunk in each.chunks
            if not chunk.vector
        ]
        if not wanted:
            return 0
        if spec.endpoint is None:
            for each in {document for document, _ in wanted}:
                draft.fail(each, "the index has no embedding endpoint: give the row a vector")
            return 0
        texts = [chunk.text for _, chunk in wanted]
        try:
            vectors = await self._embedder.embed(
                spec.endpoint, spec.document_prefix, texts, spec.dimensions, tags={TAG: index}
            )
            found = dict(enumerate(vectors))
        except TextsRefused as some:
            found = dict(some.vectors)
            for at, refusal in some.refusals.items():
                if wanted[at][0] in draft.documents:
                    draft.fail(wanted[at][0], f"{refusal.reason}: {refusal.message}")
        ready: dict[str, dict[int, Chunk]] = defaultdict(dict)
        for at, vector in found.items():
            document, chunk = wanted[at]
            ready[document][chunk.position] = replace(chunk, vector=vector)
        for document in ready.keys() & draft.documents.keys():
            chunks = tuple(chunk for _, chunk in sorted(ready[document].items()))
            draft.documents[document] = replace(draft.documents[document], chunks=chunks)
        return await asyncio.to_thread(tokens.count, "\n".join(texts))

    async def _store(self, draft: Draft, place: Place, spec: IndexSpec) -> None:
        """Stores what is newer than what is there."""
        await self._ensure(draft, place, spec)
        try:
            heads = await self._vectors.heads(place, draft.documents)
        except PlaceUnknown:
            return  # There is nothing yet that could be deleted.
        newer = [
            each
            for each in draft.documents.values()
            if supersedes(each.version, heads.get(each.id), "")
        ]
        ids = {each.id for each in newer}
        again = not self._doubtful.isdisjoint(ids)
        try:
            failed = await self._vectors.store(place, newer, again=again)
        except VectorsUnreachable:
            if len(self._doubtful) < MOST_DOUBTFUL:
                self._doubtful |= ids
            raise
        self._doubtful -= ids
        for document, reason in failed.items():
            draft.fail(document, reason)

    async def _ensure(self, draft: Draft, place: Place, spec: IndexSpec) -> None:
        vectors = (chunk.vector for each in draft.documents.values() for chunk in each.chunks)
        dimensions = spec.dimensions or len(next(vectors, ()))
        if not dimensions or not any(each.chunks for each in draft.documents.values()):
            return
        try:
            await self._vectors.ensure(place, spec, dimensions)
        except DimensionsWrong as wrong:
            if spec.dimensions is not None:
                raise unfit(f"{place.index}: {wrong}") from None
            # The place is there, and the store tells which rows do not fit it.


def version_of(routed: InferenceRouted) -> str:
    """Returns the version of what a request writes.

    Nobody writes in the future, by whatever clock; of the same millisecond, ids decide.
    """
    moment = min(routed.request.requested_at, routed.routed_at)
    named = routed.decision_id or routed.request.request_id
    return f"{_milliseconds(moment):020d}.{0:020d}.{named}"


def _drafted(index: str, spec: IndexSpec, write: Write, state: tuple[str, datetime]) -> Draft:
    """Returns what is to become of rows, given their version and when that was."""
    draft = Draft()
    if write.operation == "delete":
        for key in write.keys:
            _draft_delete(draft, index, spec, key, state[0])
    else:
        for row in write.rows:
            _draft_upsert(draft, index, spec, row, state)
    return draft


def _draft_delete(
    draft: Draft, index: str, spec: IndexSpec, key: Mapping[str, Any], version: str
) -> None:
    try:
        found = key_of(key, spec)
    except RowInvalid as problem:
        draft.failed.append(Failure(key=dict(key), reason=str(problem)))
        return
    draft.take(Document(id=document_id(index, found), key=found, version=version, deleted=True))


def _draft_upsert(
    draft: Draft,
    index: str,
    spec: IndexSpec,
    row: Mapping[str, Any],
    state: tuple[str, datetime],
) -> None:
    version, moment = state
    try:
        _require_known(spec, row)
        key = key_in(row, spec)
        document = Document(
            id=document_id(index, key),
            key=key,
            version=version,
            columns=columns_of(spec, row),
            inputs=inputs_of(spec, row),
            chunks=_chunks(spec, row),
            committed_at=_milliseconds(moment),
        )
    except RowInvalid as problem:
        key = {name: row[name] for name in spec.key_columns if name in row}
        draft.failed.append(Failure(key=key, reason=str(problem)))
        return
    draft.take(document)


def _require_known(spec: IndexSpec, row: Mapping[str, Any]) -> None:
    known = {*spec.key_columns, *texts_of(spec), *(each.name for each in spec.columns), VECTOR}
    if unknown := sorted(row.keys() - known):
        raise RowInvalid(
            f'column "{unknown[0]}" is none of the index: it is no key, not in its text, not kept'
        )


def _chunks(spec: IndexSpec, row: Mapping[str, Any]) -> tuple[Chunk, ...]:
    """Returns the chunks of a row; one that has a vector already is one chunk.

    Raises:
        RowInvalid: The row has neither text nor vector, or its vector is none.
    """
    chunks = chunks_of(spec, row)
    if row.get(VECTOR) is None:
        if not chunks:
            raise RowInvalid("there is nothing to embed: the row has neither text nor vector")
        return chunks
    vector = _vector(row[VECTOR])
    text = text_of(spec.text, row) if spec.text else ""
    digest = sha256(json.dumps([text, vector]).encode()).hexdigest()
    return (Chunk(position=0, text=text, digest=digest, vector=vector),)


def _vector(given: object) -> tuple[float, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise RowInvalid('"vector" takes a list of numbers')
    for each in given:
        if isinstance(each, bool) or not isinstance(each, int | float) or not math.isfinite(each):
            raise RowInvalid('"vector" takes a list of numbers')
    return tuple(map(float, given))


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
