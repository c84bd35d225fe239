"""Searching, scanning and fetching in a real Weaviate: what is found, in which order, of whom."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import Any

import pytest

from infra.conditions import Compare, Op
from infra.vectors import DimensionsWrong, Place, SearchInvalid, Vectors
from schemas.search import Count, Found, Search, Sort
from tests.broker.storing import SPEC, document, everything, numbers, placed, somewhere

pytestmark = pytest.mark.stack

MINE = Compare("color", Op.EQ, "mine")


def at(degrees: float) -> tuple[float, ...]:
    """Returns a vector in a plane."""
    return (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.0)


async def near(
    store: Vectors, place: Place, where: Any = None, query: str = "", **how: Any
) -> Found:
    return await store.search(place, SPEC, Search(**how), query=query, vector=at(0), where=where)


async def worded(vectors: Vectors, place: Place, query: str, **how: Any) -> Found:
    search = Search(mode="full_text", **how)
    return await vectors.search(place, SPEC, search, query=query, vector=None, where=None)


@pytest.mark.parametrize(
    ("distance", "scores"),
    [
        ("cosine", [1.0, 0.75, 0.5, 0.0]),
        ("dot", [1 / (1 + math.exp(-product)) for product in (1, 0.5, 0, -1)]),
        ("l2", [1.0, 0.5, 1 / 3, 0.2]),
    ],
)
async def test_what_is_nearest_comes_first_with_the_highest_score(
    vectors: Vectors, distance: str, scores: list[float]
) -> None:
    spec = SPEC.model_copy(update={"distance": distance})
    async with placed(vectors, spec) as place:
        batch = [document(place, degrees, vectors=[at(degrees)]) for degrees in (180, 0, 90, 60)]
        await vectors.store(place, batch)
        found = await near(vectors, place)
        assert numbers(found) == [0, 60, 90, 180]
        assert [hit.score for hit in found.hits] == pytest.approx(scores, abs=1e-5)
        found = await near(vectors, place, score_threshold=scores[2] - 1e-4)
        assert numbers(found) == [0, 60, 90]


@pytest.mark.parametrize("mode", ["full_text", "hybrid", "vector"])
async def test_who_may_not_see_what_is_best_finds_the_best_of_the_rest(
    vectors: Vectors, mode: str
) -> None:
    async with placed(vectors) as place:
        batch = [
            document(
                place,
                number,
                texts=["fox " * (200 - number)],
                vectors=[at(number / 10)],
                columns={"color": "theirs"},
            )
            for number in range(200)
        ]
        batch.append(
            document(
                place,
                1000,
                texts=["one fox among very many other words that say nothing"],
                vectors=[at(120)],
                columns={"color": "mine"},
            )
        )
        batch.append(document(place, 1001, texts=["fox"], vectors=[at(0)]))
        await vectors.store(place, batch)
        how: dict[str, Any] = {"mode": mode, "k": 5, "query": "fox", "facets": ("color",)}
        assert 1000 not in numbers(await near(vectors, place, **how))
        found = await near(vectors, place, MINE, **how)
        assert numbers(found) == [1000]
        assert found.facets == {"color": (Count(value="mine", count=1),)}
        assert numbers(await near(vectors, place, MINE, **{**how, "offset": 1})) == []


async def test_words_are_found_in_any_language_and_small_ones_too(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        texts = ["To be or not", "Straße und Wald", "the quick brown fox fox", "a fox"]
        await vectors.store(
            place, [document(place, number, texts=[text]) for number, text in enumerate(texts)]
        )
        assert numbers(await worded(vectors, place, "not the")) == [0, 2]
        assert numbers(await worded(vectors, place, "straße")) == [1]
        assert numbers(await worded(vectors, place, "cat")) == []
        assert numbers(await worded(vectors, place, "?!")) == []
        found = await worded(vectors, place, "fox")
        assert sorted(numbers(found)) == [2, 3]
        assert all(0 < (hit.score or 0) < 1 for hit in found.hits)


async def test_meaning_and_words_are_weighed_against_each_other(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        await vectors.store(
            place,
            [
                document(place, 1, texts=["about something else"], vectors=[at(1)]),
                document(place, 2, texts=["a fox"], vectors=[at(90)]),
                document(place, 3, texts=["nothing"], vectors=[at(170)]),
            ],
        )
        for alpha, best in ((0.0, 2), (0.1, 2), (0.9, 1), (1.0, 1)):
            found = await near(vectors, place, query="fox", mode="hybrid", alpha=alpha)
            assert numbers(found)[0] == best
            scores = [hit.score or 0.0 for hit in found.hits]
            assert scores == sorted(scores, reverse=True)
            assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize("mode", ["full_text", "hybrid", "vector"])
async def test_pages_together_are_the_whole(vectors: Vectors, mode: str) -> None:
    async with placed(vectors) as place:
        batch = [
            document(place, number, texts=["fox " * (number + 1)], vectors=[at(number)])
            for number in range(60)
        ]
        await vectors.store(place, batch)
        how: dict[str, Any] = {"mode": mode, "query": "fox"}
        whole = await near(vectors, place, k=60, **how)
        pages = [await near(vectors, place, k=25, offset=start, **how) for start in (0, 25, 50)]
        assert [hit for page in pages for hit in page.hits] == list(whole.hits)
        assert len(whole.hits) == 60


@pytest.mark.parametrize("mode", ["full_text", "hybrid", "vector"])
async def test_pages_together_are_the_whole_also_of_what_is_equally_good(
    vectors: Vectors, mode: str
) -> None:
    async with placed(vectors) as place:
        for start in (0, 500):
            batch = [
                document(
                    place,
                    number,
                    texts=["fox"],
                    # So few of the same that the graph leads to all.
                    vectors=[at(number // 10)],
                    columns={"color": "mine" if number % 2 else "theirs"},
                )
                for number in range(start, start + 500)
            ]
            await vectors.store(place, batch)
        for where, many in ((None, 1000), (MINE, 500)):
            found: set[int] = set()
            # Of hybrid, they agree up to the hundredth hit.
            ends = [0, 7, 52, 100] if mode == "hybrid" else [0, 7, 52, 100, 121, many]
            for start, end in pairwise(ends):
                how: dict[str, Any] = {"mode": mode, "k": end - start, "offset": start}
                page = await near(vectors, place, where, query="fox", **how)
                assert len(page.hits) == end - start
                assert found.isdisjoint(numbers(page))
                found |= set(numbers(page))


async def test_hits_may_be_sorted_by_columns(vectors: Vectors) -> None:
    colors = ["b", "a", None, "B", "á"]
    async with placed(vectors) as place:
        await vectors.store(
            place,
            [
                document(place, number, columns={"color": color, "stock level": number % 2})
                for number, color in enumerate(colors)
            ],
        )
        for sort, expected in (
            ((Sort(column="color"),), [2, 3, 1, 0, 4]),
            ((Sort(column="color", descending=True),), [4, 0, 1, 3, 2]),
            ((Sort(column="stock level", descending=True), Sort(column="color")), [3, 1, 2, 0, 4]),
        ):
            scored = await worded(vectors, place, "text", sort=sort, k=4, offset=1)
            listed = await worded(vectors, place, "", sort=sort, k=4, offset=1)
            assert numbers(scored) == numbers(listed) == expected[1:]
            assert all(hit.score is not None for hit in scored.hits)


async def test_a_search_for_nothing_lists_what_satisfies_the_conditions(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        await vectors.store(
            place,
            [
                document(place, number, columns={"color": "mine" if number % 2 else "theirs"})
                for number in range(6)
            ],
        )
        found = await vectors.search(place, SPEC, Search(), query=" ", vector=None, where=MINE)
        assert numbers(found) == [1, 3, 5]
        assert [hit.score for hit in found.hits] == [None] * 3


async def test_facets_count_rows_by_value(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        await vectors.store(
            place,
            [
                document(
                    place,
                    number,
                    texts=["a", "b"],
                    columns={"color": "RED" if number < 3 else " ", "price": 0.1, "sold": None},
                )
                for number in range(5)
            ],
        )
        facets = ("color", "price", "sold")
        found = await near(vectors, place, k=1, facets=facets)
        assert found.facets == {
            "color": (Count(value="RED", count=3), Count(value=" ", count=2)),
            "price": (Count(value=0.1, count=5),),
            "sold": (),
        }


async def test_facets_count_rows_as_they_are_now(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        rows = [document(place, number, columns={"color": "red"}) for number in range(4)]
        await vectors.store(place, rows)
        painted = document(place, 0, version="2", columns={"color": "blue"})
        gone = document(place, 1, version="2", deleted=True)
        await vectors.store(place, [painted, gone])
        found = await near(vectors, place, k=1, facets=("color",))
        counts = {"red": 2, "blue": 1}
        assert {each.value: each.count for each in found.facets["color"]} == counts
        # A row with a second chunk is one row all the same.
        two = document(place, 5, texts=["a", "b"], columns={"color": "blue"})
        await vectors.store(place, [two])
        found = await near(vectors, place, k=1, facets=("color",))
        assert {each.value: each.count for each in found.facets["color"]} == {"red": 2, "blue": 2}


async def test_only_what_is_asked_for_is_returned(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        await vectors.store(
            place, [document(place, 1, vectors=[at(0)], columns={"color": "a", "price": 1.0})]
        )
        [hit] = (await near(vectors, place, columns=("price",), vectors=True)).hits
        assert (hit.columns, hit.vector) == ({"price": 1.0}, at(0))
        [hit] = (await near(vectors, place, columns=())).hits
        assert (hit.columns, hit.vector) == ({}, None)


async def test_a_scan_goes_by_key_and_misses_nothing_that_stays(vectors: Vectors) -> None:
    drawn = random.Random(5)
    async with placed(vectors) as place:
        keys = [*range(-3, 40), 100, 1000]
        await vectors.store(
            place,
            [
                document(place, key, texts=["a", "b"][: 1 + key % 2], columns={"color": "mine"})
                for key in keys
            ],
        )
        seen: list[tuple[int, int]] = []
        after: str | None = None
        added = 2000
        while True:
            search = Search(operation="scan", k=4, after=after)
            page = await vectors.scan(place, SPEC, search, where=MINE)
            seen += [(hit.key["id"], hit.position) for hit in page.hits]
            after = page.next
            if after is None:
                break
            # Meanwhile, rows go behind it and come in front of it, and others change.
            gone = drawn.choice([number for number, _ in seen])
            await vectors.store(
                place,
                [
                    document(place, gone, version="2", deleted=True),
                    document(place, -added, columns={"color": "mine"}),
                    document(place, added),
                ],
            )
            added += 1
        stayed = [(key, position) for key in keys for position in range(1 + key % 2)]
        assert seen == stayed


async def test_an_empty_place_has_one_empty_page(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        assert await everything(vectors, place) == Found(generation=1)
        assert await near(vectors, place, facets=("color",)) == Found(facets={"color": ()})
        assert numbers(await worded(vectors, place, "fox")) == []
        assert await vectors.unreachable(place) == await vectors.unreachable(place, 5) == ()


async def test_rows_are_fetched_by_key_in_the_order_asked_for_if_they_may_be_seen(
    vectors: Vectors,
) -> None:
    async with placed(vectors) as place:
        await vectors.store(
            place,
            [
                document(
                    place,
                    number,
                    texts=["a", "b"],
                    columns={"color": "theirs" if number == 2 else "mine"},
                )
                for number in range(4)
            ],
        )
        keys = tuple({"id": number} for number in (3, 7, 2, 1))
        found = await vectors.fetch(place, SPEC, Search(operation="fetch", keys=keys), where=MINE)
        assert [(hit.key["id"], hit.position) for hit in found.hits] == [
            (3, 0),
            (3, 1),
            (1, 0),
            (1, 1),
        ]


@pytest.mark.parametrize(
    ("how", "query", "vector", "says"),
    [
        ({"mode": "full_text"}, "", (1.0, 0.0, 0.0), "takes words"),
        ({"mode": "hybrid"}, "fox", None, "takes a vector"),
        ({"mode": "hybrid"}, "", (1.0, 0.0, 0.0), "takes words"),
        ({"mode": "vector"}, "fox", None, "takes a vector"),
        ({"facets": ("owner",)}, "", None, '"owner"'),
        ({"columns": ("owner",)}, "", None, '"owner"'),
        ({"sort": ({"column": "owner"},)}, "", None, '"owner"'),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_the_reason(
    vectors: Vectors, how: dict[str, Any], query: str, vector: Any, says: str
) -> None:
    async with placed(vectors) as place:
        with pytest.raises(SearchInvalid, match=says):
            await vectors.search(place, SPEC, Search(**how), query=query, vector=vector, where=None)


async def test_a_cursor_that_is_none_and_a_vector_of_another_length_are_refused(
    vectors: Vectors,
) -> None:
    async with placed(vectors) as place:
        with pytest.raises(SearchInvalid, match="after"):
            await vectors.scan(place, SPEC, Search(operation="scan", after="'x"), where=None)
        with pytest.raises(DimensionsWrong, match="2 dimensions, and those of the index 3"):
            await vectors.search(place, SPEC, Search(), query="", vector=(1.0, 2.0), where=None)


async def test_paging_reaches_ten_thousand_hits(vectors: Vectors) -> None:
    drawn = random.Random(1)
    async with placed(vectors) as place:
        batch = [document(place, number, vectors=[somewhere(drawn)]) for number in range(500)]
        await vectors.store(place, batch)
        found = await near(vectors, place, k=9_600, offset=400)
        assert len(found.hits) == 100
        everyone = await near(vectors, place, k=10_000)
        assert sorted(numbers(everyone)) == list(range(500))
