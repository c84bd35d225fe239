"""Writing to a collection: in batches, with the result of each object looked at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weaviate.classes.data import DataObject
from weaviate.collections import CollectionAsync
from weaviate.collections.classes.filters import FilterReturn
from weaviate.exceptions import WeaviateInsertManyAllFailedError

from infra.vectors.connection import abreast, missing, passing, reaching
from infra.vectors.errors import PlaceUnknown, VectorsRefused, VectorsUnreachable
from infra.vectors.objects import slices

Collection = CollectionAsync[Any, Any]

AT_ONCE = 16

# By what Weaviate says of an object; its own words may quote the object.
REASONS = {
    "invalid": "a value is not of its property's type",
    "no such prop": "a column is not kept here: ensure the place with it first",
    "vector": "a vector is not as long as those of the index",
}
UNKNOWN = "the store refuses it; its log may say why"


async def insert(collection: Collection, objects: Iterable[DataObject[Any, Any]]) -> dict[str, str]:
    """Writes objects over those with their ids; one that is the same as before is passed over.

    Returns:
        Why an object was not written, by its id.

    Raises:
        PlaceUnknown: There is no such collection.
        VectorsRefused: The store refuses the whole batch.
        VectorsUnreachable: What was written of the batch is not known.
    """
    failed: dict[str, str] = {}
    for batch in slices(objects):
        said = await _said(collection, batch)
        failed |= {str(batch[number].uuid): _reason(words) for number, words in said.items()}
    return failed


async def delete(collection: Collection, where: FilterReturn) -> int:
    """Removes the objects that satisfy a filter, however many there are.

    Returns:
        How many could not be removed.

    Raises:
        PlaceUnknown: There is no such collection.
        VectorsRefused: The store refuses.
        VectorsUnreachable: What was removed is not known.
    """
    while True:
        with reaching():
            result = await collection.data.delete_many(where=where)
        # Fewer than it takes at once may be found though there are more: see ``followed``.
        if result.failed or not result.matches:
            return result.failed


async def remove(collection: Collection, where: FilterReturn) -> None:
    """Removes objects as ``delete`` does, all of them.

    Raises:
        VectorsRefused: Some could not be removed.
    """
    if failed := await delete(collection, where):
        raise VectorsRefused(f"{failed} objects could not be removed; the store's log may say why")


async def remove_each(collection: Collection, ids: Iterable[str]) -> None:
    """Removes objects one by one, also such as no filter finds; what is not there is no error.

    A crash leaves objects that are stored under their ids and in none of the indexes, so that
    filters pass them over; yet written again, they count as unchanged and are indexed no more.

    Raises:
        PlaceUnknown: There is no such collection.
        VectorsRefused: The store refuses.
        VectorsUnreachable: What was removed is not known.
    """

    async def remove_one(each: str) -> None:
        with reaching():
            await collection.data.delete_by_id(each)

    await abreast(remove_one, ids, AT_ONCE)


async def _said(collection: Collection, batch: list[DataObject[Any, Any]]) -> dict[int, str]:
    with reaching():
        try:
            result = await collection.data.insert_many(batch)
        except WeaviateInsertManyAllFailedError as error:
            return dict.fromkeys(range(len(batch)), str(error))
    return {number: error.message for number, error in result.errors.items()}


def _reason(words: str) -> str:
    if missing(words):
        raise PlaceUnknown("the store has no such collection: ensure the place first")
    if passing(words):
        raise VectorsUnreachable("the store takes no objects now")
    known = words.lower()
    return next((reason for part, reason in REASONS.items() if part in known), UNKNOWN)
