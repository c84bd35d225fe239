"""What a request counts with under limits, and what it is told when that is too much."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas.events import (
    Charge,
    Entry,
    Judgement,
    Reason,
    Refusal,
    Sampling,
    Task,
    Usage,
    UsageCounted,
)
from streams.gateway.limits.amounts import really
from streams.gateway.limits.settle import given_back, settled
from streams.gateway.limits.weigh import Weighed
from tests.unit.asking import NOON
from tests.unit.limiting import HOUR, Gateway, refusal_of, routed_with, rule, view_with


def test_under_no_limit_nothing_is_reserved() -> None:
    assert Gateway(view_with()).asks() == Weighed()


def test_the_request_over_the_limit_hears_when_to_come_again() -> None:
    gateway = Gateway(view_with(rule(most=2, window="1m")))
    assert isinstance(gateway.asks(), Weighed)
    assert isinstance(gateway.asks(at=NOON + timedelta(seconds=10)), Weighed)
    refusal = refusal_of(gateway.asks(at=NOON + timedelta(seconds=20)))
    assert refusal.reason is Reason.LIMIT_EXCEEDED
    assert (refusal.rule, refusal.limit, refusal.used) == ("main.tests.asked/rule", "2", "2")
    assert refusal.retry_after_ms == 41_000
    assert refusal.message == (
        "ann uses 2 of 2 requests within 1m (main.tests.asked/rule); "
        "try again in 41 s, or have the limit raised"
    )
    assert isinstance(gateway.asks("bob", at=NOON + timedelta(seconds=20)), Weighed)
    assert isinstance(gateway.asks(at=NOON + timedelta(seconds=61)), Weighed)


def test_tokens_count_with_all_that_may_be_produced_until_they_are_known() -> None:
    gateway = Gateway(view_with(rule(unit="total_tokens", most=230)))
    first = gateway.asks()
    [counts] = gateway.used(first)
    assert counts > 100, "the prompt and reserve_tokens"
    assert isinstance(gateway.asks(), Weighed)
    assert refusal_of(gateway.asks()).used == str(2 * counts)
    gateway.settles(first, usage=Usage(prompt_tokens=5, completion_tokens=2))
    assert gateway.used(first) == [counts + 7]
    assert isinstance(gateway.asks(), Weighed)


def test_with_fifteen_tokens_two_calls_of_seven_pass_and_the_third_does_not() -> None:
    gateway = Gateway(view_with(rule(unit="output_tokens", most=15)))
    seven: dict[str, Any] = {"sampling": Sampling(max_tokens=7)}
    assert isinstance(gateway.asks(**seven), Weighed)
    assert isinstance(gateway.asks(**seven), Weighed)
    refusal = refusal_of(gateway.asks(**seven))
    assert (refusal.limit, refusal.used) == ("15", "14")
    assert "this request counts with 7" in refusal.message


def test_what_alone_is_more_than_the_limit_is_told_that_waiting_is_in_vain() -> None:
    gateway = Gateway(view_with(rule(unit="output_tokens", most=15)))
    refusal = refusal_of(gateway.asks(sampling=Sampling(max_tokens=16)))
    assert refusal.retry_after_ms is None
    assert "never fits" in refusal.message


@pytest.mark.parametrize("task", [Task.AGENT, Task.EMBEDDING, Task.RERANK, Task.TOOL])
def test_what_produces_no_tokens_passes_a_spent_limit_of_them(task: Task) -> None:
    gateway = Gateway(view_with(rule(unit="output_tokens", most=0)))
    assert isinstance(gateway.asks(task=task, inputs=("text",)), Weighed)
    assert isinstance(gateway.asks(), Refusal)


@pytest.mark.parametrize("task", [Task.AGENT, Task.TOOL])
@pytest.mark.parametrize("unit", ["input_tokens", "output_tokens", "total_tokens"])
def test_agents_and_tools_use_no_tokens_themselves(task: Task, unit: str) -> None:
    gateway = Gateway(view_with(rule(unit=unit, most=10)))
    for _ in range(20):
        weighed = gateway.asks(task=task, inputs=('{"a": "' + "b" * 400 + '"}',))
        assert isinstance(weighed, Weighed)
        assert gateway.used(weighed) == [0]


def test_calls_of_tools_count_as_requests() -> None:
    gateway = Gateway(view_with(rule(unit="requests", most=1)))
    assert isinstance(gateway.asks(task=Task.TOOL, inputs=("{}",)), Weighed)
    assert refusal_of(gateway.asks(task=Task.TOOL, inputs=("{}",))).used == "1"


def test_cached_tokens_count_when_they_are_known() -> None:
    gateway = Gateway(view_with(rule(unit="cached_tokens", most=10)))
    first = gateway.asks()
    assert gateway.used(first) == [0]
    gateway.settles(first, usage=Usage(prompt_tokens=50, cached_tokens=12))
    assert refusal_of(gateway.asks()).used == "12"


COST = rule(unit="cost", most="0.45")


def test_of_five_calls_at_fifteen_cents_a_budget_of_forty_five_holds_three() -> None:
    gateway = Gateway(view_with(COST, request="0.15"))
    found = [gateway.asks() for _ in range(5)]
    assert [isinstance(each, Weighed) for each in found] == [True] * 3 + [False] * 2
    refusal = refusal_of(found[-1])
    assert refusal.reason is Reason.BUDGET_EXCEEDED
    assert (refusal.limit, refusal.used) == ("0.45", "0.45")
    assert "uses $0.45 of $0.45 within 1h" in refusal.message
    assert "counts with $0.15" in refusal.message


def test_what_was_reserved_too_much_comes_back() -> None:
    """Each is estimated at $2 and costs $0.001: a budget of $5 holds a hundred in a row."""
    gateway = Gateway(view_with(rule(unit="cost", most=5), output="2000", request="1.8"))
    for _ in range(100):
        weighed = gateway.asks()
        assert isinstance(weighed, Weighed)
        assert weighed.charges[0].amount == 2 * 10**12
        gateway.settles(weighed, usage=Usage(), cost=10**9)
    assert gateway.used(weighed) == [10**11]


def test_an_unknown_price_is_refused_or_counts_as_a_flat_sum_and_is_never_free() -> None:
    refusal = refusal_of(Gateway(view_with(COST)).asks())
    assert (refusal.reason, refusal.rule) == (Reason.PRICE_UNKNOWN, "main.tests.asked/rule")
    gateway = Gateway(view_with(COST | {"unpriced": "0.2"}))
    first = gateway.asks()
    assert isinstance(gateway.asks(), Weighed)
    assert refusal_of(gateway.asks()).used == "0.4"
    gateway.settles(first, usage=Usage(prompt_tokens=1))
    assert gateway.used(first) == [4 * 10**11]


def test_what_costs_nothing_passes_a_spent_budget() -> None:
    gateway = Gateway(view_with(COST | {"most": 0}, request="0"))
    weighed = gateway.asks()
    assert gateway.used(weighed) == [0]
    # Should it fall back to what costs something, that counts.
    gateway.settles(weighed, usage=Usage(), cost=7)
    assert gateway.used(weighed) == [7]
    assert isinstance(gateway.asks(), Weighed)


def test_a_request_that_one_limit_refuses_uses_nothing_of_another() -> None:
    """Two requests an hour, one at a time: A runs, B is refused, A ends, C passes."""
    slots = rule("slots", unit="in_flight", most=1, window=None)
    gateway = Gateway(view_with(rule(most=2), slots))
    a = gateway.asks()
    b = refusal_of(gateway.asks())
    assert b.rule == "main.tests.asked/slots"
    assert b.retry_after_ms
    assert gateway.used(a) == [1, 1]
    gateway.settles(a)
    c = gateway.asks()
    assert isinstance(c, Weighed)
    assert gateway.used(c) == [2, 1]


@pytest.mark.parametrize("failed", [True, False])
def test_a_slot_is_free_from_the_instant_on_that_its_request_ended_however_it_did(
    failed: bool,
) -> None:
    gateway = Gateway(view_with(rule(unit="in_flight", window=None)))
    ended = NOON + timedelta(seconds=7)
    first = gateway.asks()
    refusal = refusal_of(gateway.asks(at=ended))
    assert (refusal.limit, refusal.used, refusal.retry_after_ms) == ("1", "1", 1000)
    gateway.settles(first, at=ended, failed=failed)
    assert gateway.used(first, ended) == [0]
    assert isinstance(gateway.asks(at=ended), Weighed)


def test_a_slot_whose_request_was_lost_is_free_a_minute_after_its_deadline() -> None:
    gateway = Gateway(view_with(rule(unit="in_flight", window=None)))
    gateway.asks()
    ends = NOON + HOUR + timedelta(seconds=60)
    assert isinstance(gateway.asks(at=ends - timedelta(milliseconds=1)), Refusal)
    assert isinstance(gateway.asks(at=ends), Weighed)


def test_a_request_that_failed_counts_unless_its_limit_says_otherwise() -> None:
    gateway = Gateway(view_with(rule(), rule("kind", counts_failed=False, window="1d")))
    weighed = gateway.asks()
    gateway.settles(weighed, failed=True)
    assert gateway.used(weighed) == [1, 0]


def test_a_rule_that_is_only_evaluated_refuses_nothing_and_counts_all_the_same() -> None:
    gateway = Gateway(view_with(rule(shadow=True)))
    first, second = gateway.asks(), gateway.asks()
    assert isinstance(first, Weighed)
    assert isinstance(second, Weighed)
    assert first.judgements == ()
    found = Judgement(rule="main.tests.asked/rule", stage="admit", verdict="DENY", shadow=True)
    assert second.judgements == (found,)
    assert gateway.used(second) == [2]
    unpriced = Gateway(view_with(COST | {"shadow": True})).asks()
    assert isinstance(unpriced, Weighed)
    assert unpriced.judgements == (found,)


def test_an_answer_from_the_cache_counts_requests_and_what_is_in_flight_only() -> None:
    slots = rule("slots", unit="in_flight", window=None)
    view = view_with(rule(most=2), slots, rule("tokens", unit="total_tokens", most=0))
    weighed = Gateway(view).asks(cached=True)
    assert isinstance(weighed, Weighed)
    assert [charge.unit for charge in weighed.charges] == ["requests", "in_flight"]


def test_a_limit_that_is_raised_holds_at_once_in_the_same_window() -> None:
    gateway = Gateway(view_with(rule(most=1)))
    gateway.asks()
    assert isinstance(gateway.asks(), Refusal)
    gateway.view = view_with(rule(most=2))
    weighed = gateway.asks()
    assert gateway.used(weighed) == [2]
    assert isinstance(gateway.asks(), Refusal)
    gateway.view = view_with(rule(most=1))
    assert refusal_of(gateway.asks()).used == "2"


@pytest.mark.parametrize("most", [1, 0])
def test_what_was_decided_on_a_record_is_decided_the_same_way_when_it_is_read_again(
    most: int,
) -> None:
    gateway = Gateway(view_with(rule(most=most)))
    first = gateway.asks()
    gateway.asked -= 1
    gateway.view = view_with(rule(most=1 - most))
    again = gateway.asks()
    assert len(gateway.counters) == most, "it counts once, or not at all"
    if isinstance(first, Weighed):
        assert again == replace(first, again=True)
        assert gateway.used(first) == [1]
    else:
        assert again == first


def test_what_a_rule_that_is_only_evaluated_found_is_told_again_when_its_record_is_read_again() -> (
    None
):
    gateway = Gateway(view_with(rule(shadow=True)))
    gateway.asks()
    first = gateway.asks()
    assert isinstance(first, Weighed)
    assert len(first.judgements) == 1
    gateway.asked -= 1
    # By now it would find nothing.
    gateway.view = view_with(rule(shadow=True, most=9))
    assert gateway.asks() == replace(first, again=True)


def test_counters_that_tenants_share_are_asked_elsewhere_in_the_order_of_their_homes() -> None:
    view = view_with(
        rule("z", per="service"),
        rule("tenant", per="tenant"),
        rule("group", per="group", to=["eng"]),
    )
    weighed = Gateway(view).asks()
    assert isinstance(weighed, Weighed)
    assert [each.counter.split("/")[1] for each in weighed.charges] == ["tenant"]
    assert [each.counter.split("/")[1] for each in weighed.asks] == ["group", "z"]
    assert all(each.home == each.counter for each in weighed.asks)


def test_a_settlement_goes_once_to_each_home() -> None:
    own = charge("own", "acme")
    shared = replace(charge("shared", "shared"), unit="total_tokens", amount=9)
    weighed = Weighed(charge_id="id", charges=(own, replace(own, counter="other"), shared))
    routed = routed_with(weighed, view_with())
    usage = Usage(prompt_tokens=2, completion_tokens=3)
    entries = [event for _, event in settled(routed, usage, 0, failed=False, now=NOON)]
    assert [
        (each.home, each.shared, [one.amount for one in each.charges])
        for each in entries
        if isinstance(each, UsageCounted)
    ] == [("acme", False, [1, 1]), ("shared", True, [5])]
    assert {each.entry for each in entries if isinstance(each, UsageCounted)} == {Entry.SETTLED}
    back = [event for _, event in given_back(routed, NOON)]
    assert [
        one.amount for each in back if isinstance(each, UsageCounted) for one in each.charges
    ] == [0, 0, 0]
    assert list(settled(routed_with(Weighed(), view_with()), None, 0, failed=True, now=NOON)) == []


def charge(counter: str, home: str) -> Charge:
    return Charge(counter=counter, home=home, unit="requests", window_ms=60_000, amount=1)


@pytest.mark.parametrize(
    ("unit", "usage", "cost", "failed", "amount"),
    [
        ("in_flight", None, None, False, 0),
        ("requests", None, None, True, 50),
        ("input_tokens", Usage(prompt_tokens=3), None, False, 3),
        # A broken stream was paid for as far as it came.
        ("output_tokens", Usage(completion_tokens=3), 5, True, 3),
        ("cost", Usage(completion_tokens=3), 5, True, 5),
        # What nobody counted is as it was reserved, unless nothing came of it.
        ("total_tokens", None, 0, False, 50),
        ("total_tokens", None, 0, True, 0),
        ("cost", Usage(prompt_tokens=3), None, False, 50),
        ("cost", Usage(prompt_tokens=3), None, True, 50),
        ("cost", None, None, True, 50),
        ("cost", None, 0, True, 0),
    ],
)
def test_what_a_request_really_used(
    unit: str, usage: Usage | None, cost: int | None, failed: bool, amount: int
) -> None:
    reserved = replace(charge("counter", "acme"), unit=unit, amount=50)
    assert really(reserved, usage, cost, failed=failed) == amount


def test_a_million_calls_at_a_tenth_of_a_microdollar_cost_ten_cents() -> None:
    gateway = Gateway(view_with(rule(unit="cost", most="0.1"), request="0.0000001"))
    weighed = gateway.asks()
    assert isinstance(weighed, Weighed)
    [each] = weighed.charges
    assert each.amount * 1_000_000 == int(Decimal("0.1") * 10**12)
