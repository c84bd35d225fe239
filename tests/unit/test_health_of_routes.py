"""How routes are doing: when one is down, who probes it, and what counts as nothing."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Completion, InferenceRouted, Reason, Refusal
from streams.gateway.routing import Health
from streams.gateway.routing.health import FAILURES, GRACE
from tests.unit.asking import MINUTE, NOON
from tests.unit.routing import (
    ANSWER,
    NAME,
    SECOND,
    Gateway,
    chosen,
    ended,
    refusal,
    request,
    route,
    view_with,
    way,
)

FAILED = refusal(Reason.PROVIDER_FAILED)
VIEW = view_with(way("a", weight=1), way("spare"))


def broken(failures: int = 3, at: datetime = NOON) -> Gateway:
    """Returns a gateway whose first route has failed so often in a row."""
    gateway = Gateway(VIEW)
    for number in range(failures):
        gateway.finish(gateway.send(request(f"broken-{number}"), at), FAILED, at)
    return gateway


def first(gateway: Gateway, now: datetime, number: object = "next") -> str:
    """Returns where a request would go; it does not go there."""
    return chosen(request(number), gateway.view, gateway.health, now).route.name


def test_a_primary_that_is_dead_for_a_minute_is_tried_four_times_and_taken_back() -> None:
    """A request every 4 s for the minute, and then for another."""

    def answer(routed: InferenceRouted, now: datetime) -> Completion | Refusal:
        dead = routed.route.name == "a" and now < NOON + MINUTE
        return FAILED if dead else ANSWER

    gateway = Gateway(VIEW, answer)
    for number in range(15):
        assert gateway.serve(request(number), NOON + number * 4 * SECOND) == ANSWER
    assert gateway.tried("a") <= 4
    for number in range(15, 30):
        gateway.serve(request(number), NOON + number * 4 * SECOND)
    assert [name for name, _ in gateway.tries[-10:]] == ["a"] * 10


@pytest.mark.parametrize("reason", sorted(set(Reason) - FAILURES))
def test_what_is_no_fault_of_a_route_takes_it_not_down(reason: Reason) -> None:
    gateway = Gateway(VIEW)
    for number in range(20):
        gateway.finish(gateway.send(request(number), NOON), refusal(reason), NOON)
    assert first(gateway, NOON) == "a"


@pytest.mark.parametrize("reason", sorted(set(Reason) - FAILURES))
def test_what_is_no_fault_of_a_route_is_no_sign_of_its_health_either(reason: Reason) -> None:
    gateway = broken(2)
    gateway.finish(gateway.send(request(), NOON), refusal(reason), NOON)
    gateway.finish(gateway.send(request(1), NOON), FAILED, NOON)
    assert first(gateway, NOON) == "spare"
    # As a probe it leaves the route half-open.
    later = NOON + 31 * SECOND
    gateway.finish(gateway.send(request(2), later), refusal(reason), later)
    assert first(gateway, later) == "a"
    assert gateway.send(request(3), later).route.name == "a"
    assert gateway.send(request(4), later).route.name == "spare"


def test_an_answer_in_between_starts_the_count_anew() -> None:
    gateway = broken(2)
    gateway.finish(gateway.send(request(), NOON), ANSWER, NOON)
    gateway.finish(gateway.send(request(1), NOON), FAILED, NOON)
    assert first(gateway, NOON) == "a"


def test_how_often_and_how_long_is_as_the_endpoint_says() -> None:
    gateway = Gateway(view_with(way("a"), way("spare"), cooldown={"failures": 1, "lasts": "500ms"}))
    gateway.finish(gateway.send(request(), NOON), FAILED, NOON)
    assert first(gateway, NOON + timedelta(milliseconds=499)) == "spare"
    assert first(gateway, NOON + timedelta(milliseconds=500)) == "a"


def test_exactly_one_request_probes_a_route_at_a_time() -> None:
    gateway, later = broken(), NOON + 30 * SECOND
    assert first(gateway, later - SECOND) == "spare"
    probe = gateway.send(request("probe"), later)
    assert probe.route.name == "a"
    others = [gateway.send(request(number), later).route.name for number in range(10)]
    assert others == ["spare"] * 10
    # What is decided twice is decided alike.
    assert chosen(probe.request, VIEW, gateway.health, later).route.name == "a"
    gateway.finish(probe, FAILED, later + SECOND)
    assert first(gateway, later + 30 * SECOND) == "spare"
    again = later + 31 * SECOND
    gateway.finish(gateway.send(request("again"), again), ANSWER, again)
    assert [gateway.send(request(f"up-{n}"), again).route.name for n in range(5)] == ["a"] * 5


def test_a_probe_that_nobody_answers_holds_the_route_only_until_its_deadline() -> None:
    gateway, later = broken(), NOON + 30 * SECOND
    gateway.send(request("probe", deadline=later + MINUTE), later)
    gone = later + MINUTE + GRACE + SECOND
    gateway.send(request(1, deadline=gone + MINUTE), gone)
    assert first(gateway, gone) == "spare"
    assert first(gateway, gone + 30 * SECOND) == "a"


def test_of_routes_that_are_all_down_the_one_to_be_up_first_is_tried() -> None:
    gateway = Gateway(view_with(way("a"), way("b"), cooldown={"failures": 1}))
    gateway.finish(gateway.send(request(0), NOON), FAILED, NOON)
    later = NOON + SECOND
    assert gateway.finish(gateway.send(request(1), later), FAILED, later) is not None
    assert first(gateway, later) == "a"
    # An answer to what was sent since brings a route back before its time.
    gateway.finish(gateway.send(request(2), later), ANSWER, later)
    assert [first(gateway, later + SECOND, n) for n in range(5)] == ["a"] * 5


def test_what_was_sent_before_a_route_went_down_says_nothing_new_of_it() -> None:
    gateway = Gateway(VIEW)
    early = [gateway.send(request(f"early-{number}"), NOON) for number in range(5)]
    later = NOON + 10 * SECOND
    for number in range(3):
        gateway.finish(gateway.send(request(number), later), FAILED, later)
    gateway.finish(early[0], ANSWER, later + SECOND)
    assert first(gateway, later + SECOND) == "spare"
    gateway.finish(early[1], FAILED, later + 20 * SECOND)
    assert first(gateway, later + 30 * SECOND) == "a"


def test_a_busy_provider_is_left_alone_for_as_long_as_it_says() -> None:
    gateway = Gateway(VIEW)
    busy = refusal(Reason.RATE_LIMITED, retry_after_ms=2000)
    gateway.finish(gateway.send(request(), NOON), busy, NOON)
    assert first(gateway, NOON + 1.9 * SECOND) == "spare"
    assert first(gateway, NOON + 2 * SECOND) == "a"
    # Without end it is not.
    endless = refusal(Reason.RATE_LIMITED, retry_after_ms=2**62)
    gateway.finish(gateway.send(request(1), NOON + 2 * SECOND), endless, NOON + 2 * SECOND)
    assert first(gateway, NOON + MINUTE) == "spare"
    assert first(gateway, NOON + 6 * MINUTE) == "a"


def test_a_route_that_the_catalog_has_mended_starts_anew() -> None:
    gateway = broken()
    gateway.view = view_with(way("a", weight=1) | {"model": "mended"}, way("spare"))
    assert first(gateway, NOON) == "a"


def test_what_nobody_hears_counts_for_nothing() -> None:
    health, a = Health(), route(VIEW, "a")
    for number in range(10):
        copy = InferenceRouted(request=request(number), route=a, routed_at=NOON, mirrored=True)
        health.sent(copy, NOON)
        health.observe(ended(copy, FAILED, NOON), VIEW, NOON)
    assert health.in_flight(NAME, a) == 0
    assert health.up(NAME, a, request(), NOON)


def test_the_same_told_twice_counts_once() -> None:
    gateway, a = Gateway(VIEW), route(VIEW, "a")
    routed = gateway.send(request(), NOON)
    gateway.health.sent(routed, NOON)
    assert gateway.health.in_flight(NAME, a) == 1
    for _ in range(5):
        gateway.health.observe(ended(routed, FAILED, NOON), VIEW, NOON)
    assert gateway.health.in_flight(NAME, a) == 0
    assert first(gateway, NOON) == "a"


def test_what_is_under_way_counts_until_a_little_after_its_deadline() -> None:
    gateway, a = Gateway(VIEW), route(VIEW, "a")
    for number in range(10):
        gateway.send(request(number), NOON)
    assert gateway.health.in_flight(NAME, a) == 10
    gone = NOON + MINUTE + GRACE + SECOND
    gateway.send(request("late", deadline=gone + MINUTE), gone)
    assert gateway.health.in_flight(NAME, a) == 1


@pytest.mark.parametrize("back", [1, 10, 29, 31, 3600, 86_400])
def test_a_clock_that_steps_back_keeps_no_route_down_for_much_longer(back: int) -> None:
    gateway = broken()
    now = NOON - back * SECOND
    for number in range(61):
        gateway.serve(request(number), now + number * SECOND)
    assert gateway.tries[-1][0] == "a"


def test_what_is_remembered_is_bounded() -> None:
    health = Health(most_routes=10, most_in_flight=20)
    for number in range(500):
        view = view_with(way(f"r{number}"))
        routed = InferenceRouted(
            request=request(number), route=route(view, f"r{number}"), routed_at=NOON
        )
        health.sent(routed, NOON)
        if number % 2:
            health.observe(ended(routed, FAILED, NOON), view, NOON)
    under_way = [
        health.in_flight(NAME, route(view_with(way(f"r{n}")), f"r{n}")) for n in range(500)
    ]
    assert sum(under_way) == 5
    assert len(health._flights) <= 20
    assert sum(map(len, health._ends.values())) == len(health._flights)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "answer", "fail", "busy", "invalid"]),
        st.integers(-5, 40),
        st.integers(0, 30),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_whatever_happens_a_route_that_is_not_up_gets_at_most_one_probe(
    steps: list[tuple[str, int, int]],
) -> None:
    answers: dict[str, Completion | Refusal] = {
        "answer": ANSWER,
        "busy": refusal(Reason.RATE_LIMITED, retry_after_ms=3000),
        "fail": FAILED,
        "invalid": refusal(Reason.REQUEST_INVALID),
    }
    gateway, a, now = Gateway(VIEW), route(VIEW, "a"), NOON
    under_way: list[InferenceRouted] = []
    for number, (what, seconds, which) in enumerate(steps):
        now += seconds * SECOND
        condition = gateway.health._conditions.get((NAME, a))
        was_down = condition is not None and condition.down is not None
        probe = condition.probe if condition else None
        cooled = gateway.health.cools(NAME, a, now)
        if what == "send":
            routed = gateway.send(request(number, deadline=now + 100 * MINUTE), now)
            under_way.append(routed)
            # The spare one never fails here, so that it is always up.
            if routed.route == a and was_down:
                assert not cooled
                assert probe is None
        elif ours := [each for each in under_way if each.route == a]:
            ending = ours[which % len(ours)]
            under_way.remove(ending)
            gateway.health.observe(ended(ending, answers[what], now), VIEW, now)
    count = sum(each.route == a for each in under_way)
    assert gateway.health.in_flight(NAME, a) == count
