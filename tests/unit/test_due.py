"""Which indexes are compared with their sources, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.events import IndexReconciled, IndexReported, IndexState
from schemas.indexes import IndexSpec
from workers.reconciling.due import is_due

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVERY, AGAIN = timedelta(minutes=15), timedelta(seconds=30)
SPEC = IndexSpec(source="main.tests.docs", text="body", endpoint="main.tests.words")
READY = IndexReported(index="i", state=IndexState.READY, generation=1, reported_at=NOON)
FOUND = IndexReconciled(index="i", generation=1, reconciled_at=NOON)
STALE = replace(FOUND, stale=1)


def due(
    spec: IndexSpec = SPEC,
    last: IndexReported | None = READY,
    found: IndexReconciled | None = FOUND,
    after: timedelta = timedelta(),
) -> bool:
    return is_due(spec, last, found, every=EVERY, again=AGAIN, now=NOON + after)


def test_what_was_never_compared_is_due() -> None:
    assert due(found=None)
    assert due(found=replace(FOUND, generation=2))


def test_one_that_differs_is_compared_sooner() -> None:
    assert [due(after=each) for each in (AGAIN, EVERY)] == [False, True]
    for found in (STALE, replace(FOUND, missed=1)):
        assert [due(found=found, after=each) for each in (timedelta(), AGAIN)] == [False, True]


def test_one_that_mends_nothing_by_itself_is_compared_as_others() -> None:
    triggered = SPEC.model_copy(update={"sync": "triggered"})
    assert [due(triggered, found=STALE, after=each) for each in (AGAIN, EVERY)] == [False, True]


def test_what_a_silent_store_may_have_lost_is_looked_at_once() -> None:
    shaken = replace(READY, shaken_at=NOON + AGAIN)
    assert due(last=shaken)
    assert not due(last=shaken, found=replace(FOUND, reconciled_at=NOON + AGAIN))


def test_a_wish_is_followed_once() -> None:
    wished = SPEC.model_copy(update={"reconcile": 2})
    assert due(wished)
    assert not due(wished, found=replace(FOUND, reconcile=2))


@pytest.mark.parametrize(
    "last",
    [
        None,
        replace(READY, generation=0),
        replace(READY, building=2),
        replace(READY, state=IndexState.PAUSED),
        replace(READY, state=IndexState.FAILED),
    ],
)
def test_one_that_is_not_complete_waits(last: IndexReported | None) -> None:
    assert not due(last=last, found=None)


def test_what_callers_write_to_has_no_source_to_compare() -> None:
    assert not due(IndexSpec(text="body"), found=None)
