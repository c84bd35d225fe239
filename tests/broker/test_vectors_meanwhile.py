"""What is asked of a real Weaviate while it is written."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from infra.conditions import Compare, Op
from infra.vectors import Document, Place, Vectors
from schemas.search import Found, Search
from tests.broker.storing import SPEC, document, numbers, placed, somewhere

pytestmark = pytest.mark.stack

ROWS = 100
ROUNDS = 15
MINE = Compare("color", Op.EQ, "mine")
WAYS = (Search(mode="full_text", k=ROWS), Search(mode="hybrid", k=ROWS), Search(k=ROWS))


async def asking(ask: Callable[[], Awaitable[Found]], written: asyncio.Event) -> list[Found]:
    """Returns what is found again and again until all is written."""
    found: list[Found] = []
    while not written.is_set():
        found.append(await ask())
    return found


def owned(place: Place, turn: int) -> list[Document]:
    """Returns rows, each of which another owns in the next turn; their vectors stay."""
    return [
        document(
            place,
            number,
            version=f"{turn:04d}",
            texts=["fox"],
            vectors=[somewhere(random.Random(number))],
            columns={"color": "mine" if (number + turn) % 2 else "theirs"},
        )
        for number in range(ROWS)
    ]


async def test_who_may_see_a_row_no_more_does_not_find_it_as_it_has_become(
    vectors: Vectors,
) -> None:
    written = asyncio.Event()
    async with placed(vectors) as place:
        await vectors.store(place, owned(place, 0))

        async def write() -> None:
            for turn in range(1, ROUNDS):
                await vectors.store(place, owned(place, turn))
            written.set()

        def searched(search: Search) -> Awaitable[Found]:
            near = somewhere(random.Random(1))
            return vectors.search(place, SPEC, search, query="fox", vector=near, where=MINE)

        def fetched() -> Awaitable[Found]:
            search = Search(operation="fetch", keys=tuple({"id": each} for each in range(ROWS)))
            return vectors.fetch(place, SPEC, search, where=MINE)

        def scanned() -> Awaitable[Found]:
            return vectors.scan(place, SPEC, Search(operation="scan", k=ROWS), where=MINE)

        answers = asyncio.gather(
            asking(fetched, written),
            asking(scanned, written),
            *(asking(partial(searched, each), written) for each in WAYS),
        )
        await write()
        for found in await answers:
            assert {hit.columns["color"] for each in found for hit in each.hits} == {"mine"}


def moved(place: Place, turn: int, drawn: random.Random) -> list[Document]:
    """Returns some rows with other vectors than before."""
    numbers = range(ROWS) if turn == 0 else drawn.sample(range(ROWS), 20)
    return [
        document(place, each, version=f"{turn:04d}", vectors=[somewhere(drawn)]) for each in numbers
    ]


async def test_scores_are_of_the_vectors_that_are_returned_and_pages_are_full(
    vectors: Vectors,
) -> None:
    drawn, written, near = random.Random(3), asyncio.Event(), somewhere(random.Random(4))

    def score(vector: tuple[float, ...] | None) -> float:
        assert vector is not None
        product = sum(one * other for one, other in zip(near, vector, strict=True))
        return (1 + product / math.hypot(*near) / math.hypot(*vector)) / 2

    async with placed(vectors) as place:
        await vectors.store(place, moved(place, 0, drawn))

        def searched() -> Awaitable[Found]:
            search = Search(k=50, vectors=True)
            return vectors.search(place, SPEC, search, query="", vector=near, where=None)

        answers = asyncio.gather(asking(searched, written), asking(searched, written))
        for turn in range(1, 60):
            await vectors.store(place, moved(place, turn, drawn))
        written.set()
        for found in await answers:
            for each in found:
                told = [hit.score for hit in each.hits]
                assert told == pytest.approx([score(hit.vector) for hit in each.hits], abs=1e-2)
                assert len(told) == 50


async def test_a_row_is_fetched_also_in_the_moment_in_which_it_gets_another_vector(
    vectors: Vectors,
) -> None:
    drawn, written = random.Random(5), asyncio.Event()
    async with placed(vectors) as place:
        await vectors.store(place, moved(place, 0, drawn))

        def fetched() -> Awaitable[Found]:
            search = Search(operation="fetch", keys=tuple({"id": each} for each in range(ROWS)))
            return vectors.fetch(place, SPEC, search, where=None)

        answers = asyncio.gather(asking(fetched, written), asking(fetched, written))
        for turn in range(1, 60):
            await vectors.store(place, moved(place, turn, drawn))
        written.set()
        for found in await answers:
            assert all(numbers(each) == list(range(ROWS)) for each in found)
