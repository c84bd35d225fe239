"""What routing and the cache cost a request, in one process and without a broker.

    python -m tests.bench routing [REQUESTS]

An endpoint of eight routes; requests of a few hundred bytes, and of a megabyte.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

from infra.catalog import CatalogView
from schemas.events import (
    Completion,
    FinishReason,
    InferenceCompleted,
    InferenceRequested,
    InferenceRouted,
    Message,
    Reason,
    Refusal,
    Role,
    Sampling,
    Usage,
)
from streams.gateway.cache import cache_key
from streams.gateway.routing import Chosen, Health, choose, next_try
from streams.gateway.routing.balance import BALANCES
from tests.seed import view_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
REQUESTS = 20_000
NAME = "main.bench.routed"
ANSWER = Completion(model="m", content="hi", finish_reason=FinishReason.STOP, usage=Usage())
FAILED = Refusal(reason=Reason.PROVIDER_FAILED, message="it failed")


def run(requests: str = str(REQUESTS)) -> None:
    """Prints the figures."""
    count = int(requests)
    for balance in sorted(BALANCES):
        view = _view(balance)
        _line(f"choose by {balance}, sent, observed", count, _serving(view))
    _line("next try", count, _failing(_view("weight")))
    for size in (300, 1_000_000):
        _line(f"cache key of {size:,} bytes", max(20, count * 300 // size), _telling(size))


def _line(what: str, count: int, work: Callable[[int], Any]) -> None:
    began = perf_counter()
    for number in range(count):
        work(number)
    spent = perf_counter() - began
    print(f"{what:>44}: {spent / count * 1e6:>9.1f} us")


def _view(balance: str) -> CatalogView:
    routes = [
        {"name": f"r{n}", "pool": f"p{n}", "model": "m", "weight": 1 + n, "context_tokens": 10**6}
        for n in range(8)
    ]
    spec = {"routes": routes, "balance": balance, "cache": {}, "sticky": "request"}
    return view_of([{"kind": "endpoint", "name": NAME, "spec": spec}])


def _asked(number: int, size: int = 300) -> InferenceRequested:
    return InferenceRequested(
        request_id=f"request-{number}",
        tenant="acme",
        endpoint=NAME,
        messages=(Message(role=Role.USER, content="x" * size),),
        sampling=Sampling(max_tokens=100),
        reply_to="reply.v1.acme",
        requested_at=NOON,
        deadline=NOON + timedelta(minutes=1),
    )


def _serving(view: CatalogView) -> Callable[[int], None]:
    health, endpoint = Health(), view.endpoints[NAME]

    def serve(number: int) -> None:
        asked = _asked(number)
        found = choose(asked, "ann", endpoint, view, health, NOON)
        assert isinstance(found, Chosen)
        routed = InferenceRouted(
            request=asked, route=found.route, fallbacks=found.fallbacks, routed_at=NOON
        )
        health.sent(routed, NOON)
        completed = InferenceCompleted(
            routed=routed, completion=ANSWER, started_at=NOON, completed_at=NOON
        )
        health.observe(completed, view, NOON)

    return serve


def _failing(view: CatalogView) -> Callable[[int], None]:
    health, (first, *left) = Health(), view.endpoints[NAME].routes

    def fail(number: int) -> None:
        routed = InferenceRouted(
            request=_asked(number), route=first, fallbacks=tuple(left), routed_at=NOON
        )
        completed = InferenceCompleted(
            routed=routed, refusal=FAILED, started_at=NOON, completed_at=NOON
        )
        assert next_try(completed, view, health, NOON)

    return fail


def _telling(size: int) -> Callable[[int], str]:
    asked, view = _asked(0, size), _view("weight")
    return lambda number: cache_key(asked, view.endpoints[NAME], view)
