"""Rows of a table that its capture has missed are told of, and come once they are read again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from infra.stack.local import LocalStack
from schemas.events import IndexState, SourceState
from schemas.indexes import IndexSpec
from schemas.topics import INDEX_RECONCILED
from tests.broker.capturing import Town
from tests.harness import CALM_SESSION_MS, Bus, running
from tests.index.conftest import CATALOG, WORDS
from tests.index.indexing import define, indexer, stands
from tests.seed import seed

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

NOTES, ON, INDEX = "main.tests.missed", "main.tests.missing", "main.tests.missed-index"
LOCATION = "public.notes"
OLD, NEW = 30, 5


@pytest.fixture(scope="module")
def town(full_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A table with rows from before it was captured, and all that brings it into an index."""
    bus, folder = Bus(full_stack, CALM_SESSION_MS), tmp_path_factory.mktemp("missed")
    seed(bus, CATALOG)
    town = Town(full_stack, bus, folder)
    town.connection(ON)
    town.runs(
        "CREATE TABLE notes (shelf text, number int, body text, PRIMARY KEY (shelf, number))",
        f"INSERT INTO notes SELECT 'ä', i, 'sea ' || i FROM generate_series(1, {OLD}) i",
    )
    with ExitStack() as opened:
        for command in (["-m", "streams", "gateway"], WORDS):
            opened.enter_context(running(bus, command, folder))
        opened.enter_context(
            running(bus, ["-m", "workers", "sources"], folder, SOURCES_EVERY_MS="500")
        )
        opened.enter_context(
            running(bus, ["-m", "workers", "jobs"], folder, JOBS_RECONCILE_AGAIN_MS="1000")
        )
        opened.enter_context(indexer(bus, folder))
        yield town


def captures(town: Town, resnapshot: int, where: str | None = None) -> None:
    capture = {"snapshot": "never", "heartbeat": "1s", "resnapshot": resnapshot}
    capture |= {"resnapshot_where": where} if where else {}
    town.publish("table", NOTES, {"location": LOCATION, "connection": ON, "capture": capture})


def test_rows_that_never_came_are_missed_until_they_are_read_again(town: Town) -> None:
    captures(town, 0)
    town.stands(NOTES, SourceState.STREAMING)
    # None of them: but from now on those from before are wanted, too.
    captures(town, 1, "number > 1000")
    town.stands(NOTES, SourceState.STREAMING)
    town.runs(f"INSERT INTO notes SELECT 'z', i, 'hill ' || i FROM generate_series(1, {NEW}) i")
    define(town.bus, INDEX, IndexSpec(source=NOTES, text="body", endpoint="main.tests.words"))

    remedy = f"have them read again: tessera source snapshot {NOTES}"
    stands(town.bus, INDEX, IndexState.DEGRADED, rows=NEW, drift=OLD, remedy=remedy)
    found = next(reversed(town.bus.events(INDEX_RECONCILED, INDEX)))
    assert (found.missed, found.table_rows, found.indexed_rows) == (OLD, OLD + NEW, NEW)

    captures(town, 2)
    stands(town.bus, INDEX, IndexState.READY, rows=OLD + NEW, drift=0)
