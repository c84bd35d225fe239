"""What is stored of documents, in a real Weaviate: whole documents in, their chunks and heads."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest

from infra.settings import VectorSettings
from infra.stack.local import LocalStack
from infra.vectors import (
    Counted,
    DimensionsWrong,
    Head,
    Place,
    PlaceUnknown,
    Vectors,
    VectorsRefused,
    VectorsUnreachable,
)
from infra.vectors.layout import heads_of
from schemas.indexes import Kept
from schemas.search import MOST_HITS, Search
from tests.broker.storing import SPEC, document, everything, placed, settings_of
from tests.harness import soon

pytestmark = pytest.mark.stack


async def test_a_document_is_found_as_it_was_stored(vectors: Vectors) -> None:
    columns = {
        "color": " Red?\n",
        "made": "2026-05-01T14:30:00.5+02:00",
        "price": 0.1,
        "sold": False,
        "stock level": 2**63 - 1,
    }
    async with placed(vectors) as place:
        stored = document(place, 1, texts=["one", "two"], columns=columns)
        assert await vectors.store(place, [stored]) == {}
        hits = (await everything(vectors, place)).hits
    assert [(hit.text, hit.position, hit.chunks) for hit in hits] == [("one", 0, 2), ("two", 1, 2)]
    for hit in hits:
        assert hit.key == {"id": 1}
        assert hit.columns == {**columns, "made": "2026-05-01T12:30:00.500000Z"}
        assert (hit.source, hit.version) == ("main.default.docs", "1")
        assert hit.committed_at == 1_700_000_000_001


async def test_a_head_tells_what_is_stored(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        one, two = document(place, 1, texts=["a", "b"]), document(place, 2)
        await vectors.store(place, [one])
        assert await vectors.heads(place, [one.id, two.id]) == {
            one.id: Head(
                version="1", inputs={"text": "a b"}, digests=("digest of a", "digest of b")
            )
        }


async def test_a_later_state_takes_the_place_of_an_earlier_one(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        await vectors.store(
            place, [document(place, 1, texts=["a", "b", "c"], columns={"color": "red"})]
        )
        await vectors.store(place, [document(place, 1, version="2", texts=["d"])])
        [hit] = (await everything(vectors, place)).hits
        assert (hit.text, hit.chunks, hit.version) == ("d", 1, "2")
        assert hit.columns["color"] is None


async def test_chunks_that_no_head_tells_of_go_with_the_next_state(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        first = document(place, 1, texts=["a"])
        await vectors.store(place, [first])
        # What a crash between chunks and heads leaves: more chunks than the head tells of.
        await vectors.store(place, [document(place, 1, version="2", texts=["a", "b", "c"])])
        heads = vectors._client.collections.use(heads_of(place))
        await heads.data.delete_by_id(first.id)
        await vectors.store(place, [document(place, 1, version="3", texts=["d"])])
        assert [hit.text for hit in (await everything(vectors, place)).hits] == ["d"]


async def test_of_a_deleted_document_the_head_is_left(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        await vectors.store(place, [document(place, 1, texts=["a", "b"]), document(place, 2)])
        gone = document(place, 1, version="2", deleted=True)
        assert await vectors.store(place, [gone]) == {}
        assert [hit.key["id"] for hit in (await everything(vectors, place)).hits] == [2]
        head = (await vectors.heads(place, [gone.id]))[gone.id]
        assert (head.deleted, head.version) == (True, "2")
        assert await vectors.count(place) == Counted(rows=1, chunks=1)


async def test_of_a_thousand_documents_the_invalid_ones_are_told_and_the_others_stored(
    vectors: Vectors, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with placed(vectors) as place:
        batch = [document(place, number, columns={"price": 1.0}) for number in range(1000)]
        for number in range(0, 1000, 100):
            batch[number] = document(place, number, vectors=[(1.0, 2.0)])
            batch[number + 1] = document(place, number + 1, columns={"price": "secret"})
            batch[number + 2] = document(place, number + 2, columns={"sold": 1})
            batch[number + 3] = document(place, number + 3, vectors=[(float("nan"), 0.0, 0.0)])
            batch[number + 4] = document(place, number + 4, texts=["secret \ud800"])
        failed = await vectors.store(place, batch)
        invalid = {batch[number + step].id for number in range(0, 1000, 100) for step in range(5)}
        assert failed.keys() == invalid
        assert sorted(set(failed.values())) == [
            "a text holds half a character, which is no Unicode",
            "a vector has 2 dimensions, and those of the index 3",
            "a vector holds what is no finite number of 32 bits",
            'column "price" is a double, and the value a str that is none',
            'column "sold" is a boolean, and the value a int that is none',
        ]
        heads = await vectors.heads(place, [each.id for each in batch])
        assert heads.keys() == {each.id for each in batch} - invalid
        assert await vectors.count(place) == Counted(rows=950, chunks=950)
        assert await vectors.unreachable(place, 100) == ()
    assert "secret" not in caplog.text + "".join(failed.values())


async def test_what_the_store_itself_refuses_is_told_by_document(
    vectors: Vectors, vector_stack: LocalStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with placed(vectors) as place, Vectors.open(settings_of(vector_stack)) as other:
        await other.store(place, [document(place, 1)])
        # Unknown to the other process, the place is made anew with longer vectors.
        await vectors.drop(place)
        await vectors.ensure(place, SPEC, 4)
        await vectors.store(place, [document(place, 1, vectors=[(1.0, 2.0, 3.0, 4.0)])])
        wrong = document(place, 2, texts=["secret"], vectors=[(1.0, 2.0, 3.0)])
        failed = await other.store(place, [wrong, document(place, 3, deleted=True)])
        assert failed == {wrong.id: "a vector is not as long as those of the index"}
        assert await other.heads(place, [wrong.id]) == {}
    assert "secret" not in caplog.text


async def test_a_document_that_failed_keeps_its_head(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        before = document(place, 1, texts=["a", "b"])
        await vectors.store(place, [before])
        after = document(place, 1, version="2", texts=["c"], columns={"stock level": 1.5})
        assert (await vectors.store(place, [after])).keys() == {after.id}
        assert (await vectors.heads(place, [after.id]))[after.id].version == "1"
        assert [hit.text for hit in (await everything(vectors, place)).hits] == ["a", "b"]


async def test_a_document_twice_in_a_batch_is_refused(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        with pytest.raises(ValueError, match="twice"):
            await vectors.store(place, [document(place, 1), document(place, 1, version="2")])


async def test_a_truncation_removes_what_is_not_newer_and_is_remembered(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        assert await vectors.floor(place) == ""
        batch = [document(place, number, version=str(number)) for number in range(1, 6)]
        await vectors.store(place, batch)
        await vectors.truncate(place, "3")
        await vectors.truncate(place, "2")
        assert await vectors.floor(place) == "3"
        assert [hit.version for hit in (await everything(vectors, place)).hits] == ["4", "5"]
        assert (await vectors.heads(place, [each.id for each in batch])).keys() == {
            batch[3].id,
            batch[4].id,
        }
        assert await vectors.count(place) == Counted(rows=2, chunks=2)


async def test_a_truncation_removes_more_than_one_call_does(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        many = [document(place, number, deleted=True) for number in range(MOST_HITS + 100)]
        for start in range(0, len(many), 2_000):
            assert await vectors.store(place, many[start : start + 2_000]) == {}
        left = document(place, -1, version="3")
        await vectors.store(place, [left])
        await vectors.truncate(place, "2")
        assert (await vectors.heads(place, [each.id for each in [*many, left]])).keys() == {left.id}


async def test_a_place_that_exists_is_left_as_it_is(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        await vectors.store(place, [document(place, 1)])
        await asyncio.gather(*(vectors.ensure(place, SPEC, 3) for _ in range(4)))
        assert await vectors.count(place) == Counted(rows=1, chunks=1)


async def test_many_may_make_a_place_at_once(vectors: Vectors) -> None:
    async with placed(vectors) as place:
        second = Place(place.index, 2)

        async def made() -> bool:
            with suppress(VectorsUnreachable):
                await vectors.ensure(second, SPEC, 3)
                return True
            return False

        await asyncio.gather(*(soon(made, what="the place") for _ in range(4)))
        assert {place, second} <= await vectors.places()
        await vectors.drop(second)


async def test_other_dimensions_or_another_distance_need_another_generation(
    vectors: Vectors,
) -> None:
    async with placed(vectors) as place:
        with pytest.raises(DimensionsWrong, match="4 dimensions, and those of the index 3"):
            await vectors.ensure(place, SPEC, 4)
        with pytest.raises(VectorsRefused, match="raise the generation"):
            await vectors.ensure(place, SPEC.model_copy(update={"distance": "l2"}), 3)


async def test_a_column_may_be_added_to_a_place(vectors: Vectors, vector_stack: LocalStack) -> None:
    wider = SPEC.model_copy(update={"columns": (*SPEC.columns, Kept(name="new", type="long"))})
    async with placed(vectors) as place, Vectors.open(settings_of(vector_stack)) as other:
        await other.store(place, [document(place, 1)])
        early = document(place, 2, columns={"new": 5})
        assert "ensure the place" in (await other.store(place, [early]))[early.id]
        await vectors.ensure(place, wider, 3)
        assert await other.store(place, [early]) == {}
        hits = (await everything(vectors, place, wider)).hits
        assert [hit.columns["new"] for hit in hits] == [None, 5]


async def test_what_does_not_exist_is_told_apart_from_what_is_down(vectors: Vectors) -> None:
    nowhere = Place("main.tests.nowhere", 1)
    await vectors.drop(nowhere)
    for ask in (
        vectors.count(nowhere),
        vectors.floor(nowhere),
        vectors.heads(nowhere, ["1" * 32]),
        vectors.search(nowhere, SPEC, Search(), query="", vector=(1.0, 2.0, 3.0), where=None),
        vectors.store(nowhere, [document(nowhere, 1)]),
        vectors.truncate(nowhere, "1"),
        vectors.unreachable(nowhere),
    ):
        with pytest.raises(PlaceUnknown):
            await ask


async def test_a_place_that_is_dropped_under_a_process_is_unknown_to_it(
    vectors: Vectors, vector_stack: LocalStack
) -> None:
    async with placed(vectors) as place, Vectors.open(settings_of(vector_stack)) as other:
        await other.store(place, [document(place, 1)])
        await vectors.drop(place)
        assert place not in await other.places()
        with pytest.raises(PlaceUnknown):
            await other.store(place, [document(place, 2)])


async def test_a_wrong_key_is_refused_and_nobody_at_home_is_unreachable(
    vector_stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG_KEY", "wrong")
    settings = settings_of(vector_stack).model_copy(update={"key": "env:WRONG_KEY"})
    with pytest.raises(VectorsRefused):
        async with Vectors.open(settings) as opened:
            await opened.places()
    with pytest.raises(VectorsUnreachable):
        async with Vectors.open(VectorSettings(url="http://127.0.0.1:8", grpc_port=9, key="")):
            pass
