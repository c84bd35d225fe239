"""Counters against a model that keeps every entry and counts anew each time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.gateway.limits.counter import ASK_AGAIN_MS, GRAINS, LATE_MS, Counter

MINUTE = 60_000
GRAIN = MINUTE // GRAINS
NEVER = 10**15


@dataclass
class Naive:
    """All that happened, and what counts of it at a moment."""

    unit: str
    clock: int = 0
    booked: dict[str, tuple[int, int]] = field(default_factory=dict)
    held: dict[str, tuple[int, int]] = field(default_factory=dict)
    open: dict[str, int] = field(default_factory=dict)

    def reserve(self, name: str, amount: int, at: int, until: int) -> None:
        self.clock = max(self.clock, at)
        if not self.is_open(name):
            self.open[name] = until
            where = self.booked if self.unit == "requests" else self.held
            where[name] = (amount, self.clock if self.unit == "requests" else until)

    def settle(self, name: str, amount: int, at: int) -> None:
        self.clock = max(self.clock, at)
        if not self.is_open(name):
            return
        del self.open[name]
        if self.unit == "requests":
            self.booked[name] = (amount, self.booked[name][1])
            return
        del self.held[name]
        if self.unit != "in_flight":
            self.booked[name] = (amount, self.clock)

    def is_open(self, name: str) -> bool:
        late = 0 if self.unit in {"requests", "in_flight"} else LATE_MS
        return name in self.open and self.clock < self.open[name] + late

    def used(self, now: int) -> int:
        self.clock = max(self.clock, now)
        booked = sum(
            amount
            for amount, at in self.booked.values()
            if (at // GRAIN + 1) * GRAIN > self.clock - MINUTE
        )
        return booked + sum(amount for amount, until in self.held.values() if self.clock < until)


# Milliseconds that pass before each step; the clock may step back.
WAITS = st.one_of(st.integers(0, 3 * GRAIN), st.integers(-5 * GRAIN, 2 * MINUTE))
STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle"]), WAITS, st.integers(0, 9), st.integers(1, 50)),
    max_size=60,
)
UNITS = st.sampled_from(["requests", "in_flight", "total_tokens"])


def played(unit: str, steps: list[tuple[str, int, int, int]]) -> tuple[Counter, Naive, int]:
    counter, naive = Counter(unit, MINUTE), Naive(unit)
    now, count = 10 * MINUTE, 0
    for step, wait, number, amount in steps:
        now += wait
        if step == "reserve":
            count += 1
            # As charges are named: never twice the same, however often it comes.
            for each in (counter, naive):
                each.reserve(f"{count}", amount, now, now + 20 * GRAIN)
                each.reserve(f"{count}", amount, now, now + 20 * GRAIN)
        else:
            for each in (counter, naive):
                each.settle(f"{count - number}", amount, now)
        assert counter.used(now) == naive.used(now)
    return counter, naive, now


@settings(max_examples=300, deadline=None)
@given(unit=UNITS, steps=STEPS)
def test_a_counter_counts_what_the_model_counts(
    unit: str, steps: list[tuple[str, int, int, int]]
) -> None:
    played(unit, steps)


@settings(max_examples=200, deadline=None)
@given(unit=UNITS, steps=STEPS, later=st.integers(0, 2 * MINUTE), more=STEPS)
def test_what_is_restored_goes_on_as_if_nothing_had_been(
    unit: str,
    steps: list[tuple[str, int, int, int]],
    later: int,
    more: list[tuple[str, int, int, int]],
) -> None:
    counter, _, now = played(unit, steps)
    again = Counter.restored(unit, MINUTE, counter.sums(), counter.held(), counter.clock)
    assert again.used(now + later) == counter.used(now + later)
    for step, wait, number, amount in more:
        now += wait
        for each in (counter, again):
            if step == "reserve":
                each.reserve(f"new {number}", amount, now, now + MINUTE)
            else:
                each.settle(f"{number}", amount, now)
        assert again.used(now) == counter.used(now)
    assert again.is_empty(NEVER) == counter.is_empty(NEVER)


@settings(max_examples=200, deadline=None)
@given(
    arrivals=st.lists(st.integers(0, 2 * GRAIN), max_size=200),
    most=st.integers(1, 20),
)
def test_no_window_however_it_lies_holds_more_than_the_limit(
    arrivals: list[int], most: int
) -> None:
    counter, now, passed = Counter("requests", MINUTE), 10 * MINUTE, []
    for number, wait in enumerate(arrivals):
        now += wait
        if counter.used(now) + 1 <= most:
            counter.reserve(f"{number}", 1, now, now + MINUTE)
            passed.append(now)
    for first in passed:
        assert sum(first <= each < first + MINUTE for each in passed) <= most


@settings(max_examples=200, deadline=None)
@given(unit=st.sampled_from(["requests", "total_tokens"]), steps=STEPS, amount=st.integers(1, 60))
def test_what_waited_as_long_as_it_was_told_fits(
    unit: str, steps: list[tuple[str, int, int, int]], amount: int
) -> None:
    counter, naive, now = played(unit, steps)
    wait = counter.wait_ms(amount, 60, now)
    assert wait is not None
    if wait == 0:
        assert counter.used(now) + amount <= 60
    else:
        assert counter.used(now) + amount > 60
        # The clock may have stepped back: it goes on where it was.
        at = counter.clock + wait
        held = sum(amount for amount, until in naive.held.values() if at < until)
        assert wait == ASK_AGAIN_MS or counter.used(at) + amount <= max(60, held + amount)


def test_what_is_more_than_the_limit_never_fits() -> None:
    assert Counter("total_tokens", MINUTE).wait_ms(16, 15, 0) is None


def test_a_clock_that_steps_back_gives_no_quota_and_makes_no_window_negative() -> None:
    counter = Counter("requests", MINUTE)
    counter.reserve("first", 10, 10 * MINUTE, 12 * MINUTE)
    back = 10 * MINUTE - 5000
    assert counter.used(back) == 10
    counter.reserve("second", 5, back, 12 * MINUTE)
    assert counter.used(back + MINUTE) == 15
    assert counter.used(11 * MINUTE + GRAIN - 1) == 15
    assert counter.used(11 * MINUTE + GRAIN) == 0


def test_a_settlement_counts_once_and_in_place_of_the_reservation() -> None:
    counter = Counter("cost", MINUTE)
    counter.reserve("charge", 2000, MINUTE, 3 * MINUTE)
    assert counter.used(MINUTE) == 2000
    for _ in range(2):
        counter.settle("charge", 1, MINUTE)
    assert counter.used(MINUTE) == 1


def test_a_refund_takes_a_request_out_of_the_grain_that_it_was_counted_in() -> None:
    counter = Counter("requests", MINUTE)
    counter.reserve("charge", 1, MINUTE, 9 * MINUTE)
    for _ in range(2):
        counter.settle("charge", 0, MINUTE + 7 * GRAIN)
    assert counter.used(MINUTE + 7 * GRAIN) == 0
    assert counter.is_empty(MINUTE + 7 * GRAIN)


def test_a_refund_of_what_slid_out_already_gives_nothing_more() -> None:
    counter = Counter("requests", MINUTE)
    counter.reserve("charge", 1, MINUTE, 9 * MINUTE)
    counter.reserve("other", 1, 3 * MINUTE, 9 * MINUTE)
    counter.settle("charge", 0, 3 * MINUTE)
    assert counter.used(3 * MINUTE) == 1


def test_a_lease_that_ended_frees_its_slot() -> None:
    counter = Counter("in_flight", 0)
    counter.reserve("killed", 1, 0, MINUTE)
    assert counter.used(MINUTE - 1) == 1
    assert counter.used(MINUTE) == 0
    assert counter.is_empty(MINUTE)


def test_what_is_settled_after_its_lease_counts_all_the_same() -> None:
    counter = Counter("total_tokens", MINUTE)
    counter.reserve("late", 100, 0, MINUTE)
    assert counter.used(2 * MINUTE) == 0
    counter.settle("late", 70, 3 * MINUTE)
    counter.settle("late", 70, 3 * MINUTE)
    assert counter.used(3 * MINUTE) == 70


@pytest.mark.parametrize("unit", ["requests", "in_flight", "cost"])
def test_memory_stays_bounded_by_what_is_under_way(unit: str) -> None:
    counter = Counter(unit, MINUTE)
    for number in range(10_000):
        now = number * 100
        counter.reserve(f"{number}", 1, now, now + MINUTE)
        counter.settle(f"{number}", 1, now + 50)
        counter.used(now)
    assert len(counter.sums()) <= GRAINS + 1
    assert len(counter.held()) <= MINUTE // 100
    assert len(counter._ends) <= MINUTE // 100 + 1
