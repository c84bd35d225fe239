"""What the desk hears of what is sent: once, and where the route was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from infra.catalog import CatalogView
from schemas.events import InferenceRouted, InferenceWeighed
from schemas.topics import INFERENCE_ROUTED, INFERENCE_WEIGHED, Outgoing
from streams.gateway import at_desk
from streams.gateway.desk import Desk
from streams.gateway.limits.counters import Counters
from streams.gateway.weighed import Heard
from tests.unit.asking import NOON
from tests.unit.routing import ANSWER, NAME, request, route, view_with, way

VIEW = view_with(way("a", weight=1))
ROUTED = InferenceRouted(request=request(), route=route(VIEW, "a"), routed_at=NOON)
WEIGHED = InferenceWeighed(routed=ROUTED, asks=(), weighed_at=NOON)


def in_flight(given: object, *outgoing: Outgoing) -> int:
    """Returns how many tries the desk counts after a step that says this of what it is given."""
    desk = Desk()

    def step(given: object, view: CatalogView, now: datetime, desk: Desk) -> Iterator[Outgoing]:
        yield from outgoing

    assert list(at_desk(step, desk)(given, VIEW, NOON)) == list(outgoing)
    return desk.health.in_flight(NAME, ROUTED.route)


def test_what_goes_on_its_route_counts_as_sent() -> None:
    assert in_flight(None, Outgoing(INFERENCE_ROUTED.member("a"), ROUTED)) == 1


def test_what_waits_for_limits_that_tenants_share_counts_where_its_route_was_chosen() -> None:
    assert in_flight(None, Outgoing(INFERENCE_WEIGHED, WEIGHED)) == 1


def test_what_comes_out_of_the_cache_counts_nowhere() -> None:
    assert in_flight(None, Outgoing(INFERENCE_WEIGHED, replace(WEIGHED, answer=ANSWER))) == 0


def test_what_was_counted_where_its_route_was_chosen_counts_not_where_it_is_passed_on() -> None:
    heard = Heard(weighed=WEIGHED, counters=Counters())
    assert in_flight(heard, Outgoing(INFERENCE_ROUTED.member("a"), ROUTED)) == 0
    assert in_flight(heard, Outgoing(INFERENCE_WEIGHED, WEIGHED)) == 0
