"""Which generations are kept, and what is told of an index."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from infra.changes.source import Unfit
from infra.vectors import Counted, DimensionsWrong, VectorsUnreachable
from schemas.events import IndexReconciled, IndexReported, IndexState, SourceReported, SourceState
from schemas.indexes import IndexSpec
from streams.index.keeping import Progress
from streams.index.report import Seen, generations, obsolete, report, same
from streams.index.standing import Standing

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
INDEX = "main.tests.index"


def spec(**more: Any) -> IndexSpec:
    return IndexSpec(source="main.tests.docs", text="body", endpoint="main.tests.words", **more)


def last(**more: Any) -> IndexReported:
    told: dict[str, Any] = {"state": IndexState.READY, "generation": 1, **more}
    return IndexReported(index=INDEX, reported_at=NOON, **told)


def tell(trigger: int = 0, **more: Any) -> IndexReported:
    seen: dict[str, Any] = {"spec": spec(), "last": None, "generation": 1, **more}
    return report(INDEX, Seen(**seen), trigger, NOON)


@pytest.mark.parametrize(
    ("wanted", "before", "kept"),
    [
        (spec(), None, (1,)),
        (spec(), last(), (1,)),
        (spec(generation=2), last(), (1, 2)),
        (spec(generation=3), last(generation=0), (3,)),
        (spec(paused=True), last(), ()),
        (spec(sync="triggered"), None, (1,)),
        (spec(sync="triggered"), last(), ()),
        (spec(sync="triggered", trigger=2), last(triggered=1), (1,)),
        (spec(sync="triggered", trigger=2), last(triggered=2), ()),
        (spec(sync="triggered", trigger=2, generation=2), last(triggered=2), (2,)),
    ],
)
def test_what_is_kept(
    wanted: IndexSpec, before: IndexReported | None, kept: tuple[int, ...]
) -> None:
    assert generations(wanted, before) == kept


def test_what_neither_queries_nor_the_catalog_need_is_obsolete() -> None:
    wanted = spec(generation=3)
    assert [each for each in range(1, 5) if obsolete(each, wanted, last())] == [2, 4]


def test_queries_see_a_generation_once_it_is_complete() -> None:
    building = tell(
        spec=spec(generation=2), last=last(), generation=2, progress=Progress(5, 3, complete=False)
    )
    assert (building.generation, building.building, building.state) == (1, 2, IndexState.BUILDING)
    assert (building.read, building.waiting) == (5, 3)
    complete = tell(
        spec=spec(generation=2),
        last=building,
        generation=2,
        progress=Progress(8, 0, complete=True),
        counted=Counted(4, 6),
    )
    assert (complete.generation, complete.building, complete.state) == (2, None, IndexState.READY)
    assert (complete.rows, complete.chunks) == (4, 6)


def test_a_trigger_counts_as_followed_at_its_end() -> None:
    wanted = spec(sync="triggered", trigger=4)
    for complete, triggered in ((False, 1), (True, 4)):
        progress = Progress(1, 0, complete=complete)
        told = tell(4, spec=wanted, last=last(triggered=1), progress=progress)
        assert told.triggered == triggered


@pytest.mark.parametrize(
    ("lack", "state"),
    [
        (Unfit("no text", "name one"), IndexState.FAILED),
        (DimensionsWrong("7 and 8"), IndexState.FAILED),
        (VectorsUnreachable("refused"), IndexState.DEGRADED),
    ],
)
def test_what_is_wrong_is_told_with_a_remedy(lack: Exception, state: IndexState) -> None:
    standing = Standing()
    standing.complain(lack)
    told = tell(last=last(rows=3, generation=1), standing=standing)
    assert (told.state, told.reason, told.rows) == (state, str(lack), 3)
    assert told.remedy
    standing.well()
    well = tell(last=told, standing=standing)
    assert (well.reason, well.shaken_at) == (None, standing.shaken_at)
    assert (well.shaken_at is not None) is isinstance(lack, VectorsUnreachable)


def test_an_index_is_not_healthy_whose_source_is_not() -> None:
    source = SourceReported(
        table="main.tests.docs",
        state=SourceState.DEGRADED,
        reason="the slot is gone",
        remedy="make it anew",
        reported_at=NOON,
    )
    told = tell(last=last(), source=source)
    assert (told.state, told.remedy) == (IndexState.DEGRADED, "make it anew")
    assert "the slot is gone" in str(told.reason)
    well = replace(source, state=SourceState.STREAMING, reason=None)
    assert tell(last=last(), source=well).state is IndexState.READY


def test_what_the_store_has_lost_is_not_healthy_until_it_is_whole_again() -> None:
    standing = Standing(anew=True)
    progress = Progress(1, 2, complete=False)
    told = tell(last=last(), standing=standing, progress=progress)
    assert told.state is IndexState.DEGRADED


def test_what_a_comparison_found_is_told() -> None:
    found = IndexReconciled(index=INDEX, generation=1, missing=2, reconcile=4, reconciled_at=NOON)
    told = tell(last=last(), reconciled=found)
    assert (told.state, told.drift, told.reconcile) == (IndexState.READY, 2, 4)
    missed = tell(last=told, reconciled=replace(found, missing=0, missed=5))
    assert (missed.state, missed.drift) == (IndexState.DEGRADED, 5)
    assert "tessera source snapshot main.tests.docs" in str(missed.remedy)


def test_what_others_have_told_stays_told() -> None:
    before = last(drift=3, reconciled_at=NOON, freshness_ms=40, embedded=9)
    told = tell(last=before)
    assert told == before
    assert same(replace(told, reported_at=NOON.replace(hour=13)), before)
    assert not same(replace(told, waiting=1), before)
