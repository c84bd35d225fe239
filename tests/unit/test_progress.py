"""What counts as standing still."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.health import Place, Progress

STALL_S = 60.0
ASK_EVERY_S = 2.0
KEY = ("t", 0)


def place(committed: int, end: int, *, mine: bool = True, partition: int = 0) -> Place:
    return Place(topic="t", partition=partition, committed=committed, end=end, mine=mine)


def watched(seconds: float, places: Sequence[Place], progress: Progress | None = None) -> Progress:
    """Returns progress that has seen the same places for so long."""
    progress = progress or Progress(STALL_S)
    first = progress.seen_at if progress.places else -ASK_EVERY_S
    for tick in range(1, int(seconds / ASK_EVERY_S) + 2):
        progress.observe(places, True, first + tick * ASK_EVERY_S)
    return progress


def test_an_idle_partition_never_alarms() -> None:
    progress = watched(100 * STALL_S, [place(7, 7)])
    assert progress.stalled(progress.seen_at) == []


def test_the_time_that_a_partition_was_idle_does_not_count_when_a_record_comes() -> None:
    progress = watched(10 * STALL_S, [place(7, 7)])
    watched(STALL_S / 2, [place(7, 8)], progress)
    assert progress.stalled(progress.seen_at) == []


@given(blocked_at=st.floats(min_value=0, max_value=10 * STALL_S))
def test_a_partition_that_stands_still_is_flagged_between_one_and_two_stall_times(
    blocked_at: float,
) -> None:
    progress = Progress(STALL_S)
    flagged_at = None
    tick = 0.0
    while flagged_at is None:
        progress.observe([place(7, 8 if tick >= blocked_at else 7)], True, tick)
        if progress.stalled(tick):
            flagged_at = tick
        tick += ASK_EVERY_S
    assert STALL_S < flagged_at - blocked_at < 2 * STALL_S


def test_progress_starts_the_clock_anew_however_much_waits() -> None:
    progress = Progress(STALL_S)
    for tick in range(1000):
        # One record in a little less than the stall time, while thousands wait.
        committed = int(tick * ASK_EVERY_S / (STALL_S - ASK_EVERY_S))
        progress.observe([place(committed, 10_000)], True, tick * ASK_EVERY_S)
        assert progress.stalled(tick * ASK_EVERY_S) == []


def test_partitions_of_others_do_not_count() -> None:
    progress = watched(10 * STALL_S, [place(0, 5, mine=False)])
    assert progress.stalled(progress.seen_at) == []


def test_a_partition_that_comes_over_from_another_gets_the_whole_stall_time() -> None:
    progress = watched(10 * STALL_S, [place(0, 5, mine=False)])
    watched(STALL_S / 2, [place(0, 5)], progress)
    assert progress.stalled(progress.seen_at) == []
    watched(STALL_S, [place(0, 5)], progress)
    assert progress.stalled(progress.seen_at) == [KEY]


def test_only_the_partition_that_stands_still_is_named() -> None:
    progress = Progress(STALL_S)
    for tick in range(100):
        places = [place(0, 5), place(tick, 1000, partition=1), place(5, 5, partition=2)]
        progress.observe(places, True, tick * ASK_EVERY_S)
    assert progress.stalled(progress.seen_at) == [KEY]


def test_an_excused_partition_gets_another_stall_time() -> None:
    progress = watched(2 * STALL_S, [place(0, 1)])
    assert progress.stalled(progress.seen_at) == [KEY]
    progress.excuse(KEY, progress.seen_at)
    assert progress.stalled(progress.seen_at) == []
    watched(STALL_S / 2, [place(0, 1)], progress)
    assert progress.stalled(progress.seen_at) == []
    watched(STALL_S, [place(0, 1)], progress)
    assert progress.stalled(progress.seen_at) == [KEY]


@pytest.mark.parametrize(("committed", "end", "lag"), [(3, 10, 7), (10, 10, 0), (11, 10, 0)])
def test_lag_is_what_lies_beyond_the_commit_and_never_negative(
    committed: int, end: int, lag: int
) -> None:
    assert place(committed, end).lag == lag
