"""Trying again: the same route once more, the next one, or none.

Each try is made of the request as it was admitted; nothing of the one before is left in it but
that it was tried. Retries are bounded by the route, fallbacks by the list, and both by the
deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from infra.catalog import CatalogView, Endpoint
from schemas.events import Attempt, InferenceCompleted, InferenceRouted, Reason, Refusal, Route
from schemas.routing import FALL_BACK_ON, RouteSpec
from streams.gateway.routing.draw import drawn
from streams.gateway.routing.fit import fits
from streams.gateway.routing.health import Health
from streams.gateway.rows import used_by

# Faults of the route: it may do better the next time.
RETRIED_ON = frozenset(FALL_BACK_ON)
# Nobody waits any more, whatever an endpoint lists.
ENDED_BY = frozenset({Reason.CANCELLED, Reason.DEADLINE_EXPIRED})
FIRST_WAIT = timedelta(milliseconds=250)
LONGEST_WAIT = timedelta(seconds=8)
MILLISECOND = timedelta(milliseconds=1)


def next_try(
    completed: InferenceCompleted, view: CatalogView, health: Health, now: datetime
) -> InferenceRouted | None:
    """Returns the request on its way once more; None where it ends here.

    A route that cools down is not tried again while another is up. A wait that its provider asks
    for is kept if it ends before the deadline; else the next route is tried. Of an endpoint that is
    gone the list still holds.

    Args:
        completed: What became of the last try; ``health`` has been told of it.
        view: The catalog.
        health: How routes are doing.
        now: The moment.
    """
    routed, refusal = completed.routed, completed.refusal
    over = now >= routed.request.deadline or routed.mirrored
    if refusal is None or refusal.reason in ENDED_BY or over:
        return None
    endpoint = view.endpoints.get(routed.request.endpoint)
    left = _left(routed, refusal, endpoint, view)

    def is_up(route: Route) -> bool:
        return health.up(routed.request.endpoint, route, routed.request, now)

    if endpoint and (start := _retry_at(routed, refusal, endpoint, now)):
        cools = health.cools(endpoint.name, routed.route, now)
        if routed.route.pool in view.pools and not (cools and any(map(is_up, left))):
            return _onward(completed, refusal, routed.route, tuple(left), now, start)
    if not left:
        return None
    following, *rest = sorted(left, key=lambda route: not is_up(route))
    return _onward(completed, refusal, following, tuple(rest), now)


def _retry_at(
    routed: InferenceRouted, refusal: Refusal, endpoint: Endpoint, now: datetime
) -> datetime | None:
    """Returns when the same route may be tried once more; None where it may not."""
    way = endpoint.ways.get(routed.route.name)
    tries = 1 + sum(attempt.route == routed.route for attempt in routed.tried)
    if way is None or routed.route not in endpoint.routes or tries > way.retries:
        return None
    if refusal.reason not in RETRIED_ON:
        return None
    left = routed.request.deadline - now
    # Half of the wait is drawn, so that what failed together does not come back together.
    draw = drawn("wait", routed.request.tenant, routed.request.request_id, str(routed.attempt))
    wait = min(FIRST_WAIT * (1 << (tries - 1)), LONGEST_WAIT) * (0.5 + draw / 2)
    # What is read back from the log has no finer instants.
    wait -= wait % MILLISECOND
    asked_ms = max(0, refusal.retry_after_ms or 0)
    if asked_ms >= left / MILLISECOND or wait >= left:
        return None
    return now + max(wait, asked_ms * MILLISECOND)


def _left(
    routed: InferenceRouted, refusal: Refusal, endpoint: Endpoint | None, view: CatalogView
) -> list[Route]:
    """Returns the fallbacks that a failure may go on to, in their order."""
    listed = endpoint.spec.fall_back_on if endpoint else FALL_BACK_ON
    if refusal.reason not in listed:
        return []
    # A pool that the catalog names no more has no topic, or nobody who reads it.
    pools = view.pools
    left = [route for route in routed.fallbacks if route.pool in pools]
    if endpoint is None:
        return left
    serves = _serves(routed, refusal, endpoint)
    return [route for route in left if serves(route)]


def _serves(
    routed: InferenceRouted, refusal: Refusal, endpoint: Endpoint
) -> Callable[[Route], bool]:
    """Returns what tells whether the catalog still has a route that can serve a request."""
    named = {route.name for route in endpoint.routes}
    failed = endpoint.ways.get(routed.route.name)

    def serves(route: Route) -> bool:
        way = endpoint.ways.get(route.name)
        if way is None or route.name not in named or way.mirror or not fits(routed.request, way):
            return False
        return refusal.reason is not Reason.CONTEXT_EXCEEDED or _may_be_larger(way, failed)

    return serves


def _may_be_larger(way: RouteSpec, failed: RouteSpec | None) -> bool:
    """Returns whether a route may have more room than one that had too little."""
    if way.context_tokens is None or failed is None or failed.context_tokens is None:
        return True
    return way.context_tokens > failed.context_tokens


def _onward(  # noqa: PLR0917 - what failed, and where it goes when
    completed: InferenceCompleted,
    refusal: Refusal,
    route: Route,
    fallbacks: tuple[Route, ...],
    now: datetime,
    not_before: datetime | None = None,
) -> InferenceRouted:
    routed = completed.routed
    tried = Attempt(route=routed.route, refusal=refusal, usage=used_by(completed))
    return replace(
        routed,
        route=route,
        fallbacks=fallbacks,
        attempt=routed.attempt + 1,
        tried=(*routed.tried, tried),
        routed_at=now,
        not_before=not_before,
    )
