"""An endpoint of several routes, and the gateway's part in what becomes of its requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from infra.catalog import CatalogView
from schemas.events import (
    Completion,
    FinishReason,
    InferenceCompleted,
    InferenceRequested,
    InferenceRouted,
    Reason,
    Refusal,
    Route,
    Usage,
)
from streams.gateway.routing import Chosen, Health, choose, next_try
from tests.seed import view_of
from tests.unit.asking import CATALOG, LIMITS, NOON, ask

NAME = "main.tests.routed"
SECOND = timedelta(seconds=1)
ANSWER = Completion(
    model="model", content="hi", finish_reason=FinishReason.STOP, usage=Usage(completion_tokens=1)
)


def way(name: str, **more: Any) -> dict[str, Any]:
    """Returns what the catalog says of a route; its pool is named as it is."""
    return {"name": name, "pool": name, "model": f"model-{name}", **more}


def view_with(*routes: dict[str, Any], **spec: Any) -> CatalogView:
    """Returns a catalog whose endpoint has these routes."""
    document = {"kind": "endpoint", "name": NAME, "spec": {"routes": routes, **spec}}
    return view_of([*CATALOG, document], LIMITS)


def request(number: object = 0, **changes: Any) -> InferenceRequested:
    """Returns a request to that endpoint, under an id of its own for each number."""
    return ask(request_id=f"request-{number}", endpoint=NAME, **changes)


def route(view: CatalogView, name: str) -> Route:
    """Returns a route of that endpoint."""
    return next(each for each in view.endpoints[NAME].routes if each.name == name)


def decide(
    asked: InferenceRequested,
    view: CatalogView,
    health: Health | None = None,
    now: datetime = NOON,
    who: str = "ann",
    *,
    draw: str = "",
) -> Chosen | Refusal:
    """Returns what is decided on a request to that endpoint."""
    return choose(asked, who, view.endpoints[NAME], view, health or Health(), now, draw)


def chosen(
    asked: InferenceRequested,
    view: CatalogView,
    health: Health | None = None,
    now: datetime = NOON,
    who: str = "ann",
    *,
    draw: str = "",
) -> Chosen:
    """Returns where a request goes; a refusal fails the test."""
    found = decide(asked, view, health, now, who, draw=draw)
    assert isinstance(found, Chosen), found
    return found


def refusal(reason: Reason, **more: Any) -> Refusal:
    """Returns a refusal as a worker says it."""
    return Refusal(reason=reason, message="it failed", **more)


def ended(
    routed: InferenceRouted, answer: Completion | Refusal, now: datetime, **more: Any
) -> InferenceCompleted:
    """Returns what a worker says of a try at its end."""
    done = InferenceCompleted(routed=routed, started_at=now, completed_at=now, **more)
    if isinstance(answer, Refusal):
        return replace(done, refusal=answer)
    return replace(done, completion=answer)


class Gateway:
    """A gateway process, whose workers answer at once as a function says."""

    def __init__(
        self,
        view: CatalogView,
        answer: Callable[[InferenceRouted, datetime], Completion | Refusal] = lambda *_: ANSWER,
    ) -> None:
        self.view = view
        self.answer = answer
        self.health = Health()
        self.tries: list[tuple[str, datetime]] = []

    def send(self, asked: InferenceRequested, now: datetime) -> InferenceRouted:
        """Sends a request on its first route and leaves it there."""
        found = chosen(asked, self.view, self.health, now)
        routed = InferenceRouted(
            request=asked, route=found.route, fallbacks=found.fallbacks, routed_at=now
        )
        self._sent(routed, now)
        return routed

    def finish(
        self, routed: InferenceRouted, answer: Completion | Refusal, now: datetime
    ) -> InferenceRouted | None:
        """Takes the end of a try in; returns the next one."""
        completed = ended(routed, answer, now)
        self.health.observe(completed, self.view, now)
        onward = next_try(completed, self.view, self.health, now)
        if onward is not None:
            self._sent(onward, now)
        return onward

    def serve(self, asked: InferenceRequested, now: datetime) -> Completion | Refusal:
        """Returns what a request comes to in the end."""
        onward: InferenceRouted | None = self.send(asked, now)
        while onward is not None:
            routed, now = onward, max(now, onward.not_before or now)
            answer = self.answer(routed, now)
            onward = self.finish(routed, answer, now)
        return answer

    def tried(self, name: str) -> int:
        """Returns how often a route was tried."""
        return sum(each == name for each, _ in self.tries)

    def _sent(self, routed: InferenceRouted, now: datetime) -> None:
        self.health.sent(routed, now)
        self.tries.append((routed.route.name, now))
