"""How requests are split over many ids: near to the weights, and alike in every process."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.unit.routing import chosen, request, view_with, way

IDS = 20_000
# Nearly three standard deviations of a fair draw.
POINT = 0.01


@pytest.mark.parametrize("weights", [(90, 10), (1, 3, 6)])
@pytest.mark.parametrize("by", ["request", "session", "user"])
def test_over_tens_of_thousands_each_route_has_its_weight_within_a_point(
    weights: tuple[int, ...], by: str
) -> None:
    routes = [way(f"r{number}", weight=weight) for number, weight in enumerate(weights)]
    view = view_with(*routes, sticky=by)
    asked = request()
    found = Counter(
        chosen(
            request(tags={"session": f"s-{number}"}) if by == "session" else asked,
            view,
            who=f"user-{number}" if by == "user" else "ann",
            draw=f"place/{number}" if by == "request" else "place",
        ).route.name
        for number in range(IDS)
    )
    for number, weight in enumerate(weights):
        assert abs(found[f"r{number}"] / IDS - weight / sum(weights)) < POINT


def test_two_processes_send_each_of_many_sessions_the_same_way() -> None:
    views = [view_with(way("a", weight=90), way("b", weight=10), sticky="session") for _ in "ab"]
    for number in range(2_000):
        tags = {"session": f"s-{number}"}
        ways = {
            chosen(request(at, tags=tags), view, draw=f"place/{at}").route.name
            for at, view in enumerate(views)
        }
        assert len(ways) == 1
