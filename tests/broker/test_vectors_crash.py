"""Weaviate dies in the midst of a batch: what was acknowledged stays, and holes are closed."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from infra.stack.local import LocalStack, until
from infra.stack.service import data_folder
from infra.vectors import Counted, Document, Place, Vectors, VectorsUnreachable, chunk_id, graph
from infra.vectors.layout import heads_of
from schemas.search import Search
from tests.broker.storing import (
    SPEC,
    document,
    everything,
    numbers,
    placed,
    scanned,
    settings_of,
    somewhere,
)
from tests.conftest import running
from tests.harness import soon

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

DIMENSIONS = 64
BATCH = 300
WAIT_S = 90.0


@pytest.fixture(scope="module")
def mortal() -> Iterator[LocalStack]:
    """A Weaviate to be killed."""
    with running(["weaviate"]) as stack:
        yield stack


def batch_of(place: Place, start: int, many: int, version: str = "1") -> list[Document]:
    drawn = random.Random(start)
    return [
        document(place, number, version=version, vectors=[somewhere(drawn, DIMENSIONS)])
        for number in range(start, start + many)
    ]


def kill(stack: LocalStack) -> None:
    """Returns when Weaviate has been killed; it is started again by itself."""
    before = stack.pid("weaviate")
    stack.kill("weaviate")
    until(
        lambda: stack.pid("weaviate") not in (before, None), WAIT_S, lambda: "it was not restarted"
    )


def lose_the_graph(stack: LocalStack) -> None:
    """Restarts Weaviate without what its graphs are made anew from."""
    stack.stop("weaviate")
    logs = list(data_folder("weaviate", stack.settings).rglob("*.hnsw.commitlog.d"))
    assert logs
    for log in logs:
        shutil.rmtree(log)
    stack.start("weaviate")


def lose_objects(stack: LocalStack) -> None:
    """Restarts Weaviate without what it stored since it was started; its indexes lead there."""
    stack.stop("weaviate")
    for bucket in data_folder("weaviate", stack.settings).rglob("lsm/objects"):
        names = [each.stem for each in sorted(bucket.glob("segment-*.db"))]
        for lost in bucket.glob(f"{names[-1]}.*"):
            lost.unlink()
    stack.start("weaviate")


async def answers(vectors: Vectors, place: Place) -> bool:
    """Returns whether the connection to a store that was restarted is made anew."""
    try:
        await vectors.count(place)
    except VectorsUnreachable:
        return False
    return True


async def is_back(stack: LocalStack, vectors: Vectors, place: Place) -> None:
    """Returns when a store that was restarted answers."""
    await asyncio.to_thread(stack.wait_ready, ["weaviate"], WAIT_S)
    await soon(partial(answers, vectors, place), WAIT_S, "the store answers")


async def killed_in_the_midst(
    stack: LocalStack, vectors: Vectors, place: Place, batch: Sequence[Document]
) -> None:
    pid = stack.pid("weaviate")
    assert pid is not None
    before = (await vectors.count(place)).chunks
    storing = asyncio.create_task(vectors.store(place, batch))
    while (await vectors.count(place)).chunks <= before:
        assert not storing.done()
    # However long it takes to kill it, it comes no further.
    os.killpg(pid, signal.SIGSTOP)
    await asyncio.to_thread(kill, stack)
    with pytest.raises(VectorsUnreachable):
        await storing
    await is_back(stack, vectors, place)


async def test_what_was_acknowledged_survives_a_kill_and_the_batch_is_stored_again(
    mortal: LocalStack,
) -> None:
    async with (
        Vectors.open(settings_of(mortal)) as vectors,
        placed(vectors, dimensions=DIMENSIONS) as place,
    ):
        acknowledged = batch_of(place, 0, BATCH)
        assert await vectors.store(place, acknowledged) == {}
        cut = batch_of(place, BATCH, 4 * BATCH)
        await killed_in_the_midst(mortal, vectors, place, cut)

        heads = await vectors.heads(place, [each.id for each in (*acknowledged, *cut)])
        # No head tells of a document some chunk of which may be missing.
        assert heads.keys() == {each.id for each in acknowledged}
        keys = tuple(dict(each.key) for each in acknowledged)
        fetched = await vectors.fetch(place, SPEC, Search(operation="fetch", keys=keys), where=None)
        assert numbers(fetched) == list(range(BATCH))

        assert await vectors.store(place, cut, again=True) == {}
        assert await vectors.count(place) == Counted(rows=5 * BATCH, chunks=5 * BATCH)
        whole = Search(operation="scan", k=5 * BATCH)
        assert numbers(await vectors.scan(place, SPEC, whole, where=None)) == list(range(5 * BATCH))
        holes = await vectors.unreachable(place)
        # What was stored again has none; of what was acknowledged last, a few may be left.
        assert not {chunk_id(each.id, 0) for each in cut} & set(holes)
        await vectors.repair(place, holes)
        assert await vectors.unreachable(place) == ()


async def test_no_delete_is_undone_by_a_kill(mortal: LocalStack) -> None:
    async with (
        Vectors.open(settings_of(mortal)) as vectors,
        placed(vectors, dimensions=DIMENSIONS) as place,
    ):
        await vectors.store(place, batch_of(place, 0, 50))
        gone = [document(place, number, version="2", deleted=True) for number in range(10)]
        await vectors.store(place, gone)
        await asyncio.to_thread(kill, mortal)
        await is_back(mortal, vectors, place)
        assert await vectors.count(place) == Counted(rows=40, chunks=40)
        assert all(
            head.deleted for head in (await vectors.heads(place, [d.id for d in gone])).values()
        )


async def test_holes_in_the_graph_are_found_and_closed(mortal: LocalStack) -> None:
    async with (
        Vectors.open(settings_of(mortal)) as vectors,
        placed(vectors, dimensions=DIMENSIONS) as place,
    ):
        lost = batch_of(place, 0, 30)
        await vectors.store(place, lost)
        await asyncio.to_thread(lose_the_graph, mortal)
        await is_back(mortal, vectors, place)
        kept = batch_of(place, 30, 20)
        await vectors.store(place, kept)
        # To write the same again closes no hole.
        await vectors.store(place, lost[:10])

        holes = await vectors.unreachable(place)
        assert set(holes) == {chunk_id(each.id, 0) for each in lost}
        assert set(await vectors.unreachable(place, 50)) == set(holes)
        await vectors.repair(place, holes)
        assert await vectors.unreachable(place) == ()
        assert await vectors.count(place) == Counted(rows=50, chunks=50)
        [hit] = (
            await vectors.search(
                place, SPEC, Search(k=1), query="", vector=lost[7].chunks[0].vector, where=None
            )
        ).hits
        assert hit.key == {"id": 7}


async def test_what_a_crash_has_lost_ends_no_scan_or_truncation_early_and_counts_nowhere(
    mortal: LocalStack,
) -> None:
    async with (
        Vectors.open(settings_of(mortal)) as vectors,
        placed(vectors, dimensions=DIMENSIONS) as place,
    ):
        kept = [each for each in batch_of(place, 0, 60) if each.key["id"] % 10 not in {3, 4, 5}]
        await vectors.store(place, kept)
        await asyncio.to_thread(mortal.restart, "weaviate")
        await is_back(mortal, vectors, place)
        lost = [each for each in batch_of(place, 0, 60) if each.key["id"] % 10 in {3, 4, 5}]
        gone = [document(place, number, version="2", deleted=True) for number in range(60, 70)]
        await vectors.store(place, [*lost, *gone])
        await asyncio.to_thread(lose_objects, mortal)
        await is_back(mortal, vectors, place)

        wanted = [each.key["id"] for each in kept]
        for k in (1, 2, 7, 100):
            assert await scanned(vectors, place, k) == wanted
        assert await vectors.count(place) == Counted(rows=len(kept), chunks=len(kept))
        await vectors.truncate(place, "2")
        assert await vectors.count(place) == Counted(rows=0, chunks=0)


async def test_a_repair_that_is_cut_short_is_finished_by_whoever_comes_next(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(*_: object) -> None:
        raise VectorsUnreachable("cut short")

    async with placed(vectors, dimensions=DIMENSIONS) as place:
        batch = batch_of(place, 0, 3)
        await vectors.store(place, batch)
        with monkeypatch.context() as patched:
            patched.setattr(graph, "_insert", cut)
            with pytest.raises(VectorsUnreachable):
                await vectors.repair(place, [chunk_id(each.id, 0) for each in batch])
        assert await vectors.count(place) == Counted(rows=3, chunks=0)
        # One of them changes in the meantime, and one goes.
        [later] = batch_of(place, 0, 1, version="2")
        await vectors.store(place, [later, document(place, 1, version="2", deleted=True)])
        await vectors.ensure(place, SPEC, DIMENSIONS)
        hits = (await everything(vectors, place)).hits
        assert [(hit.key["id"], hit.version) for hit in hits] == [(0, "2"), (2, "1")]
        assert await vectors.count(place) == Counted(rows=2, chunks=2)


async def test_a_repair_removes_chunks_that_no_document_has(vectors: Vectors) -> None:
    async with placed(vectors, dimensions=DIMENSIONS) as place:
        batch = batch_of(place, 0, 3)
        await vectors.store(place, batch)
        heads = vectors._client.collections.use(heads_of(place))
        await heads.data.delete_by_id(batch[0].id)
        await vectors.repair(place, [chunk_id(each.id, 0) for each in batch])
        assert numbers(await everything(vectors, place)) == [1, 2]


async def test_a_store_that_is_down_is_unreachable_and_found_again(mortal: LocalStack) -> None:
    async with (
        Vectors.open(settings_of(mortal)) as vectors,
        placed(vectors, dimensions=DIMENSIONS) as place,
    ):
        one = batch_of(place, 0, 1)
        await asyncio.to_thread(mortal.stop, "weaviate")
        for ask in (
            vectors.places(),
            vectors.count(place),
            vectors.heads(place, [one[0].id]),
            vectors.store(place, one),
            vectors.store(place, one, again=True),
            vectors.truncate(place, "1"),
        ):
            with pytest.raises(VectorsUnreachable):
                await ask
        await asyncio.to_thread(mortal.start, "weaviate")
        await asyncio.to_thread(mortal.wait_ready, ["weaviate"], WAIT_S)

        async def stored() -> bool:
            # The connection is made anew a moment after the store is back.
            try:
                return await vectors.store(place, one, again=True) == {}
            except VectorsUnreachable:
                return False

        await soon(stored, what="the store that is back")
        assert await vectors.count(place) == Counted(rows=1, chunks=1)
