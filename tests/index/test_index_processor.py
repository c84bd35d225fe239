"""An index is as its table is, on the real bus and in the real store, whoever is killed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.stack.local import LocalStack
from infra.vectors import Place, PlaceUnknown, Vectors, VectorsUnreachable
from schemas.events import IndexState
from schemas.indexes import IndexSpec
from schemas.topics import DEAD_LETTERS, INDEX_REPORTED
from tests.harness import Bus, Process, eventually, soon, unique
from tests.index.feeding import COLUMNS, Table, held
from tests.index.indexing import PATIENCE_S, define, indexer, stands, told, was
from tests.seed import changed, publish

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("town")]

WORDS = ["sea", "hill", "wood", "lake", "rain", "salt", "moss", "fern"]


def spec(table: Table, **more: Any) -> IndexSpec:
    plain = {
        "source": table.name,
        "text": "{title}: {body}",
        "columns": [{"name": "price", "type": "long"}],
        "endpoint": "main.tests.words",
        **more,
    }
    return IndexSpec.model_validate(plain)


@pytest.fixture(scope="module")
def process(index_bus: Bus, folder: Path, town: list[Process]) -> Iterator[Process]:
    """The index processor of the module; whoever kills it revives it."""
    with indexer(index_bus, folder) as process:
        yield process


@pytest.fixture
def table(index_bus: Bus) -> Table:
    return Table(index_bus)


def churn(table: Table, chance: random.Random, changes: int) -> None:
    """Changes rows at random."""
    for _ in range(changes):
        key = chance.randrange(60)
        what = chance.random()
        if key in table.rows and what < 0.2:
            table.delete(key)
        elif key in table.rows and what < 0.5:
            table.write(key, price=chance.randrange(100))
        else:
            body = " ".join(chance.choices(WORDS, k=chance.randrange(1, 12)))
            table.write(key, title=chance.choice(WORDS), body=body)
    table.settle()


async def equal(vectors: Vectors, place: Place, wanted: IndexSpec, table: Table) -> None:
    """Returns when an index holds what its table does, within reach of a search."""

    async def so() -> bool:
        try:
            same = await held(vectors, place, wanted) == table.texts()
            return same and await vectors.unreachable(place) == ()
        # The store is started, or the place made anew.
        except (PlaceUnknown, VectorsUnreachable):
            return False

    await soon(so, PATIENCE_S, "the index is as the table")


async def test_an_index_is_as_its_table_though_its_processor_is_killed(
    index_bus: Bus, process: Process, table: Table, vectors: Vectors
) -> None:
    index, chance = f"main.tests.{unique('killed')}", random.Random(7)
    place, wanted = Place(index, 1), spec(table)
    define(index_bus, index, wanted)
    churn(table, chance, 200)
    eventually(
        lambda: index_bus.lag(f"index-{index}-1", table.topic) < 150, PATIENCE_S, "a beginning"
    )
    process.kill()
    table.truncate()
    churn(table, chance, 150)
    process.revive()
    eventually(lambda: index_bus.lag(f"index-{index}-1", table.topic) < 100, PATIENCE_S, "going on")
    process.kill()
    churn(table, chance, 50)
    process.revive()
    await equal(vectors, place, wanted, table)
    many = len(table.rows)
    report = stands(index_bus, index, IndexState.READY, generation=1, waiting=0, rows=many)
    assert report.chunks == many
    assert report.freshness_ms is not None
    assert report.building is None


async def test_an_index_is_as_its_table_though_one_of_two_processors_is_killed(
    index_bus: Bus, folder: Path, process: Process, table: Table, vectors: Vectors
) -> None:
    index, chance = f"main.tests.{unique('two')}", random.Random(9)
    place, wanted = Place(index, 1), spec(table)
    define(index_bus, index, wanted)
    with indexer(index_bus, folder):
        churn(table, chance, 200)
        stands(index_bus, index, IndexState.READY, generation=1)
        churn(table, chance, 200)
        eventually(lambda: index_bus.lag(f"index-{index}-1", table.topic) < 150, PATIENCE_S, "some")
        process.kill()
        table.truncate()
        churn(table, chance, 100)
        await equal(vectors, place, wanted, table)
        process.revive()
        churn(table, chance, 100)
        await equal(vectors, place, wanted, table)
        process.ready()


async def test_what_the_store_has_lost_is_made_anew(
    index_bus: Bus, process: Process, table: Table, vectors: Vectors
) -> None:
    index, chance = f"main.tests.{unique('lost')}", random.Random(3)
    place, wanted = Place(index, 1), spec(table)
    define(index_bus, index, wanted)
    churn(table, chance, 50)
    stands(index_bus, index, IndexState.READY, generation=1, waiting=0)
    await vectors.drop(place)
    table.write(1000, title="sea", body="salt")
    table.settle()
    was(index_bus, index, IndexState.DEGRADED)
    await equal(vectors, place, wanted, table)
    stands(index_bus, index, IndexState.READY, generation=1, waiting=0)


async def test_an_index_is_as_its_table_though_its_store_is_killed(
    index_bus: Bus, index_stack: LocalStack, process: Process, table: Table, vectors: Vectors
) -> None:
    index, chance = f"main.tests.{unique('store')}", random.Random(8)
    place, wanted = Place(index, 1), spec(table)
    define(index_bus, index, wanted)
    churn(table, chance, 100)
    stands(index_bus, index, IndexState.READY, generation=1)
    before = index_stack.pid("weaviate")
    index_stack.kill("weaviate")
    churn(table, chance, 300)
    eventually(
        lambda: index_stack.pid("weaviate") not in (before, None), PATIENCE_S, "another store"
    )
    index_stack.wait_ready(["weaviate"])
    await equal(vectors, place, wanted, table)
    stands(index_bus, index, IndexState.READY, waiting=0, rows=len(table.rows))


async def test_a_new_generation_is_built_beside_the_one_that_queries_see(
    index_bus: Bus, process: Process, table: Table, vectors: Vectors
) -> None:
    index = f"main.tests.{unique('anew')}"
    define(index_bus, index, spec(table))
    churn(table, random.Random(1), 50)
    stands(index_bus, index, IndexState.READY, generation=1)
    wanted = spec(table, text="{body}", generation=2)
    define(index_bus, index, wanted)
    stands(index_bus, index, IndexState.READY, generation=2, building=None)
    reports = index_bus.events(INDEX_REPORTED, index)
    assert all(each.generation for each in reports if each.building == 2)
    found = await held(vectors, Place(index, 2), wanted)
    assert {key: text for key, (text, _) in found.items()} == {
        key: row["body"] for key, row in table.rows.items()
    }

    async def dropped() -> bool:
        return Place(index, 1) not in await vectors.places()

    await soon(dropped, PATIENCE_S, "the former generation goes")
    publish(index_bus, changed("index", index, None))

    async def gone() -> bool:
        return Place(index, 2) not in await vectors.places()

    await soon(gone, PATIENCE_S, "what is dropped goes")
    stands(index_bus, index, IndexState.UNKNOWN, generation=0)


async def test_a_triggered_index_stands_still_until_it_is_triggered(
    index_bus: Bus, process: Process, table: Table, vectors: Vectors
) -> None:
    index = f"main.tests.{unique('triggered')}"
    place, wanted = Place(index, 1), spec(table, sync="triggered")
    define(index_bus, index, wanted)
    table.write(1, title="sea", body="salt")
    table.settle()
    stands(index_bus, index, IndexState.READY, generation=1)
    group = f"index-{index}-1"
    eventually(lambda: index_bus.lag(group, table.topic) == 0, PATIENCE_S, "the first time")
    table.write(2, title="hill", body="moss")
    table.settle()
    define(index_bus, index, spec(table, sync="triggered", trigger=3))
    stands(index_bus, index, IndexState.READY, triggered=3)
    assert await held(vectors, place, wanted) == table.texts()
    define(index_bus, index, spec(table, sync="triggered", trigger=3, paused=True))
    stands(index_bus, index, IndexState.PAUSED)


async def test_a_bad_definition_is_told_of_and_mended(
    index_bus: Bus, process: Process, table: Table, vectors: Vectors
) -> None:
    index = f"main.tests.{unique('mended')}"
    table.write(1, title="sea", body="salt")
    table.settle()
    bad = {
        "no table": spec(table, source="main.tests.nowhere"),
        "not in the catalog": spec(table, endpoint="main.tests.nobody"),
        "headline": spec(table, text="{headline}"),
        "32": spec(table, dimensions=7),
    }
    for said, wanted in bad.items():
        define(index_bus, index, wanted)

        def failed(said: str = said) -> bool:
            last = told(index_bus, index)
            return (
                last is not None
                and last.state is IndexState.FAILED
                and said in str(last.reason)
                and bool(last.remedy)
            )

        eventually(failed, PATIENCE_S, f"being told of {said}")
    wanted = spec(table)
    define(index_bus, index, wanted)
    stands(index_bus, index, IndexState.READY, generation=1, reason=None)
    assert await held(vectors, Place(index, 1), wanted) == table.texts()


async def test_a_column_that_goes_stops_the_index_and_loses_nothing(
    index_bus: Bus, process: Process, table: Table, vectors: Vectors
) -> None:
    index = f"main.tests.{unique('column')}"
    define(index_bus, index, spec(table))
    table.write(1, title="sea", body="salt")
    table.settle()
    stands(index_bus, index, IndexState.READY, generation=1)
    renamed = {("headline" if name == "title" else name): kind for name, kind in COLUMNS.items()}
    table.shape(renamed)
    table.write(2, headline="hill", body="moss")
    table.settle()
    report = stands(index_bus, index, IndexState.FAILED)
    assert "title" in str(report.reason)
    wanted = spec(table, text="{body}")
    define(index_bus, index, wanted)
    stands(index_bus, index, IndexState.READY, waiting=0)

    async def both() -> bool:
        found = await held(vectors, Place(index, 1), wanted)
        return found == {1: ("salt", 0), 2: ("moss", 0)}

    # They may lie on two partitions, and the first is read once more.
    await soon(both, PATIENCE_S, "the rows by the new definition")


async def test_what_cannot_be_stored_is_a_dead_letter_and_the_rest_is_stored(
    index_bus: Bus, process: Process, table: Table, vectors: Vectors
) -> None:
    index = f"main.tests.{unique('letters')}"
    wanted = spec(table, columns=[{"name": "price", "type": "date"}])
    table.shape({**COLUMNS, "price": "string"})
    for key in range(20):
        table.write(key, title="sea", body="salt", price="soon" if key % 5 == 0 else "2026-01-01")
    table.settle()
    define(index_bus, index, wanted)
    stands(index_bus, index, IndexState.READY, generation=1, rows=16)
    letters = [
        each for each in index_bus.events(DEAD_LETTERS) if each.processor == f"index-{index}-1"
    ]
    assert len({(each.partition, each.offset) for each in letters}) == 4
    values = {record.value for record in index_bus.records(table.topic)}
    assert all(each.value in values and "price" in each.message for each in letters)
    assert not any("soon" in each.message for each in letters)
