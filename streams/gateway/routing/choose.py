"""Choosing a route: what can serve it, what of that is up, and then the balance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from infra.catalog import CatalogView, Endpoint
from schemas.events import InferenceRequested, Refusal, Route
from streams.gateway.routing.balance import BALANCES, Question, by_weight
from streams.gateway.routing.draw import drawn
from streams.gateway.routing.fit import fits, fitting
from streams.gateway.routing.health import Health

SESSION = "session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Where a request goes.

    Attributes:
        route: The route that is tried first.
        fallbacks: All others that can serve it, those that are up first.
        mirrors: Routes that get a copy, whose answers nobody hears.
    """

    route: Route
    fallbacks: tuple[Route, ...] = ()
    mirrors: tuple[Route, ...] = ()


def choose(  # noqa: PLR0917 - who asks what, and all that it is decided by
    request: InferenceRequested,
    who: str,
    endpoint: Endpoint,
    view: CatalogView,
    health: Health,
    now: datetime,
    draw: str = "",
) -> Chosen | Refusal:
    """Returns where a request goes, or why no route can serve it.

    Where all that could are down, the one to be up soonest is tried. What keeps its route (a
    session, a user) keeps it whatever the balance looks at, which changes from one request to the
    next: its route is drawn by weight.

    Args:
        request: What is asked.
        who: The principal who was found to act.
        endpoint: What is asked.
        view: The catalog.
        health: How routes are doing.
        now: The moment.
        draw: What is drawn by for this request alone, its mirrors too; nothing that its caller may
            choose, who could else choose a route. Without it, the request id.
    """
    draw = draw or request.request_id
    fit = fitting(request, endpoint)
    if isinstance(fit, Refusal):
        return fit
    up = [route for route in fit if health.up(endpoint.name, route, request, now)]
    if up:
        question = Question(
            request=request,
            key=_key(request, who, endpoint, draw),
            draw=draw,
            endpoint=endpoint,
            view=view,
            health=health,
            now=now,
        )
        route = _balanced(up, question)
    else:
        route = min(fit, key=lambda each: health.up_at(endpoint.name, each, now))
    left = [each for each in fit if each is not route]
    return Chosen(
        route=route,
        fallbacks=tuple(sorted(left, key=lambda each: each not in up)),
        mirrors=_mirrors(request, endpoint, draw),
    )


def _balanced(up: list[Route], question: Question) -> Route:
    """Returns the route for a request; one without a weight only where none with one is up."""
    spec, ways = question.endpoint.spec, question.endpoint.ways
    weighted = [route for route in up if ways[route.name].weight]
    if not weighted:
        return up[0]
    kept = spec.sticky != "request"
    return (by_weight if kept else BALANCES[spec.balance])(weighted, question)


def _key(request: InferenceRequested, who: str, endpoint: Endpoint, draw: str) -> tuple[str, ...]:
    if endpoint.spec.sticky == "user":
        return request.tenant, "user", who
    session = request.tags.get(SESSION) if endpoint.spec.sticky == "session" else None
    if session:
        return request.tenant, SESSION, session
    return request.tenant, "request", draw


def _mirrors(request: InferenceRequested, endpoint: Endpoint, draw: str) -> tuple[Route, ...]:
    return tuple(
        route
        for route in endpoint.routes
        if (way := endpoint.ways[route.name]).mirror
        and drawn("mirror", endpoint.name, draw, route.name) < way.mirror
        and fits(request, way)
    )
