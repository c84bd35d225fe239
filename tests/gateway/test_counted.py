"""Limits over two gateways and an HTTP upstream: who is let through, and what it counts with."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import pytest

from infra.tokens import estimate
from schemas.events import Entry, Outcome, Reason, Sampling
from schemas.topics import USAGE_COUNTED
from tests.gateway.town import (
    IN,
    Heard,
    Town,
    connection,
    endpoint,
    one_for_each_partition,
    policy,
    request,
    tenant,
    way,
)
from tests.gateway.upstreams import says
from tests.harness import eventually, soon, unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

# Of their own each time, since what is used up stays so; some on each of both gateways.
TENANTS = one_for_each_partition(unique("counted"))
ASKED = 100
LONG = {
    "prompt_tokens": 262_960,
    "completion_tokens": 1744,
    "prompt_tokens_details": {"cached_tokens": 257_955},
}
RATES = {"input": 1.25, "cached_input": 0.625, "output": 10}


def limit(unit: str, most: float, window: str = "1h", **more: Any) -> dict[str, Any]:
    rule = {"type": "limit", "name": "rule", "per": "tenant", "unit": unit}
    return {**rule, "most": most, "window": window, **more}


@pytest.fixture(scope="module", autouse=True)
def defined(town: Town) -> None:
    up = town.upstreams
    seven = {"prompt_tokens": 4, "completion_tokens": 3}
    up.scripts.update(
        {
            "good": says(lambda text: ["go", "od"]),
            "long": says(lambda text: ["go", "od"], usage=LONG),
            "seven": says(lambda text: ["go", "od"], usage=seven),
        }
    )
    limits = {
        "fifteen": limit("total_tokens", 15),
        "failing": limit("requests", 2),
        "refunded": limit("requests", 2, counts_failed=False),
        "ten": limit("requests", 10, "1m", per="service"),
        "unpriced": limit("cost", 5),
        "unpriced-flat": limit("cost", 5, unpriced="2"),
    }
    ways = {
        "fifteen": way("a", "counted", "seven"),
        "failing": way("a", "counted", "fails"),
        "refunded": way("a", "counted", "fails"),
        "ten": way("a", "counted-ten", "good"),
        "unpriced": way("a", "counted", "good"),
        "unpriced-flat": way("a", "counted", "good"),
    }
    prices = {"long": [RATES]}
    many = {"failures": 1000, "lasts": "1s"}
    town.define(
        *map(tenant, TENANTS),
        connection("counted", up, prices=prices),
        connection("counted-ten", up),
        *(policy(f"counted-{name}", rule) for name, rule in limits.items()),
        *(
            endpoint(f"counted-{name}", to, policies=[f"{IN}.counted-{name}"], cooldown=many)
            for name, to in ways.items()
        ),
        endpoint("counted-long", way("a", "counted", "long")),
    )


def settled(town: Town, heard: Heard) -> None:
    """Returns when what a request has reserved is settled."""

    def is_settled() -> bool:
        return any(
            each.request_id == heard.request.request_id and each.entry is Entry.SETTLED
            for each in town.bus.events(USAGE_COUNTED, heard.request.tenant)
        )

    eventually(is_settled, 90, "a settlement")


async def test_of_a_hundred_at_once_over_two_gateways_exactly_ten_a_minute_are_admitted(
    town: Town,
) -> None:
    async with AsyncExitStack() as opened:
        callers = [await opened.enter_async_context(town.caller(each)) for each in TENANTS]
        found = await asyncio.gather(
            *(
                callers[number % len(callers)].ask("counted-ten", stream=number % 4 < 2)
                for number in range(ASKED)
            )
        )
    outcomes = Counter(each.reason for each in found)
    assert outcomes == {None: 10, Reason.LIMIT_EXCEEDED: ASKED - 10}
    for each in found:
        if each.refusal:
            assert 0 < (each.refusal.retry_after_ms or 0) <= 61_000
    assert len(town.upstreams.to("counted-ten")) == 10


async def test_of_fifteen_tokens_two_calls_of_seven_pass_and_the_third_does_not(
    town: Town,
) -> None:
    asked = request(TENANTS[0], f"{IN}.counted-fifteen")
    sampling = Sampling(max_tokens=7 - estimate(asked))
    async with town.caller(TENANTS[0]) as caller:
        for _ in range(2):
            heard = await caller.ask("counted-fifteen", sampling=sampling)
            assert heard.reason is None, heard.refusal
            await asyncio.to_thread(settled, town, heard)
        refused = await caller.ask("counted-fifteen", sampling=sampling)
    assert refused.refusal
    assert refused.reason is Reason.LIMIT_EXCEEDED
    assert (refused.refusal.limit, refused.refusal.used) == ("15", "14")


async def test_a_request_that_fails_counts_unless_its_limit_gives_it_back(town: Town) -> None:
    async with town.caller(TENANTS[1]) as caller:
        for name in ("counted-failing", "counted-refunded"):
            for _ in range(2):
                heard = await caller.ask(name)
                assert heard.reason is Reason.PROVIDER_UNAVAILABLE
                await asyncio.to_thread(settled, town, heard)
        assert (await caller.ask("counted-failing")).reason is Reason.LIMIT_EXCEEDED

        # What is settled, the gateway has yet to read.
        async def is_given_back() -> bool:
            return (await caller.ask("counted-refunded")).reason is Reason.PROVIDER_UNAVAILABLE

        await soon(is_given_back, 60, "a request that is given back")


async def test_a_price_that_nobody_knows_is_refused_or_reserved_as_a_flat_sum(town: Town) -> None:
    async with town.caller(TENANTS[2]) as caller:
        before = len(town.upstreams.to("counted"))
        refused = await caller.ask("counted-unpriced")
        assert refused.reason is Reason.PRICE_UNKNOWN
        assert len(town.upstreams.to("counted")) == before
        row = await asyncio.to_thread(town.row, refused.request.request_id)
        assert (row.outcome, row.attempts) == (Outcome.REFUSED, 0)
        for _ in range(2):
            heard = await caller.ask("counted-unpriced-flat")
            assert heard.reason is None, heard.refusal
            row = await asyncio.to_thread(town.row, heard.request.request_id)
            assert row.cost is None
            await asyncio.to_thread(settled, town, heard)
        # Two of $2 are spent of $5, and a third is not to be had.
        assert (await caller.ask("counted-unpriced-flat")).reason is Reason.BUDGET_EXCEEDED


async def test_what_was_read_from_a_cache_of_a_long_prompt_has_its_own_price(town: Town) -> None:
    async with town.caller(TENANTS[3]) as caller:
        heard = await caller.stream("counted-long")
    row = await asyncio.to_thread(town.row, heard.request.request_id)
    assert (row.prompt_tokens, row.cached_tokens, row.completion_tokens) == (262_960, 257_955, 1744)
    assert row.cost == Decimal("0.184918125")
