"""Budgets and the routes that a request may fall back on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infra.catalog import CatalogView
from schemas.events import (
    InferenceRefused,
    InferenceRouted,
    InferenceWeighed,
    Reason,
    Refusal,
    Sampling,
    Usage,
)
from streams.gateway.asked import Asked
from streams.gateway.desk import Desk
from streams.gateway.limits.counters import Counters
from streams.gateway.limits.weigh import Weighed, weigh
from streams.gateway.weighed import Heard, pass_on
from tests.seed import view_of
from tests.unit.asking import LIMITS, NOON, ask
from tests.unit.limiting import PLAIN, Gateway, routed_with, rule, view_with

FREE, CHEAP, DEAR = {"input": "0"}, {"request": "0.1"}, {"request": "20"}
BUDGET = rule(unit="cost", per="tenant", most="1")


def view_where(*prices: dict[str, Any] | None, **policy: Any) -> CatalogView:
    """Returns a catalog whose endpoint has a route at each price, the first with a weight."""
    names = [f"main.tests.m{number}" for number in range(len(prices))]
    routes = [
        {"name": f"r{number}", "pool": "first", "model": "m", "entity": name}
        for number, name in enumerate(names)
    ]
    policies = ["main.tests.budget"]
    return view_of(
        [
            *(
                {
                    "kind": "model",
                    "name": name,
                    "spec": {"task": "chat", "prices": [price] if price else []},
                    "versions": [{}],
                }
                for name, price in zip(names, prices, strict=True)
            ),
            {
                "kind": "policy",
                "name": policies[0],
                "spec": {"rules": [{**BUDGET, **policy}]},
            },
            {"kind": "endpoint", "name": PLAIN, "spec": {"routes": routes, "policies": policies}},
            {"kind": "tenant", "name": "acme", "spec": {"accept_unsigned": True}},
            {"kind": "user", "name": "ann", "spec": {"tenant": "acme"}},
        ],
        LIMITS,
    )


def weighed_in(view: CatalogView, counters: Counters | None = None) -> Weighed | Refusal:
    endpoint = view.endpoints[PLAIN]
    asked = Asked(request=ask(), place="requests/0/1", counters=counters or Counters())
    route, *fallbacks = endpoint.routes
    return weigh(asked, "ann", endpoint, route, view, NOON, fallbacks=tuple(fallbacks))


def test_a_budget_is_asked_for_what_the_dearest_costs() -> None:
    weighed = weighed_in(view_where(FREE, CHEAP))
    assert isinstance(weighed, Weighed)
    assert [each.amount for each in weighed.charges] == [10**11]
    assert not weighed.without


@pytest.mark.parametrize("other", [DEAR, None])
def test_a_fallback_that_a_budget_has_no_room_for_or_that_has_no_price_is_not_tried(
    other: dict[str, Any] | None,
) -> None:
    weighed = weighed_in(view_where(FREE, other, CHEAP))
    assert isinstance(weighed, Weighed)
    assert [each.name for each in weighed.without] == ["r1"]
    assert [each.amount for each in weighed.charges] == [10**11]


def test_a_route_that_costs_nothing_serves_where_the_budget_is_spent_and_no_other_does() -> None:
    weighed = weighed_in(view_where(FREE, CHEAP, FREE, most=0))
    assert isinstance(weighed, Weighed)
    assert [each.name for each in weighed.without] == ["r1"]
    assert isinstance(weighed_in(view_where(CHEAP, FREE, most=0)), Refusal)


def test_a_route_without_a_price_is_refused_and_a_fallback_counts_as_the_rule_says() -> None:
    refusal = weighed_in(view_where(None, CHEAP))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.PRICE_UNKNOWN
    weighed = weighed_in(view_where(FREE, None, unpriced="0.3"))
    assert isinstance(weighed, Weighed)
    assert [each.amount for each in weighed.charges] == [3 * 10**11]


@pytest.mark.parametrize("prices", [{"output": "10"}, {"request": "0.1"}])
def test_only_a_price_of_nothing_passes_a_spent_budget(prices: dict[str, Any]) -> None:
    gateway = Gateway(view_with(rule(unit="cost", most=0), input="0", **prices))
    assert isinstance(gateway.asks(sampling=Sampling(max_tokens=0)), Refusal)
    assert isinstance(Gateway(view_with(rule(unit="cost", most=0), input="0")).asks(), Weighed)


def test_what_is_expected_to_produce_nothing_does_not_pass_a_spent_limit_of_tokens() -> None:
    gateway = Gateway(view_with(rule(unit="output_tokens", most=5)))
    nothing = Sampling(max_tokens=0)
    first = gateway.asks(sampling=nothing)
    gateway.settles(first, usage=Usage(completion_tokens=5))
    assert isinstance(gateway.asks(sampling=nothing), Refusal)


@pytest.mark.parametrize("again", [False, True])
def test_where_tenants_share_a_spent_budget_what_costs_nothing_serves_alone(again: bool) -> None:
    view = view_where(FREE, CHEAP, FREE, per="service", most=0)
    weighed = weighed_in(view)
    assert isinstance(weighed, Weighed)
    routes = view.endpoints[PLAIN].routes
    routed = replace(routed_with(weighed, view), fallbacks=routes[1:])
    counters = Counters(shared=True)
    heard = Heard(
        weighed=InferenceWeighed(routed=routed, asks=weighed.asks, weighed_at=NOON),
        counters=counters,
    )
    outgoing = list(pass_on(heard, view, NOON, Desk()))
    if again:
        counters.apply(outgoing[0].event, 0)  # type: ignore[arg-type]
        raised = view_where(FREE, CHEAP, FREE, per="service", most=9)
        outgoing = list(pass_on(heard, raised, NOON, Desk()))
    [onward] = [event for _, event in outgoing if isinstance(event, InferenceRouted)]
    assert [each.name for each in (onward.route, *onward.fallbacks)] == ["r0", "r2"]
    dear = replace(heard.weighed, routed=replace(routed, route=routes[1], charge_id="dear"))
    outgoing = list(pass_on(replace(heard, weighed=dear), view, NOON, Desk()))
    assert any(isinstance(event, InferenceRefused) for _, event in outgoing)
