"""Which of several routes that are up: a table of ways to balance.

Each is a function of what it is given and of what this process has seen of the routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from infra.catalog import CatalogView, Endpoint
from infra.prices import picodollars, price_at
from infra.tokens import estimate
from schemas.events import InferenceRequested, Route, Usage
from streams.gateway.routing.draw import drawn, ticket
from streams.gateway.routing.health import Health

# Part of the requests that go where the draw says, so that what was slow once is measured again.
EXPLORED = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be sent somewhere.

    Attributes:
        request: The request.
        key: What keeps its route: requests with the same key draw the same.
        draw: What is drawn by for this request alone.
        endpoint: What is asked.
        view: The catalog.
        health: How routes are doing.
        now: The moment.
    """

    request: InferenceRequested
    key: tuple[str, ...]
    draw: str
    endpoint: Endpoint
    view: CatalogView
    health: Health
    now: datetime

    def ticket(self, route: Route) -> float:
        """Returns what a route takes part in the draw with."""
        weight = self.endpoint.ways[route.name].weight or 0
        return ticket(weight, self.endpoint.name, *self.key, route.name)


def by_weight(routes: Sequence[Route], question: Question) -> Route:
    """Returns the route that the key draws: in all processes the same, as often as weights say."""
    return max(routes, key=question.ticket)


def least_in_flight(routes: Sequence[Route], question: Question) -> Route:
    """Returns the route with the fewest under way for its weight, this request among them."""

    def load(route: Route) -> tuple[float, float]:
        busy = question.health.in_flight(question.endpoint.name, route)
        weight = question.endpoint.ways[route.name].weight or 1
        return (busy + 1) / weight, -question.ticket(route)

    return min(routes, key=load)


def fastest(routes: Sequence[Route], question: Question) -> Route:
    """Returns the route whose first token comes soonest.

    One that is not known yet is tried by one request at a time.
    """
    name, health = question.endpoint.name, question.health
    times = {route: health.first_token_s(name, route) for route in routes}
    unknown = [route for route in routes if times[route] is None]
    for route in unknown:
        if health.in_flight(name, route) == 0:
            return route
    known = {route: seconds for route, seconds in times.items() if seconds is not None}
    if not known or drawn("explore", name, question.draw) < EXPLORED:
        return by_weight(routes, question)
    return min(known, key=lambda route: (known[route], -question.ticket(route)))


def cheapest(routes: Sequence[Route], question: Question) -> Route:
    """Returns the route that is to cost least; what it costs is not known counts as most."""
    request = question.request
    asked = request.sampling.max_tokens
    usage = Usage(
        prompt_tokens=estimate(request),
        completion_tokens=question.endpoint.spec.reserve_tokens if asked is None else asked,
    )

    def cost(route: Route) -> tuple[bool, int, float]:
        price = price_at(question.view.prices(route), question.now)
        known = 0 if price is None else picodollars(price, usage)
        return price is None, known, -question.ticket(route)

    return min(routes, key=cost)


BALANCES: Mapping[str, Callable[[Sequence[Route], Question], Route]] = {
    "cost": cheapest,
    "latency": fastest,
    "least_in_flight": least_in_flight,
    "weight": by_weight,
}
