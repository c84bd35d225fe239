"""Changes of rows become documents in the store: guarded, filled in, cut, embedded, stored.

Knows neither Kafka nor who calls; doing it twice does no harm. What cannot be stored comes back
with the reason, and the rest is stored.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from infra.changes.folding import fold
from infra.changes.rows import Change, Op
from infra.embedding import TextsRefused, Vector
from infra.vectors import Chunk, Document, Head, Place, document_id
from schemas.indexes import IndexSpec
from streams.index.documents import RowInvalid, document_of

T = TypeVar("T")

# Texts are embedded in their order; may raise ``TextsRefused``.
Embed = Callable[[Sequence[str]], Awaitable[Sequence[Vector]]]


class Store(Protocol):
    """What is asked of the vector store; see ``infra.vectors.Vectors``."""

    async def floor(self, place: Place) -> str:
        """Returns the version of the last truncation."""

    async def heads(self, place: Place, ids: Iterable[str]) -> Mapping[str, Head]:
        """Returns what is stored of documents."""

    async def store(
        self, place: Place, documents: Sequence[Document], *, again: bool = False
    ) -> Mapping[str, str]:
        """Stores documents; returns why some were not."""

    async def truncate(self, place: Place, version: str) -> None:
        """Removes what is not newer."""


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """A change, and who told of it.

    Attributes:
        change: The change.
        by: Comes back if the change cannot be stored.
        again: Whether it was stored before, and is to be stored once more if it still holds.
    """

    change: Change
    by: T
    again: bool = False


@dataclass(frozen=True, slots=True)
class Failed(Generic[T]):
    """A change that cannot be stored, and why; quotes nothing of it."""

    by: T
    reason: str


@dataclass(frozen=True, slots=True)
class _State(Generic[T]):
    document: Document
    by: T
    again: bool


class Indexing(Generic[T]):
    """Keeps one place.

    Args:
        place: Where documents go.
        spec: How rows become documents.
        store: The vector store.
        embed: Embeds texts, with the prefix of documents.
    """

    def __init__(self, place: Place, spec: IndexSpec, store: Store, embed: Embed) -> None:
        self._place = place
        self._spec = spec
        self._store = store
        self._embed = embed

    async def prepare(self, told: Sequence[Told[T]]) -> Mapping[str, Vector]:
        """Returns vectors that storing some changes will take, by text; what fails is left out."""
        last = {
            document_id(self._place.index, each.change.key): each.change
            for each in told
            if each.change.op is Op.UPSERT
        }
        texts: dict[str, None] = {}
        for change in last.values():
            # Which text it is, is not known yet.
            if change.unavailable:
                continue
            try:
                chunks = document_of(self._place.index, self._spec, change).chunks
            except RowInvalid:
                continue
            texts.update(dict.fromkeys(each.text for each in chunks))
            await asyncio.sleep(0)
        if not texts:
            return {}
        try:
            return dict(zip(texts, await self._embed(list(texts)), strict=True))
        except TextsRefused as refused:
            known = list(texts)
            return {known[at]: vector for at, vector in refused.vectors.items()}

    async def take(
        self,
        told: Sequence[Told[T]],
        vectors: Mapping[str, Vector] | None = None,
        *,
        again: bool = False,
    ) -> list[Failed[T]]:
        """Stores what changes come to; returns those that cannot be stored.

        Args:
            told: Changes; those of one row in the order of their partition.
            vectors: Vectors that are known, by text.
            again: Whether it is not known what of them is stored already.

        Raises:
            VectorsUnreachable: What of them is stored is not known: repeat it with ``again``.
            Exception: What the store or the endpoint raise else: nothing was stored.
        """
        floor = await self._truncated(told)
        rows: defaultdict[str, list[Told[T]]] = defaultdict(list)
        for each in told:
            if each.change.op is not Op.TRUNCATE:
                rows[document_id(self._place.index, each.change.key)].append(each)
        heads = await self._store.heads(self._place, list(rows)) if rows else {}
        failed: list[Failed[T]] = []
        states: list[_State[T]] = []
        for name, changes in rows.items():
            repeated = again or any(each.again for each in changes)
            states += self._state(changes, heads.get(name), floor, failed, again=repeated)
            await asyncio.sleep(0)
        states = await self._embedded(states, vectors or {}, failed)
        for repeated in (False, True):
            failed += await self._stored(
                [each for each in states if each.again is repeated], again=repeated
            )
        # Whoever read the truncation meanwhile may have done so before this was stored.
        if states and (now := await self._store.floor(self._place)) > floor:
            await self._store.truncate(self._place, now)
        return failed

    async def _truncated(self, told: Iterable[Told[T]]) -> str:
        """Truncates if a change says so; returns the floor."""
        floor = await self._store.floor(self._place)
        wanted = [each for each in told if each.change.op is Op.TRUNCATE]
        newest = max((each.change.version for each in wanted), default="")
        # Once more for one that comes again: the first time may have ended half-way.
        if newest and newest >= floor:
            await self._store.truncate(self._place, newest)
        return max(floor, newest)

    def _state(
        self,
        told: Sequence[Told[T]],
        head: Head | None,
        floor: str,
        failed: list[Failed[T]],
        *,
        again: bool,
    ) -> list[_State[T]]:
        """Returns the last state of a row that can be stored, if there is one."""
        states = fold([each.change for each in told], head, floor, again=again)
        for at, change in reversed(states):
            try:
                document = document_of(self._place.index, self._spec, change)
            except RowInvalid as invalid:
                failed.append(Failed(told[at].by, str(invalid)))
            else:
                return [_State(document, told[at].by, again)]
        return []

    async def _embedded(
        self,
        states: Sequence[_State[T]],
        known: Mapping[str, Vector],
        failed: list[Failed[T]],
    ) -> list[_State[T]]:
        """Returns states whose chunks have their vectors."""
        texts = dict.fromkeys(each.text for state in states for each in state.document.chunks)
        missing = [text for text in texts if text not in known]
        vectors, refusals = dict(known), {}
        if missing:
            try:
                vectors |= zip(missing, await self._embed(missing), strict=True)
            except TextsRefused as refused:
                vectors |= {missing[at]: vector for at, vector in refused.vectors.items()}
                refusals = {missing[at]: each.reason for at, each in refused.refusals.items()}
        embedded = []
        for state in states:
            chunks = state.document.chunks
            if reasons := sorted({refusals[each.text] for each in chunks if each.text in refusals}):
                reason = f"the endpoint {self._spec.endpoint} refuses a text: {', '.join(reasons)}"
                failed.append(Failed(state.by, reason))
                continue
            whole = tuple(_with(each, vectors[each.text]) for each in chunks)
            embedded.append(replace(state, document=replace(state.document, chunks=whole)))
        return embedded

    async def _stored(self, states: Sequence[_State[T]], *, again: bool) -> list[Failed[T]]:
        if not states:
            return []
        documents = [each.document for each in states]
        reasons = await self._store.store(self._place, documents, again=again)
        return [
            Failed(each.by, reasons[each.document.id])
            for each in states
            if each.document.id in reasons
        ]


def _with(chunk: Chunk, vector: Vector) -> Chunk:
    return replace(chunk, vector=vector)
