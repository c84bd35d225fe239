"""What tokens cost: exact, and never nothing where nobody knows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.prices import dollars, picodollars, price_at
from schemas.events import Usage
from schemas.routing import Price

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

RATES = st.decimals(Decimal("0.001"), 5000, places=6) | st.just(Decimal(0))
PRICES = st.builds(
    Price,
    input=RATES,
    cached_input=st.none() | RATES,
    cache_write=st.none() | RATES,
    output=RATES,
    request=st.decimals(0, 100, places=9),
)
COUNTS = st.integers(0, 2**40)
USES = st.builds(
    Usage,
    prompt_tokens=COUNTS,
    completion_tokens=COUNTS,
    cached_tokens=COUNTS,
    cache_write_tokens=COUNTS,
    reasoning_tokens=COUNTS,
)


def cost(price: Price, used: Usage) -> Decimal:
    return dollars(picodollars(price, used))


def test_cached_tokens_are_read_at_their_own_rate() -> None:
    price = Price(input="1.25", cached_input="0.625", output=10)  # type: ignore[arg-type]
    used = Usage(prompt_tokens=262_960, cached_tokens=257_955, completion_tokens=1744)
    assert cost(price, used) == Decimal("0.184918125")


def test_reasoning_tokens_are_among_those_produced() -> None:
    price = Price(input=2, cached_input="0.5", output=8)  # type: ignore[arg-type]
    used = Usage(prompt_tokens=1000, cached_tokens=400, completion_tokens=500)
    assert cost(price, used) == Decimal("0.0054")
    assert cost(price, replace(used, reasoning_tokens=300)) == Decimal("0.0054")


def test_tokens_written_to_a_cache_have_a_rate_of_their_own() -> None:
    price = Price(input=3, cached_input="0.3", cache_write="3.75", output=15)  # type: ignore[arg-type]
    used = Usage(
        prompt_tokens=6 + 30_940 + 460,
        cached_tokens=30_940,
        cache_write_tokens=460,
        completion_tokens=102,
    )
    assert cost(price, used) == Decimal("0.012555")


def test_rates_that_are_left_out_are_those_of_the_input() -> None:
    price = Price(input=Decimal(2))
    used = Usage(prompt_tokens=10, cached_tokens=3, cache_write_tokens=3)
    assert cost(price, used) == Decimal("2e-5")


def test_a_million_calls_of_a_tenth_of_a_microdollar_are_a_tenth_of_a_dollar() -> None:
    price = Price(input=Decimal("0.1"))
    single = picodollars(price, Usage(prompt_tokens=1))
    assert dollars(single) == Decimal("0.0000001")
    assert dollars(sum(single for _ in range(1_000_000))) == Decimal("0.1")
    assert dollars(single * 1_000_000) == Decimal("0.1")


def test_each_request_can_cost_by_itself() -> None:
    assert cost(Price(request=Decimal("0.000000001")), Usage()) == Decimal("1e-9")


@given(price=PRICES, used=USES)
def test_a_cost_is_what_a_calculation_without_rounding_gives(price: Price, used: Usage) -> None:
    cached = min(used.cached_tokens, used.prompt_tokens)
    written = min(used.cache_write_tokens, used.prompt_tokens - cached)
    parts = [
        (used.prompt_tokens - cached - written, price.input),
        (cached, price.input if price.cached_input is None else price.cached_input),
        (written, price.input if price.cache_write is None else price.cache_write),
        (used.completion_tokens, price.output),
    ]
    exact = sum((Fraction(rate) * count / 10**6 for count, rate in parts), Fraction(price.request))
    assert Fraction(dollars(picodollars(price, used))) == exact


@given(price=PRICES, used=st.lists(USES, max_size=8))
def test_what_requests_cost_does_not_depend_on_the_order_they_are_added_in(
    price: Price, used: list[Usage]
) -> None:
    costs = [picodollars(price, each) for each in used]
    assert dollars(sum(costs)) == dollars(sum(reversed(costs)))
    assert all(each >= 0 for each in costs)


def test_the_latest_price_that_has_come_holds() -> None:
    old = Price(input=Decimal(1))
    new = Price(input=Decimal(2), since=NOON)
    later = Price(input=Decimal(3), since=NOON + DAY)
    for prices in ([old, new, later], [later, new, old]):
        assert price_at(prices, NOON - DAY) is old
        assert price_at(prices, NOON) is new
        assert price_at(prices, NOON + 2 * DAY) is later


def test_before_the_first_price_none_is_known() -> None:
    assert price_at([Price(since=NOON)], NOON - timedelta(microseconds=1)) is None
    assert price_at([], NOON) is None


@pytest.mark.parametrize("since", ["2026-03-01", "2026-03-01T00:00:00"])
def test_a_price_from_a_day_on_holds_from_its_beginning_in_utc(since: str) -> None:
    price = Price.model_validate({"since": since, "input": 1})
    assert price_at([price], datetime(2026, 3, 1, tzinfo=UTC)) is price
    assert price_at([price], datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)) is None
