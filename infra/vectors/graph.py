"""Holes in the graph: chunks that are stored and that no search by vector finds, and their repair.

A crash of Weaviate leaves some of what it wrote last out of its indexes, though not out of its
store: no vector, no word and no filter leads to it, only its id and a walk over all ids. Writing
the same again changes nothing; deleting it by its id and inserting it does. What a repair deletes
is noted before, among the heads, so that one that is cut short can be finished.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter, MetadataQuery

from infra.vectors.connection import abreast, reaching
from infra.vectors.errors import VectorsRefused
from infra.vectors.writing import Collection, insert, remove_each

PAGE = 200
AT_ONCE = 8
# Chunks with the same vector hide one another: so many are looked at, then ten times as many, and
# where all of those are the same, it is not told whether one more is.
NEIGHBOURS, MOST_NEIGHBOURS = 10, 1000
# Of distances that are called none.
NEAR = 1e-5
NOTE = "repair"


async def unreachable(chunks: Collection, sample: int | None) -> tuple[str, ...]:
    """Returns the ids of chunks that their own vector does not lead to."""
    missed: list[str] = []
    async for page in _pages(chunks, sample):
        verdicts = await abreast(partial(_leads_to, chunks), page, AT_ONCE)
        missed += [str(one.uuid) for one, there in zip(page, verdicts, strict=True) if not there]
    return tuple(missed)


async def repair(chunks: Collection, heads: Collection, ids: Iterable[str]) -> None:
    """Deletes chunks and inserts them as they were; nobody may store their documents meanwhile.

    Raises:
        VectorsRefused: One could not be inserted.
    """
    await finish(chunks, heads)
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), PAGE):
        found = [await stored(chunks, each) for each in wanted[start : start + PAGE]]
        objects = [_written(each) for each in found if each]
        current = [each for each in objects if await _is_current(heads, each)]
        await _renew(chunks, heads, current)
        kept = {each["uuid"] for each in current}
        await remove_each(chunks, [each["uuid"] for each in objects if each["uuid"] not in kept])


async def finish(chunks: Collection, heads: Collection) -> None:
    """Brings back what repairs had deleted when they were cut short, unless it has changed since.

    Raises:
        VectorsRefused: It could not be inserted.
    """
    noted = Filter.by_property("note").equal(NOTE)
    with reaching():
        answer = await heads.query.fetch_objects(filters=noted, limit=PAGE)
    for note in answer.objects:
        objects = json.loads(note.properties["inputs"])
        current = [each for each in objects if await _is_current(heads, each)]
        await remove_each(chunks, [each["uuid"] for each in current])
        await _insert(chunks, current)
        await remove_each(heads, [str(note.uuid)])


async def _renew(chunks: Collection, heads: Collection, objects: list[dict[str, Any]]) -> None:
    if not objects:
        return
    note = uuid4()
    properties = {"deleted": True, "inputs": json.dumps(objects), "note": NOTE}
    if await insert(heads, [DataObject(uuid=note, properties=properties)]):
        raise VectorsRefused("a repair could not be noted, and was not begun")
    await remove_each(chunks, [each["uuid"] for each in objects])
    await _insert(chunks, objects)
    await remove_each(heads, [str(note)])


async def _insert(chunks: Collection, objects: list[dict[str, Any]]) -> None:
    if failed := await insert(chunks, (DataObject(**each) for each in objects)):
        raise VectorsRefused(f"{len(failed)} chunks could not be inserted: {min(failed.values())}")


async def _is_current(heads: Collection, each: dict[str, Any]) -> bool:
    """Returns whether a chunk is one of its document's as that is now."""
    properties = each["properties"]
    head = await stored(heads, properties["document"])
    if head is None or head.properties["version"] != properties["version"]:
        return False
    return bool(properties["position"] < len(head.properties["digests"] or ()))


async def stored(collection: Collection, each: str) -> Any:
    """Returns an object by its id, also where no filter finds it; None where there is none."""
    before = UUID(int=UUID(each).int - 1)
    with reaching():
        answer = await collection.query.fetch_objects(limit=1, after=before, include_vector=True)
    found = answer.objects[0] if answer.objects else None
    return found if found and str(found.uuid) == each else None


def _written(found: Any) -> dict[str, Any]:
    properties = {name: value for name, value in found.properties.items() if value is not None}
    return {
        "uuid": str(found.uuid),
        "properties": properties,
        "vector": list(found.vector["default"]),
    }


async def _pages(chunks: Collection, sample: int | None) -> AsyncIterator[list[Any]]:
    """Yields all objects, or so many as of a place by chance, in the order of their ids."""
    after, left, wrapped = (UUID(int=0) if sample is None else uuid4()), sample, sample is None
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        with reaching():
            answer = await chunks.query.fetch_objects(
                limit=size, after=after, include_vector=True, return_properties=False
            )
        if not answer.objects and wrapped:
            return
        if answer.objects:
            yield answer.objects
            after = answer.objects[-1].uuid
        else:
            after, wrapped = UUID(int=0), True
        left = None if left is None else left - len(answer.objects)


async def _leads_to(chunks: Collection, each: Any) -> bool:
    limit = NEIGHBOURS
    while True:
        with reaching():
            answer = await chunks.query.near_vector(
                each.vector["default"],
                limit=limit,
                return_metadata=MetadataQuery(distance=True),
                return_properties=False,
            )
        if any(one.uuid == each.uuid for one in answer.objects):
            return True
        if len(answer.objects) < limit:
            return False
        first, last = (answer.objects[at].metadata.distance or 0.0 for at in (0, -1))
        if abs(last - first) > NEAR:
            return False
        if limit == MOST_NEIGHBOURS:
            return True
        limit *= 10
