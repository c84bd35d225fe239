"""``Vectors``: the store, opened, and what may be asked of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from weaviate import WeaviateAsyncClient
from weaviate.classes.aggregate import Metrics
from weaviate.classes.query import Filter
from weaviate.collections.classes.filters import FilterReturn
from weaviate.exceptions import UnexpectedStatusCodeError

from infra.conditions import Condition
from infra.settings import VectorSettings
from infra.vectors import graph, layout, searching
from infra.vectors.asking import Asked
from infra.vectors.connection import connected, reaching
from infra.vectors.documents import Document, Head, Place, Vector
from infra.vectors.errors import DimensionsWrong, VectorsRefused
from infra.vectors.layout import Layout
from infra.vectors.objects import (
    FLOOR_ID,
    MOST_OBJECTS,
    Object,
    Unfit,
    floats,
    floor_object,
    head_of,
    objects_of,
)
from infra.vectors.writing import Collection, delete, insert, remove, remove_each
from schemas.indexes import IndexSpec
from schemas.search import Found, Search

EXISTS = 422
# A document, its head and its chunks as objects.
Sound = tuple[Document, Object, list[Object]]


@dataclass(frozen=True, slots=True)
class Counted:
    """How much a place holds: documents that are not deleted, and chunks."""

    rows: int
    chunks: int


class Vectors:
    """The vector store.

    Every call may raise ``VectorsUnreachable``, none tries again by itself. A call about a place
    raises ``PlaceUnknown`` where that does not exist.
    """

    def __init__(self, client: WeaviateAsyncClient) -> None:
        self._client = client
        self._layouts: dict[Place, Layout] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: VectorSettings) -> AsyncIterator[Vectors]:
        """Connects for as long as the block lasts.

        Raises:
            SecretUnavailable: The key's reference leads nowhere.
            VectorsRefused: The key is not the store's.
            VectorsUnreachable: Nobody answers.
        """
        async with connected(settings) as client:
            yield cls(client)

    async def ensure(self, place: Place, spec: IndexSpec, dimensions: int) -> None:
        """Makes what a place needs, where it is missing; also columns that came later.

        Args:
            place: Where.
            spec: The index: its columns, and how its vectors are compared.
            dimensions: Length of a vector.

        Raises:
            DimensionsWrong: It exists with vectors of another length.
            VectorsRefused: It exists and compares vectors in another way.
        """
        for wanted in (layout.chunks(place, spec, dimensions), layout.heads(place, dimensions)):
            await self._create(wanted)
        found = await self._layout(place, fresh=True)
        if found.dimensions != dimensions:
            raise DimensionsWrong(
                f"vectors have {dimensions} dimensions, and those of the index "
                f"{found.dimensions}: raise its generation"
            )
        if found.distance != spec.distance:
            raise VectorsRefused(
                f"vectors are compared by {found.distance}, and {spec.distance} is wanted: "
                "raise the generation of the index"
            )
        await self._add_columns(place, spec)
        await graph.finish(
            self._collection(layout.chunks_of(place)), self._collection(layout.heads_of(place))
        )

    async def drop(self, place: Place) -> None:
        """Removes a place with all that it holds; one that does not exist is no error."""
        self._layouts.pop(place, None)
        with reaching():
            # Heads last: they name the place until all is gone.
            await self._client.collections.delete(layout.chunks_of(place))
            await self._client.collections.delete(layout.heads_of(place))

    async def places(self) -> frozenset[Place]:
        """Returns all places that exist, also those that are made or removed only in part."""
        with reaching():
            found = await self._client.collections.list_all(simple=True)
        known = (layout.read(each.description) for each in found.values())
        return frozenset(each[0] for each in known if each)

    async def heads(self, place: Place, ids: Iterable[str]) -> dict[str, Head]:
        """Returns the heads that there are, by document id."""
        wanted = list(ids)
        collection = self._collection(layout.heads_of(place))
        found: dict[str, Head] = {}
        for start in range(0, len(wanted), MOST_OBJECTS):
            part = wanted[start : start + MOST_OBJECTS]
            with reaching():
                answer = await collection.query.fetch_objects_by_ids(part, limit=len(part))
            found |= {str(each.uuid): head_of(each.properties) for each in answer.objects}
        return found

    async def floor(self, place: Place) -> str:
        """Returns the version of the last truncation, empty without one."""
        collection = self._collection(layout.heads_of(place))
        with reaching():
            answer = await collection.query.fetch_objects_by_ids([FLOOR_ID])
        return str(answer.objects[0].properties["floor"]) if answer.objects else ""

    async def store(
        self, place: Place, documents: Sequence[Document], *, again: bool = False
    ) -> Mapping[str, str]:
        """Stores one batch: chunks first, heads last. No version is compared: see ``supersedes``.

        Args:
            place: Where.
            documents: Each id at most once.
            again: Whether what is stored is deleted before it is inserted: after a crash, it may be
                in no index, and what is the same is passed over otherwise.

        Returns:
            Why a document was not stored, by its id. It keeps the head that it had, and its chunks
            unless the store itself refused some; with ``again``, it has neither in that case.

        Raises:
            ValueError: An id occurs twice.
            VectorsUnreachable: What of the batch is stored is not known: repeat it with ``again``.
        """
        if len({document.id for document in documents}) < len(documents):
            raise ValueError("a document occurs twice in a batch: keep its last state alone")
        made = await self._layout_for(place, documents)
        chunks = self._collection(layout.chunks_of(place))
        sound, failed = _sound(documents, made)
        heads = self._collection(layout.heads_of(place))
        if again:
            await _delete_all(chunks, heads, sound)
        failed |= await _insert_chunks(chunks, sound)
        sound = [each for each in sound if each[0].id not in failed]
        if not again:
            failed |= await _delete_surplus(chunks, [document for document, _, _ in sound])
        kept = (head for document, head, _ in sound if document.id not in failed)
        return failed | await insert(heads, kept)

    async def truncate(self, place: Place, version: str) -> None:
        """Removes every document that is not newer, and sets the floor; it never goes down.

        Whoever stores at the same time and has not seen the floor may store what is older: call
        this again when they have.
        """
        heads = self._collection(layout.heads_of(place))
        chunks = self._collection(layout.chunks_of(place))
        if version > await self.floor(place) and await insert(heads, [floor_object(version)]):
            raise VectorsRefused("the floor could not be written; the store's log may say why")
        older = Filter.by_property("version").less_or_equal(version)
        await remove(chunks, older)
        await remove(heads, older)

    async def count(self, place: Place) -> Counted:
        """Returns how much there is."""
        heads = self._collection(layout.heads_of(place))
        chunks = self._collection(layout.chunks_of(place))
        # What satisfies a filter is looked at one by one, all that there is counted at once.
        return Counted(
            rows=max(0, await _total(heads) - await _gone(heads)), chunks=await _total(chunks)
        )

    async def search(
        self,
        place: Place,
        spec: IndexSpec,
        search: Search,
        *,
        query: str,
        vector: Vector | None,
        where: Condition | None,
    ) -> Found:
        """Returns the chunks that a search finds; see ``searching`` for how they are scored.

        Args:
            place: Where.
            spec: The index, with the columns that conditions and the search may name.
            search: How; its own filters are not read.
            query: What words are looked for.
            vector: What is near; None for words alone, or to list what satisfies ``where``.
            where: All that holds: what the caller filters by and what it may see.

        Raises:
            DimensionsWrong: The vector is not as long as those of the index.
            SearchInvalid: It cannot be answered; the message says what to ask instead.
        """
        made = await self._layout(place)
        if vector is not None and len(floats(vector)) != made.dimensions:
            raise DimensionsWrong(
                f"the vector has {len(floats(vector))} dimensions, and those of the index "
                f"{made.dimensions}"
            )
        asked = self._asked(place, spec, made, where)
        return await searching.search(asked, search, query, vector and floats(vector))

    async def scan(
        self, place: Place, spec: IndexSpec, search: Search, *, where: Condition | None
    ) -> Found:
        """Returns ``search.k`` chunks in the order of their keys and positions, and where to go on.

        What is written meanwhile moves nothing else: each chunk that is there from the first page
        to the last is on one of them. Only one that gets another vector in the moment in which its
        page is read may be on none; ``fetch`` finds that too.

        Raises:
            SearchInvalid: ``after`` is of no page, or a column is not kept.
        """
        asked = self._asked(place, spec, await self._layout(place), where)
        return await searching.scan(asked, search)

    async def fetch(
        self, place: Place, spec: IndexSpec, search: Search, *, where: Condition | None
    ) -> Found:
        """Returns all chunks of the rows with ``search.keys``, in that order, by position.

        Raises:
            SearchInvalid: They are too many for one answer, or a column is not kept.
        """
        asked = self._asked(place, spec, await self._layout(place), where)
        return await searching.fetch(asked, search, partial(self.heads, place))

    async def unreachable(self, place: Place, sample: int | None = None) -> tuple[str, ...]:
        """Returns ids of stored chunks that a search by their own vector does not find.

        Args:
            place: Where.
            sample: About how many chunks are tried, drawn by chance; all if left out.
        """
        return await graph.unreachable(self._collection(layout.chunks_of(place)), sample)

    async def repair(self, place: Place, ids: Iterable[str]) -> None:
        """Deletes chunks and inserts them again as they are, which puts them into the graph.

        Chunks that their documents have no more, as a crash may leave them, are deleted alone.
        Nobody may store these documents meanwhile.

        Raises:
            VectorsRefused: One could not be inserted: store its document again.
        """
        chunks = self._collection(layout.chunks_of(place))
        await graph.repair(chunks, self._collection(layout.heads_of(place)), ids)

    def _collection(self, name: str) -> Collection:
        return self._client.collections.use(name)

    def _asked(self, place: Place, spec: IndexSpec, made: Layout, where: Condition | None) -> Asked:
        chunks = self._collection(layout.chunks_of(place))
        return Asked(place=place, spec=spec, layout=made, chunks=chunks, where=where)

    async def _create(self, wanted: dict[str, Any]) -> None:
        with reaching():
            if await self._client.collections.exists(wanted["name"]):
                return
            try:
                await self._client.collections.create(**wanted)
            except UnexpectedStatusCodeError as error:
                # Another process may have been as fast.
                if error.status_code != EXISTS or "already exists" not in str(error):
                    raise

    async def _add_columns(self, place: Place, spec: IndexSpec) -> None:
        collection = self._collection(layout.chunks_of(place))
        with reaching():
            known = {each.name for each in (await collection.config.get()).properties}
            lacking = [each for each in layout.columns(spec) if each.name not in known]
            for each in lacking:
                await collection.config.add_property(each)
        if lacking:
            await self._layout(place, fresh=True)

    async def _layout(self, place: Place, *, fresh: bool = False) -> Layout:
        if fresh or place not in self._layouts:
            with reaching():
                config = await self._collection(layout.chunks_of(place)).config.get()
            self._layouts[place] = layout.layout_of(config)
        return self._layouts[place]

    async def _layout_for(self, place: Place, documents: Iterable[Document]) -> Layout:
        """Returns the layout; asked for anew where documents have columns that it lacks."""
        made = await self._layout(place)
        new = any(document.columns.keys() - made.kinds.keys() for document in documents)
        return await self._layout(place, fresh=True) if new else made


async def _total(collection: Collection) -> int:
    with reaching():
        answer = await collection.aggregate.over_all(total_count=True)
    return answer.total_count or 0


async def _gone(heads: Collection) -> int:
    """Returns how many heads are of deleted documents, or of none."""
    with reaching():
        answer = await heads.aggregate.over_all(
            filters=Filter.by_property("deleted").equal(True),
            # The total counts what the index leads to, also where a crash has lost that.
            return_metrics=Metrics("deleted").boolean(count=True),
        )
    found: Any = answer.properties.get("deleted")
    return found.count or 0 if found else 0


def _sound(documents: Iterable[Document], made: Layout) -> tuple[list[Sound], dict[str, str]]:
    """Returns the documents that can be stored, and why the others cannot, by their ids."""
    sound: list[Sound] = []
    unfit: dict[str, str] = {}
    for document in documents:
        try:
            sound.append((document, *objects_of(document, made)))
        except Unfit as reason:
            unfit[document.id] = str(reason)
    return sound, unfit


async def _insert_chunks(chunks: Collection, sound: Sequence[Sound]) -> dict[str, str]:
    """Returns why documents failed some chunk of which was refused."""
    owners = {str(each.uuid): document.id for document, _, part in sound for each in part}
    refused = await insert(chunks, (each for _, _, part in sound for each in part))
    return {owners[chunk]: reason for chunk, reason in refused.items()}


async def _delete_all(chunks: Collection, heads: Collection, sound: Sequence[Sound]) -> None:
    """Removes what is stored of documents, also what a crash has left out of the indexes."""
    if sound:
        await remove(chunks, _of([document for document, _, _ in sound]))
        await remove_each(chunks, [str(each.uuid) for _, _, part in sound for each in part])
        await remove_each(heads, [document.id for document, _, _ in sound])


async def _delete_surplus(chunks: Collection, documents: Sequence[Document]) -> dict[str, str]:
    """Removes chunks beyond those that documents have now; returns where that failed, and why.

    How many there were before is not asked: the head of a document is older than its chunks after
    a crash between the two.
    """
    failed: dict[str, str] = {}
    alike: dict[int, list[Document]] = defaultdict(list)
    for document in documents:
        alike[len(document.chunks)].append(document)
    for many, part in alike.items():
        beyond = _of(part) & Filter.by_property("position").greater_or_equal(many)
        if await delete(chunks, beyond):
            failed |= dict.fromkeys((each.id for each in part), "old chunks could not be removed")
    return failed


def _of(documents: Iterable[Document]) -> FilterReturn:
    return Filter.by_property("document").contains_any([document.id for document in documents])
