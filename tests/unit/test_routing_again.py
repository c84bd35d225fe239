"""Trying again: when, where, and when not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from infra.catalog import CatalogView
from schemas.events import Attempt, InferenceRouted, Reason, Refusal, Route, Tool, Usage
from schemas.routing import FALL_BACK_ON
from streams.gateway.routing import Health, next_try
from tests.unit.asking import MINUTE, NOON, VIEW
from tests.unit.holding import CODEC
from tests.unit.routing import (
    ANSWER,
    SECOND,
    Gateway,
    ended,
    refusal,
    request,
    route,
    view_with,
    way,
)

FAILED = refusal(Reason.PROVIDER_FAILED)
MS = timedelta(milliseconds=1)


def routed(view: CatalogView, *names: str, **changes: Any) -> InferenceRouted:
    """Returns a request on the first of some routes; the others are left."""
    first, *left = [route(view, name) for name in names]
    made = InferenceRouted(request=request(), route=first, fallbacks=tuple(left), routed_at=NOON)
    return replace(made, **changes)


def after(
    before: InferenceRouted,
    failed: Refusal,
    view: CatalogView,
    health: Health | None = None,
    now: Any = NOON,
) -> InferenceRouted | None:
    return next_try(ended(before, failed, now), view, health or Health(), now)


ABC = view_with(way("a"), way("b"), way("c"))


@pytest.mark.parametrize("reason", sorted(Reason))
def test_a_fault_of_the_route_moves_a_request_on_and_nothing_else_does(reason: Reason) -> None:
    failed = refusal(reason)
    before = routed(ABC, "a", "b", "c", charge_id="charge", cache_key="key", sealed=b"sealed")
    onward = after(before, failed, ABC, now=NOON + SECOND)
    if reason not in FALL_BACK_ON:
        assert onward is None
        return
    assert onward == replace(
        before,
        route=route(ABC, "b"),
        fallbacks=(route(ABC, "c"),),
        attempt=1,
        tried=(Attempt(route=route(ABC, "a"), refusal=failed),),
        routed_at=NOON + SECOND,
    )


def test_what_a_try_that_failed_used_is_remembered() -> None:
    used = Usage(prompt_tokens=7, completion_tokens=3, estimated=True)
    cut = ended(routed(ABC, "a", "b"), refusal(Reason.STREAM_CUT), NOON, usage=used)
    onward = next_try(cut, ABC, Health(), NOON)
    assert onward
    assert [each.usage for each in onward.tried] == [used]


@pytest.mark.parametrize("reason", sorted(Reason))
def test_a_fault_of_the_route_is_tried_once_more_there_and_nothing_else_is(reason: Reason) -> None:
    view = view_with(way("a", retries=1), way("b"))
    onward = after(routed(view, "a", "b"), refusal(reason), view)
    if reason not in FALL_BACK_ON:
        assert onward is None
        return
    assert onward is not None
    assert (onward.route.name, onward.attempt) == ("a", 1)
    assert [each.name for each in onward.fallbacks] == ["b"]
    assert onward.not_before is not None
    assert NOON < onward.not_before <= NOON + 250 * MS
    following = after(onward, refusal(reason), view)
    assert following is not None
    assert (following.route.name, following.attempt, following.not_before) == ("b", 2, None)
    assert len(following.tried) == 2


def test_each_wait_is_about_twice_the_one_before_and_always_the_same_for_a_request() -> None:
    view = view_with(way("a", retries=5), cooldown={"failures": 1000})
    waits = []
    onward: InferenceRouted | None = routed(view, "a")
    while onward is not None:
        again = after(onward, FAILED, view)
        assert again == after(onward, FAILED, view)
        if again is not None and again.not_before is not None:
            assert CODEC.decode(CODEC.encode(again), InferenceRouted) == again
            waits.append((again.not_before - NOON) / SECOND)
        onward = again
    assert len(waits) == 5
    for number, wait in enumerate(waits):
        assert 0.125 * 2**number <= wait <= 0.25 * 2**number
    others = [after(routed(view, "a", request=request(n)), FAILED, view) for n in range(50)]
    # So many draws, of 125 ms.
    assert len({each.not_before for each in others if each}) > 30


def test_a_wait_that_the_provider_asks_for_is_kept_if_it_ends_before_the_deadline() -> None:
    view = view_with(way("a", retries=1), way("b"))
    busy = refusal(Reason.RATE_LIMITED, retry_after_ms=2000)
    onward = after(routed(view, "a", "b"), busy, view)
    assert onward is not None
    assert (onward.route.name, onward.not_before) == ("a", NOON + 2 * SECOND)
    for wait_ms in (60_000, 2**62):
        busy = refusal(Reason.RATE_LIMITED, retry_after_ms=wait_ms)
        onward = after(routed(view, "a", "b"), busy, view)
        assert onward is not None
        assert (onward.route.name, onward.not_before) == ("b", None)
    assert after(routed(view, "a"), busy, view) is None


def test_a_route_that_cools_down_is_not_tried_again_while_another_is_up() -> None:
    view = view_with(way("a", retries=5), way("b"), cooldown={"failures": 2})
    gateway = Gateway(view, lambda routed, now: FAILED if routed.route.name == "a" else ANSWER)
    assert gateway.serve(request(), NOON) == ANSWER
    assert (gateway.tried("a"), gateway.tried("b")) == (2, 1)
    alone = Gateway(view_with(way("a", retries=5), cooldown={"failures": 2}), lambda *_: FAILED)
    assert alone.serve(request(), NOON) == FAILED
    assert alone.tried("a") == 6


def test_a_fallback_that_is_up_goes_before_one_that_is_down() -> None:
    gateway = Gateway(ABC)
    for number in range(3):
        gateway.finish(routed(ABC, "b", request=request(number)), FAILED, NOON)
    onward = after(routed(ABC, "a", "b", "c"), FAILED, ABC, gateway.health)
    assert onward is not None
    assert [each.name for each in (onward.route, *onward.fallbacks)] == ["c", "b"]
    onward = after(routed(ABC, "a", "b"), FAILED, ABC, gateway.health)
    assert onward is not None
    assert onward.route.name == "b"


def test_what_an_endpoint_lists_decides() -> None:
    view = view_with(way("a", retries=1), way("b"), fall_back_on=["REQUEST_INVALID"])
    onward = after(routed(view, "a", "b"), refusal(Reason.REQUEST_INVALID), view)
    assert onward is not None
    assert onward.route.name == "b"
    once_more = after(routed(view, "a", "b"), FAILED, view)
    assert once_more is not None
    assert once_more.route.name == "a"
    assert after(once_more, FAILED, view) is None


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.DEADLINE_EXPIRED])
def test_what_nobody_waits_for_is_not_tried_again_even_if_listed(reason: Reason) -> None:
    view = view_with(way("a", retries=1), way("b"), fall_back_on=[reason])
    assert after(routed(view, "a", "b"), refusal(reason), view) is None


def test_what_was_too_long_goes_only_where_there_may_be_more_room() -> None:
    view = view_with(
        way("a", context_tokens=4000),
        way("same", context_tokens=4000),
        way("larger", context_tokens=8000),
        way("unknown"),
        fall_back_on=["CONTEXT_EXCEEDED"],
    )
    onward = after(
        routed(view, "a", "same", "larger", "unknown"), refusal(Reason.CONTEXT_EXCEEDED), view
    )
    assert onward is not None
    assert [each.name for each in (onward.route, *onward.fallbacks)] == ["larger", "unknown"]


def test_a_fallback_must_still_be_able_to_serve_the_request() -> None:
    view = view_with(way("a"), way("b", tools=False), way("c", mirror=1), way("d"))
    before = routed(view, "a", "b", "c", "d")
    tools = replace(before, request=request(tools=(Tool(name="add", parameters="{}"),)))
    for each, name in ((before, "b"), (tools, "d")):
        onward = after(each, FAILED, view)
        assert onward is not None
        assert onward.route.name == name
        assert "c" not in {left.name for left in onward.fallbacks}


def test_a_route_that_the_catalog_has_no_more_is_passed_over() -> None:
    before = routed(ABC, "a", "b", "c")
    onward = after(before, FAILED, view_with(way("a"), way("c")))
    assert onward is not None
    assert onward.route.name == "c"
    assert onward.fallbacks == ()
    # Of an endpoint that is gone, what its list has left, where somebody still reads it.
    assert after(before, FAILED, VIEW) is None
    kept = Route(name="b", pool="pool-second", model="m")
    onward = after(replace(before, fallbacks=(*before.fallbacks, kept)), FAILED, VIEW)
    assert onward is not None
    assert onward.route == kept


def test_nothing_is_tried_again_once_the_deadline_has_passed() -> None:
    view = view_with(way("a", retries=5), way("b"))
    assert after(routed(view, "a", "b"), FAILED, view, now=NOON + MINUTE) is None
    onward = after(routed(view, "a", "b"), FAILED, view, now=NOON + MINUTE - MS)
    assert onward is not None
    assert onward.route.name == "b"


def test_a_copy_that_nobody_hears_is_not_tried_again() -> None:
    view = view_with(way("a", retries=5), way("b"))
    assert after(routed(view, "a", "b", mirrored=True), FAILED, view) is None


def test_each_try_is_made_of_the_request_as_it_was_admitted() -> None:
    connected = [way("a", connection="main.tests.one", first_token="1s"), way("b")]
    view = view_with(*connected)
    before = routed(view, "a", "b")
    onward = after(before, FAILED, view)
    assert onward is not None
    assert onward.request is before.request
    assert onward.route == route(view, "b")
    assert onward.route.connection == ""
