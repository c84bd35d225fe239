"""A catalog, requests and what came of them, for tests of the gateway."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.catalog import Limits
from schemas.events import (
    InferenceCompleted,
    InferenceRequested,
    InferenceRouted,
    Message,
    Role,
    Route,
    Sampling,
)
from schemas.topics import INFERENCE_REQUESTED, Outgoing, Topic
from streams.gateway.asked import Asked
from tests.seed import view_of
from tests.unit.deciding import admit

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FIRST, SECOND, THIRD = (
    Route(name=name, pool=f"pool-{name}", model=f"model-{name}")
    for name in ("first", "second", "third")
)
LIMITS = Limits(max_request_bytes=1000, max_deadline_ms=600_000)
ROUTES = [
    {"name": each.name, "pool": each.pool, "model": each.model} for each in (FIRST, SECOND, THIRD)
]
CATALOG: list[dict[str, Any]] = [
    {"kind": "catalog", "name": "main", "grants": {"everyone": ["USE"]}},
    {"kind": "schema", "name": "main.tests", "grants": {"everyone": ["USE", "QUERY"]}},
    {
        "kind": "endpoint",
        "name": "main.tests.guarded",
        "spec": {"routes": ROUTES[:1], "output_policy": True},
    },
    {"kind": "endpoint", "name": "main.tests.plain", "spec": {"routes": ROUTES}},
    {
        "kind": "tenant",
        "name": "acme",
        "spec": {"replies": ["acme", "acme2"], "accept_unsigned": True},
    },
    {"kind": "tenant", "name": "other", "spec": {"accept_unsigned": True}},
    {"kind": "user", "name": "ann", "spec": {"tenant": "acme"}},
]
VIEW = view_of(CATALOG, LIMITS)


def ask(**changes: Any) -> InferenceRequested:
    """Returns a request that is admitted as it stands."""
    return replace(
        InferenceRequested(
            request_id="request",
            tenant="acme",
            principal="ann",
            endpoint="main.tests.plain",
            messages=(Message(role=Role.USER, content="hello"),),
            sampling=Sampling(),
            reply_to="reply.v1.acme",
            requested_at=NOON - timedelta(milliseconds=20),
            deadline=NOON + MINUTE,
            tags={"team": "blue"},
        ),
        **changes,
    )


def asked(request: InferenceRequested | None = None, **changes: Any) -> Asked:
    """Returns a request as it comes to the step; unsigned as it stands."""
    place = f"{INFERENCE_REQUESTED.name}/0/7"
    return replace(Asked(request=ask() if request is None else request, place=place), **changes)


def routed(**changes: Any) -> InferenceRouted:
    """Returns a request on its first route, with two left."""
    return replace(
        InferenceRouted(request=ask(), route=FIRST, fallbacks=(SECOND, THIRD), routed_at=NOON),
        **changes,
    )


def completed(**changes: Any) -> InferenceCompleted:
    """Returns what a worker says of a routed request."""
    instant = NOON + timedelta(milliseconds=30)
    return replace(
        InferenceCompleted(routed=routed(), started_at=NOON, completed_at=instant), **changes
    )


def only(outgoing: Iterable[Outgoing], topic: Topic[Any]) -> list[Any]:
    """Returns the events on their way to a topic, or to a member of a family."""
    return [each.event for each in outgoing if each.topic.name.startswith(topic.name)]


def route_of(request: InferenceRequested) -> InferenceRouted:
    """Returns the one routed event that comes of a request; a refusal fails the test."""
    [(topic, event)] = admit(asked(request), VIEW, NOON)
    assert isinstance(event, InferenceRouted)
    assert topic.name == f"inference.routed.v1.{event.route.pool}"
    return event
