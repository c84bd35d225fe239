"""What an index has lost, or has as it was before, is found by the clock and mended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.changes.rows import version_of
from infra.vectors import Place, Vectors, chunk_id, document_id
from infra.vectors.layout import chunks_of, heads_of
from schemas.events import IndexState
from schemas.indexes import IndexSpec
from tests.broker.storing import document
from tests.harness import Bus, Process, soon, unique
from tests.index.feeding import Table, held
from tests.index.indexing import PATIENCE_S, compared, define, differing, indexer, stands
from tests.index.indexing import jobs as running_jobs
from tests.index.test_index_processor import equal, spec
from tests.index.words import vector_of

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("town")]

ROWS = 40
BEFORE = version_of(0, 0)


@pytest.fixture(scope="module")
def process(index_bus: Bus, folder: Path, town: list[Process]) -> Iterator[Process]:
    """The index processor of the module."""
    with indexer(index_bus, folder) as process:
        yield process


@pytest.fixture(scope="module")
def jobs(index_bus: Bus, folder: Path) -> Iterator[Process]:
    """The jobs of the module."""
    with running_jobs(index_bus, folder) as process:
        yield process


async def harmed(vectors: Vectors, place: Place) -> None:
    """Loses a row, sets another back, and brings a deleted one back to life."""
    client, lost = vectors._client, document_id(place.index, {"id": 1})
    await client.collections.use(heads_of(place)).data.delete_by_id(lost)
    await client.collections.use(chunks_of(place)).data.delete_by_id(chunk_id(lost, 0))
    old = [
        document(place, key, version=BEFORE, texts=["old"], vectors=[vector_of("old")])
        for key in (2, 3)
    ]
    assert await vectors.store(place, old, again=True) == {}


async def test_what_the_store_has_lost_or_kept_is_found_and_mended(
    index_bus: Bus, process: Process, jobs: Process, vectors: Vectors
) -> None:
    table = Table(index_bus)
    index = f"main.tests.{unique('compared')}"
    place, wanted = Place(index, 1), spec(table)
    for key in range(ROWS):
        table.write(key, title="sea", body=f"salt {key}")
    table.delete(3)
    table.settle()
    define(index_bus, index, wanted)
    stands(index_bus, index, IndexState.READY, rows=ROWS - 1)
    await equal(vectors, place, wanted, table)
    [first, *_] = compared(index_bus, index, 0)
    assert (first.compared, differing(first), first.indexed_rows) == (ROWS, 0, ROWS - 1)
    assert (first.missed, first.table_rows) == (None, None)
    stands(index_bus, index, IndexState.READY, drift=0)

    await harmed(vectors, place)
    define(index_bus, index, wanted.model_copy(update={"reconcile": 1}))
    found = compared(index_bus, index, 1)
    assert (found[0].missing, found[0].stale, found[0].surplus) == (1, 1, 1)
    await equal(vectors, place, wanted, table)
    report = stands(index_bus, index, IndexState.READY, drift=0, reconcile=1)
    assert report.reconciled_at is not None
    assert len(await held(vectors, place, wanted)) == ROWS - 1


async def test_a_comparison_goes_on_though_its_process_is_killed(
    index_bus: Bus, process: Process, jobs: Process, vectors: Vectors
) -> None:
    table = Table(index_bus)
    index = f"main.tests.{unique('killed-jobs')}"
    jobs.kill()
    define(index_bus, index, spec(table))
    for key in range(ROWS):
        table.write(key, title="hill", body=f"moss {key}")
    table.settle()
    stands(index_bus, index, IndexState.READY, rows=ROWS, drift=None)
    jobs.revive()
    compared(index_bus, index, 0)
    stands(index_bus, index, IndexState.READY, drift=0)
    await soon(lambda: held_all(vectors, Place(index, 1), spec(table)), PATIENCE_S, "all rows")


async def held_all(vectors: Vectors, place: Place, wanted: IndexSpec) -> bool:
    found = await held(vectors, place, wanted)
    return len(found) == ROWS and all(text for text, _ in found.values())
