"""Laws of routing, whatever the catalog, the request and what routes answer."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.catalog import CatalogView
from schemas.events import (
    Completion,
    InferenceRequested,
    InferenceRouted,
    Message,
    Reason,
    Refusal,
    Role,
    Sampling,
    Tool,
)
from streams.gateway.routing import Chosen, Health, next_try
from streams.gateway.routing.balance import BALANCES
from streams.gateway.routing.draw import drawn, ticket
from streams.gateway.routing.fit import fits
from tests.unit.asking import MINUTE, NOON
from tests.unit.events import TEXT
from tests.unit.routing import (
    ANSWER,
    NAME,
    SECOND,
    Gateway,
    chosen,
    decide,
    ended,
    refusal,
    request,
    view_with,
    way,
)

many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

WAYS = st.lists(
    st.builds(
        way,
        st.sampled_from("abcdef"),
        context_tokens=st.none() | st.integers(1, 2000),
        json_schema=st.booleans(),
        mirror=st.sampled_from([0, 0, 0, 0.5, 1]),
        retries=st.integers(0, 5),
        tools=st.booleans(),
        weight=st.none() | st.integers(0, 3),
    ),
    min_size=1,
    max_size=6,
)
REFUSALS = st.builds(
    refusal, st.sampled_from(Reason), retry_after_ms=st.none() | st.integers(-(2**63), 2**63 - 1)
)


@st.composite
def views(draw: st.DrawFn) -> CatalogView:
    """Catalogs whose endpoint is any; two of its routes may even have one name."""
    return view_with(
        *draw(WAYS),
        balance=draw(st.sampled_from(sorted(BALANCES))),
        cooldown={"failures": draw(st.integers(1, 3)), "lasts": "30s"},
        fall_back_on=draw(st.lists(st.sampled_from(sorted(Reason)))),
        sticky=draw(st.sampled_from(["request", "session", "user"])),
    )


@st.composite
def requests(draw: st.DrawFn) -> InferenceRequested:
    """Requests of many lengths, with and without tools and a schema."""
    return request(
        draw(TEXT),
        json_schema=draw(st.none() | st.just("{}")),
        messages=(Message(role=Role.USER, content="x" * draw(st.integers(0, 9000))),),
        sampling=Sampling(max_tokens=draw(st.none() | st.integers(1, 2000))),
        tags=draw(st.dictionaries(st.just("session"), TEXT)),
        tools=draw(st.just(()) | st.just((Tool(name="add", parameters="{}"),))),
    )


@st.composite
def healths(draw: st.DrawFn, view: CatalogView) -> Health:
    """What a process has seen of the endpoint's routes."""
    health = Health()
    endpoint = view.endpoints[NAME]
    for number in range(draw(st.integers(0, 12))):
        routed = InferenceRouted(
            request=request(f"earlier-{number}"),
            route=draw(st.sampled_from(endpoint.routes)),
            routed_at=NOON,
        )
        health.sent(routed, NOON)
        if draw(st.booleans()):
            answer = draw(REFUSALS | st.just(ANSWER))
            health.observe(ended(routed, answer, NOON), view, NOON)
    return health


@many
@given(data=st.data(), view=views(), asked=requests(), seconds=st.integers(-60, 60))
def test_where_a_request_goes_can_serve_it_and_depends_on_nothing_else(
    data: st.DataObject, view: CatalogView, asked: InferenceRequested, seconds: int
) -> None:
    health, now = data.draw(healths(view)), NOON + seconds * SECOND
    found = decide(asked, view, health, now)
    assert found == decide(asked, view, health, now)
    endpoint = view.endpoints[NAME]
    can = [
        each
        for each in endpoint.routes
        if not endpoint.ways[each.name].mirror and fits(asked, endpoint.ways[each.name])
    ]
    if isinstance(found, Refusal):
        assert can == []
        assert found.reason in (Reason.CONTEXT_EXCEEDED, Reason.ROUTE_UNFIT)
        assert asked.messages[0].content not in found.message or len(asked.messages[0].content) < 9
        return
    assert Counter([found.route, *found.fallbacks]) == Counter(can)
    up = [each for each in can if health.up(NAME, each, asked, now)]
    assert found.route in up or not up
    in_order = [each in up for each in found.fallbacks]
    assert in_order == sorted(in_order, reverse=True)
    assert all(endpoint.ways[each.name].mirror for each in found.mirrors)


@many
@given(
    before=views(),
    after=views(),
    asked=requests(),
    answers=st.lists(REFUSALS, min_size=1),
    pause_ms=st.integers(0, 3000),
)
def test_every_request_comes_to_its_end_before_its_deadline(
    before: CatalogView,
    after: CatalogView,
    asked: InferenceRequested,
    answers: list[Refusal],
    pause_ms: int,
) -> None:
    found = decide(asked, before)
    if isinstance(found, Refusal):
        return
    health, now, tries = Health(), NOON, 0
    onward: InferenceRouted | None = InferenceRouted(
        request=asked, route=found.route, fallbacks=found.fallbacks, routed_at=NOON
    )
    while onward is not None:
        routed, answer = onward, answers[tries % len(answers)]
        assert now < asked.deadline
        assert routed.request is asked
        assert len(routed.tried) == routed.attempt == tries
        health.sent(routed, now)
        now = max(now, routed.not_before or now) + pause_ms * timedelta(milliseconds=1)
        # The catalog may change under way.
        view = (before, after)[tries % 2]
        completed = ended(routed, answer, now)
        health.observe(completed, view, now)
        onward = next_try(completed, view, health, now)
        assert onward == next_try(completed, view, health, now)
        if onward is not None:
            assert onward.tried[:-1] == routed.tried
            assert (onward.tried[-1].route, onward.tried[-1].refusal) == (routed.route, answer)
            assert onward.route in (routed.route, *routed.fallbacks)
            assert len(onward.fallbacks) <= len(routed.fallbacks)
        tries += 1
    assert tries <= 6 * 6


@many
@given(key=TEXT, weights=st.lists(st.integers(1, 100), min_size=2, max_size=6))
def test_where_a_route_leaves_only_what_it_had_moves(key: str, weights: list[int]) -> None:
    tickets = {number: ticket(weight, key, str(number)) for number, weight in enumerate(weights)}
    assert all(value > 0 for value in tickets.values())
    winner = max(tickets, key=lambda number: tickets[number])
    for gone in tickets:
        left = {number: value for number, value in tickets.items() if number != gone}
        if gone != winner:
            assert max(left, key=lambda number: left[number]) == winner


@settings(max_examples=15, deadline=None)
@given(weights=st.lists(st.integers(1, 20), min_size=2, max_size=4), salt=TEXT)
def test_over_many_keys_each_route_gets_its_share(weights: list[int], salt: str) -> None:
    view = view_with(*(way(f"r{n}", weight=weight) for n, weight in enumerate(weights)))
    count = 3000
    found = Counter(chosen(request(f"{salt}-{n}"), view).route.name for n in range(count))
    for number, weight in enumerate(weights):
        assert abs(found[f"r{number}"] / count - weight / sum(weights)) < 0.05


@given(names=st.lists(TEXT, min_size=1, max_size=3))
def test_a_draw_lies_between_nothing_and_one_and_is_always_the_same(names: list[str]) -> None:
    assert 0 < drawn(*names) < 1
    assert drawn(*names) == drawn(*names)


@many
@given(view=views(), asked=requests(), answers=st.lists(REFUSALS | st.just(ANSWER), min_size=1))
def test_a_process_goes_on_serving_whatever_its_routes_answer(
    view: CatalogView, asked: InferenceRequested, answers: list[Completion | Refusal]
) -> None:
    if not isinstance(decide(asked, view), Chosen):
        return
    turns = iter(range(10**6))
    gateway = Gateway(view, lambda *_: answers[next(turns) % len(answers)])
    for number in range(5):
        gateway.serve(asked, NOON + number * MINUTE / 10)
    assert gateway.tries
